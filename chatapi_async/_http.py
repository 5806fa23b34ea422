"""The HTTP layer: the one module that speaks httpx. What goes in and out of it is plain, so that it can be replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

import httpx
from anyio import CancelScope, current_time
from anyio.lowlevel import RunVar

from ._connecting import CLOSE_SECONDS, Connecting
from ._failures import closed, connection_lost, not_connected, timed_out
from ._timeouts import Timeouts
from ._version import __version__
from .errors import ConfigurationError

# A stream holds its connection for as long as the model talks. A limit would make streams wait for one another, so
# there is none; idle connections are kept for the next request, a hundred at most, for half a minute.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30.0)


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


class BodyBrokenError(Exception):
    """The connection was lost, or the body turned out unreadable, in the middle of it. ``__cause__`` says how."""


class Response:
    """A response whose body is read piece by piece: an asynchronous iterator of bytes, decompressed.

    A response that is forgotten without being closed is closed by the event loop.
    """

    def __init__(self, response: httpx.Response, closer: AsyncGenerator[None, None], connecting: Connecting) -> None:
        self.status_code = response.status_code
        self.headers = Headers(response.headers)
        self.request_id = next((self.headers[name] for name in _REQUEST_ID_HEADERS if name in self.headers), None)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        self.unreadable = "" if encoding in _READABLE else encoding
        """The content encoding, where it cannot be read within bounds; then neither can the body. Else ``""``."""
        if encoding:
            response.stream = _SmallPieces(cast(httpx.AsyncByteStream, response.stream))
        self._pieces = response.aiter_bytes()
        self._closer = closer
        self._connecting = connecting
        # A connection of HTTP/2 is shared with other requests, and so not this response's to close.
        alone = response.http_version.startswith("HTTP/1")
        self._network_stream: Any = response.extensions.get("network_stream") if alone else None
        self._read_to_end = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.unreadable:
            raise BodyBrokenError(f"it is compressed by {self.unreadable!r}")
        try:
            return await self._pieces.__anext__()
        except StopAsyncIteration:
            self._read_to_end = True
            raise
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise BodyBrokenError(_detail(error)) from error

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, else close it. Bounded in time, not cancelled."""
        if self._read_to_end:
            await self._closer.aclose()
        else:
            await _undisturbed(self._hang_up)

    async def _hang_up(self) -> None:
        # httpx reads through generators within generators, of which closing the outermost leaves the others to the
        # garbage collector. A read that is cancelled ends them all.
        with CancelScope(shield=True) as scope, suppress(httpx.HTTPError, httpx.StreamError):
            scope.cancel()
            async for _ in self._pieces:
                pass
        await self._closer.aclose()
        with CancelScope(deadline=current_time() + CLOSE_SECONDS):
            # Where a second cancellation came while httpcore closed the connection, it counts as closed, and is not.
            if self._network_stream is not None:
                await self._network_stream.aclose()
            await self._connecting.give_back()


# One layer of these grows a piece a thousandfold at most. More layers, and the other encodings, know no such bound; and
# none of them was asked for.
_READABLE = frozenset({"", "identity", "gzip", "deflate"})
_COMPRESSED_PIECE_BYTES = 512


