"""What ``relay_sse`` sends can be read back: by this library, by the client of OpenAI, and by a browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from chatapi_async import AsyncChatClient, ChatCompletionChunkResponse, ChatStream, ServerStreamError
from chatapi_async.relay import relay_sse
from chatapi_async.types import BaseChunk
from tests.raw_server import DONE, AnyStep, RawServer, body, chunk, client_of, event, stream

KEEP_ALIVE = b": keep-alive\n\n"


async def collect(source: AsyncIterator[Any], items: list[Any]) -> None:
    async for item in source:
        items.append(item)


async def all_of(events: AsyncIterator[bytes]) -> list[bytes]:
    return [event async for event in events]


def delta(index: int = 0, finish: str | None = None, chunk: dict[str, Any] | None = None, **fields: Any) -> bytes:
    choice = {"index": index, "delta": fields, "logprobs": None} | ({"finish_reason": finish} if finish else {})
    return event({"id": "msg_1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} | (chunk or {}))


def call(index: int, **fields: Any) -> bytes:
    return delta(tool_calls=[{"index": index, **fields}])


COMPLETION = {
    "id": "msg_1",
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None, "annotations": [{"at": 1}]},
            "finish_reason": "stop",
            "logprobs": {"content": []},
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "total_cost": 0.25, "tier": {"name": "x"}},
    "service_tier": "default",
}
USAGE = event({"id": "msg_1", "object": "chat.completion.chunk", "choices": [], "usage": COMPLETION["usage"]})
WEATHER = {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
TIME = {"id": "toolu_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
TEXT = (delta(role="assistant"), delta(content="Hel"), delta(content="lo"), delta(finish="stop"), USAGE)
CALLS = (
    delta(role="assistant", content="Let me see."),
    call(0, **WEATHER),
    call(1, **TIME),
    call(0, function={"arguments": '{"city": '}),
    call(0, function={"arguments": '"Sendai"}'}),
    delta(finish="tool_calls"),
)
HALVES = (
    b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"\\ude00"}}]}\n\n',
)
ANSWERS: dict[str, tuple[AnyStep, ...]] = {
    "text": stream(*TEXT, DONE),
    "tool calls": stream(*CALLS, USAGE, DONE),
    "tool calls as described": stream(
        delta(tool_calls=[{"tool_id": "t1", "tool_name": "search", "is_client_tool": True}]), delta(finish="stop"), DONE
    ),
    "two answers": stream(delta(1, content="B"), delta(0, content="A"), delta(1, "length"), delta(0, "stop"), DONE),
    "a finish reason of the provider's own": stream(delta(content="Hm"), delta(finish="eos_token"), DONE),
    "no finish reason": stream(delta(content="Hm"), DONE),
    "unknown fields": stream(
        delta(content="Hi", reasoning_content="…", chunk={"x": {"y": [1, None]}}), delta(finish="stop"), DONE
    ),
    "parts": stream(delta(content=[{"type": "text", "text": "A"}, {"type": "image", "url": "u"}], finish="stop"), DONE),
    "characters that end lines elsewhere": stream(
        delta(content="\n \r \u2028 \x85 \x0b \x00"), delta(finish="stop"), DONE
    ),
    "halves of an emoji": stream(*HALVES, delta(finish="stop"), DONE),
    "nulls": stream(delta(content=None, finish="stop", chunk={"id": None, "created": None, "usage": None}), DONE),
    "no [DONE]": stream(*TEXT),
    "a completion of JSON": body(json.dumps(COMPLETION)),
    "a chunk of JSON": body(json.dumps({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})),
}


@asynccontextmanager
async def answered(events: list[bytes]) -> AsyncIterator[RawServer]:
    """Run a server that answers with these events."""
    with RawServer() as server:
        server.answer(*stream(*events))
        yield server


def choices_of(answer: tuple[AnyStep, ...]) -> int:
    return 2 if answer is ANSWERS["two answers"] else 1


@pytest.mark.parametrize("chatroom", [False, True], ids=["completion", "chatroom"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_this_library_reads_back_the_same_completion(
    answer: tuple[AnyStep, ...], chatroom: bool, server: RawServer, client: AsyncChatClient
) -> None:
    def ask(client: AsyncChatClient) -> ChatStream[Any]:
        ask = client.chatroom("ch_1").chat_completion if chatroom else client.chat_completion
        return ask("Hi", n=choices_of(answer))

    server.answer(*answer)
    original = ask(client)
    events = await all_of(relay_sse(original))
    async with answered(events) as outer, client_of(outer) as reader:
        assert await ask(reader).get_final_completion() == original.snapshot
    assert original.snapshot.choices
    assert events[-1] == DONE
    assert len(events) == original.stats.chunks + 1


def read_as_a_browser(data: bytes) -> list[tuple[str, str]]:
    """Read events as the HTML standard has ``EventSource`` do it: the type and the data of each that is dispatched."""
    dispatched: list[tuple[str, str]] = []
    kind, lines = "", list[str]()
    text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if lines:
                dispatched.append((kind or "message", "\n".join(lines)))
            kind, lines = "", []
        elif name == "event":
            kind = value
        elif name == "data":
            lines.append(value)
        else:
            assert name == "", f"a field that nobody reads: {line}"
    assert not lines
    return dispatched


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_a_browser_reads_each_chunk_and_no_field_that_the_service_did_not_send(
    answer: tuple[AnyStep, ...], server: RawServer, client: AsyncChatClient
) -> None:
    chunks: list[BaseChunk] = []

    async def noted() -> AsyncIterator[BaseChunk]:
        async for came in client.chat_completion("Hi", n=choices_of(answer)):
            chunks.append(came)
            yield came

    server.answer(*answer)
    *events, done = read_as_a_browser(b"".join(await all_of(relay_sse(noted()))))

    assert [ChatCompletionChunkResponse.model_validate_json(data) for _, data in events] == chunks
    assert all(json.loads(data).keys() == made.model_fields_set for (_, data), made in zip(events, chunks, strict=True))
    assert {kind for kind, _ in events} == {"message"}
    assert done == ("message", "[DONE]")


@asynccontextmanager
async def openai_reads(events: list[bytes]) -> AsyncIterator[AsyncIterator[Any]]:
    async with (
        answered(events) as outer,
        openai.AsyncOpenAI(base_url=f"{outer.url}/v1/llms", api_key="t0ken", max_retries=0) as client,
    ):
        yield aiter(await client.chat.completions.create(model="m", messages=[], stream=True))


async def test_the_client_of_openai_reads_text_and_tool_calls(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*ANSWERS["tool calls"])
    original = client.chat_completion("Hi")
    events = await all_of(relay_sse(original))
    text, names, arguments, finish, usage = "", list[str](), ["", ""], None, None
    async with openai_reads([KEEP_ALIVE, *events[:2], KEEP_ALIVE, *events[2:]]) as chunks:
        async for piece in chunks:
            usage = piece.usage or usage
            for choice in piece.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
                for part in choice.delta.tool_calls or ():
                    names += [part.function.name] if part.function.name else []
                    arguments[part.index] += part.function.arguments or ""

    message = original.snapshot.message
    assert message is not None
    assert text == message.text
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls or ()] == [
        *zip(names, arguments, strict=True)
    ]
    assert finish == "tool_calls"
    assert usage is not None
    assert usage.total_tokens == 7


async def test_the_client_of_openai_raises_the_failure_after_the_text(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hel"), chunk("lo")))
    pieces: list[Any] = []
    events = await all_of(relay_sse(client.chat_completion("Hi")))
    async with openai_reads(events) as chunks:
        with pytest.raises(openai.APIError, match=r"^The answer was cut off\. Try again\.$") as caught:
            await collect(chunks, pieces)
    assert [piece.choices[0].delta.content for piece in pieces] == ["Hel", "lo"]
    assert caught.value.code == "connection_lost"
    assert caught.value.type == "api_error"


async def test_this_library_raises_the_failure_after_the_text(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hel"), chunk("lo")))
    events = await all_of(relay_sse(client.chat_completion("Hi")))
    async with answered(events) as outer, client_of(outer) as reader:
        with pytest.raises(ServerStreamError) as caught:
            await reader.chat_completion("Hi").get_final_text()
    error = caught.value
    assert (error.message, error.code, error.type) == (
        "The answer was cut off. Try again.",
        "connection_lost",
        "api_error",
    )
    assert error.partial is not None
    assert error.partial.text == "Hello"


async def test_both_readers_pass_over_comments(server: RawServer, client: AsyncChatClient) -> None:
    events = [KEEP_ALIVE, chunk("Hel"), KEEP_ALIVE, KEEP_ALIVE, chunk("lo", "stop"), KEEP_ALIVE, DONE]
    server.answer(*stream(*events))
    assert await client.chat_completion("Hi").get_final_text() == "Hello"
    async with openai_reads(events) as chunks:
        assert [piece.choices[0].delta.content async for piece in chunks] == ["Hel", "lo"]
