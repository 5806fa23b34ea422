"""Waits: what limits them, on asyncio and on trio, and what a limit costs."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
import trio

from chatapi_async import APITimeoutError, Timeouts
from chatapi_async._patience import InterruptedWaitError, Patience
from chatapi_async._timeouts import Waits
from tests.raw_server import DONE, HOLD, RawServer, chunk, client_of, stream


def _patience(**limits: Any) -> Patience:
    patience = Patience(Waits(Timeouts(**limits), anyio.current_time()), "POST /")
    patience.waits.attempt_began(anyio.current_time())
    return patience


async def _nothing() -> str:
    return "done"


async def _limits_that_move() -> None:
    patience = _patience(first_chunk=0.2, idle=0.1)
    for _ in range(3):
        assert await patience.wait_for(_nothing) == "done"
        patience.waits.content_came()
        await anyio.sleep(0.08)
    with pytest.raises(APITimeoutError) as caught:
        await patience.wait_for(anyio.sleep_forever)
    assert caught.value.phase == "idle"
    patience.end()


async def _no_limit() -> None:
    patience = _patience(first_chunk=None, idle=None)
    with anyio.move_on_after(0.05) as scope:
        await patience.wait_for(anyio.sleep_forever)
    assert scope.cancelled_caught


async def _interrupted() -> None:
    patience = _patience()
    async with anyio.create_task_group() as tasks:

        async def interrupt() -> None:
            patience.interrupt()

        tasks.start_soon(interrupt)
        with pytest.raises(InterruptedWaitError):
            await patience.wait_for(anyio.sleep_forever)
    with pytest.raises(InterruptedWaitError):
        await patience.wait_for(_nothing)
    patience.end()


each_way = pytest.mark.parametrize("run", [_limits_that_move, _no_limit, _interrupted], ids=lambda run: run.__name__)


@each_way
async def test_waits_on_asyncio(run: Any) -> None:
    await run()


@each_way
def test_waits_on_trio(run: Any) -> None:
    trio.run(run)


async def test_a_limit_costs_no_timer_for_each_chunk_and_leaves_none_behind(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(*stream(*[chunk("a")] * 200, chunk("", "stop"), DONE))
    server.answer(*stream(chunk("a"), HOLD))
    timers: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(call_at(*arguments, **options))
        return timers[-1]

    monkeypatch.setattr(loop, "call_at", counted)
    async with client_of(server, timeout=Timeouts(total=60)) as client:
        await client.chat_completion("Hi").until_done()
        assert 0 < len(timers) < 20
        async with client.chat_completion("Hi") as stream_:
            await anext(stream_)
    assert all(timer.cancelled() or timer.when() <= loop.time() for timer in timers)
