"""``Recording``: one exchange with the server as it went, and what the client reads of it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from ._accumulate import MessageAccumulator
from ._body_decoder import DEFAULT_MAX_EVENT_BYTES, EXCERPT_BYTES
from ._decode_stream import EndOfBody, decoded
from ._failures import request_id_of, status_error, truncated
from ._json import is_object
from .errors import (
    APIConnectionError,
    APITimeoutError,
    ChatAPIError,
    ConfigurationError,
    Processed,
    StreamClosedError,
    TimeoutPhase,
)
from .types import (
    BaseChunk,
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    ChatCompletionWithChatroomStreamResponse,
    Completeness,
)

Operation = Literal["chat_completion", "chat_completion_on_chatroom"]
"""Which of the two operations was called."""

Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""A time, in seconds; no exchange takes thirty years."""

Headers = Mapping[
    Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9a-z-]+$")],
    Annotated[str, Field(pattern=r"^[^\x00\r\n]*$")],
]
"""Headers, by lower-case names."""

How = Literal["body_ended", "client_closed", "connection_closed", "connection_reset", "unreadable", "no_response"]
"""How an exchange ended: with the body, as it should; closed by the client, in its middle or before the response; the
connection closed, or reset, by the other side; a body that could not be decompressed; no response, since there was no
connection, or it was lost."""

