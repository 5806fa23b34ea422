"""For bots: an answer at the pace and in the sizes that a chat platform takes.

Each of these reads its stream in the background, so that a slow platform never stalls it, and gives an asynchronous
iterator. At its end, when it is left or closed, or when a read of it is cancelled, the stream is closed. On trio, use
``async with`` where you may leave it early.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import Any, Generic, Self

from anyio import current_time

from ._background import BackgroundStream, ItemT
from ._background_reader import BackgroundReader, close_iterator
from ._sentences import SentenceSplitter
from ._splitting import (
    DISCORD_LIMIT,
    LINE_LIMIT,
    SLACK_LIMIT,
    TELEGRAM_LIMIT,
    MessageSplitter,
    split_message,
    utf16_units,
)
from ._tee import Branch
from .errors import ConfigurationError
from .types import BaseChunk, HeartbeatEvent
from .types.events import TextBuffer

__all__ = [
    "DISCORD_LIMIT",
    "LINE_LIMIT",
    "SLACK_LIMIT",
    "TELEGRAM_LIMIT",
    "Heartbeat",
    "Paced",
    "Sentences",
    "Update",
    "heartbeat",
    "paced",
    "sentences",
    "split_message",
    "utf16_units",
]


@dataclass(frozen=True, slots=True)
class Update:
    """What a message should say now."""

    text: str
    """All of the text so far; where parts have a limit, all of this part. Never empty."""
    delta: str
    """What is new in ``text`` since the part's last update: its end, from where the two differ. It can be ``""`` in the
    final update, and where the end of a part moved to the next one."""
    final: bool
    """Whether this is the last update of all."""
    part: int = 0
    """Which message, from 0; always 0 where parts have no limit."""


def paced(
    stream: AsyncIterable[BaseChunk | str],
    every: float = 1.0,
    *,
    limit: int | None = None,
    measure: Callable[[str], int] = len,
) -> Paced:
    """Return updates for a message that is edited as an answer grows: the first text at once, then one in a while.

    Args:
        stream: a :class:`~chatapi_async.ChatStream`, of which the text of the first choice is taken, or any other
            asynchronous iterable of chunks or of pieces of text.
        every: seconds between two updates, at least.
        limit: the largest size of one message, such as ``DISCORD_LIMIT``; longer texts become several parts, see
            :func:`split_message`. It needs the extra ``bots``. None for one message of any size.
        measure: the size of a text, in the platform's units.

    Raises:
        ConfigurationError: an argument that cannot be, or ``limit`` without the extra ``bots``.
    """
    return Paced(stream, every, limit, measure)


class Paced(BackgroundStream[str, Update]):
    """What :func:`paced` returns: an asynchronous iterator of :class:`Update`.

    The first text comes at once; after it at most one update per interval, with all that came since; always a last one,
    with ``final`` set, if any text came, be its text the same as before. A failure of the stream is raised after it.
    """

    def __init__(
        self,
        stream: AsyncIterable[BaseChunk | str],
        every: float,
        limit: int | None,
        measure: Callable[[str], int],
    ) -> None:
        self._every = _interval(every)
        self._message = _WholeMessage() if limit is None else MessageSplitter(limit, measure=measure)
        self._not_before = 0.0
        self._shown = self._shown_before = (0, "")
        self._final_given = False
        super().__init__(BackgroundReader(_Texts(stream), buffer=None))

    def retry_after(self, seconds: float) -> None:
        """Say that the platform refused the update that was given last: it comes again, with what came since.

        Where something else was refused, such as to show "typing…", the update comes again all the same.

        Args:
            seconds: how long from now no update comes: the platform's ``Retry-After``.
        """
        self._not_before = current_time() + _interval(seconds)
        self._shown = self._shown_before
        self._final_given = False
        self._queue.poke()

    async def _next(self) -> Update:
        while True:
            while self._came:
                self._message.add(self._take())
            update = self._update()
            if update is None:
                if self._over:
                    self._take()
                await self._wait()
            elif (left := self._not_before - current_time()) > 0:
                await self._pause(left)
            else:
                self._shown_before, self._shown = self._shown, (update.part, update.text)
                self._final_given = update.final
                self._not_before = current_time() + self._every
                return update

    def _update(self) -> Update | None:
        parts = self._message.parts
        part, shown = self._shown
        if part + 1 < len(parts) and parts[part] == shown:
            part, shown = part + 1, ""
        final = self._over and part + 1 == len(parts)
        if not parts or (parts[part] == shown and (not final or self._final_given)):
            return None
        text = parts[part]
        return Update(text, text[_length_in_common(shown, text) :], final, part)


class _WholeMessage:
    """A message of any size."""

    def __init__(self) -> None:
        self._text = TextBuffer()

    def add(self, text: str) -> None:
        self._text.append(text)

    @property
    def parts(self) -> list[str]:
        text = str(self._text)
        return [text] if text.strip() else []


def heartbeat(stream: AsyncIterable[ItemT], every: float = 4.0) -> Heartbeat[ItemT]:
    """Return the items of a stream, and a :class:`~chatapi_async.HeartbeatEvent` whenever none has come for a while.

    By it a bot can show "typing…" again. The wait for the next item goes on meanwhile.

    Args:
        stream: any asynchronous iterable, such as a stream, its ``events()``, or what :func:`paced` returns.
        every: seconds of silence before each marker.

    Raises:
        ConfigurationError: ``every`` is no number of seconds.
    """
    return Heartbeat(stream, every)


class Heartbeat(Generic[ItemT]):
    """What :func:`heartbeat` returns: an asynchronous iterator of a stream's items and of markers."""

    def __init__(self, stream: AsyncIterable[ItemT], every: float) -> None:
        self._every = _interval(every, least=0.001)
        # What makes its items when they are asked for, such as updates, is asked for none while the caller is busy.
        self._items: BackgroundStream[Any, ItemT] = (
            stream if isinstance(stream, BackgroundStream) else Branch(BackgroundReader(stream, buffer=0))
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT | HeartbeatEvent:
        return await self._items.next_within(self._every, HeartbeatEvent())

    async def aclose(self) -> None:
        """Close the stream, and end."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def sentences(stream: AsyncIterable[BaseChunk | str], *, language: str = "en") -> Sentences:
    """Return an answer's sentences, each as soon as it is whole: for speech, and for platforms that cannot edit.

    They come without the white space between them: put some there where you join them. The rest, and what came before a
    failure, is given before the end, or the error. It needs the extra ``bots``.

    Args:
        stream: a :class:`~chatapi_async.ChatStream`, of which the text of the first choice is taken, or any other
            asynchronous iterable of chunks or of pieces of text.
        language: ISO 639 code of the answer's language, of which the abbreviations are known.

    Raises:
        ConfigurationError: the extra ``bots`` is not installed.
    """
    return Sentences(stream, language)


class Sentences(BackgroundStream[str, str]):
    """What :func:`sentences` returns: an asynchronous iterator of sentences, without the white space around them."""

    def __init__(self, stream: AsyncIterable[BaseChunk | str], language: str) -> None:
        self._splitter = SentenceSplitter(language)
        self._whole: deque[str] = deque()
        self._rest_given = False
        super().__init__(BackgroundReader(_Texts(stream), buffer=None))

    async def _next(self) -> str:
        while not self._whole:
            if self._rest_given:
                self._take()
            await self._wait()
            while self._came:
                self._whole.extend(self._splitter.add(self._take()))
            if self._over:
                self._rest_given = True
                self._whole.extend(filter(None, [self._splitter.rest()]))
        return self._whole.popleft()


def _length_in_common(before: str, after: str) -> int:
    if after.startswith(before):
        return len(before)
    return next((index for index, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(after))


class _Texts:
    """The pieces of text of a stream: all that is kept of chunks for which a slow platform has no time yet."""

    def __init__(self, stream: AsyncIterable[BaseChunk | str]) -> None:
        self._items = aiter(stream)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            item = await self._items.__anext__()
            if text := item if isinstance(item, str) else item.text:
                return text

    async def aclose(self) -> None:
        await close_iterator(self._items)


def _interval(seconds: object, least: float = 0.0) -> float:
    if isinstance(seconds, int | float) and least <= seconds < inf:
        return seconds
    raise ConfigurationError(f"{seconds!r} is no interval; give a number of seconds, such as 1.0")
