"""The life of one stream: it is opened, read chunk by chunk, and ends in one of four ways, with all that came kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ._accumulate import MessageAccumulator
from ._body import Body
from ._decode import DONE, HEARTBEAT, NOTHING
from ._ends import attach, completeness_after, end_with_body, end_with_done
from ._failures import closed
from ._patience import InterruptedWaitError, Patience, patience
from ._response import BodyBrokenError, ReadableResponse
from ._timeouts import Timeouts
from .errors import ChatAPIError, ConfigurationError, StreamClosedError, StreamError
from .types import ChatCompletionResponse, ChunkT, Completeness, HeartbeatEvent, UnknownEvent

T = TypeVar("T")

logger = logging.getLogger("chatapi_async")
# Where a program configures no logging, Python would print warnings into its output.
logger.addHandler(logging.NullHandler())

_HEARTBEAT = HeartbeatEvent()


@dataclass(frozen=True, slots=True)
class StreamStats:
    """Measurements of one stream so far."""

    time_to_first_chunk: float | None
    """Seconds from the start of the request to the first chunk, retries included; None before it."""
    chunks: int
    """Number of chunks."""
    heartbeats: int
    """Number of keep-alive comments and empty events: signs of life while the model says nothing."""
    bytes: int
    """Bytes of the body, decompressed."""
    duration: float
    """Seconds from the start of the request to the end of the stream, or to now; 0 before the request."""


class StreamReader(Generic[ChunkT]):
    """Reads one stream.

    Args:
        send: sends the request, within the patience that it is given, and returns a response of status 2xx.
        chunk_type: the model of a chunk.
        timeouts: the limits.
        max_event_bytes: bound of one event, in bytes.
        where: what is asked, such as ``POST https://…``, for messages.
        choices: how many answers were asked for.
        conceal: takes the call's tokens out of an error.
        on_end: told how the stream ended.
    """

    def __init__(
        self,
        send: Callable[[Patience], Awaitable[ReadableResponse]],
        *,
        chunk_type: type[ChunkT],
        timeouts: Timeouts,
        max_event_bytes: int,
        where: str,
        choices: int,
        conceal: Callable[[ChatAPIError], None],
        on_end: Callable[[Completeness, ChatAPIError | None], None] | None = None,
    ) -> None:
        self.accumulator = MessageAccumulator()
        self.response: ReadableResponse | None = None
        self._send = send
        self._chunk_type = chunk_type
        self._timeouts = timeouts
        self._max_event_bytes = max_event_bytes
        self._where = where
        self._choices = choices
        self.conceal = conceal
        self._on_end = on_end
        self._patience: Patience | None = None
        self._body: Body[ChunkT] | None = None
        self._busy = False
        self._completeness: Completeness | None = None
        self._error: ChatAPIError | None = None
        self._chunks = 0
        self._heartbeats = 0
        self._nothing_new = False
        self._began: float | None = None
        self._first_chunk: float | None = None
        self._ended: float | None = None

    @property
    def complete(self) -> bool:
        """Whether the server said that the answer ended."""
        return self._completeness == "complete"

    @property
    def snapshot(self) -> ChatCompletionResponse:
        """The completion so far."""
        return self.accumulator.completion(self._completeness or "truncated")

    @property
    def stats(self) -> StreamStats:
        """Measurements so far."""
        began = self._began
        return StreamStats(
            time_to_first_chunk=None if began is None or self._first_chunk is None else self._first_chunk - began,
            chunks=self._chunks,
            heartbeats=self._heartbeats,
            bytes=0 if self._body is None else self._body.bytes_received,
            duration=0.0 if began is None else (self._ended or time.monotonic()) - began,
        )

    def __str__(self) -> str:
        state = self._completeness or ("new" if self._began is None else "open")
        return f"{self._where} ({state}, {self._chunks} chunks)"

    async def open(self) -> None:
        """Send the request, unless that was done, and wait for the response to begin."""
        if self._runs() and self._body is None:
            await self._exclusively(self._open)

    def next(self) -> Coroutine[Any, Any, ChunkT | HeartbeatEvent | UnknownEvent | None]:
        """Return the next chunk, which the caller merges, or other event; None once the stream has ended well.

        Raises:
            ChatAPIError: the stream ended otherwise, now or before.
        """
        return self._exclusively(self._advance)

    async def end_early(self, error: StreamClosedError | None) -> None:
        """End the stream for the caller; ``error`` is what reading on raises. No effect if it has ended."""
        if self._completeness is not None:
            return
        try:
            self._end("stopped", error)
        finally:  # those who are told of it may raise KeyboardInterrupt
            if self._patience is not None and self._busy:
                self._patience.interrupt()  # the task that reads closes the body, since it is inside it
            elif self._body is not None:
                await self._body.aclose()

    def _runs(self) -> bool:
        if self._error is not None:
            raise self._error
        return self._completeness is None

    async def _exclusively(self, operation: Callable[[], Awaitable[T]]) -> T | None:
        if not self._runs():
            return None
        if self._busy:
            raise ConfigurationError("two tasks read one stream at once; let one task read, and hand on what it gets")
        self._busy = True
        try:
            return await operation()
        except InterruptedWaitError:
            self._runs()  # raises what the task that ended the stream left to be raised
            return None
        except GeneratorExit:
            self._end("stopped", closed("a read of it was abandoned"))
            self._body = None  # its event loop is gone, so nothing can be awaited any more
            raise
        except BaseException as error:
            if self._completeness == "stopped" and isinstance(error, ChatAPIError):
                self._runs()  # stopped by another task before this came of it
                return None
            self._end_with(error)
            raise
        finally:
            self._busy = False
            if self._completeness is not None and self._body is not None:
                await self._body.aclose()

    async def _open(self) -> Body[ChunkT]:
        self._began = time.monotonic()
        self._patience = patience(self._timeouts, self._where)
        self.response = await self._send(self._patience)
        self._body = Body(
            self.response,
            chunk_type=self._chunk_type,
            patience=self._patience,
            max_event_bytes=self._max_event_bytes,
        )
        if self._completeness is not None:
            raise InterruptedWaitError  # stopped in the moment in which the response came
        return self._body

    async def _advance(self) -> ChunkT | HeartbeatEvent | UnknownEvent | None:
        body = self._body or await self._open()
        if self._nothing_new:
            await body.caller_reads_on()
        while True:
            try:
                item = await body.next()
            except StopAsyncIteration:
                self._end_of_body(body, "the body ended", None)
                return None
            except BodyBrokenError as broken:
                self._end_of_body(body, f"the connection broke ({broken})", broken.__cause__)
                return None
            if item is DONE:
                end_with_done(self.accumulator)
                self._end("complete", None)
                await body.drain()
                return None
            if item is NOTHING:
                continue
            if item is HEARTBEAT:
                self._heartbeats += 1
                return self._without_news(body, _HEARTBEAT)
            if isinstance(item, UnknownEvent):
                return self._without_news(body, item)
            self._chunks += 1
            if self._first_chunk is None:
                self._first_chunk = time.monotonic()
            elif not item.has_content:
                return self._without_news(body, item)
            self._nothing_new = False
            body.waits.content_came()
            return item

    def _without_news(self, body: Body[ChunkT], item: T) -> T:
        self._nothing_new = True
        body.nothing_new_came()
        return item

    def _end_of_body(self, body: Body[ChunkT], how: str, cause: BaseException | None) -> None:
        end_with_body(
            self.accumulator,
            how=how,
            chunks=self._chunks,
            choices=self._choices,
            excerpt=body.excerpt,
            cause=cause,
        )
        self._end("complete", None)

    def _end_with(self, error: BaseException) -> None:
        if isinstance(error, ChatAPIError):
            self.conceal(error)
            self._end(completeness_after(error), error)
        elif isinstance(error, Exception):
            self._end("failed", closed(f"reading it failed with {type(error).__name__}"))
        else:
            self._end("stopped", closed("a read of it was cancelled"))

    def _end(self, completeness: Completeness, error: ChatAPIError | None) -> None:
        if self._completeness is not None:
            return
        self._completeness = completeness
        self._error = error
        self._ended = time.monotonic()
        if self._patience is not None:
            self._patience.end()
        if self.response is not None and error is not None and error.request_id is None:
            error.request_id = self.response.request_id
        if error is not None and (self.response is not None or isinstance(error, StreamError)):
            attach(error, self.snapshot, self._chunks)
        if self._on_end is not None:
            self._on_end(completeness, error)
        logger.debug("%s ended after %.3f s", str(self), self.stats.duration)
