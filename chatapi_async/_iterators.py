"""The iterators over one stream: its text, its events, and the objects that its JSON says so far."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ._reader import StreamReader
from .errors import ChatAPIError
from .types import AnyEvent, BaseChunk, ChunkEvent, ChunkT, HeartbeatEvent, UnknownEvent
from .types.response import json_text

if TYPE_CHECKING:
    from ._partial import Snapshots
    from ._stream import ChatStream

T = TypeVar("T")

_REST = 4
"""How many times as long as making a snapshot took, at least, none is made: it is time that others wait."""


class TextIterator:
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

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class EventIterator(Generic[ChunkT]):
    """The typed events of a stream."""

    def __init__(self, reader: StreamReader[ChunkT], close: Callable[[], Awaitable[None]]) -> None:
        self._reader = reader
        self._close = close
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

    async def aclose(self) -> None:
        """Close the stream."""
        await self._close()


class ObjectIterator(Generic[T]):
    """What the JSON of the first choice says so far, again and again.

    Args:
        stream: the stream.
        snapshots: makes each of a completion.
        every: the shortest time between two, in seconds; 0 for one after each chunk, whatever that costs.
        parsed: calls what parses the whole answer.
    """

    def __init__(
        self,
        stream: ChatStream[Any],
        snapshots: Snapshots[T],
        every: float,
        parsed: Callable[[Callable[[], T | None]], T | None],
    ) -> None:
        self._stream = stream
        self._snapshots = snapshots
        self._every = every
        self._parsed = parsed
        self._grown = True
        self._not_before = 0.0
        self._ended = False
        self._error: ChatAPIError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while self._error is None:
            if (snapshot := self._due()) is not None:
                return snapshot
            if self._ended:
                raise StopAsyncIteration
            try:
                chunk: BaseChunk = await self._stream.__anext__()
                self._grown = self._grown or _writes(chunk)
            except StopAsyncIteration:
                self._ended = True
            except ChatAPIError as error:
                snapshot = self._fail(error)
            if self._ended:
                snapshot = self._whole()
            if snapshot is not None:
                return snapshot
        failure, self._error = self._error, None
        raise failure

    async def aclose(self) -> None:
        """Close the stream."""
        self._error = None
        await self._stream.aclose()

    def _due(self) -> T | None:
        now = monotonic()
        if self._ended or not self._grown or now < self._not_before:
            return None
        self._grown = False
        completion = self._stream.snapshot
        if not json_text(completion):
            return None
        snapshot = self._snapshots.so_far(completion)
        if self._every:
            ended = monotonic()
            self._not_before = ended + max(self._every, _REST * (ended - now))
        return snapshot

    def _whole(self) -> T | None:
        try:
            return self._parsed(lambda: self._snapshots.last(self._stream.snapshot))
        except ChatAPIError as error:
            return self._fail(error)

    def _fail(self, error: ChatAPIError) -> T | None:
        self._error = error
        return self._snapshots.so_far(self._stream.snapshot)


def _writes(chunk: BaseChunk) -> bool:
    return any(choice.index == 0 and (choice.delta.text or choice.delta.tool_calls) for choice in chunk.choices)
