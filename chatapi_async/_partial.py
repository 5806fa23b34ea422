"""What a JSON text that is still being written says so far, as a ``dict`` or as an instance of a pydantic model.

pydantic parses the text. What is made of it holds only what is whole, but for a string that is still growing where the
model has a ``str`` (or anything): half a number is another number, and half a date may be another date.
"""

from __future__ import annotations

import re
from typing import Any, Generic, TypeVar, cast, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json, to_json

from ._json import is_array, is_object
from ._partial_models import ABSENT, Written, reader_of
from .types import ChatCompletionResponse
from .types.response import checked_model, json_text, parse_answer

T = TypeVar("T")

_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
_ENDS_OF_ESCAPES = (re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z"), re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z"))
"""What begins an escape, and what begins a pair of them."""
_LONGEST_END = 6


def kind_of(model: object, function: str, *, or_dict: bool = False) -> type[Any]:
    """Return the class that a function was given to make instances of.

    Raises:
        ConfigurationError: it is no pydantic model, nor, with ``or_dict``, a ``dict``.
    """
    is_dict = or_dict and (get_origin(model) or model) is dict
    return dict if is_dict else checked_model(model, function, "a pydantic model or dict" if or_dict else None)


class Snapshots(Generic[T]):
    """The snapshots of one answer: each is given once, and only if it is not what the last one was.

    Args:
        model: a pydantic model, or ``dict``.
    """

    def __init__(self, model: type[T]) -> None:
        self._model = model
        self._reader = reader_of(cast(Any, model)) if issubclass(model, BaseModel) else None
        self._text = ""
        self._json = b""
        self._last: Any = ABSENT

    def so_far(self, completion: ChatCompletionResponse) -> T | None:
        """Return what the first choice says so far; None if it says nothing yet, or nothing new."""
        if not completion.choices or completion.choices[0].index != 0:
            return None
        text = json_text(completion)
        if text == self._text:
            return None
        self._text = text
        try:
            return self._new(*parse_partial(text))
        except (ValueError, RecursionError):
            return None  # it is no JSON, or not yet, or nested too deeply: the end will tell

    def last(self, completion: ChatCompletionResponse) -> T | None:
        """Return what the whole answer says; None if that is what the last snapshot was.

        Raises:
            AnswerParseError: it is no JSON, or does not fit.
        """
        validate: Any = _OBJECT.validate_json if self._reader is None else cast(Any, self._model).model_validate_json
        value = parse_answer(completion, validate, expected=self._model.__name__)
        return self._if_new(value) if self._reader else self._new(value, "whole")

    def _new(self, value: Any, written: Written) -> T | None:
        json = to_json(value)
        if json == self._json:
            return None
        self._json = json
        read = value if self._reader is None else self._reader.read(value, written)
        return self._if_new(read) if isinstance(read, self._model) else None

    def _if_new(self, value: T) -> T | None:
        if self._reader is not None and self._last is not ABSENT and _equal(value, self._last):
            return None
        self._last = value
        return value


def parse_partial(text: str) -> tuple[Any, Written]:
    """Parse the beginning of a JSON text. A number at its end is left out, since more digits may follow.

    Raises:
        ValueError: it is not the beginning of any JSON.
    """
    text = _without_half_an_escape(text)
    value: Any = from_json(text, allow_partial="trailing-strings")
    last = _last_leaf(value)
    if text[-1].isdigit() and isinstance(last, int | float):
        return from_json(text.rstrip("0123456789.eE+-"), allow_partial="trailing-strings"), "open"
    unfinished = isinstance(last, str) and from_json(text, allow_partial=True) != value
    return value, "unfinished" if unfinished else "open"


def _without_half_an_escape(text: str) -> str:
    for end in _ENDS_OF_ESCAPES:
        if found := end.search(text, max(len(text) - _LONGEST_END, 0)):
            before = text[: found.start()]
            is_escape = (len(before) - len(before.rstrip("\\"))) % 2 == 0
            text = before if is_escape else text
    return text


def _last_leaf(value: Any) -> Any:
    while value:
        if is_object(value):
            value = value[next(reversed(value))]
        elif is_array(value):
            value = value[-1]
        else:
            break
    return value


def _equal(one: Any, other: Any) -> bool:
    try:
        # By all fields, whatever the model's own comparison looks at.
        return BaseModel.__eq__(one, other)
    except Exception:
        return False  # the comparison of something within, which may not know fields that are None
