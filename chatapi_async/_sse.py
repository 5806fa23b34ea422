"""Bytes in, server-sent events out: httpx-sse decodes, and a guard makes it safe for any input.

This is the one module that knows httpx-sse. What the guard adds around its public ``EventSource``:

- any line end (LF, CRLF, CR) ends a line at once, wherever the network split it; httpx-sse waits with a CR;
- the bytes are UTF-8, whatever the header says (the event stream format knows no other encoding), a byte order mark at
  the start is dropped, and invalid bytes become U+FFFD;
- an event is bounded in size;
- an event that the body leaves open at its end is closed, and marked as such, so that a whole one is not lost;
- a line that begins with ``error:`` (a provider's habit, no field of the format) reads as an error event;
- a sign of life is shown: a comment between two events, and an event without data, are an event without data, for the
  caller to drop, as the format says, or to count;
- ``id`` lines are dropped, since nothing here resumes a stream; once it saw one, httpx-sse yields an event of no data
  for every blank line.

Only whole lines are handed on, so how the bytes were split changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

import httpx
from httpx_sse import EventSource

from .errors import EventTooLargeError

_ERROR_FIELD = re.compile(rb"^error:", re.MULTILINE)
_ID_FIELD = re.compile(rb"id(:.*)?\n", re.DOTALL)


class Event(NamedTuple):
    """One server-sent event."""

    name: str
    """Its type, ``""`` where it names none."""
    data: str
    """Its data lines, joined by newlines; ``""`` for a sign of life."""
    unterminated: bool
    """Whether the body ended before the event did."""


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EMPTY_EVENT = b"data:\n\n"
_SIGN_OF_LIFE = Event("", "", unterminated=False)


class EventReader:
    """Asynchronous iterator of the events in ``source``.

    Args:
        source: the body, in pieces of any size; what it raises is raised here.
        max_event_bytes: bound of one event, in bytes from the end of the one before it, line ends counted as one byte.

    Raises:
        EventTooLargeError: by ``anext``, after every event that came before the one that is too large.
    """

    def __init__(self, source: AsyncIterator[bytes], *, max_event_bytes: int) -> None:
        self._guard = _Guard(max_event_bytes)
        self._lines = _whole_lines(source, self._guard)
        self._events = EventSource(_GuardedResponse(self._lines)).aiter_sse()

    def __aiter__(self) -> EventReader:
        return self

    async def __anext__(self) -> Event:
        while True:
            event = await self._events.__anext__()
            if (event.data and not event.data.isspace()) or event.event == "error":
                return Event(event.event, event.data, self._guard.closed)
            if not self._guard.closed:
                return _SIGN_OF_LIFE

    async def aclose(self) -> None:
        """Finish the generators inside; ``source`` is the caller's to close."""
        await self._events.aclose()
        await self._lines.aclose()


class _GuardedResponse(httpx.Response):
    """The response that httpx-sse reads: its text is what the guard lets through."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        super().__init__(200, headers={"content-type": "text/event-stream"})
        self._lines = lines

    def aiter_text(self, chunk_size: int | None = None) -> AsyncIterator[str]:
        return self._lines


async def _whole_lines(source: AsyncIterator[bytes], guard: _Guard) -> AsyncGenerator[str, None]:
    broken: Exception | None = None
    while broken is None:
        try:
            data = await source.__anext__()
        except StopAsyncIteration:
            break
        except Exception as error:
            broken = error
        else:
            if lines := guard.feed(data):
                yield lines
            if guard.too_large:
                raise EventTooLargeError(guard.max_event_bytes)
    yield guard.close()
    if broken is not None:
        raise broken


class _Guard:
    """Turns bytes, however they are split, into whole lines that end in LF, and bounds the events among them."""

    def __init__(self, max_event_bytes: int) -> None:
        self.max_event_bytes = max_event_bytes
        self.too_large = False
        self.closed = False
        self._line: list[bytes] = []  # pieces of the line that has not ended
        self._line_bytes = 0
        self._event_bytes = 0  # whole lines since the last blank one
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> str:
        """Return the lines that ``data`` completes; up to an event that is too large, and then set ``too_large``."""
        if self._at_start:
            data = self._without_byte_order_mark(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        lines = data[:end]
        if end:
            if self._line:
                lines = b"".join((*self._line, lines))
                self._line.clear()
                self._line_bytes = 0
            if lines[:1] in b":i" or b"\n:" in lines or b"\nid" in lines:
                lines = self._without_comments_and_ids(lines)
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
        if self._event_bytes + len(lines) + self._line_bytes > self.max_event_bytes:
            lines = self._up_to_limit(lines)
        self._count(lines)
        return self._decode(lines) if lines else ""

    def close(self) -> str:
        """Return the rest of the body, with the event that it leaves open closed."""
        self.closed = True
        rest = b"".join(self._line)
        return (self._decode(rest) if rest else "") + "\n\n"

    def _without_byte_order_mark(self, data: bytes) -> bytes:
        data = b"".join((*self._line, data))
        if len(data) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(data):
            self._line = [data]
            return b""
        self._line.clear()
        self._at_start = False
        return data.removeprefix(_BYTE_ORDER_MARK)

    def _without_comments_and_ids(self, lines: bytes) -> bytes:
        kept: list[bytes] = []
        event_bytes = self._event_bytes
        for line in lines.splitlines(keepends=True):
            event_bytes += len(line)
            if (line.startswith(b":") or _ID_FIELD.fullmatch(line)) and event_bytes <= self.max_event_bytes:
                event_bytes -= len(line)
                if line.startswith(b":") and not event_bytes:
                    kept.append(_EMPTY_EVENT)
                continue
            if line == b"\n":
                event_bytes = 0
            kept.append(line)
        return b"".join(kept)

    def _count(self, lines: bytes) -> None:
        blank = lines.rfind(b"\n\n")
        if blank >= 0:
            self._event_bytes = len(lines) - blank - 2
        elif lines.startswith(b"\n"):
            self._event_bytes = len(lines) - 1
        else:
            self._event_bytes += len(lines)

    def _up_to_limit(self, lines: bytes) -> bytes:
        start, before = 0, self._event_bytes
        at_line_start = b"\n" + lines  # so that every blank line shows as two line ends
        while (blank := at_line_start.find(b"\n\n", start)) >= 0:
            end = blank + 1
            if before + end - start > self.max_event_bytes:
                break
            start, before = end, 0
        else:
            if before + len(lines) - start + self._line_bytes <= self.max_event_bytes:
                return lines
        self.too_large = True
        return lines[:start]

    def _decode(self, lines: bytes) -> str:
        if b"error:" in lines:
            lines = _ERROR_FIELD.sub(b"event: error\ndata:", lines)
        return lines.decode("utf-8", "replace")
