"""Bodies of every kind, their limits in size and time, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import pytest

from chatapi_async import (
    APITimeoutError,
    AsyncChatClient,
    ChatAPIError,
    EmptyStreamError,
    EventTooLargeError,
    ServerStreamError,
    StreamDecodeError,
    StreamError,
    StreamTruncatedError,
    Timeouts,
    UnexpectedContentTypeError,
)
from chatapi_async.types import UnknownEvent
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    RESET,
    RawServer,
    Repeat,
    body,
    chunk,
    client_of,
    event,
    head,
    stream,
    wait_for,
)

COMPLETION = {
    "id": "cmpl_1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "openai:gpt-4o",
    "choices": [
        {"index": 1, "message": {"role": "assistant", "content": "Bye"}, "finish_reason": "length"},
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hi",
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                    {"id": "call_2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                ],
            },
            "finish_reason": "stop",
        },
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "total_cost": 0.5},
}
COMMENTS = Repeat(b": ping\n\n", every=0.02)


# ── JSON instead of a stream ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_json_completion_is_read_whole(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*body(json.dumps(COMPLETION), x_request_id="req_1"))
    stream_ = client.chat_completion("Hi", stream=False, n=2)
    completion = await stream_.get_final_completion()
    assert server.requests[0].json["stream"] is False
    assert completion.completeness == "complete"
    assert completion.model_dump(exclude={"completeness"}, exclude_unset=True) == {
        **COMPLETION,
        "choices": COMPLETION["choices"][::-1],  # type: ignore[index]
    }
    assert (stream_.request_id, stream_.stats.chunks) == ("req_1", 1)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (chunk("Hi", "stop").removeprefix(b"data: "), "application/json"),
        (chunk("Hi").removeprefix(b"data: "), "application/json; charset=utf-8"),
        (b"\xef\xbb\xbf" + chunk("Hi").removeprefix(b"data: "), "Application/JSON"),
        (json.dumps(COMPLETION).encode(), "application/problem+json"),
    ],
    ids=["chunk", "chunk without finish reason", "byte order mark", "completion of another JSON type"],
)
async def test_one_json_body_is_one_chunk(
    content: bytes, content_type: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*body(content, content_type=content_type))
    stream_ = client.chat_completion("Hi")
    assert [chunk.text async for chunk in stream_] == ["Hi"]
    assert stream_.snapshot.completeness == "complete"


def described(error: StreamError) -> dict[str, Any]:
    return {name: getattr(error, name) for name in ("message", "code", "event", "limit") if hasattr(error, name)}


@pytest.mark.parametrize(
    ("answer", "error_type", "details"),
    [
        (body('{"error": {"message": "no model", "code": 7}}'), ServerStreamError, {"message": "no model", "code": 7}),
        (body('{"message": "masked"}'), ServerStreamError, {"message": "masked", "code": None}),
        (body('{"choices": [{"mess'), StreamDecodeError, {"event": '{"choices": [{"mess'}),
        (body(""), StreamDecodeError, {"event": ""}),
        (body("[1]"), StreamDecodeError, {"event": "[1]"}),
        (body('{"choices": [{"message": {"role": []}}]}'), StreamDecodeError, None),
        (body('{"choices": []}'), EmptyStreamError, {}),
        (body(json.dumps({**COMPLETION, "padding": "x" * 5000})), EventTooLargeError, {"limit": 5000}),
        ((head(200, {"content-type": "application/json", "content-length": "99"}), b"{", CLOSE), None, {}),
        ((head(200, {"content-type": "application/json", "content-length": "99"}), b"{", RESET), None, {}),
    ],
    ids=["error", "message", "broken", "empty", "other", "invalid", "no choices", "too large", "closed", "reset"],
)
async def test_a_json_body_that_is_no_answer(
    answer: Any, error_type: type[StreamError] | None, details: dict[str, Any] | None, server: RawServer
) -> None:
    server.answer(*answer)
    async with client_of(server, max_event_bytes=5000) as client:
        with pytest.raises(StreamError) as caught:
            await client.chat_completion("Hi").until_done()
    assert type(caught.value) is (error_type or StreamTruncatedError)
    assert details is None or described(caught.value) == details
    assert caught.value.partial is not None
    assert caught.value.partial.choices == []


# ── neither stream nor JSON ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "content_type", "text"),
    [
        (body("<html><p>Please log in</p></html>", content_type="text/html"), "text/html", "Please log in"),
        (body("plain", content_type="text/plain; charset=x"), "text/plain; charset=x", "plain"),
        (body(DONE, content_type=""), "", "no Content-Type"),
        (body("", 204, content_type=""), "", "an empty body"),
    ],
    ids=["html", "text", "none", "204"],
)
async def test_another_content_type_is_an_error_that_shows_the_page(
    answer: Any, content_type: str, text: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*answer)
    stream_ = await client.chat_completion("Hi")
    with pytest.raises(UnexpectedContentTypeError, match=text) as caught:
        await stream_.until_done()
    assert caught.value.content_type == content_type
    assert caught.value.body.encode() == answer[0].partition(b"\r\n\r\n")[2]


async def test_a_page_without_end_is_read_for_64_kib_and_no_more(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(Repeat(b"<p>" + b"x" * 1000), content_type="text/html"))
    with pytest.raises(UnexpectedContentTypeError) as caught:
        await client.chat_completion("Hi").until_done()
    assert len(caught.value.body) == 64 * 1024
    await server.hung_up()


# ── size ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_event_over_the_limit_is_refused_and_what_came_before_is_kept(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), chunk("x" * 3000), HOLD))
    async with client_of(server, max_event_bytes=2000) as client:
        stream_ = client.chat_completion("Hi")
        assert (await anext(stream_)).text == "Hi"
        with pytest.raises(EventTooLargeError) as caught:
            await anext(stream_)
    assert caught.value.limit == 2000
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.chunks_received) == ("Hi", 1)
    await server.hung_up()


@pytest.mark.parametrize(
    "answer",
    [
        stream(b"data: ", Repeat(b"x" * 1000)),
        stream(b'{"choices": [', Repeat(b" " * 1000), content_type="application/json"),
    ],
    ids=["event", "JSON body"],
)
async def test_what_has_no_end_is_given_up_at_the_limit(answer: Any, server: RawServer) -> None:
    server.answer(*answer)
    async with client_of(server, max_event_bytes=100_000, timeout=Timeouts(total=3)) as client:
        with pytest.raises(EventTooLargeError):
            await client.chat_completion("Hi").until_done()
    await server.hung_up()


# ── after [DONE] ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rest", [HOLD, Repeat(b": ping\n\n", 0.01), Repeat(b"x" * 4096)], ids=["held", "slow", "fast"])
async def test_a_body_that_goes_on_after_done_costs_a_bounded_time(
    rest: Any, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), DONE, rest))
    began = time.monotonic()
    completion = await client.chat_completion("Hi", timeout=None).get_final_completion()
    assert time.monotonic() - began < 3
    assert (completion.text, completion.completeness) == ("Hi", "complete")
    await server.hung_up()


@pytest.mark.parametrize(("length", "connections"), [(10_000, 1), (20_000_000, 2)], ids=["little", "much"])
async def test_a_connection_is_used_again_only_if_little_follows_done(
    length: int, connections: int, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), DONE, b"x" * length))
    for _ in range(2):
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
    assert server.connections == connections


@pytest.mark.parametrize("end", [RESET, CLOSE])
async def test_a_connection_lost_after_done_is_no_failure(end: Any, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), DONE, end))
    assert (await client.chat_completion("Hi").get_final_completion()).completeness == "complete"


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "timeouts", "phase", "text"),
    [
        ((HOLD,), Timeouts(first_chunk=0.1), "first_chunk", None),
        (stream(COMMENTS), Timeouts(first_chunk=0.5), "first_chunk", ""),
        (stream(event({"choices": []}), COMMENTS), Timeouts(first_chunk=5, idle=0.5), "idle", ""),
        (stream(chunk("Hi"), COMMENTS), Timeouts(idle=0.5), "idle", "Hi"),
        (stream(chunk("Hi"), Repeat(event({"type": "ping"}, "ping"), 0.02)), Timeouts(idle=0.5), "idle", "Hi"),
        (stream(chunk("Hi"), Repeat(chunk(""), 0.02)), Timeouts(idle=0.5), "idle", "Hi"),
        (stream(chunk("Hi"), HOLD), Timeouts(idle=0.5), "idle", "Hi"),
        (stream(chunk("Hi"), Repeat(chunk("!"), 0.02)), Timeouts(total=0.5, idle=5), "total", "Hi!"),
        ((HOLD,), Timeouts(total=0.1), "total", None),
        (stream(HOLD, content_type="application/json"), Timeouts(first_chunk=0.5), "first_chunk", ""),
        (stream(HOLD, content_type="text/html"), Timeouts(first_chunk=0.5), "first_chunk", ""),
    ],
    ids=[
        "no headers",
        "comments before the first chunk",
        "chunk without choices",
        "comments after a chunk",
        "pings after a chunk",
        "empty chunks after a chunk",
        "silence after a chunk",
        "chunks without end",
        "total before headers",
        "JSON",
        "page",
    ],
)
async def test_a_timeout_names_phase_and_limit_and_carries_what_came(
    answer: Any, timeouts: Timeouts, phase: str, text: str | None, server: RawServer
) -> None:
    server.answer(*answer)
    async with client_of(server, timeout=timeouts) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(APITimeoutError, match=f"{phase} timeout") as caught:
            await stream_.until_done()
        error = caught.value
        assert (error.phase, error.limit) == (phase, getattr(timeouts, phase))
        assert f"{error.limit:g} s" in str(error)
        if text is None:
            assert error.partial is None
        else:
            assert error.partial is not None
            assert error.partial.text.startswith(text)
            assert error.partial.completeness == "failed"
            assert error.chunks_received == stream_.stats.chunks
        assert (error.processed, error.retryable) == ("unknown", False)
        await server.hung_up()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "flood",
    [b":\n" * 30_000, event("1", "ping") * 3000, event({"choices": []}) * 3000],
    ids=["comments", "unknown events", "empty chunks"],
)
async def test_a_flood_of_nothing_holds_off_neither_limits_nor_other_tasks(flood: bytes, server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), Repeat(flood)))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other_task = asyncio.create_task(other())
    async with client_of(server, timeout=Timeouts(idle=0.3)) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(APITimeoutError) as caught:
            await stream_.until_done()
    other_task.cancel()
    assert caught.value.phase == "idle"
    assert stream_.stats.duration < 3
    assert turns > 100


@pytest.mark.parametrize("flood", [b":\n" * 5_000_000, b"\n" * 40_000_000], ids=["comments", "blank lines"])
async def test_what_is_compressed_a_thousandfold_holds_off_no_limit(flood: bytes, server: RawServer) -> None:
    server.answer(*body(gzip.compress(flood), content_type="text/event-stream", content_encoding="gzip"))
    async with client_of(server, timeout=Timeouts(total=0.3)) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(APITimeoutError, match="total"):
            await stream_.until_done()
    assert stream_.stats.duration < 3


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_whole_json_answer_counts_though_its_connection_breaks(
    end: Any, server: RawServer, client: AsyncChatClient
) -> None:
    answer = b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}'
    gate = server.gate()
    server.answer(*stream(answer, gate, end, content_type="application/json"))
    stream_ = client.chat_completion("Hi")
    reader = asyncio.create_task(stream_.get_final_completion())
    await wait_for(lambda: stream_.stats.bytes == len(answer), "the answer")
    gate.open()
    assert ((await reader).text, (await reader).completeness) == ("Hi", "complete")


async def test_a_whole_json_answer_counts_though_its_body_never_ends(server: RawServer) -> None:
    server.answer(*stream(b'{"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}', HOLD,
                          content_type="application/json"))  # fmt: skip
    async with client_of(server, timeout=Timeouts(first_chunk=0.1)) as client:
        completion = await client.chat_completion("Hi").get_final_completion()
    assert (completion.text, completion.completeness) == ("Hi", "complete")


async def test_half_a_json_answer_is_truncated(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(b'{"choices": [{"mess', CLOSE, content_type="application/json"))
    with pytest.raises(StreamTruncatedError):
        await client.chat_completion("Hi").until_done()


FIVE_SECONDS = {"connect": 5.0, "first_chunk": 5.0, "idle": 5.0, "total": 5.0, "write": 5.0, "pool": 5.0}


@pytest.mark.parametrize(
    ("limits", "phase"),
    [
        ({"first_chunk": 0.1}, "first_chunk"),
        ({"first_chunk": 0.2, "total": 0.1}, "total"),
        ({"first_chunk": 0.1, "total": 0.2, "idle": 0.01}, "first_chunk"),
        ({"first_chunk": 0.1, "connect": 0.01, "write": 0.01, "pool": 0.01}, "first_chunk"),
    ],
)
@pytest.mark.parametrize("begins", [True, False], ids=["with comments", "without headers"])
async def test_of_all_limits_the_first_to_end_is_named(
    begins: bool, limits: dict[str, float], phase: str, server: RawServer
) -> None:
    server.answer(*(stream(COMMENTS) if begins else (HOLD,)))
    async with client_of(server, timeout=Timeouts(**FIVE_SECONDS | limits)) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi").until_done()
    assert (caught.value.phase, caught.value.limit) == (phase, limits[phase])


@pytest.mark.parametrize(
    ("limits", "phase"),
    [({"idle": 0.1}, "idle"), ({"idle": 0.1, "total": 1.0}, "idle"), ({"idle": 1.0, "total": 0.4}, "total")],
)
async def test_of_all_limits_the_first_to_end_is_named_once_a_chunk_came(
    limits: dict[str, float], phase: str, server: RawServer
) -> None:
    server.answer(*stream(chunk("Hi"), COMMENTS))
    async with client_of(server, timeout=Timeouts(**FIVE_SECONDS | limits)) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(APITimeoutError) as caught:
            await stream_.until_done()
    assert (caught.value.phase, caught.value.limit) == (phase, limits[phase])
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"
    assert stream_.stats.heartbeats > 0


async def test_idle_does_not_count_the_callers_own_time(server: RawServer) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("a"), chunk("b"), gate, chunk("c", "stop"), DONE))
    async with client_of(server, timeout=Timeouts(idle=0.2)) as client:
        stream_ = client.chat_completion("Hi")
        await anext(stream_)
        await anext(stream_)
        time.sleep(0.3)  # noqa: ASYNC251 - the caller is busy
        gate.open()
        assert await stream_.get_final_text() == "abc"


async def test_idle_does_not_count_what_the_caller_does_with_an_unknown_event(server: RawServer) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("a"), event({"type": "ping"}, "ping"), gate, chunk("b", "stop"), DONE))
    async with client_of(server, timeout=Timeouts(idle=0.2)) as client:
        stream_ = client.chat_completion("Hi")
        async for each in stream_.events():
            if isinstance(each, UnknownEvent):
                time.sleep(0.3)  # noqa: ASYNC251 - the caller is busy
                gate.open()
        assert stream_.snapshot.text == "ab"


async def test_each_chunk_begins_the_idle_wait_anew(server: RawServer) -> None:
    server.answer(*stream(*[chunk("a")] * 3, Repeat(chunk("a"), 0.05)))
    async with client_of(server, timeout=Timeouts(idle=0.5)) as client:
        began = time.monotonic()
        async with client.chat_completion("Hi") as stream_:
            async for _ in stream_:
                if time.monotonic() - began > 0.7:
                    break
    assert stream_.stats.chunks > 3


async def test_no_limit_at_all(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi", "stop"), DONE))
    async with client_of(server, timeout=None) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hi"


async def test_a_call_has_its_own_timeouts(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(HOLD)
    with pytest.raises(APITimeoutError) as caught:
        await client.chat_completion("Hi", timeout=0.1)
    assert (caught.value.phase, caught.value.limit) == ("first_chunk", 0.1)


@pytest.mark.parametrize("limit", [0, -1, True, "5", Ellipsis])
async def test_a_timeout_that_is_no_time_is_refused(limit: Any, client: AsyncChatClient) -> None:
    with pytest.raises(ChatAPIError, match="no positive number of seconds"):
        client.chat_completion("Hi", timeout=limit)


# ── what is called an event stream, and is none ──────────────────────────────────────────────────────────────────────


async def test_an_error_that_is_called_an_event_stream_keeps_its_words(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(b'{"error": {"message": "no credits left", "code": 402}}'))
    with pytest.raises(ServerStreamError, match="no credits left") as caught:
        await client.chat_completion("Hi").until_done()
    assert caught.value.code == 402


async def test_a_completion_that_is_called_an_event_stream_is_an_answer(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(b' {"choices": [{"message": {"content": "Hello"}, ', b'"finish_reason": "stop"}]}'))
    completion = await client.chat_completion("Hi").get_final_completion()
    assert (completion.text, completion.completeness) == ("Hello", "complete")


async def test_half_a_completion_that_is_called_an_event_stream_is_truncated(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(b'{"choices": [{"message": {"content": "Hel', CLOSE))
    with pytest.raises(StreamTruncatedError, match=r"the connection broke .* before any answer, with '\{\"choices"):
        await client.chat_completion("Hi").until_done()


async def test_a_page_that_is_called_an_event_stream_is_quoted(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(b"<html><body><h1>Bad gateway</h1></body></html>"))
    with pytest.raises(StreamTruncatedError, match="Bad gateway"):
        await client.chat_completion("Hi").until_done()


async def test_a_large_json_body_that_is_called_an_event_stream_is_truncated(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(b'{"choices": "' + b"x" * 70_000 + b'"}'))
    with pytest.raises(StreamTruncatedError, match="before any answer, with"):
        await client.chat_completion("Hi").until_done()


async def test_a_whole_event_counts_though_the_connection_breaks_before_its_end(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"))[:-1], b"e\r\ndata: [DONE]\r\n", CLOSE)
    completion = await client.chat_completion("Hi").get_final_completion()
    assert (completion.text, completion.completeness) == ("Hi", "complete")
