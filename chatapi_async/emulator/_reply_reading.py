"""The bytes of a reply file → its rules, or everything that is wrong with them. Pure."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ._faults import nearest
from ._reply_document import Condition, Replies, Reply, ReplyToolCall, ReplyUsage, Rule

_MODELS: Mapping[str, type[BaseModel]] = {
    "rules": Rule,
    "when": Condition,
    "answers": Reply,
    "tool_calls": ReplyToolCall,
    "usage": ReplyUsage,
}
"""What stands under a key; the file itself stands under none."""

_ONE_OF = {"rules": "rule", "answers": "answer", "tool_calls": "tool call", "chunks": "chunk"}
_NEEDED = {
    "missing": "is missing",
    "too_short": "is empty",
    "string_too_short": "is empty",
    "model_type": "must be a table or object",
    "list_type": "must be a list, as [[rules]] is in TOML",
    "string_type": "must be a text",
    "pattern_type": "must be a text",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
}
_KINDS: Mapping[type, str] = {
    dict: "a table",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a decimal number",
}


class ReplyFileError(ValueError):
    """A reply file cannot be used; ``str(error)`` says what is wrong with it, all at once.

    Args:
        name: the file.
        problems: what is wrong with it, and where.
    """

    def __init__(self, name: str, *problems: str) -> None:
        super().__init__(name, *problems)
        self.name = name
        """The file, as it was named."""
        self.problems = problems
        """A line for each thing that is wrong."""

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.name}: {self.problems[0]}"
        return "\n  ".join((f"{self.name}: {len(self.problems)} problems", *self.problems))


def read_replies(content: bytes, name: str) -> Replies:
    """Return what a reply file says.

    Args:
        content: the file's bytes: TOML or JSON in UTF-8.
        name: the file's name, whose ending says which of the two it is.

    Raises:
        ReplyFileError: it is neither, or breaks the schema; everything that does is in it.
    """
    document = _document(content, name)
    problems: list[str] = []
    replies: Replies | None = None
    try:
        replies = Replies.model_validate(document)
    except ValidationError as error:
        problems += [_describe(each) for each in error.errors(include_url=False, include_context=False)]
    problems += _unreachable(document)
    if replies is None or problems:
        raise ReplyFileError(name, *dict.fromkeys(problems))
    return replies


def _document(content: bytes, name: str) -> object:
    """Return the file as dictionaries and lists."""
    ending = name.rpartition(".")[2].lower()
    if ending not in ("toml", "json"):
        raise ReplyFileError(name, "is neither TOML nor JSON by its name: call it '….toml' or '….json'")
    try:
        text = content.decode("utf-8-sig")  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as error:
        raise ReplyFileError(name, f"is not UTF-8, at byte {error.start}: save it as UTF-8") from error
    if not text.strip():
        raise ReplyFileError(name, "is empty: it needs at least one rule")
    try:
        return tomllib.loads(text) if ending == "toml" else _json(text)
    except ValueError as error:
        hint = "; between single quotes a backslash is itself" if ending == "toml" and "\\" in str(error) else ""
        raise ReplyFileError(name, f"is no {ending.upper()}: {error}{hint}") from error
    except RecursionError as error:
        raise ReplyFileError(name, "is nested too deeply") from error


def _json(text: str) -> object:
    def refuse(constant: str) -> None:
        raise ValueError(f"JSON has no {constant}")

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"the key {key!r} stands twice in one object")
            found[key] = value
        return found

    document = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    try:
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "a text in it has half a character (a lone surrogate); the fault 'cut_emoji' sends such"
        ) from error
    return document


def _unreachable(document: object) -> Iterator[str]:
    """Say which rules, by having no condition, keep others from ever answering."""
    rules: object = cast("dict[str, object]", document).get("rules") if isinstance(document, dict) else None
    if not isinstance(rules, list):
        return
    for number, rule in enumerate(cast("list[object]", rules)[:-1], start=1):
        if isinstance(rule, dict) and cast("dict[str, object]", rule).get("when") in (None, {}):
            yield f"rule {number}: has no 'when', so no rule after it ever answers: give it one, or put it last"


def _describe(problem: ErrorDetails) -> str:
    location = problem["loc"]
    if problem["type"] == "extra_forbidden":
        says = _unknown(str(location[-1]), location[:-1])
        location = location[:-1]
    else:
        says = _NEEDED.get(problem["type"], problem["msg"])
        says = says.removeprefix("Value error, ").replace("Input should be", "must be")
        if problem["type"].endswith("_type"):
            says += f", not {_kind(problem['input'])}"
    return ": ".join((*_steps(location), says))


def _unknown(name: str, location: Sequence[int | str]) -> str:
    keys = [step for step in location if isinstance(step, str)]
    model = _MODELS[keys[-1]] if keys else Replies
    if keys and name in _keys(Replies):
        return f"{name!r} is for the whole file: in TOML, write it above the first [[rules]]"
    known = _keys(model)
    if model is Rule:
        known += [f"when.{condition}" for condition in Condition.model_fields]
    return f"there is no {name!r} here{nearest(name, known)}; there are: {', '.join(known)}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _steps(location: Sequence[int | str]) -> Iterator[str]:
    """Yield a location's keys, an item of a list as ``"rule 1"``."""
    for step, following in pairwise((*location, "")):
        if isinstance(step, str):
            yield f"{_ONE_OF[step]} {following + 1}" if isinstance(following, int) else step


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), "a date or time")
