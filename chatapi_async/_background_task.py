"""A task of its own, on asyncio and trio, that nobody has to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from contextvars import copy_context
from typing import Any

from anyio import get_cancelled_exc_class

from ._closing import on_asyncio
from ._failures import closed
from .errors import StreamClosedError


class BackgroundTask:
    """A task that ends with the event loop, of which it calls nothing but ``end``, with what came of ``run``.

    On asyncio it is cancelled once, so that what ``run`` still awaits is awaited; trio cancels all that is awaited.
    """

    def __init__(
        self, run: Callable[[], Coroutine[Any, Any, None]], end: Callable[[BaseException | None], None]
    ) -> None:
        self._run = run
        self._end = end
        self._ended = False
        self.cancel: Callable[[], object]
        """Cancels it."""
        self.call_soon: Callable[[Callable[[], object]], object]
        """Calls a function in the event loop, from any thread."""
        if on_asyncio():
            self.call_soon = asyncio.get_running_loop().call_soon_threadsafe
            task = asyncio.get_running_loop().create_task(self._outcome())
            task.add_done_callback(self._never_began)
            self.cancel = task.cancel
        else:
            import trio

            self.call_soon = trio.lowlevel.current_trio_token().run_sync_soon
            scope = trio.CancelScope()
            self.cancel = scope.cancel
            trio.lowlevel.spawn_system_task(self._within, scope, context=copy_context())

    async def _within(self, scope: AbstractContextManager[object]) -> None:
        with scope:
            await self._outcome()

    async def _outcome(self) -> None:
        cancelled = get_cancelled_exc_class()
        try:
            await self._run()
        except GeneratorExit:
            raise  # its event loop is gone
        except cancelled:
            self._finish(was_cancelled())
            raise
        except BaseException as failure:
            self._finish(failure)  # for the consumers to see to, since the event loop would stop
        else:
            self._finish(None)

    def _finish(self, error: BaseException | None) -> None:
        self._ended = True
        self._end(error)

    def _never_began(self, _: asyncio.Task[None]) -> None:
        if not self._ended:
            self._finish(was_cancelled())


def was_cancelled() -> StreamClosedError:
    """Make the error of reading on when the task that read was cancelled."""
    return closed("the task that read it was cancelled")
