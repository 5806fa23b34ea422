"""Several consumers of one stream: each gets all of it, and none is lost for the slow one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from chatapi_async import AsyncChatClient, ConfigurationError, StreamTruncatedError, aggregate, tee
from chatapi_async.pacing import paced
from chatapi_async.relay import relay_sse
from tests.raw_server import DONE, HOLD, RawServer, chunk, stream

ANSWER = stream(chunk("Hel"), chunk("lo", "stop"), DONE)


class Numbers:
    """Counts how far it was read, and whether it was closed."""

    def __init__(self, count: int) -> None:
        self.read = 0
        self.closed = False
        self._count = count

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for number in range(self._count):
                self.read += 1
                yield number
                await anyio.lowlevel.checkpoint()
        finally:
            self.closed = True


async def all_of(items: Any) -> list[Any]:
    return [item async for item in items]


async def test_each_gets_every_chunk(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*ANSWER)
    show, save, hand_on = tee(client.chat_completion("Hi"), 3)
    updates, message, events = await asyncio.gather(
        all_of(paced(show, every=0)), aggregate(save), all_of(relay_sse(hand_on))
    )
    assert (updates[-1].text, updates[-1].final) == ("Hello", True)
    assert message.text == "Hello"
    assert len(events) == 3
    assert len(server.requests) == 1


async def test_one_after_another_works_within_the_buffer(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*ANSWER)
    first, second = tee(client.chat_completion("Hi"))
    assert [chunk.text for chunk in await all_of(first)] == ["Hel", "lo"]
    assert [chunk.text for chunk in await all_of(second)] == ["Hel", "lo"]


async def test_an_error_is_raised_to_each_after_what_came_before_it(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hel")))
    for branch in tee(client.chat_completion("Hi")):
        assert (await anext(branch)).text == "Hel"
        with pytest.raises(StreamTruncatedError):
            await anext(branch)


def test_the_fast_one_waits_for_the_slow_one_when_the_buffer_is_full() -> None:
    numbers = Numbers(100)
    fast: list[int] = []

    async def main() -> None:
        quick, slow = tee(numbers, buffer=10)

        async def read_fast() -> None:
            fast.extend([number async for number in quick])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_fast)
            await trio.testing.wait_all_tasks_blocked()
            assert numbers.read == 10
            assert [await anext(slow) for _ in range(5)] == [0, 1, 2, 3, 4]
            await trio.testing.wait_all_tasks_blocked()
            assert numbers.read == 15
            assert await all_of(slow) == list(range(5, 100))
        assert fast == list(range(100))

    trio.run(main)
    assert numbers.closed


def _leave_by_closing(slow: list[Any]) -> Any:
    return slow.pop().aclose()


async def _leave_by_being_forgotten(slow: list[Any]) -> None:
    slow.clear()
    gc.collect()


async def _leave_by_being_cancelled(slow: list[Any]) -> None:
    with anyio.move_on_after(0.1):
        async for _ in slow[0]:
            await anyio.sleep_forever()
    with anyio.CancelScope() as scope:
        scope.cancel()
        while True:
            await anext(slow[0])


LEAVES = [_leave_by_closing, _leave_by_being_forgotten, _leave_by_being_cancelled]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("read_before", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("leave", LEAVES, ids=lambda leave: leave.__name__)
def test_one_that_has_left_is_not_waited_for(leave: Any, read_before: bool, backend: str) -> None:
    numbers = Numbers(100)

    async def main() -> None:
        quick, *slow = tee(numbers, buffer=10)
        if read_before:
            assert await anext(slow[0]) == 0
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave, slow)
                assert await all_of(quick) == list(range(100))

    anyio.run(main, backend=backend)
    assert numbers.closed


async def test_closing_all_closes_the_stream_and_closing_one_does_not(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hel"), chunk("lo"), HOLD))
    source = client.chat_completion("Hi")
    first, second = tee(source)
    async with second:
        async with first:
            assert (await anext(first)).text == "Hel"
        assert (await anext(second)).text == "Hel"
        assert (await anext(second)).text == "lo"
        assert server.hang_ups == 0
    await server.hung_up()
    assert source.snapshot.completeness == "stopped"


@pytest.mark.parametrize("options", [{"n": 0}, {"buffer": 0}])
def test_what_cannot_be_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="give 1 or more"):
        tee(Numbers(1), **options)
