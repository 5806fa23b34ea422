"""The faults by their names: how one is called for, what it takes, and which one chance picks. Pure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from . import _fault_bodies as bodies
from . import _fault_chunks as chunks
from . import _fault_ends as ends
from ._steps import Answered, Step

_MOST_BEFORE_CHAOS = 6


class FaultError(ValueError):
    """There is no such fault, or it has no such parameter or value; ``str(error)`` names the nearest."""


@dataclass(frozen=True)
class Fault:
    """A way in which the emulator can misbehave. ``str(fault)`` is its line in a list."""

    name: str
    """Such as ``"truncate"``."""

    summary: str
    """What happens, in one sentence."""

    parameters: Mapping[str, Any]
    """What can be set, with the defaults, such as ``{"after": 2, "inside": None}``."""

    choices: Mapping[str, tuple[str, ...]]
    """The values of those parameters that are one of a few words."""

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={self._shown(name)}" for name in self.parameters)
        return f"{self.name:<21}{self.summary}{f' ({shown})' if shown else ''}"

    def _shown(self, name: str) -> str:
        default = self.parameters[name]
        words = dict.fromkeys((*(() if default is None else (_written(default),)), *self.choices.get(name, ())))
        return "|".join(words) or "none"


@dataclass(frozen=True)
class ChosenFault:
    """A fault with its parameters. ``str(chosen)`` calls for it, such as ``truncate?after=2``."""

    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        query = urlencode({name: _written(value) for name, value in self.arguments.items()})
        return f"{self.name}{'?' if query else ''}{query}"

    @property
    def answers_without_stream(self) -> bool:
        """Whether a request that asks for no stream can get it too."""
        return self.name in _WITHOUT_STREAM

    @property
    def breaks_connection(self) -> bool:
        """Whether it needs the connection itself."""
        return self.name in ("hang_up", "reset")

    def steps(self, answered: Answered) -> Iterator[Step]:
        """Yield what the server does instead of giving the answer."""
        return _SCRIPTS[self.name](answered, **self.arguments)


def chaos(number: int, *, seed: int = 0) -> ChosenFault:
    """One of the others, picked by the seed and by how often it was asked for: the same ones in the same order."""
    chance = Random(f"{seed}:{number}")  # noqa: S311 - repeatable is what it is to be
    name = chance.choice(sorted(_SCRIPTS))
    after = {"after": chance.randrange(_MOST_BEFORE_CHAOS)} if "after" in FAULTS[name].parameters else {}
    return ChosenFault(name, after)


def read_fault(text: str) -> ChosenFault:
    """Return the fault that ``text`` calls for: its name, and its parameters as in a query (``truncate?after=2``).

    Raises:
        FaultError: there is no such fault, or it has no such parameter or value.
    """
    name, _, query = text.partition("?")
    return choose_fault(name, dict(parse_qsl(query, keep_blank_values=True)))


def choose_fault(name: str, arguments: Mapping[str, object]) -> ChosenFault:
    """Return the fault of that name with parameters, as texts or as they are.

    Raises:
        FaultError: there is no such fault, or it has no such parameter or value.
    """
    if name not in FAULTS:
        raise FaultError(f"there is no fault {name!r}{nearest(name, FAULTS)}; there are: {', '.join(FAULTS)}")
    parameters = FAULTS[name].parameters
    for each in arguments:
        if each not in parameters:
            known = f"it has: {', '.join(parameters)}" if parameters else "it has none"
            raise FaultError(f"the fault {name!r} has no parameter {each!r}{nearest(each, parameters)}; {known}")
    try:
        checked = _MODELS[name].model_validate(dict(arguments))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise FaultError(f"the fault {name!r}: {problem['loc'][0]}: {problem['msg']}") from error
    return ChosenFault(name, checked.model_dump(exclude_unset=True))


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a question for the one of ``names`` that is most like ``name``; ``""`` where none is."""
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    return f", did you mean {near[0]!r}?" if near else ""


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(function: Callable[..., object]) -> dict[str, Any]:
    """Return the parameters that can be set, with their defaults."""
    signature = inspect.signature(function)
    return {name: each.default for name, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY}


def _choices(function: Callable[..., object]) -> dict[str, tuple[str, ...]]:
    """Return the words of each parameter that is one of a few."""
    found: dict[str, tuple[str, ...]] = {}
    for name, kind in get_type_hints(function).items():
        for part in (kind, *get_args(kind)):
            if get_origin(part) is Literal:
                found[name] = get_args(part)
    return found


def _fault(name: str, function: Callable[..., object]) -> Fault:
    parameters, choices = _parameters(function), _choices(function)
    return Fault(name, inspect.getdoc(function) or "", MappingProxyType(parameters), MappingProxyType(choices))


def _model(name: str, function: Callable[..., object]) -> type[BaseModel]:
    types = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {each: (types[each], default) for each, default in _parameters(function).items()}
    return create_model(name, __config__=ConfigDict(allow_inf_nan=False), **fields)


_SCRIPTS: Mapping[str, Callable[..., Iterator[Step]]] = {
    script.__name__.strip("_"): script
    for script in (
        *(ends.truncate, ends.hang_up, ends.reset, ends.no_response, ends.stall, ends.slow, ends.never_ends),
        *(ends.only_done, ends.no_done, ends.no_finish_reason, ends.second_answer, ends.error, ends.error_after_finish),
        *(bodies.status, bodies.html, bodies.json_, bodies.broken_json, bodies.empty, bodies.garbage, bodies.huge),
        *(bodies.bytewise, bodies.bom, bodies.crlf, bodies.cr, bodies.comments, bodies.empty_events),
        *(bodies.invalid_utf8, bodies.compressed),
        *(chunks.no_created, chunks.no_ids, chunks.changing_ids, chunks.no_role, chunks.unknown_words),
        *(chunks.empty_first_chunk, chunks.no_delta, chunks.message_beside_delta, chunks.padding, chunks.null_content),
        *(chunks.content_parts, chunks.reasoning, chunks.cut_emoji, chunks.usage, chunks.tool_calls),
        chunks.provider_events,
    )
}
_CALLED_FOR: Mapping[str, Callable[..., object]] = {**_SCRIPTS, "chaos": chaos}
_MODELS = {name: _model(name, function) for name, function in _CALLED_FOR.items()}
_WITHOUT_STREAM = frozenset(("status", "html", "json", "broken_json"))

FAULTS: Mapping[str, Fault] = MappingProxyType({name: _fault(name, each) for name, each in _CALLED_FOR.items()})
"""All faults by their names, such as ``FAULTS["truncate"]``; ``str`` of one is its line in a list."""
