"""Keeps the tokens of a call out of what may be shown by accident: printed, logged, or sent to an error tracker."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from ._json import is_array, is_object
from .errors import ChatAPIError

_LONG: Final = 16
_SHORTEST_BEGINNING: Final = 4
_LONGEST_MESSAGE: Final = 1024
_CUT_BODY: Final = 60_000


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

    def concealed(self, text: str) -> str:
        """Return the text with ``[token]`` in the place of every token."""
        return str(_Concealment(self._tokens).concealed(text)) if self._tokens else text

    def conceal(self, error: ChatAPIError) -> None:
        """Put ``[token]`` in the place of every token in what the error says, in its attributes, and in its causes."""
        if not self._tokens:
            return
        concealment = _Concealment(self._tokens)
        concealment.conceal_within(vars(error))
        cause: BaseException | None = error
        while cause is not None:
            args = tuple(concealment.concealed(each) for each in cause.args)
            if args != cause.args:
                cause.args = args
            cause = cause.__cause__ or cause.__context__


class _Concealment:
    """What is to be taken out, in each form in which it may be repeated."""

    def __init__(self, tokens: set[str]) -> None:
        self._tokens = tokens
        forms = {form for token in tokens for form in (token, quote(token, safe=""), json.dumps(token)[1:-1])}
        self._pattern = re.compile("|".join(map(_as_pattern, sorted(forms, key=len, reverse=True))))

    def conceal_within(self, root: dict[str, Any]) -> None:
        # Without recursion, since a server can nest as deeply as it likes.
        left: list[Any] = [root]
        while left:
            container = left.pop()
            items: Any = container.items() if is_object(container) else enumerate(container)
            for place, value in list(items):
                if is_object(value) or is_array(value):
                    left.append(value)
                else:
                    container[place] = self.concealed(value)
                if (name := self.concealed(place)) != place:
                    container[name] = container.pop(place)

    def concealed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._without_beginning(self._pattern.sub("[token]", value))
        if isinstance(value, Mapping):
            headers = cast(Mapping[str, str], value)
            kind: Any = type(headers)
            return kind({name: self.concealed(each) for name, each in headers.items()})
        return value

    def _without_beginning(self, text: str) -> str:
        """Take out the beginning of a token, where the text is an excerpt that ends within it."""
        if len(text) > _CUT_BODY:
            return self._ending_before(text)
        if "…" in text and len(text) <= _LONGEST_MESSAGE:
            return "…".join([*map(self._ending_before, text.split("…")[:-1]), text.rpartition("…")[2]])
        return text

    def _ending_before(self, text: str) -> str:
        for token in self._tokens:
            beginning = token[:_SHORTEST_BEGINNING]
            at = text.find(beginning, max(0, len(text) - len(token) + 1))
            while at >= 0:
                if token.startswith(text[at:]):
                    return f"{text[:at]}[token]"
                at = text.find(beginning, at + 1)
        return text


def _as_pattern(token: str) -> str:
    # A short one, as for tests, may be a word, and be part of others.
    return re.escape(token) if len(token) >= _LONG else rf"(?<![^\W_]){re.escape(token)}(?![^\W_])"
