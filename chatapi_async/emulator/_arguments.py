"""Arguments of a tool call, filled in from the JSON Schema of the function and from the prompt. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

_FREE_TEXT = frozenset(("content", "input", "message", "prompt", "q", "query", "question", "search", "text"))
_FORMATS = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000001",
}
_DEEPEST = 8

_WORD = re.compile(r"\w[\w'’-]*")
_AFTER_PREPOSITION = re.compile(
    r"\b(?:in|at|near|for|from|to|of|nach|bei|für|von|à|pour|en|para|de|в|для|из)\s+"
    r"(?=(\w[\w'’-]*(?:\s+\w[\w'’-]*){0,3}))",
    re.IGNORECASE,
)
_CJK_SUBJECT = re.compile(
    r"(?:今日の?|明日の?|今天|明天)?([\u4e00-\u9fff々\u30a1-\u30ff]+?)(?:の|的|で|は|に|今天|明天|天気|天气)"
)
_HANGUL_SUBJECT = re.compile(r"([\uac00-\ud7a3]+?)(?:의|에서|에)?\s")


def arguments_for(schema: Mapping[str, Any], prompt: str) -> Any:
    """Return arguments that fit ``schema``: its required properties, or all of them where it requires none.

    An enum gives its first value, a number is 1 (or the nearest that is allowed), a boolean true; a list has one item;
    a string is the part of ``prompt`` that it most likely stands for, such as the city after "in".
    """
    return _value(schema, "", prompt, schema, 0)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow local references, and take the first alternative that is not null."""
    for _ in range(_DEEPEST):
        reference: object = schema.get("$ref")
        alternatives = [_mapping(option) for key in ("anyOf", "oneOf", "allOf") for option in _list(schema.get(key))]
        if isinstance(reference, str) and reference.startswith("#/"):
            target = root
            for step in reference[2:].split("/"):
                target = _mapping(target.get(step))
            schema = target
        elif alternatives:
            schema = next((option for option in alternatives if option.get("type") != "null"), alternatives[0])
        else:
            break
    return schema


def _value(schema: Mapping[str, Any], name: str, prompt: str, root: Mapping[str, Any], depth: int) -> Any:
    """Return a value for the property ``name``; a schema that contains itself ends at a fixed depth."""
    schema = _resolved(schema, root)
    if "const" in schema:
        return schema["const"]
    choices = _list(schema.get("enum"))
    if choices:
        return choices[0]
    types = _list(schema.get("type")) or [schema.get("type")]
    kind = next((option for option in types if option != "null"), "null")
    if kind == "object" or "properties" in schema:
        properties = _mapping(schema.get("properties") if depth < _DEEPEST else None)
        wanted = _list(schema.get("required")) or list(properties)
        return {
            key: _value(_mapping(value), key, prompt, root, depth + 1)
            for key, value in properties.items()
            if key in wanted
        }
    if kind == "array":
        return [_value(_mapping(schema.get("items")), name, prompt, root, depth + 1)] if depth < _DEEPEST else []
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return _FORMATS.get(str(schema.get("format"))) or _text(name, prompt)


def _number(schema: Mapping[str, Any]) -> float:
    bounds = {key: value for key, value in schema.items() if isinstance(value, int | float)}
    least = max(1, bounds.get("minimum", 1), bounds.get("exclusiveMinimum", 0) + 1)
    return min(least, bounds.get("maximum", least))


def _text(name: str, prompt: str) -> str:
    """Return the part of ``prompt`` that a string argument called ``name`` most likely stands for."""
    line = " ".join(prompt.split())
    if name.casefold() in _FREE_TEXT:
        return line
    for match in _AFTER_PREPOSITION.finditer(line):
        proper = _proper_name(match[1].split())
        if proper:
            return proper
    subject = _CJK_SUBJECT.search(line) or _HANGUL_SUBJECT.search(line)
    if subject:
        return subject[1]
    words = _WORD.findall(line)
    capitalised = (position for position, word in enumerate(words) if position and word[0].isupper())
    start = next(capitalised, None)
    return line if start is None else _proper_name(words[start : start + 4])


def _proper_name(words: list[str]) -> str:
    """Return the capitalised words at the start of ``words``."""
    end = next((position for position, word in enumerate(words) if not word[0].isupper()), len(words))
    return " ".join(words[:end])
