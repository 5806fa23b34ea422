"""From the service's words to an OpenAI-compatible server's, and back: requests, lists of models, errors. Pure.

What such servers know differs: Ollama, LM Studio and llama-cpp-python know ``max_tokens`` alone, and silently ignore
``max_completion_tokens``; llama.cpp, vLLM and LiteLLM know both. So ``max_tokens`` is what is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import unescape
from typing import NamedTuple, cast

from chatapi_async.types import ChatCompletionRequest, Message

from ._refusals import RefusedError
from ._upstream import Upstream

_SIZES = (None, "large", "small")
_SERVICE_ALONE = frozenset({"memory_settings", "communication_style", "explanation_style", "technical_level"})
_MESSAGE_LENGTH, _EXCERPT_LENGTH = 1000, 300
_MODELS_SHOWN = 20
_REFUSES_REQUEST = frozenset({400, 413, 422})
_REFUSES_KEY = frozenset({401, 403})
# Of a page, the markup is left out; of a script or style sheet, all.
_MARKUP = re.compile(r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<[a-z/!?][^>]*(?:>|\Z)", re.IGNORECASE | re.DOTALL)


class Answered(NamedTuple):
    """An answer of the upstream that is no success."""

    status: int
    """HTTP status."""
    headers: Mapping[str, str]
    """Response headers, by their lower-case names."""
    body: bytes
    """The beginning of the body."""


def named_model(request: ChatCompletionRequest, upstream: Upstream) -> str | None:
    """Return the model to ask the upstream for; None for its first, which is for it to say."""
    if upstream.model is not None:
        return upstream.model
    return None if request.model in _SIZES else request.model


def request_body(request: ChatCompletionRequest, history: Sequence[Message], model: str) -> bytes:
    """Return the JSON body that asks ``model`` what ``request`` asks, after what was said before."""
    fields = request.model_dump(mode="json", exclude_unset=True, exclude=set(_SERVICE_ALONE))
    body = {name: value for name, value in fields.items() if value is not None}
    said = [message.model_dump(mode="json", exclude_unset=True) for message in history]
    body |= {"model": model, "messages": [*said, *body["messages"]]}
    if (longest := body.pop("max_completion_tokens", None)) is not None:
        body["max_tokens"] = longest
    if body.get("tool_choice") == "any":
        body["tool_choice"] = "required"
    if request.stream:
        # Without it the usage does not come; beside what is not streamed, servers refuse it.
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def is_json(body: bytes) -> bool:
    """Tell whether a body is JSON."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def model_names(upstream: Upstream, body: bytes) -> list[str] | None:
    """Return the models that the answer to ``GET /models`` names; None where it is no such list."""
    listed: object = _object(body).get("data")
    if not isinstance(listed, list):
        return None
    names = (_fields(entry).get("id") for entry in cast(list[object], listed))
    return [upstream.concealed(name) for name in names if isinstance(name, str)]


