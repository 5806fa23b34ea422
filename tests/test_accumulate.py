"""Chunks are merged by field into one completion."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import (
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    ChatCompletionWithChatroomStreamResponse,
    EmptyStreamError,
    MessageAccumulator,
    aggregate,
)
from chatapi_async._decode import ChunkDecoder
from chatapi_async.types import BaseChunk

Object = dict[str, Any]


def chunk(*choices: Object, **fields: Any) -> ChatCompletionChunkResponse:
    return ChatCompletionChunkResponse.model_validate({"choices": list(choices), **fields})


def choice(index: int = 0, finish_reason: str | None = None, /, **delta: Any) -> Object:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def says(text: str) -> ChatCompletionChunkResponse:
    return chunk(choice(content=text))


def filled(*chunks: BaseChunk) -> MessageAccumulator:
    accumulator = MessageAccumulator()
    for each in chunks:
        accumulator.add(each)
    return accumulator


def merged(*chunks: BaseChunk) -> ChatCompletionResponse:
    return filled(*chunks).completion()


def message_of(*deltas: Object) -> Object:
    """What the message holds, apart from its role."""
    message = merged(*(chunk(choice(**delta)) for delta in deltas)).message
    assert message is not None
    return {key: value for key, value in message.model_dump(exclude_unset=True).items() if key != "role"}


# ── the rule of each field ───────────────────────────────────────────────────────────────────────────────────────────

THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}


def text_part(text: str) -> Object:
    return {"type": "text", "text": text}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"content": "Hel"}, {"content": ""}, {"content": "lo"}], {"content": "Hello"}),
        ([{"content": None}, {}], {"content": None}),
        ([{"content": ""}], {"content": ""}),
        ([{"content": []}], {"content": ""}),
        ([{"content": [text_part("Hel"), THINKING, text_part("lo")]}, {"content": "!"}], {"content": "Hello!"}),
        (
            [{"reasoning_content": "H"}, {"reasoning_content": None}, {"reasoning_content": "m"}],
            {"content": None, "reasoning_content": "Hm"},
        ),
        ([{"reasoning": "H"}, {"reasoning": "m"}], {"content": None, "reasoning": "Hm"}),
        ([{"refusal": "N"}, {"refusal": "o"}], {"content": None, "refusal": "No"}),
        ([{"refusal": {"why": 1}}], {"content": None, "refusal": {"why": 1}}),
        ([{"reasoning_details": [1]}, {"reasoning_details": [2]}], {"content": None, "reasoning_details": [1, 2]}),
        ([{"annotations": [1]}, {"annotations": None}], {"content": None, "annotations": [1]}),
        ([{"annotations": {"a": 1}}], {"content": None, "annotations": {"a": 1}}),
        ([{"other": "a"}, {"other": "b"}, {"other": None}], {"content": None, "other": "b"}),
        ([{"other": [1]}, {"other": [2]}], {"content": None, "other": [2]}),
    ],
)
def test_a_field_of_the_message_is_merged_by_its_own_rule(deltas: list[Object], expected: Object) -> None:
    assert message_of(*deltas) == expected


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["assistant"] * 3, "assistant"),
        (["critic", "assistant"], "critic"),
        ([None, "", "user"], "user"),
        ([], "assistant"),
    ],
)
def test_a_role_is_set_once(roles: list[str | None], expected: str) -> None:
    message = merged(chunk(choice(content="x")), *(chunk(choice(role=role)) for role in roles)).message
    assert message is not None
    assert message.role == expected


@pytest.mark.parametrize("content", [None, ""])
def test_an_answer_of_tool_calls_alone_has_no_content(content: str | None) -> None:
    fragment = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    assert message_of({"content": content, "tool_calls": [fragment]})["content"] is None


def test_text_before_and_after_tool_calls_is_kept() -> None:
    fragment = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}
    assert (
        message_of({"content": "Let me "}, {"tool_calls": [fragment]}, {"content": "see."})["content"] == "Let me see."
    )


def test_parts_that_are_not_text_are_kept_aside_in_order() -> None:
    image = {"type": "image_url", "image_url": {"url": "u"}}
    message = merged(chunk(choice(content=[THINKING, text_part("a")])), chunk(choice(content=[image]))).message
    assert message is not None
    assert [part.model_dump(exclude_unset=True) for part in message.content_parts or []] == [THINKING, image]
    assert message.text == "a"


@pytest.mark.parametrize("values", [["a", "b"], ["", "a"], [None, "a"], ["a", "", None]])
def test_id_and_model_are_the_first_that_is_not_empty(values: list[str | None]) -> None:
    completion = merged(*(chunk(id=value, model=value) for value in values))
    assert (completion.id, completion.model) == ("a", "a")


def test_created_is_the_first_and_may_be_absent() -> None:
    assert merged(chunk(), chunk(created=5), chunk(created=6)).created == 5
    assert merged(chunk()).created is None


def test_a_completion_is_a_completion_whatever_its_chunks_are_called() -> None:
    assert merged(chunk(object="chat.completion.chunk")).object == "chat.completion"
    assert merged().model_dump() == ChatCompletionResponse(completeness="truncated").model_dump()


def test_unknown_fields_of_a_chunk_are_kept_and_the_last_that_is_not_null_stays() -> None:
    completion = merged(
        chunk(service_tier="auto", provider="x", system_fingerprint="fp1"),
        chunk(service_tier="default", provider=None, system_fingerprint="fp2"),
        chunk(system_fingerprint=None),
    )
    assert completion.model_extra == {"service_tier": "default", "provider": "x", "system_fingerprint": "fp2"}


def test_the_chunks_of_a_chatroom_are_merged_alike() -> None:
    chatroom_chunk = ChatCompletionWithChatroomStreamResponse.model_validate(
        {"id": "i", "choices": [choice(content="x")]}
    )
    assert (merged(chatroom_chunk).id, merged(chatroom_chunk).text) == ("i", "x")


def test_unknown_fields_of_a_choice_are_kept_and_log_probabilities_grow() -> None:
    completion = merged(
        chunk({"index": 0, "logprobs": {"content": [1], "refusal": None}, "native": "a"}),
        chunk({"index": 0, "logprobs": None, "native": None, "message": {"content": "the whole message, repeated"}}),
        chunk({"index": 0, "logprobs": {"content": [2, 3]}}),
    )
    assert completion.choices[0].model_extra == {"logprobs": {"content": [1, 2, 3]}, "native": "a"}
    assert completion.text == ""


def test_log_probabilities_of_an_unknown_shape_are_kept_as_they_are() -> None:
    assert merged(chunk({"index": 0, "logprobs": [1]})).choices[0].model_extra == {"logprobs": [1]}


def test_a_finish_reason_is_the_last_that_is_not_empty() -> None:
    reasons = ["stop", None, "", "tool_calls", None]
    assert merged(*(chunk(choice(0, reason)) for reason in reasons)).choices[0].finish_reason == "tool_calls"


HOSTILE = {
    "_fields_set": ["x"],
    "self": 1,
    "cls": 2,
    "extra": 3,
    "fields": 4,
    "model_extra": {"a": 1},
    "model_fields_set": 5,
    "__dict__": 6,
    "__class__": 7,
}


def test_a_field_with_a_name_of_our_own_does_no_harm() -> None:
    ours = {"completeness": "failed", "content_parts": "x"}
    completion = merged(chunk({**choice(content="Hi", **HOSTILE, **ours), **HOSTILE, **ours}, **HOSTILE, **ours))
    assert (completion.text, completion.completeness) == ("Hi", "truncated")
    message = completion.choices[0].message
    assert message.content_parts is None
    for model in (completion, completion.choices[0], message):
        assert json.loads(model.model_dump_json()).items() >= HOSTILE.items()


# ── choices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_choices_are_told_apart_by_index_and_not_by_position() -> None:
    completion = merged(
        chunk(choice(1, content="b"), choice(0, content="a")),
        chunk(choice(0, content="A"), choice(1, content="B")),
        chunk(choice(2, content="c")),
        chunk(choice(1, "stop"), choice(0, "length")),
    )
    assert [(each.index, each.message.content, each.finish_reason) for each in completion.choices] == [
        (0, "aA", "length"),
        (1, "bB", "stop"),
        (2, "c", None),
    ]
    assert completion.text == "aA"


@pytest.mark.parametrize(
    ("reasons", "finished"),
    [([], False), ([None], False), (["stop"], True), (["stop", None], False), (["stop", "length"], True)],
)
def test_a_completion_is_complete_once_every_choice_is_finished(reasons: list[str | None], finished: bool) -> None:
    accumulator = filled(chunk(*(choice(index, reason) for index, reason in enumerate(reasons))))
    assert (accumulator.has_choices, accumulator.finished) == (bool(reasons), finished)
    assert accumulator.completion().completeness == ("complete" if finished else "truncated")
    assert accumulator.completion("stopped").completeness == "stopped"


@pytest.mark.parametrize(
    ("delta", "finished"),
    [
        ({"content": " and"}, False),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}, False),
        ({"content": ""}, True),
        ({"role": "assistant"}, True),
    ],
)
def test_a_choice_is_open_again_when_more_of_it_comes_after_its_finish_reason(delta: Object, finished: bool) -> None:
    accumulator = filled(chunk(choice(0, "stop", content="Hi")), chunk(choice(**delta)))
    assert accumulator.finished is finished
    accumulator.add(chunk(choice(0, "stop")))
    assert accumulator.finished


# ── usage ────────────────────────────────────────────────────────────────────────────────────────────────────────────

COUNTS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
MORE = {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6}
NULLS: Object = dict.fromkeys(COUNTS)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([says("x"), chunk(usage=COUNTS)], COUNTS),
        ([chunk(choice(content="x"), usage=COUNTS)], COUNTS),
        ([chunk(usage=COUNTS), says("x"), chunk(usage=None)], COUNTS),
        ([chunk(usage=COUNTS), chunk(usage=MORE)], MORE),
        ([chunk(usage=COUNTS), chunk(usage=NULLS)], COUNTS),
        ([chunk(usage=NULLS), chunk(usage=COUNTS)], COUNTS),
        ([chunk(usage=NULLS)], NULLS),
        ([chunk(usage=COUNTS), chunk(usage={"completion_tokens": 9})], {"completion_tokens": 9}),
        ([chunk(usage=COUNTS), chunk(usage={"prompt_tokens": 9})], {"prompt_tokens": 9}),
        ([chunk(usage=COUNTS), chunk(usage={"total_tokens": 9})], {"total_tokens": 9}),
        ([chunk(x_groq={"id": "r", "usage": {**COUNTS, "queue_time": 0.5}})], {**COUNTS, "queue_time": 0.5}),
        ([chunk(usage=COUNTS, x_groq={"usage": MORE})], COUNTS),
        ([chunk(x_other={"usage": {"prompt_tokens": "many"}}, x_groq={"usage": COUNTS})], COUNTS),
    ],
)
def test_usage_is_the_last_that_counts_and_never_erased(chunks: list[BaseChunk], expected: Object) -> None:
    usage = merged(*chunks).usage
    assert usage is not None
    assert usage.model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize(
    "chunks", [[], [says("x")], [chunk(x_groq={"usage": None})], [chunk(x={"usage": {"total_tokens": []}})]]
)
def test_usage_is_none_where_the_server_never_said(chunks: list[BaseChunk]) -> None:
    assert merged(*chunks).usage is None


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_is_not_changed_by_later_chunks() -> None:
    everything = chunk(
        {
            **choice(
                content=[text_part("a"), THINKING],
                reasoning="r",
                annotations=[1],
                other=[1],
                tool_calls=[{"index": 0, "id": "a", "mark": 1, "function": {"name": "f", "arguments": "x"}}],
            ),
            "logprobs": {"content": [1]},
            "native": 1,
        },
        usage=COUNTS,
        service_tier="auto",
    )
    accumulator = filled(everything)
    snapshot = accumulator.completion()
    before = snapshot.model_copy(deep=True)
    accumulator.add(everything)
    accumulator.add(
        chunk(choice(0, "stop", content="b", other=[2]), choice(1), usage=MORE, service_tier="default", new=1)
    )
    assert snapshot == before
    assert snapshot.choices[0].message.content_parts == before.choices[0].message.content_parts
    assert accumulator.completion() != before


# ── aggregate ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def stream_of(*chunks: BaseChunk) -> AsyncIterator[BaseChunk]:
    for each in chunks:
        yield each


async def test_aggregate_reads_any_source_of_chunks() -> None:
    message = await aggregate(stream_of(says("Hel"), chunk(choice(1, content="?")), says("lo")))
    assert (message.role, message.content) == ("assistant", "Hello")


@pytest.mark.parametrize("chunks", [[], [chunk(usage=COUNTS, id="i")]])
async def test_aggregate_of_no_answer_is_an_error_with_what_came(chunks: list[BaseChunk]) -> None:
    with pytest.raises(EmptyStreamError) as caught:
        await aggregate(stream_of(*chunks))
    assert caught.value.partial is not None
    assert caught.value.partial.usage == merged(*chunks).usage


async def test_aggregate_passes_on_what_the_source_raises() -> None:
    async def broken() -> AsyncIterator[BaseChunk]:
        yield says("x")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await aggregate(broken())


# ── however it is cut ────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def pieces_of(draw: st.DrawFn, text: str) -> list[str]:
    ends = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)) | {0, len(text)})
    return [text[start:end] for start, end in pairwise(ends)]


@given(st.data(), st.text(max_size=40))
def test_however_a_text_is_cut_the_answer_is_the_same(data: st.DataObject, text: str) -> None:
    start, end = chunk(choice(role="assistant", content=""), id="i"), chunk(choice(0, "stop"), usage=COUNTS)
    pieces = data.draw(pieces_of(text))
    assert merged(start, *(says(piece) for piece in pieces), end) == merged(start, says(text), end)
    as_parts = (chunk(choice(content=[text_part(piece)])) for piece in pieces)
    assert merged(start, *as_parts, end) == merged(start, says(text), end)


@given(
    st.data(),
    st.lists(st.tuples(st.text(max_size=9), st.lists(st.text(max_size=9), max_size=3)), min_size=1, max_size=3),
)
def test_a_stream_and_the_same_answer_as_one_json_body_are_merged_alike(data: st.DataObject, answers: Any) -> None:
    head = {"id": "i", "created": 5, "model": "m", "provider": "p"}
    choices: list[Object] = []
    stream: list[BaseChunk] = []
    for index, (text, arguments) in enumerate(answers):
        functions = [{"name": f"f{number}", "arguments": text} for number, text in enumerate(arguments)]
        calls = [{"id": f"c{number}", "type": "function", "function": each} for number, each in enumerate(functions)]
        message = {"role": "assistant", "content": text, "refusal": "no", **({"tool_calls": calls} if calls else {})}
        choices.append({"index": index, "message": message, "finish_reason": "stop", "native": "n"})
        stream.append(chunk({**choice(index, role="assistant", refusal="n"), "native": "n"}))
        stream.extend(chunk(choice(index, content=piece)) for piece in data.draw(pieces_of(text)) or [text])
        for number, call in enumerate(calls):
            name = {"name": call["function"]["name"], "arguments": ""}
            stream.append(chunk(choice(index, tool_calls=[{**call, "index": number, "function": name}])))
            for piece in data.draw(pieces_of(call["function"]["arguments"])):
                fragment = {"index": number, "function": {"arguments": piece}}
                stream.append(chunk(choice(index, tool_calls=[fragment])))
        stream.append(chunk(choice(index, "stop", refusal="o")))
    body = json.dumps({**head, "object": "chat.completion", "choices": choices, "usage": COUNTS})
    whole = ChunkDecoder(ChatCompletionChunkResponse).decode_body(body)
    assert merged(whole) == merged(chunk(**head), *stream, chunk(usage=COUNTS))
