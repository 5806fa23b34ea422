"""Keeps the tokens of a call out of what may be shown by accident: printed, logged, or sent to an error tracker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from .errors import ChatAPIError

_SHORTEST_BEGINNING: Final = 4


class SecretHeaders(dict[str, str]):
    """Headers of a request, which show their names alone: error trackers send the variables of every frame."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


class Secrets:
    """The tokens that one call has sent, to be taken out of the errors in which a server repeats them."""

    def __init__(self) -> None:
        self._tokens: set[str] = set()

    def add(self, authorization: str) -> None:
        """Remember an ``Authorization`` header, and the token that is its last word."""
        self._tokens |= {authorization, authorization.split(" ")[-1]}

    def conceal(self, error: ChatAPIError) -> None:
        """Put ``[token]`` in the place of every token in the error's message and attributes."""
        error.args = tuple(self._concealed(each) for each in error.args)
        vars(error).update({name: self._concealed(value) for name, value in vars(error).items()})

    def _concealed(self, value: Any) -> Any:
        if isinstance(value, str):
            for token in sorted(self._tokens, key=len, reverse=True):
                value = _without(value, token)
            return value
        if isinstance(value, list):
            return [self._concealed(each) for each in cast(list[object], value)]
        if isinstance(value, Mapping):
            fields = cast(Mapping[str, object], value)
            kind: Any = type(fields)
            return kind({self._concealed(key): self._concealed(each) for key, each in fields.items()})
        return value


def _without(text: str, token: str) -> str:
    if token in text:
        # A token for tests may be a short word, and be part of others.
        text = re.sub(rf"(?<![^\W_]){re.escape(token)}(?![^\W_])", "[token]", text)
    # An excerpt may end within a token.
    for length in range(len(token) - 1, _SHORTEST_BEGINNING - 1, -1):
        if (beginning := f"{token[:length]}…") in text:
            return text.replace(beginning, "[token]…")
    return text
