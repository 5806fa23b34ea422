"""What a reply file may say: its models, and the JSON Schema made of them. Pure."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from chatapi_async.types import Usage

from ._faults import read_fault
from ._steps import Seconds

_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def _compiled(pattern: object) -> object:
    if not isinstance(pattern, str):
        return pattern
    if "\b" in pattern:
        raise ValueError("has a backspace: for a word's edge write '\\b' between single quotes, or \"\\\\b\"")
    try:
        return re.compile(pattern)
    # A warning is raised where the program has made warnings errors.
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"is no regular expression: {error}") from error


def _json_text(arguments: object) -> str:
    if isinstance(arguments, str):
        return arguments
    if not isinstance(arguments, dict):
        raise ValueError("must be a table, or the JSON as a text")  # noqa: TRY004 - what pydantic reports
    try:
        return json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"holds what JSON cannot say: {error}") from error


def _known_fault(fault: str) -> str:
    read_fault(fault)
    return fault


class Condition(BaseModel):
    """When a rule answers: all that is given must be so.

    The prompt is the last message of the user. A condition on it does not hold where the conversation ends with the
    results of tools, unless `tool_result` is given too, so that a rule which calls a tool does not call it for ever.
    """

    model_config = _STRICT

    equals: str | None = None
    """The prompt is this text, to the letter."""

    contains: str | None = Field(default=None, min_length=1)
    """The prompt has this text in it; upper and lower case differ."""

    matches: Annotated[re.Pattern[str], BeforeValidator(_compiled)] | None = None
    """This regular expression, in Python's syntax, is found in the prompt; `(?i)` at its beginning ignores case."""

    tool_result: str | None = Field(default=None, min_length=1)
    """The conversation ends with results of tools, and one is of the tool of this name."""

    model: str | None = Field(default=None, min_length=1)
    """The request is for this model."""

    chatroom_id: str | None = Field(default=None, min_length=1)
    """The request is for this chatroom."""


class ReplyToolCall(BaseModel):
    """A tool call of an answer."""

    model_config = _STRICT

    name: str
    """Name of the function."""

    arguments: Annotated[str, BeforeValidator(_json_text), WithJsonSchema({"type": ["object", "string"]})] = "{}"
    """The arguments, or their JSON as a text, which is sent as it is, however broken. None by default."""

    id: str | None = None
    """Id of the call; by default one that no other call of the conversation has."""


class ReplyUsage(Usage):
    """What an answer is said to have used."""

    model_config = _STRICT


class Reply(BaseModel):
    """An answer. Without `text`, `chunks` and `tool_calls`, the built-in model gives it."""

    model_config = _STRICT

    text: str | None = None
    """The text, streamed a token at a time."""

    chunks: list[str] | None = Field(default=None, min_length=1)
    """The text, streamed in these pieces."""

    tool_calls: list[ReplyToolCall] | None = Field(default=None, min_length=1)
    """Calls after the text."""

    finish_reason: str | None = None
    """Why it ends; by default `tool_calls` where there are some, else `stop`."""

    usage: ReplyUsage | None = None
    """What it is said to have used; by default as many tokens as it has."""

    delay: Seconds | None = None
    """Seconds before the first chunk; by default the server's."""

    fault: Annotated[str, AfterValidator(_known_fault)] | None = Field(
        default=None, examples=["truncate?after=3", "status?code=429&retry_after=1"]
    )
    """How it goes wrong: a fault of the local server, with its parameters as in a query."""

    @field_validator("chunks")
    @classmethod
    def _text_is_said_once(cls, chunks: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if chunks is not None and info.data.get("text") is not None:
            raise ValueError("stands beside 'text': give one of the two")
        return chunks


class Rule(Reply):
    """An answer, or several in turn, and when it is given."""

    when: Condition = Field(default_factory=Condition)
    """When it answers; always by default."""

    answers: list[Reply] | None = Field(default=None, min_length=1)
    """Several answers, one a request; the last is given again and again."""

    @field_validator("answers")
    @classmethod
    def _one_or_several(cls, answers: list[Reply] | None, info: ValidationInfo) -> list[Reply] | None:
        beside = [name for name in Reply.model_fields if info.data.get(name) is not None]
        if answers is not None and beside:
            raise ValueError(f"stands beside {', '.join(map(repr, beside))}: put that into one of the answers")
        return answers


class Replies(BaseModel):
    """Answers of chatapi's local server by the prompts that they are for."""

    model_config = _STRICT

    json_schema: str | None = Field(default=None, alias="$schema")
    """Where this schema is, for editors."""

    rules: list[Rule] = Field(min_length=1)
    """The first one whose condition holds answers."""

    unmatched: Literal["model", "refuse"] = "model"
    """Who answers what no rule does: the model (the upstream's, where there is one), or nobody, which is a 400 that
    names the prompt."""


def replies_schema() -> dict[str, Any]:
    """Return the JSON Schema of a reply file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Replies.model_json_schema()}
