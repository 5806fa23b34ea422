"""``ChatStream``: one answer as it arrives, and every way of reading it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Generator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Self

from ._accumulate import first_message
from ._failures import closed
from ._reader import StreamReader, StreamStats
from .types import (
    AnyEvent,
    BaseChunk,
    ChatCompletionResponse,
    ChunkEvent,
    ChunkT,
    HeartbeatEvent,
    Message,
    UnknownEvent,
)

logger = logging.getLogger("chatapi_async")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ChatStream(Generic[ChunkT]):
    """One answer, as it arrives: an asynchronous iterator of chunks.

    It is returned at once, without I/O. The request is sent when the stream is first iterated, awaited, or entered with
    ``async with``; whichever comes first. Every way of reading takes from the same stream: each chunk is seen once, in
    whatever mixture, and :meth:`get_final_completion` after half an iteration reads the rest.

    Leaving a loop early leaves the answer running on the server; use ``async with``, :meth:`stop` or :meth:`aclose` to
    end it there and then. A stream that is forgotten is closed when it is collected.

    A read that is cancelled closes the stream: bytes may have been lost, so it never ends as if it were complete.
    One task reads at a time. :meth:`stop` and :meth:`aclose` may be called by another.
    """

    def __init__(self, reader: StreamReader[ChunkT]) -> None:
        self._reader = reader
        self._unknown_logged = False

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChunkT:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the answer is complete, or was stopped.
            ChatAPIError: see the errors' own descriptions; what had arrived stays in :attr:`snapshot`.
        """
        while (item := await self._reader.next()) is not None:
            if isinstance(item, UnknownEvent):
                self._log_unknown(item)
            elif not isinstance(item, HeartbeatEvent):
                self._reader.accumulator.add(item)
                return item
        raise StopAsyncIteration

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The new text of the first choice, piece by piece; never an empty piece."""
        return _TextStream(self)

    def events(self) -> AsyncIterator[ChunkEvent[ChunkT] | AnyEvent]:
        """Return an iterator of typed events: each chunk, followed by what it means. Match them on ``type``."""
        return _EventStream(self._reader)

    async def until_done(self) -> None:
        """Read the stream to its end.

        Raises:
            ChatAPIError: as iteration does.
        """
        async for _ in self:
            pass

    async def get_final_completion(self) -> ChatCompletionResponse:
        """Read the stream to its end, and return the completion, with every choice, usage and :attr:`completeness`.

        A stopped stream returns what had arrived; ``finish_reason == "length"`` is a result like any other.

        Raises:
            ChatAPIError: as iteration does.
        """
        await self.until_done()
        return self.snapshot

    async def get_final_message(self) -> Message:
        """Read the stream to its end, and return the message of the first choice.

        Raises:
            StreamClosedError: the stream was stopped before any of the answer had come.
            ChatAPIError: as iteration does.
        """
        completion = await self.get_final_completion()
        if completion.message is None and completion.completeness == "stopped":
            error = closed("it was stopped before any of the answer had come")
            error.partial = completion
            raise error
        return first_message(completion)

    async def get_final_text(self) -> str:
        """Read the stream to its end, and return the text of the first choice.

        Raises:
            ChatAPIError: as iteration does.
        """
        return (await self.get_final_completion()).text

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    def __await__(self) -> Generator[object, None, Self]:
        """Send the request, wait for the response to begin, and return the stream itself."""
        return self._opened().__await__()

    async def __aenter__(self) -> Self:
        return await self._opened()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def stop(self) -> None:
        """End the answer now, and keep what came: iteration ends, :meth:`get_final_completion` returns the part that
        had arrived, with ``completeness == "stopped"``. No effect on a stream that has ended."""
        await self._reader.end_early(None)

    async def aclose(self) -> None:
        """Close the stream; reading on raises :class:`StreamClosedError`. No effect on a stream that has ended."""
        await self._reader.end_early(closed("it was closed"))

    # ── what is known so far ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def snapshot(self) -> ChatCompletionResponse:
        """The completion so far: ``truncated`` while the stream runs."""
        return self._reader.snapshot

    @property
    def status_code(self) -> int | None:
        """HTTP status of the response, None before it."""
        response = self._reader.response
        return None if response is None else response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response, matched without regard to case; empty before it."""
        response = self._reader.response
        return _NO_HEADERS if response is None else response.headers

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, from its headers; None before the response, or where it sends none."""
        response = self._reader.response
        return None if response is None else response.request_id

    @property
    def stats(self) -> StreamStats:
        """Measurements so far."""
        return self._reader.stats

    def __reduce__(self) -> str:
        raise TypeError("a ChatStream cannot be pickled or copied; hand on its snapshot")

    def __repr__(self) -> str:
        return f"<ChatStream {self._reader}>"

    async def _opened(self) -> Self:
        await self._reader.open()
        return self

    def _log_unknown(self, event: UnknownEvent) -> None:
        if not self._unknown_logged:
            self._unknown_logged = True
            logger.warning(
                "%s: skipped an unknown event %r (logged once a stream)", str(self._reader), event.event[:200]
            )


class _TextStream:
    """The new text of the first choice, piece by piece."""

    def __init__(self, stream: ChatStream[Any]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            chunk: BaseChunk = await self._stream.__anext__()
            if text := chunk.text:
                return text


class _EventStream(Generic[ChunkT]):
    """The typed events of a stream."""

    def __init__(self, reader: StreamReader[ChunkT]) -> None:
        self._reader = reader
        self._pending: deque[ChunkEvent[ChunkT] | AnyEvent] = deque()
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChunkEvent[ChunkT] | AnyEvent:
        while not self._pending:
            if self._ended:
                raise StopAsyncIteration
            item = await self._reader.next()
            if item is None:
                self._ended = True
                self._pending.extend(self._reader.accumulator.end() if self._reader.complete else ())
            elif isinstance(item, HeartbeatEvent | UnknownEvent):
                return item
            else:
                self._pending.append(ChunkEvent(item))
                self._pending.extend(self._reader.accumulator.add_with_events(item))
        return self._pending.popleft()
