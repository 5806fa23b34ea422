"""A stream in the words of OpenTelemetry's semantic conventions for generative AI, version 0.1.0.

That is the first that was released by itself; up to 1.41 they were a part of the general ones, with other names for the
metrics. What they have no word for begins with ``chatapi.``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ._json import is_object
from ._observation import StreamCall, StreamEnd
from .errors import APIStatusError, APITimeoutError, StreamError
from .types import ChatCompletionRequest, ChatCompletionResponse, ContentPart, Message, Tool, Usage

Attributes = dict[str, Any]

# Whom the client talks to, and in whose format: the service. The provider behind it is not known when a span begins
# (the model may be "small"), and stands in the names of the models where it is.
PROVIDER: Final = "chatapi"
OPERATION: Final = "chat"

_REQUEST_FIELDS: Final = {
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
}
# A sum that is more than 64 bits cannot be exported, and neither can any other metric beside it.
_TOO_MANY_TOKENS: Final = 2**31
_OUTPUT_TYPES: Final = {"text": "text", "json_object": "json", "json_schema": "json"}


def span_name(request: ChatCompletionRequest) -> str:
    """Return the name of a call's span, such as ``chat openai/gpt-4o``."""
    return f"{OPERATION} {request.model}" if request.model else OPERATION


def common(call: StreamCall) -> Attributes:
    """Return what is said of a call on its span and on every metric."""
    attributes: Attributes = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": PROVIDER,
        "server.address": call.server_address,
        "server.port": call.server_port,
    }
    if call.request.model:
        attributes["gen_ai.request.model"] = call.request.model
    return attributes


def of_call(call: StreamCall) -> Attributes:
    """Return what a span says from its begin."""
    request = call.request
    attributes = common(call)
    attributes["chatapi.operation"] = call.operation
    attributes["chatapi.operator.id"] = call.operator_id
    if call.chatroom_id is not None:
        attributes["gen_ai.conversation.id"] = call.chatroom_id
    if request.stream:
        attributes["gen_ai.request.stream"] = True
    if request.n not in (None, 1):
        attributes["gen_ai.request.choice.count"] = request.n
    if request.response_format is not None and (kind := _OUTPUT_TYPES.get(request.response_format.type)):
        attributes["gen_ai.output.type"] = kind
    for name, attribute in _REQUEST_FIELDS.items():
        if (value := getattr(request, name)) is not None:
            attributes[attribute] = value
    return attributes


def of_end(end: StreamEnd) -> Attributes:
    """Return what a span says at its end."""
    completion = end.completion
    attributes: Attributes = {
        "gen_ai.response.id": completion.id or None,
        "gen_ai.response.model": completion.model or None,
        "gen_ai.response.finish_reasons": _finish_reasons(completion),
        "gen_ai.response.time_to_first_chunk": time_to_first_chunk(end),
        **{f"gen_ai.usage.{kind}": count for kind, count in tokens(completion.usage).items()},
        "error.type": error_type(end),
        "http.response.status_code": end.status_code,
        "chatapi.completeness": end.completeness,
        "chatapi.chunks": end.stats.chunks,
        "chatapi.heartbeats": end.stats.heartbeats,
        "chatapi.attempts": end.attempts,
        "chatapi.request.id": end.request_id,
        "chatapi.usage.total_cost": completion.usage.total_cost if completion.usage else None,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def of_metrics(end: StreamEnd) -> Attributes:
    """Return what the metrics say of a stream."""
    attributes = common(end)
    if end.completion.model:
        attributes["gen_ai.response.model"] = end.completion.model
    return attributes


def time_to_first_chunk(end: StreamEnd) -> float | None:
    """Return it in seconds; None where none came, or no stream was asked for."""
    return end.stats.time_to_first_chunk if end.request.stream else None


def error_type(end: StreamEnd) -> str | None:
    """Return the name of the error's class; None where there was none."""
    return None if end.error is None else type(end.error).__qualname__


def error_description(error: Exception) -> str | None:
    """Return what else can be said of an error without the server's words, which may be a person's, or a token."""
    if isinstance(error, APITimeoutError):
        return f"{error.phase}: more than {error.limit:g} s"
    if isinstance(error, APIStatusError):
        return f"status {error.status_code}"
    return f"after {error.chunks_received} chunks" if isinstance(error, StreamError) else None


def tokens(usage: Usage | None) -> dict[str, int]:
    """Return the numbers of tokens that are known, by the conventions' names of their kinds."""
    if usage is None:
        return {}
    extra = usage.model_extra or {}
    counts = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read.input_tokens": _first(
            usage.cache_read_input_tokens, _detail(extra, "prompt_tokens_details", "cached_tokens")
        ),
        "cache_write.input_tokens": usage.cache_creation_input_tokens,
        "reasoning.output_tokens": _detail(extra, "completion_tokens_details", "reasoning_tokens"),
    }
    return {kind: count for kind, count in counts.items() if count is not None and 0 <= count < _TOO_MANY_TOKENS}


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


