"""Run an emulator on a real socket: inside an event loop, in a thread, or until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.from_thread
import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._app import Emulator
from ._asgi import TRANSPORT

_LONGEST_SHUTDOWN = 5.0
_TURNS_TO_SETTLE = 4
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True)
class RunningEmulator:
    """Where an emulator can be reached."""

    emulator: Emulator
    """The emulator that answers there."""

    host: str
    """The address to connect to, such as ``"127.0.0.1"``."""

    port: int
    """The port that was bound."""

    @property
    def base_url(self) -> str:
        """What a client is given, such as ``"http://127.0.0.1:8000"``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


class _Protocol(H11Protocol):
    """uvicorn's protocol, which hands the application the connection itself, for the faults that break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.app_state = {**self.app_state, TRANSPORT: transport}


class _Server(uvicorn.Server):
    """A uvicorn server that, when it stops, hangs up on every client instead of waiting for streams to end."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        # A connection that was accepted a moment ago is known to the server only after some turns of the loop.
        for _ in range(_TURNS_TO_SETTLE):
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)
        if self.server_state.tasks:
            _, pending = await asyncio.wait(self.server_state.tasks, timeout=_LONGEST_SHUTDOWN)
            for task in pending:
                task.cancel()


def _listen(host: str, port: int) -> socket.socket:
    """Bind the port before the server starts, so that clients can connect from then on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    # asyncio turns Nagle's algorithm off, and so spares each answer 40 ms, only on a socket that is said to be TCP.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, listener.detach())


def _running(emulator: Emulator, listener: socket.socket) -> RunningEmulator:
    address: tuple[str, int] = listener.getsockname()[:2]
    host, port = address
    return RunningEmulator(emulator, _REACHABLE.get(host, host), port)


def _config(emulator: Emulator, *, log_config: dict[str, Any] | None, access_log: bool) -> uvicorn.Config:
    return uvicorn.Config(
        emulator,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        proxy_headers=False,
        log_config=log_config,
        access_log=access_log,
    )


@asynccontextmanager
async def serve(
    emulator: Emulator | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncGenerator[RunningEmulator, None]:
    """Serve an emulator in the running asyncio event loop for as long as the context lasts.

    No signal handler is installed. On leaving, clients are hung up on, and the port is free again.

    Args:
        emulator: what to serve; ``Emulator()`` by default.
        host: the address to bind.
        port: the port to bind; 0, the default, for any free one.

    Raises:
        OSError: the port cannot be bound.
        RuntimeError: no asyncio event loop is running; from trio, use :func:`serve_in_thread`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise RuntimeError("serve() needs an asyncio event loop; from trio, use serve_in_thread()") from error
    emulator = Emulator() if emulator is None else emulator
    with closing(_listen(host, port)) as listener:
        config = _config(emulator, log_config=None, access_log=False)
        config.load()
        server = _Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        try:
            yield _running(emulator, listener)
        finally:
            with anyio.CancelScope(shield=True):
                await server.shutdown()


@contextmanager
def serve_in_thread(
    emulator: Emulator | None = None, *, host: str = "127.0.0.1", port: int = 0
) -> Generator[RunningEmulator, None, None]:
    """Serve an emulator in a thread of its own: for synchronous programs, and for trio.

    Arguments and errors are those of :func:`serve`.
    """
    with (
        anyio.from_thread.start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(serve(emulator, host=host, port=port)) as running,
    ):
        yield running


def run(
    emulator: Emulator | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_start: Callable[[RunningEmulator], None] = lambda _: None,
    access_log: bool = True,
) -> None:
    """Serve an emulator until Ctrl-C, then return. To be called in the main thread.

    Args:
        emulator: what to serve; ``Emulator()`` by default.
        host: the address to bind.
        port: the port to bind; 0 for any free one. Default 8000.
        on_start: called once requests are answered.
        access_log: whether uvicorn prints a line for each request.

    Raises:
        OSError: the port cannot be bound.
    """
    emulator = Emulator() if emulator is None else emulator
    with closing(_listen(host, port)) as listener:
        running = _running(emulator, listener)
        config = _config(emulator, log_config=LOGGING_CONFIG, access_log=access_log)
        server = _Server(config, lambda: on_start(running))
        # uvicorn raises the signal again once it has shut down, and Ctrl-C is how this server is meant to end.
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
