"""What a caller configures, checked before anything is sent: addresses, headers, credentials, the request. No I/O."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple, cast
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from .errors import ConfigurationError
from .types import ChatCompletionRequest, Message, MessagesOrRequest

Token = str | Callable[[], str | Awaitable[str]]
"""An access token, or a function, sync or async, that returns a fresh one."""

DEFAULT_BASE_URL = "http://localhost"
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_NO_HEADER_VALUE = re.compile(r"[^\x20-\x7e\t]")
# What users of other clients type.
_MEANT = {"max_tokens": "max_completion_tokens", "headers": "extra_headers", "system": "a system message"}
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})
_NO_HEADER_NAME = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the ``Authorization`` header comes from. Holds no secret itself, so that none can be shown."""

    header: Callable[[], Awaitable[str]] = field(repr=False)
    """Returns the header's value for one attempt."""

    refreshable: bool
    """Whether asking again can give another value."""

    @classmethod
    def of(cls, *, token: Token | None, authorization: str | None) -> Credentials | None:
        """Read the client's arguments; None where neither is given.

        Raises:
            ConfigurationError: both are given, or one cannot be sent.
        """
        if token and authorization:
            raise ConfigurationError("give token= or authorization=, not both")
        if authorization:
            return cls._fixed(checked_header("authorization", authorization))
        if isinstance(token, str):
            return cls._fixed(_bearer(token)) if token else None
        if token is None:
            return None
        if not callable(token):
            raise ConfigurationError(f"the token must be a str or a function, not {type(token).__name__}")
        ask = token

        async def ask_for_token() -> str:
            answer = ask()
            return _bearer(await answer if inspect.isawaitable(answer) else answer)

        return cls(ask_for_token, refreshable=True)

    @classmethod
    def _fixed(cls, value: str) -> Credentials:
        async def fixed() -> str:
            return value

        return cls(fixed, refreshable=False)


def _bearer(token: object) -> str:
    if not isinstance(token, str) or not token:
        raise ConfigurationError("the token is empty, or no str; give the access token itself")
    if token.lower().startswith("bearer "):
        raise ConfigurationError("give the token without 'Bearer', or the whole header as authorization=")
    return checked_header("authorization", f"Bearer {token}")


def checked_base_url(base_url: object) -> str:
    """Return the base URL without a slash at its end.

    Raises:
        ConfigurationError: it is no http or https URL, or has parts that a base URL cannot have.
    """
    if not isinstance(base_url, str):
        raise ConfigurationError(f"the base URL must be a str, not {type(base_url).__name__}")
    try:
        parts = urlsplit(base_url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ConfigurationError("the base URL is no URL; it should look like https://api.example.com") from None
    if not valid or _UNPRINTABLE.search(base_url):
        raise ConfigurationError("the base URL is no http or https URL; it should look like https://api.example.com")
    if "@" in parts.netloc:
        raise ConfigurationError("the base URL holds a user name or password; give token= or authorization= instead")
    if "?" in base_url or "#" in base_url:
        raise ConfigurationError("the base URL has a query or a fragment; paths are appended to it, so it cannot")
    return base_url.rstrip("/")


def is_exposed(base_url: str) -> bool:
    """Tell whether what is sent there, tokens included, can be read on the way: plain http to another machine."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return True


def chatroom_segment(chatroom_id: object) -> str:
    """Return a chatroom's id as one segment of a path: whatever it holds, it leads to no other path.

    Raises:
        ConfigurationError: it is empty, no str, or ``.`` or ``..``, which no encoding keeps from being resolved.
    """
    if not isinstance(chatroom_id, str) or chatroom_id.strip() in ("", ".", ".."):
        raise ConfigurationError(f"{chatroom_id!r} is no chatroom id")
    try:
        return quote(chatroom_id, safe="")
    except UnicodeEncodeError:
        raise ConfigurationError(f"the chatroom id {chatroom_id!r} cannot be encoded") from None


def checked_header(name: object, value: object) -> str:
    """Return a header's value; the error never shows it, since it may be a secret.

    Raises:
        ConfigurationError: the name or the value cannot be sent in a header.
    """
    if not isinstance(name, str) or not name or _NO_HEADER_NAME.search(name):
        raise ConfigurationError(f"{name!r} is no name of a header")
    if name.lower() in _FRAMING_HEADERS:
        raise ConfigurationError(f"the {name} header cannot be given; it follows from the body")
    if not isinstance(value, str):
        raise ConfigurationError(f"the {name} header must be a str, not {type(value).__name__}")
    if found := _NO_HEADER_VALUE.search(value):
        place = f"character {found.start()} is {found.group()!r}"
        raise ConfigurationError(f"the {name} header cannot be sent: {place}; only printable ASCII can, so strip it")
    if value != value.strip() or not value:
        raise ConfigurationError(f"the {name} header cannot be sent: it is empty, or has space around it; strip it")
    return value


def checked_headers(headers: object) -> dict[str, str]:
    """Return a call's own headers, by their lower-case names.

    Raises:
        ConfigurationError: they are no mapping, or one of them cannot be sent.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"extra_headers must be a mapping, not {type(headers).__name__}")
    given = cast(Mapping[object, object], headers)
    return {str(name).lower(): checked_header(name, value) for name, value in given.items()}


class RequestBody(NamedTuple):
    """The body of a request."""

    content: bytes
    """JSON."""
    choices: int
    """How many answers it asks for."""


def checked_body(messages_or_request: MessagesOrRequest, fields: Mapping[str, object]) -> RequestBody:
    """Return the JSON body of the request that a call describes.

    Raises:
        ConfigurationError: a field is unknown, out of bounds, or nothing that JSON can hold; the message names each.
    """
    if isinstance(messages_or_request, Mapping | Message | bytes):
        kind = type(messages_or_request).__name__
        raise ConfigurationError(f"messages must be a str, a list of messages, or a whole request, not a {kind}")
    try:
        request = ChatCompletionRequest.build(messages_or_request, fields)
        return RequestBody(request.to_body(), request.n or 1)
    except ValidationError as error:
        problems = [
            _problem(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False, include_input=False)
        ]
        # The error of pydantic shows what was given, which may be a token by a wrong name.
        raise ConfigurationError(f"the request was not sent: {'; '.join(problems)}") from None
    except TypeError as error:
        raise ConfigurationError("messages must be a str, a sequence of messages, or a whole request") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the request was not sent, since it cannot be written as JSON: {error}") from error


def _problem(location: tuple[int | str, ...], message: str) -> str:
    place = ".".join(str(step) for step in location)
    hint = f"; did you mean {_MEANT[place]}?" if place in _MEANT else ""
    return f"{place}: {message}{hint}"


def checked_size(name: str, value: object) -> int:
    """Return a number of bytes.

    Raises:
        ConfigurationError: it is no positive whole number.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name}={value!r} is no positive number of bytes")
    return value
