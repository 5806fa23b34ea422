"""What tests without sockets are made of: chunks, completions, and the bodies of event streams. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chatapi_async.types import (
    BaseChunk,
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    FunctionCall,
    MessageToolCall,
    Usage,
)

StreamItem = str | BaseChunk | Mapping[str, Any] | bytes
"""What an event stream is built from: a text, a chunk, an error or another event as a mapping, or bytes as they are."""


def tool_call(name: str, arguments: Mapping[str, Any] | str | None = None, *, id: str = "call_1") -> MessageToolCall:
    """Return a whole tool call.

    Args:
        name: the function's.
        arguments: a mapping, or the JSON text as the model wrote it, which may be broken; none by default.
        id: the call's, which the answering ``tool`` message repeats. Default ``"call_1"``.
    """
    text = arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {}), ensure_ascii=False)
    return MessageToolCall(id=id, type="function", function=FunctionCall(name=name, arguments=text))


def chunk(
    text: str = "",
    *,
    role: str | None = None,
    tool_calls: Sequence[MessageToolCall] = (),
    finish_reason: str | None = None,
    usage: Usage | None = None,
    index: int = 0,
    id: str = "msg_test",
    model: str = "test",
) -> ChatCompletionChunkResponse:
    """Return a chunk, as ``chat_completion`` streams them.

    Args:
        text: the new text; left out where it is empty, as by default.
        role: the message's, which the service sends in each chunk; left out by default.
        tool_calls: whole calls, each in one fragment.
        finish_reason: why the choice ends with this chunk; None, the default, where it does not.
        usage: what was used so far; left out by default.
        index: which of the answers. Default 0.
        id: the answer's.
        model: the one that answers.
    """
    fragments = [{**call.model_dump(exclude_unset=True), "index": number} for number, call in enumerate(tool_calls)]
    delta = {"role": role, "content": text or None, "tool_calls": fragments or None}
    choice = {"delta": _present(delta), "index": index, "finish_reason": finish_reason}
    fields = {
        "id": id,
        "object": "chat.completion.chunk",
        "model": model,
        "choices": [_present(choice)],
        "usage": None if usage is None else usage.model_dump(exclude_unset=True),
    }
    return ChatCompletionChunkResponse.model_validate(_present(fields))


def completion(
    text: str = "",
    *,
    tool_calls: Sequence[MessageToolCall] = (),
    finish_reason: str | None = None,
    usage: Usage | None = None,
    id: str = "msg_test",
    model: str = "test",
) -> ChatCompletionResponse:
    """Return a whole completion with one choice, as ``get_final_completion()`` does.

    Args:
        text: the message's; None in the message where it is empty and there are tool calls.
        tool_calls: the message's.
        finish_reason: why it ended; by default ``"tool_calls"`` where there are some, else ``"stop"``.
        usage: what was used; left out by default.
        id: the answer's.
        model: the one that answered.
    """
    calls = [call.model_dump(exclude_unset=True) for call in tool_calls]
    message = {"role": "assistant", "content": text if text or not calls else None, "tool_calls": calls or None}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason or ("tool_calls" if calls else "stop")}
    fields = {
        "id": id,
        "object": "chat.completion",
        "model": model,
        "choices": [choice],
        "usage": None if usage is None else usage.model_dump(exclude_unset=True),
    }
    return ChatCompletionResponse.model_validate(_present(fields))


def error(message: str, *, code: str | int | None = None, type: str | None = None) -> dict[str, Any]:
    """Return an error as the service reports it inside a stream: an item of :func:`event_stream`."""
    return {"error": _present({"message": message, "type": type, "code": code})}


def event_stream(items: Iterable[StreamItem], *, complete: bool = True) -> bytes:
    """Return the body of an event stream.

    Args:
        items: a text makes a chunk, a chunk is an event, a mapping is an event as JSON (an ``event: error`` where it is
            an :func:`error`), and bytes are sent as they are.
        complete: whether the answer ends as it should: with a finish reason, unless a chunk has one, and ``[DONE]``.
            False for a stream that breaks off after the last item. After an error nothing is added in any case.
    """
    body = b""
    finished = failed = False
    for item in items:
        if isinstance(item, bytes):
            body += item
        elif isinstance(item, Mapping):
            failed = failed or bool(item.get("error"))
            body += _event(json.dumps(dict(item), ensure_ascii=False), "error" if item.get("error") else None)
        else:
            made = chunk(item) if isinstance(item, str) else item
            finished = finished or any(choice.finish_reason for choice in made.choices)
            body += _event(made.model_dump_json(exclude_unset=True))
    if not complete or failed:
        return body
    end = b"" if finished else _event(chunk(finish_reason="stop").model_dump_json(exclude_unset=True))
    return body + end + _event("[DONE]")


def _event(data: str, name: str | None = None) -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