class _SmallPieces(httpx.AsyncByteStream):
    """A compressed body in pieces that are small enough to be decompressed whole."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            for start in range(0, len(data), _COMPRESSED_PIECE_BYTES):
                yield data[start : start + _COMPRESSED_PIECE_BYTES]

    async def aclose(self) -> None:
        await self._stream.aclose()


_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "x-correlation-id")


class HTTPClient:
    """Sends requests through the caller's ``httpx.AsyncClient``, or through one of its own for each event loop.

    Connections belong to the event loop that opened them. So a client of our own is made in the loop that first needs
    it, and closed by that loop when it ends, if not before.
    """

    def __init__(self, http_client: object) -> None:
        if http_client is not None and not isinstance(http_client, httpx.AsyncClient):
            raise ConfigurationError(f"http_client must be an httpx.AsyncClient, not {type(http_client).__name__}")
        self._given = http_client
        self.closed = False
        """Whether requests are refused from now on."""

    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes,
        timeouts: Timeouts,
        on_progress: Callable[[bool], None],
    ) -> Response:
        """Send a request, and return its response once the headers have come. How long they may take is the caller's.

        Args:
            url: where to.
            headers: all that are sent beside the HTTP layer's own.
            content: the body.
            timeouts: of these, ``connect``, ``write`` and ``pool`` are kept here.
            on_progress: told False when a connection is being made, and True when the request begins to be sent.

        Raises:
            ConfigurationError: the address is none that HTTP can ask.
            APIConnectionError: no connection, or it was lost.
            APITimeoutError: in phase ``connect``, ``write`` or ``pool``.
            StreamClosedError: this client, or the caller's ``httpx.AsyncClient``, is closed.
        """
        if self.closed:
            raise closed("the client is closed")
        client = self._given or await self._own()
        if client.is_closed:
            raise closed("the HTTP client is closed")
        limits = httpx.Timeout(connect=timeouts.connect, write=timeouts.write, pool=timeouts.pool, read=None)
        where = f"POST {url}"
        connecting = Connecting(on_progress)
        try:
            request = client.build_request(
                "POST",
                url,
                headers=headers,
                content=content,
                timeout=limits,
                extensions={"trace": connecting.trace},
            )
            response = await _send(client, request, connecting)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ConfigurationError(f"the address cannot be asked: {_detail(error)}") from error
        except httpx.ConnectTimeout as error:
            raise timed_out("connect", timeouts.connect or 0.0, where, sent=False) from error
        except httpx.PoolTimeout as error:
            raise timed_out("pool", timeouts.pool or 0.0, where, sent=False) from error
        except httpx.WriteTimeout as error:
            raise timed_out("write", timeouts.write or 0.0, where, sent=True) from error
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise not_connected(where, _detail(error)) from error
        except httpx.HTTPError as error:
            if connecting.not_sent:
                raise not_connected(where, _detail(error)) from error
            raise connection_lost(where, _detail(error)) from error
        return Response(response, await _primed(_close_response(response)), connecting)

    async def aclose(self) -> None:
        """Close the client of our own that belongs to the running event loop; the caller's stays open."""
        entry = _clients().pop(self, None)
        if entry is not None:
            await entry[1].aclose()

    async def _own(self) -> httpx.AsyncClient:
        clients = _clients()
        entry = clients.get(self)
        if entry is None:
            try:
                client = httpx.AsyncClient(
                    verify=_ssl_context(),
                    limits=_LIMITS,
                    headers={"user-agent": f"chatapi-async/{__version__}"},
                    # One client can serve many operators, whose cookies are not each other's.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                )
            except (ValueError, ImportError, httpx.InvalidURL) as error:
                raise ConfigurationError(f"a proxy that the environment names cannot be used: {error}") from error
            entry = clients[self] = (client, await _primed(_close_client(client, ref(self))))
        return entry[0]


async def _send(client: httpx.AsyncClient, request: httpx.Request, connecting: Connecting) -> httpx.Response:
    connecting.through(client, request)
    try:
        return await client.send(request, stream=True, auth=None, follow_redirects=False)
    except BaseException:
        await _undisturbed(connecting.abandon)
        raise


_Clients = WeakKeyDictionary[HTTPClient, tuple[httpx.AsyncClient, AsyncGenerator[None, None]]]
_clients_of_loop: RunVar[_Clients] = RunVar("chatapi_async clients")


def _clients() -> _Clients:
    try:
        return _clients_of_loop.get()
    except LookupError:
        clients: _Clients = WeakKeyDictionary()
        _clients_of_loop.set(clients)
        return clients


@cache
def _ssl_context() -> SSLContext:
    # Reading the certificate store takes some 20 ms, so once for a process rather than for each client.
    return httpx.create_ssl_context()


# An event loop finishes the asynchronous generators that are collected while it runs, or left when it ends. That is
# the one way to be told of either that asyncio and trio share; so these generators wait for it, and then close.


async def _undisturbed(operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Wait for ``operation`` to end, whatever cancels the caller meanwhile; the cancellation is raised afterwards."""
    with CancelScope(shield=True):
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            await operation()
            return
        # A shield keeps out the cancellation of anyio and of trio; what asyncio's own ends is a task of its own.
        task = asyncio.ensure_future(operation())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        task.result()


async def _primed(generator: AsyncGenerator[None, None]) -> AsyncGenerator[None, None]:
    await generator.__anext__()
    return generator


async def _close_response(response: httpx.Response) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        with CancelScope(deadline=current_time() + CLOSE_SECONDS, shield=True):
            await response.aclose()


async def _close_client(client: httpx.AsyncClient, owner: ref[HTTPClient]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        # Connections refer to their event loop, so while they are kept for it, it would stay in memory.
        if (key := owner()) is not None:
            _clients().pop(key, None)
        with CancelScope(deadline=current_time() + CLOSE_SECONDS, shield=True):
            await client.aclose()


def _detail(error: BaseException) -> str:
    words = str(error).rstrip(".")
    cause = error.__cause__ or error.__context__
    return words or (_detail(cause) if cause else type(error).__name__)
