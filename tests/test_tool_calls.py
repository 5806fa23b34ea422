"""Fragments of tool calls in every shape that providers send, and the whole calls that they are merged into."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import (
    ChatCompletionChunkResponse,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    MessageAccumulator,
    MessageToolCall,
)
from chatapi_async._tool_calls import ToolCallMerger
from chatapi_async.types import StreamToolCall
from chatapi_async.types.events import TextBuffer

Fragment = dict[str, Any]


def chunk(*fragments: Fragment, finish_reason: str | None = None) -> ChatCompletionChunkResponse:
    choice = {"index": 0, "delta": {"tool_calls": list(fragments)}, "finish_reason": finish_reason}
    return ChatCompletionChunkResponse.model_validate({"choices": [choice]})


def merged(*chunks: ChatCompletionChunkResponse) -> list[MessageToolCall]:
    accumulator = MessageAccumulator()
    for each in chunks:
        accumulator.add(each)
    message = accumulator.completion().message
    assert message is not None
    return message.tool_calls or []


def fragment(name: str | None = None, arguments: str | None = None, **fields: Any) -> Fragment:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**fields, "function": function} if function else fields


def whole(*calls: MessageToolCall) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in calls]


A, B = ("a", "f", '{"x": 1}'), ("b", "g", '{"y": 2}')

SHAPES: dict[str, tuple[list[list[Fragment]], list[tuple[str, str, str]]]] = {
    "by index, only arguments and index in the later fragments": (
        [
            [fragment("f", "", id="a", type="function", index=0)],
            [fragment(None, '{"x":', index=0)],
            [fragment(None, " 1}", index=0)],
        ],
        [A],
    ),
    "by index, parallel, one after the other": (
        [
            [fragment("f", '{"x"', id="a", index=0)],
            [fragment(None, ": 1}", index=0)],
            [fragment("g", '{"y"', id="b", index=1)],
            [fragment(None, ": 2}", index=1)],
        ],
        [A, B],
    ),
    "by index, parallel, alternating": (
        [
            [fragment("f", '{"x"', id="a", index=0)],
            [fragment("g", '{"y"', id="b", index=1)],
            [fragment(None, ": 1}", index=0)],
            [fragment(None, ": 2}", index=1)],
        ],
        [A, B],
    ),
    "by index, the later one first": (
        [[fragment(*B[1:], id="b", index=1)], [fragment(*A[1:], id="a", index=0)]],
        [A, B],
    ),
    "by index, counted from 1": (
        [[fragment("f", '{"x"', id="a", index=1)], [fragment(None, ": 1}", index=1)]],
        [A],
    ),
    "by index, id and name padded with empty texts": (
        [
            [fragment("f", "", id="a", index=0)],
            [fragment("", '{"x": ', id="", index=0)],
            [fragment("", "1}", id="", index=0)],
        ],
        [A],
    ),
    "by index, id and name repeated": (
        [[fragment("f", '{"x": ', id="a", index=0)], [fragment("f", "1}", id="a", index=0)]],
        [A],
    ),
    "by index, id and name repeated after whole arguments": (
        [[fragment("f", '{"x": 1}', id="a", index=0)], [fragment("f", "", id="a", index=0)]],
        [A],
    ),
    "by index, name repeated without id after whole arguments": (
        [[fragment("f", '{"x": 1}', id="a", index=0)], [fragment("f", "", index=0)]],
        [A],
    ),
    "by index, a fresh id in every fragment": (
        [[fragment("f", '{"x": ', id="a", index=0)], [fragment(None, "1}", id="z", index=0)]],
        [A],
    ),
    "by index, id and name only in the last fragment": (
        [[fragment(None, '{"x": 1}', index=0)], [fragment("f", None, id="a", index=0)]],
        [A],
    ),
    "by index, later fragments without it": (
        [
            [fragment("f", '{"x": ', id="a", index=0)],
            [fragment(None, "1}", id="a")],
            [fragment("g", '{"y": 2}', id="b")],
        ],
        [A, B],
    ),
    "by id, parallel, one after the other": (
        [
            [fragment("f", '{"x": ', id="a")],
            [fragment(None, "1}", id="a")],
            [fragment("g", '{"y": ', id="b")],
            [fragment(None, "2}", id="b")],
        ],
        [A, B],
    ),
    "by id, parallel, alternating": (
        [
            [fragment("f", '{"x": ', id="a")],
            [fragment("g", '{"y": ', id="b")],
            [fragment(None, "1}", id="a")],
            [fragment(None, "2}", id="b")],
        ],
        [A, B],
    ),
    "by id, the later fragments with neither id nor index": (
        [
            [fragment("f", '{"x": ', id="a")],
            [fragment(None, "1}")],
            [fragment("g", '{"y": ', id="b")],
            [fragment("", "2}", id="")],
        ],
        [A, B],
    ),
    "by id, one name for both": (
        [[fragment("f", '{"x": 1}', id="a")], [fragment("f", '{"x": 1}', id="b")]],
        [A, ("b", *A[1:])],
    ),
    "by nothing, one call in pieces": (
        [[fragment("f")], [fragment(None, '{"x": ')], [fragment(None, "1}")]],
        [("", *A[1:])],
    ),
    "by nothing, its name in every piece": (
        [[fragment("f", '{"x": ')], [fragment("f", "1}")]],
        [("", *A[1:])],
    ),
    "by nothing, parallel, each whole": (
        [[fragment("f", '{"x": 1}')], [fragment("g", '{"y": 2}')], [fragment("g", '{"y": 2}')]],
        [("", *A[1:]), ("", *B[1:]), ("", *B[1:])],
    ),
    "by nothing, in pieces, the same function again": (
        [[fragment("f", '{"x": ')], [fragment(None, "1}")], [fragment("f", '{"x": ')], [fragment(None, "1}")]],
        [("", *A[1:]), ("", *A[1:])],
    ),
    "by nothing, parallel, without arguments": (
        [[fragment("f", "")], [fragment("g", "")]],
        [("", "f", ""), ("", "g", "")],
    ),
    "one index for all, ids of their own": (
        [[fragment(*A[1:], id="a", index=0)], [fragment(*B[1:], id="b", index=0)]],
        [A, B],
    ),
    "one index for all, ids of their own, without arguments": (
        [[fragment("f", "", id="a", index=0)], [fragment("g", "", id="b", index=0)]],
        [("a", "f", ""), ("b", "g", "")],
    ),
    "one index for all, the second in pieces": (
        [
            [fragment(*A[1:], id="a", index=0)],
            [fragment("g", "", id="b", index=0)],
            [fragment(None, '{"y": 2}', index=0)],
        ],
        [A, B],
    ),
    "two in one chunk by index": ([[fragment(*A[1:], id="a", index=0), fragment(*B[1:], id="b", index=1)]], [A, B]),
    "two in one chunk by id": ([[fragment(*A[1:], id="a"), fragment(*B[1:], id="b")]], [A, B]),
    "two in one chunk by nothing": ([[fragment(*A[1:]), fragment(*B[1:])]], [("", *A[1:]), ("", *B[1:])]),
    "the described shape": (
        [[{"tool_id": "a", "tool_name": "f", "is_client_tool": True}], [{"tool_id": "b", "tool_name": "g"}]],
        [("a", "f", ""), ("b", "g", "")],
    ),
    "the described shape, twice the same": (
        [[{"tool_id": "a", "tool_name": "f"}], [{"tool_id": "a", "tool_name": "f"}]],
        [("a", "f", "")],
    ),
    "the described shape, arguments in the other one": (
        [[{"tool_id": "a", "tool_name": "f"}], [fragment(None, '{"x": ', id="a")], [fragment(None, "1}")]],
        [A],
    ),
    "arguments null": (
        [[{"index": 0, "id": "a", "function": {"name": "f", "arguments": None}}], [fragment(None, A[2], index=0)]],
        [A],
    ),
    "function null": ([[{"index": 0, "id": "a", "function": None}], [fragment(*A[1:], index=0)]], [A]),
    "arguments that are no JSON": ([[fragment("f", "{x", id="a")], [fragment(None, ": 1")]], [("a", "f", "{x: 1")]),
    "arguments nested too deeply to parse": (
        [[fragment("f", "[" * 100_000)], [fragment("f", "]")]],
        [("", "f", "[" * 100_000 + "]")],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_fragments_is_merged_into_the_same_calls(shape: str) -> None:
    fragments, expected = SHAPES[shape]
    assert whole(*merged(*(chunk(*each) for each in fragments))) == expected


def test_seven_calls_run_in_parallel() -> None:
    pieces = [
        [fragment(f"f{index}", "", id=f"id{index}", index=index) for index in range(7)],
        [fragment(None, '{"n": ', index=index) for index in reversed(range(7))],
        [fragment(None, f"{index}}}", index=index) for index in range(7)],
    ]
    calls = merged(*(chunk(*each) for each in pieces))
    assert whole(*calls) == [(f"id{index}", f"f{index}", f'{{"n": {index}}}') for index in range(7)]


def test_a_call_is_of_type_function_unless_the_server_says_otherwise() -> None:
    first, second = merged(chunk(fragment("f", index=0), fragment("g", index=1, type="custom")))
    assert (first.type, second.type) == ("function", "custom")


def test_a_type_is_set_once() -> None:
    [call] = merged(chunk(fragment("f", index=0, type="function")), chunk(fragment(None, "{}", index=0, type="other")))
    assert call.type == "function"


def test_unknown_fields_of_a_call_are_kept_and_the_last_that_is_not_null_stays() -> None:
    [call] = merged(
        chunk({"index": 0, "id": "a", "signature": 1, "extra_content": {"google": 2}}),
        chunk({"index": 0, "signature": 3, "extra_content": None, "is_client_tool": False}),
        chunk({"index": 0, "is_client_tool": None}),
    )
    assert call.model_extra == {"signature": 3, "extra_content": {"google": 2}, "is_client_tool": False}


def test_unknown_fields_of_a_function_are_kept() -> None:
    [call] = merged(chunk({"index": 0, "id": "a", "function": {"name": "f", "thought_signature": "s"}}))
    assert call.function.model_extra == {"thought_signature": "s"}


def test_an_unknown_field_never_replaces_the_calls_own() -> None:
    hostile = {"self": 1, "cls": 2, "extra": 3, "_fields_set": 4, "model_extra": 5, "fields": 6}
    [call] = merged(chunk({**hostile, "index": 0, "id": "a", "function": {**hostile, "name": "f", "arguments": "{}"}}))
    assert whole(call) == [("a", "f", "{}")]
    assert {name: (call.model_extra or {})[name] for name in hostile} == hostile


def test_a_merged_call_can_be_sent_back() -> None:
    [call] = merged(chunk(fragment(*A[1:], index=0)))
    assert call.model_dump(exclude_unset=True) == {
        "id": "",
        "type": "function",
        "function": {"name": "f", "arguments": A[2]},
    }


# ── events ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_events_of_a_call_name_it_as_far_as_it_is_known() -> None:
    accumulator = MessageAccumulator()
    events = [
        event
        for each in (
            chunk(fragment("f", None, id="a", index=3)),
            chunk(fragment(None, '{"x":', index=3), fragment(*B[1:], index=1)),
            chunk(fragment(None, " 1}", index=3, id="late"), finish_reason="tool_calls"),
        )
        for event in accumulator.add_with_events(each)
    ]
    deltas = [event for event in events if isinstance(event, FunctionToolCallArgumentsDeltaEvent)]
    assert [
        (event.tool_index, event.id, event.name, event.delta, event.arguments_delta, event.arguments)
        for event in deltas
    ] == [
        (0, "a", "f", "", "", ""),
        (0, "a", "f", '{"x":', '{"x":', '{"x":'),
        (1, "", "g", B[2], B[2], B[2]),
        (0, "a", "f", " 1}", " 1}", A[2]),
    ]
    assert [event for event in events if isinstance(event, FunctionToolCallArgumentsDoneEvent)] == [
        FunctionToolCallArgumentsDoneEvent(0, 0, "a", "f", A[2]),
        FunctionToolCallArgumentsDoneEvent(0, 1, "", "g", B[2]),
    ]


def test_a_call_that_comes_after_the_finish_is_done_at_the_end() -> None:
    accumulator = MessageAccumulator()
    accumulator.add_with_events(chunk(fragment(*A[1:], id="a", index=0), finish_reason="stop"))
    accumulator.add_with_events(chunk(fragment(*B[1:], id="b", index=1)))
    assert accumulator.end() == [FunctionToolCallArgumentsDoneEvent(0, 1, *B)]
    assert accumulator.end() == []


def test_a_call_that_grows_after_the_finish_is_done_again() -> None:
    accumulator = MessageAccumulator()
    first = accumulator.add_with_events(chunk(fragment("f", '{"x":', id="a", index=0), finish_reason="stop"))
    assert first[1] == FunctionToolCallArgumentsDoneEvent(0, 0, "a", "f", '{"x":')
    accumulator.add_with_events(chunk(fragment(None, " 1}", index=0)))
    assert accumulator.end() == [FunctionToolCallArgumentsDoneEvent(0, 0, *A)]


# ── however it is cut ────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def cut(draw: st.DrawFn, texts: list[str]) -> list[tuple[int, str]]:
    """Pieces of every text, each text's in their order, the texts' among one another in any."""
    pieces: list[list[str]] = []
    for text in texts:
        ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=4)) | {0, len(text)})
        pieces.append([text[start:end] for start, end in pairwise(ends)])
    order = draw(st.permutations([index for index, each in enumerate(pieces) for _ in each]))
    return [(index, pieces[index].pop(0)) for index in order]


@given(st.data(), st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), min_size=1, max_size=4))
@pytest.mark.parametrize("key", ["index", "id"])
def test_however_the_arguments_are_cut_the_calls_are_the_same(key: str, data: st.DataObject, values: Any) -> None:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    keys: list[Any] = list(range(len(texts))) if key == "index" else [f"id{index}" for index in range(len(texts))]
    heads = [chunk({key: keys[index], "function": {"name": f"f{index}"}}) for index in range(len(texts))]
    pieces = [chunk(fragment(None, piece, **{key: keys[index]})) for index, piece in data.draw(cut(texts))]
    calls = merged(*heads, *pieces)
    assert [(call.function.name, call.function.arguments) for call in calls] == [
        (f"f{index}", text) for index, text in enumerate(texts)
    ]


# ── twice the stream, twice the cost ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (None, {"index": 0}),
        (None, {"id": "a"}),
        (None, {}),
        ("f", {"index": 0, "id": "a"}),
        ("f", {"id": "a"}),
        ("f", {}),
    ],
)
def test_merging_a_piece_costs_the_piece(monkeypatch: pytest.MonkeyPatch, name: str | None, key: Fragment) -> None:
    joined = 0
    join = TextBuffer.__str__

    def counting(buffer: TextBuffer) -> str:
        nonlocal joined
        joined += buffer.length
        return join(buffer)

    monkeypatch.setattr(TextBuffer, "__str__", counting)
    accumulator = MessageAccumulator()
    accumulator.add(chunk(fragment("f", '{"x": "', **key)))
    for _ in range(200):
        accumulator.add_with_events(chunk(fragment(name, "x" * 10, **key)))
    assert joined <= 2 * 200 * 10


def test_a_call_that_comes_in_both_shapes_is_one_call() -> None:
    merger = ToolCallMerger()
    for fragment in (
        {"tool_id": "a", "tool_name": "f", "is_client_tool": True},
        {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}},
    ):
        parsed = StreamToolCall.model_validate(fragment)
        merger.call_of(parsed).add(parsed)
    (call,) = merger.whole()
    assert (call.id, call.function.name, call.function.arguments) == ("a", "f", "{}")
