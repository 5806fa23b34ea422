"""Every error that this library raises.

::

    ChatAPIError
    ├── ConfigurationError (also ValueError)    the call cannot be made as it was written
    ├── APIConnectionError                      no connection, or it was lost before the response began
    ├── APITimeoutError                         one of the waits of ``Timeouts`` was too long; see ``phase``
    ├── APIStatusError                          the server answered with an HTTP error
    │   ├── BadRequestError                     400
    │   ├── AuthenticationError                 401
    │   ├── PaymentRequiredError                402
    │   ├── PermissionDeniedError               403
    │   ├── NotFoundError                       404
    │   ├── ConflictError                       409
    │   ├── UnprocessableEntityError            422
    │   ├── RateLimitError                      429
    │   └── InternalServerError                 500 and above
    ├── AnswerParseError (also ValueError)      the answer came, and does not fit the model that it is to be
    ├── RecordingError (also ValueError)        a file is no recording of an exchange
    └── StreamError                             the response began with 200, and its body went wrong
        ├── ServerStreamError                   the server sent an error inside the stream
        ├── StreamTruncatedError                the body ended before the answer did
        ├── StreamDecodeError                   an event that should be a chunk is none
        ├── EventTooLargeError                  one event is larger than ``max_event_bytes``
        ├── UnexpectedContentTypeError          the body is neither an event stream nor JSON
        ├── EmptyStreamError                    the stream ended properly, with no answer in it
        └── StreamClosedError                   read after it was closed, or after a read was cancelled

An exception of the HTTP layer is only ever the ``__cause__``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .types import ChatCompletionResponse

Processed = Literal["no", "unknown"]
"""Whether the server may have processed (and charged) the request: certainly not, or nobody knows."""

TimeoutPhase = Literal["connect", "write", "pool", "first_chunk", "idle", "total"]
"""Which wait was too long; the names are those of the fields of ``Timeouts``."""


def _restore(cls: type[ChatAPIError], args: tuple[Any, ...], state: dict[str, Any]) -> ChatAPIError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ChatAPIError(Exception):
    """Base of every error of this library. ``str(error)`` says what happened, where, and what to do."""

    request_id: str | None = None
    """The server's id of the request, from its response headers; for a report to whoever runs the server."""

    retryable: bool = False
    """Whether sending the same request again is safe (it was not processed) and may succeed (the cause can pass)."""

    processed: Processed = "unknown"
    """``"no"`` where the request was certainly not processed, and so cost nothing; otherwise ``"unknown"``."""

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        retryable: bool = False,
        processed: Processed = "unknown",
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.retryable = retryable
        self.processed = processed

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not pickle by themselves, and these cross process boundaries.
        return _restore, (type(self), self.args, self.__dict__)


class ConfigurationError(ChatAPIError, ValueError):
    """The call cannot be made as it was written: nothing was sent. Mend the call; the message names the argument."""

    def __init__(self, message: str) -> None:
        super().__init__(message, processed="no")


class APIConnectionError(ChatAPIError):
    """The server could not be reached, or the connection was lost before the response began.

    ``processed`` is ``"no"`` where the connection was never made, ``"unknown"`` where the request may have arrived.
    """


class APITimeoutError(ChatAPIError):
    """One of the waits of ``Timeouts`` was too long."""

    def __init__(
        self,
        message: str,
        *,
        phase: TimeoutPhase,
        limit: float,
        request_id: str | None = None,
        retryable: bool = False,
        processed: Processed = "unknown",
    ) -> None:
        super().__init__(message, request_id=request_id, retryable=retryable, processed=processed)
        self.phase: TimeoutPhase = phase
        """Which wait it was."""
        self.limit = limit
        """The limit of that wait, in seconds."""
        self.partial: ChatCompletionResponse | None = None
        """The completion so far; None where the response had not begun."""
        self.chunks_received = 0
        """Number of chunks that had arrived."""


class APIStatusError(ChatAPIError):
    """The server answered with a status other than 200. 4xx and 5xx have subclasses; redirects are not followed."""

    def __init__(
        self,
        description: str,
        *,
        status_code: int,
        message: str,
        code: str | int | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        retryable: bool = False,
        processed: Processed = "unknown",
    ) -> None:
        super().__init__(description, request_id=request_id, retryable=retryable, processed=processed)
        self.status_code = status_code
        """HTTP status, such as 429."""
        self.message = message
        """The server's own message, or an excerpt of what it sent instead; ``""`` where it sent nothing."""
        self.code = code
        """The server's own code, such as ``unsupported_model``; None where it sent none."""
        self.body = body
        """The body: parsed JSON, or text; at most the first 64 KiB of what was sent."""
        self.headers: Mapping[str, str] = {} if headers is None else headers
        """Response headers; names are matched without regard to case."""
        self.retry_after = retry_after
        """Seconds after which the server asks to be called again, None where it does not say."""


