"""The HTTP layer: sends a request by httpx. With what it returns it is all that would be replaced for another library.

What goes in and out of it is plain: no type of httpx but the caller's client, and no exception but as a cause.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from functools import cache, partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ssl import SSLContext, SSLError
from typing import Protocol, cast
from weakref import WeakKeyDictionary, ref

import httpx
from anyio.lowlevel import RunVar

from ._closing import closer, undisturbed
from ._connecting import Connecting
from ._failures import closed, connection_lost, not_connected, timed_out
from ._response import ReadableResponse, Response, detail_of
from ._timeouts import Timeouts
from ._version import __version__
from .errors import ConfigurationError

# A stream holds its connection for as long as the model talks. A limit would make streams wait for one another, so
# there is none; idle connections are kept for the next request, a hundred at most, for half a minute.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30.0)


# What httpcore takes for none; httpx would read the certificate store, which plain http has no use for.
_NO_SSL_CONTEXT = cast(SSLContext, None)


class _Content(httpx.AsyncByteStream):
    """The body of a request. httpx reads its own by a generator, which a cancelled request leaves to be collected."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once(AsyncIterator[bytes]):
    def __init__(self, piece: bytes) -> None:
        self._pieces = [piece]

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


class SendsRequests(Protocol):
    """What sends a request: an :class:`HTTPClient`, or what stands before it."""

    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes,
        timeouts: Timeouts,
        on_progress: Callable[[bool], None],
    ) -> ReadableResponse:
        """Send a request; see :meth:`HTTPClient.post`."""
        ...


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
        client = self._given or await self._own(secure=url.startswith("https:"))
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
            request.stream = _Content(content)
            response = await _send(client, request, connecting)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise ConfigurationError(f"the address cannot be asked: {detail_of(error)}") from error
        except httpx.ConnectTimeout as error:
            raise timed_out("connect", timeouts.connect or 0.0, where, sent=False) from error
        except httpx.PoolTimeout as error:
            raise timed_out("pool", timeouts.pool or 0.0, where, sent=False) from error
        except httpx.WriteTimeout as error:
            raise timed_out("write", timeouts.write or 0.0, where, sent=True) from error
        except (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol) as error:
            raise not_connected(where, detail_of(error)) from error
        except (httpx.HTTPError, SSLError) as error:  # the latter, once TLS is up, httpx lets through
            if connecting.not_sent:
                raise not_connected(where, detail_of(error)) from error
            raise connection_lost(where, detail_of(error)) from error
        return Response(response, await closer(response.aclose), connecting)

    async def aclose(self) -> None:
        """Close the client of our own that belongs to the running event loop; the caller's stays open."""
        entry = _clients().pop(self, None)
        if entry is not None:
            await entry[1].aclose()

    async def _own(self, *, secure: bool) -> httpx.AsyncClient:
        clients = _clients()
        entry = clients.get(self)
        if entry is None:
            client = new_client(secure=secure)
            entry = clients[self] = (client, await closer(partial(_close_client, client, ref(self))))
        return entry[0]


def new_client(*, secure: bool) -> httpx.AsyncClient:
    """Return a client as this library uses it where the caller gives none.

    Args:
        secure: whether it is for https, or for plain http alone.

    Raises:
        ConfigurationError: a proxy that the environment names cannot be used.
    """
    try:
        return httpx.AsyncClient(
            verify=ssl_context() if secure else _NO_SSL_CONTEXT,
            limits=LIMITS,
            headers={"user-agent": f"chatapi-async/{__version__}"},
            # One client can serve many operators, whose cookies are not each other's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        )
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise ConfigurationError(f"a proxy that the environment names cannot be used: {error}") from error


async def _send(client: httpx.AsyncClient, request: httpx.Request, connecting: Connecting) -> httpx.Response:
    connecting.through(client, request)
    try:
        return await client.send(request, stream=True, auth=None, follow_redirects=False)
    except GeneratorExit:
        raise  # its event loop is gone, so nothing can be awaited any more
    except BaseException:
        await undisturbed(connecting.abandon)
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
def ssl_context() -> SSLContext:
    """Return what certificates are checked by: httpx's own, and what ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` names."""
    # Reading the certificate store takes some 20 ms, so once for a process rather than for each client.
    return httpx.create_ssl_context()


async def _close_client(client: httpx.AsyncClient, owner: ref[HTTPClient]) -> None:
    # Connections refer to their event loop, so while they are kept for it, it would stay in memory.
    if (key := owner()) is not None:
        _clients().pop(key, None)
    await client.aclose()
