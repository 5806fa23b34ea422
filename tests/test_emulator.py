"""The emulator, over real sockets: what a user of it sees."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from chatapi_async.emulator import Emulator, run, serve, serve_in_thread
from chatapi_async.types import (
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    ChatCompletionWithChatroomStreamResponse,
    Message,
)

COMPLETIONS = "/v1/llms/chat/completions"
# Plain http needs no certificates, and loading them takes most of a short test's time.
QUICKLY: dict[str, Any] = {"trust_env": False, "verify": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}
HEADERS = {"authorization": "Bearer secret", "x-operator-id": "tn_1"}


def tool(name: str, description: str = "", **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = tool(
    "get_weather",
    "Tells how the weather is",
    location={"type": "string"},
    unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
    days={"type": "integer"},
    wind={"type": "boolean"},
)


def room(chatroom_id: str) -> str:
    return f"/v1/llms/chatrooms/{chatroom_id}/chat/completions"


def body(*messages: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
    return {"messages": said, **fields}


@asynccontextmanager
async def connect(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve(emulator) as running,
        httpx.AsyncClient(base_url=running.base_url, headers=HEADERS, **QUICKLY) as client,
    ):
        yield client


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(tokens_per_second=None, chatrooms=["ch_demo"])


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(emulator) as client:
        yield client


async def stream(client: httpx.AsyncClient, path: str, json_body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parsed chunks of a stream that ended with [DONE]."""
    response = await client.post(path, json={**json_body, "stream": True})
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


