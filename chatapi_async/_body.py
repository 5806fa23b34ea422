"""The body of one response: reads it within its time limits, whichever kind it is, and decodes it piece by piece."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Final, Generic

from anyio import CancelScope, current_time
from anyio.lowlevel import checkpoint

from ._decode import DONE, ChunkDecoder, Decoded
from ._failures import excerpt, unexpected_content_type, unexpected_encoding
from ._patience import Patience
from ._response import BodyBrokenError, Response
from ._sse import Event, EventDecoder
from .errors import EventTooLargeError, StreamDecodeError
from .types import ChunkT

EXCERPT_BYTES: Final = 64 * 1024
"""How much of a body that is no answer is read."""
_DRAIN_BYTES: Final = 64 * 1024
_DRAIN_SECONDS: Final = 0.5


class Body(Generic[ChunkT]):
    """What a successful response holds, item by item.

    Raises:
        StopAsyncIteration: by ``next``, at the end of the body.
        BodyBrokenError: by ``next``, where the connection is lost.
        StreamError: by ``next``, where the body cannot be read as what it should be.
        APITimeoutError: by ``next``.
    """

    def __init__(
        self, response: Response, *, chunk_type: type[ChunkT], patience: Patience, max_event_bytes: int
    ) -> None:
        self._response = response
        self._patience = patience
        self.waits = patience.waits
        self._pieces = _Pieces(response, patience)
        self._max_event_bytes = max_event_bytes
        self._chunk_decoder = ChunkDecoder(chunk_type)
        self._event_decoder: EventDecoder | None = None
        self._events: Iterator[Event] = iter(())
        self._end: Exception | None = None
        self._json_read = False
        content_type = response.headers.get("content-type", "")
        self._media_type = re.split("[;,]", content_type)[0].strip().lower()
        if self._media_type == "text/event-stream" and not response.unreadable:
            self._event_decoder = EventDecoder(max_event_bytes=max_event_bytes)

    @property
    def bytes_received(self) -> int:
        """Bytes of the body so far, decompressed."""
        return self._pieces.received

    async def next(self) -> ChunkT | Decoded:
        """Return the next item."""
        if self._event_decoder is None:
            return await self._next_of_json()
        while (event := next(self._events, None)) is None:
            if self._end is not None:
                if isinstance(self._end, StopAsyncIteration) and (chunk := self._mislabelled()) is not None:
                    return chunk
                raise self._end
            try:
                self._events = self._event_decoder.feed(await self._pieces.__anext__())
            except Exception as end:
                self._end = end  # raised after the event that it leaves open
                self._events = self._event_decoder.close()
        name, data = event
        if data:
            self._pieces.beginning = None
        return self._chunk_decoder.decode(name, data, unterminated=self._end is not None)

    @property
    def excerpt(self) -> str:
        """The first words of a body in which no event was found."""
        return excerpt((self._pieces.beginning or b"").decode("utf-8", "replace"))

    def nothing_new_came(self) -> None:
        """Say that the last item brought nothing of the answer: the wait goes on when the caller reads on."""
        self.waits.caller_took_over(self._patience.now())

    async def caller_reads_on(self) -> None:
        """Let the wait go on. However much is at hand, other tasks have their turn, and limits are kept."""
        await self._patience.wait_for(checkpoint)

    async def drain(self) -> None:
        """Read what follows the answer, so that the connection can be used again; give up after a bounded amount."""
        with CancelScope(deadline=current_time() + _DRAIN_SECONDS), suppress(BodyBrokenError):
            await read_into(bytearray(), self._response, _DRAIN_BYTES)

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()

    def _mislabelled(self) -> ChunkT | None:
        """Return the answer of a JSON body that was called an event stream, None where the body is no such one."""
        body = self._pieces.beginning or b""
        text = body.decode("utf-8-sig", "replace")
        if len(body) < self._pieces.received or not text.lstrip().startswith("{"):
            return None
        chunk = self._chunk_decoder.decode_body(text)
        self._event_decoder = None
        self._json_read = True
        return chunk

    async def _next_of_json(self) -> ChunkT | Decoded:
        if self._json_read:
            return DONE
        if self._response.unreadable:
            raise unexpected_encoding(self._response.headers.get("content-type", ""), self._response.unreadable)
        body = bytearray()
        if self._media_type != "application/json" and not self._media_type.endswith("+json"):
            await read_into(body, self._pieces, EXCERPT_BYTES)
            raise unexpected_content_type(self._response.headers.get("content-type", ""), bytes(body))
        broken: BodyBrokenError | None = None
        try:
            await read_into(body, self._pieces, self._max_event_bytes + 1)
        except BodyBrokenError as error:
            broken = error
        if len(body) > self._max_event_bytes:
            raise EventTooLargeError(self._max_event_bytes)
        self._json_read = True
        try:
            return self._chunk_decoder.decode_body(body.decode("utf-8-sig", "replace"))
        except StreamDecodeError:
            if broken is not None:  # otherwise it came whole, though the connection did not end as it should
                raise broken from broken.__cause__
            raise


class _Pieces:
    """The body's bytes, each piece waited for within the limits."""

    def __init__(self, response: Response, patience: Patience) -> None:
        self._response = response
        self._patience = patience
        self.received = 0
        self.beginning: bytearray | None = bytearray()
        """The first 64 KiB of the body; None once an event was found in it."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        data = await self._patience.wait_for(self._response.__anext__)
        self.received += len(data)
        if self.beginning is not None:
            self.beginning += data[: EXCERPT_BYTES - len(self.beginning)]
        return data


async def read_into(buffer: bytearray, pieces: AsyncIterator[bytes], limit: int) -> None:
    """Append the body to ``buffer``, until it ends or the buffer holds ``limit`` bytes; no more than that is kept."""
    async for data in pieces:
        buffer += data[: limit - len(buffer)]
        if len(buffer) >= limit:
            return
