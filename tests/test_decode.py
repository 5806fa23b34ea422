"""Events and JSON bodies to chunks, unknown events, the end, or errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatapi_async import (
    ChatCompletionChunkResponse,
    ChatCompletionWithChatroomStreamResponse,
    MessageAccumulator,
    ServerStreamError,
    StreamDecodeError,
    UnknownEvent,
)
from chatapi_async._decode import DONE, HEARTBEAT, NOTHING, ChunkDecoder, Decoded

Chunk = ChatCompletionChunkResponse
CHUNK_TYPES = [ChatCompletionChunkResponse, ChatCompletionWithChatroomStreamResponse]


def decode(data: str | dict[str, Any], name: str = "", *, unterminated: bool = False) -> Chunk | Decoded:
    text = data if isinstance(data, str) else json.dumps(data)
    return ChunkDecoder(Chunk).decode(name, text, unterminated=unterminated)


def decode_chunk(fields: dict[str, Any]) -> Chunk:
    chunk = decode(fields)
    assert isinstance(chunk, Chunk)
    return chunk


def delta_chunk(**delta: Any) -> Chunk:
    return decode_chunk({"choices": [{"index": 0, "delta": delta}]})


def decode_body(body: str | dict[str, Any]) -> Chunk:
    return ChunkDecoder(Chunk).decode_body(body if isinstance(body, str) else json.dumps(body))


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", ["[DONE]", " [DONE]", "[DONE]  ", "[DONE]\n", "\t[DONE]\n\n"])
@pytest.mark.parametrize("name", ["", "message", "done"])
@pytest.mark.parametrize("unterminated", [False, True])
def test_done_ends_the_stream(data: str, name: str, unterminated: bool) -> None:
    assert decode(data, name, unterminated=unterminated) is DONE


def test_an_error_that_is_called_done_is_an_error() -> None:
    with pytest.raises(ServerStreamError):
        decode("[DONE]", "error")


@pytest.mark.parametrize("name", ["", "message", "ping"])
def test_no_data_is_a_heartbeat(name: str) -> None:
    assert decode("", name) is HEARTBEAT


@pytest.mark.parametrize("data", ['"[DONE]"', '{"done": "[DONE]"}'])
def test_the_word_done_inside_json_does_not(data: str) -> None:
    assert decode(data) == UnknownEvent("", data)


# ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("chunk_type", CHUNK_TYPES)
@pytest.mark.parametrize("name", ["", "message", "chunk"])
def test_an_object_with_choices_is_a_chunk_whatever_its_event_is_called(chunk_type: type, name: str) -> None:
    chunk = ChunkDecoder(chunk_type).decode(name, '{"id": "1", "choices": [{"delta": {"content": "Hi"}}]}')

    assert type(chunk) is chunk_type
    assert (chunk.id, chunk.text) == ("1", "Hi")


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": []},
        {"choices": None},
        {"choices": [], "id": "", "usage": {"total_tokens": 3}},
        {"id": "1", "object": "chat.completion.chunk"},
        {"id": "1", "object": "chat.completion.chunk", "usage": {"total_tokens": 3}},
    ],
)
def test_a_chunk_can_come_without_choices(fields: dict[str, Any]) -> None:
    assert decode_chunk(fields).choices == []


def test_null_stands_for_absent_everywhere() -> None:
    nulls = dict.fromkeys(["id", "object", "created", "model", "usage", "system_fingerprint", "error"])
    choice = {
        "index": None,
        "finish_reason": None,
        "error": None,
        "delta": dict.fromkeys(["role", "content", "tool_calls"]),
    }

    chunk = decode_chunk({**nulls, "choices": [choice, {"delta": None}]})

    assert (chunk.id, chunk.object, chunk.model) == ("", "", "")
    assert (chunk.created, chunk.usage, chunk.system_fingerprint) == (None, None, None)
    assert [(choice.index, choice.delta.text, choice.finish_reason) for choice in chunk.choices] == [(0, "", None)] * 2


def test_null_counts_of_usage_are_none() -> None:
    usage = decode_chunk({"choices": [], "usage": {"prompt_tokens": None, "total_tokens": 2}}).usage

    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (None, None, 2)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "t"}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text", "text": None}, {"type": "text"}], ""),
    ],
)
def test_content_is_text_or_parts_or_null(content: object, text: str) -> None:
    assert delta_chunk(content=content).text == text


def test_a_tool_call_in_the_incremental_shape() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}, "index": 2}
    (fragment,) = delta_chunk(tool_calls=[call]).choices[0].delta.tool_calls or []

    assert fragment.function is not None
    assert (fragment.index, fragment.id, fragment.type) == (2, "c1", "function")
    assert (fragment.function.name, fragment.function.arguments) == ("f", "{")


def test_a_tool_call_in_the_described_shape() -> None:
    call = {"tool_id": "c1", "tool_name": "f", "is_client_tool": True}
    (fragment,) = delta_chunk(tool_calls=[call]).choices[0].delta.tool_calls or []

    assert (fragment.tool_id, fragment.tool_name, fragment.is_client_tool) == ("c1", "f", True)
    assert (fragment.index, fragment.id, fragment.function) == (None, None, None)


def test_unknown_fields_survive_a_round_trip() -> None:
    fields = {
        "id": "1",
        "choices": [{"index": 0, "delta": {"content": "a", "reasoning": "r"}, "logprobs": {"content": [1]}}],
        "service_tier": {"name": "x"},
    }

    assert decode_chunk(fields).model_dump(exclude_unset=True) == fields


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"choices": "none"}, ["choices"]),
        ({"choices": {"index": 0}}, ["choices"]),
        ({"choices": [1]}, ["choices", "0"]),
        ({"choices": [{"index": "first"}]}, ["choices", "0", "index"]),
        ({"choices": [{"delta": "Hi"}]}, ["choices", "0", "delta"]),
        ({"choices": [{"delta": {"content": {"text": "Hi"}}}]}, ["choices", "0", "delta", "content"]),
    ],
)
def test_a_field_of_a_wrong_kind_is_a_decode_error_that_names_it(fields: dict[str, Any], path: list[str]) -> None:
    place = r"\..*\b".join(path)  # the kinds that were tried stand between the steps
    with pytest.raises(StreamDecodeError, match=rf"^an event is no valid chunk: {place}\b") as raised:
        decode(fields)

    assert raised.value.event == json.dumps(fields)


@pytest.mark.parametrize(
    "beside",
    [{"created": "today"}, {"created": 1.5}, {"usage": []}, {"usage": {"prompt_tokens": "many"}}, {"model": {}}],
)
def test_what_stands_beside_the_answer_does_not_end_it(beside: dict[str, Any]) -> None:
    chunk = decode_chunk({"id": "c", "choices": [{"delta": {"content": "Hi"}}], **beside})
    assert (chunk.id, chunk.text) == ("c", "Hi")
    assert chunk.model_dump().get(next(iter(beside))) in (None, "")


def test_a_whole_completion_in_one_event_is_its_own_delta() -> None:
    message = {"role": "assistant", "content": "Hello"}
    whole = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert decode_chunk(whole).text == "Hello"


def test_a_whole_message_after_deltas_repeats_them_and_is_no_delta() -> None:
    decoder = ChunkDecoder(ChatCompletionChunkResponse)
    texts: list[str] = []
    for choice in (
        {"delta": {"role": "assistant"}},
        {"delta": {"content": "Hello"}, "message": {"content": "Hello"}},
        {"message": {"content": "Hello"}, "finish_reason": "stop"},
    ):
        chunk = decoder.decode("", json.dumps({"choices": [choice]}))
        assert isinstance(chunk, ChatCompletionChunkResponse)
        texts.append(chunk.text)
    assert texts == ["", "Hello", ""]


@pytest.mark.parametrize(
    "payload",
    [
        {"message": "boom", "type": "rate_limit_exceeded"},
        {"object": "error", "message": "boom", "type": "BadRequestError", "param": None},
        {"message": "boom", "code": 1, "choices": []},
        {"message": "boom", "code": 1, "choices": None},
        {"detail": "boom"},
    ],
)
def test_an_error_object_without_a_word_for_it_is_an_error(payload: dict[str, Any]) -> None:
    with pytest.raises(ServerStreamError) as raised:
        decode(payload)
    assert raised.value.message == "boom"


# ── unknown events ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("ping", '{"type": "ping"}'),
        ("ping", "still here"),
        ("message", '{"type": "ping"}'),
        ("", "{}"),
        ("", "null"),
        ("", "3"),
        ("", '["choices"]'),
        ("", '{"object": "thread.run", "id": "1"}'),
        ("content_block_delta", '{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}'),
        ("", '{"type": "message_start", "message": {"role": "assistant"}}'),
        ("", '{"type": "message_delta", "message": "still thinking"}'),
        ("", '{"type": "message_stop"}'),
        ("progress", '{"object": "progress", "message": "half"}'),
        ("", '{"error": null}'),
        ("", '{"error": "", "usage": {}}'),
        ("x", "{broken"),
    ],
)
def test_an_event_of_another_kind_is_handed_over_as_it_came(name: str, data: str) -> None:
    assert decode(data, name) == UnknownEvent(name, data)


# ── errors in the stream ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("error", {"message": "m"}, ("m", None, None)),
        ("error", {"error": "m"}, ("m", None, None)),
        ("error", {"error": {"message": "m", "type": "t", "code": "c"}}, ("m", "c", "t")),
        ("error", {"code": 7, "message": "m"}, ("m", 7, None)),
        ("error", {"type": "overloaded", "message": "m"}, ("m", None, "overloaded")),
        ("error", {"type": "error", "error": {"type": "overloaded", "message": "m"}}, ("m", None, "overloaded")),
        ("error", {"detail": "m"}, ("m", None, None)),
        ("error", {"choices": [{"delta": {"content": "Hi"}}], "message": "m"}, ("m", None, None)),
        ("error", {}, ("", None, None)),
        ("error", [], ("", None, None)),
        ("error", None, ("", None, None)),
        ("error", ["m"], ('["m"]', None, None)),
        ("error", "m", ("m", None, None)),
        ("", {"message": "m"}, ("m", None, None)),
        ("", {"error": "m"}, ("m", None, None)),
        ("", {"error": {"message": "m", "type": "t", "code": "c"}}, ("m", "c", "t")),
        ("", {"code": "c", "message": "m"}, ("m", "c", None)),
        ("", {"code": "c", "message": "m", "type": "notice"}, ("m", "c", "notice")),
        ("", {"object": "error", "message": "m"}, ("m", None, None)),
        ("", {"type": "error", "message": "m"}, ("m", None, "error")),
        ("ping", {"error": {"message": "m"}}, ("m", None, None)),
        ("", {"id": "1", "choices": [], "error": {"message": "m", "code": 502}}, ("m", 502, None)),
        ("", {"choices": [{"delta": {"content": ""}, "finish_reason": "error"}], "error": "m"}, ("m", None, None)),
    ],
)  # fmt: skip
def test_every_shape_of_an_error_is_raised(name: str, payload: Any, expected: tuple[object, ...]) -> None:
    with pytest.raises(ServerStreamError) as raised:
        decode(json.dumps(payload), name)

    error = raised.value
    assert (error.message, error.code, error.type) == expected
    assert error.payload == payload


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("progress", {"message": "Searching the web"}),
        ("ping", {"message": "keepalive", "code": "ok"}),
        ("status", {"detail": "fine", "error": {"message": None, "code": None}}),
    ],
)
def test_an_event_with_a_name_of_its_own_is_no_error_for_having_a_message(name: str, payload: Any) -> None:
    assert decode(payload, name) == UnknownEvent(name, json.dumps(payload))


@pytest.mark.parametrize("payload", [{"error": "m"}, {"type": "error", "message": "m"}])
def test_an_event_with_a_name_of_its_own_is_an_error_if_it_says_so(payload: Any) -> None:
    with pytest.raises(ServerStreamError):
        decode(payload, "progress")


@pytest.mark.parametrize("data", ['{"error":{"mess', ' { "error" : "over'])
def test_an_error_that_is_cut_off_at_the_end_of_the_body_is_an_error(data: str) -> None:
    with pytest.raises(ServerStreamError):
        decode(data, unterminated=True)


@pytest.mark.parametrize("list_", ["choices", "tool_calls"])
def test_more_choices_or_calls_than_any_request_gets_are_a_decode_error(list_: str) -> None:
    many: list[Any] = [{}] * 1025
    payload = {"choices": many if list_ == "choices" else [{"delta": {"tool_calls": many}}]}
    with pytest.raises(StreamDecodeError, match="at most 1024"):
        decode(payload)


def test_an_error_of_one_choice_is_raised() -> None:
    choice = {"index": 1, "error": {"message": "m", "code": 502}, "delta": {"content": "Hi"}}

    with pytest.raises(ServerStreamError) as raised:
        decode({"choices": [{"index": 0, "delta": {}}, choice]})

    assert (raised.value.message, raised.value.code, raised.value.payload) == ("m", 502, choice)


@pytest.mark.parametrize("data", ["out of credits\n", "{broken", "<html>", ""])
@pytest.mark.parametrize("unterminated", [False, True])
def test_plain_text_in_an_error_event_is_its_message(data: str, unterminated: bool) -> None:
    with pytest.raises(ServerStreamError) as raised:
        decode(data, "error", unterminated=unterminated)

    assert (raised.value.message, raised.value.payload) == (data.strip(), data)


def test_an_error_event_that_looks_like_a_chunk_is_an_error() -> None:
    with pytest.raises(ServerStreamError):
        decode('{"choices": [{"delta": {"content": "Hi"}}]}', "error")


@pytest.mark.parametrize("nothing", [None, "", {}, [], 0, False])
def test_an_empty_error_field_beside_choices_is_no_error(nothing: object) -> None:
    chunk = decode_chunk({"choices": [{"delta": {"content": "Hi"}, "error": nothing}], "error": nothing})

    assert chunk.text == "Hi"


# ── broken events, and events that the body's end cut off ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("data", ["{broken", "Hi", "<html>", '{"choices": [', "[DONE", "[DONE] [DONE]", "\ufffd"])
@pytest.mark.parametrize("name", ["", "message"])
def test_an_unnamed_event_that_is_no_json_is_a_decode_error(name: str, data: str) -> None:
    with pytest.raises(StreamDecodeError, match=r"^an event is no JSON \(.+\): ") as raised:
        decode(data, name)

    assert raised.value.event == data
    assert repr(data) in str(raised.value)


def test_the_message_of_a_decode_error_shows_only_the_beginning_of_the_event() -> None:
    with pytest.raises(StreamDecodeError) as raised:
        decode("x" * 100_000)

    assert len(str(raised.value)) < 500
    assert len(raised.value.event) == 100_000


@pytest.mark.parametrize("data", ['{"choices": [{"delta": {"con', "[DON", "{", '"half', ""])
@pytest.mark.parametrize("name", ["", "message", "ping"])
def test_half_an_event_at_the_end_of_the_body_is_nothing(name: str, data: str) -> None:
    assert decode(data, name, unterminated=True) is NOTHING


def test_a_whole_event_at_the_end_of_the_body_counts() -> None:
    chunk = decode('{"choices": [{"delta": {"content": "Hi"}}]}', unterminated=True)

    assert isinstance(chunk, Chunk)
    assert chunk.text == "Hi"


def test_a_whole_error_at_the_end_of_the_body_counts() -> None:
    with pytest.raises(ServerStreamError, match="m"):
        decode('{"error": "m"}', unterminated=True)


def nested(depth: int) -> str:
    return '{"choices": [{"delta": {"content": "Hi"}}], "extra": ' + "[" * depth + "]" * depth + "}"


def test_nesting_beyond_the_limit_of_the_fast_parser_is_still_a_chunk() -> None:
    assert isinstance(decode(nested(300)), Chunk)


@pytest.mark.parametrize(("name", "error"), [("", StreamDecodeError), ("error", ServerStreamError)])
def test_nesting_without_end_is_an_error_of_ours(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        decode(nested(200_000), name)


@pytest.mark.parametrize("name", ["", "error"])
def test_at_no_depth_does_the_parser_give_in(name: str) -> None:
    for depth in range(400, 1_100, 25):
        try:
            decoded = decode(nested(depth), name)
        except (StreamDecodeError, ServerStreamError):
            continue
        assert isinstance(decoded, Chunk)


# ── JSON bodies ──────────────────────────────────────────────────────────────────────────────────────────────────────


def completion_body(**message: Any) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}],
        "usage": {"total_tokens": 3},
    }


def test_a_completion_becomes_one_chunk_with_whole_messages_as_deltas() -> None:
    chunk = decode_body(completion_body(content="Hi", refusal=None))

    assert (chunk.id, chunk.created, chunk.model, chunk.text) == ("1", 5, "m", "Hi")
    assert (chunk.choices[0].delta.role, chunk.choices[0].finish_reason) == ("assistant", "stop")
    assert "message" not in chunk.choices[0].model_dump()
    assert chunk.usage is not None
    assert chunk.usage.total_tokens == 3


def test_one_chunk_as_a_body_stays_as_it_is() -> None:
    fields = {"id": "1", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}

    assert decode_body(fields).model_dump(exclude_unset=True) == fields


@pytest.mark.parametrize("delta", [None, {}])
def test_a_message_beside_an_empty_delta_is_the_delta(delta: object) -> None:
    assert decode_body({"choices": [{"delta": delta, "message": {"content": "Hi"}}]}).text == "Hi"


def test_beside_a_full_delta_a_message_is_not_read() -> None:
    accumulator = MessageAccumulator()
    accumulator.add(decode_body({"choices": [{"delta": {"content": "Hi"}, "message": {"content": "Hello"}}]}))

    assert accumulator.completion().text == "Hi"


@pytest.mark.parametrize("choice", [{}, {"message": None}, {"message": "Hi"}])
def test_a_choice_without_a_message_is_empty(choice: dict[str, Any]) -> None:
    assert decode_body({"choices": [choice]}).text == ""


@pytest.mark.parametrize("keys", [{}, {"index": 0}, {"index": None}, {"id": "same"}, {"id": ""}])
@pytest.mark.parametrize("arguments", ["", "{}"])
def test_each_tool_call_of_a_completion_is_a_call_of_its_own(keys: dict[str, Any], arguments: str) -> None:
    calls = [{**keys, "type": "function", "function": {"name": name, "arguments": arguments}} for name in "fgh"]

    accumulator = MessageAccumulator()
    accumulator.add(decode_body(completion_body(tool_calls=calls)))

    message = accumulator.completion().message
    assert message is not None
    assert [call.function.name for call in message.tool_calls or []] == ["f", "g", "h"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "m", "code": "c"}, ("m", "c")),
        ({"error": {"message": "m", "code": "c"}}, ("m", "c")),
        ({"error": "m"}, ("m", None)),
        ({"choices": [], "error": {"message": "m"}}, ("m", None)),
        ({"choices": [{"error": {"message": "m", "code": 3}}]}, ("m", 3)),
    ],
)
def test_an_error_as_a_body_is_raised(body: dict[str, Any], expected: tuple[object, ...]) -> None:
    with pytest.raises(ServerStreamError) as raised:
        decode_body(body)

    assert (raised.value.message, raised.value.code) == expected


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the JSON body cannot be read"),
        ('{"choices": [{"mess', "the JSON body cannot be read"),
        ("<html>", "the JSON body cannot be read"),
        ("[" * 100_000, "the JSON body cannot be read"),
        ("1" * 10_000, "the JSON body cannot be read"),
        ("null", "the JSON body is neither a completion nor a chunk nor an error"),
        ("[1]", "the JSON body is neither a completion nor a chunk nor an error"),
        ('"Hi"', "the JSON body is neither a completion nor a chunk nor an error"),
        ("{}", "the JSON body is neither a completion nor a chunk nor an error"),
        ('{"choices": "x"}', "the JSON body is neither a completion nor a chunk nor an error"),
        ('{"choices": [1]}', "an event is no valid chunk: choices"),
        ('{"choices": [{"message": {"tool_calls": [1]}}]}', "an event is no valid chunk: choices.*tool_calls"),
    ],
)
def test_a_body_of_another_kind_is_a_decode_error(body: str, message: str) -> None:
    with pytest.raises(StreamDecodeError, match=f"^{message}") as raised:
        decode_body(body)

    assert raised.value.event == body
