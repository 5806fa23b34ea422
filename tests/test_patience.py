"""Waits: what limits them, on asyncio and on trio, and what a limit costs."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import trio

from chatapi_async import APITimeoutError, Timeouts
from chatapi_async._patience import InterruptedWaitError, Patience, patience
from tests.raw_server import DONE, HOLD, RawServer, chunk, client_of, stream


def _patience(**limits: Any) -> Patience:
    made = patience(Timeouts(**limits), "POST /")
    made.waits.attempt_began(anyio.current_time())
    return made


async def _nothing() -> str:
    return "done"


async def _limits_that_move() -> None:
    waiting = _patience(first_chunk=0.2, idle=0.1)
    for _ in range(3):
        assert await waiting.wait_for(_nothing) == "done"
        waiting.waits.content_came()
        await anyio.sleep(0.08)
    with pytest.raises(APITimeoutError) as caught:
        await waiting.wait_for(anyio.sleep_forever)
    assert caught.value.phase == "idle"
    waiting.end()


async def _a_limit_that_moves_while_it_is_waited_for() -> None:
    waiting = _patience(first_chunk=0.1, idle=0.1)
    await waiting.wait_for(_nothing)
    waiting.waits.content_came()
    await anyio.sleep(0.06)
    began = anyio.current_time()
    with anyio.fail_after(5), pytest.raises(APITimeoutError):
        await waiting.wait_for(anyio.sleep_forever)
    assert anyio.current_time() - began > 0.09
    waiting.end()


async def _no_limit() -> None:
    waiting = _patience(first_chunk=None, idle=None)
    with anyio.move_on_after(0.05) as scope:
        await waiting.wait_for(anyio.sleep_forever)
    assert scope.cancelled_caught


async def _interrupted() -> None:
    waiting = _patience()
    async with anyio.create_task_group() as tasks:

        async def interrupt() -> None:
            waiting.interrupt()

        tasks.start_soon(interrupt)
        with pytest.raises(InterruptedWaitError):
            await waiting.wait_for(anyio.sleep_forever)
    with pytest.raises(InterruptedWaitError):
        await waiting.wait_for(_nothing)
    waiting.end()


each_way = pytest.mark.parametrize(
    "run",
    [_limits_that_move, _a_limit_that_moves_while_it_is_waited_for, _no_limit, _interrupted],
    ids=lambda run: run.__name__,
)


@each_way
async def test_waits_on_asyncio(run: Any) -> None:
    await run()


@each_way
def test_waits_on_trio(run: Any) -> None:
    trio.run(run)


async def _expire(waiting: Patience) -> None:
    with pytest.raises(APITimeoutError):
        await waiting.wait_for(anyio.sleep_forever)


async def test_a_limit_on_asyncio_leaves_the_task_uncancelled() -> None:
    task = asyncio.current_task()
    assert task is not None

    await _expire(_patience(first_chunk=0.01))

    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_a_task_of_asyncio_that_is_cancelled_when_its_limit_comes_stays_cancelled() -> None:
    waiting = _patience(first_chunk=0.01)
    task = asyncio.get_running_loop().create_task(_expire(waiting))

    def expire_and_cancel() -> None:
        waiting.interrupt()
        asyncio.get_running_loop().call_soon(task.cancel)

    asyncio.get_running_loop().call_later(0.005, expire_and_cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_wait_that_interrupts_itself_cancels_nothing_that_comes_after_it() -> None:
    waiting = _patience()

    async def interrupt_and_return() -> str:
        waiting.interrupt()
        return "done"

    assert await waiting.wait_for(interrupt_and_return) == "done"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(InterruptedWaitError):
        await waiting.wait_for(_nothing)


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


async def test_a_limit_keeps_nothing_of_what_was_current_when_it_was_set() -> None:
    class Span:
        pass

    current: ContextVar[Span] = ContextVar("current")
    span = Span()
    kept = weakref.ref(span)
    before = current.set(span)
    waiting = _patience(first_chunk=60.0)
    await waiting.wait_for(_nothing)
    current.reset(before)
    del span, before
    gc.collect()
    assert kept() is None
    waiting.end()