CHUNK_TYPES: Final[Mapping[Operation, type[BaseChunk]]] = {
    "chat_completion": ChatCompletionChunkResponse,
    "chat_completion_on_chatroom": ChatCompletionWithChatroomStreamResponse,
}
"""The model of a chunk of each operation."""


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """The request of a recording."""

    method: str
    """``"POST"``."""
    url: str
    """Where it went."""
    headers: Headers
    """By lower-case names: those that the library gave. ``[removed]`` stands for each that holds a secret."""
    body: Any
    """The body as parsed JSON; as its text where it holds a number that Python does not parse."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One read of the response's body."""

    seconds: Seconds
    """When, since the request began."""
    data: bytes = field(repr=False)
    """What was read, decompressed; ``[token]`` stands for a token that the server repeated."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client made of an exchange."""

    completeness: Completeness
    """How whole the answer was."""
    error: str | None = None
    """The name of the error's class, such as ``"StreamTruncatedError"``; None where there was none."""
    message: str = ""
    """What the error said."""
    phase: TimeoutPhase | None = None
    """Which wait was too long, of an ``APITimeoutError``."""
    limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The limit, of an ``APITimeoutError`` in seconds, of an ``EventTooLargeError`` in bytes; 0 where the network's own
    limit ended the wait."""
    processed: Processed = "unknown"
    """Whether the request may have been processed, as the error has it."""
    retryable: bool = False
    """Whether sending it again is safe, as the error has it."""

    def as_error(self) -> ChatAPIError:
        """Return the error anew, for an end that the bytes do not show."""
        again: dict[str, Any] = {"retryable": self.retryable, "processed": self.processed}
        if self.error == "APITimeoutError":
            return APITimeoutError(self.message, phase=self.phase or "total", limit=self.limit or 0.0, **again)
        if self.error == "ConfigurationError":
            return ConfigurationError(self.message)
        if self.error == "StreamClosedError":
            return StreamClosedError(self.message)
        return (APIConnectionError if self.error == "APIConnectionError" else ChatAPIError)(self.message, **again)


@dataclass(frozen=True, slots=True)
class End:
    """How a recorded exchange ended."""

    seconds: Seconds
    """When, since the request began."""
    how: How
    """In which way."""
    detail: str = ""
    """What the HTTP layer said of it; ``""`` for nothing."""
    outcome: Outcome | None = None
    """What the client made of it; None where that follows from the rest, since the request was sent again."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange with the server: a request, and what came of it. A request that is sent again is another one."""

    library: str
    """What recorded it, such as ``"chatapi-async 0.1.0"``."""
    began: datetime
    """When the request began."""
    operation: Operation
    """Which operation was called."""
    request: RecordedRequest
    """What was sent."""
    status_code: int | None = None
    """HTTP status; None where no response came."""
    headers: Headers = field(default_factory=dict[str, str])
    """Headers of the response, by lower-case names; ``[removed]`` stands for each that holds a secret."""
    responded: Seconds | None = None
    """Seconds from the beginning of the request to the response's headers; None where no response came."""
    pieces: tuple[Piece, ...] = field(default=(), repr=False)
    """The body as it came."""
    end: End | None = None
    """How it ended; None where the recording broke off before that, as when the process was killed."""

    @property
    def body(self) -> bytes:
        """All of the body that came, decompressed."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def stopped(self) -> bool:
        """Whether the client left it without a failure: the caller stopped, closed or cancelled the stream."""
        if self.end is None:
            return False
        if self.end.outcome is not None:
            return self.end.outcome.completeness == "stopped"
        return self.end.how == "client_closed" and not _is_refusal(self.status_code)

    def chunks(self) -> Iterator[BaseChunk]:
        """Return an iterator of the chunks, which ends as the client's stream did: with the same error, or none.

        Where the caller left the stream, or a cancellation ended it, the chunks end without an error.

        Raises:
            ChatAPIError: from the iterator: what the client raises. A recording that broke off is a
                ``StreamTruncatedError``.
        """
        return chunks_of(self, (piece.data for piece in self.pieces))

    def completion(self) -> ChatCompletionResponse:
        """Return the completion.

        Raises:
            ChatAPIError: as :meth:`chunks` does, with what had come as its ``.partial``.
        """
        accumulator = MessageAccumulator()
        for chunk in self.chunks():
            accumulator.add(chunk)
        return accumulator.completion("stopped" if self.stopped else "complete")


def chunks_of(recording: Recording, pieces: Iterable[bytes]) -> Iterator[BaseChunk]:
    """Yield the chunks of a recording, whose pieces are handed in, perhaps at the pace in which they came.

    Raises:
        ChatAPIError: what the client raises.
    """
    request_id = request_id_of(recording.headers)
    try:
        if recording.status_code is None:
            for _ in pieces:  # there are none, but their end may be waited for
                pass
            if recording.end is None:
                raise truncated("the recording broke off before any answer")
            if (error := _end_of(recording).error) is not None:
                raise error
        elif not _is_refusal(recording.status_code):
            yield from _answer(recording, pieces)
        elif not recording.stopped:
            raise status_error(
                where=f"{recording.request.method} {recording.request.url}",
                status_code=recording.status_code,
                headers=recording.headers,
                body=b"".join(pieces)[:EXCERPT_BYTES],
                now=recording.began.timestamp() + (recording.responded or 0.0),
                request_id=request_id,
            )
    except ChatAPIError as error:
        error.request_id = error.request_id or request_id
        raise


def _answer(recording: Recording, pieces: Iterable[bytes]) -> Iterator[BaseChunk]:
    body = recording.request.body
    choices = body.get("n") if is_object(body) else None
    outcome = None if recording.end is None else recording.end.outcome
    limit = outcome.limit if outcome is not None and outcome.error == "EventTooLargeError" else None
    return decoded(
        pieces,
        recording.headers,
        chunk_type=CHUNK_TYPES[recording.operation],
        choices=choices if isinstance(choices, int) else 1,
        max_event_bytes=DEFAULT_MAX_EVENT_BYTES if limit is None else int(limit),
        end=_end_of(recording),
    )


def _is_refusal(status_code: int | None) -> bool:
    return status_code is not None and not 200 <= status_code < 300


def _end_of(recording: Recording) -> EndOfBody:
    end = recording.end
    if end is None:
        return EndOfBody("the recording broke off", whole=False)
    if recording.stopped:
        return EndOfBody(None, whole=False)
    if end.how == "body_ended":
        return EndOfBody()
    if end.how in ("client_closed", "no_response"):
        if end.outcome is None or end.outcome.error is None:
            return EndOfBody(None, whole=False)
        # Where the client had read enough to refuse the body, that is judged as it was.
        whole = end.outcome.error not in ("APITimeoutError", "StreamClosedError")
        return EndOfBody(None, whole=whole, error=end.outcome.as_error())
    return EndOfBody(f"the connection broke ({end.detail})", whole=False)
