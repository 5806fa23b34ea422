"""What the emulator needs of ASGI beyond Starlette: whole bodies, hang-ups, and event streams that are counted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

TRANSPORT = "chatapi.transport"
"""Where an ASGI scope's state has the connection's ``asyncio.Transport``, on the emulator's own server alone."""

# A struct linger that is on, with no time: its fields are shorter on Windows.
_RESET_AT_CLOSE = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
# sse-starlette's lowest version takes 0 for "without a pause", and has no word for "never".
_NEVER = 365 * 86400.0


@dataclass(frozen=True)
class ReceivedRequest:
    """A request as it arrived."""

    method: str
    """Such as ``"POST"``."""

    path: str
    """The path as it was sent, percent-encoded, without the query."""

    headers: Mapping[str, str] = field(repr=False)
    """Headers by their lower-case names; they hold the access token, so ``repr`` leaves them out."""

    body: bytes = field(repr=False)
    """The whole body."""

    @property
    def chatroom_id(self) -> str | None:
        """The chatroom's id, decoded; None where the request is not for one."""
        found = re.fullmatch(r"/v1/llms/chatrooms/([^/]+)/chat/completions", self.path)
        return unquote(found[1]) if found else None

    def json(self) -> Any:
        """Return the body as parsed JSON.

        Raises:
            ValueError: the body is no JSON.
        """
        return json.loads(self.body)


class EventStream(EventSourceResponse):
    """An event stream that enters ``while_open`` until the client has it all, or has hung up."""

    def __init__(
        self,
        events: AsyncIterator[ServerSentEvent],
        *,
        ping_interval: float | None,
        while_open: Callable[[], AbstractContextManager[None]],
    ) -> None:
        ping = _NEVER if ping_interval is None else ping_interval
        super().__init__(events, sep="\n", ping=ping)  # pyright: ignore[reportUnknownMemberType]  (its bare `dict`)
        self._while_open = while_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream: the interface of ASGI."""
        with self._while_open():
            await super().__call__(scope, receive, send)

    # sse-starlette's watch for the end of the process keeps its state in the process: one server that is stopped by a
    # signal would end the streams of all later ones. Whoever runs the emulator hangs up by itself.
    @staticmethod
    async def _listen_for_exit_signal() -> None:
        await anyio.sleep_forever()

    @staticmethod
    async def listen_for_exit_signal() -> None:
        """Wait for ever (the name that older versions of sse-starlette call)."""
        await anyio.sleep_forever()


async def read_body(receive: Receive) -> bytes | None:
    """Return the whole body of a request, None where the client hung up before its end."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def with_body(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that gives ``body``, which was read already, and then what ``receive`` gives."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def with_header(name: str, value: str, send: Send) -> Send:
    """Return a ``send`` that adds a header to the response, unless the response has one of that name."""
    own = name.encode("latin-1")

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if all(each.lower() != own for each, _ in headers):
                headers.append((own, value.encode("latin-1")))
            message = {**message, "headers": headers}
        await send(message)

    return send_with_header


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> bool:
    """Do ``work``, until the client hangs up; return whether it is still there."""
    connected = True
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            nonlocal connected
            while (await receive())["type"] != "http.disconnect":
                continue
            connected = False
            group.cancel_scope.cancel()

        group.start_soon(watch)
        await work()
        group.cancel_scope.cancel()
    return connected


async def break_connection(scope: Scope, *, reset: bool) -> None:
    """Close the client's connection in the middle of a response, and wait to be cancelled for it.

    Args:
        scope: the request's, on the emulator's own server.
        reset: by a TCP reset, instead of in an orderly way.
    """
    transport: asyncio.Transport = scope["state"][TRANSPORT]
    if reset:
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        transport.abort()
    else:
        transport.close()
    # A server asks for the rest of a response until it knows that the connection is gone.
    await anyio.sleep_forever()
