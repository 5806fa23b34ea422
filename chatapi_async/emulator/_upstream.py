"""Where the emulator relays to: the address, the key and the model of an OpenAI-compatible server. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import quote

import httpx

_CONCEALED = "[key]"
# A shorter key is no secret but a word that a server wants to be sent, such as "ollama", and may be part of an answer.
_SHORTEST_SECRET = 16
# Of what JSON can hold as it is, Go writes these by their numbers, and .NET those.
_ESCAPED = (("&<>", "x"), ("&<>'+`", "X"))
_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Upstream:
    """An OpenAI-compatible server that answers in the place of the emulator's own model.

    Raises:
        ValueError: the address or the key cannot be used; the message says why, and does not show the key.
    """

    base_url: str
    """What the server's operations are under, such as ``"http://localhost:11434/v1"``."""

    key: str | None = field(default=None, repr=False)
    """The server's own API key; None, the default, for none. No client's access token is ever sent there."""

    model: str | None = None
    """The model that is asked for in the place of every other; by default the one that the request names, or the
    server's first where it names none or a size."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base_url", _checked(self.base_url))
        if self.key is not None and not re.fullmatch(r"[!-~]+", self.key):
            raise ValueError("the upstream's key is empty, or holds what no header can: spaces, line ends, non-ASCII")
        if self.model == "":
            raise ValueError("the upstream's model is empty; name one, or leave it out")

    def url(self, path: str) -> str:
        """Return the address of an operation, such as ``"/models"``."""
        return f"{self.base_url}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """What every request to it says of who asks."""
        return {} if self.key is None else {"authorization": f"Bearer {self.key}"}

    def concealment(self) -> Concealment:
        """Return what takes the key out of one body."""
        secret = self.key is not None and len(self.key) >= _SHORTEST_SECRET
        return Concealment([form.encode() for form in _forms(self.key or "")] if secret else [])

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, which no proxy leads to."""
        host = httpx.URL(self.base_url).host
        if host == "localhost" or host.endswith(".localhost"):
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or address.is_unspecified

    def concealed(self, text: str) -> str:
        """Return what the server said as it can be shown: without the key, which it may have repeated, and without
        halves of characters, which cannot be sent."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        if self.key is None:
            return text
        key = "|".join(map(re.escape, _forms(self.key)))
        # A short one may be part of other words.
        return re.sub(
            key if len(self.key) >= _SHORTEST_SECRET else rf"(?<![^\W_])(?:{key})(?![^\W_])", _CONCEALED, text
        )


class Concealment:
    """Takes a key out of the bytes of one body as they pass by, however they are split.

    What may be the beginning of the key is held until more comes. It never is where a piece ends with a line, as the
    pieces of an event stream do.

    Args:
        forms: the key, in each form in which it may be written; none for no key.
    """

    def __init__(self, forms: Collection[bytes]) -> None:
        self._forms = forms
        self._pattern = re.compile(b"|".join(map(re.escape, forms)))
        beginnings = {form[:size] for form in forms for size in range(1, len(form))}
        self._beginnings = sorted(beginnings, key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be passed on now that ``data`` has come."""
        if not self._forms:
            return data
        passed = self._pattern.sub(_CONCEALED.encode(), self._held + data)
        held = next((len(beginning) for beginning in self._beginnings if passed.endswith(beginning)), 0)
        self._held = passed[len(passed) - held :]
        return passed[: len(passed) - held]

    def close(self) -> bytes:
        """Return what was held, now that the body has ended."""
        return self._held


def _forms(key: str) -> list[str]:
    """Return the key as it may be written: as it is, in JSON as one or the other language has it, in an address."""
    written = json.dumps(key)[1:-1]
    escaped = [written.translate({ord(each): f"\\u{ord(each):04{case}}" for each in more}) for more, case in _ESCAPED]
    # The longest first, since one may be the beginning of another.
    return sorted({key, written, written.replace("/", r"\/"), *escaped, quote(key, safe="")}, key=len, reverse=True)


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
        host = url.host
    except (httpx.InvalidURL, UnicodeError, TypeError):
        raise ValueError("the upstream's address is no URL; it should look like http://localhost:11434/v1") from None
    if url.scheme not in ("http", "https") or not host or (url.port or 1) > _HIGHEST_PORT:
        raise ValueError(
            "the upstream's address is no http or https URL; it should look like http://localhost:11434/v1"
        )
    if re.search(r"\s", base_url):
        raise ValueError("the upstream's address has a space in it; it should look like http://localhost:11434/v1")
    if url.userinfo:
        raise ValueError("the upstream's address holds a user name or password; give the upstream's key instead")
    if "?" in base_url or "#" in base_url:
        raise ValueError("the upstream's address has a query or a fragment; paths are appended to it, so it cannot")
    checked = base_url.rstrip("/")
    if checked.endswith("/chat/completions"):
        raise ValueError(f"leave out the operation: the upstream's address is {checked[: -len('/chat/completions')]}")
    return checked
