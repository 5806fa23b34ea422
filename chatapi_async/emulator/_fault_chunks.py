"""Habits of providers: chunks, usage, tool calls and text in the odd shapes that occur. Each answer is whole. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ._steps import DONE_EVENT, Act, Answered, Chunk, Head, Pause, Step, event, finishes, paced, whole

_EMOJI = "😀"
_CALL_ARGUMENTS = ('{"location": ', '"Sendai"}')


def no_created(answered: Answered) -> Iterator[Step]:
    """No chunk says when the answer was made."""
    yield from whole(answered, (_without(chunk, "created") for chunk in answered.chunks))


def no_ids(answered: Answered) -> Iterator[Step]:
    """Chunks have neither id, object nor model."""
    yield from whole(answered, (_without(chunk, "id", "object", "model") for chunk in answered.chunks))


def changing_ids(answered: Answered) -> Iterator[Step]:
    """Each chunk has another id."""
    yield from whole(answered, ({**chunk, "id": f"gen_{n}"} for n, chunk in enumerate(answered.chunks)))


def no_role(answered: Answered) -> Iterator[Step]:
    """The stream never names a role."""
    yield from whole(answered, _with_deltas(answered, lambda delta: _without(delta, "role")))


def unknown_words(answered: Answered) -> Iterator[Step]:
    """Role and finish reason are words of the provider's own."""
    chunks = _with_deltas(answered, lambda delta: {**delta, "role": "model"})
    yield from whole(answered, (_with_choices(chunk, _reworded) for chunk in chunks))


def empty_first_chunk(answered: Answered) -> Iterator[Step]:
    """The first chunk has no choice, and an empty id."""
    yield from whole(answered, ({**answered.chunks[0], "id": "", "choices": []}, *answered.chunks))


def no_delta(answered: Answered) -> Iterator[Step]:
    """The last choice has no delta."""
    yield from whole(answered, (_with_choices(chunk, _without_empty_delta) for chunk in answered.chunks))


def message_beside_delta(answered: Answered) -> Iterator[Step]:
    """Each chunk has the message so far beside its delta."""
    said = ""
    chunks: list[Chunk] = []
    for chunk in answered.chunks:
        said += "".join(choice["delta"].get("content", "") for choice in chunk["choices"])
        chunks.append(_with_fields(chunk, message={"role": "assistant", "content": said}))
    yield from whole(answered, chunks)


def padding(answered: Answered) -> Iterator[Step]:
    """Each chunk has fields that the contract does not know, and one that only pads."""
    extra = {"service_tier": "default", "obfuscation": "x9Kq2", "logprobs": None}
    yield from whole(answered, ({**chunk, **extra} for chunk in answered.chunks))


def null_content(answered: Answered) -> Iterator[Step]:
    """What is absent elsewhere is null."""
    nothing = {"content": None, "tool_calls": None, "refusal": None}
    yield from whole(answered, _with_deltas(answered, lambda delta: {**nothing, **delta}))


def content_parts(answered: Answered) -> Iterator[Step]:
    """Text comes as a list of parts, beside parts that are no text."""

    def parted(delta: dict[str, Any]) -> dict[str, Any]:
        if "content" not in delta:
            return delta
        return {**delta, "content": [{"type": "thinking", "thinking": "…"}, {"type": "text", "text": delta["content"]}]}

    yield from whole(answered, _with_deltas(answered, parted))


def reasoning(answered: Answered) -> Iterator[Step]:
    """The model thinks aloud in reasoning_content, before its text."""
    first, *rest = answered.chunks
    thought = [_with_fields(first, delta={"reasoning_content": text}) for text in ("Hm", "…")]
    yield from whole(answered, (first, *thought, *rest))


def cut_emoji(answered: Answered) -> Iterator[Step]:
    """An emoji is cut in half between two chunks, as servers written in JavaScript do."""
    halves = [chr(int.from_bytes(_EMOJI.encode("utf-16-be")[at : at + 2])) for at in (0, 2)]
    first, *rest = answered.chunks
    yield Head()
    for half in halves:
        yield Pause(answered.interval)
        yield event(json.dumps(_with_fields(first, delta={"content": half})))  # the halves as \ud83d and \ude00
    yield from list(whole(answered, rest))[1:]


