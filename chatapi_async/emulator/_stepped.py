"""Plays steps to a client, down to its connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ._asgi import break_connection, while_connected
from ._steps import Act, Head, Pause, Step


class SteppedResponse(Response):
    """A response that is made of steps, and enters ``while_open`` until they are done or the client has hung up.

    Args:
        steps: what is done, in order.
        headers: of the response, beside those of its step ``Head``.
        store: called at the step ``Act.STORE``.
        while_open: entered for as long as the steps are played.
    """

    def __init__(
        self,
        steps: Iterator[Step],
        *,
        headers: Mapping[str, str],
        store: Callable[[], None],
        while_open: Callable[[], AbstractContextManager[None]],
    ) -> None:
        super().__init__()
        self._steps = steps
        self._more_headers = headers
        self._store = store
        self._while_open = while_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Play the steps: the interface of ASGI."""

        async def play() -> None:
            end = await self._play(send)
            if end is None:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await break_connection(scope, reset=end is Act.RESET)

        with self._while_open():
            await while_connected(receive, play)

    async def _play(self, send: Send) -> Act | None:
        """Do one step after another; return how the connection ends, None where the response ends as it should."""
        for step in self._steps:
            if isinstance(step, bytes):
                await send({"type": "http.response.body", "body": step, "more_body": True})
            elif isinstance(step, Pause):
                await _pause(step, send)
            elif isinstance(step, Head):
                headers = (*step.headers.items(), *self._more_headers.items())
                encoded = [(name.encode(), value.encode()) for name, value in headers]
                await send({"type": "http.response.start", "status": step.status, "headers": encoded})
            elif step is Act.STORE:
                self._store()
            else:
                return step
        return None


async def _pause(pause: Pause, send: Send) -> None:
    if pause.keep_alive is None:
        await anyio.sleep(pause.seconds)
        return
    with anyio.move_on_after(pause.seconds):
        while True:
            await anyio.sleep(pause.keep_alive)
            await send({"type": "http.response.body", "body": b": ping\n\n", "more_body": True})
