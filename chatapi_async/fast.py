"""A faster HTTP client for asyncio: httpx and httpcore as they are, but for how a stream's bytes come from its socket.

Connecting, proxies, the pool, TLS settings, request and response heads, timeouts and exceptions stay httpcore's. Two
things are replaced, on asyncio and uvloop alone:

- the stream below httpcore: an ``asyncio.Protocol`` that keeps what came, instead of anyio's layers;
- the body of a response in chunks (RFC 9112, 7.1): the whole chunks at hand are cut out of what came at once, instead
  of being passed one by one through h11 and seven generators. Only that: the end of the body, and whatever is no plain
  chunk, is put back for h11, which sees a body that begins there, and says how it ended, or what is wrong with it.

Both hang on private names of httpx, httpcore and anyio. Where one is missing, the client is httpx's own, and no faster.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import httpx
from anyio import CancelScope

from ._fast_socket import FastBackend, FastStream
from ._http import LIMITS

__all__ = ["FastHTTPClient"]

_CHUNK_HEAD: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_CHUNK_HEAD_BYTES: Final = 10
_LINE_END: Final = b"\r\n"


class FastHTTPClient(httpx.AsyncClient):
    """An ``httpx.AsyncClient`` that reads a stream at about half the cost, for ``AsyncChatClient(http_client=…)``.

    ::

        async with FastHTTPClient() as http_client:
            client = AsyncChatClient("https://api.example.com", http_client=http_client)

    It belongs to one event loop, and is the caller's to close. On trio it is httpx's own, and no faster.

    What comes on an idle connection is no answer, and ends it. Over TLS a part of a record is not seen: where a server
    sends the beginning of one unasked, and its end after the next request, it is taken for the answer to that.

    Args:
        limits: as httpx's; by default connections are not limited, since a stream holds one while the model talks.
        **options: all others that ``httpx.AsyncClient`` takes.
    """

    def __init__(self, *, limits: httpx.Limits = LIMITS, **options: Any) -> None:
        super().__init__(limits=limits, **options)

    def _init_transport(self, *args: Any, transport: httpx.AsyncBaseTransport | None = None, **kwargs: Any) -> Any:
        if app := kwargs.pop("app", None):  # of httpx before 0.28
            return httpx.ASGITransport(app)
        return transport or _FastTransport(*args, **kwargs)

    def _init_proxy_transport(self, proxy: httpx.Proxy, *args: Any, **kwargs: Any) -> Any:
        return _FastTransport(*args, proxy=proxy, **kwargs)


class _FastTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport, with the two replacements."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pool: Any = self._pool
        if hasattr(pool, "_network_backend"):
            pool._network_backend = FastBackend(pool._network_backend)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        stream = response.extensions.get("network_stream")
        has_body = request.method != "HEAD" and response.status_code not in (101, 204, 304)
        in_chunks = response.headers.get("transfer-encoding", "").strip().lower() == "chunked"
        http1 = response.extensions.get("http_version", b"").startswith(b"HTTP/1")
        if isinstance(stream, FastStream) and http1:
            stream.ends_with_blank_line = False
            if in_chunks and has_body:
                limit = request.extensions.get("timeout", {}).get("read")
                response.stream = _ChunkedBody(stream, cast(httpx.AsyncByteStream, response.stream), limit)
        return response


class _ChunkedBody(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """A body in chunks: each piece is all that is at hand of it.

    Args:
        stream: where it comes from.
        slow: httpcore's own way of reading it, which closes it too.
        limit: how many seconds a read may take.
    """

    def __init__(self, stream: FastStream, slow: httpx.AsyncByteStream, limit: float | None) -> None:
        self._stream = stream
        self._slow = slow
        self._limit = limit
        self._data = b""
        """What came, and has not been cut."""
        self._rest = 0
        """How many bytes of the present chunk, and of the line end after it, have not been cut."""
        self._plain = True
        """Whether the next bytes are of a plain chunk; otherwise h11 goes on."""
        self._malformed = False
        self._pieces: AsyncIterator[bytes] | None = None
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        stream = self._stream
        while self._plain:
            if stream.received:
                if data := self._cut():
                    return data
            elif stream.over:
                self._leave_to_h11()
            else:
                try:
                    await stream.more(self._limit)
                except TimeoutError:
                    await self.aclose()
                    raise httpx.ReadTimeout("") from None
                except GeneratorExit:
                    raise  # its event loop is gone, so nothing can be awaited any more
                except BaseException:
                    with CancelScope(shield=True):
                        await self.aclose()
                    raise
        return await self._piece_of_h11()

    async def aclose(self) -> None:
        """Give the connection back, if h11 has read the body to its end; else close it."""
        self._ended = True
        self._plain = False
        await self._slow.aclose()

    def __del__(self) -> None:
        if not self._ended:
            self._stream.forget(self._slow.aclose)

    async def _piece_of_h11(self) -> bytes:
        if self._malformed:
            await self.aclose()
            raise httpx.RemoteProtocolError("malformed end of a chunk")
        if self._pieces is None:
            self._pieces = aiter(self._slow)
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            raise

    def _leave_to_h11(self, *, at_last_chunk: bool = False) -> None:
        self._plain = False
        self._stream.put_back(self._data)
        self._stream.ends_with_blank_line = at_last_chunk

    def _cut(self) -> bytes:
        """Take what there is of the body out of what came; nothing, if more must come, or h11 must go on."""
        data = self._stream.take()
        if self._data:
            data = self._data + data
        elif not self._rest and (head := _CHUNK_HEAD.match(data)):
            start, stop = head.end(), len(data) - len(_LINE_END)
            if start + int(head[1], 16) == stop > start and data.endswith(_LINE_END):
                return data[start:stop]  # one whole chunk, as each token comes
        found: list[bytes] = []
        at, end, rest = 0, len(data), self._rest
        while at < end:
            if rest > len(_LINE_END):
                piece = data[at : at + rest - len(_LINE_END)]
                found.append(piece)
            elif rest:
                piece = data[at : at + rest]
                if not _LINE_END[-rest:].startswith(piece):
                    self._plain, self._malformed = False, True
                    break
            elif head := _CHUNK_HEAD.match(data, at):
                size = int(head[1], 16)
                if not size:
                    self._plain = False
                    break
                at = head.end()
                rest = size + len(_LINE_END)
                continue
            else:
                self._plain = end - at < _CHUNK_HEAD_BYTES and b"\n" not in data[at:]
                break
            at += len(piece)
            rest -= len(piece)
        self._data = data[at:]
        self._rest = rest
        if not self._plain:
            self._leave_to_h11(at_last_chunk=bool(_CHUNK_HEAD.match(self._data)))
        return found[0] if len(found) == 1 else b"".join(found)
