"""What every iterator that reads in the background has in common: how it ends, on asyncio and trio, on real sockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio

from chatapi_async import (
    AsyncChatClient,
    ChatCompletionChunkResponse,
    ConfigurationError,
    StreamClosedError,
    StreamTruncatedError,
    tee,
)
from chatapi_async.pacing import heartbeat, paced, sentences
from chatapi_async.relay import relay_sse
from tests.raw_server import DONE, HOLD, RawServer, chunk, client_of, stream, wait_for

Make = Callable[[Any], Any]
FRONTS: dict[str, Make] = {
    "paced": lambda source: paced(source, every=0.001),
    "heartbeat": heartbeat,
    "sentences": sentences,
    "relay": relay_sse,
    "tee": lambda source: tee(source, 1)[0],
    "one in another": lambda source: heartbeat(paced(source, every=0.001)),
}
OPEN = stream(chunk("One. "), chunk("Two. "), HOLD)
WHOLE = stream(chunk("One. "), chunk("Two. ", "stop"), DONE)
CUT = stream(chunk("One. "), chunk("Two. "))

each_front = pytest.mark.parametrize("make", FRONTS.values(), ids=FRONTS)
each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def run(main: Callable[[AsyncChatClient], Awaitable[None]], server: RawServer, backend: str) -> None:
    async def with_client() -> None:
        async with client_of(server) as client:
            await main(client)
        await server.all_closed()

    anyio.run(with_client, backend=backend)


async def collect(front: Any, items: list[Any]) -> None:
    async for item in front:
        items.append(item)


async def _leave_by_break(front: Any) -> None:
    async for _ in front:
        break


async def _leave_a_block(front: Any) -> None:
    async with front:
        await anext(front)


async def _close(front: Any) -> None:
    await anext(front)
    await front.aclose()
    await front.aclose()


async def _cancel(front: Any) -> None:
    with anyio.move_on_after(0.1):
        async for _ in front:
            pass


async def _cancel_while_nothing_was_asked(front: Any) -> None:
    with anyio.CancelScope() as scope:
        async with front:
            await anext(front)
            scope.cancel()
            await anyio.sleep(1)


async def _fail_in_a_block(front: Any) -> None:
    async def block() -> None:
        async with front:
            await anext(front)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()


LEAVES = [_leave_by_break, _leave_a_block, _close, _cancel, _cancel_while_nothing_was_asked, _fail_in_a_block]


@each_backend
@each_front
@pytest.mark.parametrize("leave", LEAVES, ids=lambda leave: leave.__name__)
def test_leaving_early_closes_the_stream(leave: Any, make: Make, backend: str, server: RawServer) -> None:
    server.answer(*OPEN)

    async def main(client: AsyncChatClient) -> None:
        source = client.chat_completion("Hi")
        await leave(make(source))
        await server.hung_up()
        await wait_for(lambda: source.snapshot.completeness == "stopped", "the stream to be closed")

    run(main, server, backend)


@each_front
async def test_a_timeout_of_asyncio_closes_the_stream(make: Make, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(HOLD))
    front = make(client.chat_completion("Hi"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(front), 0.1)
    await server.hung_up()
    with pytest.raises(StreamClosedError, match="cancelled"):
        await anext(front)


@each_front
async def test_a_task_that_is_cancelled_between_two_reads_closes_the_stream(
    make: Make, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*OPEN)
    front = make(client.chat_completion("Hi"))
    sends = asyncio.Event()

    async def show() -> None:
        await anext(front)
        sends.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(show())
    await sends.wait()
    task.cancel()
    await server.hung_up()
    with pytest.raises(StreamClosedError, match="cancelled"):
        await anext(front)


@each_front
async def test_a_task_for_each_read_closes_nothing(make: Make, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*WHOLE)
    front = make(client.chat_completion("Hi"))
    with pytest.raises(StopAsyncIteration):
        await _read_in_tasks(front)
    assert server.hang_ups == 0


async def _read_in_tasks(front: Any) -> None:
    async def read() -> None:
        await anext(front)

    while True:
        await asyncio.create_task(read())


@each_backend
@each_front
def test_closing_ends_the_wait_of_the_task_that_reads(make: Make, backend: str, server: RawServer) -> None:
    server.answer(*stream(HOLD))

    async def main(client: AsyncChatClient) -> None:
        front = make(client.chat_completion("Hi"))

        async def read() -> None:
            with pytest.raises(StreamClosedError):
                await anext(front)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await server.received()
                await front.aclose()
        with pytest.raises(StreamClosedError):
            await anext(front)

    run(main, server, backend)


@each_backend
@each_front
def test_it_can_be_closed_before_anything_was_read(make: Make, backend: str, server: RawServer) -> None:
    server.answer(*OPEN)

    async def main(client: AsyncChatClient) -> None:
        source = await client.chat_completion("Hi")
        front = make(source)
        await front.aclose()
        await server.hung_up()
        for closed in (front, source):
            with pytest.raises(StreamClosedError):
                await anext(closed)

    run(main, server, backend)


@each_backend
@each_front
def test_it_ends_with_the_stream_and_stays_ended(make: Make, backend: str, server: RawServer) -> None:
    server.answer(*WHOLE)

    async def main(client: AsyncChatClient) -> None:
        source = client.chat_completion("Hi")
        front = make(source)
        assert [item async for item in front]
        assert [item async for item in front] == []
        assert source.snapshot.completeness == "complete"
        await front.aclose()

    run(main, server, backend)
    assert server.hang_ups == 0


RAISING = {name: make for name, make in FRONTS.items() if name != "relay"}


@each_backend
@pytest.mark.parametrize("make", RAISING.values(), ids=RAISING)
def test_a_failure_is_raised_after_what_had_come_and_again(make: Make, backend: str, server: RawServer) -> None:
    server.answer(*CUT)

    async def main(client: AsyncChatClient) -> None:
        front = make(client.chat_completion("Hi"))
        items: list[Any] = []
        with pytest.raises(StreamTruncatedError) as caught:
            await collect(front, items)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "One. Two. "
        assert items
        with pytest.raises(StreamTruncatedError):
            await anext(front)

    run(main, server, backend)


@each_front
async def test_two_tasks_cannot_read_at_once(make: Make, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(HOLD))
    front = make(client.chat_completion("Hi"))
    first = asyncio.ensure_future(anext(front))
    await server.received()
    with pytest.raises(ConfigurationError, match="two tasks"):
        await anext(front)
    await front.aclose()
    with pytest.raises(StreamClosedError):
        await first


@pytest.mark.parametrize("make", FRONTS.values(), ids=FRONTS)
@pytest.mark.parametrize("run_loop", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_an_event_loop_that_ends_leaves_nothing_behind(make: Make, run_loop: Any, server: RawServer) -> None:
    server.answer(*OPEN)
    kept: list[Any] = []

    async def main() -> None:
        front = make(client_of(server).chat_completion("Hi"))
        kept.append(front)
        await anext(front)

    run_loop(main() if run_loop is asyncio.run else main)
    anyio.run(server.all_closed)
    kept.clear()
    gc.collect()


async def test_a_source_of_the_callers_own_is_closed(server: RawServer) -> None:
    ended: list[str] = []

    async def words() -> AsyncIterator[str]:
        try:
            yield "One. "
            yield "Two. "
        finally:
            ended.append("closed")

    async with tee(words(), 1)[0] as branch:
        assert await anext(branch) == "One. "
    assert ended == ["closed"]


async def test_an_error_of_the_callers_own_is_raised_as_it_is() -> None:
    async def words() -> AsyncIterator[str]:
        yield "One. "
        raise KeyError("lost")

    items: list[str] = []
    with pytest.raises(KeyError, match="lost"):
        await collect(sentences(words()), items)
    assert items == ["One."]


@each_front
def test_what_cannot_be_iterated_is_refused_at_once(make: Make) -> None:
    with pytest.raises(TypeError):
        make("text")


async def test_one_that_is_forgotten_before_it_was_read_leaves_the_stream_as_it_is(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*WHOLE)
    source = await client.chat_completion("Hi")
    paced(source)
    gc.collect()
    assert await source.get_final_text() == "One. Two. "


# Python 3.12 and newer can run a task at once, up to where it first waits.
FACTORIES = [None, *filter(None, [getattr(asyncio, "eager_task_factory", None)])]


@each_front
@pytest.mark.parametrize("factory", FACTORIES, ids=["tasks as ever", "eager tasks"][: len(FACTORIES)])
async def test_a_source_that_never_waits_is_read_whole(factory: Any, make: Make) -> None:
    async def chunks() -> AsyncIterator[ChatCompletionChunkResponse]:
        for text in ("One. ", "Two. "):
            yield ChatCompletionChunkResponse.model_validate({"choices": [{"delta": {"content": text}}]})

    asyncio.get_running_loop().set_task_factory(factory)
    async with asyncio.timeout(5):
        assert len([item async for item in make(chunks())]) in (1, 2, 3)
