"""The waits of one stream: each ends with what it waits for, at its limit, or when another task interrupts it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import Context
from math import inf
from typing import Any, TypeVar, cast

from anyio import CancelScope, current_time

from ._closing import on_asyncio
from ._failures import timed_out
from ._timeouts import Timeouts, Waits
from .errors import APITimeoutError

T = TypeVar("T")

_current_task = cast(Callable[[asyncio.AbstractEventLoop], asyncio.Task[Any]], asyncio.current_task)
"""The task that runs; there is one wherever a coroutine waits on asyncio."""


class InterruptedWaitError(Exception):
    """The wait was ended by :meth:`Patience.interrupt`."""


class Patience(ABC):
    """The waits of one stream, one at a time."""

    now: Callable[[], float]
    """The event loop's clock, in seconds."""

    def __init__(self, timeouts: Timeouts, where: str) -> None:
        self.waits = Waits(timeouts, self.now())
        self._where = where
        self._interrupted = False
        self._sent = True

    @abstractmethod
    async def wait_for(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what ``operation`` returns.

        Raises:
            APITimeoutError: a limit came first.
            InterruptedWaitError: the wait was interrupted.
        """

    def request_sent(self, sent: bool) -> None:
        """Say whether the request may have been sent; without a word it counts as sent."""
        self._sent = sent

    def interrupt(self) -> None:
        """End the present wait, and every later one."""
        self._interrupted = True
        self._end_wait()

    @abstractmethod
    def end(self) -> None:
        """Say that there will be no more waits."""

    @abstractmethod
    def _end_wait(self) -> None: ...

    def _over(self) -> APITimeoutError | InterruptedWaitError:
        """Make the error of a wait that was ended."""
        if self._interrupted:
            return InterruptedWaitError()
        phase, limit = self.waits.expired(self.now())
        return timed_out(phase, limit, self._where, sent=self._sent)


def patience(timeouts: Timeouts, where: str) -> Patience:
    """Return the patience of a stream that begins now, for the event loop that runs."""
    return AsyncioPatience(timeouts, where) if on_asyncio() else TrioPatience(timeouts, where)


class TrioPatience(Patience):
    """Waits on trio."""

    def __init__(self, timeouts: Timeouts, where: str) -> None:
        self.now = current_time
        self._scope = CancelScope()
        super().__init__(timeouts, where)

    async def wait_for(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self._interrupted:
            raise InterruptedWaitError
        with CancelScope(deadline=self.waits.deadline(self.now())) as self._scope:
            return await operation()
        raise self._over()

    def end(self) -> None:
        """There is no timer to drop."""

    def _end_wait(self) -> None:
        self._scope.cancel()


class AsyncioPatience(Patience):
    """Waits on asyncio, ended as ``asyncio.timeout`` ends them: by cancelling the task, and taking that back.

    A stream waits for each of its chunks. So a wait makes no object of its own, and costs no timer: the one that there
    is is started anew when it rings too early.
    """

    def __init__(self, timeouts: Timeouts, where: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._task: asyncio.Task[Any] | None = None
        self._ended = False
        self._deadline = inf
        self._rings_at = inf
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(timeouts, where)

    async def wait_for(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self._interrupted:
            raise InterruptedWaitError
        task = _current_task(self._loop)
        cancelled_before = task.cancelling()
        self._task = task
        self._ended = False
        self._deadline = deadline = self.waits.deadline(self.now())
        if deadline < self._rings_at:
            self._start_timer(deadline)
        try:
            return await operation()
        except asyncio.CancelledError:
            # Others may cancel it at the same time, and then it stays cancelled.
            if not self._ended or task.cancelling() > cancelled_before + 1:
                raise
            raise self._over() from None
        finally:
            self._task = None
            if self._ended:
                task.uncancel()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = inf

    def _end_wait(self) -> None:
        # Later, since within a step of the task that waits, a cancellation would hit what comes after the wait.
        if not self._loop.is_closed():
            self._loop.call_soon(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None and not self._ended:
            self._ended = True
            self._task.cancel()

    def _start_timer(self, deadline: float) -> None:
        self.end()
        self._rings_at = deadline
        # A timer of its own context keeps nothing of the caller's until it rings, such as a span.
        self._timer = self._loop.call_at(deadline, self._rings, context=Context())

    def _rings(self) -> None:
        self._timer = None
        self._rings_at = inf
        if self._deadline <= self._loop.time():
            self._cancel()
        elif self._task is not None and self._deadline < inf:
            self._start_timer(self._deadline)
