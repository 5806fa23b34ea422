"""One client reads streams: ``python -m tests.benchmarks.measure JOB``, with the job as JSON, prints what that cost.

What counts is the CPU time of the whole process, from the first request after a warm-up to the end of the last stream:
requests count, and what the kernel does for them; imports do not, nor the first request of a process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import memory
from .clients import CLIENTS
from .wire import BLOCK_BYTES, SINGLE_BYTES, Delivery, Order, delay

_WARM_UP = 500
"""Chunks of the stream that is read before."""

_MOST = 5
"""How often a measurement is repeated at most."""


class Reads:
    """Makes each read from a socket take so many bytes at most, and counts them.

    A client that is slower than its server finds many chunks waiting, and takes them all with one read: the slower, the
    more. This gives every client the same.
    """

    def __init__(self, most: int) -> None:
        self.count = 0
        receive, receive_into = socket.socket.recv, socket.socket.recv_into

        def recv(sock: socket.socket, size: int, flags: int = 0) -> bytes:
            self.count += 1
            return receive(sock, min(size, most), flags)

        def recv_into(sock: socket.socket, buffer: Any, size: int = 0, flags: int = 0) -> int:
            self.count += 1
            return receive_into(sock, buffer, min(size or len(buffer), most), flags)

        socket.socket.recv = recv  # type: ignore[method-assign]
        socket.socket.recv_into = recv_into  # type: ignore[method-assign]


def main() -> None:
    raise_file_limit()
    job = json.loads(sys.argv[1])
    loop = import_module(CLIENTS[job["client"]].loop)
    with asyncio.Runner(loop_factory=loop.new_event_loop) as runner:
        print(json.dumps(runner.run(measured(**job))))


async def measured(
    url: str,
    client: str,
    delivery: Delivery,
    streams: int,
    chunks: int,
    interval: float = 0.0,
    one_read: bool = False,
    seconds: float = 0.0,
) -> dict[str, Any]:
    """Read some streams at once with one client.

    Args:
        url: the server's address.
        client: its name in the table.
        delivery: how the server sends.
        streams: how many at once.
        chunks: of each stream.
        interval: seconds between two chunks of a paced stream.
        one_read: whether each read from a socket gives one chunk, however many are waiting; else, 64 KiB at most.
        seconds: how long it is repeated, five times at most; it is measured once in any case.

    Returns:
        ``cpu`` in microseconds a chunk, and ``chunks_per_second``: the best of the repetitions. ``reads`` from sockets,
        a chunk. ``peak``: the most bytes of memory, and ``growth``, how much that is more than before. ``delay_median``
        and ``delay_99``: milliseconds from the server's write to the consumer's hands; None where it is not measured.
    """
    reads = Reads(SINGLE_BYTES if one_read else BLOCK_BYTES)
    order = Order(chunks, delivery, interval)
    total = streams * chunks
    stamps: list[tuple[str, int]] = []
    now = time.monotonic_ns
    timed = delivery == "paced" and CLIENTS[client].shows_text
    seen = (lambda text: stamps.append((text, now()))) if timed else None
    cpus, durations = [], []
    async with CLIENTS[client].open(url) as read:
        await read(Order(_WARM_UP, "blocks" if delivery == "paced" else delivery).headers, None)
        before = memory.resident()
        reads.count = 0
        while not cpus or (len(cpus) < _MOST and sum(durations) < seconds):
            gc.collect()
            started, cpu = time.perf_counter(), time.process_time()
            counts = await asyncio.gather(*(read(order.headers, seen) for _ in range(streams)))
            cpus.append(time.process_time() - cpu)
            durations.append(time.perf_counter() - started)
            if counts != [chunks] * streams:
                raise AssertionError(f"{client} saw {min(counts)} to {max(counts)} chunks of {chunks}")
    peak = memory.peak()
    return {
        "cpu": min(cpus) / total * 1e6,
        "chunks_per_second": total / min(durations),
        "reads": reads.count / (total * len(cpus)),
        "peak": peak,
        "growth": None if peak is None or before is None else peak - before,
        **delays([delay(text, when) / 1e6 for text, when in stamps]),
    }


def delays(milliseconds: Sequence[float]) -> dict[str, float | None]:
    """The median and the 99th percentile; None where nothing was measured."""
    ordered = sorted(milliseconds)
    if not ordered:
        return {"delay_median": None, "delay_99": None}
    return {"delay_median": ordered[len(ordered) // 2], "delay_99": ordered[len(ordered) * 99 // 100]}


def raise_file_limit() -> None:
    """Allow as many connections as the system does; often a program may have no more than 1,024 files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
