"""The task that reads in the background: what cancels it, what its source does then, and event loops that end early."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import trio

from chatapi_async import AsyncChatClient, StreamClosedError, tee
from chatapi_async.pacing import heartbeat, paced, sentences
from chatapi_async.relay import relay_sse
from tests.raw_server import HOLD, RawServer, chunk, client_of, event, stream

each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def test_whoever_reads_next_goes_on_though_the_task_before_was_cancelled() -> None:
    go_on = asyncio.Event()

    async def words() -> AsyncIterator[str]:
        yield "One. "
        await go_on.wait()
        yield "Two. "

    (branch,) = tee(words(), 1)
    sends = asyncio.Event()

    async def read_and_send() -> None:
        await anext(branch)
        sends.set()
        await asyncio.sleep(60)

    first = asyncio.create_task(read_and_send())
    await sends.wait()
    first.cancel()
    second = asyncio.ensure_future(anext(branch))
    await asyncio.wait([first])
    go_on.set()
    assert await asyncio.wait_for(second, 5) == "Two. "


async def test_a_task_that_is_cancelled_before_it_begins_ends_the_stream(client: AsyncChatClient) -> None:
    source = client.chat_completion("Hi")
    front = sentences(source)
    reads = asyncio.ensure_future(anext(front))
    await asyncio.sleep(0)  # now the reading task is there, and has not begun
    (background,) = asyncio.all_tasks() - {reads, asyncio.current_task()}
    background.cancel()
    with pytest.raises(StreamClosedError, match="cancelled"):
        await asyncio.wait_for(reads, 5)
    with pytest.raises(StreamClosedError):
        await anext(source)


@each_backend
def test_a_source_that_fails_while_it_is_cancelled_stops_nothing_else(backend: str) -> None:
    async def words() -> AsyncIterator[str]:
        try:
            yield "One. "
            await anyio.sleep_forever()
        finally:
            raise BaseExceptionGroup("odd", [OSError("disk full"), SystemExit(3)])

    async def main() -> None:
        async with tee(words(), 1)[0] as branch:
            assert await anext(branch) == "One. "
            with anyio.move_on_after(0.01):
                await anext(branch)

    anyio.run(main, backend=backend)


@each_backend
def test_whatever_a_source_raises_is_raised_to_who_reads(backend: str) -> None:
    async def words() -> AsyncIterator[str]:
        yield "One. "
        raise SystemExit(3)

    async def main() -> None:
        front = sentences(words())
        assert await anext(front) == "One."
        await anext(front)

    with pytest.raises(SystemExit):
        anyio.run(main, backend=backend)


@pytest.mark.parametrize("make", [paced, sentences, heartbeat, lambda source: tee(source, 1)[0]])
async def test_what_a_source_awaits_in_the_end_is_awaited_on_asyncio(make: Any) -> None:
    saved: list[str] = []

    async def words() -> AsyncIterator[str]:
        try:
            yield "One. "
            yield "Two. "
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            saved.append("all")

    async with make(words()) as front:
        await anext(front)
    assert saved == ["all"]


def test_a_source_that_no_cancellation_reaches_is_not_read_on_when_all_have_left() -> None:
    read: list[int] = []

    async def numbers() -> AsyncIterator[str]:
        for number in range(1000):
            with trio.CancelScope(shield=True):
                await trio.sleep(0.001)
            read.append(number)
            yield "One. "

    async def main() -> None:
        async with paced(numbers(), every=0) as front:
            await anext(front)

    trio.run(main)
    assert len(read) < 10


@pytest.mark.filterwarnings("ignore:.*was destroyed but it is pending:ResourceWarning")
def test_a_loop_that_is_closed_without_its_tasks_keeps_nothing(server: RawServer) -> None:
    server.answer(*stream(chunk("One. "), HOLD))

    async def words() -> AsyncIterator[str]:
        yield "One. "
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    complaints: list[Any] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    front = sentences(words())
    reads = loop.create_task(anext(front))
    loop.run_until_complete(asyncio.wait({reads}, timeout=0.05))
    loop.close()
    del front, reads
    gc.collect()
    assert set(complaints) <= {"Task was destroyed but it is pending!"}


async def test_an_answer_that_cannot_be_written_again_is_a_failure_to_the_client(server: RawServer) -> None:
    depth = 300
    nested = "[" * depth + "]" * depth
    odd = '{"choices": [{"index": 0, "delta": {"content": "Hi"}}], "extra": ' + nested + "}"
    server.answer(*stream(chunk("Hel"), event(odd), HOLD))
    async with client_of(server) as client:
        events = [each async for each in relay_sse(client.chat_completion("Hi"))]
        assert events[-1].startswith(b'event: error\ndata: {"error": {')
        await server.hung_up()
