"""The bytes of one body in, its items out: chunks, other events, and the end of the answer; or an error. No I/O.

A body is an event stream, a JSON document, or none of these, as its headers say; an event stream that turns out to be
one JSON object is read as that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, Generic

from ._decode import DONE, ChunkDecoder, Decoded
from ._failures import excerpt, unexpected_content_type, unexpected_encoding
from ._inflate import unread_encoding
from ._sse import Event, EventDecoder
from .errors import EventTooLargeError, StreamDecodeError
from .types import ChunkT

DEFAULT_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
"""Bound of one event, and of a JSON answer, in bytes, where none is given."""

EXCERPT_BYTES: Final = 64 * 1024
"""How much of a body that is no answer is kept."""


class BodyDecoder(Generic[ChunkT]):
    """Turns the bytes of one body, however they are split, into its items.

    What ``feed`` and ``close`` return is taken to its end before more is fed. Their iterators raise the errors, each
    after every item that came before it.

    Args:
        headers: of the response, by lower-case names.
        chunk_type: the model of a chunk.
        max_event_bytes: bound of one event, and of a JSON document, in bytes.
    """

    def __init__(self, headers: Mapping[str, str], *, chunk_type: type[ChunkT], max_event_bytes: int) -> None:
        self.received = 0
        """Bytes so far."""
        self._content_type = headers.get("content-type", "")
        self._unread_encoding = unread_encoding(headers)
        self._max_event_bytes = max_event_bytes
        self._chunk_decoder = ChunkDecoder(chunk_type)
        self._beginning: bytearray | None = bytearray()
        self._document = bytearray()
        media_type = re.split("[;,]", self._content_type)[0].strip().lower()
        self._is_json = media_type == "application/json" or media_type.endswith("+json")
        self._events: EventDecoder | None = None
        if media_type == "text/event-stream" and not self._unread_encoding:
            self._events = EventDecoder(max_event_bytes=max_event_bytes)

    @property
    def excerpt(self) -> str:
        """The first words of an event stream in which no event was found; ``""`` where one was."""
        return excerpt((self._beginning or b"").decode("utf-8", "replace"))

    def feed(self, data: bytes) -> Iterator[ChunkT | Decoded]:
        """Return the items that ``data`` completes; with no data, what is known before the first of it.

        Raises:
            StreamError: the body cannot be read as what it should be, or an event is an error.
        """
        self.received += len(data)
        if self._events is None:
            return self._feed_document(data)
        if self._beginning is not None:
            self._beginning += data[: EXCERPT_BYTES - len(self._beginning)]
        return self._decoded(self._events.feed(data), unterminated=False)

    def close(self, *, whole: bool) -> Iterator[ChunkT | Decoded]:
        """Return the items that the end of the body leaves open.

        Args:
            whole: whether the body ended by itself; otherwise it broke off, and what is only half there is no error.

        Raises:
            StreamError: as ``feed`` does.
        """
        return self._close_document(whole) if self._events is None else self._close_events(self._events, whole)

    def _decoded(self, events: Iterator[Event], *, unterminated: bool) -> Iterator[ChunkT | Decoded]:
        decode = self._chunk_decoder.decode
        for name, data in events:
            if data:
                self._beginning = None
            yield decode(name, data, unterminated=unterminated)

    def _close_events(self, events: EventDecoder, whole: bool) -> Iterator[ChunkT | Decoded]:
        yield from self._decoded(events.close(), unterminated=True)
        body = self._beginning or b""
        text = body.decode("utf-8-sig", "replace")
        if whole and len(body) == self.received and text.lstrip().startswith("{"):
            yield self._chunk_decoder.decode_body(text)
            yield DONE

    def _feed_document(self, data: bytes) -> Iterator[ChunkT | Decoded]:
        if self._unread_encoding:
            raise unexpected_encoding(self._content_type, self._unread_encoding)
        enough = self._max_event_bytes + 1 if self._is_json else EXCERPT_BYTES
        self._document += data[: enough - len(self._document)]
        if len(self._document) == enough:
            raise EventTooLargeError(self._max_event_bytes) if self._is_json else self._unexpected()
        yield from ()

    def _close_document(self, whole: bool) -> Iterator[ChunkT | Decoded]:
        if not self._is_json:
            if whole:
                raise self._unexpected()
            return
        try:
            chunk = self._chunk_decoder.decode_body(self._document.decode("utf-8-sig", "replace"))
        except StreamDecodeError:
            if whole:
                raise
            return
        yield chunk
        yield DONE

    def _unexpected(self) -> Exception:
        return unexpected_content_type(self._content_type, bytes(self._document))
