"""What grows: ``python -m tests.benchmarks.growth JOB``, with the job as JSON, prints how cost grows with length, and
memory with length, with streams that are open, and with streams that were.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from . import memory
from .clients import CLIENTS, Client, Read, Seen, library
from .measure import raise_file_limit
from .wire import AROUND_THE_ANSWER, Order

_SETUPS = 30
"""How many requests are made to see what one costs beside its chunks."""

_MANY_SHORT = 100
"""How many short streams are read at most for each long one, to be disturbed as long as it is."""


async def _snapshots(stream: Any, seen: Seen | None) -> int:
    count = 0
    async for _ in stream:
        count += 1
        if not count % 100:
            _ = stream.snapshot
    return count


async def _arguments(stream: Any, seen: Seen | None) -> int:
    completion = await stream.get_final_completion()
    (call,) = completion.choices[0].message.tool_calls
    count = int(stream.stats.chunks)
    if len(call.function.arguments) != 4 * (count - AROUND_THE_ANSWER):
        raise AssertionError(f"{len(call.function.arguments)} characters of arguments from {count} chunks")
    return count


LINEAR: Mapping[str, Client] = {
    **{name: CLIENTS[name] for name in ("chunks", "get_final_completion", "events")},
    "snapshot every 100 chunks": replace(CLIENTS["chunks"], open=partial(library, consume=_snapshots)),
    "tool call": replace(CLIENTS["get_final_completion"], open=partial(library, consume=_arguments)),
}
"""What is to cost as much a chunk in a long stream as in a short one."""


def main() -> None:
    raise_file_limit()
    job = json.loads(sys.argv[1])
    kinds: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
        "linear": linear,
        "iterating": iterating,
        "held": held,
        "many": many,
    }
    print(json.dumps(asyncio.run(kinds[job.pop("kind")](**job))))  # type: ignore[arg-type]


async def linear(url: str, name: str, short: int, long: int, rounds: int) -> dict[str, Any]:
    """Compare a long stream with as many short ones as have as many chunks together, a hundred at most, in turns.

    Args:
        url: the server's address.
        name: in ``LINEAR``.
        short: chunks of a short one.
        long: chunks of the long one.
        rounds: how many.

    Returns:
        ``short`` and ``long``: the CPU time in microseconds a chunk, without what a request costs; the least of all
        rounds.
        ``growth``: by how many bytes memory was at most more than before.
    """
    tool_call = name == "tool call"
    async with LINEAR[name].open(url) as read:
        spent = partial(_spent, read)
        await spent(Order(short, tool_call=tool_call))
        few = Order(AROUND_THE_ANSWER + 1, tool_call=tool_call)
        setup = median([await spent(few) for _ in range(_SETUPS)])
        before = memory.resident()
        of_short, of_long = [], []
        times = min(long // short, _MANY_SHORT)
        for _ in range(rounds):
            of_short.append(sum([await spent(Order(short, tool_call=tool_call)) for _ in range(times)]) / times)
            of_long.append(await spent(Order(long, tool_call=tool_call)))
    peak = memory.peak()
    return {
        "short_chunks": short,
        "long_chunks": long,
        "short": (min(of_short) - setup) / short * 1e6,
        "long": (min(of_long) - setup) / long * 1e6,
        "growth": None if peak is None or before is None else peak - before,
    }


async def _spent(read: Read, order: Order) -> float:
    cpu = time.process_time()
    if (count := await read(order.headers, None)) != order.chunks:
        raise AssertionError(f"{count} chunks of {order.chunks}")
    return time.process_time() - cpu


async def iterating(url: str, chunks: int) -> dict[str, Any]:
    """Iterate over a long stream. Returns ``chunks`` and by how many bytes memory grew over the last nine tenths of it;
    the text itself, which is kept for the completion, is part of that."""
    sizes: list[int | None] = []

    async def consume(stream: Any, seen: Seen | None) -> int:
        count = 0
        async for _ in stream:
            count += 1
            if count in (chunks // 10, chunks - 1):
                sizes.append(memory.resident())
        return count

    async with library(url, consume) as read:
        await read(Order(500).headers, None)
        sizes.clear()
        await read(Order(chunks).headers, None)
    first, last = sizes
    return {
        "chunks": chunks - chunks // 10,
        "growth": None if first is None or last is None else last - first,
        "text": 5 * (chunks - chunks // 10),
    }


async def held(url: str, client: str, streams: int) -> dict[str, Any]:
    """Open streams that get one chunk each, and then nothing. Returns for each ``bytes``, by how much memory
    grew, and ``cpu``, the milliseconds of CPU time that opening it took. A task that waits for the stream is part of
    both, as it is for every user."""
    all_there = asyncio.Event()
    count = 0

    def seen(_: str) -> None:
        nonlocal count
        count += 1
        if count == streams:
            all_there.set()

    async with CLIENTS[client].open(url) as read:
        await read(Order(500).headers, None)
        before = memory.resident()
        cpu = time.process_time()
        tasks = [asyncio.create_task(read(Order(0, "held").headers, seen)) for _ in range(streams)]
        waiting = asyncio.create_task(all_there.wait())
        ended, _ = await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
        if waiting not in ended:
            raise AssertionError(f"a stream ended that was to be held: {ended.pop()}")
        cpu = time.process_time() - cpu
        after = memory.resident()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "streams": streams,
        "bytes": None if before is None or after is None else (after - before) / streams,
        "cpu": cpu / streams * 1e3,
    }


async def many(url: str, few: int, streams: int) -> dict[str, Any]:
    """Read short streams one after another with one client. Returns ``growth``, by how many bytes memory grew from when
    ``few`` had been read to when all had."""
    order = Order(AROUND_THE_ANSWER + 2)
    sizes: list[int | None] = []
    async with CLIENTS["chunks"].open(url) as read:
        for count in range(1, streams + 1):
            await read(order.headers, None)
            if count in (few, streams):
                sizes.append(memory.resident())
    first, last = sizes
    return {
        "few": few,
        "streams": streams,
        "resident": last,
        "growth": None if first is None or last is None else last - first,
    }


if __name__ == "__main__":
    main()
