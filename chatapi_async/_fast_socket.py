"""A socket of asyncio as httpcore reads and writes it, without anyio's layers between: what :mod:`.fast` is made of.

httpcore still connects, through proxies too. What it connects is then read and written here; where that looks
unfamiliar, as it does on trio, it stays as it is.
"""

from __future__ import annotations

import asyncio
import re
import select
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import httpcore
from anyio import fail_after

_HIGH_WATER: Final = 64 * 1024
"""So much is kept of what came; then the socket is left alone until it has been read."""
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_closing: set[asyncio.Task[None]] = set()
"""Tasks that nobody waits for; an event loop alone does not keep them."""
_LAST_OF_SOCKS: Final = 5
"""The answer of a SOCKS proxy, which is no text and is read at once, begins with its version or an older one."""


class FastBackend(httpcore.AsyncNetworkBackend):
    """Connects as another backend does; what that returns is read faster, if it is a socket of asyncio."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return _faster(await self._inner.connect_tcp(*args, **kwargs))

    async def connect_unix_socket(self, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        return _faster(await self._inner.connect_unix_socket(*args, **kwargs))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def _faster(stream: httpcore.AsyncNetworkStream) -> httpcore.AsyncNetworkStream:
    """Take over the transport of asyncio that is below anyio's stream, if nothing was read from it yet."""
    inner = getattr(stream, "_stream", None)
    transport, protocol = getattr(inner, "_transport", None), getattr(inner, "_protocol", None)
    untouched = not (getattr(protocol, "read_queue", True) or getattr(protocol, "is_at_eof", True))
    if not hasattr(transport, "set_protocol") or not untouched or getattr(protocol, "exception", True) is not None:
        return stream
    return FastStream(transport)


class FastStream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """A socket of asyncio. It takes in bytes until it holds so many unread, so that a slow reader stops the server, and
    what comes on an idle connection is seen.

    httpcore reads the head of a response by :meth:`read`, which never returns more than that; what is at hand of a body
    can be had by :meth:`take`, without waiting.
    """

    def __init__(self, transport: Any) -> None:
        self._transport: Any = transport
        self._loop = asyncio.get_running_loop()
        self.received: list[bytes] = []
        """What came and has not been read."""
        self._size = 0
        self._listening = False
        self.over = False
        """Whether nothing more will come."""
        self._error: Exception | None = None
        self._closed = False
        self.ends_with_blank_line = True
        """Whether what is read ends so, as the head of a response does, and the trailers after its last chunk."""
        self._before = b""
        """The last bytes of it that were read, in which the blank line may have begun."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False
        transport.set_protocol(self)

    # ── what asyncio calls ───────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self._size += len(data)
        if self._size > _HIGH_WATER:
            self._pause()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def eof_received(self) -> None:
        self.over = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        self._error = exc
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # ── what the body of a response is cut from ──────────────────────────────────────────────────────────────────────

    def take(self) -> bytes:
        """Return all that came and has not been read."""
        received = self.received
        data = received[0] if len(received) == 1 else b"".join(received)
        received.clear()
        self._size = 0
        return data

    def put_back(self, data: bytes) -> None:
        """Let what was taken be read once more."""
        if data:
            self.received.insert(0, data)
            self._size += len(data)

    async def more(self, limit: float | None) -> None:
        """Wait until more comes, or nothing will.

        Raises:
            TimeoutError: that took longer than ``limit`` seconds.
        """
        if not self._listening:
            self._listening = True
            self._transport.resume_reading()
        self._reader = self._loop.create_future()
        if limit is None:
            await self._reader
        else:
            with fail_after(limit):
                await self._reader

    def abort(self) -> None:
        """Close the connection at once."""
        self.over = self._closed = True
        self._transport.abort()

    def forget(self, close: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have what was read from it closed, from whichever thread collects garbage."""

        def start() -> None:
            task = self._loop.create_task(close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

        with suppress(RuntimeError):  # its event loop is closed
            self._loop.call_soon_threadsafe(start)

    # ── what httpcore calls ──────────────────────────────────────────────────────────────────────────────────────────

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while not self.received:
            if self._closed or self._error is not None:
                raise httpcore.ReadError(str(self._error or "the connection was closed")) from self._error
            if self.over:
                return b""
            try:
                await self.more(timeout)
            except TimeoutError as error:
                raise httpcore.ReadTimeout from error
        data = self.take()
        end = min(len(data), max_bytes)
        if self.ends_with_blank_line and (self._before or data[0] > _LAST_OF_SOCKS):
            # What follows is not read with it, since it would be h11's from then on.
            seen = self._before + data[:end]
            if found := _BLANK_LINE.search(seen):
                end = found.end() - len(self._before)
            self._before = b"" if found else seen[-2:]
        self.put_back(data[end:])
        return data[:end]

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.ends_with_blank_line = True
        self._before = b""
        if buffer and not self.over:
            self._transport.write(buffer)
            try:
                with fail_after(timeout):
                    while self._full and not self.over:
                        self._writer = self._loop.create_future()
                        await self._writer
            except TimeoutError as error:
                raise httpcore.WriteTimeout from error
        if self.over:
            raise httpcore.WriteError(str(self._error or "the connection was closed")) from self._error

    async def aclose(self) -> None:
        self.abort()
        await asyncio.sleep(0)  # in which the socket is closed

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if self.received or self.over:
            self.abort()
            what = "something came in plain text" if self.received else "the connection was closed"
            raise httpcore.ConnectError(f"{what} where TLS was to begin")
        try:
            with fail_after(timeout):
                self._transport = await self._loop.start_tls(
                    self._transport, self, ssl_context, server_hostname=server_hostname
                )
        except BaseException as error:
            self.abort()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout from error
            if isinstance(error, OSError):  # as ssl.SSLError is
                raise httpcore.ConnectError(str(error)) from error
            raise
        self._listening = True
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return bool(self.received) or self.over or _readable(self._transport.get_extra_info("socket"))
        names = {"client_addr": "sockname", "server_addr": "peername", "ssl_object": "ssl_object", "socket": "socket"}
        return self._transport.get_extra_info(names[info]) if info in names else None

    def _pause(self) -> None:
        if self._listening and not self.over:
            self._listening = False
            self._transport.pause_reading()


def _readable(sock: Any) -> bool:
    if sock is None or sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):  # as on Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
