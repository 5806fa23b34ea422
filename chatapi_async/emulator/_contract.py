"""The request's body, checked against the contract. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chatapi_async.types import ChatCompletionRequest

_MOST_REPORTED = 5
_REQUIRED_TOGETHER = {
    "memory_settings": ("extract_memory", "max_memories", "min_relevance_score"),
    "parameters": ("type", "properties", "required"),
}


class ContractError(ValueError):
    """The body breaks the contract; ``str(error)`` says which field does, and why."""


def read_request(body: bytes) -> ChatCompletionRequest:
    """Return the request that ``body`` holds as JSON. Types are strict: ``"1"`` is no number.

    Raises:
        ContractError: the body is no JSON object, or a field of it is missing, unknown, of a wrong type or out of
            bounds.
    """
    try:
        request = ChatCompletionRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        shown = "; ".join(dict.fromkeys(_describe(problem) for problem in problems[:_MOST_REPORTED]))
        raise ContractError(f"the request breaks the contract: {shown}") from error
    _check_required_together(json.loads(body))
    return request


def provider_and_name(model: str | None) -> tuple[str, str]:
    """Split ``provider/model`` and ``provider:model``; a bare name means ``openai``, a size the built-in model."""
    if model is None or model in ("large", "small"):
        return "emulator", model or "large"
    parts = re.split("[/:]", model, maxsplit=1)
    return ("openai", model) if len(parts) == 1 else (parts[0], parts[1])


def _describe(problem: ErrorDetails) -> str:
    if problem["type"] == "json_invalid":
        return problem["msg"]
    # A union adds the name of its branch to the location, which is no field of the body.
    path = [str(step) for step in problem["loc"] if isinstance(step, int) or re.fullmatch(r"[a-z_]+", step)]
    path = [step for step in path if step not in ("str", "none")]
    where = ".".join(path) or "body"
    return f"{where}: {problem['msg']}"


def _check_required_together(body: dict[str, Any]) -> None:
    """Check keys that the contract requires, and that the client's own models fill in by themselves."""
    objects = [("memory_settings", "memory_settings", body.get("memory_settings"))]
    for position, tool in enumerate(body.get("tools") or []):
        objects.append((f"tools.{position}.function.parameters", "parameters", tool["function"]["parameters"]))
    for path, kind, value in objects:
        missing = [key for key in _REQUIRED_TOGETHER[kind] if value is not None and key not in value]
        if missing:
            raise ContractError(f"the request breaks the contract: {path}.{missing[0]}: Field required")
