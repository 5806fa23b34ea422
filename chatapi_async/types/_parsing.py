"""From JSON text that a model wrote to what it should be, or to the error that says why it is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import AnswerParseError, ConfigurationError

T = TypeVar("T")

# Taken together these stay below the length up to which a message is searched for a token that an excerpt cuts in half.
_PROBLEMS = 3
_PROBLEM_LENGTH = 150
_NAME_LENGTH = 60
_EXCERPT_LENGTH = 200
_REFUSAL_LENGTH = 100

_JSON_BEGINS = re.compile(r'[{\["\d-]|(?:true|false|null|NaN|Infinity)\b')


def checked_model(model: Any, function: str, wanted: str | None = None) -> type[Any]:
    """Return the model that a function was given.

    Args:
        model: what it was given.
        function: its name, for the message.
        wanted: what it takes, where that is more than a pydantic model.

    Raises:
        ConfigurationError: it is no pydantic model.
    """
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model
    raise ConfigurationError(
        f"{function}() takes {wanted or 'a pydantic model'}, not {excerpt(f'{model!r}')}; "
        "for JSON that is no object pass a RootModel, such as RootModel[list[Place]]"
    )


def parse_json(
    text: str,
    validate: Callable[[str], T],
    *,
    what: str,
    expected: str,
    circumstances: tuple[str, ...] = (),
    refusal: str = "",
) -> T:
    """Return what ``validate`` makes of ``text``.

    Args:
        text: the JSON text.
        validate: makes the result, or raises pydantic's error.
        what: what the text is, such as ``the answer``, for the message.
        expected: name of what it should be.
        circumstances: sentences on why it may not fit.
        refusal: what the model said instead.

    Raises:
        AnswerParseError: the text is no JSON, or does not fit.
    """
    try:
        return validate(text)
    except ValidationError as error:
        made, of = (_shortened(name, _NAME_LENGTH) for name in (expected, what))
        said = f"The model refused: {excerpt(refusal, _REFUSAL_LENGTH).rstrip('.')}; " if refusal else ""
        begins = _beginning(text) if error.errors(include_url=False)[0]["type"] == "json_invalid" else ()
        sentences = (f"{said}cannot make a {made} of {of}: {_problems(error)}", *circumstances, *begins, _shown(text))
        raise AnswerParseError(". ".join(sentences), text=text) from error


def excerpt(text: str, length: int = _EXCERPT_LENGTH) -> str:
    """Return the beginning of a text, on one line."""
    return _shortened(" ".join(text[: 20 * length].split()), length)


def _problems(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        excerpt(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}".removeprefix(": "), _PROBLEM_LENGTH)
        for problem in found[:_PROBLEMS]
    ]
    more = f" (and {len(found) - _PROBLEMS} more)" if len(found) > _PROBLEMS else ""
    return "; ".join(shown) + more


def _beginning(text: str) -> tuple[str, ...]:
    """Say what a text begins with that is no JSON, if it does."""
    text = text.lstrip()
    if text.startswith("```"):
        return ("It is in a Markdown code fence: ask for bare JSON",)
    is_prose = text[:1].isprintable() and text and not _JSON_BEGINS.match(text)
    return ("It begins with prose: ask for bare JSON",) if is_prose else ()


def _shown(text: str) -> str:
    return f"The text ({len(text)} characters): {excerpt(text)}" if text else "There is no text"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
