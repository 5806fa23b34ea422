"""What a person configured and where it came from, and the judgement of it. Pure; no token is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final

from chatapi_async._configuration import (
    DEFAULT_BASE_URL,
    Credentials,
    chatroom_segment,
    checked_base_url,
    checked_header,
    is_exposed,
)
from chatapi_async._secrets import Secrets
from chatapi_async.errors import ConfigurationError

from ._findings import Finding
from ._oddities import Oddity, oddity_of, oddity_of_address, oddity_of_operator, oddity_of_token

_READ: Final = ("CHATAPI_BASE_URL", "CHATAPI_OPERATOR_ID", "CHATAPI_TOKEN")
_SHOWABLE_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_NOT_READ = "A variable counts once it is exported in this shell; a .env file is not read by itself."


@dataclass(frozen=True, slots=True)
class Value:
    """A value, and where it came from."""

    text: str = field(repr=False)
    """``""`` where it is not given."""

    origin: str
    """An option or an environment variable; ``"the default"``; or the variable that could give it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server is asked with: the same values, from the same places, as those of a client without arguments."""

    base_url: Value
    operator_id: Value
    token: Value
    room: str | None = None
    """A chatroom's id; None for none."""

    model: str | None = None
    """None for the server's default."""

    neighbours: tuple[str, ...] = ()
    """Environment variables that are set, and not read, but have a similar name."""

    @classmethod
    def of(
        cls,
        environment: Mapping[str, str],
        *,
        base_url: str | None = None,
        operator_id: str | None = None,
        room: str | None = None,
        model: str | None = None,
    ) -> Settings:
        """Read the settings.

        Args:
            environment: the environment variables.
            base_url: what the option says, which goes before the environment, like the others.
            operator_id: ″
            room: ″
            model: ″
        """
        return cls(
            _value(base_url, "--base-url", environment, "CHATAPI_BASE_URL", default=DEFAULT_BASE_URL),
            _value(operator_id, "--operator-id", environment, "CHATAPI_OPERATOR_ID"),
            _value(None, "", environment, "CHATAPI_TOKEN"),
            room,
            model,
            _neighbours(environment),
        )

    @property
    def url(self) -> str:
        """The checked base URL, without a slash at its end.

        Raises:
            ConfigurationError: it cannot be used.
        """
        return checked_base_url(self.base_url.text)

    def shown(self, text: str) -> str:
        """Return what may be shown of a text that could hold the token: all but that."""
        secrets = Secrets()
        if self.token.text:
            secrets.add(self.token.text.strip())
        return secrets.concealed(text)

    def described(self) -> dict[str, str]:
        """Return what is asked with, in words, for a report."""
        return {
            "operator id": self._operator_in_words(),
            "token": self._token_in_words(),
            "model": self.shown(self.model) if self.model else "the server's default",
            "chatroom": self.shown(self.room) if self.room else "none",
        }

    def _operator_in_words(self) -> str:
        text, origin = self.operator_id.text, self.operator_id.origin
        if not text:
            return "not set"
        # The two are easily swapped, and then this is the token.
        if _SHOWABLE_ID.fullmatch(text) and (text.startswith("tn_") or not self.token.text.startswith("tn_")):
            return f"{self.shown(text)} (from {origin})"
        return f"set, {len(text)} characters (from {origin})"

    def _token_in_words(self) -> str:
        text, origin = self.token.text, self.token.origin
        return f"set, {len(text)} characters, not shown (from {origin})" if text else "not set"


def judge_address(settings: Settings) -> Finding:
    """Judge the base URL."""
    value = settings.base_url
    odd = oddity_of_address(value.text, value.origin)
    try:
        url = settings.url
    except ConfigurationError as error:
        words, advice = odd or Oddity("cannot be used", "")
        advice = advice or f"Mend {value.origin}: it should look like https://api.example.com."
        return Finding("base URL", "fail", f"the base URL, from {value.origin}, {words}: {error}", advice)
    shown = f"{settings.shown(url)}, from {value.origin}"
    if odd:
        return Finding("base URL", "note", f"{shown}: it {odd.words}", odd.advice, suspect=True)
    if value.origin == "the default":
        advice = f"Set CHATAPI_BASE_URL, or give --base-url, if the service is elsewhere. {_NOT_READ}"
        words = f"{url}, the default, since no other is given{_beside(settings)}"
        return Finding("base URL", "note", words, advice, suspect=True)
    if is_exposed(url):
        advice = "Use https:// in the base URL: over plain http, everybody on the way can read the token."
        return Finding("base URL", "note", f"{shown}: it is plain http to another machine", advice)
    return Finding("base URL", "ok", shown)


def judge_credentials(settings: Settings, *, now: float) -> Finding:
    """Judge operator id, token, chatroom and model.

    Args:
        settings: the settings.
        now: the time of day in seconds since 1970.
    """
    operator, token = settings.operator_id, settings.token
    missing = [(name, value) for name, value in (("operator id", operator), ("token", token)) if not value.text]
    if missing:
        names = " and no ".join(name for name, _ in missing)
        variables = " and ".join(value.origin for _, value in missing)
        unset = "is not set" if len(missing) == 1 else "are not set"
        words = f"there is no {names}: {variables} {unset}{_beside(settings)}"
        return Finding("credentials", "fail", words, f"Set {variables}. {_NOT_READ}")
    odd = _first_oddity(settings, now=now)
    refused = _refusal(settings)
    if refused:
        advice = odd[1].advice if odd else "Give it as the service shows it, with nothing around it, on one line."
        words = f"the {odd[0]} {odd[1].words}: it cannot be sent" if odd else settings.shown(refused)
        return Finding("credentials", "fail", words, advice)
    if odd:
        return Finding("credentials", "note", f"the {odd[0]} {odd[1].words}", odd[1].advice, suspect=True)
    return Finding("credentials", "ok", "operator id and token are set, and can be sent")


def _first_oddity(settings: Settings, *, now: float) -> tuple[str, Oddity] | None:
    operator, token = settings.operator_id, settings.token
    found = (
        ("token", oddity_of_token(token.text, token.origin, operator_id=operator.text, now=now)),
        ("operator id", oddity_of_operator(operator.text, operator.origin)),
        ("chatroom", oddity_of(settings.room, "--room") if settings.room else None),
        ("model", oddity_of(settings.model, "--model") if settings.model else None),
    )
    return next(((name, odd) for name, odd in found if odd), None)


def _refusal(settings: Settings) -> str:
    """Return why the library would refuse to send these values, ``""`` where it would not."""
    try:
        Credentials.of(token=settings.token.text, authorization=None)
        checked_header("x-operator-id", settings.operator_id.text)
        if settings.room is not None:
            chatroom_segment(settings.room)
    except ConfigurationError as error:
        return str(error)
    return ""


def _value(
    option: str | None, option_name: str, environment: Mapping[str, str], variable: str, default: str = ""
) -> Value:
    if option:
        return Value(option, option_name)
    if text := environment.get(variable):
        return Value(text, variable)
    return Value(default, "the default" if default else variable)


def _neighbours(environment: Mapping[str, str]) -> tuple[str, ...]:
    def similar(name: str) -> bool:
        upper = name.upper()
        ours = upper.startswith(("CHATAPI", "CHAT_API")) or bool(get_close_matches(upper, _READ, cutoff=0.85))
        return ours and name not in _READ

    return tuple(sorted(filter(similar, environment)))


def _beside(settings: Settings) -> str:
    names = settings.neighbours[:5]
    return f"; set, but not read: {', '.join(names)}" if names else ""