class BadRequestError(APIStatusError):
    """400: the request breaks the contract, or the model is not supported. Mend the request."""


class AuthenticationError(APIStatusError):
    """401: no access token, or an expired one. Give a new token, or a callable that returns a fresh one."""


class PaymentRequiredError(APIStatusError):
    """402: not enough credits; nothing was stored. Add credits."""


class PermissionDeniedError(APIStatusError):
    """403: the operator may not do this. Check the operator id."""


class NotFoundError(APIStatusError):
    """404: no such chatroom, or a base URL that leads elsewhere."""


class ConflictError(APIStatusError):
    """409: the request conflicts with the state of the server."""


class UnprocessableEntityError(APIStatusError):
    """422: the request was understood, and refused."""


class RateLimitError(APIStatusError):
    """429: too many requests; nothing was processed. Wait ``retry_after`` seconds, if given."""


class InternalServerError(APIStatusError):
    """500 and above: the server or the provider behind it failed. The request may have been processed."""


class AnswerParseError(ChatAPIError, ValueError):
    """The answer, or a tool call's arguments, is no JSON or does not fit the model; the ``pydantic.ValidationError`` is
    the ``__cause__``. Ask again, allow more tokens, or make the model more lenient: the message says what is wrong."""

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text
        """The whole text that does not fit."""
        self.partial: ChatCompletionResponse | None = None
        """The completion that it is of; None where a tool call was parsed by itself."""


class RecordingError(ChatAPIError, ValueError):
    """A file is no recording of an exchange, or a damaged one: the message names the line, and what is wrong in it."""

    def __init__(self, message: str, *, line: int) -> None:
        super().__init__(message, processed="no")
        self.line = line
        """Which line of the file it is, counted from 1."""


class StreamError(ChatAPIError):
    """The response began with status 200, and its body went wrong. What had arrived is in ``partial``."""

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.partial: ChatCompletionResponse | None = None
        """The completion so far, with its ``completeness``. None only on an error that no stream has raised."""
        self.chunks_received = 0
        """Number of chunks that had arrived."""


class ServerStreamError(StreamError):
    """The server sent an error inside the stream, after it had begun with status 200."""

    def __init__(
        self,
        description: str,
        *,
        message: str,
        code: str | int | None = None,
        type: str | None = None,
        payload: object = None,
    ) -> None:
        super().__init__(description)
        self.message = message
        """The server's own message."""
        self.code = code
        """The server's own code, None where it sent none."""
        self.type = type
        """The server's own kind of error, None where it sent none."""
        self.payload = payload
        """What the server sent: parsed JSON, or text."""


class StreamTruncatedError(StreamError):
    """The body ended, or the connection was lost, before the answer did."""


class StreamDecodeError(StreamError):
    """An event that should be a chunk is none: broken JSON, or fields of a wrong kind."""

    def __init__(self, message: str, *, event: str) -> None:
        super().__init__(message)
        self.event = event
        """The event's data, or the JSON body, as it came."""


class EventTooLargeError(StreamError):
    """One event, or a JSON body, is larger than ``max_event_bytes``."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"an event is larger than max_event_bytes={limit}; raise the limit if such events are expected"
        )
        self.limit = limit
        """The limit, in bytes."""


class UnexpectedContentTypeError(StreamError):
    """Status 200 with a body that is neither an event stream nor JSON, such as a proxy's HTML page."""

    def __init__(self, message: str, *, content_type: str, body: str) -> None:
        super().__init__(message)
        self.content_type = content_type
        """The response's ``Content-Type``, ``""`` where it had none."""
        self.body = body
        """The beginning of the body, at most 64 KiB."""


class EmptyStreamError(StreamError):
    """The stream ended properly with no answer in it: a known fault of the service, and no empty answer."""

    def __init__(self) -> None:
        super().__init__("the stream ended without an answer in it: the server failed, though it did not say so")


class StreamClosedError(StreamError):
    """The stream was read after it, or its client, was closed, or after a read of it was cancelled."""
