"""Characters that a server cut in half between two chunks come out whole, and no half ever comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatapi_async import ChatCompletionChunkResponse, MessageAccumulator, UnknownEvent
from chatapi_async._decode import ChunkDecoder
from chatapi_async._surrogates import SurrogateJoiner

HIGH, LOW = "\ud83d", "\ude00"
EMOJI = "😀"


def choice(index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta}


def call(arguments: str, **keys: Any) -> dict[str, Any]:
    return {**keys, "function": {"arguments": arguments}}


def merged(*chunks: list[dict[str, Any]]) -> MessageAccumulator:
    """Merge chunks, each given as its choices, that were decoded as one stream."""
    decoder = ChunkDecoder(ChatCompletionChunkResponse)
    accumulator = MessageAccumulator()
    for choices in chunks:
        chunk = decoder.decode("", json.dumps({"choices": choices}))
        assert isinstance(chunk, ChatCompletionChunkResponse)
        chunk.model_dump_json().encode()  # fails where a half is left
        accumulator.add(chunk)
    return accumulator


def text_of(*contents: Any) -> str:
    return merged(*([choice(content=content)] for content in contents)).completion().text


@pytest.mark.parametrize(
    "contents",
    [
        [HIGH, LOW],
        ["Hi " + HIGH, LOW + " there"],
        [HIGH, LOW + HIGH, LOW],
        [HIGH, "", LOW],
        [HIGH, None, LOW],
        [HIGH + LOW, "x"],
        [[{"type": "text", "text": HIGH}], [{"type": "text", "text": LOW}]],
    ],
)
def test_halves_of_content_are_joined(contents: list[Any]) -> None:
    whole = "".join(text if isinstance(text, str) else "" for text in contents)
    expected = whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le") or EMOJI

    assert text_of(*contents) == expected


def test_a_first_half_is_held_back_until_its_second_comes() -> None:
    decoder = ChunkDecoder(ChatCompletionChunkResponse)

    texts: list[str] = []
    for content in ("a" + HIGH, LOW + "b"):
        chunk = decoder.decode("", json.dumps({"choices": [choice(content=content)]}))
        assert isinstance(chunk, ChatCompletionChunkResponse)
        texts.append(chunk.text)

    assert texts == ["a", EMOJI + "b"]


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        ([HIGH, "x"], "\ufffdx"),
        ([HIGH, HIGH, LOW], "\ufffd" + EMOJI),
        ([LOW], "\ufffd"),
        (["a" + LOW + "b"], "a\ufffdb"),
        (["a" + HIGH + "b"], "a\ufffdb"),
        ([LOW + HIGH, "b"], "\ufffd\ufffdb"),
        ([HIGH, LOW, LOW], EMOJI + "\ufffd"),
    ],
)
def test_a_half_that_stays_alone_becomes_a_replacement_character(contents: list[str], text: str) -> None:
    assert text_of(*contents) == text


def test_what_came_before_a_half_that_ends_the_stream_is_kept() -> None:
    assert text_of("Hi " + HIGH, "").removesuffix("\ufffd") == "Hi "


def test_halves_of_reasoning_are_joined_apart_from_content() -> None:
    accumulator = merged([choice(reasoning_content="r" + HIGH, content="c" + HIGH)], [choice(reasoning_content=LOW)],
                         [choice(content=LOW)])  # fmt: skip
    message = accumulator.completion().message

    assert message is not None
    assert message.model_dump()["reasoning_content"] == "r" + EMOJI
    assert message.text == "c" + EMOJI


def test_halves_of_two_choices_at_once_are_joined_each_in_its_own() -> None:
    accumulator = merged(
        [choice(0, content="a" + HIGH), choice(1, content="b\ud83c")],
        [choice(1, content="\udf89")],
        [choice(0, content=LOW)],
    )

    assert [choice.message.text for choice in accumulator.completion().choices] == ["a" + EMOJI, "b🎉"]


def test_halves_of_parallel_tool_calls_are_joined_each_in_its_own() -> None:
    accumulator = merged(
        [choice(tool_calls=[call('{"a": "' + HIGH, index=0, id="c0"), call('{"b": "\ud83c', index=1, id="c1")])],
        [choice(tool_calls=[call('\udf89"}', index=1)])],
        [choice(tool_calls=[call(LOW + '"}', index=0)])],
    )
    message = accumulator.completion().message

    assert message is not None
    calls = message.tool_calls or []
    assert [call.function.arguments for call in calls] == ['{"a": "' + EMOJI + '"}', '{"b": "🎉"}']


def test_halves_of_a_tool_call_without_an_index_are_joined() -> None:
    accumulator = merged([choice(tool_calls=[call('"' + HIGH, id="c0")])], [choice(tool_calls=[call(LOW + '"')])])
    message = accumulator.completion().message

    assert message is not None
    assert [call.function.arguments for call in message.tool_calls or []] == [f'"{EMOJI}"']


def test_an_event_between_two_halves_does_not_part_them() -> None:
    decoder = ChunkDecoder(ChatCompletionChunkResponse)
    decoder.decode("", json.dumps({"choices": [choice(content=HIGH)]}))
    assert decoder.decode("ping", "{}") == UnknownEvent("ping", "{}")
    chunk = decoder.decode("", json.dumps({"choices": [choice(content=LOW)]}))

    assert isinstance(chunk, ChatCompletionChunkResponse)
    assert chunk.text == EMOJI


def test_a_half_in_a_json_body_becomes_a_replacement_character() -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi " + HIGH}, "finish_reason": "stop"}]})

    assert ChunkDecoder(ChatCompletionChunkResponse).decode_body(body).text == "Hi \ufffd"


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "", "a", "é" + EMOJI, [], {}, {"a": [1, {"é": ["x"]}]}])
def test_what_has_no_halves_stays_as_it_is(value: object) -> None:
    joiner = SurrogateJoiner()

    assert joiner.join(value) == value
    assert not joiner.held


def test_a_half_in_a_name_becomes_a_replacement_character() -> None:
    assert SurrogateJoiner().join({"a" + HIGH: 1}) == {"a\ufffd": 1}


def test_a_joiner_holds_a_half_only_until_the_next_text_of_its_field() -> None:
    joiner = SurrogateJoiner()

    joiner.join({"a": HIGH})
    assert joiner.held
    assert joiner.join({"b": LOW}) == {"b": "\ufffd"}
    assert joiner.held
    assert joiner.join({"a": LOW}) == {"a": EMOJI}
    assert not joiner.held


@pytest.mark.parametrize("index", [None, "0", 1.5, [1]])
def test_items_without_a_number_as_index_are_told_apart_by_position(index: object) -> None:
    joiner = SurrogateJoiner()
    joiner.join([{"index": index, "text": HIGH}, {"index": index, "text": "\ud83c"}])
    items = joiner.join([{"index": index, "text": LOW}, {"index": index, "text": "\udf89"}])

    assert [item["text"] for item in items] == [EMOJI, "🎉"]


def test_nesting_without_end_is_a_recursion_error() -> None:
    value: list[Any] = []
    for _ in range(2_000):
        value = [value]

    with pytest.raises(RecursionError):
        SurrogateJoiner().join(value)


@pytest.mark.parametrize(
    "last",
    [
        {"delta": {}, "finish_reason": "length"},
        {"finish_reason": "length"},
        {"delta": None, "finish_reason": "length"},
        {"delta": {"content": None}, "finish_reason": "length"},
        {"delta": {"content": "!\ud83d"}, "finish_reason": "length"},
    ],
)
def test_a_half_at_which_a_choice_finishes_becomes_a_replacement_character(last: dict[str, Any]) -> None:
    decoder = ChunkDecoder(ChatCompletionChunkResponse)
    accumulator = MessageAccumulator()
    for chosen in ({"index": 1, "delta": {"content": "Hi \ud83d"}}, {"index": 0, "delta": {"content": "A"}}):
        accumulator.add(decoded(decoder, chosen))
    accumulator.add(decoded(decoder, {"index": 1, **last}))
    first, second = accumulator.completion().choices
    assert first.message.text == "A"
    assert second.message.text == ("Hi \ufffd!\ufffd" if (last.get("delta") or {}).get("content") else "Hi \ufffd")


def decoded(decoder: ChunkDecoder[ChatCompletionChunkResponse], choice_: dict[str, Any]) -> ChatCompletionChunkResponse:
    chunk = decoder.decode("", json.dumps({"choices": [choice_]}))
    assert isinstance(chunk, ChatCompletionChunkResponse)
    return chunk