def usage(
    answered: Answered, *, shape: Literal["own", "finish", "after", "every", "null", "provider", "never"] = "own"
) -> Iterator[Step]:
    """Usage comes in a chunk of its own, with or after the finish, growing in every chunk, as null, or never."""
    *chunks, last = answered.chunks
    used = last["usage"]
    if shape == "own":
        chunks.append(last)
    elif shape == "finish":
        chunks = [{**chunk, "usage": used} if finishes(chunk) else chunk for chunk in chunks]
    elif shape == "after":
        chunks.append({**last, "choices": [{"delta": {}, "index": 0}]})
    elif shape == "every":
        most = used.get("completion_tokens") or 0
        chunks = [
            {**chunk, "usage": _used(used, most if finishes(chunk) else min(number, most))}
            for number, chunk in enumerate(chunks)
        ]
    elif shape == "null":
        chunks.append({**last, "usage": dict.fromkeys(used)})
    elif shape == "provider":
        chunks.append({**_without(last, "usage"), "x_groq": {"usage": used}})
    yield from whole(answered, chunks)


def tool_calls(
    answered: Answered,
    *,
    shape: Literal["no_index", "empty_id", "whole", "pair", "seven", "described", "stop"] = "no_index",
) -> Iterator[Step]:
    """The answer is calls of get_weather, in one of the shapes that providers give to them."""
    first, *_, last = answered.chunks
    opening = {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": ""}, "index": 0}
    going_on: list[dict[str, Any]] = [{"function": {"arguments": text}, "index": 0} for text in _CALL_ARGUMENTS]
    at_once = {**opening, "function": {"name": "get_weather", "arguments": "".join(_CALL_ARGUMENTS)}}
    fragments: list[list[dict[str, Any]]] = [[opening], *([each] for each in going_on)]
    if shape == "no_index":
        fragments = [[_without(each, "index") for each in step] for step in fragments]
    elif shape == "empty_id":
        blank = [{"id": "", "function": {"name": "", **each["function"]}, "index": 0} for each in going_on]
        fragments = [[opening], *([each] for each in blank)]
    elif shape == "whole":
        fragments = [[at_once]]
    elif shape in ("pair", "seven"):
        calls = [{**at_once, "id": f"call_{n}", "index": n} for n in range(2 if shape == "pair" else 7)]
        fragments = [calls] if shape == "pair" else [[call] for call in calls]
    elif shape == "described":
        fragments = [[{"tool_id": "call_0", "tool_name": "get_weather", "is_client_tool": True}]]

    def chunk(choice: dict[str, Any]) -> Chunk:
        return {**first, "choices": [{"index": 0, **choice}]}

    middle = [chunk({"delta": {"tool_calls": step}}) for step in fragments]
    end = chunk({"delta": {}, "finish_reason": "stop" if shape == "stop" else "tool_calls"})
    yield from whole(answered, (chunk({"delta": {"role": "assistant"}}), *middle, end, last))


def provider_events(answered: Answered, *, named: bool = True) -> Iterator[Step]:
    """Anthropic's own events come between the chunks; with named=false without an event line."""

    def foreign(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind if named else None)

    yield Head()
    yield foreign("ping")
    for step in paced(answered, answered.chunks):
        yield step
        if isinstance(step, bytes):
            yield foreign("content_block_delta", index=0, delta={"type": "text_delta", "text": "…"})
    yield foreign("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None})
    yield foreign("message_stop")
    yield Act.STORE
    yield DONE_EVENT


def _without(mapping: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _with_fields(chunk: Chunk, **fields: Any) -> Chunk:
    return {**chunk, "choices": [{**choice, **fields} for choice in chunk["choices"]]}


def _with_choices(chunk: Chunk, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Chunk:
    return {**chunk, "choices": [change(choice) for choice in chunk["choices"]]}


def _with_deltas(answered: Answered, change: Callable[[dict[str, Any]], dict[str, Any]]) -> list[Chunk]:
    return [
        _with_choices(chunk, lambda choice: {**choice, "delta": change(choice["delta"])}) for chunk in answered.chunks
    ]


def _reworded(choice: dict[str, Any]) -> dict[str, Any]:
    return {**choice, "finish_reason": "eos"} if choice.get("finish_reason") else choice


def _without_empty_delta(choice: dict[str, Any]) -> dict[str, Any]:
    return choice if choice["delta"] else _without(choice, "delta")


def _used(usage: dict[str, Any], tokens: int) -> dict[str, Any]:
    return {**usage, "completion_tokens": tokens, "total_tokens": (usage.get("prompt_tokens") or 0) + tokens}
