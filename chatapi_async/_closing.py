"""Closing that is sure to happen, on asyncio and trio: whatever cancels the caller, and when the owner is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Final

from anyio import CancelScope, current_time

CLOSE_SECONDS: Final = 1.0
"""How long closing a connection may take; it is not cancelled by what cancels the caller."""


def on_asyncio() -> bool:
    """Tell whether a task of asyncio is running; otherwise it is one of trio, perhaps as a guest of asyncio's loop."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


async def closer(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Return a generator that calls ``close`` when it is closed, or collected, or left when the event loop ends.

    An event loop finishes the asynchronous generators that are collected while it runs, or left when it ends. That is
    the one way to be told of either that asyncio and trio share.
    """
    generator = _wait_and_close(close)
    await generator.__anext__()
    return generator


async def _wait_and_close(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        with CancelScope(deadline=current_time() + CLOSE_SECONDS, shield=True):
            await close()


async def undisturbed(operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait for ``operation`` to end, whatever cancels the caller meanwhile; the cancellation is raised afterwards."""
    with CancelScope(shield=True):
        if not on_asyncio():
            await operation()
            return
        # A shield keeps out the cancellation of anyio and of trio; what asyncio's own ends is a task of its own.
        task = asyncio.ensure_future(operation())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        task.result()
