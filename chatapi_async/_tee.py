"""``tee``: several consumers of one stream."""

from __future__ import annotations

from collections.abc import AsyncIterable

from ._background import BackgroundStream, ItemT
from ._background_reader import BackgroundReader
from .errors import ConfigurationError


def tee(stream: AsyncIterable[ItemT], n: int = 2, *, buffer: int = 1024) -> tuple[Branch[ItemT], ...]:
    """Return ``n`` iterators over one stream, of which each gets every item: to show an answer, save and moderate it.

    Read each in a task of its own. The stream is read ahead, until the slowest is ``buffer`` items behind; then the
    others wait for it, and nothing is lost. One that is closed, forgotten, or whose read is
    cancelled, is not waited for; when all are, the stream is closed. An error of the stream is raised to each, after
    the items before it.

    Args:
        stream: a :class:`~chatapi_async.ChatStream`, or any other asynchronous iterable.
        n: how many iterators.
        buffer: how many items the slowest may be behind the fastest.

    Raises:
        ConfigurationError: ``n`` or ``buffer`` is less than 1.
    """
    if n < 1 or buffer < 1:
        raise ConfigurationError(f"tee() was given n={n!r} and buffer={buffer!r}; give 1 or more for each")
    reader = BackgroundReader(stream, buffer)
    return tuple([Branch(reader) for _ in range(n)])


class Branch(BackgroundStream[ItemT, ItemT]):
    """One of the iterators that :func:`tee` returns; ``async with`` closes it at the end of its block."""

    async def _next(self) -> ItemT:
        await self._wait()
        return self._take()
