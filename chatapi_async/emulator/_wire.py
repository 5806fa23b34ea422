"""What the service sends for a plan: the chunks of a stream, or one completion, in the recorded shape. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ._model import Answer, Plan

DONE = "[DONE]"
"""Data of the event that ends a stream."""


@dataclass(frozen=True)
class Heading:
    """What all chunks of an answer have in common."""

    id: str
    model: str
    created: int | None
    """Seconds since 1970; None leaves the field out, as the chatroom operation does."""

    def fields(self, kind: str) -> dict[str, Any]:
        """Return the first fields of a chunk or completion, in the order in which the service sends them."""
        created = {} if self.created is None else {"created": self.created}
        return {"id": self.id, "object": kind, **created, "model": self.model}


def stream(plan: Plan, heading: Heading) -> Iterator[list[dict[str, Any]]]:
    """Yield the stream's chunks, a token's worth at a time, up to and without ``[DONE]``.

    The answers of a request for several advance side by side, one chunk of each at a time. The last chunk has empty
    ``choices`` and the usage.
    """
    for events in zip_longest(*(_choices(answer, index) for index, answer in enumerate(plan.answers))):
        yield [_chunk(heading, choices=[choice]) for choice in events if choice is not None]
    yield [_chunk(heading, choices=[], usage=_usage(plan))]


def completion(plan: Plan, heading: Heading) -> dict[str, Any]:
    """Return the answer as one completion."""
    choices = [
        {"index": index, "message": _message(answer), "finish_reason": answer.finish_reason}
        for index, answer in enumerate(plan.answers)
    ]
    return {**heading.fields("chat.completion"), "choices": choices, "usage": _usage(plan)}


def message(plan: Plan) -> dict[str, Any]:
    """Return the first answer as a message, as a chatroom stores it."""
    return _message(plan.answers[0])


def data(payload: object) -> str:
    """Return a chunk, or any other JSON value, as the data of an event."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _chunk(heading: Heading, **fields: Any) -> dict[str, Any]:
    return {**heading.fields("chat.completion.chunk"), **fields}


def _choices(answer: Answer, index: int) -> Iterator[dict[str, Any]]:
    """Yield what each chunk says of the answer, from its role to its finish reason."""
    for increment in _increments(answer):
        yield {"delta": {"role": "assistant", **increment}, "index": index}
    yield {"delta": {}, "index": index, "finish_reason": answer.finish_reason}


def _increments(answer: Answer) -> Iterator[dict[str, Any]]:
    yield {}
    for piece in answer.text_pieces:
        yield {"content": piece}
    for index, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"id": call.id, "type": "function", "function": function, "index": index}]}
        for piece in call.argument_pieces:
            yield {"tool_calls": [{"function": {"arguments": piece}, "index": index}]}


def _message(answer: Answer) -> dict[str, Any]:
    content = answer.text if answer.text or not answer.calls else None
    if not answer.calls:
        return {"role": "assistant", "content": content}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in answer.calls
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def _usage(plan: Plan) -> dict[str, Any]:
    if plan.usage is not None:
        return dict(plan.usage)
    return {
        "prompt_tokens": plan.prompt_tokens,
        "completion_tokens": plan.completion_tokens,
        "total_tokens": plan.prompt_tokens + plan.completion_tokens,
    }
