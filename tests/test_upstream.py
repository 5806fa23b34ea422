"""An upstream in the place of the emulator's model, on real sockets: what a client sees, and what the upstream does."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import AsyncChatClient, ChatCompletionRequest, Message, ServerStreamError, StreamTruncatedError
from chatapi_async.__main__ import main
from chatapi_async.emulator import Emulator, ScriptedAnswer, Upstream, _relay, choose_fault, serve, serve_in_thread
from chatapi_async.emulator._merging import AnswerMerger, message_of
from chatapi_async.emulator._refusals import refused
from chatapi_async.emulator._translation import Answered, model_names, named_model, not_found, refusal, request_body
from chatapi_async.emulator._upstream import Concealment
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    RESET,
    AnyStep,
    RawServer,
    Repeat,
    body,
    chunk,
    event,
    head,
    stream,
    wait_for,
)

COMPLETIONS = "/v1/llms/chat/completions"
ROOM = "/v1/llms/chatrooms/ch_1/chat/completions"
HEADERS = {"authorization": "Bearer callers-own-token", "x-operator-id": "tn_1"}
KEY = "sk-0123456789ABCdef"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}], "model": "m"}
STREAM = {**ASK, "stream": True}
ANSWER = (chunk("Air "), chunk("scatters."), chunk(finish="stop"), DONE)
COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Air."}, "finish_reason": "stop"}],
}
JSON_HEAD = {"content-type": "application/json", "content-length": "9"}
STREAM_HEAD = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
MODELS = json.dumps({"object": "list", "data": [{"id": "first:7b"}, {"id": "org/second"}]})
MANY_MODELS = json.dumps({"data": [{"id": f"org/{number}", "description": "x" * 1500} for number in range(300)]})
SAID = [Message.user("Why?"), Message.assistant("Air scatters.")]


def upstream_of(server: RawServer, **options: Any) -> Upstream:
    return Upstream(f"{server.url}/v1", **options)


@asynccontextmanager
async def connect(upstream: Upstream, **options: Any) -> AsyncIterator[tuple[Emulator, httpx.AsyncClient]]:
    emulator = Emulator(upstream=upstream, create_chatrooms=True, **options)
    async with (
        serve(emulator) as running,
        httpx.AsyncClient(base_url=running.base_url, headers=HEADERS, trust_env=False) as client,
    ):
        yield emulator, client


def client_at(url: httpx.URL) -> AsyncChatClient:
    return AsyncChatClient(str(url), operator_id="tn_1", token="callers-own-token", retries=0)


async def ask(server: RawServer, *steps: AnyStep, path: str = COMPLETIONS, **fields: Any) -> httpx.Response:
    """Ask once, through an emulator, an upstream that answers so."""
    server.answer(*steps)
    async with connect(upstream_of(server)) as (_, client):
        return await client.post(path, json={**ASK, **fields})


def sent_as(fields: dict[str, Any], model: str = "m", history: tuple[Message, ...] = ()) -> dict[str, Any]:
    request = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "Hi"}], **fields})
    sent: dict[str, Any] = json.loads(request_body(request, history, model))
    return sent


class TestTheRequest:
    def test_what_is_the_services_own_is_not_sent_and_neither_is_null(self) -> None:
        own = {
            "memory_settings": {"extract_memory": True, "max_memories": 5, "min_relevance_score": 0.5},
            "communication_style": "warm",
            "explanation_style": "brief",
            "technical_level": "expert",
        }
        sent = sent_as({**own, "model": "large", "top_p": None})
        assert sent == {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

    @pytest.mark.parametrize(
        ("fields", "sent"),
        [
            ({"tool_choice": "any"}, {"tool_choice": "required"}),
            ({"tool_choice": "auto"}, {"tool_choice": "auto"}),
            ({"max_completion_tokens": 7}, {"max_tokens": 7}),
            ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
            ({"stream": False}, {"stream": False}),
            ({"n": 2, "user": "u", "temperature": 0.5}, {"n": 2, "user": "u", "temperature": 0.5}),
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
                {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            ),
        ],
    )
    def test_what_is_translated_and_what_passes(self, fields: dict[str, Any], sent: dict[str, Any]) -> None:
        assert sent_as(fields) == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **sent}

    def test_messages_pass_as_they_are_after_those_of_the_chatroom(self) -> None:
        parts = [{"type": "image_url", "image_url": {"url": "data:,"}, "cache_control": {"type": "ephemeral"}}]
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        said = Message.model_validate({"role": "assistant", "content": None, "tool_calls": [call]})
        asked = {"role": "tool", "content": parts, "tool_call_id": "c", "name": "f"}
        sent = sent_as({"messages": [asked]}, history=(Message.user("Before 日"), said))
        assert sent["messages"] == [
            {"role": "user", "content": "Before 日"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            asked,
        ]

    @pytest.mark.parametrize(
        ("model", "replaced_by", "named"),
        [
            ("llama3.2:3b", None, "llama3.2:3b"),
            ("meta-llama/Llama-3.2-1B", None, "meta-llama/Llama-3.2-1B"),
            ("anthropic/claude", "qwen3:0.6b", "qwen3:0.6b"),
            ("large", "qwen3:0.6b", "qwen3:0.6b"),
            ("large", None, None),
            ("small", None, None),
            (None, None, None),
        ],
    )
    def test_which_model_is_asked_for(self, model: str | None, replaced_by: str | None, named: str | None) -> None:
        request = ChatCompletionRequest(messages=[Message.user("Hi")], model=model)
        assert named_model(request, Upstream("http://localhost:1/v1", model=replaced_by)) == named

    @pytest.mark.parametrize("model", [None, "small"])
    async def test_without_a_name_the_upstreams_first_model_is_asked(
        self, server: RawServer, model: str | None
    ) -> None:
        server.answer(*body(MODELS))
        answered = await ask(server, *body(json.dumps(COMPLETION)), model=model)
        assert answered.status_code == 200
        assert [request.line.split()[:2] for request in server.requests] == [
            ["GET", "/v1/models"],
            ["POST", "/v1/chat/completions"],
        ]
        assert server.requests[1].json["model"] == "first:7b"

    async def test_the_list_of_models_may_be_as_long_as_a_routers(self, server: RawServer) -> None:
        server.answer(*body(MANY_MODELS))
        server.answer(*body(json.dumps(COMPLETION)))
        async with connect(upstream_of(server)) as (_, client):
            assert (await client.post(COMPLETIONS, json={**ASK, "model": None})).status_code == 200
        assert server.requests[1].json["model"] == "org/0"

    async def test_without_a_name_and_without_models_it_says_so(self, server: RawServer) -> None:
        answered = await ask(server, *body('{"data": []}'), model="large")
        assert (answered.status_code, answered.json()["code"]) == (400, "unsupported_model")
        assert "has no models" in answered.json()["message"]

    @pytest.mark.parametrize("key", [None, KEY])
    async def test_the_callers_token_is_never_sent_and_the_upstreams_key_is(
        self, server: RawServer, key: str | None
    ) -> None:
        server.answer(*body(json.dumps(COMPLETION)))
        async with connect(upstream_of(server, key=key)) as (_, client):
            await client.post(COMPLETIONS, json=ASK)
        (request,) = server.requests
        assert request.header("authorization") == (None if key is None else f"Bearer {key}")
        assert request.header("accept-encoding") == "identity"
        assert request.header("content-type") == "application/json"
        sent = f"{request.headers}{request.body!r}"
        assert "callers-own-token" not in sent
        assert "tn_1" not in sent

    async def test_the_contract_and_the_token_are_checked_as_without_an_upstream(self, server: RawServer) -> None:
        async with connect(upstream_of(server), token="good") as (_, client):
            refused = await client.post(COMPLETIONS, json=ASK)
            assert refused.status_code == 401
            client.headers["authorization"] = "Bearer good"
            assert (await client.post(COMPLETIONS, json={**ASK, "seed": 1})).status_code == 400
        assert server.requests == []


class TestTheStream:
    @pytest.mark.parametrize("path", [COMPLETIONS, ROOM])
    async def test_the_bytes_are_the_upstreams(self, server: RawServer, path: str) -> None:
        odd = (b"\xef\xbb\xbf: hello\r\n\r\n", chunk("Air "), b"id: 1\rdata: \xff\r\r", b"event: x\ndata: {}\n\n", DONE)
        answered = await ask(server, *stream(*odd, content_type="text/event-stream; charset=utf-8"), path=path)
        assert answered.content == b"".join(odd)
        assert answered.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answered.headers["x-request-id"].startswith("req_")
        assert (answered.headers["cache-control"], answered.headers["x-accel-buffering"]) == ("no-store", "no")

    async def test_a_type_with_odd_characters_passes(self, server: RawServer) -> None:
        odd = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; x=\xe6\x97\xa5\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        answered = await ask(server, odd, *stream(*ANSWER)[1:])
        assert answered.headers.raw[0] == (b"content-type", b"text/event-stream; x=\xe6\x97\xa5")
        assert answered.content == b"".join(ANSWER)

    @pytest.mark.parametrize("path", [COMPLETIONS, ROOM])
    async def test_a_token_is_at_the_client_before_the_next_is_made(self, server: RawServer, path: str) -> None:
        before, between = server.gate(), server.gate()
        server.answer(*stream(before, chunk("Air "), between, *ANSWER[1:]))
        async with (
            connect(upstream_of(server)) as (_, client),
            client.stream("POST", path, json=STREAM) as response,  # its headers are there before a token is
        ):
            pieces = response.aiter_raw()
            before.open()
            assert await anext(pieces) == chunk("Air ")
            between.open()
            assert b"".join([piece async for piece in pieces]) == b"".join(ANSWER[1:])

    async def test_streams_do_not_wait_for_one_another(self, server: RawServer) -> None:
        count = 120  # more than httpx has connections in a pool
        gate = server.gate()
        server.answer(*stream(chunk("Air "), gate, *ANSWER[1:]))
        server.answer(*stream(chunk("Air "), HOLD))
        async with (
            connect(upstream_of(server)) as (emulator, client),
            client_at(client.base_url) as chat,
            asyncio.TaskGroup() as tasks,
        ):
            async with client.stream("POST", COMPLETIONS, json=STREAM) as first:
                await anext(first.aiter_raw())

                async def hold() -> None:
                    async with chat.chat_completion("Hi", model="m") as answer:
                        await anext(answer)
                        await done.wait()

                done = asyncio.Event()
                for _ in range(count):
                    tasks.create_task(hold())
                await wait_for(lambda: emulator.open_streams == count + 1, "all to stream")
            done.set()
        await server.all_closed()

    async def test_a_stream_that_is_compressed_all_the_same_is_read(self, server: RawServer) -> None:
        packed = gzip.compress(b"".join(ANSWER))
        answered = await ask(server, *stream(packed, content_encoding="gzip"), path=ROOM, stream=True)
        assert answered.content == b"".join(ANSWER)

    async def test_an_error_in_the_stream_passes_through(self, server: RawServer) -> None:
        server.answer(*stream(chunk("Air "), event({"error": {"message": "overloaded"}}), DONE))
        async with connect(upstream_of(server)) as (emulator, client), client_at(client.base_url) as chat:
            with pytest.raises(ServerStreamError, match="overloaded") as raised:
                await chat.chat_completion_on_chatroom("ch_1", "Why?", model="m").get_final_text()
        assert raised.value.partial is not None
        assert raised.value.partial.text == "Air "
        assert emulator.chatrooms == {}

    @pytest.mark.parametrize("end", [CLOSE, RESET])
    @pytest.mark.parametrize("path", [COMPLETIONS, ROOM])
    async def test_a_stream_that_breaks_off_breaks_off_at_the_client(
        self, server: RawServer, path: str, end: AnyStep
    ) -> None:
        server.answer(*stream(chunk("Air "), end))
        async with connect(upstream_of(server)) as (emulator, client):
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(path, json=STREAM)
            await wait_for(lambda: emulator.open_streams == 0, "the stream to be over")
        assert emulator.chatrooms == {}

    async def test_it_breaks_off_under_another_server_too(
        self, server: RawServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.answer(*stream(chunk("Air "), CLOSE))
        emulator = Emulator(upstream=upstream_of(server, key=KEY))
        other = uvicorn.Server(uvicorn.Config(emulator, log_config=None, lifespan="off", ws="none"))
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
            serving = asyncio.create_task(other.serve(sockets=[listener]))
            async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
                with pytest.raises(httpx.RemoteProtocolError):
                    await client.post(f"http://127.0.0.1:{port}{COMPLETIONS}", json=STREAM)
            other.should_exit = True
            await serving
        assert "RemoteProtocolError" in caplog.text
        assert KEY not in caplog.text
        await server.all_closed()


class TestChatrooms:
    async def test_a_chatroom_remembers(self, server: RawServer) -> None:
        server.answer(*stream(*ANSWER))
        server.answer(*body(json.dumps(COMPLETION)))
        async with connect(upstream_of(server)) as (emulator, client):
            await client.post(ROOM, json=STREAM)
            await client.post(ROOM, json={**ASK, "messages": [{"role": "user", "content": "And?"}]})
        assert server.requests[1].json["messages"] == [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "Air scatters."},
            {"role": "user", "content": "And?"},
        ]
        assert emulator.chatrooms["ch_1"] == [*SAID, Message.user("And?"), Message.assistant("Air.")]

    async def test_it_remembers_before_the_client_is_sent_the_end(self, server: RawServer) -> None:
        server.answer(*stream(*ANSWER))
        emulator = Emulator(upstream=upstream_of(server), create_chatrooms=True)
        kept: list[list[Message] | None] = []
        received = iter([{"type": "http.request", "body": json.dumps(STREAM).encode(), "more_body": False}])

        async def receive() -> Any:
            return next(received, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if DONE in message.get("body", b""):
                kept.append(emulator.chatrooms.get("ch_1"))

        headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
        scope = {"type": "http", "method": "POST", "path": ROOM, "query_string": b"", "headers": headers}
        await emulator(scope, receive, send)
        assert kept == [SAID]

    async def test_the_first_of_several_answers_is_kept_with_its_tool_calls_and_nothing_else(
        self, server: RawServer
    ) -> None:
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
        more = {"index": 0, "function": {"arguments": ": 1}"}}
        deltas: list[dict[str, Any]] = [
            {"index": 1, "delta": {"role": "assistant", "content": "Second"}},
            {"index": 0, "delta": {"role": "assistant", "reasoning_content": "Hm", "tool_calls": [call]}},
            {"index": 0, "delta": {"tool_calls": [more], "refusal": "no"}, "finish_reason": "tool_calls"},
            {"index": 1, "delta": {}, "finish_reason": "stop"},
        ]
        server.answer(*stream(*(event({"choices": [delta]}) for delta in deltas), DONE))
        async with connect(upstream_of(server)) as (emulator, client):
            await client.post(ROOM, json={**STREAM, "n": 2})
        kept = emulator.chatrooms["ch_1"][1].model_dump(mode="json", exclude_unset=True)
        function = {"name": "f", "arguments": '{"a": 1}'}
        assert kept == {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": function}],
        }

    @pytest.mark.parametrize(
        ("steps", "fields"),
        [
            (ANSWER, {}),
            ((chunk("Air "), chunk("scatters."), DONE), {}),
            (ANSWER[:3], {}),
            ((chunk("Air "), chunk("scatters.", finish="stop").rstrip()), {}),
            ((*ANSWER[:3], b"data: [DONE]"), {}),
            ((*ANSWER, chunk("More"), event({"error": "late"})), {}),
            (tuple(bytes([byte]) for byte in b"".join(ANSWER)), {}),
        ],
    )
    async def test_an_answer_that_ended_well_is_kept(
        self, server: RawServer, steps: tuple[AnyStep, ...], fields: dict[str, Any]
    ) -> None:
        server.answer(*stream(*steps))
        async with connect(upstream_of(server)) as (emulator, client):
            await client.post(ROOM, json={**STREAM, **fields})
        assert emulator.chatrooms["ch_1"] == SAID

    @pytest.mark.parametrize(
        "steps",
        [
            stream(
                event({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm"}}]}), chunk(finish="length"), DONE
            ),
            body('{"choices": [{"index": 0, "message": {"role": "assistant", "content": null, "refusal": "No"}}]}'),
        ],
    )
    async def test_an_answer_without_a_text_is_not_null_in_the_next_request(
        self, server: RawServer, steps: tuple[AnyStep, ...]
    ) -> None:
        server.answer(*steps)
        async with connect(upstream_of(server)) as (_, client):
            for _ in range(2):
                await client.post(ROOM, json=STREAM)
        assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": ""}

    @pytest.mark.parametrize(
        ("steps", "fields"),
        [
            ((chunk("Air "),), {}),  # no end
            (ANSWER[:3], {"n": 2}),  # one of two answers
            ((DONE,), {}),
            ((), {}),
            ((chunk("Air "), b"data: {broken\n\n", DONE), {}),
            ((chunk("Air "), event("no JSON", "error"), *ANSWER[2:]), {}),
            ((chunk("Air "), b'data: {"error": "cut'), {}),
        ],
    )
    async def test_an_answer_that_did_not_is_not(
        self, server: RawServer, steps: tuple[AnyStep, ...], fields: dict[str, Any]
    ) -> None:
        server.answer(*stream(*steps))
        async with connect(upstream_of(server)) as (emulator, client):
            answered = await client.post(ROOM, json={**STREAM, **fields})
        assert answered.content == b"".join(step for step in steps if isinstance(step, bytes))
        assert emulator.chatrooms == {}

    async def test_one_that_was_left_is_not(self, server: RawServer) -> None:
        gate = server.gate()
        server.answer(*stream(chunk("Air "), gate, *ANSWER[1:]))
        async with connect(upstream_of(server)) as (emulator, client):
            async with client.stream("POST", ROOM, json=STREAM) as response:
                await anext(response.aiter_raw())
            await server.hung_up()
            await wait_for(lambda: emulator.open_streams == 0, "the hang-up to be seen")
        assert emulator.chatrooms == {}

    @pytest.mark.parametrize("content", ['{"error": {"message": "no"}}', '{"choices": []}', "[]", '{"object": "x"}'])
    async def test_json_that_is_no_answer_passes_and_is_not_kept(self, server: RawServer, content: str) -> None:
        server.answer(*body(content))
        async with connect(upstream_of(server)) as (emulator, client):
            answered = await client.post(ROOM, json=ASK)
        assert (answered.status_code, answered.text) == (200, content)
        assert emulator.chatrooms == {}

    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    async def test_json_in_the_place_of_a_stream_passes_and_is_kept(self, server: RawServer, mark: str) -> None:
        content = mark + json.dumps(COMPLETION, indent=1)
        server.answer(*body(content, content_type="application/json; charset=utf-8"))
        async with connect(upstream_of(server)) as (emulator, client):
            answered = await client.post(ROOM, json=STREAM)
        assert answered.content == content.encode()
        assert emulator.chatrooms["ch_1"][1] == Message.assistant("Air.")


FAILURES: list[tuple[int, str | bytes, dict[str, str], int, str, str]] = [
    # the upstream's status, body and headers; the status, code and words that the client sees
    (
        400,
        '{"error": {"message": "too long", "code": "context_length_exceeded"}}',
        {},
        400,
        "context_length_exceeded",
        "too long",
    ),
    (400, '{"error": {"message": "Bad x", "code": "400"}}', {}, 400, "upstream_refused_request", "Bad x"),
    (422, '{"detail": "no such field"}', {}, 400, "upstream_refused_request", "no such field"),
    (413, '{"message": "too much", "code": 413}', {}, 400, "upstream_refused_request", "too much"),
    (400, "<html><title>Bad</title><script>x()</script><p>Nope &amp; no", {}, 502, "upstream_failed", "Bad Nope & no"),
    (401, '{"error": "who?"}', {}, 502, "upstream_refused_key", "wants a key: who?"),
    (403, "", {}, 502, "upstream_refused_key", "wants a key: no message"),
    (402, "{}", {}, 502, "upstream_failed", "(402): {}"),
    (429, '{"error": {"message": "slow down"}}', {"retry-after": "7"}, 429, "rate_limited", "slow down"),
    (429, "busy", {}, 429, "rate_limited", "busy"),
    (503, '{"error": {"message": "Loading model"}}', {}, 502, "upstream_failed", "(503): Loading model"),
    (503, "later", {"retry-after": "3"}, 503, "upstream_unavailable", "later"),
    (500, b"\xff\x00 boom", {}, 502, "upstream_failed", "boom"),
    (504, "x" * 5000, {}, 502, "upstream_failed", "…"),
    (500, json.dumps({"error": {"message": "y" * 5000}}), {}, 502, "upstream_failed", "…"),
    (500, "[" * 100_000, {}, 502, "upstream_failed", "[[["),
    (500, '{"error": "half \\ud83d"}', {}, 502, "upstream_failed", "half ?"),
    (301, "", {"location": "https://elsewhere/v1"}, 502, "upstream_failed", "https://elsewhere/v1"),
    (307, "", {}, 502, "upstream_failed", "redirects (307), which is not followed: it does not say where"),
]


class TestFailures:
    @pytest.mark.parametrize(("status", "content", "headers", "seen", "code", "words"), FAILURES)
    async def test_an_error_of_the_upstream_comes_in_the_services_shape(
        self,
        server: RawServer,
        status: int,
        content: str | bytes,
        headers: dict[str, str],
        seen: int,
        code: str,
        words: str,
    ) -> None:
        answered = await ask(server, *body(content, status, **headers), path=ROOM, stream=True)
        assert (answered.status_code, answered.json()["code"]) == (seen, code)
        assert words in answered.json()["message"]
        assert len(answered.json()["message"]) < 1200
        assert answered.headers.get("retry-after") == headers.get("retry-after")
        await server.all_closed()

    @pytest.mark.parametrize(
        ("listed", "status", "code", "words"),
        [
            (body(MODELS), 400, "unsupported_model", "no model 'm'; it has: first:7b, org/second"),
            (body('{"data": []}'), 400, "unsupported_model", "it has none"),
            (body('{"data": [{"id": "m"}, 1, {"id": 2}]}'), 502, "upstream_failed", "(404: gone)"),
            (body("no", 404), 502, "upstream_failed", "/v1 has no POST /chat/completions (404: gone)"),
            (body("{}"), 502, "upstream_failed", "(404: gone)"),
        ],
    )
    async def test_a_404_is_a_model_that_is_not_there_if_the_upstream_says_which_are(
        self, server: RawServer, listed: tuple[bytes, ...], status: int, code: str, words: str
    ) -> None:
        server.answer(*body('{"error": {"message": "gone"}}', 404))
        answered = await ask(server, *listed)
        assert (answered.status_code, answered.json()["code"]) == (status, code)
        assert words in answered.json()["message"]
        assert "try http" not in answered.json()["message"]

    async def test_an_address_without_v1_is_told_of(self, server: RawServer) -> None:
        server.answer(*body("404 page not found", 404, "text/plain"))
        async with connect(Upstream(server.url)) as (_, client):
            answered = await client.post(COMPLETIONS, json=ASK)
        assert answered.status_code == 502
        assert answered.json()["message"].endswith(
            f"{server.url} has no POST /chat/completions (404: 404 page not found); "
            f"most servers have it under /v1: try {server.url}/v1"
        )
        said = await _relay.describe(Upstream(server.url))
        assert said.endswith(
            f"has no GET /models (404: 404 page not found); most servers have it under /v1: try {server.url}/v1"
        )

    async def test_a_key_that_is_refused_is_not_the_callers_token(self, server: RawServer) -> None:
        server.answer(*body('{"error": {"message": "bad"}}', 401))
        async with connect(upstream_of(server, key=KEY)) as (_, client):
            answered = await client.post(COMPLETIONS, json=ASK)
        assert answered.status_code == 502
        assert "does not accept the key that it was given: bad" in answered.json()["message"]

    @pytest.mark.parametrize("base_url", ["http://127.0.0.1:{port}/v1", "http://nowhere.invalid/v1"])
    async def test_one_that_cannot_be_reached(self, base_url: str) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = taken.getsockname()[1]
        async with connect(Upstream(base_url.format(port=port))) as (_, client):
            answered = await client.post(COMPLETIONS, json=ASK)
        assert (answered.status_code, answered.json()["code"]) == (502, "upstream_unreachable")
        assert "Is it running" in answered.json()["message"]

    async def test_one_that_takes_no_connection(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_relay, "_CONNECT_SECONDS", 0.05)
        with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as full:
            address = full.getsockname()[:2]
            waiting = [socket.socket() for _ in range(3)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(address)
            async with connect(Upstream(f"http://127.0.0.1:{address[1]}/v1")) as (_, client):
                answered = await client.post(COMPLETIONS, json=ASK)
            for each in waiting:
                each.close()
        assert answered.json()["code"] == "upstream_unreachable"
        assert "no connection within 0.05 s" in answered.json()["message"]

    @pytest.mark.parametrize(
        "steps",
        [
            (CLOSE,),
            (RESET,),
            (b"SSH-2.0-x\r\n", CLOSE),
            body("", 307, location="https://xn--/"),  # a name that cannot be decoded
            (head(200, JSON_HEAD), b"{", CLOSE),
        ],
    )
    async def test_one_that_gives_no_whole_answer(self, server: RawServer, steps: tuple[AnyStep, ...]) -> None:
        answered = await ask(server, *steps)
        assert (answered.status_code, answered.json()["code"]) == (502, "upstream_failed")
        assert "gave no whole answer" in answered.json()["message"]

    @pytest.mark.parametrize(
        ("steps", "words"),
        [
            (body("<html>Log in</html>", content_type="text/html"), "with text/html: Log in"),
            (body("Hm", content_type=""), "with no Content-Type: Hm"),
            (body("{broken"), "with what is no JSON: {broken"),
            (body(""), "with what is no JSON: an empty body"),
            (body("x", content_encoding="br"), "application/json compressed by br"),
            (stream(b"x", content_encoding="zstd"), "text/event-stream compressed by zstd"),
        ],
    )
    async def test_an_answer_that_is_none(self, server: RawServer, steps: tuple[AnyStep, ...], words: str) -> None:
        answered = await ask(server, *steps)
        assert (answered.status_code, answered.json()["code"]) == (502, "upstream_failed")
        assert words in answered.json()["message"]

    @pytest.mark.parametrize(
        ("sent", "words"),
        [
            (b"", "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
            (head(200, JSON_HEAD), "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
            (head(500, JSON_HEAD) + b"boom", "failed (500): boom"),
            (head(200, STREAM_HEAD), None),
        ],
        ids=["before the headers", "in JSON", "in an error", "in a stream"],
    )
    async def test_a_broken_tls_record_is_an_end(
        self, sent: bytes, words: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            await writer.drain()
            os.write(writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
            await reader.read()
            writer.close()

        trusting = httpx.create_ssl_context()
        authority.configure_trust(trusting)
        monkeypatch.setattr(_relay, "_ssl_context", lambda: trusting)
        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as listening:
            port = listening.sockets[0].getsockname()[1]
            async with connect(Upstream(f"https://localhost:{port}/v1")) as (emulator, client):
                if words is None:
                    with pytest.raises(httpx.RemoteProtocolError):
                        await client.post(ROOM, json=STREAM)
                    assert emulator.chatrooms == {}
                else:
                    answered = await client.post(COMPLETIONS, json=STREAM)
                    assert (answered.status_code, answered.json()["code"]) == (502, "upstream_failed")
                    assert words in answered.json()["message"]
        assert caplog.records == []

    async def test_an_error_without_end_is_not_waited_for(self, server: RawServer) -> None:
        answered = await ask(server, head(500, {"content-type": "text/plain"}), b"never ends " * 10_000, HOLD)
        assert answered.status_code == 502
        await server.hung_up()

    async def test_an_error_that_is_slow_is_told_as_far_as_it_came(
        self, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_relay, "_SHORT_SECONDS", 0.1)
        answered = await ask(server, head(500, {"content-length": "99"}), b"half of", HOLD)
        assert "(500): half of" in answered.json()["message"]
        await server.hung_up()

    async def test_an_error_that_breaks_off_is_told_as_far_as_it_came(self, server: RawServer) -> None:
        answered = await ask(server, head(500, {"content-length": "99"}), b"half of", CLOSE)
        assert "(500): half of" in answered.json()["message"]

    @given(
        status=st.sampled_from([429, 503]) | st.integers(300, 599),
        content=st.binary(max_size=300) | st.sampled_from(['{"error": "\\ud83d"}', "[" * 9999]).map(str.encode),
        wait=st.sampled_from([None, "", "7", "später", "日"]),
    )
    def test_whatever_an_upstream_answers_is_an_error_of_the_service(
        self, status: int, content: bytes, wait: str | None
    ) -> None:
        upstream = Upstream("http://localhost:1/v1", key=KEY)
        answered = Answered(status, {} if wait is None else {"retry-after": wait}, content)
        for error in (refusal(upstream, answered), not_found(upstream, "m", model_names(upstream, content), answered)):
            assert error.status in (400, 429, 502, 503)
            assert error.body["message"]
            assert error.body["code"]
            assert json.loads(bytes(refused(error).body)) == error.body


class TestHangUps:
    """No connection is left over, on either side."""

    async def test_before_the_headers(self, server: RawServer) -> None:
        server.answer(HOLD)
        async with connect(upstream_of(server)) as (emulator, client):
            asking = asyncio.create_task(client.post(ROOM, json=STREAM))
            await server.received()
            asking.cancel()
            await server.hung_up()
            await server.all_closed()
            await wait_for(lambda: emulator.open_streams == 0, "the stream to be over")

    async def test_while_the_models_are_asked_for(self, server: RawServer) -> None:
        server.answer(HOLD)
        async with connect(upstream_of(server)) as (_, client):
            asking = asyncio.create_task(client.post(ROOM, json={**STREAM, "model": "large"}))
            await server.received()
            asking.cancel()
            await server.hung_up()

    @pytest.mark.parametrize(
        "steps", [stream(chunk("Air "), HOLD), (head(200, {"content-type": "application/json"}), HOLD)]
    )
    async def test_in_the_middle(self, server: RawServer, steps: tuple[AnyStep, ...]) -> None:
        server.answer(*steps)
        async with connect(upstream_of(server)) as (_, client):
            asking = asyncio.create_task(client.post(ROOM, json=STREAM))
            await server.received()
            asking.cancel()
            await server.hung_up()
            await server.all_closed()

    async def test_of_a_flood_nothing_is_sent_after_it(
        self, server: RawServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.answer(*stream(Repeat(chunk("Air "))))
        async with connect(upstream_of(server)) as (emulator, client), client_at(client.base_url) as chat:
            for left in range(1, 20):
                async with chat.chat_completion_on_chatroom("ch_1", "Why?", model="m") as answer:
                    await anext(answer)
                await server.hung_up(left)
            await wait_for(lambda: emulator.open_streams == 0, "the hang-ups to be seen")
        assert "socket.send() raised" not in caplog.text

    async def test_a_client_that_does_not_read_stops_the_upstream(self, server: RawServer) -> None:
        gate = server.gate()
        server.answer(*stream(chunk("Air "), event("x" * (32 << 20)), gate))
        async with connect(upstream_of(server)) as (_, client):
            async with client.stream("POST", COMPLETIONS, json=STREAM) as response:
                await anext(response.aiter_raw())
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await gate.reached()
            await server.all_closed()

    async def test_when_the_emulator_stops(self, server: RawServer) -> None:
        server.answer(*stream(chunk("Air "), HOLD))
        emulator = Emulator(upstream=upstream_of(server))
        async with httpx.AsyncClient(headers=HEADERS, trust_env=False) as client:
            async with serve(emulator) as running:
                asking = asyncio.create_task(client.post(running.base_url + COMPLETIONS, json=STREAM))
                await server.received()
            await server.all_closed()
            with pytest.raises(httpx.HTTPError):
                await asking

    def test_one_emulator_is_served_again_and_again(self, server: RawServer) -> None:
        server.answer(*stream(*ANSWER))
        emulator = Emulator(upstream=upstream_of(server))
        for _ in range(2):
            with serve_in_thread(emulator) as running:
                answered = httpx.post(running.base_url + COMPLETIONS, json=STREAM, headers=HEADERS, trust_env=False)
                assert answered.content == b"".join(ANSWER)
        asyncio.run(server.all_closed())


class TestTheKey:
    @pytest.mark.parametrize(
        "steps",
        [
            *(
                body(json.dumps({"error": {"message": f"bad {KEY}", "code": KEY}}), status)
                for status in (400, 401, 429, 500)
            ),
            body(f"{'x' * 290} {KEY}", 500),
            body("", 302, location=f"/{KEY}"),
            body("", 503, retry_after=KEY),
            body(f"<p>{KEY}</p>", content_type="text/html"),
            body("Hm", content_type=f"text/{KEY}"),
            body("Hm", content_encoding=KEY),
            stream(*ANSWER, content_type=f"text/event-stream; key={KEY}"),
            body(f"{{{KEY}"),
            body(json.dumps({**COMPLETION, "id": KEY})),
            stream(chunk("Air ", id=KEY), event({"error": f"bad {KEY}"})),
            stream(*(bytes([byte]) for byte in event({"error": f"bad {KEY}!"}))),
            (f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), CLOSE),
        ],
    )
    async def test_it_is_nowhere_though_the_upstream_repeats_it(
        self, server: RawServer, steps: tuple[AnyStep, ...], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG", "chatapi_async")
        server.answer(*steps)
        async with connect(upstream_of(server, key=KEY)) as (emulator, client):
            answered = await client.post(ROOM, json=STREAM)
            assert KEY[:8] not in f"{answered.text} {answered.headers}"
            assert KEY not in repr(vars(emulator)) + repr(emulator.chatrooms)
        assert KEY not in caplog.text

    @pytest.mark.parametrize(
        "written",
        ["sk-0/1+2&3=456789", r"sk-0\/1+2&3=456789", r"sk-0/1\u002B2\u00263=456789", r"sk-0/1+2\u00263=456789"],
        ids=["as it is", "PHP", ".NET", "Go"],
    )
    async def test_it_is_nowhere_however_json_is_written(self, server: RawServer, written: str) -> None:
        said = f'{{"error": {{"message": "bad {written}!"}}}}'.encode()
        server.answer(*stream(*(bytes([byte]) for byte in b"data: " + said + b"\n\n")))
        server.answer(*body(said))
        server.answer(*body(said, 401))
        async with connect(upstream_of(server, key="sk-0/1+2&3=456789")) as (_, client):
            for _ in range(3):
                assert "bad [key]!" in (await client.post(COMPLETIONS, json=STREAM)).text

    async def test_it_is_not_in_an_address(self, server: RawServer) -> None:
        server.answer(*body("", 302, location="/sk-0%2F1%2B2%263%3D456789"))
        async with connect(upstream_of(server, key="sk-0/1+2&3=456789")) as (_, client):
            assert (await client.post(COMPLETIONS, json=STREAM)).json()["message"].endswith("/[key]")

    async def test_what_only_begins_like_it_passes(self, server: RawServer) -> None:
        server.answer(*stream(chunk("Air "), b"data: " + KEY[:-1].encode()))
        async with connect(upstream_of(server, key=KEY)) as (_, client):
            answered = await client.post(COMPLETIONS, json=STREAM)
        assert answered.content == chunk("Air ") + b"data: " + KEY[:-1].encode()

    async def test_a_short_one_is_taken_out_of_errors_and_not_out_of_answers(self, server: RawServer) -> None:
        server.answer(*body('{"error": {"message": "bad key ollama, not ollamas"}}', 401))
        server.answer(*stream(chunk("I am ollama"), DONE))
        async with connect(upstream_of(server, key="ollama")) as (_, client):
            refused = await client.post(COMPLETIONS, json=STREAM)
            assert refused.json()["message"].endswith("bad key [key], not ollamas")
            assert (await client.post(COMPLETIONS, json=STREAM)).content == chunk("I am ollama") + DONE

    def test_no_representation_has_it(self) -> None:
        assert KEY not in f"{Upstream('http://localhost:1/v1', key=KEY)!r}"

    def test_a_list_of_models_and_what_is_not_found_have_it_not(self) -> None:
        upstream = Upstream("http://localhost:1/v1", key=KEY)
        listed = json.dumps({"data": [{"id": KEY}]}).encode()
        assert model_names(upstream, listed) == ["[key]"]
        error = not_found(upstream, "m", ["[key]"], Answered(404, {}, f"no {KEY}".encode()))
        assert KEY not in str(error)

    @given(parts=st.lists(st.sampled_from([b"ab", b"aba", b"abac", b"c", b"\n", b"abab"]), max_size=12), data=st.data())
    def test_however_bytes_are_split_it_is_found_and_nothing_else_changes(
        self, parts: list[bytes], data: st.DataObject
    ) -> None:
        whole = b"".join(parts)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
        pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        concealment = Concealment([b"abac", b"cab"])
        passed = b"".join([*map(concealment.feed, pieces), concealment.close()])
        assert passed == re.sub(b"abac|cab", b"[key]", whole)

    def test_what_ends_with_a_line_is_never_held(self) -> None:
        concealment = Concealment([KEY.encode()])
        assert concealment.feed(b"data: sk-0123\n\n") == b"data: sk-0123\n\n"
        assert concealment.feed(b"sk-012") == b""
        assert concealment.feed(b"x") == b"sk-012x"
        assert Concealment([]).feed(b"sk") == b"sk"


class TestProxies:
    async def test_those_of_the_environment_are_not_asked_for_this_machine(
        self, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        answered = await ask(server, *body(json.dumps(COMPLETION)))
        assert answered.status_code == 200

    async def test_those_of_the_environment_lead_to_other_machines(
        self, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", server.url)
        server.answer(*body(json.dumps(COMPLETION)))
        async with connect(Upstream("http://models.invalid/v1")) as (_, client):
            assert (await client.post(COMPLETIONS, json=ASK)).status_code == 200
        assert server.requests[0].target == "http://models.invalid/v1/chat/completions"

    async def test_one_that_cannot_be_used_is_told_of(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "gopher://x")
        async with connect(Upstream("http://models.invalid/v1")) as (_, client):
            answered = await client.post(COMPLETIONS, json=ASK)
        assert answered.status_code == 502
        assert "names a proxy that cannot be used" in answered.json()["message"]

    @pytest.mark.parametrize(
        ("host", "local"),
        [
            *((host, True) for host in ("localhost", "my.localhost", "127.8.0.1", "[::1]", "0.0.0.0")),
            *((host, False) for host in ("models.example.com", "10.0.0.1", "localhost.example.com")),
        ],
    )
    def test_which_addresses_are_this_machines(self, host: str, local: bool) -> None:
        assert Upstream(f"http://{host}:1/v1").is_local is local


class TestTheAddress:
    @pytest.mark.parametrize("given", ["http://h:1/v1", "http://h:1/v1/", "http://h:1/v1///"])
    def test_a_slash_at_its_end_changes_nothing(self, given: str) -> None:
        assert Upstream(given).url("/models") == "http://h:1/v1/models"

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("", "no http or https URL"),
            ("localhost:11434", "no http or https URL"),
            ("ftp://h/v1", "no http or https URL"),
            ("http://", "no http or https URL"),
            ("http://[::1/v1", "no URL"),
            ("http://xn--/v1", "no URL"),
            ("http://h:1/v1 ", "has a space in it"),
            ("http://my host/v1", "has a space in it"),
            ("http://h:99999/v1", "no http or https URL"),
            ("http://me:secret@h/v1", "holds a user name or password"),
            ("http://h/v1?key=secret", "has a query"),
            ("http://h/v1#x", "has a query or a fragment"),
            ("http://h/v1/chat/completions/", "leave out the operation: the upstream's address is http://h/v1"),
        ],
    )
    def test_one_that_cannot_be_is_refused(self, given: str, words: str) -> None:
        with pytest.raises(ValueError, match=words) as raised:
            Upstream(given)
        assert "secret" not in str(raised.value)

    @pytest.mark.parametrize("key", ["", "with space", "line\nend", "日本"])
    def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(self, key: str) -> None:
        with pytest.raises(ValueError, match="the upstream's key") as raised:
            Upstream("http://h/v1", key=key)
        assert not key or key not in str(raised.value)

    def test_an_empty_model_is_refused(self) -> None:
        with pytest.raises(ValueError, match="model is empty"):
            Upstream("http://h/v1", model="")


class TestWhatCountsForMore:
    @pytest.mark.parametrize("queued", [True, False])
    @pytest.mark.parametrize("filed", [True, False])
    @pytest.mark.parametrize("faulty", [True, False])
    @pytest.mark.parametrize("upstream", [True, False])
    async def test_who_answers(
        self, server: RawServer, tmp_path: Path, queued: bool, filed: bool, faulty: bool, upstream: bool
    ) -> None:
        server.answer(*stream(*ANSWER))
        emulator = Emulator(tokens_per_second=None, upstream=upstream_of(server) if upstream else None)
        if queued:
            emulator.script(ScriptedAnswer(["Queued."]))
        if filed:
            replies = tmp_path / "replies.toml"
            replies.write_text('[[rules]]\nchunks = ["Filed."]\n')
            emulator.load_replies(replies)
        headers = {**HEADERS, **({"x-fault": "no_done"} if faulty else {})}
        async with serve(emulator) as running, httpx.AsyncClient(headers=headers, trust_env=False) as client:
            said = (await client.post(running.base_url + COMPLETIONS, json=STREAM)).text
        relayed = upstream and not (queued or filed or faulty)
        told = {"Queued.": queued, "Filed.": filed and not queued, "scatters.": relayed, "openai:m": not relayed}
        assert {words: words in said for words in told} == told
        assert ("[DONE]" in said) is not faulty
        assert len(server.requests) == relayed

    async def test_a_request_that_is_refused_leaves_what_is_queued(self, server: RawServer) -> None:
        async with connect(upstream_of(server)) as (emulator, client):
            emulator.script(ScriptedAnswer("Queued."))
            for fault in ("no-such", "truncate"):  # one that there is not, and one of a stream
                assert (await client.post(COMPLETIONS, json=ASK, headers={"x-fault": fault})).status_code == 400
            answered = await client.post(COMPLETIONS, json=ASK)
        assert answered.json()["choices"][0]["message"]["content"] == "Queued."

    async def test_faults_and_scripts_are_the_emulators_own(self, server: RawServer) -> None:
        server.answer(*stream(*ANSWER))
        async with (
            connect(upstream_of(server), tokens_per_second=None) as (emulator, client),
            client_at(client.base_url) as chat,
        ):
            with pytest.raises(StreamTruncatedError):
                await chat.chat_completion("Hi", model="fault/truncate?after=2").get_final_text()
            cut = ScriptedAnswer(fault=choose_fault("truncate", {"after": 2}))
            emulator.script(ScriptedAnswer("Scripted."), cut)
            assert await chat.chat_completion("Hi", model="m").get_final_text() == "Scripted."
            with pytest.raises(StreamTruncatedError):
                await chat.chat_completion("Hi", model="m").get_final_text()
            assert server.requests == []
            assert await chat.chat_completion("Hi", model="m").get_final_text() == "Air scatters."

    async def test_a_file_of_answers_comes_first_and_what_it_does_not_answer_is_for_the_upstream(
        self, server: RawServer, tmp_path: Path
    ) -> None:
        replies = tmp_path / "replies.toml"
        replies.write_text('[[rules]]\nwhen.equals = "Hi"\ntext = "From the file."\n')
        server.answer(*stream(*ANSWER))
        async with (
            connect(upstream_of(server), tokens_per_second=None, replies=replies) as (_, client),
            client_at(client.base_url) as chat,
        ):
            assert await chat.chat_completion("Hi", model="m").get_final_text() == "From the file."
            assert server.requests == []
            assert await chat.chat_completion("Why?", model="m").get_final_text() == "Air scatters."

    async def test_an_upstream_can_be_given_by_its_address(self, server: RawServer) -> None:
        server.answer(*stream(*ANSWER))
        address = upstream_of(server).base_url
        async with serve(Emulator(upstream=address)) as running, client_at(running.base_url) as chat:
            assert await chat.chat_completion("Hi", model="m").get_final_text() == "Air scatters."


class TestMergingWhatever:
    @given(
        parts=st.lists(
            st.sampled_from([*ANSWER, b"data: ", b"\n\n", b"{", b"\xff", event([1]), b": c\n\n"])
            | st.binary(max_size=20)
        ),
        data=st.data(),
    )
    def test_any_bytes_in_any_pieces_are_one_message_or_none(self, parts: list[bytes], data: st.DataObject) -> None:
        whole = b"".join(parts)
        cut = data.draw(st.integers(0, len(whole)))

        def merged(*pieces: bytes) -> list[Message]:
            merger = AnswerMerger(1)
            found = [*map(merger.feed, pieces), merger.close()]
            return [message for message in found if message is not None]

        assert merged(whole[:cut], whole[cut:]) == merged(whole)
        assert len(merged(whole)) <= 1
        message_of(whole)

    def test_an_event_without_end_is_given_up(self) -> None:
        merger = AnswerMerger(1)
        merger.feed(chunk("Air "))
        for _ in range(20):
            assert merger.feed(b"x" * (1 << 20)) is None
        assert merger.feed(b"\n\n" + DONE) is None
        assert merger.close() is None


class TestTheCommand:
    @pytest.mark.parametrize(
        ("steps", "model", "words"),
        [
            (body(MODELS), None, "models first:7b, org/second"),
            (body('{"data": []}'), None, "it has no models"),
            (body(MODELS), "first:7b", "model first:7b"),
            (body(MODELS), "other", "model other, which is none of its: first:7b, org/second"),
            (body(MANY_MODELS), None, "models org/0, org/1, "),
            (body(MANY_MODELS), "org/299", "model org/299"),
            (body(MANY_MODELS), "other", ", org/18, org/19, and 280 more"),
            (body("<p>Hm", 401, "text/html"), None, "refused the emulator (401)"),
            ((HOLD,), None, "no answer within 0.1 s; it may come to life later"),
        ],
    )
    async def test_it_says_how_the_upstream_is(
        self,
        server: RawServer,
        monkeypatch: pytest.MonkeyPatch,
        steps: tuple[AnyStep, ...],
        model: str | None,
        words: str,
    ) -> None:
        monkeypatch.setattr(_relay, "_DESCRIBE_SECONDS", 0.1 if HOLD in steps else 5)
        server.answer(*steps)
        said = await _relay.describe(upstream_of(server, model=model))
        assert said.endswith(words) or words in said

    def test_it_relays_with_the_key_of_the_environment_and_shows_it_nowhere(
        self, server: RawServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CHATAPI_UPSTREAM_KEY", KEY)
        server.answer(*body(MODELS))
        server.answer(*stream(*ANSWER))
        readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
        shown = readme.partition("<!-- a real model -->\n```sh\n")[2].partition("\n")[0]
        program, *options = shown.replace("http://localhost:11434/v1", f"{server.url}/v1").split()
        assert program == "chatapi"
        assert f"{server.url}/v1" in options
        options += ["--port", "0", "--upstream-model", "first:7b"]
        with subprocess.Popen(
            [sys.executable, "-m", "chatapi_async", *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            lines = [process.stderr.readline()]
            assert lines == [f"relaying to {server.url}/v1: model first:7b\n"]
            while "serving on" not in lines[-1]:
                lines.append(process.stderr.readline())
                assert lines[-1], "the server ended before it served"
            base_url = lines[-1].split()[2].rstrip(";")
            answered = httpx.post(base_url + ROOM, json=STREAM, headers=HEADERS, trust_env=False)
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=30)
        assert answered.content == b"".join(ANSWER)
        assert server.requests[1].header("authorization") == f"Bearer {KEY}"
        assert server.requests[1].json["model"] == "first:7b"
        assert KEY not in f"{lines}{rest}"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--upstream", "localhost:11434"], "no http or https URL"),
            (["--upstream-model", "m"], "give --upstream too"),
            (["--upstream-key", "k"], "give --upstream too"),
            (["--upstream", "http://h/v1", "--upstream-key", "a b"], "the upstream's key"),
        ],
    )
    def test_wrong_usage_is_one_line(
        self, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["serve", *arguments]) == 2
        assert words in capsys.readouterr().err