def some(models: Sequence[str]) -> str:
    """Return the models in words: of hundreds, as routers have, the first."""
    more = len(models) - _MODELS_SHOWN
    return ", ".join([*models[:_MODELS_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def unreachable(upstream: Upstream, detail: str) -> RefusedError:
    """Return what is answered where the upstream cannot be connected to."""
    message = f"the upstream {upstream.base_url} cannot be reached: {detail}. Is it running, and is that its address?"
    return RefusedError(502, upstream.concealed(message), code="upstream_unreachable")


def lost(upstream: Upstream, detail: str) -> RefusedError:
    """Return what is answered where the connection ended before the upstream's answer began, or was whole."""
    message = f"the upstream {upstream.base_url} gave no whole answer: {detail}. Its log may say why."
    return RefusedError(502, upstream.concealed(message), code="upstream_failed")


def odd(upstream: Upstream, what: str, body: bytes) -> RefusedError:
    """Return what is answered where the upstream's answer is none of a chat completion."""
    said = _words(upstream, body)
    message = (
        f"the upstream {upstream.base_url} answered with {what}: {said or 'an empty body'}. Is it OpenAI-compatible?"
    )
    return RefusedError(502, upstream.concealed(message), code="upstream_failed")


def no_model(upstream: Upstream) -> RefusedError:
    """Return what is answered where no model is named, and the upstream has none."""
    message = f"the upstream {upstream.base_url} has no models, and the request names none: load one there"
    return RefusedError(400, message, code="unsupported_model")


def not_found(upstream: Upstream, model: str, models: Sequence[str] | None, answered: Answered) -> RefusedError:
    """Return what is answered to a 404: the upstream lacks the model, or is not at that address.

    Args:
        upstream: who answered.
        model: what was asked for.
        models: what it says that it has; None where it does not say.
        answered: its answer.
    """
    if models is not None and model not in models:
        said = _words(upstream, answered.body)
        has = f"it has: {some(models)}" if models else "it has none"
        message = f"the upstream has no model {model!r}; {has}. Name one of these, or give the upstream's model: {said}"
        return RefusedError(400, message, code="unsupported_model")
    return wrong_address(upstream, "POST /chat/completions", answered)


def wrong_address(upstream: Upstream, operation: str, answered: Answered) -> RefusedError:
    """Return what is answered where an operation is not at the upstream's address."""
    message = f"the upstream {upstream.base_url} has no {operation} (404: {_words(upstream, answered.body)})"
    if not upstream.base_url.endswith("/v1"):
        message = f"{message}; most servers have it under /v1: try {upstream.url('/v1')}"
    return RefusedError(502, message, code="upstream_failed")


def refusal(upstream: Upstream, answered: Answered) -> RefusedError:
    """Return what is answered where the upstream answers with an HTTP error, other than 404."""
    status = answered.status
    said = _words(upstream, answered.body) or "no message"
    wait = answered.headers.get("retry-after", "")
    again = {"retry-after": upstream.concealed(wait)} if wait and wait.isascii() else {}
    if status == 429:
        return RefusedError(429, said, code=_code(upstream, answered.body) or "rate_limited", headers=again)
    if status == 503 and again:
        return RefusedError(503, said, code="upstream_unavailable", headers=again)
    if status in _REFUSES_KEY:
        how = "it wants a key" if upstream.key is None else "it does not accept the key that it was given"
        message = f"the upstream {upstream.base_url} refused the emulator ({status}): {how}: {said}"
        return RefusedError(502, message, code="upstream_refused_key")
    if 300 <= status < 400:
        place = upstream.concealed(answered.headers.get("location", "it does not say where"))
        message = f"the upstream {upstream.base_url} redirects ({status}), which is not followed: {place}"
        return RefusedError(502, message, code="upstream_failed")
    if status in _REFUSES_REQUEST and _object(answered.body):
        return RefusedError(400, said, code=_code(upstream, answered.body) or "upstream_refused_request")
    return RefusedError(502, f"the upstream {upstream.base_url} failed ({status}): {said}", code="upstream_failed")


def _words(upstream: Upstream, body: bytes) -> str:
    """Return what an error's body says, in whatever shape: ``{error: {message}}``, ``{error}``, ``{message}``,
    ``{detail}``, a page, or plain text."""
    fields = _object(body)
    inner = fields.get("error")
    for text in (_fields(inner).get("message"), inner, fields.get("message"), fields.get("detail")):
        if isinstance(text, str) and text.strip():
            return _shortened(upstream.concealed(text), _MESSAGE_LENGTH)
    text = unescape(_MARKUP.sub(" ", body.decode("utf-8", "replace")))
    return _shortened(upstream.concealed(text), _EXCERPT_LENGTH)


def _shortened(text: str, length: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else words[: length - 1] + "…"


def _code(upstream: Upstream, body: bytes) -> str | None:
    """Return the upstream's own word for an error; None where it has none, or repeats the status."""
    fields = _object(body)
    code = (_fields(fields.get("error")) or fields).get("code")
    return upstream.concealed(code) if isinstance(code, str) and code and not code.isdigit() else None


def _object(body: bytes) -> dict[str, object]:
    """Return the object that a body holds as JSON; an empty one where it holds none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return _fields(value)


def _fields(value: object) -> dict[str, object]:
    return cast(dict[str, object], value) if isinstance(value, dict) else {}
