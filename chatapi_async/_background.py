"""Iterators that read in the background, so that a wait for the next item can end without ending the read."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio import move_on_after

from ._background_reader import BackgroundReader, SourceT
from ._background_task import was_cancelled
from ._failures import closed
from .errors import ConfigurationError

ItemT = TypeVar("ItemT")
OtherT = TypeVar("OtherT")
ResultT = TypeVar("ResultT")


class BackgroundStream(ABC, Generic[SourceT, ItemT]):
    """An asynchronous iterator over what a task of its own reads from a source, which goes on while the caller is busy.

    Reading begins with the first item that is asked for. At the end, and after ``aclose()``, the end of ``async with``,
    or a read that is cancelled, the source is closed; also when the iterator is forgotten, as by leaving a loop early,
    and on asyncio when the task that read last is cancelled between two reads.
    After a cancelled read it raises :class:`~chatapi_async.StreamClosedError`, and never ends as if it were complete.
    """

    def __init__(self, reader: BackgroundReader[SourceT]) -> None:
        self._reader = reader
        self._queue = reader.join()
        self._end: BaseException | None = None
        self._busy = False
        self._forgotten = weakref.finalize(self, reader.forget, self._queue)
        self._forgotten.atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        return await self._exclusively(self._next)

    async def next_within(self, seconds: float, otherwise: OtherT) -> ItemT | OtherT:
        """Return the next item, or ``otherwise`` if none comes within ``seconds``; none is lost, nor made before it is
        asked for."""

        async def wait() -> ItemT | OtherT:
            with move_on_after(seconds):
                return await self._next()
            return otherwise

        return await self._exclusively(wait)

    async def _exclusively(self, read: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        self._raise_if_closed()
        if self._busy:
            raise ConfigurationError("two tasks read one iterator at once; let one task read, and hand on what it gets")
        self._busy = True
        self._reader.follow(self._queue)
        try:
            return await read()
        except GeneratorExit:
            self._end = closed("a read of it was abandoned")  # its event loop is gone, so nothing can be awaited
            raise
        except BaseException as error:
            if self._end is None:
                self._end = error if isinstance(error, Exception) else closed("a read of it was cancelled")
            await self.aclose()
            raise
        finally:
            self._busy = False

    async def aclose(self) -> None:
        """Close the source, and end; reading on raises :class:`~chatapi_async.StreamClosedError`, unless the end had
        come. No effect if it is closed."""
        if self._end is None:
            self._end = closed("it was closed")
        if self._forgotten.detach() is not None:
            await self._reader.leave(self._queue)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @abstractmethod
    async def _next(self) -> ItemT:
        """Return the next item; raise ``StopAsyncIteration`` or the source's error at the end.

        Where it is cancelled, nothing may be lost.
        """

    async def _wait(self, seconds: float | None = None) -> bool:
        """Wait until something can be taken; False if that takes longer than ``seconds``, or if it is poked."""
        queue = self._queue
        if not queue.ready:
            queue.wanted = True
            self._reader.start()
            self._reader.go_on()
            with move_on_after(seconds):
                while not (queue.ready or queue.poked):
                    await queue.news()
        queue.poked = False
        self._raise_if_closed()
        return queue.ready

    async def _pause(self, seconds: float) -> None:
        """Let time pass while reading goes on; no longer once the iterator is closed, or if it is poked."""
        with move_on_after(seconds):
            while self._end is None and not self._queue.poked:
                await self._queue.news()
        self._queue.poked = False
        self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._end is None and self._queue.abandoned:
            self._end = was_cancelled()
        if self._end is not None:
            raise self._end.with_traceback(None)

    @property
    def _came(self) -> int:
        """How many items can be taken."""
        return len(self._queue.items)

    @property
    def _over(self) -> bool:
        """Whether the source has ended, and all of it was taken."""
        return self._queue.ended and not self._queue.items

    def _take(self) -> SourceT:
        """Return the next item of the source; at its end raise its error, or ``StopAsyncIteration``."""
        if self._queue.items:
            item = self._queue.items.popleft()
            self._reader.go_on()
            return item
        raise self._queue.error or StopAsyncIteration
