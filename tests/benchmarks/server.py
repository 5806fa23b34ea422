"""The server process: it sends what each request's header orders, from bytes that are ready, and costs little itself.

``python -m tests.benchmarks.server`` prints its address, and runs until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import cast

from .wire import AROUND_THE_ANSWER, ORDER_HEADER, Order, beginning, ending, framed, pieces, stamped, text_event

# Streams that begin together are not to have their tokens in the same moments: each begins later by this part of an
# interval than the one before. The golden ratio spreads any number of them evenly.
_APART = 0.618034


class Answers(asyncio.Protocol):
    """One connection: one answer after another."""

    connections = 0

    def __init__(self) -> None:
        Answers.connections += 1
        self._place = Answers.connections * _APART % 1.0
        self._received = b""
        self._rest: Iterator[bytes] = iter(())
        self._may_write = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # asyncio sets TCP_NODELAY
        self._loop = asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._may_write = False
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.startswith(b"POST "):
            self._transport.abort()  # it speaks TLS
            return
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if len(body) < int(fields["content-length"]):
            return
        self._received = b""
        if not lines[0].split(" ")[1].endswith("/chat/completions"):
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        self._answer(Order.of(fields[ORDER_HEADER]))

    def _answer(self, order: Order) -> None:
        if order.delivery == "held":
            self._transport.write(beginning(order) + framed(text_event(" this")))
        elif order.delivery == "paced":
            self._transport.write(beginning(order))
            start = self._loop.time() + order.interval * self._place
            self._timer = self._loop.call_at(start, self._token, order, start, 0)
        else:
            self._rest = pieces(order)
            self._write()

    def _write(self) -> None:
        while self._may_write and (piece := next(self._rest, None)) is not None:
            self._transport.write(piece)

    def _token(self, order: Order, start: float, index: int) -> None:
        if index == order.chunks - AROUND_THE_ANSWER:
            self._transport.write(ending(order))
            return
        self._transport.write(stamped(time.monotonic_ns()))
        # From the start, so that a late token makes none after it late.
        following = start + (index + 1) * order.interval
        self._timer = self._loop.call_at(following, self._token, order, start, index + 1)


async def main() -> None:
    loop = asyncio.get_running_loop()
    # A thousand clients come at once.
    server = await loop.create_server(Answers, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    abandoned = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), abandoned.set)
    await abandoned.wait()
    loop.remove_reader(sys.stdin.fileno())
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
