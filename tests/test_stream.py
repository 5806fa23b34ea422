"""Every way of reading one answer, in every mixture."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chatapi_async import (
    AsyncChatClient,
    ChatCompletionChunkResponse,
    ChatCompletionWithChatroomStreamResponse,
    ChatStream,
    EmptyStreamError,
    HeartbeatEvent,
    ServerStreamError,
    StreamTruncatedError,
    aggregate,
)
from tests.raw_server import DONE, HOLD, RawServer, chunk, event, stream

pytestmark = pytest.mark.smoke

HELLO = stream(chunk("Hel"), chunk("lo"), chunk("", "stop"), DONE)
CALL_BEGINS = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at"'}}
CALL_GOES_ON = {"index": 0, "function": {"arguments": ": 1}"}}


def tool_call(fragment: dict[str, Any]) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"tool_calls": [fragment]}}]})


@pytest.fixture
def hello(server: RawServer, client: AsyncChatClient) -> ChatStream[ChatCompletionChunkResponse]:
    """A stream that will answer "Hello" in two pieces and a finish reason."""
    server.answer(*HELLO)
    return client.chat_completion("Hi")


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_making_a_stream_sends_nothing(hello: ChatStream[Any], server: RawServer) -> None:
    assert (hello.status_code, hello.request_id, dict(hello.headers)) == (None, None, {})
    assert hello.snapshot.completeness == "truncated"
    assert server.connections == 0


async def _iterated(stream_: ChatStream[Any]) -> list[str]:
    return [chunk.text async for chunk in stream_]


async def _awaited(stream_: ChatStream[Any]) -> list[str]:
    return [chunk.text async for chunk in await stream_]


async def _entered(stream_: ChatStream[Any]) -> list[str]:
    async with stream_ as entered:
        return [chunk.text async for chunk in entered]


async def _awaited_and_entered(stream_: ChatStream[Any]) -> list[str]:
    async with await stream_ as entered:
        return [chunk.text async for chunk in await entered]


async def _by_anext(stream_: ChatStream[Any]) -> list[str]:
    return [(await anext(stream_)).text, *[chunk.text async for chunk in stream_]]


async def _iterated_twice(stream_: ChatStream[Any]) -> list[str]:
    texts = []
    async for each in stream_:
        texts.append(each.text)
        break
    return texts + [chunk.text async for chunk in stream_]


@pytest.mark.parametrize(
    "read",
    [_iterated, _awaited, _entered, _awaited_and_entered, _by_anext, _iterated_twice],
    ids=lambda read: read.__name__,
)
async def test_however_it_is_opened_each_chunk_is_seen_once(
    read: Callable[[ChatStream[Any]], Awaitable[list[str]]], hello: ChatStream[Any], server: RawServer
) -> None:
    assert await read(hello) == ["Hel", "lo", ""]
    assert len(server.requests) == 1


async def test_awaiting_waits_for_the_response_alone(server: RawServer, client: AsyncChatClient) -> None:
    gate = server.gate()
    server.answer(*stream(gate, chunk("Hi"), HOLD, x_request_id="req_1"))
    stream_ = client.chat_completion("Hi")
    assert await stream_ is stream_
    assert (stream_.status_code, stream_.request_id, stream_.stats.chunks) == (200, "req_1", 0)
    await stream_.aclose()


async def test_many_streams_can_be_gathered(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*HELLO)
    streams = await asyncio.gather(*(client.chat_completion("Hi") for _ in range(5)))
    assert [await stream_.get_final_text() for stream_ in streams] == ["Hello"] * 5


async def test_leaving_the_block_ends_the_answer(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hel"), HOLD))
    async with client.chat_completion("Hi") as stream_:
        async for _ in stream_:
            break
    await server.hung_up()
    assert (stream_.snapshot.text, stream_.snapshot.completeness) == ("Hel", "stopped")


@pytest.mark.parametrize(
    ("open_stream", "chunk_type"),
    [
        (lambda client: client.chat_completion("Hi"), ChatCompletionChunkResponse),
        (lambda client: client.chat_completion_on_chatroom("ch", "Hi"), ChatCompletionWithChatroomStreamResponse),
        (lambda client: client.chatroom("ch").chat_completion("Hi"), ChatCompletionWithChatroomStreamResponse),
    ],
)
async def test_each_operation_has_its_chunks(
    open_stream: Any, chunk_type: type, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*HELLO)
    assert {type(each) async for each in open_stream(client)} == {chunk_type}


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_text_stream_gives_no_empty_piece(hello: ChatStream[Any]) -> None:
    assert [text async for text in hello.text_stream] == ["Hel", "lo"]


async def test_the_text_stream_is_that_of_the_first_choice(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("no", index=1), chunk("yes"), DONE))
    stream_ = client.chat_completion("Hi", n=2)
    assert [text async for text in stream_.text_stream] == ["yes"]
    assert [choice.message.text for choice in stream_.snapshot.choices] == ["yes", "no"]


async def test_the_snapshot_grows_with_what_was_read(hello: ChatStream[Any]) -> None:
    seen = [(hello.snapshot.text, hello.snapshot.completeness) async for _ in hello]
    assert seen == [("Hel", "truncated"), ("Hello", "truncated"), ("Hello", "truncated")]
    assert hello.snapshot.completeness == "complete"


async def test_the_final_results(hello: ChatStream[Any]) -> None:
    completion = await hello.get_final_completion()
    assert (completion.id, completion.choices[0].finish_reason) == ("msg_1", "stop")
    message = await hello.get_final_message()
    assert (message.role, message.content) == ("assistant", "Hello")
    assert await hello.get_final_text() == "Hello"
    await hello.until_done()


async def test_every_way_of_reading_takes_from_one_stream(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*[chunk(letter) for letter in "abcdef"], chunk("", "stop"), DONE))
    stream_ = client.chat_completion("Hi")
    read = [(await anext(stream_)).text, await anext(stream_.text_stream)]
    async for each in stream_.events():
        if each.type == "content.delta":
            read.append(each.delta)
            assert each.snapshot == "abc"
            break
    read += [(await anext(stream_)).text, await anext(stream_.text_stream)]
    assert read == list("abcde")
    assert (await stream_.get_final_message()).text == "abcdef"


async def test_the_helper_merges_what_is_left(hello: ChatStream[Any]) -> None:
    assert (await aggregate(hello)).text == "Hello"


async def test_a_stream_without_a_first_choice_has_no_message(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(event({"choices": []}), DONE))
    with pytest.raises(EmptyStreamError):
        await client.chat_completion("Hi").get_final_message()


async def test_reading_after_a_failure_raises_it_again(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("a")))
    stream_ = client.chat_completion("Hi")
    for read in (stream_.until_done, stream_.get_final_text, stream_.get_final_message, stream_.get_final_completion):
        with pytest.raises(StreamTruncatedError):
            await read()
    for iterator in (stream_, stream_.text_stream, stream_.events()):
        with pytest.raises(StreamTruncatedError):
            await anext(iterator)


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_events_of_an_answer(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(
        *stream(
            chunk("Hel"),
            event({"type": "ping"}, "ping"),
            chunk("lo"),
            tool_call(CALL_BEGINS),
            tool_call(CALL_GOES_ON),
            chunk("", "tool_calls"),
            event({"choices": [], "usage": {"total_tokens": 3}}),
            DONE,
        )
    )
    stream_ = client.chat_completion("Hi")
    events = [each async for each in stream_.events()]
    assert [each.type for each in events] == [
        "chunk",
        "content.delta",
        "unknown",
        "chunk",
        "content.delta",
        "chunk",
        "tool_calls.function.arguments.delta",
        "chunk",
        "tool_calls.function.arguments.delta",
        "chunk",
        "content.done",
        "tool_calls.function.arguments.done",
        "finish",
        "chunk",
        "usage",
    ]
    by_type: dict[str, Any] = {each.type: each for each in events}
    assert (by_type["unknown"].event, by_type["unknown"].data) == ("ping", '{"type": "ping"}')
    assert by_type["content.done"].content == "Hello"
    done = by_type["tool_calls.function.arguments.done"]
    assert (done.name, done.arguments) == ("look", '{"at": 1}')
    assert by_type["usage"].usage.total_tokens == 3
    assert stream_.snapshot.text == "Hello"


async def test_what_is_whole_at_the_end_is_announced_though_no_finish_reason_came(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), DONE))
    stream_ = client.chat_completion("Hi")
    events = stream_.events()
    assert [each.type async for each in events] == ["chunk", "content.delta", "content.done"]
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_nothing_is_announced_as_whole_once_the_stream_was_stopped(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    stream_ = client.chat_completion("Hi")
    types = []
    async for each in stream_.events():
        types.append(each.type)
        await stream_.stop()
    assert types == ["chunk", "content.delta"]


async def test_events_come_before_the_failure(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), event("overloaded", "error")))
    events = client.chat_completion("Hi").events()
    assert [(await anext(events)).type, (await anext(events)).type] == ["chunk", "content.delta"]
    with pytest.raises(ServerStreamError, match="overloaded"):
        await anext(events)


async def test_an_unknown_event_is_skipped_by_iteration_and_logged_once(
    server: RawServer, client: AsyncChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    ping = event({"type": "ping"}, "ping")
    server.answer(*stream(ping, chunk("Hi"), ping, chunk("", "stop"), DONE))
    assert [text async for text in client.chat_completion("Hi").text_stream] == ["Hi"]
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "unknown event 'ping'" in warnings[0].getMessage()


async def test_a_heartbeat_is_an_event_and_is_counted_and_plain_iteration_goes_on(
    server: RawServer, client: AsyncChatClient
) -> None:
    gate = server.gate()
    server.answer(*stream(b": ping\n\n", gate, chunk("Hi", "stop"), b"data:\n\n", DONE))
    stream_ = client.chat_completion("Hi")
    events = stream_.events()
    assert await anext(events) == HeartbeatEvent()
    assert (stream_.stats.heartbeats, stream_.stats.chunks) == (1, 0)
    gate.open()
    assert [each.type async for each in events] == ["chunk", "content.delta", "content.done", "finish", "heartbeat"]
    assert stream_.stats.heartbeats == 2

    again = client.chat_completion("Hi")
    assert [each.text async for each in again] == ["Hi"]
    assert again.stats.heartbeats == 2


async def test_the_representation_says_what_was_asked_and_how_far_it_is(
    hello: ChatStream[Any], server: RawServer
) -> None:
    where = f"POST {server.url}/v1/llms/chat/completions"
    assert repr(hello) == f"<ChatStream {where} (new, 0 chunks)>"
    await anext(hello)
    assert repr(hello) == f"<ChatStream {where} (open, 1 chunks)>"
    await hello.until_done()
    assert repr(hello) == f"<ChatStream {where} (complete, 3 chunks)>"
