"""How a stream ends: every way, with all that had come kept, on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from chatapi_async import (
    AsyncChatClient,
    ChatStream,
    ConfigurationError,
    EmptyStreamError,
    RetryPolicy,
    ServerStreamError,
    StreamClosedError,
    StreamDecodeError,
    StreamError,
    StreamStats,
    StreamTruncatedError,
)
from tests.raw_server import CLOSE, DONE, HOLD, RESET, RawServer, body, chunk, client_of, event, head, stream, wait_for

ERROR = event({"error": {"message": "overloaded", "code": "busy"}}, "error")
HALF = b'data: {"choices": [{"index": 0, "del'


# ── ends of the body ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "steps",
    [
        (chunk("Hi", "stop"), DONE),
        (chunk("Hi"), DONE),
        (chunk("Hi", "length"),),
        (chunk("Hi", "stop").rstrip(b"\n"),),
        (chunk("Hi"), DONE.rstrip(b"\n")),
        (chunk("Hi", "stop"), HALF),
        (chunk("Hi", "stop"), CLOSE),
        (chunk("Hi"), DONE, chunk(" again"), ERROR, DONE),
        (chunk("Hi"), chunk("", "stop"), event({"choices": [], "usage": {"total_tokens": 1}})),
    ],
    ids=[
        "finish reason and [DONE]",
        "[DONE] alone",
        "finish reason alone",
        "last event without blank line",
        "[DONE] without blank line",
        "half an event after the finish reason",
        "closed after the finish reason",
        "more after [DONE]",
        "usage after the finish reason",
    ],
)
async def test_an_answer_that_is_complete(steps: Any, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*steps))
    stream_ = client.chat_completion("Hi")
    completion = await stream_.get_final_completion()
    assert (completion.text, completion.completeness) == ("Hi", "complete")
    with pytest.raises(StopAsyncIteration):
        await anext(stream_)
    assert stream_.snapshot == completion


async def test_a_body_of_no_declared_length_ends_with_its_connection(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(head(200, {"content-type": "text/event-stream"}), chunk("Hi", "stop"), CLOSE)
    assert (await client.chat_completion("Hi").get_final_completion()).completeness == "complete"


async def _read_into(texts: list[str], stream_: AsyncIterator[str]) -> None:
    async for text in stream_:
        texts.append(text)


@pytest.mark.parametrize(
    ("steps", "error_type", "text", "completeness"),
    [
        ((chunk("a"), chunk("b")), StreamTruncatedError, "ab", "truncated"),
        ((chunk("a"), CLOSE), StreamTruncatedError, "a", "truncated"),
        ((chunk("a"), HALF), StreamTruncatedError, "a", "truncated"),
        ((chunk("a", "stop"), chunk("b", index=1)), StreamTruncatedError, "a", "truncated"),
        ((chunk("a", "tool_calls"), chunk("b")), StreamTruncatedError, "ab", "truncated"),
        ((b"",), StreamTruncatedError, "", "truncated"),
        ((b": ping\n\n", HALF), StreamTruncatedError, "", "truncated"),
        ((CLOSE,), StreamTruncatedError, "", "truncated"),
        ((DONE,), EmptyStreamError, "", "failed"),
        ((event({"choices": []}), DONE), EmptyStreamError, "", "failed"),
        ((ERROR,), ServerStreamError, "", "failed"),
        ((chunk("a"), ERROR, DONE), ServerStreamError, "a", "failed"),
        ((chunk("a", "stop"), ERROR, DONE), ServerStreamError, "a", "failed"),
        ((chunk("a", "stop"), b'data: {"error": {"mess'), ServerStreamError, "a", "failed"),
        ((chunk("a"), event({"error": "overloaded"})), ServerStreamError, "a", "failed"),
        ((chunk("a"), b"error: overloaded\n\n"), ServerStreamError, "a", "failed"),
        ((chunk("a"), event("<p>no JSON</p>"), HOLD), StreamDecodeError, "a", "failed"),
        ((chunk("a"), event({"choices": 7}), HOLD), StreamDecodeError, "a", "failed"),
    ],
    ids=[
        "no finish reason",
        "closed in the middle",
        "half an event",
        "one of two choices finished",
        "more of the answer after the finish reason",
        "empty body",
        "comments and half an event",
        "closed at once",
        "[DONE] alone",
        "[DONE] after no choices",
        "error at once",
        "error in the middle",
        "error after the finish reason",
        "half an error after the finish reason",
        "error without a name",
        "error as a field",
        "an event that is no JSON",
        "an event that is no chunk",
    ],
)
async def test_an_answer_that_is_not_complete_carries_what_came(
    steps: Any, error_type: type[StreamError], text: str, completeness: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(*steps, x_request_id="req_1"))
    stream_ = client.chat_completion("Hi")
    texts: list[str] = []
    with pytest.raises(StreamError) as caught:
        await _read_into(texts, stream_.text_stream)
    error = caught.value
    assert type(error) is error_type
    assert "".join(texts) == text
    assert error.partial == stream_.snapshot
    assert error.partial is not None
    assert (error.partial.text, error.partial.completeness) == (text, completeness)
    assert error.chunks_received == stream_.stats.chunks
    assert (error.request_id, error.processed, error.retryable) == ("req_1", "unknown", False)
    with pytest.raises(error_type) as again:
        await stream_.get_final_completion()
    assert again.value is error


@pytest.mark.parametrize(
    ("failure", "message", "code", "kind"),
    [
        (event({"message": "busy"}, "error"), "busy", None, None),
        (event({"error": "busy"}, "error"), "busy", None, None),
        (event({"error": {"message": "busy", "type": "t", "code": "c"}}, "error"), "busy", "c", "t"),
        (event({"code": 503, "message": "busy"}, "error"), "busy", 503, None),
        (event("busy", "error"), "busy", None, None),
        (event({"error": {"message": "busy", "code": 401}}), "busy", 401, None),
        (event({"message": "busy", "code": "c"}), "busy", "c", None),
        (event({"choices": [], "error": {"message": "busy"}}), "busy", None, None),
        (b'error: {"message": "busy"}\n\n', "busy", None, None),
        (event({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}, "error"), "busy", None,
         "overloaded_error"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [(), (chunk("Hi"),), (chunk("Hi", "stop"),)], ids=["first", "middle", "finished"])
@pytest.mark.parametrize("after", [(), (DONE,)], ids=["last", "then [DONE]"])
async def test_an_error_in_the_stream_has_its_message_code_type_and_payload(
    failure: bytes,
    message: str,
    code: Any,
    kind: Any,
    before: Any,
    after: Any,
    server: RawServer,
    client: AsyncChatClient,
) -> None:
    server.answer(*stream(*before, failure, *after))
    with pytest.raises(ServerStreamError) as caught:
        await client.chat_completion("Hi").until_done()
    error = caught.value
    assert (error.message, error.code, error.type, error.chunks_received) == (message, code, kind, len(before))
    assert "busy" in json.dumps(error.payload)
    assert error.partial is not None
    assert error.partial.text == "Hi" * len(before)


async def test_fewer_answers_than_were_asked_for_are_not_complete(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("a", "stop")))
    server.answer(*stream(chunk("a", "stop"), chunk("b", "stop", index=1)))
    with pytest.raises(StreamTruncatedError, match="1 of 2 answers"):
        await client.chat_completion("Hi", n=2).until_done()
    assert (await client.chat_completion("Hi", n=2).get_final_completion()).completeness == "complete"


@pytest.mark.parametrize("finish", [None, "stop"])
async def test_a_reset_in_the_middle(finish: str | None, server: RawServer, client: AsyncChatClient) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("Hi", finish), gate, RESET))
    stream_ = client.chat_completion("Hi")
    assert (await anext(stream_)).text == "Hi"
    gate.open()
    if finish:
        assert (await stream_.get_final_completion()).completeness == "complete"
    else:
        with pytest.raises(StreamTruncatedError, match="connection broke") as caught:
            await anext(stream_)
        assert isinstance(caught.value.__cause__, httpx.HTTPError)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hi"
    assert len(server.requests) == 1


async def test_nothing_is_repeated_once_a_response_has_begun(server: RawServer) -> None:
    everything = RetryPolicy(initial_delay=0, also=frozenset(("connection_lost", "timeout", "server_error")))
    server.answer(*stream(RESET))
    async with client_of(server, retries=everything) as client:
        with pytest.raises(StreamTruncatedError):
            await client.chat_completion("Hi").until_done()
    assert len(server.requests) == 1


# ── ended by the caller ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_stop_keeps_what_came_and_ends_the_answer(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("a"), HOLD))
    stream_ = client.chat_completion("Hi")
    async for _ in stream_:
        await stream_.stop()
    completion = await stream_.get_final_completion()
    assert (completion.text, completion.completeness) == ("a", "stopped")
    assert (await stream_.get_final_message()).text == "a"
    await server.hung_up()


async def test_a_stream_that_was_closed_while_open_cannot_be_entered_again(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async with client.chat_completion("Hi") as stream_:
        await anext(stream_)
    with pytest.raises(StreamClosedError, match="it was closed"):
        await stream_


async def test_a_stream_stopped_before_it_is_opened_sends_nothing(server: RawServer, client: AsyncChatClient) -> None:
    stream_ = client.chat_completion("Hi")
    await stream_.stop()
    async with stream_:
        assert [chunk async for chunk in stream_] == []
    assert await stream_.get_final_text() == ""
    with pytest.raises(StreamClosedError, match="before any of the answer") as caught:
        await stream_.get_final_message()
    assert caught.value.partial == stream_.snapshot
    assert server.connections == 0


# What the server answers, and what the stream's stats or the log say once the reading task waits for more.
WAITS: dict[str, tuple[Any, str]] = {
    "for headers": ((HOLD,), ""),
    "for a JSON body": (stream(b"{", HOLD, content_type="application/json"), "bytes=1,"),
    "for the first chunk": (stream(b": ping\n", HOLD), "bytes=7,"),
    "for the next chunk": (stream(chunk("a"), HOLD), "chunks=1,"),
    "for what an error says": ((head(500, {"content-length": "9"}), HOLD), "HTTP/1.1 500"),
    "to try again": (body("", 429, retry_after="50"), "retry 1 in 50.00 s"),
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("end", ["stop", "aclose"])
async def test_another_task_can_end_a_stream_that_waits(
    wait: str, end: str, server: RawServer, client: AsyncChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    answer, waits = WAITS[wait]
    server.answer(*answer)
    stream_ = client.chat_completion("Hi")
    reader = asyncio.create_task(stream_.until_done())
    await server.received()
    await wait_for(lambda: waits in f"{stream_.stats} {caplog.text}", "the reading task to wait")
    await getattr(stream_, end)()
    if end == "stop":
        await asyncio.wait_for(reader, 2)
    else:
        with pytest.raises(StreamClosedError, match="it was closed") as caught:
            await asyncio.wait_for(reader, 2)
        assert caught.value.partial == stream_.snapshot
        assert caught.value.chunks_received == stream_.stats.chunks
    assert stream_.snapshot.completeness == "stopped"
    assert stream_.snapshot.text == ("a" if wait == "for the next chunk" else "")
    assert len(server.requests) == 1
    if HOLD in answer:
        await server.hung_up()


async def test_a_stream_that_its_own_token_function_stops_sends_nothing(server: RawServer) -> None:
    async def token() -> str:
        await stream_.stop()
        return "t0ken"

    async with client_of(server, token=token) as client:
        stream_ = client.chat_completion("Hi")
        assert await stream_.get_final_text() == ""
    assert server.requests == []


async def test_closing_twice_is_closing_once(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("a"), HOLD))
    stream_ = client.chat_completion("Hi")
    await anext(stream_)
    for _ in range(2):
        await stream_.aclose()
    await stream_.stop()
    with pytest.raises(StreamClosedError):
        await anext(stream_)
    assert stream_.snapshot.completeness == "stopped"


@pytest.mark.parametrize("end", [ChatStream.stop, ChatStream.aclose])
async def test_a_stream_that_has_ended_cannot_be_ended_otherwise(
    end: Any, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), DONE))
    stream_ = client.chat_completion("Hi")
    await stream_.until_done()
    await end(stream_)
    assert (await stream_.get_final_completion()).completeness == "complete"


class _LastWords(httpx.AsyncByteStream):
    """A body that ends, without a finish reason, in the very moment in which the test says so."""

    def __init__(self) -> None:
        self.end = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield chunk("a")
        await self.end.wait()


async def test_a_stream_stopped_in_the_moment_in_which_its_body_ends_is_stopped() -> None:
    last_words = _LastWords()
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=last_words)
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: response)) as http_client:
        client = AsyncChatClient(operator_id="tn_1", token="t0ken", http_client=http_client)
        stream_ = client.chat_completion("Hi")
        await anext(stream_)
        reader = asyncio.create_task(stream_.until_done())
        await asyncio.sleep(0)
        last_words.end.set()
        await stream_.stop()
        await reader
    assert stream_.snapshot.completeness == "stopped"


async def _ended_as_its_response_comes(end: Callable[[ChatStream[Any]], Awaitable[None]]) -> ChatStream[Any]:
    """Await a stream, and let another task end it in the moment in which the response comes."""
    answer_now = asyncio.Event()
    asked = asyncio.Event()

    async def respond(request: httpx.Request) -> httpx.Response:
        asked.set()
        await answer_now.wait()
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunk("a"))

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http_client:
        client = AsyncChatClient(operator_id="tn_1", token="t0ken", http_client=http_client)
        stream_ = client.chat_completion("Hi")
        opener = asyncio.ensure_future(stream_)
        await asked.wait()
        answer_now.set()
        await end(stream_)
        assert await opener is stream_
    return stream_


async def test_a_stream_stopped_in_the_moment_in_which_its_response_comes_is_stopped() -> None:
    stream_ = await _ended_as_its_response_comes(ChatStream.stop)
    assert await stream_.get_final_text() == ""
    assert (stream_.snapshot.completeness, stream_.status_code) == ("stopped", 200)


async def test_a_stream_closed_in_the_moment_in_which_its_response_comes_is_closed() -> None:
    with pytest.raises(StreamClosedError, match="it was closed"):
        await _ended_as_its_response_comes(ChatStream.aclose)


# ── two tasks, and other trouble ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_second_task_that_reads_is_refused_and_the_first_goes_on(
    server: RawServer, client: AsyncChatClient
) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("a"), gate, chunk("b", "stop"), DONE))
    stream_ = client.chat_completion("Hi")
    first = asyncio.create_task(stream_.get_final_text())
    await gate.reached()
    with pytest.raises(ConfigurationError, match="two tasks"):
        await anext(stream_)
    gate.open()
    assert await first == "ab"


async def test_an_error_of_the_callers_own_token_function_is_raised_as_it_is(server: RawServer) -> None:
    def token() -> str:
        raise LookupError("no such tenant")

    async with client_of(server, token=token) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(LookupError, match="no such tenant"):
            await stream_
        with pytest.raises(StreamClosedError, match="LookupError"):
            await stream_
    assert stream_.snapshot.completeness == "failed"


async def test_a_request_that_is_abandoned_on_its_way_is_no_error(server: RawServer) -> None:
    server.answer(HOLD)
    client = client_of(server)
    opening: Any = client.chat_completion("Hi").__await__()
    opening.send(None)
    opening.close()
    await client.aclose()


async def test_a_read_that_is_abandoned_closes_the_stream(server: RawServer) -> None:
    async def token() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async with client_of(server, token=token) as client:
        stream_ = client.chat_completion("Hi")
        read = stream_.__anext__()
        read.send(None)
        read.close()
        with pytest.raises(StreamClosedError, match="abandoned"):
            await anext(stream_)


# ── what is measured, and said ───────────────────────────────────────────────────────────────────────────────────────


async def test_stats_of_a_stream(server: RawServer, client: AsyncChatClient) -> None:
    pieces = (b": ping\n\n", chunk("仙台"), chunk("", "stop"), DONE)
    server.answer(*stream(*pieces))
    stream_ = client.chat_completion("Hi")
    before = stream_.stats
    assert before == StreamStats(time_to_first_chunk=None, chunks=0, heartbeats=0, bytes=0, duration=0.0)
    await stream_
    assert stream_.stats.time_to_first_chunk is None
    assert stream_.stats.duration > 0
    await stream_.until_done()
    stats = stream_.stats
    assert stats.time_to_first_chunk is not None
    assert 0 < stats.time_to_first_chunk <= stats.duration
    assert (stats.chunks, stats.heartbeats, stats.bytes) == (2, 1, sum(map(len, pieces)))
    assert stream_.stats.duration == stats.duration


async def test_the_end_of_a_stream_is_logged(
    server: RawServer, client: AsyncChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "chatapi_async")
    server.answer(*stream(chunk("Hi"), DONE))
    await client.chat_completion("Hi").until_done()
    assert "(complete, 1 chunks) ended after" in caplog.text
