"""Reads an asynchronous iterable in the background, for one consumer or several."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

from anyio import CancelScope, Event, current_time, move_on_after

from ._background_task import BackgroundTask
from ._closing import CLOSE_SECONDS, on_asyncio, undisturbed
from ._failures import closed

SourceT = TypeVar("SourceT")


class Queue(Generic[SourceT]):
    """What was read for one consumer, and has not been taken yet."""

    def __init__(self) -> None:
        self.items: deque[SourceT] = deque()
        self.wanted = False
        self.ended = False
        self.poked = False
        self.abandoned = False
        self.error: BaseException | None = None
        self.task: asyncio.Task[Any] | None = None
        """The task that read last, on asyncio."""
        self._news: Event | None = None
        self._when_done: Callable[[asyncio.Task[Any]], object] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is something to take, be it the end."""
        return bool(self.items) or self.ended

    def put(self, item: SourceT) -> None:
        self.items.append(item)
        self.wanted = False
        self._wake()

    def end(self, error: BaseException | None) -> None:
        self.ended = True
        self.error = error
        self._wake()

    def poke(self) -> None:
        """Wake the consumer, though nothing came."""
        self.poked = True
        self._wake()

    async def news(self) -> None:
        """Wait for the next item, for the end, or to be poked."""
        self._news = Event()
        await self._news.wait()

    def follow(self, task: asyncio.Task[Any] | None, when_done: Callable[[asyncio.Task[Any]], object]) -> None:
        """Have ``when_done`` called when the task that reads is done; None for no task."""
        if task is not self.task:
            if self.task is not None and self._when_done is not None:
                self.task.remove_done_callback(self._when_done)
            self.task, self._when_done = task, when_done
            if task is not None:
                task.add_done_callback(when_done)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


class BackgroundReader(Generic[SourceT]):
    """Reads an asynchronous iterable in a task of its own, for one consumer or several; each gets every item.

    It knows the consumers' queues alone, and not the consumers, so that a consumer that is forgotten is collected.
    When the last consumer has left, the read is cancelled and the source closed.

    Args:
        source: what is read; it is closed at the end, if it can be.
        buffer: how many items may be ahead of the slowest consumer before reading pauses, until half of them are
            taken; None for any number, 0 to read only while a consumer waits.
    """

    def __init__(self, source: AsyncIterable[SourceT], buffer: int | None) -> None:
        self._iterator = aiter(source)
        self._buffer = buffer
        self._queues: list[Queue[SourceT]] = []
        self._task: BackgroundTask | None = None
        self._finished: Event | None = None
        self._source_closed = False
        self._room: Event | None = None

    def join(self) -> Queue[SourceT]:
        """Return the queue of a new consumer. All consumers join before the first one reads."""
        queue = Queue[SourceT]()
        self._queues.append(queue)
        return queue

    def start(self) -> None:
        """Begin to read; no effect if that was done."""
        if self._finished is None:
            self._finished = Event()
            self._task = BackgroundTask(self._read, self._end)

    def go_on(self) -> None:
        """Say that a consumer took an item, wants one, or left: there may be room for more."""
        if self._room is not None and self._has_room((self._buffer or 0) // 2 + 1):
            self._room.set()
            self._room = None

    async def leave(self, queue: Queue[SourceT]) -> None:
        """Take a consumer away. The last one waits until the source is closed; that is bounded in time."""
        self._remove(queue)
        queue.items.clear()
        queue.end(closed("it was closed"))
        if not self._queues:
            await undisturbed(self._wait_for_the_end)

    def follow(self, queue: Queue[SourceT]) -> None:
        """See to it that a consumer is taken away when the present task is cancelled, be it while it does not read.

        A framework that is cancelled while it sends leaves the consumer to the garbage collector, in a cycle with the
        traceback of the cancellation. trio does not tell when a task is done.
        """
        if on_asyncio():
            queue.follow(asyncio.current_task(), lambda task: self._task_done(queue, task))

    def _task_done(self, queue: Queue[SourceT], task: asyncio.Task[Any]) -> None:
        if task.cancelled() and task is queue.task:  # no other one reads by now
            queue.abandoned = True
            self._remove(queue)

    def forget(self, queue: Queue[SourceT]) -> None:
        """Take a consumer away that was collected, in whatever thread."""
        if self._task is None:
            self._remove(queue)
            return
        with suppress(RuntimeError):  # the event loop is gone, and the task with it
            self._task.call_soon(lambda: self._remove(queue))

    def _remove(self, queue: Queue[SourceT]) -> None:
        queue.follow(None, bool)
        if queue in self._queues:
            self._queues.remove(queue)
            self.go_on()
        if not self._queues and self._task is not None:
            with suppress(RuntimeError):  # as above
                self._task.cancel()

    def _has_room(self, limit: int) -> bool:
        if not self._buffer:
            return self._buffer is None or any(queue.wanted for queue in self._queues)
        return all(len(queue.items) < limit for queue in self._queues)

    async def _wait_for_the_end(self) -> None:
        with move_on_after(2 * CLOSE_SECONDS):
            if self._finished is not None:
                await self._finished.wait()
        await self._close()

    def _end(self, error: BaseException | None) -> None:
        for queue in tuple(self._queues):
            queue.end(error)
        if self._finished is not None:
            self._finished.set()

    async def _read(self) -> None:
        try:
            async for item in self._iterator:
                for queue in tuple(self._queues):
                    queue.put(item)
                if not self._queues:
                    break
                if not self._has_room(self._buffer or 0):
                    self._room = Event()
                    await self._room.wait()
        except GeneratorExit:
            self._source_closed = True  # its event loop is gone, so that nothing can be awaited
            raise
        finally:
            await self._close()

    async def _close(self) -> None:
        if self._source_closed:
            return
        self._source_closed = True
        with CancelScope(deadline=current_time() + CLOSE_SECONDS, shield=True):
            await close_iterator(self._iterator)


async def close_iterator(iterator: AsyncIterator[Any]) -> None:
    """Close an iterator, if it can be closed."""
    close: Callable[[], Coroutine[Any, Any, None]] | None = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
