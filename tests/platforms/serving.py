"""Serves an ASGI application on loopback, in the running event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp


def listen() -> socket.socket:
    """Bind a free port on loopback."""
    # asyncio turns Nagle's algorithm off only on a socket that is said to be TCP.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, **options: Any) -> AsyncGenerator[str, None]:
    """Serve the application for as long as the context lasts; gives its address."""
    with listen() as listener:
        config = uvicorn.Config(app, **{"ws": "none", "log_config": None, "access_log": False, **options})
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running
