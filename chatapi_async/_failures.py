"""From what went wrong to the error that is raised: one constructor for each failure. No I/O, no clock."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from html import unescape
from math import isfinite
from typing import Any, NamedTuple

from ._json import is_array, is_object
from ._surrogates import without_halves
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    Processed,
    RateLimitError,
    ServerStreamError,
    StreamClosedError,
    StreamTruncatedError,
    TimeoutPhase,
    UnexpectedContentTypeError,
    UnprocessableEntityError,
)

_EXCERPT_LENGTH = 200
_ERROR_KIND = re.compile(
    r"error|exception|exceeded|invalid|fail|denied|forbidden|unauthori|unavailable|overloaded|timeout", re.IGNORECASE
)
_MESSAGE_LENGTH = 1000
_HTML = re.compile(r"<(!doctype|html|head|body|title|h1|p)\b", re.IGNORECASE)
_MARKUP = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[a-z/!?][^>]*(?:>|\Z)", re.IGNORECASE | re.DOTALL
)
_STATUS_ERRORS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
_STATUS_ADVICE = {
    400: "Mend the request; it was not processed.",
    401: "Give a valid token, or a callable that returns a fresh one; the request was not processed.",
    402: "Add credits; nothing was processed or stored.",
    403: "Check the operator id and what it may do; the request was not processed.",
    404: "Check the chatroom id and the base URL; the request was not processed.",
    422: "Mend the request; it was not processed.",
}
# A request that timed out or conflicted may have begun; every other 4xx was refused before any work.
_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)
_PERHAPS_PROCESSED = frozenset({303, 408, 409, 424, 499})
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id")
_TIMEOUT_WORDS: dict[TimeoutPhase, str] = {
    "connect": "no connection",
    "write": "the request could not be sent",
    "pool": "no free connection",
    "first_chunk": "no chunk",
    "idle": "no new chunk",
    "total": "the stream was not finished",
}


class ErrorWords(NamedTuple):
    """What an error payload says, whichever of its shapes it has."""

    message: str
    code: str | int | None
    type: str | None


def error_words(payload: object) -> ErrorWords:
    """Read an error payload: ``{message}``, ``{error: text}``, ``{error: {message, type, code}}``, ``{code, message}``,
    ``{detail}``, or plain text."""
    if isinstance(payload, str):
        return ErrorWords(payload.strip(), None, None)
    if not is_object(payload):
        return ErrorWords(_as_json(payload), None, None)
    error: object = payload.get("error")
    inner = error if is_object(error) else {}
    texts: tuple[object, ...] = (
        inner.get("message"),
        payload.get("message"),
        error,
        inner.get("detail"),
        payload.get("detail"),
    )
    message = next((text for text in texts if isinstance(text, str) and text), "") or _as_json(payload)
    code = next((code for code in (inner.get("code"), payload.get("code")) if isinstance(code, str | int)), None)
    kind = (inner or payload).get("type")
    return ErrorWords(message, code, kind if isinstance(kind, str) else None)


def find_error(payload: dict[str, Any], *, named: bool = False) -> dict[str, Any] | None:
    """Return the error in the object of an event or a JSON body: the object itself, one of its choices, or None.

    An object is an error if its ``error`` is not empty. One without choices whose ``message`` or ``detail`` is a text
    is one too, if it has a ``code``, or its ``type`` or ``object`` speaks of an error, or it has neither of these; of
    an event that is ``named``, and not for an error, only if its ``type`` or ``object`` says so.
    """
    if _says_something(payload.get("error")):
        return payload
    if is_array(choices := payload.get("choices")) and choices:
        found = (choice for choice in choices if is_object(choice) and _says_something(choice.get("error")))
        return next(found, None)
    if not any(isinstance(payload.get(key), str) and payload[key] for key in ("message", "detail")):
        return None
    kind = f"{payload.get('type') or ''} {payload.get('object') or ''}".strip()
    if _ERROR_KIND.search(kind):
        return payload
    says_so = not named and ("code" in payload or not (kind or choices is not None))
    return payload if says_so else None


def _says_something(error: object) -> bool:
    # Null stands for absent, and so does an object of nulls.
    return any(error.values()) if is_object(error) else bool(error)


def server_stream_error(payload: object) -> ServerStreamError:
    """Make the error of an error event, or of an error object in any other event."""
    words = error_words(payload)
    description = f"the server sent an error in the stream: {_described(words)}"
    return ServerStreamError(description, message=words.message, code=words.code, type=words.type, payload=payload)


def status_error(
    *,
    where: str,
    status_code: int,
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    request_id: str | None,
) -> APIStatusError:
    """Make the error of a response whose status is no success.

    Args:
        where: what was asked, such as ``POST https://…``.
        status_code: HTTP status.
        headers: response headers.
        body: the beginning of the body.
        now: the time of day in seconds since 1970, for a ``Retry-After`` that is a date.
        request_id: the server's id of the request.
    """
    text = body.decode("utf-8-sig", "replace")
    try:
        payload: object = without_halves(json.loads(text))
    except (ValueError, RecursionError):
        payload = text
        words = ErrorWords(excerpt(text), None, None)
    else:
        words = error_words(payload)
    retry_after = parse_retry_after(headers.get("retry-after"), now=now)
    not_begun = status_code == 429 or (status_code == 503 and retry_after is not None)
    processed: Processed = "no" if not_begun else _processed(status_code)
    advice = _advice(status_code, headers, retry_after, not_begun)
    error_type = _STATUS_ERRORS.get(status_code) or (InternalServerError if status_code >= 500 else APIStatusError)
    return error_type(
        f"HTTP {status_code} from {where}: {_described(words)}. {advice}",
        status_code=status_code,
        message=words.message,
        code=words.code,
        body=payload,
        headers=headers,
        retry_after=retry_after,
        request_id=request_id,
        retryable=not_begun,
        processed=processed,
    )


def not_connected(where: str, detail: str) -> APIConnectionError:
    """Make the error of a connection that was never made."""
    message = f"could not connect for {where}: {detail}. Nothing was sent; check the base URL and the network."
    return APIConnectionError(message, retryable=True, processed="no")


def connection_lost(where: str, detail: str) -> APIConnectionError:
    """Make the error of a connection that was lost before the response began."""
    message = (
        f"the connection was lost before {where} was answered: {detail}. "
        "The server may have processed the request, so it is not sent again."
    )
    return APIConnectionError(message)


def timed_out(phase: TimeoutPhase, limit: float, where: str, *, sent: bool) -> APITimeoutError:
    """Make the error of a wait that was too long; ``sent`` says whether the request may have been sent by then."""
    consequence = "The server may have processed the request." if sent else "Nothing was sent."
    return APITimeoutError(
        f"{_TIMEOUT_WORDS[phase]} within {limit:g} s ({phase} timeout) for {where}. {consequence}",
        phase=phase,
        limit=limit,
        retryable=not sent,
        processed="unknown" if sent else "no",
    )


def truncated(detail: str) -> StreamTruncatedError:
    """Make the error of a body that ended before the answer did."""
    return StreamTruncatedError(f"the stream ended before the answer did: {detail}; what had arrived is in .partial")


def closed(why: str) -> StreamClosedError:
    """Make the error of reading a stream that is closed."""
    return StreamClosedError(f"the stream cannot be read: {why}; what had arrived is in .partial")


def unexpected_content_type(content_type: str, body: bytes) -> UnexpectedContentTypeError:
    """Make the error of a successful response that is neither an event stream nor JSON."""
    text = body.decode("utf-8", "replace")
    kind = f"Content-Type {content_type!r}" if content_type else "no Content-Type"
    return UnexpectedContentTypeError(
        f"the server answered with {kind}, neither an event stream nor JSON: {excerpt(text) or 'an empty body'}. "
        "Check that the base URL leads to the service and not to a proxy's page.",
        content_type=content_type,
        body=text,
    )


def unexpected_encoding(content_type: str, encoding: str) -> UnexpectedContentTypeError:
    """Make the error of a successful response that is compressed in a way that is not read."""
    return UnexpectedContentTypeError(
        f"the server compressed its answer by {encoding!r}, though it was asked not to, and only gzip and deflate are "
        "read all the same. Turn it off in the proxy that does it, and leave Accept-Encoding alone.",
        content_type=content_type,
        body="",
    )


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the server's id of the request; None where the headers of its response have none."""
    return next((headers[name] for name in _REQUEST_ID_HEADERS if name in headers), None)


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Read ``Retry-After`` (RFC 9110, 10.2.3): seconds, or an HTTP date; None where it is absent or neither."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
            # A date without a zone is in UTC, as every HTTP date is.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None


