"""Which tools the built-in model calls. Pure: no I/O, no clock, no randomness."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from chatapi_async.types import Function

from ._arguments import arguments_for
from ._tokens import terms

_WEATHER = re.compile(r"weather|forecast|wetter|météo|tiempo|clima|погод|天気|天气|날씨")
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+")


@dataclass(frozen=True)
class Call:
    """A tool call: its id, the function's name, and the arguments as JSON text."""

    id: str
    name: str
    arguments: str


def call_tools(functions: Sequence[Function], prompt: str, *, required: bool, seed: str) -> tuple[Call, ...]:
    """Return the calls that ``prompt`` asks for; none where it asks for none, unless one is ``required``.

    Every function whose name has a word in common with the prompt is called; where there is none, the one whose
    description has the most words in common with it. A weather function is called for the weather in any language.

    Args:
        functions: what can be called.
        prompt: what the user wrote.
        required: call the first function where the prompt asks for none.
        seed: makes the ids of calls in different places of a conversation different.
    """
    asked = set(terms(prompt))
    chosen = [function for function in functions if _is_named(function, prompt, asked)]
    if functions and not chosen:
        likeness = [len(asked.intersection(terms(function.description))) for function in functions]
        best = max(likeness)
        if best or required:
            chosen = [functions[likeness.index(best)]]
    return tuple(_call(function, prompt, f"{seed}:{position}") for position, function in enumerate(chosen))


def _is_named(function: Function, prompt: str, asked: set[str]) -> bool:
    if asked.intersection(terms(" ".join(_NAME_PARTS.findall(function.name)))):
        return True
    about = f"{function.name} {function.description}".casefold()
    return _WEATHER.search(about) is not None and _WEATHER.search(prompt.casefold()) is not None


def _call(function: Function, prompt: str, seed: str) -> Call:
    arguments = json.dumps(arguments_for(function.parameters.model_dump(), prompt), ensure_ascii=False)
    digest = hashlib.sha256(f"{seed}:{function.name}:{arguments}".encode()).hexdigest()
    return Call(id=f"toolu_{digest[:24]}", name=function.name, arguments=arguments)
