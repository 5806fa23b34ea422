"""The waits of one stream: each ends with what it waits for, at its limit, or when another task interrupts it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import TypeVar

from anyio import CancelScope, current_time

from ._closing import on_asyncio
from ._failures import timed_out
from ._timeouts import Waits

T = TypeVar("T")


class InterruptedWaitError(Exception):
    """The wait was ended by :meth:`Patience.interrupt`."""


class Patience:
    """The waits of one stream, one at a time."""

    def __init__(self, waits: Waits, where: str) -> None:
        self.waits = waits
        self._where = where
        self._scope = CancelScope()
        self._interrupted = False
        self._sent = True
        self._alarm = _Alarm(self._expire) if on_asyncio() else None

    async def wait_for(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return what ``operation`` returns.

        Raises:
            APITimeoutError: a limit came first.
            InterruptedWaitError: the wait was interrupted.
        """
        if not self._interrupted:
            deadline = self.waits.deadline(current_time())
            with CancelScope(deadline=inf if self._alarm else deadline) as scope:
                self._scope = scope
                if self._alarm is None:
                    return await operation()
                self._alarm.set(deadline)
                try:
                    return await operation()
                finally:
                    self._alarm.set(inf)
        if self._interrupted:
            raise InterruptedWaitError
        phase, limit = self.waits.expired(current_time())
        raise timed_out(phase, limit, self._where, sent=self._sent)

    def request_sent(self, sent: bool) -> None:
        """Say whether the request may have been sent; without a word it counts as sent."""
        self._sent = sent

    def interrupt(self) -> None:
        """End the present wait, and every later one."""
        self._interrupted = True
        self._scope.cancel()

    def end(self) -> None:
        """Say that there will be no more waits."""
        if self._alarm is not None:
            self._alarm.drop()

    def _expire(self) -> None:
        self._scope.cancel()


class _Alarm:
    """A timer of asyncio that costs next to nothing to move away: it is started anew when it rings too early.

    A stream moves it with every chunk, and a timer that is started and cancelled costs some microseconds.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._deadline = inf
        self._rings_at = inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, deadline: float) -> None:
        self._deadline = deadline
        if deadline < self._rings_at:
            self.drop()
            self._rings_at = deadline
            self._timer = self._loop.call_at(deadline, self._rings)

    def drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = inf

    def _rings(self) -> None:
        self._timer = None
        self._rings_at = inf
        if self._deadline <= self._loop.time():
            self._ring()
        else:
            self.set(self._deadline)
