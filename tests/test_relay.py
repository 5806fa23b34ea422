"""``relay_sse``: what it sends, what it keeps to itself, when it reads, and how it ends; on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import anyio
import pytest

from chatapi_async import (
    AsyncChatClient,
    ChatCompletionChunkResponse,
    ConfigurationError,
    StreamClosedError,
    Timeouts,
    errors,
)
from chatapi_async.relay import SSE_HEADERS, relay_sse
from chatapi_async.types import BaseChunk
from tests.raw_server import (
    DONE,
    HOLD,
    RESET,
    WAIT_SECONDS,
    AnyStep,
    RawServer,
    body,
    chunk,
    client_of,
    event,
    stream,
)

KEEP_ALIVE = b": keep-alive\n\n"
each_backend = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def all_of(events: AsyncIterator[bytes]) -> list[bytes]:
    return [event async for event in events]


async def collect(source: AsyncIterator[bytes], events: list[bytes]) -> None:
    async for sent in source:
        events.append(sent)


async def some_chunks() -> AsyncIterator[BaseChunk]:
    for text in ("Hel", "lo"):
        yield ChatCompletionChunkResponse.model_validate({"id": "msg_1", "choices": [{"delta": {"content": text}}]})


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

HUSH = "hush-7c1e"
"""Part of everything that nobody outside may see."""


class Failure(NamedTuple):
    """The type and code that are sent, what the upstream does, what the client is given, how many chunks come."""

    type: str
    code: str
    answer: tuple[AnyStep, ...] = (HOLD,)
    options: Mapping[str, Any] = MappingProxyType({})
    came: int = 0


def refused(status: int, **headers: str) -> tuple[AnyStep, ...]:
    error = {"message": f"{HUSH} is not welcome", "code": HUSH, "type": HUSH}
    return body(json.dumps(error), status, x_request_id=HUSH, **headers)


UNAVAILABLE = ("api_error", "unavailable")
REFUSED = ("invalid_request_error", "refused")
LOST = ("api_error", "connection_lost")
TIMEOUT = ("timeout_error", "timeout")
ERROR = event({"error": {"message": HUSH, "type": HUSH, "code": HUSH}}, "error")
FAILURES: dict[str, Failure] = {
    "connection refused": Failure(*UNAVAILABLE, options={"base_url": f"http://127.0.0.1:9/{HUSH}"}),
    "lost before the response": Failure(*UNAVAILABLE, (RESET,)),
    "400": Failure(*REFUSED, refused(400)),
    "401": Failure(*UNAVAILABLE, refused(401)),
    "402": Failure(*UNAVAILABLE, refused(402)),
    "403": Failure(*UNAVAILABLE, refused(403)),
    "404": Failure("not_found_error", "not_found", refused(404)),
    "409": Failure(*UNAVAILABLE, refused(409)),
    "418": Failure(*UNAVAILABLE, refused(418)),
    "422": Failure(*REFUSED, refused(422)),
    "429": Failure("rate_limit_error", "rate_limited", refused(429)),
    "500": Failure(*UNAVAILABLE, refused(500)),
    "503": Failure(*UNAVAILABLE, refused(503, retry_after="0")),
    "redirect": Failure(*UNAVAILABLE, refused(302, location=f"https://{HUSH}/")),
    "error at once": Failure(*UNAVAILABLE, stream(ERROR)),
    "error event": Failure(*UNAVAILABLE, stream(chunk("Hel"), chunk("lo"), ERROR, DONE), came=2),
    "error object": Failure(*UNAVAILABLE, stream(chunk("Hi"), event({"error": HUSH}), DONE), came=1),
    "error after the finish reason": Failure(*UNAVAILABLE, stream(chunk("Hi", "stop"), ERROR, DONE), came=1),
    "cut off": Failure(*LOST, stream(chunk("Hel"), chunk("lo")), came=2),
    "connection reset": Failure(*LOST, stream(chunk("Hi"), RESET), came=1),
    "first chunk timeout": Failure(*TIMEOUT, stream(HOLD), {"timeout": Timeouts(first_chunk=0.05)}),
    "idle timeout": Failure(*TIMEOUT, stream(chunk("Hi"), HOLD), {"timeout": Timeouts(idle=0.05)}, came=1),
    "no answer": Failure("api_error", "empty", stream(DONE)),
    "no JSON": Failure(*UNAVAILABLE, stream(chunk("Hi"), event(f"{{{HUSH}")), came=1),
    "a page": Failure(*UNAVAILABLE, body(f"<html>{HUSH}</html>", content_type="text/html")),
    "too large": Failure(*UNAVAILABLE, stream(chunk("Hi"), chunk(HUSH * 200)), {"max_event_bytes": 500}, came=1),
}


def error_in(event: bytes) -> dict[str, str]:
    assert event.startswith(b"event: error\ndata: ")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 3
    found = json.loads(event.removeprefix(b"event: error\ndata: "))
    assert found.keys() == {"error"}
    assert found["error"].keys() == {"message", "type", "code"}
    return found["error"]


ERROR_NAMES = [name for name, value in vars(errors).items() if isinstance(value, type)]


def relay_of(failure: Failure, server: RawServer) -> tuple[AsyncChatClient, AsyncIterator[bytes]]:
    given = {"base_url": f"{server.url}/{HUSH}", "token": f"{HUSH}-token", "operator_id": f"tn_{HUSH}", "retries": 0}
    client = client_of(server, **given | dict(failure.options))
    chatroom = client.chatroom(f"ch_{HUSH}")
    return client, relay_sse(chatroom.chat_completion("Hi", extra_headers={f"x-{HUSH}": HUSH}, user=HUSH))


@each_backend
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failure_is_one_last_event_that_tells_nothing_of_the_backend(
    failure: Failure, backend: str, server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*failure.answer)

    async def main() -> list[bytes]:
        client, events = relay_of(failure, server)
        async with client:
            sent = await all_of(events)
            assert await all_of(events) == []
        await server.all_closed()
        return sent

    with caplog.at_level(logging.WARNING, "chatapi_async"):
        events = anyio.run(main, backend=backend)

    error = error_in(events.pop())
    assert len(events) == failure.came
    assert all(event.startswith(b"data: {") for event in events)
    assert (error["type"], error["code"]) == (failure.type, failure.code)
    assert re.fullmatch(r"[A-Z][A-Za-z. ]+\.", error["message"])
    sent = b"".join(events).decode() + json.dumps(error)
    for hidden in (HUSH, "127.0.0.1", "http", "Traceback", str(server.port), *ERROR_NAMES):
        assert hidden not in sent
    logged = [record for record in caplog.records if record.getMessage().startswith("relay_sse")]
    assert [record.levelname for record in logged] == ["WARNING"]
    assert any(name in logged[0].getMessage() for name in ERROR_NAMES)
    assert f"{HUSH}-token" not in caplog.text


async def test_a_client_that_is_closed_is_a_failure_too(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    events = relay_sse(client.chat_completion("Hi"))
    await anext(events)
    await client.aclose()
    (last,) = await all_of(events)
    assert error_in(last)["code"] == "cancelled"


@each_backend
def test_a_fault_of_the_program_is_sent_as_a_failure_and_then_raised(
    backend: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def faulty() -> AsyncIterator[BaseChunk]:
        async for made in some_chunks():
            yield made
        raise KeyError(HUSH)

    events: list[bytes] = []

    async def main() -> None:
        relay = relay_sse(faulty())
        for _ in range(2):
            with pytest.raises(KeyError, match=HUSH):
                await collect(relay, events)

    anyio.run(main, backend=backend)
    assert [event[:6] for event in events] == [b"data: ", b"data: ", b"event:"]
    assert error_in(events[-1])["code"] == "unavailable"
    assert HUSH.encode() not in b"".join(events)
    assert not caplog.records


# ── keep-alive ───────────────────────────────────────────────────────────────────────────────────────────────────────


@each_backend
@pytest.mark.parametrize("first", [(), (chunk("Hel"),)], ids=["before the first chunk", "in mid-answer"])
@pytest.mark.parametrize("silence", ["nothing", "comments"])
def test_comments_are_sent_while_nothing_is_said(
    first: tuple[bytes, ...], silence: str, backend: str, server: RawServer
) -> None:
    gate = server.gate()
    pings = (b": ping\n\n",) if silence == "comments" else ()
    server.answer(*stream(*first, *pings, gate, chunk("lo", "stop"), DONE))

    async def main() -> list[bytes]:
        async with client_of(server) as client:
            relay = relay_sse(client.chat_completion("Hi"), keep_alive=0.02)
            with anyio.fail_after(WAIT_SECONDS):
                events = [await anext(relay) for _ in range(len(first) + 3)]
            gate.open()
            return events + await all_of(relay)

    events = anyio.run(main, backend=backend)
    assert events.count(KEEP_ALIVE) >= 2
    said = [event for event in events if event != KEEP_ALIVE]
    assert said.pop() == DONE
    assert [json.loads(data[6:]) for data in said] == [json.loads(data[6:]) for data in (*first, chunk("lo", "stop"))]
    assert len(server.requests) == 1


async def test_no_comment_is_sent_while_chunks_come() -> None:
    async def steady() -> AsyncIterator[BaseChunk]:
        for _ in range(40):
            async for made in some_chunks():
                await anyio.sleep(0.01)
                yield made

    assert KEEP_ALIVE not in await all_of(relay_sse(steady(), keep_alive=0.5))


@pytest.mark.parametrize("keep_alive", [0, -1.0, float("nan"), float("inf")])
def test_what_is_no_interval_is_refused_at_once(keep_alive: float) -> None:
    with pytest.raises(ConfigurationError, match="keep_alive"):
        relay_sse(some_chunks(), keep_alive=keep_alive)


# ── reading, and ending ──────────────────────────────────────────────────────────────────────────────────────────────


@each_backend
def test_it_reads_ahead_of_a_slow_client_by_few_chunks(backend: str) -> None:
    given: list[int] = []

    async def many() -> AsyncIterator[BaseChunk]:
        while len(given) < 100:
            given.append(len(given))
            yield ChatCompletionChunkResponse()

    async def main() -> None:
        async with relay_sse(many()) as events:
            assert given == []
            for taken in range(1, 50):
                await anext(events)
                await anyio.wait_all_tasks_blocked()
                assert taken < len(given) <= taken + 16

    anyio.run(main, backend=backend)


async def test_a_slow_reader_is_no_silence_of_the_upstream(server: RawServer) -> None:
    server.answer(*stream(chunk("Hel"), chunk("lo", "stop"), DONE))
    async with client_of(server, timeout=Timeouts(idle=0.1)) as client:
        events = relay_sse(client.chat_completion("Hi"))
        first = await anext(events)
        await anyio.sleep(0.3)
        assert [first, *await all_of(events)][-1] == DONE


async def test_a_task_that_is_cancelled_while_it_sends_closes_the_stream_at_once(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    events = relay_sse(client.chat_completion("Hi"))  # still held afterwards, as by the traceback of the cancellation
    sends = anyio.Event()

    async def respond() -> None:
        async for _ in events:
            sends.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(respond)
        await sends.wait()
        tasks.cancel_scope.cancel()
    await server.hung_up()
    with pytest.raises(StreamClosedError):
        await anext(events)


async def test_a_task_for_each_read_closes_nothing() -> None:
    events = relay_sse(some_chunks())
    read = [await asyncio.ensure_future(anext(events)) for _ in range(3)]
    assert read[-1] == DONE


async def test_a_stream_that_is_stopped_ends_like_a_whole_one(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    source = client.chat_completion("Hi")
    events = relay_sse(source)
    await anext(events)
    await source.stop()
    assert await all_of(events) == [DONE]


def test_the_headers_say_what_it_is_and_keep_proxies_from_holding_it() -> None:
    assert SSE_HEADERS == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    with pytest.raises(TypeError):
        SSE_HEADERS["cache-control"] = "public"  # type: ignore[index]
