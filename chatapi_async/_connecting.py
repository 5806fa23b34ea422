"""How a request gets its connection; that none is left over where it is cancelled; that none with more on it is kept.

A pool of httpcore gives a request a connection in one step of the event loop, and the request takes it up in a later
one. Cancelled in between, the request leaves a connection behind that nobody holds, nobody closes and nobody can use;
in a limited pool each takes a place for good, until none is left. There is no public way to give such a place back, so
this is the one module that uses private names of httpx and httpcore; for a transport without them it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
from anyio import CancelScope, current_time

from ._closing import CLOSE_SECONDS


class Connecting:
    """Follows how a request gets its connection, by what the HTTP layer traces, and sees that none is left over."""

    def __init__(self, on_progress: Callable[[bool], None]) -> None:
        self._on_progress = on_progress
        self._socket: Any = None
        self._shared = False
        self.not_sent = False
        """Whether certainly nothing of the request has been sent."""
        self._pool: Any = None
        self._extensions: Mapping[str, Any] = {}

    def through(self, client: httpx.AsyncClient, request: httpx.Request) -> None:
        """Say which request is about to be sent, and by which client."""
        self._pool = _pool_of(client, request.url)
        self._extensions = request.extensions

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.complete":
            self._socket = info["return_value"]
        elif event.startswith("http2."):
            self._shared = True
        elif event == "http11.response_closed.started" and self._pool is not None:
            _close_if_more_came(self._pool, self._extensions)
        if event.endswith("send_request_headers.started"):
            # A proxy is asked for a tunnel by a request of its own, which has nothing of this one in it.
            self._progress(sent=info["request"].method != b"CONNECT")
        elif event.startswith("connection.") and event.endswith(".started"):
            self._progress(sent=False)

    def _progress(self, *, sent: bool) -> None:
        self.not_sent = not sent
        self._on_progress(sent)

    async def abandon(self) -> None:
        """Close the connection that was made for a cancelled request: between some of its steps httpcore forgets it."""
        with CancelScope(deadline=current_time() + CLOSE_SECONDS):
            if self._socket is not None and not self._shared:
                await self._socket.aclose()
            await self.give_back()

    async def give_back(self) -> None:
        """Take what is left of the request out of the connection pool."""
        if self._pool is not None:
            await _give_back(self._pool, self._extensions)


def proxy_of(client: httpx.AsyncClient, url: str) -> str | None:
    """Return the proxy through which ``client`` asks ``url``, such as ``http://proxy:3128``, without its credentials;
    None where it asks the server itself."""
    proxy: Any = getattr(_pool_of(client, httpx.URL(url)), "_proxy_url", None)
    return None if proxy is None else str(httpx.URL(bytes(proxy).decode("ascii"))).rstrip("/")


_PRIVATE_NAMES = ("_requests", "_connections", "_assign_requests_to_connections", "_close_connections")


def _pool_of(client: Any, url: httpx.URL) -> Any:
    """Return the pool of httpcore through which ``client`` sends to ``url``; None where there is none of that kind."""
    transport_for_url = getattr(client, "_transport_for_url", None)
    pool = getattr(transport_for_url(url), "_pool", None) if transport_for_url else None
    return pool if all(hasattr(pool, name) for name in _PRIVATE_NAMES) else None


def _close_if_more_came(pool: Any, extensions: Mapping[str, Any]) -> None:
    """Keep a connection from being used again, if more than the response has been read from it.

    Otherwise what follows it would be taken for the answer to the next request, which may be another operator's.
    """
    for each in pool._requests:
        if each.request.extensions is extensions:
            connection = each.connection
            while (inner := getattr(connection, "_connection", None)) is not None:
                connection = inner
            state = getattr(connection, "_h11_state", None)
            if state is not None and state.trailing_data[0]:
                state.send_failed()


async def _give_back(pool: Any, extensions: Mapping[str, Any]) -> None:
    """Take a request that is over out of the pool, and every connection that no request holds and none can take up.

    Args:
        pool: the pool.
        extensions: the request's own, by which it is known.
    """
    pool._requests[:] = [each for each in pool._requests if each.request.extensions is not extensions]
    held = {id(each.connection) for each in pool._requests}
    lost = [each for each in pool._connections if not (id(each) in held or each.is_idle() or each.is_closed())]
    pool._connections[:] = [each for each in pool._connections if each not in lost]
    for connection in lost:
        await connection.aclose()
    await pool._close_connections(pool._assign_requests_to_connections())
