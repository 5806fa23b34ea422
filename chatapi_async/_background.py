"""Reading in a task of its own, so that a wait for the next item can end without ending the read; asyncio and trio."""

from __future__ import annotations

import asyncio
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio import CancelScope, Event, current_time, move_on_after

from ._closing import CLOSE_SECONDS, on_asyncio, undisturbed
from ._failures import closed
from .errors import ConfigurationError

SourceT = TypeVar("SourceT")
ItemT = TypeVar("ItemT")


class _Queue(Generic[SourceT]):
    """What was read for one consumer, and has not been taken yet."""

    def __init__(self) -> None:
        self.items: deque[SourceT] = deque()
        self.wanted = False
        self.ended = False
        self.abandoned = False
        self.error: Exception | None = None
        self._news: Event | None = None
        self._task: asyncio.Task[Any] | None = None
        self._when_done: Callable[[asyncio.Task[Any]], object] | None = None

    @property
    def ready(self) -> bool:
        """Whether there is something to take, be it the end."""
        return bool(self.items) or self.ended

    def put(self, item: SourceT) -> None:
        self.items.append(item)
        self.wanted = False
        self._wake()

    def end(self, error: Exception | None) -> None:
        self.ended = True
        self.error = error
        self._wake()

    async def news(self) -> None:
        """Wait for the next item, or for the end."""
        self._news = Event()
        await self._news.wait()

    def follow(self, task: asyncio.Task[Any] | None, when_done: Callable[[asyncio.Task[Any]], object]) -> None:
        """Have ``when_done`` called when the task that reads is done; None for no task."""
        if task is not self._task:
            if self._task is not None and self._when_done is not None:
                self._task.remove_done_callback(self._when_done)
            self._task, self._when_done = task, when_done
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
        buffer: how many items may be ahead of the slowest consumer before reading pauses; None for any number, 0 to
            read only while a consumer waits.
    """

    def __init__(self, source: AsyncIterable[SourceT], buffer: int | None) -> None:
        self._iterator = aiter(source)
        self._buffer = buffer
        self._queues: list[_Queue[SourceT]] = []
        self._scope: CancelScope | None = None
        self._call_soon: Callable[[Callable[[], object]], object] | None = None
        self._finished: Event | None = None
        self._room: Event | None = None

    def join(self) -> _Queue[SourceT]:
        """Return the queue of a new consumer. All consumers join before the first one reads."""
        queue = _Queue[SourceT]()
        self._queues.append(queue)
        return queue

    def start(self) -> None:
        """Begin to read; no effect if that was done."""
        if self._scope is None:
            self._scope = scope = CancelScope()
            self._finished = finished = Event()
            self._call_soon = _spawn(lambda: self._run(scope, finished))

    def go_on(self) -> None:
        """Say that a consumer took an item, wants one, or left: there may be room for more."""
        if self._room is not None and self._has_room():
            self._room.set()
            self._room = None

    async def leave(self, queue: _Queue[SourceT]) -> None:
        """Take a consumer away. The last one waits until the source is closed; that is bounded in time."""
        self._remove(queue)
        queue.items.clear()
        queue.end(closed("it was closed"))
        if not self._queues:
            await undisturbed(self._close if self._finished is None else self._wait_for_the_end)

    def follow(self, queue: _Queue[SourceT]) -> None:
        """See to it that a consumer is taken away when the present task is cancelled, be it while it does not read.

        A framework that is cancelled while it sends leaves the consumer to the garbage collector, in a cycle with the
        traceback of the cancellation. trio does not tell when a task is done.
        """
        if on_asyncio():
            queue.follow(asyncio.current_task(), lambda task: self._task_done(queue, task))

    def _task_done(self, queue: _Queue[SourceT], task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            queue.abandoned = True
            self._remove(queue)

    def forget(self, queue: _Queue[SourceT]) -> None:
        """Take a consumer away that was collected, in whatever thread."""
        if self._call_soon is None:
            self._remove(queue)
            return
        with suppress(RuntimeError):  # the event loop is gone, and the task with it
            self._call_soon(lambda: self._remove(queue))

    def _remove(self, queue: _Queue[SourceT]) -> None:
        queue.follow(None, bool)
        if queue in self._queues:
            self._queues.remove(queue)
            self.go_on()
        if not self._queues and self._scope is not None:
            self._scope.cancel()

    def _has_room(self) -> bool:
        if not self._buffer:
            return self._buffer is None or any(queue.wanted for queue in self._queues)
        return all(len(queue.items) < self._buffer for queue in self._queues)

    async def _wait_for_the_end(self) -> None:
        with move_on_after(2 * CLOSE_SECONDS):
            if self._finished is not None:
                await self._finished.wait()

    async def _run(self, scope: CancelScope, finished: Event) -> None:
        error: Exception | None = closed("the task that read it was cancelled")
        try:
            with scope:
                error = await self._read()
        finally:
            for queue in self._queues:
                queue.end(error)
            finished.set()

    async def _read(self) -> Exception | None:
        try:
            try:
                async for item in self._iterator:
                    for queue in self._queues:
                        queue.put(item)
                    if not self._has_room():
                        self._room = Event()
                        await self._room.wait()
            finally:
                await self._close()
        except Exception as error:
            return error  # raised to each consumer
        return None

    async def _close(self) -> None:
        with CancelScope(deadline=current_time() + CLOSE_SECONDS, shield=True):
            await close_iterator(self._iterator)


async def close_iterator(iterator: AsyncIterator[Any]) -> None:
    """Close an iterator, if it can be closed."""
    close: Callable[[], Coroutine[Any, Any, None]] | None = getattr(iterator, "aclose", None)
    if close is not None:
        await close()


_tasks: set[asyncio.Task[None]] = set()


def _spawn(run: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[Callable[[], object]], object]:
    """Start a task that ends with the event loop, and return what calls a function in that loop from any thread."""
    if on_asyncio():
        loop = asyncio.get_running_loop()
        task = loop.create_task(run())
        _tasks.add(task)  # an event loop keeps only weak references to its tasks
        task.add_done_callback(_tasks.discard)
        return loop.call_soon_threadsafe
    import trio

    trio.lowlevel.spawn_system_task(run, context=copy_context())
    return trio.lowlevel.current_trio_token().run_sync_soon


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
        self._end: Exception | None = None
        self._busy = False
        self._forgotten = weakref.finalize(self, reader.forget, self._queue)
        self._forgotten.atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        self._raise_if_closed()
        if self._busy:
            raise ConfigurationError("two tasks read one iterator at once; let one task read, and hand on what it gets")
        self._busy = True
        self._reader.follow(self._queue)
        try:
            return await self._next()
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
        """Return the next item; raise ``StopAsyncIteration`` or the source's error at the end."""

    async def _wait(self, seconds: float | None = None) -> bool:
        """Wait until something can be taken; False if that takes longer than ``seconds``."""
        queue = self._queue
        if not queue.ready:
            queue.wanted = True
            self._reader.start()
            self._reader.go_on()
            with move_on_after(seconds):
                while not queue.ready:
                    await queue.news()
        self._raise_if_closed()
        return queue.ready

    async def _pause(self, seconds: float) -> None:
        """Let time pass while reading goes on; no longer once the iterator is closed."""
        with move_on_after(seconds):
            while self._end is None:
                await self._queue.news()
        self._raise_if_closed()

    def _raise_if_closed(self) -> None:
        if self._end is None and self._queue.abandoned:
            self._end = closed("the task that read it was cancelled")
        if self._end is not None:
            raise self._end

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