def excerpt(text: str) -> str:
    """Return the words of a text or an HTML page on one line, at most 200 characters."""
    beginning = text[: 20 * _EXCERPT_LENGTH]
    if _HTML.search(beginning):
        beginning = unescape(_MARKUP.sub(" ", beginning))
    return shortened(" ".join(beginning.split()), _EXCERPT_LENGTH)


def shortened(text: str, length: int) -> str:
    """Return the text, at most ``length`` characters of it."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _processed(status_code: int) -> Processed:
    return "no" if 300 <= status_code < 500 and status_code not in _PERHAPS_PROCESSED else "unknown"


def _advice(status_code: int, headers: Mapping[str, str], retry_after: float | None, not_begun: bool) -> str:
    if not_begun:
        wait = "a while" if retry_after is None else f"{retry_after:g} s"
        return f"Nothing was processed; wait {wait}, then send it again."
    if 300 <= status_code < 400:
        place = excerpt(headers.get("location", "it does not say"))
        return f"Redirects are not followed; set the base URL to where this one leads: {place}."
    if advice := _STATUS_ADVICE.get(status_code):
        return advice
    if _processed(status_code) == "no":
        return "The request was not processed."
    return "The request may have been processed and charged; look before you send it again."


def _described(words: ErrorWords) -> str:
    code = "" if words.code is None else f" (code {shortened(str(words.code), _EXCERPT_LENGTH)})"
    return f"{shortened(words.message, _MESSAGE_LENGTH) or 'no message'}{code}"


def _as_json(payload: object) -> str:
    try:
        return excerpt(json.dumps(payload, ensure_ascii=False)) if payload else ""
    except RecursionError:
        return "an error nested too deeply to show"