async def ask(client: httpx.AsyncClient, path: str, *messages: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the first choice of an answer that is not streamed."""
    response = await client.post(path, json=body(*messages, **fields))
    assert response.status_code == 200
    choice: dict[str, Any] = response.json()["choices"][0]
    return choice


async def say(client: httpx.AsyncClient, path: str, text: str, **fields: Any) -> str:
    answer = (await ask(client, path, text, **fields))["message"]["content"]
    assert isinstance(answer, str)
    return answer


def text_of(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (what is waited for here has no event)
            await asyncio.sleep(0.002)


class TestRefusals:
    @pytest.mark.parametrize("authorization", [None, "", "Bearer", "Basic abc"])
    async def test_no_access_token(self, client: httpx.AsyncClient, authorization: str | None) -> None:
        del client.headers["authorization"]
        headers = {} if authorization is None else {"authorization": authorization}
        response = await client.post(COMPLETIONS, json=body("Hi"), headers=headers)
        assert response.status_code == 401
        assert "Authorization: Bearer" in response.json()["message"]

    async def test_the_token_that_was_given_is_the_only_one(self) -> None:
        async with connect(Emulator(token="right", tokens_per_second=None)) as client:
            wrong = await client.post(COMPLETIONS, json=body("Hi"))
            right = await client.post(COMPLETIONS, json=body("Hi"), headers={"authorization": "bearer right"})
        assert (wrong.status_code, right.status_code) == (401, 200)
        assert "not valid" in wrong.json()["message"]
        assert "secret" not in wrong.text

    async def test_no_operator(self, client: httpx.AsyncClient) -> None:
        response = await client.post(COMPLETIONS, json=body("Hi"), headers={"x-operator-id": ""})
        assert response.status_code == 400
        assert "x-operator-id" in response.json()["message"]

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"", "Invalid JSON"),
            (b"{", "Invalid JSON"),
            (b"\xff", "Invalid JSON"),
            (b"[" * 100_000, "Invalid JSON"),
            (b"[]", "body: "),
            (b"null", "body: "),
            (b"{}", "messages: Field required"),
            (b'{"messages": [{"content": "Hi"}]}', "messages.0.role: Field required"),
            (b'{"messages": [{"role": "user", "content": 5}]}', "messages.0.content: "),
            (b'{"messages": [], "n": 11}', "n: Input should be less than or equal to 10"),
            (b'{"messages": [], "temperature": "1"}', "temperature: "),
            (b'{"messages": [], "temperature": NaN}', "temperature: "),
            (b'{"messages": [], "tool_choice": "none"}', "tool_choice: "),
            (b'{"messages": [], "modell": "x"}', "modell: Extra inputs"),
            (b'{"messages": [], "memory_settings": {"max_memories": 5}}', "memory_settings.extract_memory: "),
            (
                b'{"messages": [], "tools": [{"type": "function", "function": '
                b'{"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}}]}',
                "tools.0.function.parameters.required: ",
            ),
        ],
        ids=range(16),
    )
    async def test_a_body_that_breaks_the_contract(
        self, client: httpx.AsyncClient, content: bytes, complaint: str
    ) -> None:
        response = await client.post(COMPLETIONS, content=content)
        assert response.status_code == 400
        assert complaint in response.json()["message"]

    @pytest.mark.parametrize("model", ["unsupported/model", "unsupported:model"])
    async def test_a_model_that_is_not_supported(self, client: httpx.AsyncClient, model: str) -> None:
        response = await client.post(COMPLETIONS, json=body("Hi", model=model, stream=True))
        assert response.status_code == 400
        assert response.json() == {"message": f"the model '{model}' is not supported", "code": "unsupported_model"}

    async def test_an_unknown_chatroom(self, client: httpx.AsyncClient) -> None:
        response = await client.post(room("ch_none"), json=body("Hi"))
        assert response.status_code == 404
        assert response.json() == {"message": "there is no chatroom 'ch_none'"}

    @pytest.mark.parametrize("path", ["/", "/v1/llms/chat/completions/", "/v1/llms/chatrooms/chat/completions"])
    async def test_an_unknown_path(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.post(path, json=body("Hi"))
        assert response.status_code == 404
        assert response.json() == {"message": f"there is no POST {path}"}

    @pytest.mark.parametrize("path", [COMPLETIONS, room("ch_demo")])
    async def test_another_method(self, client: httpx.AsyncClient, path: str) -> None:
        response = await client.get(path)
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
        assert response.json() == {"message": "GET is not allowed here; use POST"}

    async def test_every_response_has_an_id_of_its_own(self, client: httpx.AsyncClient) -> None:
        responses = [
            await client.get("/"),
            await client.get(COMPLETIONS),
            await client.post(COMPLETIONS, content=b""),
            await client.post(COMPLETIONS, json=body("Hi")),
            await client.post(COMPLETIONS, json=body("Hi", stream=True)),
        ]
        assert [response.status_code for response in responses] == [404, 405, 400, 200, 200]
        assert len({response.headers["x-request-id"] for response in responses}) == 5

    async def test_a_fault_of_the_emulator_itself(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("chatapi_async.emulator._answering.plan", None)
        response = await client.post(COMPLETIONS, json=body("Hi"))
        assert response.status_code == 500
        assert response.json() == {"message": "the emulator failed: TypeError"}
        assert response.headers["x-request-id"]


class TestStream:
    async def test_its_chunks_have_the_recorded_shape(self, client: httpx.AsyncClient) -> None:
        chunks = await stream(client, COMPLETIONS, body("How do I bake bread?", model="anthropic/claude"))
        common = ["id", "object", "created", "model", "choices"]
        assert [list(chunk) for chunk in chunks] == [common] * (len(chunks) - 1) + [[*common, "usage"]]
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        assert {chunk["model"] for chunk in chunks} == {"anthropic:claude"}
        assert len({chunk["id"] for chunk in chunks}) == 1
        assert chunks[0]["choices"] == [{"delta": {"role": "assistant"}, "index": 0}]
        for chunk in chunks[1:-2]:
            (choice,) = chunk["choices"]
            assert list(choice) == ["delta", "index"]
            assert list(choice["delta"]) == ["role", "content"]
            assert choice["delta"]["content"]
        assert chunks[-2]["choices"] == [{"delta": {}, "index": 0, "finish_reason": "stop"}]
        assert chunks[-1]["choices"] == []
        usage = chunks[-1]["usage"]
        assert usage["completion_tokens"] == len(chunks) - 3
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        for chunk in chunks:
            ChatCompletionChunkResponse.model_validate(chunk)

    @pytest.mark.parametrize(
        ("model", "shown"),
        [
            (None, "emulator:large"),
            ("small", "emulator:small"),
            ("gpt-4o", "openai:gpt-4o"),
            ("a/b/c", "a:b/c"),
            ("a:b/c", "a:b/c"),
        ],
    )
    async def test_it_names_the_model_as_the_service_does(
        self, client: httpx.AsyncClient, model: str | None, shown: str
    ) -> None:
        chunks = await stream(client, COMPLETIONS, body("Hello", model=model))
        assert {chunk["model"] for chunk in chunks} == {shown}

    async def test_in_a_chatroom_it_has_no_created(self, client: httpx.AsyncClient) -> None:
        chunks = await stream(client, room("ch_demo"), body("Hello"))
        assert [list(chunk) for chunk in chunks[:-1]] == [["id", "object", "model", "choices"]] * (len(chunks) - 1)
        for chunk in chunks:
            assert ChatCompletionWithChatroomStreamResponse.model_validate(chunk).created is None

    async def test_lines_end_in_lf_and_text_is_not_escaped(self, client: httpx.AsyncClient) -> None:
        response = await client.post(COMPLETIONS, json=body("仙台について", stream=True))
        assert b"\r" not in response.content
        assert "仙台" in response.text
        assert set(response.text.split("\n")[1::2]) == {""}

    async def test_a_tool_call_comes_in_fragments_with_index_last(self, client: httpx.AsyncClient) -> None:
        request = body("How is the weather in New York today?", tools=[WEATHER])
        chunks = await stream(client, COMPLETIONS, request)
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        calls = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
        assert {len(call) for call in calls} == {1}
        (first,), *others = calls
        assert list(first) == ["id", "type", "function", "index"]
        assert first["function"] == {"name": "get_weather", "arguments": ""}
        assert len(others) > 3
        for (fragment,) in others:
            assert list(fragment) == ["function", "index"]
            assert list(fragment["function"]) == ["arguments"]
            assert fragment["index"] == 0
        arguments = "".join(fragment["function"]["arguments"] for (fragment,) in others)
        assert json.loads(arguments) == {"location": "New York", "unit": "celsius", "days": 1, "wind": True}
        assert text_of(chunks)
        assert chunks[-2]["choices"] == [{"delta": {}, "index": 0, "finish_reason": "tool_calls"}]

    async def test_several_answers_advance_side_by_side(self, client: httpx.AsyncClient) -> None:
        chunks = await stream(client, COMPLETIONS, body("How do I bake bread?", n=3))
        order = [chunk["choices"][0]["index"] for chunk in chunks[:-1]]
        assert order[:9] == [0, 1, 2] * 3
        assert len({text_of(chunks, index) for index in range(3)}) == 3
        finished = [choice["index"] for chunk in chunks for choice in chunk["choices"] if "finish_reason" in choice]
        assert sorted(finished) == [0, 1, 2]

    async def test_an_answer_that_is_cut_ends_with_length(self, client: httpx.AsyncClient) -> None:
        whole = text_of(await stream(client, COMPLETIONS, body("How do I bake bread?")))
        chunks = await stream(client, COMPLETIONS, body("How do I bake bread?", max_completion_tokens=5))
        assert chunks[-2]["choices"][0]["finish_reason"] == "length"
        assert chunks[-1]["usage"]["completion_tokens"] == 5
        assert whole.startswith(text_of(chunks))
        assert text_of(chunks) != whole

    async def test_a_tool_call_is_cut_too(self, client: httpx.AsyncClient) -> None:
        request = body("How is the weather in Rome?", tools=[WEATHER, tool("play_weather")])
        cost = (await client.post(COMPLETIONS, json=request)).json()["usage"]["completion_tokens"]
        for limit in range(1, cost + 2):
            response = (await client.post(COMPLETIONS, json={**request, "max_completion_tokens": limit})).json()
            (choice,) = response["choices"]
            assert response["usage"]["completion_tokens"] == min(limit, cost)
            assert choice["finish_reason"] == ("length" if limit < cost else "tool_calls")
            calls = [call["function"]["arguments"] for call in choice["message"].get("tool_calls", [])]
            assert all(call.endswith("}") for call in calls[:-1])

    async def test_keep_alive_comments_come_only_when_asked_for(self) -> None:
        slow = Emulator(tokens_per_second=None, first_token_delay=60, ping_interval=0.001)
        request = body("Hi", stream=True)
        async with connect(slow) as client, client.stream("POST", COMPLETIONS, json=request) as response:
            assert (await anext(response.aiter_lines())).startswith(": ")


class TestJSON:
    @pytest.mark.parametrize("path", [COMPLETIONS, room("ch_demo")])
    @pytest.mark.parametrize("fields", [{}, {"stream": False}, {"stream": None}])
    async def test_it_is_the_default(self, client: httpx.AsyncClient, path: str, fields: dict[str, Any]) -> None:
        response = await client.post(path, json=body("Hello", **fields))
        assert response.headers["content-type"] == "application/json"
        completion = ChatCompletionResponse.model_validate(response.json())
        assert completion.object == "chat.completion"
        assert completion.created is not None
        assert completion.created > 1_700_000_000
        assert completion.choices[0].finish_reason == "stop"
        assert completion.message is not None
        assert completion.message.role == "assistant"
        assert completion.usage is not None
        assert completion.usage.total_tokens

    async def test_it_says_what_the_stream_says(self, client: httpx.AsyncClient) -> None:
        assert await say(client, COMPLETIONS, "Hello") == text_of(await stream(client, COMPLETIONS, body("Hello")))

    async def test_a_tool_call_that_must_be_made(self, client: httpx.AsyncClient) -> None:
        request = body("Tell me a joke", tools=[WEATHER], tool_choice="any", n=2)
        completion = ChatCompletionResponse.model_validate((await client.post(COMPLETIONS, json=request)).json())
        ids: set[str] = set()
        for choice in completion.choices:
            assert choice.finish_reason == "tool_calls"
            assert choice.message.content is None
            assert choice.message.tool_calls is not None
            assert choice.message.tool_calls[0].function.name == "get_weather"
            ids.add(choice.message.tool_calls[0].id)
        assert len(ids) == 2


class TestModel:
    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("How do I bake bread?", "Here is"),
            ("Wie backe ich ein gutes Brot?", "Hier ist"),
            ("Comment faire du pain ?", "Voici"),
            ("¿Cómo se hace el pan?", "Aquí tienes"),
            ("Как испечь хлеб?", "Вот"),
            ("パンの焼き方を教えて", "について"),
            ("怎么做面包？", "关于"),
            ("빵은 어떻게 만들어?", "대해"),
            ("Hello", "Hello!"),
            ("Hallo!", "Hallo!"),
            ("Bonjour", "Bonjour !"),
            ("Hola", "¡Hola!"),
            ("Привет", "Привет!"),
            ("こんにちは", "こんにちは。"),
            ("你好", "你好！"),
            ("안녕하세요", "안녕하세요!"),
        ],
    )
    async def test_it_answers_in_the_language_of_the_prompt(
        self, client: httpx.AsyncClient, prompt: str, expected: str
    ) -> None:
        response = (await client.post(COMPLETIONS, json=body(prompt))).json()
        answer = response["choices"][0]["message"]["content"]
        assert expected in answer
        assert "{" not in answer
        assert 30 <= response["usage"]["completion_tokens"] <= 90

    async def test_it_always_says_the_same(self, client: httpx.AsyncClient) -> None:
        question = "What is a tide?"
        first = await say(client, COMPLETIONS, question)
        assert await say(client, COMPLETIONS, question) == first
        async with connect(Emulator(tokens_per_second=None)) as other:
            assert await say(other, COMPLETIONS, question) == first

    @pytest.mark.parametrize(
        ("prompt", "place"),
        [
            ("What's the weather in Paris tomorrow?", "Paris"),
            ("Wie ist das Wetter in Berlin?", "Berlin"),
            ("仙台の天気は？", "仙台"),
            ("今天北京的天气怎么样？", "北京"),
            ("서울 날씨 어때?", "서울"),
        ],
    )
    async def test_it_asks_a_weather_tool_for_the_weather(
        self, client: httpx.AsyncClient, prompt: str, place: str
    ) -> None:
        (call,) = (await ask(client, COMPLETIONS, prompt, tools=[WEATHER]))["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"])["location"] == place

    async def test_it_calls_the_tool_whose_description_fits(self, client: httpx.AsyncClient) -> None:
        tools = [tool("a", "Sends an email"), tool("b", "Searches the library for books", query={"type": "string"})]
        (call,) = (await ask(client, COMPLETIONS, "Which books by Ada?", tools=tools))["message"]["tool_calls"]
        assert call["function"] == {"name": "b", "arguments": '{"query": "Which books by Ada?"}'}

    async def test_it_calls_no_tool_that_the_prompt_does_not_ask_for(self, client: httpx.AsyncClient) -> None:
        choice = await ask(client, COMPLETIONS, "Tell me a joke", tools=[WEATHER])
        assert choice["finish_reason"] == "stop"

    async def test_it_calls_every_tool_that_is_named(self, client: httpx.AsyncClient) -> None:
        tools = [WEATHER, tool("sendEmail"), tool("play_music")]
        choice = await ask(client, COMPLETIONS, "Weather in Rome, then send an email", tools=tools)
        calls = choice["message"]["tool_calls"]
        assert [call["function"]["name"] for call in calls] == ["get_weather", "sendEmail"]
        assert len({call["id"] for call in calls}) == 2

    async def test_arguments_fit_schemas_as_pydantic_writes_them(self, client: httpx.AsyncClient) -> None:
        probe = tool(
            "probe",
            node={"$ref": "#/$defs/Node"},
            maybe={"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3}]},
            tags={"type": "array", "items": {"enum": ["a", "b"]}},
            share={"type": ["null", "number"], "maximum": 0.5},
            day={"type": "string", "format": "date"},
            kind={"const": "x"},
            query={"type": "string"},
            broken={"enum": "none", "type": 5, "anyOf": "?"},
        )
        node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]}
        probe["function"]["parameters"]["$defs"] = {"Node": node}
        choice = await ask(client, COMPLETIONS, "Probe {this}", tools=[probe])
        arguments = json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])
        assert arguments.pop("node")["next"]["next"]
        assert arguments.pop("broken")
        assert arguments == {
            "maybe": 3,
            "tags": ["a"],
            "share": 0.5,
            "day": "2025-01-01",
            "kind": "x",
            "query": "Probe {this}",
        }

    async def test_it_answers_with_what_the_tool_returned(self, client: httpx.AsyncClient) -> None:
        call = {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        choice = await ask(
            client,
            COMPLETIONS,
            "How is the weather in Rome?",
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "18 degrees, rain"},
            tools=[WEATHER],
            tool_choice="any",
        )
        assert choice["finish_reason"] == "stop"
        assert "get_weather" in choice["message"]["content"]
        assert "18 degrees, rain" in choice["message"]["content"]

    async def test_it_answers_with_a_json_object_when_asked_to(self, client: httpx.AsyncClient) -> None:
        answer = json.loads(await say(client, COMPLETIONS, "Wie ist das?", response_format={"type": "json_object"}))
        assert answer["language"] == "de"
        assert "Wie ist das?" in answer["answer"]

    async def test_no_chunk_divides_a_character(self, client: httpx.AsyncClient) -> None:
        chunks = await stream(client, COMPLETIONS, body("👩‍💻 👍🏽 🇩🇪 cafe\u0301 น้ำ 1️⃣ नमस्ते"))
        contents = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
        for character in ("👩‍💻", "👍🏽", "🇩🇪", "e\u0301", "น้ำ", "1️⃣", "स्ते"):
            assert any(character in content for content in contents), character

    async def test_a_long_prompt_is_quoted_in_part(self, client: httpx.AsyncClient) -> None:
        answer = await say(client, COMPLETIONS, "Please count the stars. " * 20_000)
        assert "…”" in answer
        assert len(answer) < 600

    @pytest.mark.parametrize("messages", [[], [{"role": "system", "content": "Be brief"}], [{"role": "tool"}]])
    async def test_it_has_an_answer_to_any_conversation(
        self, client: httpx.AsyncClient, messages: list[dict[str, Any]]
    ) -> None:
        assert (await ask(client, COMPLETIONS, *messages))["message"]["content"]


class TestChatrooms:
    async def test_they_remember_what_was_said(self, client: httpx.AsyncClient, emulator: Emulator) -> None:
        await stream(client, room("ch_demo"), body("My name is Ada."))
        await say(client, room("ch_demo"), "I like the sea.")
        named = await say(client, room("ch_demo"), "What is my name?")
        assert "turn 3" in named
        assert "My name is Ada." in named
        recalled = await say(client, room("ch_demo"), "What did I say?")
        for text in ("My name is Ada.", "I like the sea.", "What is my name?"):
            assert text in recalled
        stored = emulator.chatrooms["ch_demo"]
        assert [message.role for message in stored] == ["user", "assistant"] * 4
        assert stored[-1].text == recalled

    @pytest.mark.parametrize(
        ("fact", "question"),
        [
            ("Ich heiße Ada.", "Was habe ich gesagt?"),
            ("Je m'appelle Ada.", "Qu'est-ce que j'ai dit ?"),
            ("Me llamo Ada.", "¿Qué dije?"),
            ("Меня зовут Ада.", "Что я говорила?"),
            ("私はエイダです。", "何と言いましたか？"),
            ("我叫艾达。", "我说过什么？"),
            ("제 이름은 에이다입니다.", "제가 뭐라고 말했죠?"),
        ],
    )
    async def test_they_can_be_asked_in_any_language(self, client: httpx.AsyncClient, fact: str, question: str) -> None:
        await say(client, room("ch_demo"), fact)
        assert fact in await say(client, room("ch_demo"), question)

    async def test_without_a_room_nothing_is_remembered(self, client: httpx.AsyncClient) -> None:
        await say(client, COMPLETIONS, "My name is Ada.")
        assert "Ada" not in await say(client, COMPLETIONS, "What did I say?")

    async def test_the_next_request_after_done_sees_the_answer(
        self, client: httpx.AsyncClient, emulator: Emulator
    ) -> None:
        async with client.stream("POST", room("ch_demo"), json=body("Hello", stream=True)) as response:
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    break
            assert [message.role for message in emulator.chatrooms["ch_demo"]] == ["user", "assistant"]

    async def test_a_tool_call_is_remembered_too(self, client: httpx.AsyncClient, emulator: Emulator) -> None:
        await stream(client, room("ch_demo"), body("How is the weather in Rome?", tools=[WEATHER]))
        calls = emulator.chatrooms["ch_demo"][-1].tool_calls
        assert calls is not None
        result = {"role": "tool", "tool_call_id": calls[0].id, "content": "rain"}
        answer = text_of(await stream(client, room("ch_demo"), body(result, tools=[WEATHER])))
        assert "get_weather" in answer
        assert "rain" in answer

    async def test_they_can_be_made_on_demand(self) -> None:
        emulator = Emulator(tokens_per_second=None, create_chatrooms=True)
        async with connect(emulator) as client:
            await say(client, room("a%2Fb%20%E4%BB%99"), "Hello")
        assert list(emulator.chatrooms) == ["a/b 仙"]

    async def test_they_can_be_made_beforehand_with_a_past(self, client: httpx.AsyncClient, emulator: Emulator) -> None:
        emulator.chatrooms["ch_old"] = [Message.user("I live in Sendai.")]
        assert "I live in Sendai." in await say(client, room("ch_old"), "What did I say?")


class TestHangingUp:
    async def test_in_mid_stream_stores_nothing(self) -> None:
        emulator = Emulator(tokens_per_second=5, chatrooms=["ch_demo"])
        async with connect(emulator) as client:
            async with client.stream("POST", room("ch_demo"), json=body("Hello", stream=True)) as response:
                assert (await anext(response.aiter_lines())).startswith("data: ")
                assert emulator.open_streams == 1
            await until(lambda: emulator.open_streams == 0)
        assert emulator.chatrooms == {"ch_demo": []}

    async def test_before_the_json_body_stores_nothing(self) -> None:
        emulator = Emulator(tokens_per_second=None, first_token_delay=60, chatrooms=["ch_demo"])
        async with connect(emulator) as client:
            request = asyncio.create_task(client.post(room("ch_demo"), json=body("Hello")))
            await until(lambda: len(emulator.requests) == 1)
            request.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await request
        assert emulator.chatrooms == {"ch_demo": []}

    async def test_while_sending_the_request_leaves_no_trace(self, emulator: Emulator) -> None:
        async with serve(emulator) as running:
            reader, writer = await asyncio.open_connection(running.host, running.port)
            writer.write(b"POST /v1/llms/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert emulator.requests == []


class TestPace:
    async def test_headers_come_before_the_first_token(self) -> None:
        emulator = Emulator(first_token_delay=60)
        request = body("Hi", stream=True)
        async with connect(emulator) as client, client.stream("POST", COMPLETIONS, json=request) as slow:
            assert slow.status_code == 200
            assert emulator.open_streams == 1
            assert (await client.get("/")).status_code == 404

    async def test_streams_advance_at_the_same_time(self) -> None:
        arrived: list[str] = []

        async def read(client: httpx.AsyncClient, name: str) -> None:
            async with client.stream("POST", COMPLETIONS, json=body("Hello", stream=True)) as response:
                async for line in response.aiter_lines():
                    if line:
                        arrived.append(name)

        async with connect(Emulator(tokens_per_second=500)) as client:
            await asyncio.gather(read(client, "a"), read(client, "b"))
        middle = arrived[len(arrived) // 4 : -len(arrived) // 4]
        assert min(middle.count("a"), middle.count("b")) > len(middle) / 4

    async def test_a_token_takes_its_time(self) -> None:
        begin = time.monotonic()
        async with connect(Emulator(tokens_per_second=100)) as client:
            chunks = await stream(client, COMPLETIONS, body("Hi", max_completion_tokens=20))
            await client.post(COMPLETIONS, json=body("Hi", max_completion_tokens=20))
        assert len(chunks) == 23
        assert time.monotonic() - begin >= 0.4

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tokens_per_second", 0),
            ("tokens_per_second", float("nan")),
            ("first_token_delay", -1),
            ("ping_interval", 0),
            ("token", ""),
        ],
    )
    def test_impossible_arguments_are_refused(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=name):
            Emulator(**{name: value})


class TestRequests:
    async def test_they_are_kept_as_they_arrived(self, client: httpx.AsyncClient, emulator: Emulator) -> None:
        await client.post(room("ch%5Fdemo"), json=body("Hi"))
        await client.get("/nowhere?x=1")
        first, second = emulator.requests
        assert (first.method, first.path) == ("POST", "/v1/llms/chatrooms/ch%5Fdemo/chat/completions")
        assert first.headers["x-operator-id"] == "tn_1"
        assert first.json() == body("Hi")
        assert (second.method, second.path, second.body) == ("GET", "/nowhere", b"")

    async def test_their_repr_shows_no_token(self, client: httpx.AsyncClient, emulator: Emulator) -> None:
        await client.post(COMPLETIONS, json=body("Hi"))
        assert "secret" not in repr(emulator.requests)


class TestServer:
    async def test_it_stops_at_once_while_a_stream_is_open(self) -> None:
        emulator = Emulator(first_token_delay=60)
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(httpx.AsyncClient(headers=HEADERS, **QUICKLY))
            async with serve(emulator) as running:
                url = running.base_url + COMPLETIONS
                response = await stack.enter_async_context(client.stream("POST", url, json=body("Hi", stream=True)))
                begin = time.monotonic()
            assert time.monotonic() - begin < 1
            assert emulator.open_streams == 0
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
            with pytest.raises(httpx.ConnectError):
                await client.post(url, json=body("Hi"))

    async def test_it_stops_though_a_client_does_not_read(self) -> None:
        request = json.dumps(body("x" * 390, n=10, stream=True)).encode()
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
        async with serve(Emulator(tokens_per_second=None)) as running:
            emulator = running.emulator
            _, writer = await asyncio.open_connection(running.host, running.port, limit=1)
            begin = f"POST {COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(request)}\r\n{head}\r\n"
            writer.write((begin.encode() + request) * 50)
            await until(lambda: emulator.open_streams == 1)
        assert emulator.open_streams == 0
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def test_it_stops_when_its_task_is_cancelled(self) -> None:
        addresses: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

        async def run_server() -> None:
            async with serve(Emulator()) as running:
                addresses.put_nowait((running.host, running.port))
                await asyncio.Event().wait()

        task = asyncio.create_task(run_server())
        host, port = await addresses.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)

    async def test_several_run_side_by_side_and_leave_signals_alone(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        async with serve(Emulator()) as one, serve(Emulator()) as two:
            assert one.base_url != two.base_url
            assert signal.getsignal(signal.SIGINT) is before

    async def test_a_port_in_use_is_an_error(self) -> None:
        async with serve() as running:
            with pytest.raises(OSError, match="in use"):
                async with serve(port=running.port):
                    pass

    async def test_addresses_of_ipv6_and_of_all_interfaces(self) -> None:
        async with serve(host="0.0.0.0") as everywhere, httpx.AsyncClient(**QUICKLY) as client:
            assert everywhere.base_url == f"http://127.0.0.1:{everywhere.port}"
            assert (await client.get(everywhere.base_url)).status_code == 404
        async with serve(host="::1") as six, httpx.AsyncClient(**QUICKLY) as client:
            assert six.base_url == f"http://[::1]:{six.port}"
            assert (await client.get(six.base_url)).status_code == 404

    def test_in_a_thread_for_synchronous_programs(self) -> None:
        emulator = Emulator(first_token_delay=60)
        for _ in range(2):
            with serve_in_thread(emulator) as running, httpx.Client(headers=HEADERS, **QUICKLY) as client:
                url = running.base_url + COMPLETIONS
                with client.stream("POST", url, json=body("Hi", stream=True)) as response:
                    assert response.status_code == 200
                    assert emulator.open_streams == 1

    def test_in_a_thread_for_trio(self, emulator: Emulator) -> None:
        async def post(base_url: str) -> int:
            async with httpx.AsyncClient(base_url=base_url, headers=HEADERS, **QUICKLY) as client:
                return (await client.post(COMPLETIONS, json=body("Hello", stream=True))).status_code

        with serve_in_thread(emulator) as running:
            assert trio.run(post, running.base_url) == 200

    def test_in_trio_itself_the_error_says_what_to_use(self) -> None:
        async def start() -> None:
            async with serve():
                pass

        with pytest.raises(RuntimeError, match="serve_in_thread"):
            trio.run(start)

    def test_in_a_thread_an_error_of_the_program_passes_through(self) -> None:
        with pytest.raises(LookupError, match="mine"), serve_in_thread():
            raise LookupError("mine")

    def test_in_a_thread_a_port_in_use_is_an_error(self) -> None:
        with serve_in_thread() as running, pytest.raises(OSError, match="in use"), serve_in_thread(port=running.port):
            pass

    def test_ctrl_c_ends_it_cleanly_though_a_stream_is_open(self) -> None:
        program = (
            "from chatapi_async.emulator import Emulator, run\n"
            "run(Emulator(first_token_delay=60), port=0, on_start=lambda at: print(at.base_url, flush=True))\n"
            "print('returned')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip() + COMPLETIONS
            with httpx.stream("POST", url, headers=HEADERS, json=body("Hi", stream=True), **QUICKLY) as response:
                assert response.status_code == 200
                process.send_signal(signal.SIGINT)
                output, errors = process.communicate(timeout=5)
        assert process.returncode == 0
        assert output.splitlines()[-1] == "returned"
        assert "Traceback" not in errors
        assert "without completing response" not in errors

    async def test_any_asgi_server_can_start_and_stop_it(self, emulator: Emulator) -> None:
        received = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[str] = []

        async def receive() -> Any:
            return received.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await emulator({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    def test_run_says_that_a_port_is_in_use(self) -> None:
        with serve_in_thread() as running, pytest.raises(OSError, match="in use"):
            run(port=running.port)


@pytest.mark.parametrize("missing", ["sse_starlette", "starlette", "uvicorn"])
def test_a_missing_package_is_named_with_the_extra_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == missing or name.startswith("chatapi_async.emulator"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}.*pip install 'chatapi-async\[emulator\]'"):
        __import__("chatapi_async.emulator")
