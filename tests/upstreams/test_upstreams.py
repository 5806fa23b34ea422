"""The emulator before servers that nobody here wrote: what each of them must do through it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from chatapi_async import AsyncChatClient, BadRequestError, ChatStream, InternalServerError, Tool
from chatapi_async.emulator import Emulator, Upstream, _relay, serve
from tests.raw_server import wait_for
from tests.upstreams.servers import Server

QUESTION = "Why is the sky blue?"
WEATHER = Tool.model_validate(
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells how the weather is",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Paris"]}},
                "required": ["city"],
            },
        },
    }
)


@pytest.fixture
def emulator(server: Server) -> Emulator:
    return Emulator(upstream=Upstream(server.base_url, key=server.key), create_chatrooms=True)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncChatClient]:
    async with (
        serve(emulator) as running,
        AsyncChatClient(running.base_url, operator_id="tn_1", token="any", retries=0) as client,
    ):
        yield client


def ask(
    client: AsyncChatClient, room: str | None, messages: str | list[dict[str, Any]] = QUESTION, **fields: Any
) -> ChatStream[Any]:
    if room is None:
        return client.chat_completion(messages, **fields)
    return client.chat_completion_on_chatroom(room, messages, **fields)


# The mock has no tokens, and takes any key.
engines = pytest.mark.parametrize("server", ["llama.cpp", "LiteLLM"], indirect=True)
both = pytest.mark.parametrize("room", [None, "ch_1"])


@both
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer(server: Server, client: AsyncChatClient, room: str | None, stream: bool) -> None:
    async with ask(client, room, stream=stream) as answer:
        completion = await answer.get_final_completion()
    assert completion.message is not None
    assert completion.message.text.strip() == server.answer
    assert completion.choices[0].finish_reason == "stop"
    assert completion.completeness == "complete"
    assert (answer.stats.chunks > 2) is stream
    assert (completion.usage is not None) is server.gives_usage
    if completion.usage is not None:
        assert completion.usage.completion_tokens == 5
        assert (completion.usage.prompt_tokens or 0) > 5


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chatroom_remembers(server: Server, emulator: Emulator, client: AsyncChatClient, stream: bool) -> None:
    first = await ask(client, "ch_1", stream=stream).get_final_completion()
    second = await ask(client, "ch_1", "And at night?", stream=stream).get_final_completion()
    assert [message.role for message in emulator.chatrooms["ch_1"]] == ["user", "assistant"] * 2
    assert [message.text for message in emulator.chatrooms["ch_1"]] == [
        QUESTION,
        first.text,
        "And at night?",
        second.text,
    ]
    if server.gives_usage:
        assert first.usage is not None
        assert second.usage is not None
        # The prompt has the first question and its answer too, and a token for each character.
        assert (second.usage.prompt_tokens or 0) > (first.usage.prompt_tokens or 0) + len("And at night?")
    else:
        assert second.text == f"{QUESTION} | {first.text} | And at night?"


@both
async def test_a_tool_must_be_called(
    server: Server, emulator: Emulator, client: AsyncChatClient, room: str | None
) -> None:
    stream = server.streams_tool_calls
    answer = ask(client, room, tools=[WEATHER], tool_choice="any", stream=stream, max_completion_tokens=2000)
    completion = await answer.get_final_completion()
    assert completion.message is not None
    (call, *_) = completion.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert completion.choices[0].finish_reason == "tool_calls"
    if room is not None:
        assert emulator.chatrooms[room][1].tool_calls == completion.message.tool_calls


@both
@engines
async def test_the_length_is_limited(server: Server, client: AsyncChatClient, room: str | None) -> None:
    answer = await ask(client, room, server.endless, max_completion_tokens=7).get_final_completion()
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.choices[0].finish_reason == "length"


@both
async def test_a_request_that_is_refused(
    server: Server, emulator: Emulator, client: AsyncChatClient, room: str | None
) -> None:
    status, code, words = server.refusal
    fields = {"messages": [{"role": "user", "content": QUESTION}], **server.bad_request}
    with pytest.raises(BadRequestError) as raised:
        await ask(client, room, **fields).until_done()
    assert (raised.value.status_code, raised.value.code) == (status, code)
    assert words in raised.value.message
    assert emulator.chatrooms == {}


async def test_a_server_whose_address_lacks_v1(server: Server) -> None:
    """Two of them answer there as well; Ollama and vLLM do not, and neither does the mock."""
    upstream = Upstream(server.base_url.removesuffix("/v1"), key=server.key)
    async with (
        serve(Emulator(upstream=upstream)) as running,
        AsyncChatClient(running.base_url, operator_id="tn_1", token="any", retries=0) as client,
    ):
        answer = client.chat_completion(QUESTION, model=server.model)
        if server.name != "mock-llm":
            assert (await answer.get_final_text()).strip() == server.answer
            return
        with pytest.raises(InternalServerError, match=f"try {server.base_url}"):
            await answer.until_done()


@both
async def test_the_first_token_comes_before_the_last_is_made(
    server: Server, client: AsyncChatClient, room: str | None
) -> None:
    began = time.monotonic()
    async with ask(client, room, server.endless, max_completion_tokens=800) as answer:
        await answer.until_done()
    ended = time.monotonic() - began
    assert answer.stats.time_to_first_chunk is not None
    assert answer.stats.time_to_first_chunk < ended / 2


@both
async def test_hanging_up_leaves_no_connection(
    server: Server, emulator: Emulator, client: AsyncChatClient, room: str | None
) -> None:
    before = server.connections()
    async with ask(client, room, server.endless, max_completion_tokens=2000) as answer:
        await anext(answer)
        assert server.connections() == before + 1
    await wait_for(lambda: server.connections() == before, "the connection to be closed")
    await wait_for(lambda: emulator.open_streams == 0, "the stream to be over")
    assert emulator.chatrooms == {}
    if server.name == "llama.cpp":  # LiteLLM is told as well, and lets the engine behind it talk on
        slots = f"{server.base_url.removesuffix('/v1')}/slots"

        def idle() -> bool:
            asked = httpx.get(slots, headers={"authorization": f"Bearer {server.key}"}, trust_env=False)
            return not any(slot["is_processing"] for slot in asked.json())

        await wait_for(idle, "llama.cpp to stop generating")


async def test_its_models_are_told_at_the_start(server: Server) -> None:
    said = await _relay.describe(Upstream(server.base_url, key=server.key))
    assert said == f"models {server.model}"


@engines
async def test_a_key_that_it_refuses_is_told_of(server: Server) -> None:
    key = "sk-of-somebody-else-0123456789"
    async with (
        serve(Emulator(upstream=Upstream(server.base_url, key=key))) as running,
        AsyncChatClient(running.base_url, operator_id="tn_1", token="any", retries=0) as client,
    ):
        with pytest.raises((InternalServerError, BadRequestError)) as raised:
            await client.chat_completion(QUESTION, model=server.model).until_done()
    # LiteLLM looks such a key up in a database, and without one says no more than that.
    expected = (400, "upstream_refused_request") if server.name == "LiteLLM" else (502, "upstream_refused_key")
    assert (raised.value.status_code, raised.value.code) == expected
    assert key not in str(raised.value)
