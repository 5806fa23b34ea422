"""The body of one response: reads it within its time limits, and decodes it piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Final, Generic

from anyio import CancelScope, current_time
from anyio.lowlevel import checkpoint

from ._body_decoder import BodyDecoder
from ._decode import Decoded
from ._patience import Patience
from ._response import BodyBrokenError, ReadableResponse
from .types import ChunkT

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
        self, response: ReadableResponse, *, chunk_type: type[ChunkT], patience: Patience, max_event_bytes: int
    ) -> None:
        self._response = response
        self._patience = patience
        self.waits = patience.waits
        self._decoder = BodyDecoder(response.headers, chunk_type=chunk_type, max_event_bytes=max_event_bytes)
        self._items: Iterator[ChunkT | Decoded] = self._decoder.feed(b"")
        self._end: Exception | None = None

    @property
    def bytes_received(self) -> int:
        """Bytes of the body so far, decompressed."""
        return self._decoder.received

    @property
    def excerpt(self) -> str:
        """The first words of a body in which no event was found."""
        return self._decoder.excerpt

    async def next(self) -> ChunkT | Decoded:
        """Return the next item."""
        while (item := next(self._items, None)) is None:
            if self._end is not None:
                raise self._end
            try:
                data = await self._patience.wait_for(self._response.__anext__)
            except Exception as end:
                self._end = end  # raised after the event that it leaves open
                self._items = self._decoder.close(whole=isinstance(end, StopAsyncIteration))
            else:
                self._items = self._decoder.feed(data)
        return item

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


async def read_into(buffer: bytearray, pieces: AsyncIterator[bytes], limit: int) -> None:
    """Append the body to ``buffer``, until it ends or the buffer holds ``limit`` bytes; no more than that is kept."""
    async for data in pieces:
        buffer += data[: limit - len(buffer)]
        if len(buffer) >= limit:
            return
