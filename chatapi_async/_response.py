"""One response of the HTTP layer: its body piece by piece, decompressed within bounds, and its connection's end."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import suppress
from ssl import SSLError
from typing import Any, Literal, Protocol

import httpx
from anyio import CancelScope, current_time
from anyio.lowlevel import checkpoint

from ._closing import CLOSE_SECONDS, undisturbed
from ._connecting import Connecting
from ._failures import request_id_of
from ._inflate import Inflater, encoding_of, unread_encoding

# httpx has no error of its own for a TLS record that cannot be decrypted.
_BREAKS = (httpx.HTTPError, httpx.StreamError, SSLError)


class Headers(Mapping[str, str]):
    """Response headers: names are matched without regard to case; values of repeated ones are joined by commas."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = {name.lower(): value for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        return self._headers[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __repr__(self) -> str:
        return f"Headers({self._headers!r})"


BrokenHow = Literal["connection_closed", "connection_reset", "unreadable"]


class BodyBrokenError(Exception):
    """The connection was lost, or the body turned out unreadable, in the middle of it. ``__cause__`` says how."""

    def __init__(self, detail: str, how: BrokenHow) -> None:
        super().__init__(detail)
        self.how: BrokenHow = how
        """Whether the other side closed the connection, or broke it, or its data cannot be decompressed."""


class ReadableResponse(Protocol):
    """What is read of a response: a :class:`Response`, or what stands in its place."""

    status_code: int
    headers: Headers
    request_id: str | None
    unreadable: str

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None:
        """Be done with it."""


class Response:
    """A response whose body is read piece by piece: an asynchronous iterator of bytes, decompressed.

    A response that is forgotten without being closed is closed by the event loop.
    """

    def __init__(self, response: httpx.Response, closer: AsyncGenerator[None, None], connecting: Connecting) -> None:
        self.status_code = response.status_code
        self.headers = Headers(response.headers)
        self.request_id = request_id_of(self.headers)
        self.unreadable = unread_encoding(self.headers)
        """The content encoding, where it is none that is read; then neither is the body. Else ``""``."""
        # httpx would decompress all that it has read at once; a stand-in for the network has done so.
        ready = response.is_stream_consumed
        self._pieces = response.aiter_bytes() if ready else response.aiter_raw()
        self._inflater = Inflater() if encoding_of(self.headers) and not (self.unreadable or ready) else None
        self._inflated: Iterator[bytes] = iter(())
        self._closer = closer
        self._connecting = connecting
        # A connection of HTTP/2 is shared with other requests, and so not this response's to close.
        alone = response.http_version.startswith("HTTP/1")
        self._network_stream: Any = response.extensions.get("network_stream") if alone else None
        self._read_to_end = False
        self._read_broke = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.unreadable:
            raise BodyBrokenError(f"it is compressed by {self.unreadable!r}", "unreadable")
        try:
            if self._inflater is not None:
                return await self._next_inflated(self._inflater)
            self._read_broke = True  # unless it comes back
            data = await self._pieces.__anext__()
            self._read_broke = False
            return data
        except StopAsyncIteration:
            self._read_to_end = True
            raise
        except (*_BREAKS, zlib.error) as error:
            raise BodyBrokenError(detail_of(error), _how_it_broke(error)) from error

    async def _next_inflated(self, inflater: Inflater) -> bytes:
        while True:
            await checkpoint()  # however much it grows, other tasks have their turn
            for piece in self._inflated:
                return piece
            self._read_broke = True  # unless it comes back
            data = await self._pieces.__anext__()
            self._read_broke = False
            self._inflated = inflater.feed(data)

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Bounded in time, not cancelled."""
        if self._read_to_end:
            await self._closer.aclose()
        else:
            await undisturbed(self._hang_up)

    async def _hang_up(self) -> None:
        # httpx reads through generators within generators, of which closing the outermost leaves the others to the
        # garbage collector. A read that is cancelled ends them all.
        with CancelScope(shield=True) as scope, suppress(*_BREAKS):
            scope.cancel()
            async for _ in self._pieces:
                pass
            # Unless a read broke before, what was left had come already, and there was no wait to cancel.
            self._read_to_end = not self._read_broke
        await self._closer.aclose()
        if self._read_to_end:
            return
        with CancelScope(deadline=current_time() + CLOSE_SECONDS):
            # Where a second cancellation came while httpcore closed the connection, it counts as closed, and is not.
            if self._network_stream is not None:
                await self._network_stream.aclose()
            await self._connecting.give_back()


def _how_it_broke(error: Exception) -> BrokenHow:
    if isinstance(error, zlib.error):
        return "unreadable"
    return "connection_reset" if isinstance(error, httpx.ReadError) else "connection_closed"


def detail_of(error: BaseException) -> str:
    """Return what an error of the HTTP layer says, or the one that it came of."""
    words = str(error).rstrip(".")
    cause = error.__cause__ or error.__context__
    return words or (detail_of(cause) if cause else type(error).__name__)
