"""Reads that are cancelled, on asyncio and on trio, and the same library run by trio."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
import trio

from chatapi_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatClient,
    ChatStream,
    RateLimitError,
    ServerStreamError,
    StreamClosedError,
    StreamTruncatedError,
    Timeouts,
)
from tests.raw_server import DONE, HOLD, RawServer, Repeat, body, chunk, client_of, event, head, stream, wait_for

ANSWER = stream(chunk("Hel"), chunk("lo", "stop"), DONE)

# ── ways to cancel, each with the exception that the canceller sees ──────────────────────────────────────────────────


async def _by_task_cancel(read: Callable[[], Awaitable[Any]], waits: Callable[[], Awaitable[None]]) -> None:
    task = asyncio.ensure_future(read())
    await waits()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _by_asyncio_timeout(read: Callable[[], Awaitable[Any]], waits: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await read()


async def _by_wait_for(read: Callable[[], Awaitable[Any]], waits: Callable[[], Awaitable[None]]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.1)


async def _by_scope(read: Callable[[], Awaitable[Any]], waits: Callable[[], Awaitable[None]]) -> None:
    with anyio.move_on_after(0.1) as scope:
        await read()
    assert scope.cancelled_caught


async def _by_task_group(read: Callable[[], Awaitable[Any]], waits: Callable[[], Awaitable[None]]) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await waits()
        tasks.cancel_scope.cancel()


ON_ASYNCIO = [_by_task_cancel, _by_asyncio_timeout, _by_wait_for, _by_scope, _by_task_group]
ON_TRIO = [_by_scope, _by_task_group]


async def _cancelled_read_closes_the_stream(cancel: Any, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    server.answer(*ANSWER)
    async with client_of(server) as client:
        stream_ = client.chat_completion("Hi")
        await anext(stream_)

        began = anyio.Event()

        async def read() -> None:
            began.set()
            await anext(stream_)

        await cancel(read, began.wait)
        with pytest.raises(StreamClosedError, match="cancelled") as caught:
            await anext(stream_)
        assert caught.value.partial == stream_.snapshot
        assert caught.value.partial is not None
        assert (caught.value.partial.text, caught.value.partial.completeness) == ("Hi", "stopped")
        assert caught.value.chunks_received == 1
        await server.hung_up()
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    assert (len(server.requests), server.hang_ups) == (2, 1)


@pytest.mark.parametrize("cancel", ON_ASYNCIO, ids=lambda cancel: cancel.__name__)
async def test_a_cancelled_read_closes_the_stream_on_asyncio(cancel: Any, server: RawServer) -> None:
    await _cancelled_read_closes_the_stream(cancel, server)


@pytest.mark.parametrize("cancel", ON_TRIO, ids=lambda cancel: cancel.__name__)
def test_a_cancelled_read_closes_the_stream_on_trio(cancel: Any, server: RawServer) -> None:
    trio.run(_cancelled_read_closes_the_stream, cancel, server)


def test_an_error_in_a_stream_that_has_come_whole_is_raised_on_trio(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi") + event({"error": "no more"}, "error") + DONE + b": the rest\n\n"))
    server.answer(*ANSWER)

    async def main() -> None:
        async with client_of(server) as client:
            with pytest.raises(ServerStreamError, match="no more"):
                await client.chat_completion("Hi").until_done()
            assert await client.chat_completion("Hi").get_final_text() == "Hello"

    trio.run(main)


WAITS = {
    "for headers": (HOLD,),
    "for the first chunk": stream(HOLD),
    "for a JSON body": stream(b"{", HOLD, content_type="application/json"),
    "for what an error says": (head(500, {"content-length": "9"}), HOLD),
    "to try again": body("", 429, retry_after="50"),
}


async def _cancelled_before_a_chunk(answer: Any, server: RawServer) -> None:
    server.answer(*answer)
    async with client_of(server) as client:
        stream_ = client.chat_completion("Hi")
        await _by_task_group(stream_.until_done, server.received)
        with pytest.raises(StreamClosedError, match="cancelled"):
            await anext(stream_)
        assert stream_.snapshot.completeness == "stopped"
        if HOLD in answer:
            await server.hung_up()
        assert len(server.requests) == 1


@pytest.mark.parametrize("answer", WAITS.values(), ids=WAITS)
async def test_cancelled_while_it_waits_on_asyncio(answer: Any, server: RawServer) -> None:
    await _cancelled_before_a_chunk(answer, server)


@pytest.mark.parametrize("answer", WAITS.values(), ids=WAITS)
def test_cancelled_while_it_waits_on_trio(answer: Any, server: RawServer) -> None:
    trio.run(_cancelled_before_a_chunk, answer, server)


async def test_cancelled_after_done_the_answer_is_complete(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), DONE, HOLD))
    stream_ = client.chat_completion("Hi")
    reader = asyncio.create_task(stream_.until_done())
    await wait_for(lambda: stream_.snapshot.completeness == "complete", "[DONE]")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert (await stream_.get_final_completion()).completeness == "complete"
    await server.hung_up()


async def test_a_block_that_is_cancelled_ends_the_answer(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))

    async def read() -> None:
        async with client.chat_completion("Hi") as stream_:
            async for _ in stream_:
                pass

    await _by_task_cancel(read, server.received)
    await server.hung_up()


async def test_a_timeout_of_the_callers_own_is_not_taken_for_one_of_ours(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), Repeat(b": ping\n\n", 0.01)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.chat_completion("Hi", timeout=Timeouts(idle=5)).until_done()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_our_timeouts_leave_the_task_uncancelled(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    with pytest.raises(APITimeoutError):
        await client.chat_completion("Hi", timeout=Timeouts(idle=0.05)).until_done()
    await asyncio.sleep(0)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("turns", range(8))
async def test_a_second_cancellation_while_it_closes_leaves_no_connection(turns: int, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async with client_of(server) as client:
        stream_ = client.chat_completion("Hi")
        await anext(stream_)
        reader = asyncio.create_task(stream_.until_done())
        await asyncio.sleep(0.01)
        reader.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await server.all_closed()


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_close_closes_all_the_same(turns: int, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async with client_of(server) as client:
        stream_ = client.chat_completion("Hi")
        await anext(stream_)
        closing = asyncio.create_task(stream_.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        if turns:
            await server.all_closed()
        assert stream_.snapshot.completeness == ("stopped" if turns else "truncated")


async def test_a_cancelled_opening_leaves_no_connection(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(HOLD))
    for delay in (0, 0.0005, 0.001, 0.002, 0.005):
        with anyio.move_on_after(delay):
            await client.chat_completion("Hi")
        gc.collect()
    await server.all_closed()


async def test_streams_cancelled_at_any_moment_leave_no_connection(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    chance = random.Random(7)
    async with client_of(server, retries=0) as client:
        for _ in range(4):
            tasks = [asyncio.create_task(client.chat_completion("Hi").until_done()) for _ in range(60)]
            for task in tasks:
                asyncio.get_running_loop().call_later(chance.random() * 0.1, task.cancel)
            await asyncio.wait(tasks)
        await server.all_closed()


# ── the library on trio ──────────────────────────────────────────────────────────────────────────────────────────────


async def _iterate(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*ANSWER)
    for _ in range(3):
        stream_ = client.chat_completion("Hi")
        assert [chunk.text async for chunk in stream_] == ["Hel", "lo"]
        assert stream_.snapshot.completeness == "complete"
    assert server.connections == 1


async def _events(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*ANSWER)
    types = [each.type async for each in client.chatroom("ch_1").chat_completion("Hi").events()]
    assert types == ["chunk", "content.delta", "chunk", "content.delta", "content.done", "finish"]


async def _json_answer(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*body('{"choices": [{"message": {"role": "assistant", "content": "Hi"}}]}'))
    assert await client.chat_completion("Hi").get_final_text() == "Hi"


async def _leave_early(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async with client.chat_completion("Hi") as stream_:
        await anext(stream_)
    await server.hung_up()


async def _time_out(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), Repeat(b": ping\n\n", 0.01)))
    with pytest.raises(APITimeoutError) as caught:
        await client.chat_completion("Hi", timeout=Timeouts(idle=0.1)).until_done()
    assert caught.value.phase == "idle"
    await server.hung_up()


async def _truncated(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi")))
    with pytest.raises(StreamTruncatedError) as caught:
        await client.chat_completion("Hi").until_done()
    assert caught.value.chunks_received == 1


async def _refused(client: AsyncChatClient, server: RawServer) -> None:
    async with client_of(server, base_url="http://127.0.0.1:1") as refused:
        with pytest.raises(APIConnectionError):
            await refused.chat_completion("Hi")


async def _retried(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*body("", 429))
    with pytest.raises(RateLimitError):
        await client.chat_completion("Hi")
    assert len(server.requests) == 3


async def _stopped_by_another_task(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    stream_ = client.chat_completion("Hi")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream_.until_done)
        await wait_for(lambda: stream_.stats.chunks == 1, "a chunk")
        await stream_.stop()
    assert (await stream_.get_final_completion()).completeness == "stopped"
    await server.hung_up()


async def _closed_with_its_client(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    stream_ = client.chat_completion("Hi")
    await anext(stream_)
    await client.aclose()
    with pytest.raises(StreamClosedError, match="client was closed"):
        await anext(stream_)
    await server.hung_up()


async def _left_open(client: AsyncChatClient, server: RawServer) -> None:
    server.answer(*stream(*[chunk("Hi")] * 2, HOLD))
    LEFT_OPEN.append(await client_of(server).chat_completion("Hi"))
    await anext(LEFT_OPEN[0])


LEFT_OPEN: list[ChatStream[Any]] = []


@pytest.mark.parametrize(
    "use",
    [
        _iterate,
        _events,
        _json_answer,
        _leave_early,
        _time_out,
        _truncated,
        _refused,
        _retried,
        _stopped_by_another_task,
        _closed_with_its_client,
        _left_open,
    ],
    ids=lambda use: use.__name__,
)
def test_on_trio(use: Any, server: RawServer) -> None:
    async def main() -> None:
        async with client_of(server) as client:
            await use(client, server)

    trio.run(main)
    LEFT_OPEN.clear()
    gc.collect()
    asyncio.run(server.all_closed())
