"""What is odd about a value that a person configured: quotes, line breaks, placeholders, the wrong value. Pure.

No sentence shows the value, which may be a token by mistake.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from typing import NamedTuple
from urllib.parse import urlsplit

from chatapi_async._json import is_object

_QUOTES = "\"'`“”‘’«»"
_PLACEHOLDER = re.compile(
    r"…|\.\.\.$|^<.*>$|^\[.*\]$|^x{3,}$|^\*{3,}$|(^|[^a-z])(your|my|insert|replace|change|put|enter|paste)[-_ ]?"
    r"(me|this|it|here|the|api|access|operator|tenant|token|key|id|url|server|own|secret)",
    re.IGNORECASE,
)
_WORD_FOR_NOTHING = re.compile(r"(none|null|nil|undefined|todo|token|secret|changeme)", re.IGNORECASE)
_UNEXPANDED = re.compile(r"^\$\{?\w+\}?$|^%\w+%$|\{\{.*\}\}|^\$\(.*\)$")
_NAME_AND_VALUE = re.compile(r"^(export\s+)?CHATAPI_\w+\s*=", re.IGNORECASE)
_API_PATH = re.compile(r"/v1(/llms(/.*)?)?/?$|/chat/completions/?$")
_OPERATOR = re.compile(r"tn_\w+")
_EXAMPLE_HOST = re.compile(r"(^|\.)example\.(com|org|net)$|^your[-.]|\.example$", re.IGNORECASE)
_LONGEST_PAYLOAD = 16_384


class Oddity(NamedTuple):
    """What is odd, and what to do."""

    words: str
    """Follows the value's name, such as ``has quotes around it``."""

    advice: str


def oddity_of(value: str, name: str) -> Oddity | None:
    """Return what is odd about a value of any kind, None where nothing is.

    Args:
        value: what was given.
        name: what it is called in the advice, such as ``CHATAPI_TOKEN``.
    """
    bare = value.strip()
    if value != bare:
        if "\n" in value or "\r" in value:
            advice = f"Take the line break out of {name}; a file that is read whole ends with one."
            return Oddity("has a line break before or after it", advice)
        return Oddity("has space before or after it", f"Take the space out of {name}.")
    if bare[:1] in _QUOTES or bare[-1:] in _QUOTES:
        return Oddity("has quotes around it", f"Take the quotes off {name}; Docker and some .env files keep them.")
    if _NAME_AND_VALUE.search(bare):
        return Oddity("has the variable's own name in it", f"Give {name} only what stands behind the equals sign.")
    if _UNEXPANDED.search(bare):
        return Oddity("is a variable that nothing has filled in", f"See why {name} is not replaced by its value.")
    if _PLACEHOLDER.search(bare) or _WORD_FOR_NOTHING.fullmatch(bare):
        return Oddity("looks like a placeholder", f"Put the real value into {name}.")
    if re.search(r"\s", bare):
        return Oddity("has space inside it", f"Take the space or line break out of {name}.")
    return None


def oddity_of_address(base_url: str, name: str) -> Oddity | None:
    """Return what is odd about a base URL."""
    if odd := oddity_of(base_url, name):
        return odd
    if "://" not in base_url and not base_url.lower().startswith(("http:", "https:")):
        return Oddity("has no https:// before it", f"Write https:// before it in {name}.")
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
    except ValueError:
        return None
    if _API_PATH.search(parts.path):
        return Oddity(
            "ends with a path of the API, which the library appends itself",
            f"End {name} before /v1: the library asks BASE_URL/v1/llms/chat/completions.",
        )
    if _EXAMPLE_HOST.search(host):
        return Oddity("is an example's address", f"Put your service's own address into {name}.")
    return None


def oddity_of_token(token: str, name: str, *, operator_id: str, now: float) -> Oddity | None:
    """Return what is odd about an access token.

    Args:
        token: the token.
        name: what it is called in the advice.
        operator_id: the operator id beside it.
        now: the time of day in seconds since 1970.
    """
    if odd := _oddity_of_bearer(token, name) or oddity_of(token, name):
        return odd
    if _OPERATOR.fullmatch(token):
        return Oddity("looks like an operator id", f"Give {name} the access token; are it and the operator id swapped?")
    if token == operator_id:
        return Oddity("is the same as the operator id", f"Give {name} the access token, which is another value.")
    expiry = expiry_of(token)
    if expiry is not None and expiry <= now:
        return Oddity(
            f"says of itself that it expired {span(now - expiry)} ago",
            f"Get a fresh access token, and put it into {name}. A program that runs for long gives the client a "
            "function as token=, which returns a fresh one.",
        )
    return None


def _oddity_of_bearer(token: str, name: str) -> Oddity | None:
    bare = token.strip(f"{_QUOTES} \t\r\n").lower()
    if bare.startswith("authorization:"):
        return Oddity("has the header's name in it", f"Give {name} the token alone, without 'Authorization: Bearer'.")
    if re.match(r"bearer(\s|:|$)", bare):
        return Oddity(
            "begins with the word Bearer", f"Give {name} the token alone: the library writes Bearer before it."
        )
    return None


def oddity_of_operator(operator_id: str, name: str) -> Oddity | None:
    """Return what is odd about an operator id."""
    if odd := oddity_of(operator_id, name):
        return odd
    if expiry_of(operator_id) is not None:
        return Oddity(
            "looks like an access token", f"Give {name} the operator id; are it and the access token swapped?"
        )
    return None


def expiry_of(token: str) -> float | None:
    """Return when a token that is a JSON Web Token (RFC 7519) says that it expires, in seconds since 1970; None for
    every other token."""
    parts = token.split(".")
    if len(parts) != 3 or not 0 < len(parts[1]) <= _LONGEST_PAYLOAD:
        return None
    try:
        payload: object = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expiry = payload.get("exp") if is_object(payload) else None
        return float(expiry) if isinstance(expiry, int | float) and not isinstance(expiry, bool) else None
    except (ValueError, OverflowError, RecursionError):
        return None


def span(seconds: float) -> str:
    """Say how long a time is, in the unit that a person would use."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return "less than a minute"
