"""Bytes in, server-sent events out: httpx-sse decodes, and a guard makes it safe for any input.

This is the one module that knows httpx-sse. What the guard adds around its public ``EventSource``:

- any line end (LF, CRLF, CR) ends a line at once, wherever the network split it; httpx-sse waits with a CR;
- the bytes are UTF-8, whatever the header says (the event stream format knows no other encoding), a byte order mark at
  the start is dropped, and invalid bytes become U+FFFD;
- an event is bounded in size;
- an event that the body leaves open at its end is closed, so that a whole one is not lost;
- a line that begins with ``error:`` (a provider's habit, no field of the format) reads as an error event;
- a sign of life is shown: a comment between two events, and an event without data, are an event without data, for the
  caller to drop, as the format says, or to count;
- ``id`` lines are dropped, since nothing here resumes a stream; once it saw one, httpx-sse yields an event of no data
  for every blank line.

Only whole events are handed on, so how the bytes were split changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, cast

import httpx
from httpx_sse import EventSource

from .errors import EventTooLargeError

_ERROR_FIELD = re.compile(rb"^error:", re.MULTILINE)
_ID_FIELD = re.compile(rb"id(:.*)?\n", re.DOTALL)


Event = tuple[str, str]
"""One server-sent event: its type, ``""`` or ``"message"`` where it names none, and its data lines, joined by newlines;
``("", "")`` for a sign of life."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CR = ord("\r")  # a number is found several times as fast as bytes of length one
_LF = ord("\n")
_DATA = b"data: "
_BETWEEN_DATA = "\n\ndata: "
_EMPTY_EVENT = b"data:\n\n"
_SIGN_OF_LIFE: Event = ("", "")


class EventDecoder:
    """Turns the bytes of one body, however they are split, into its events. No I/O.

    Args:
        max_event_bytes: bound of one event, in bytes from the end of the one before it, line ends counted as one byte.
    """

    def __init__(self, *, max_event_bytes: int) -> None:
        self._guard = _Guard(max_event_bytes)
        self._events = _WholeEvents()
        self._source = EventSource(cast(httpx.Response, self._events))

    def feed(self, data: bytes) -> Iterator[Event]:
        """Return the events that ``data`` completes; all are taken before more is fed.

        Raises:
            EventTooLargeError: by ``next``, after every event that came before the one that is too large.
        """
        events = self._guard.feed(data)
        if self._guard.plain:
            for line in events[len(_DATA) : -2].decode("utf-8", "replace").split(_BETWEEN_DATA):
                yield ("message", line) if line and not line.isspace() else _SIGN_OF_LIFE
        elif events:
            yield from self._decoded(events)
        if self._guard.too_large:
            raise EventTooLargeError(self._guard.max_event_bytes)

    def close(self) -> Iterator[Event]:
        """Return the event that the end of the body leaves open, if there is one."""
        return (event for event in self._decoded(self._guard.close() + b"\n\n") if event is not _SIGN_OF_LIFE)

    def _decoded(self, events: bytes) -> Iterator[Event]:
        if b"error:" in events:
            events = _ERROR_FIELD.sub(b"event: error\ndata:", events)
        self._events.text = events.decode("utf-8", "replace")
        for event in self._source.iter_sse():
            data = event.data
            yield (event.event, data) if (data and not data.isspace()) or event.event == "error" else _SIGN_OF_LIFE


class _WholeEvents:
    """What httpx-sse takes for a response: its text is whole events."""

    headers: Final = {"content-type": "text/event-stream"}

    def __init__(self) -> None:
        self.text = ""

    def iter_text(self) -> Iterator[str]:
        return iter((self.text,))


class _Guard:
    """Turns bytes, however they are split, into whole events of lines that end in LF, each bounded in size."""

    def __init__(self, max_event_bytes: int) -> None:
        self.max_event_bytes = max_event_bytes
        self.too_large = False
        self.plain = False
        """Whether what ``feed`` returned last are events of one line of data each."""
        self._line: list[bytes] = []  # pieces of the line that has not ended
        self._line_bytes = 0
        self._event: list[bytes] = []  # whole lines since the last blank one
        self._event_bytes = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        """Return the events that ``data`` completes; up to one that is too large, and then set ``too_large``."""
        if self._at_start:
            data = self._without_byte_order_mark(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if _CR in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        lines, rest = data[:end], data[end:]
        if self._line and end:
            lines = b"".join((*self._line, lines))
            self._line.clear()
            self._line_bytes = 0
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
        self.plain = not self._event and _is_plain(lines)
        if not self.plain and (lines.startswith((b":", b"id")) or b"\n:" in lines or b"\nid" in lines):
            lines = self._without_comments_and_ids(lines)
        if self._event_bytes + len(lines) + self._line_bytes > self.max_event_bytes:
            lines = self._up_to_limit(lines)
            self.plain = False
        return lines if self.plain else self._whole_events(lines)

    def close(self) -> bytes:
        """Return what the end of the body leaves open of an event."""
        return b"".join((*self._event, *self._line))

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

    def _whole_events(self, lines: bytes) -> bytes:
        """Return the events that ``lines`` completes, and keep the rest for the next time."""
        blank = lines.rfind(b"\n\n")
        end = blank + 2 if blank >= 0 else lines.startswith(b"\n")
        rest = lines[end:]
        events = lines[:end]
        if end:
            if self._event:
                events = b"".join((*self._event, events))
                self._event.clear()
            self._event_bytes = 0
        if rest:
            self._event.append(rest)
            self._event_bytes += len(rest)
        return events

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


def _is_plain(lines: bytes) -> bool:
    """Tell whether each line is an event's only one, and data: as nearly every event of a stream of chunks is."""
    if not (lines.startswith(_DATA) and lines.endswith(b"\n\n")):
        return False
    return _LF not in lines[:-2] or lines.count(b"\n") == 2 * lines.count(_BETWEEN_DATA.encode()) + 2
