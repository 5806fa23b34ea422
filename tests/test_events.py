"""The typed events that chunks mean: which, in which order, each once, and at the cost of the piece alone."""

from __future__ import annotations

import sys
from dataclasses import FrozenInstanceError
from types import FrameType
from typing import Any

import pytest

from chatapi_async import (
    ChatCompletionChunkResponse,
    ContentDeltaEvent,
    ContentDoneEvent,
    FinishEvent,
    FunctionToolCallArgumentsDoneEvent,
    MessageAccumulator,
    Usage,
    UsageEvent,
)
from chatapi_async.types import AnyEvent, BaseChunk
from chatapi_async.types.events import TextBuffer


def chunk(*choices: dict[str, Any], **fields: Any) -> ChatCompletionChunkResponse:
    return ChatCompletionChunkResponse.model_validate({"choices": list(choices), **fields})


def choice(index: int = 0, finish_reason: str | None = None, /, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def call(arguments: str = "", **fields: Any) -> dict[str, Any]:
    return choice(tool_calls=[{"index": 0, "function": {"arguments": arguments, **fields}}])


def events_of(*chunks: BaseChunk) -> list[AnyEvent]:
    accumulator = MessageAccumulator()
    return [event for each in chunks for event in accumulator.add_with_events(each)] + accumulator.end()


def kinds(*chunks: BaseChunk) -> list[str]:
    return [event.type for event in events_of(*chunks)]


def test_the_events_of_an_answer_come_in_the_order_of_what_they_tell() -> None:
    assert kinds(
        chunk(choice(role="assistant", content="")),
        chunk(choice(content="Let me see.")),
        chunk(call(name="f")),
        chunk(call("{}")),
        chunk(choice(0, "tool_calls"), usage={"total_tokens": 3}),
        chunk(usage={"total_tokens": 4}),
    ) == [
        "content.delta",
        "tool_calls.function.arguments.delta",
        "tool_calls.function.arguments.delta",
        "content.done",
        "tool_calls.function.arguments.done",
        "finish",
        "usage",
        "usage",
    ]


@pytest.mark.parametrize(
    "delta",
    [
        {},
        {"content": None},
        {"content": ""},
        {"content": [{"type": "thinking"}]},
        {"reasoning": "Hm."},
        {"tool_calls": []},
    ],
)
def test_a_chunk_without_text_or_calls_means_no_event(delta: dict[str, Any]) -> None:
    assert kinds(chunk(choice(**delta))) == []


def test_a_text_event_holds_its_piece_and_the_text_so_far() -> None:
    events = events_of(chunk(choice(content="Hel")), chunk(choice(1, content="?")), chunk(choice(content="lo")))
    deltas = [event for event in events if isinstance(event, ContentDeltaEvent)]
    assert [(event.index, event.delta, event.snapshot) for event in deltas] == [
        (0, "Hel", "Hel"),
        (1, "?", "?"),
        (0, "lo", "Hello"),
    ]
    assert [event.snapshot for event in deltas] == ["Hel", "?", "Hello"]


def test_events_are_values_equal_by_what_they_tell_and_shown_without_the_rest() -> None:
    chunks = [chunk(choice(0, "stop", content="a")), chunk(call("{}", name="f")), chunk(usage={})]
    events = events_of(*chunks)
    assert events == events_of(*chunks)
    assert repr(events[0]) == "ContentDeltaEvent(index=0, delta='a', type='content.delta')"
    for event in events:
        assert "TextBuffer" not in repr(event)
        with pytest.raises(FrozenInstanceError):
            event.type = "other"  # type: ignore[misc, assignment]


def test_the_pieces_of_a_list_make_one_event() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    [event, _] = events_of(chunk(choice(content=parts)))
    assert isinstance(event, ContentDeltaEvent)
    assert event.delta == "Hello"


def test_each_choice_is_done_when_it_finishes() -> None:
    assert events_of(
        chunk(choice(0, content="a"), choice(1, content="b")),
        chunk(choice(1, "length")),
        chunk(choice(0, "stop")),
    )[2:] == [ContentDoneEvent(1, "b"), FinishEvent(1, "length"), ContentDoneEvent(0, "a"), FinishEvent(0, "stop")]


def test_what_has_no_finish_reason_is_done_at_the_end() -> None:
    accumulator = MessageAccumulator()
    accumulator.add_with_events(chunk(choice(content="a")))
    accumulator.add_with_events(chunk(call("{}", name="f")))
    assert accumulator.end() == [
        ContentDoneEvent(0, "a"),
        FunctionToolCallArgumentsDoneEvent(0, 0, "", "f", "{}"),
    ]
    assert accumulator.end() == []


@pytest.mark.parametrize("reason", ["stop", None, ""])
def test_a_finish_that_is_repeated_is_told_once(reason: str | None) -> None:
    assert kinds(
        chunk(choice(content="a")), chunk(call("{}")), chunk(choice(0, "stop")), chunk(choice(0, reason)), chunk()
    ) == [
        "content.delta",
        "tool_calls.function.arguments.delta",
        "content.done",
        "tool_calls.function.arguments.done",
        "finish",
    ]


def test_a_finish_reason_that_changes_is_told_again_and_nothing_else_is() -> None:
    events = events_of(chunk(choice(0, "stop", content="a")), chunk(choice(0, "tool_calls")))
    assert events[1:] == [ContentDoneEvent(0, "a"), FinishEvent(0, "stop"), FinishEvent(0, "tool_calls")]


def test_text_that_comes_after_the_finish_makes_the_text_done_again() -> None:
    events = events_of(chunk(choice(0, "stop", content="a")), chunk(choice(content="b")))
    assert [event for event in events if isinstance(event, ContentDoneEvent)] == [
        ContentDoneEvent(0, "a"),
        ContentDoneEvent(0, "ab"),
    ]


def test_usage_that_changes_nothing_is_not_told() -> None:
    counts = {"total_tokens": 3}
    assert events_of(chunk(usage=counts), chunk(usage={"total_tokens": None}), chunk(x_groq={"usage": None})) == [
        UsageEvent(Usage(total_tokens=3))
    ]


def test_merging_with_events_and_without_gives_the_same_completion() -> None:
    chunks = [chunk(choice(content="a")), chunk(call("{}", name="f")), chunk(choice(0, "stop"), usage={})]
    plain, telling = MessageAccumulator(), MessageAccumulator()
    for each in chunks:
        plain.add(each)
        telling.add_with_events(each)
    assert plain.completion() == telling.completion()


# ── twice the stream, twice the cost ─────────────────────────────────────────────────────────────────────────────────


def test_a_text_of_many_pieces_is_whole_at_every_one() -> None:
    accumulator = MessageAccumulator()
    text = ""
    for number in range(1200):
        piece = f"{number} "
        text += piece
        (event,) = accumulator.add_with_events(chunk(choice(content=piece)))
        assert isinstance(event, ContentDeltaEvent)
        if number % 7 == 0:
            assert event.snapshot == text
    assert accumulator.completion().text == text


def test_texts_are_joined_when_they_are_asked_for_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    joins = 0
    join = TextBuffer.__str__

    def counting(buffer: TextBuffer) -> str:
        nonlocal joins
        joins += 1
        return join(buffer)

    monkeypatch.setattr(TextBuffer, "__str__", counting)
    accumulator = MessageAccumulator()
    events = [
        event
        for _ in range(20)
        for event in accumulator.add_with_events(chunk(choice(content="a", reasoning="b"), call("1")))
    ]
    assert joins == 0
    [last] = [event for event in events if isinstance(event, ContentDeltaEvent)][-1:]
    assert last.snapshot == "a" * 20
    assert joins == 1


@pytest.mark.parametrize("with_events", [False, True])
def test_the_hundredth_chunk_costs_what_the_third_does(with_events: bool) -> None:
    each = chunk(
        {**choice(content="a", reasoning="b", annotations=[1], other="c"), "logprobs": {"content": [1]}},
        call("1"),
        choice(1, content="d"),
        usage={"total_tokens": 3},
        service_tier="auto",
    )
    accumulator = MessageAccumulator()
    add = accumulator.add_with_events if with_events else accumulator.add
    costs: list[int] = []

    def count(frame: FrameType, event: str, argument: object) -> None:
        costs[-1] += event in ("call", "c_call")

    profile = sys.getprofile()
    for _ in range(100):
        costs.append(0)
        sys.setprofile(count)
        try:
            add(each)
        finally:
            sys.setprofile(profile)
    assert costs[99] == costs[2]
