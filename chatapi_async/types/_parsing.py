"""From JSON text that a model wrote to what it should be, or to the error that says why it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from ..errors import AnswerParseError

T = TypeVar("T")

# Taken together these stay below the length up to which a message is searched for a token that an excerpt cuts in half.
_PROBLEMS = 3
_PROBLEM_LENGTH = 150
_NAME_LENGTH = 60
_EXCERPT_LENGTH = 200


def parse_json(
    text: str, validate: Callable[[str], T], *, what: str, expected: str, circumstances: tuple[str, ...] = ()
) -> T:
    """Return what ``validate`` makes of ``text``.

    Args:
        text: the JSON text.
        validate: makes the result, or raises pydantic's error.
        what: what the text is, such as ``the answer``, for the message.
        expected: name of what it should be.
        circumstances: sentences on why it may not fit.

    Raises:
        AnswerParseError: the text is no JSON, or does not fit.
    """
    try:
        return validate(text)
    except ValidationError as error:
        made, of = (_shortened(name, _NAME_LENGTH) for name in (expected, what))
        sentences = (f"cannot make a {made} of {of}: {_problems(error)}", *circumstances, _shown(text))
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


def _shown(text: str) -> str:
    return f"The text ({len(text)} characters): {excerpt(text)}" if text else "There is no text"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