def _detail(extra: Mapping[str, Any], group: str, name: str) -> int | None:
    details = extra.get(group)
    count = details.get(name) if is_object(details) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _finish_reasons(completion: ChatCompletionResponse) -> list[str] | None:
    """Return one for each answer. Where the stream broke off before it, that is ``error`` by the conventions; where the
    server said that the answer is complete, and not why, there is none to tell."""
    reasons = [choice.finish_reason for choice in completion.choices]
    if not reasons or (completion.completeness == "complete" and None in reasons):
        return None
    return [reason or "error" for reason in reasons]


# ── content, which is recorded only where that was asked for ─────────────────────────────────────────────────────────


def content(end: StreamEnd) -> Attributes:
    """Return what was said to the model and what it said, as JSON, the latter as a message for each answer. System
    messages are messages here, as they are in the request."""
    request, choices = end.request, end.completion.choices
    attributes: Attributes = {"gen_ai.input.messages": _as_json(map(_message, request.messages))}
    if choices:
        attributes["gen_ai.output.messages"] = _as_json(_message(choice.message) for choice in choices)
    if request.tools:
        attributes["gen_ai.tool.definitions"] = _as_json(map(_tool, request.tools))
    return attributes


def _as_json(items: Iterable[Any]) -> str:
    # Half a character cannot be exported; as an escape of JSON it can.
    return json.dumps(list(items), ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": list(_parts(message))}


def _parts(message: Message) -> Iterable[dict[str, Any]]:
    extra = message.model_extra or {}
    for name in ("reasoning_content", "reasoning"):
        if isinstance(reasoning := extra.get(name), str) and reasoning:
            yield {"type": "reasoning", "content": reasoning}
    if message.role == "tool":
        yield {"type": "tool_call_response", "id": message.tool_call_id, "response": message.text}
        return
    if isinstance(message.content, str):
        if message.content:
            yield {"type": "text", "content": message.content}
    else:
        yield from map(_part, message.content or ())
    yield from map(_part, message.content_parts or ())
    for call in message.tool_calls or ():
        arguments = _parsed(call.function.arguments)
        yield {"type": "tool_call", "id": call.id, "name": call.function.name, "arguments": arguments}


def _part(part: ContentPart) -> dict[str, Any]:
    if part.type == "text":
        return {"type": "text", "content": part.text or ""}
    return part.model_dump(mode="json", exclude_none=True)


def _parsed(arguments: str) -> Any:
    """Return the arguments of a call as an object where they are one, else as the model wrote them."""
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if is_object(value) else arguments


def _tool(tool: Tool) -> dict[str, Any]:
    function = tool.function
    parameters = function.parameters.model_dump(mode="json", exclude_unset=True)
    return {"type": tool.type, "name": function.name, "description": function.description, "parameters": parameters}
