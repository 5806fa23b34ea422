"""The models: requests are strict and send what was set; what is received is read leniently, and nothing is lost."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chatapi_async import (
    ChatCompletionChunkResponse,
    ChatCompletionFields,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionWithChatroomStreamResponse,
    Choice,
    ContentPart,
    ErrorResponse,
    Function,
    FunctionCall,
    MemorySettings,
    Message,
    MessageToolCall,
    ResponseFormat,
    Tool,
    ToolSchema,
)
from chatapi_async.types import BaseChunk

CHUNKS = [ChatCompletionChunkResponse, ChatCompletionWithChatroomStreamResponse]
WEATHER = Tool(function=Function(name="weather", description="Tells the weather", parameters=ToolSchema()))


def sent(messages: Any = "Hi", **fields: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(ChatCompletionRequest.build(messages, fields).to_body())
    return body


# ── requests are strict ──────────────────────────────────────────────────────────────────────────────────────────────

BOUNDS = [
    ("temperature", 0, 2, 0.001),
    ("top_p", 0, 1, 0.001),
    ("n", 1, 10, 1),
    ("max_completion_tokens", 1, None, 1),
    ("presence_penalty", -2, 2, 0.001),
    ("frequency_penalty", -2, 2, 0.001),
]
MEMORY_BOUNDS = [("max_memories", 1, 20, 1), ("min_relevance_score", 0, 1, 0.001)]


@pytest.mark.parametrize(("field", "low", "high", "step"), BOUNDS)
def test_a_value_at_its_bounds_is_sent_and_one_beyond_is_refused(
    field: str, low: float, high: float | None, step: float
) -> None:
    assert sent(**{field: low})[field] == low
    refused = [low - step]
    if high is not None:
        assert sent(**{field: high})[field] == high
        refused.append(high + step)
    for value in refused:
        with pytest.raises(ValidationError, match=field):
            sent(**{field: value})


@pytest.mark.parametrize(("field", "low", "high", "step"), MEMORY_BOUNDS)
def test_memory_settings_have_bounds(field: str, low: float, high: float, step: float) -> None:
    for value in (low, high):
        assert sent(memory_settings={field: value})["memory_settings"][field] == value
    for value in (low - step, high + step):
        with pytest.raises(ValidationError, match=field):
            sent(memory_settings={field: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"temperatur": 1},
        {"memory_settings": {"max_memory": 3}},
        {"tool_choice": "none"},
        {"tool_choice": {"type": "function"}},
        {"temperature": math.nan},
        {"frequency_penalty": math.inf},
        {"memory_settings": {"min_relevance_score": math.nan}},
        {"n": 1.5},
        {"tools": [{"type": "function", "function": {"name": "nameless", "parameters": {}}}]},
        {"response_format": {"schema": {}}},
        {"messages": [{"content": "no role"}]},
        {"messages": [{"role": "user", "content": 5.5, "tool_calls": "none"}]},
    ],
)
def test_a_request_that_breaks_the_contract_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sent(**fields)


@pytest.mark.parametrize("choice", ["auto", "any"])
def test_tool_choice_is_auto_or_any(choice: str) -> None:
    assert sent(tools=[WEATHER], tool_choice=choice)["tool_choice"] == choice


def test_an_assignment_is_checked_like_an_argument() -> None:
    request = ChatCompletionRequest(messages=[Message.user("Hi")])
    with pytest.raises(ValidationError, match="temperature"):
        request.temperature = 3


def test_every_field_of_a_request_is_a_keyword_argument_of_the_client() -> None:
    assert ChatCompletionFields.__optional_keys__ == set(ChatCompletionRequest.model_fields) - {"messages"}


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────

HI = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {}, "required": []}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("messages", "fields", "expected"),
    [
        ("Hi", {}, {"messages": [HI], "stream": True}),
        ([HI], {}, {"messages": [HI], "stream": True}),
        ((Message.user("Hi"),), {}, {"messages": [HI], "stream": True}),
        ([{**HI, "name": "Ann"}], {}, {"messages": [{**HI, "name": "Ann"}], "stream": True}),
        ([], {}, {"messages": [], "stream": True}),
        ("Hi", {"stream": None}, {"messages": [HI], "stream": True}),
        ("Hi", {"stream": False}, {"messages": [HI], "stream": False}),
        ("Hi", {"temperature": 1, "n": 1}, {"messages": [HI], "stream": True, "temperature": 1, "n": 1}),
        ("Hi", {"model": None, "tools": None, "user": None}, {"messages": [HI], "stream": True}),
        ("Hi", {"tools": []}, {"messages": [HI], "stream": True, "tools": []}),
    ],
)
def test_only_what_was_set_is_sent_and_stream(messages: Any, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(messages, **fields) == expected


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (
            "memory_settings",
            MemorySettings(),
            {"extract_memory": True, "max_memories": 5, "min_relevance_score": 0.7},
        ),
        (
            "memory_settings",
            {"max_memories": 9},
            {"extract_memory": True, "max_memories": 9, "min_relevance_score": 0.7},
        ),
        (
            "tools",
            [WEATHER],
            [
                {
                    "type": "function",
                    "function": {"name": "weather", "description": "Tells the weather", "parameters": SCHEMA},
                }
            ],
        ),
        (
            "tools",
            [{"function": {"name": "f", "description": "d", "parameters": {"additionalProperties": False}}}],
            [
                {
                    "type": "function",
                    "function": {
                        "name": "f",
                        "description": "d",
                        "parameters": {**SCHEMA, "additionalProperties": False},
                    },
                }
            ],
        ),
        (
            "response_format",
            {"type": "json_schema", "json_schema": {"name": "x"}},
            {"type": "json_schema", "json_schema": {"name": "x"}},
        ),
        ("response_format", ResponseFormat(type="text"), {"type": "text"}),
    ],
)
def test_every_key_that_the_contract_requires_is_sent(field: str, value: object, expected: object) -> None:
    assert sent(**{field: value})[field] == expected


@pytest.mark.parametrize(
    "call",
    [
        MessageToolCall(id="call_1", function=FunctionCall(name="weather", arguments="{}")),
        MessageToolCall.model_validate({**CALL, "type": None}),
        MessageToolCall.model_validate(CALL),
    ],
)
def test_a_tool_call_in_a_message_is_sent_whole(call: MessageToolCall) -> None:
    assert sent([Message.assistant(tool_calls=[call])])["messages"][0]["tool_calls"] == [CALL]


def test_a_call_without_id_or_arguments_still_sends_the_keys() -> None:
    call = MessageToolCall(function=FunctionCall())
    assert sent([Message.assistant(tool_calls=[call])])["messages"][0]["tool_calls"] == [
        {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    ]


def test_parts_that_this_library_collected_are_never_sent() -> None:
    message = Message.assistant("Hi", content_parts=[ContentPart(type="thinking")])
    assert sent([message])["messages"] == [{"role": "assistant", "content": "Hi"}]


def test_a_received_message_can_be_sent_back_as_it_is() -> None:
    received = {
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi", "cache": 1}, {"type": "image_url", "image_url": {"url": "u"}}],
        "tool_calls": [{**CALL, "is_client_tool": True}],
        "reasoning_content": "Hm.",
    }
    completion = ChatCompletionResponse.model_validate({"choices": [{"message": received}]})
    assert completion.message is not None
    assert sent([completion.message])["messages"] == [received]


def test_a_whole_request_is_copied_and_fields_replace_its_own() -> None:
    request = ChatCompletionRequest(messages=[Message.user("Hi")], model="large", temperature=1)
    assert sent(request, temperature=0, user="u") == {
        "messages": [HI],
        "stream": True,
        "model": "large",
        "temperature": 0,
        "user": "u",
    }
    assert (request.temperature, request.user, request.stream) == (1, None, None)


def test_a_field_of_a_whole_request_is_taken_back_with_none() -> None:
    request = ChatCompletionRequest(messages=[Message.user("Hi")], model="large")
    assert "model" not in sent(request, model=None)


def test_the_body_is_utf_8() -> None:
    assert "仙台😀".encode() in ChatCompletionRequest.build("仙台😀", {}).to_body()


requests = st.fixed_dictionaries(
    {"messages": st.lists(st.builds(Message.user, st.text()), max_size=2)},
    optional={
        "model": st.none() | st.text(),
        "stream": st.none() | st.booleans(),
        "temperature": st.none() | st.floats(0, 2),
        "n": st.none() | st.integers(1, 10),
        "tools": st.none() | st.lists(st.just(WEATHER), max_size=2),
        "tool_choice": st.sampled_from([None, "auto", "any"]),
        "memory_settings": st.none() | st.builds(MemorySettings, max_memories=st.integers(1, 20)),
    },
)


@given(requests)
def test_a_body_holds_every_field_that_is_set_and_no_null(fields: dict[str, Any]) -> None:
    body = json.loads(ChatCompletionRequest(**fields).to_body())
    given_fields = {name for name, value in fields.items() if value is not None}
    assert set(body) == given_fields | {"stream"}
    assert None not in body.values()
    assert body["stream"] is (fields.get("stream") is not False)


# ── what is received ─────────────────────────────────────────────────────────────────────────────────────────────────

EVERYWHERE: dict[str, Any] = {
    "id": "msg_1",
    "object": "chat.completion.chunk",
    "model": "m",
    "service_tier": "default",
    "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}},
    "choices": [
        {
            "index": 0,
            "logprobs": {"content": []},
            "finish_reason": "eos",
            "delta": {
                "role": "critic",
                "reasoning_content": "Hm.",
                "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}],
                "tool_calls": [
                    {"index": 0, "extra_content": {"google": 1}, "function": {"name": "f", "provider": [1, {"a": 2}]}},
                    {"tool_id": "t", "tool_name": "g", "is_client_tool": False},
                ],
            },
        }
    ],
}


@pytest.mark.parametrize("chunk_type", CHUNKS)
def test_unknown_fields_and_values_at_every_level_survive_a_round_trip(chunk_type: type[BaseChunk]) -> None:
    chunk = chunk_type.model_validate_json(json.dumps(EVERYWHERE))
    assert json.loads(chunk.model_dump_json(exclude_unset=True)) == EVERYWHERE


def test_unknown_fields_of_a_completion_survive_a_round_trip() -> None:
    body = {
        "id": "msg_1",
        "provider": "x",
        "choices": [{"index": 0, "stop_reason": 5, "message": {"role": "judge", "refusal": "no", "content": None}}],
        "usage": {"cost_details": {"upstream": 1}},
    }
    assert ChatCompletionResponse.model_validate(body).model_dump(exclude_unset=True) == body


@pytest.mark.parametrize("chunk_type", CHUNKS)
@pytest.mark.parametrize(
    ("with_null", "without"),
    [
        (dict.fromkeys(("id", "object", "created", "model", "choices", "usage", "system_fingerprint")), {}),
        ({"choices": [dict.fromkeys(("index", "delta", "finish_reason"))]}, {"choices": [{}]}),
        (
            {"choices": [{"delta": dict.fromkeys(("role", "content", "tool_calls"))}]},
            {"choices": [{"delta": {}}]},
        ),
        (
            {"choices": [{"delta": {"tool_calls": [dict.fromkeys(("index", "id", "type", "function", "tool_id"))]}}]},
            {"choices": [{"delta": {"tool_calls": [{}]}}]},
        ),
        (
            {"usage": dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "total_cost"))},
            {"usage": {}},
        ),
    ],
)
def test_null_in_a_chunk_stands_for_absent(
    chunk_type: type[BaseChunk], with_null: dict[str, Any], without: dict[str, Any]
) -> None:
    fields = set(chunk_type.model_fields)
    assert chunk_type.model_validate(with_null).model_dump(include=fields) == chunk_type.model_validate(
        without
    ).model_dump(include=fields)


def test_null_in_a_completion_stands_for_absent() -> None:
    call = {"id": None, "type": None, "function": {"name": None, "arguments": None}}
    body = {
        **dict.fromkeys(("id", "object", "created", "model", "usage")),
        "choices": [{"index": None, "finish_reason": None, "message": {"role": None, "tool_calls": [call]}}],
    }
    completion = ChatCompletionResponse.model_validate(body)
    assert (completion.id, completion.object, completion.model, completion.usage) == ("", "chat.completion", "", None)
    assert completion.choices[0].index == 0
    assert completion.message == Message(role="assistant", tool_calls=[MessageToolCall(function=FunctionCall())])
    assert ChatCompletionResponse.model_validate({"choices": None}).choices == []
    assert Choice(message=Message.assistant("Hi")).index == 0


@pytest.mark.parametrize("chunk_type", CHUNKS)
def test_a_chunk_without_created_is_read(chunk_type: type[BaseChunk]) -> None:
    assert chunk_type.model_validate({"id": "msg_1", "choices": []}).created is None
    assert chunk_type.model_validate({"created": 2**40, "choices": []}).created == 2**40


def test_a_number_where_a_text_should_be_is_read_as_text() -> None:
    assert ChatCompletionChunkResponse.model_validate_json('{"id": 7}').id == "7"


@pytest.mark.parametrize("field", ["self", "_fields_set", "model_extra", "model_fields_set", "__dict__", "__class__"])
def test_a_field_with_a_name_of_pydantics_own_is_data_like_any_other(field: str) -> None:
    text = json.dumps({field: "x", "choices": [{field: "x", "delta": {field: "x"}}]})
    chunk = ChatCompletionChunkResponse.model_validate_json(text)
    assert json.loads(chunk.model_dump_json(exclude_unset=True)) == json.loads(text)


def test_the_bodies_of_errors_are_read() -> None:
    error = ErrorResponse.model_validate({"message": "no such model", "code": "unsupported_model"})
    assert (error.message, error.model_extra) == ("no such model", {"code": "unsupported_model"})


PARTS = [{"type": "text", "text": "Hello"}, {"type": "thinking", "text": "hm"}, {"type": "text", "text": None}]


@pytest.mark.parametrize(
    ("content", "text"),
    [("Hello", "Hello"), (None, ""), ("", ""), ([], ""), (PARTS, "Hello"), ([*PARTS, *PARTS], "HelloHello")],
)
def test_the_text_is_the_content_or_its_text_parts(content: Any, text: str) -> None:
    chunk = ChatCompletionChunkResponse.model_validate({"choices": [{"delta": {"content": content}}]})
    completion = ChatCompletionResponse.model_validate(
        {"choices": [{"message": {"role": "assistant", "content": content}}]}
    )
    assert (chunk.text, completion.text) == (text, text)
    assert completion.message is not None
    assert completion.message.text == text


def test_the_text_of_a_chunk_is_that_of_choice_0_wherever_it_stands() -> None:
    choices = [{"index": 1, "delta": {"content": "b"}}, {"index": 0, "delta": {"content": "a"}}]
    assert ChatCompletionChunkResponse.model_validate({"choices": choices}).text == "a"
    assert ChatCompletionChunkResponse.model_validate({"choices": choices[:1]}).text == ""
    assert ChatCompletionChunkResponse.model_validate({"choices": []}).text == ""


@pytest.mark.parametrize(
    ("chunk", "has_content"),
    [
        ({}, False),
        ({"choices": [{"delta": {"role": "assistant", "content": "", "refusal": None, "tool_calls": []}}]}, False),
        ({"choices": [{"delta": {}, "finish_reason": ""}], "service_tier": "auto"}, False),
        ({"choices": [{}, {"index": 1, "delta": {"content": "a"}}]}, True),
        ({"choices": [{"delta": {"content": [{"type": "thinking"}]}}]}, True),
        ({"choices": [{"delta": {"reasoning": "Hm."}}]}, True),
        ({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, True),
        ({"choices": [{"finish_reason": "stop"}]}, True),
        ({"choices": [], "usage": {"total_tokens": 1}}, False),
    ],
)
def test_a_chunk_has_content_if_it_brings_anything_of_the_answer(chunk: dict[str, Any], has_content: bool) -> None:
    assert ChatCompletionChunkResponse.model_validate(chunk).has_content is has_content


def test_a_completion_without_choices_has_no_message_and_no_text() -> None:
    completion = ChatCompletionResponse()
    assert (completion.message, completion.text) == (None, "")


# ── helpers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Message.user("Hi"), {"role": "user", "content": "Hi"}),
        (Message.system("Be brief.", name="boss"), {"role": "system", "content": "Be brief.", "name": "boss"}),
        (
            Message.user([ContentPart(type="text", text="Hi")]),
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ),
        (Message.assistant("Hello"), {"role": "assistant", "content": "Hello"}),
        (
            Message.assistant(tool_calls=[MessageToolCall.model_validate(CALL)]),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
        ),
        (Message.tool("21 °C", tool_call_id="call_1"), {"role": "tool", "content": "21 °C", "tool_call_id": "call_1"}),
    ],
)
def test_a_message_is_made_in_one_word(message: Message, expected: dict[str, Any]) -> None:
    assert message.model_dump(exclude_unset=True) == expected
