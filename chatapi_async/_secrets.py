"""Keeps the tokens of a call out of what may be shown by accident: printed, logged, or sent to an error tracker."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

from ._json import is_array, is_object
from .errors import ChatAPIError

T = TypeVar("T")

REMOVED: Final = "[removed]"
"""In the place of a header's value that holds a secret."""
MARK: Final = b"[token]"

_LONG: Final = 16
_SHORTEST_BEGINNING: Final = 4
_LONG_BEGINNING: Final = 8
_LONGEST_ESCAPE: Final = len(r"\u3000")
_LONGEST_MESSAGE: Final = 1024
_CUT_BODY: Final = 60_000
# What is left as it is: by most languages, by Python, and by JavaScript.
_SAFE_IN_URLS: Final = ("", "/", "!'()*")
# Where JSON is to be safe in HTML: by Go, by Python, and by .NET.
_ESCAPED_IN_JSON: Final = ("&<>", "&'<>", "&'+<>")
# The last letter or digit of an escape, of JSON or of a URL, is none of the word after it.
_WORD_BEGINS: Final = ("(?<![^\\W_]", r"(?<=\\[bfnrt]", r"(?<=\\u[0-9A-Fa-f]{4}", "(?<=%[0-9A-Fa-f]{2}")
_SECRET_WORDS: Final = frozenset(
    {
        *("apikey", "auth", "authorization", "cookie", "credential", "credentials", "jwt", "key", "password"),
        *("secret", "session", "signature", "token"),
    }
)


class SecretHeaders(dict[str, str]):
    """Headers of a request, which show their names alone: error trackers send the variables of every frame."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"


class Secrets:
    """The tokens that one call has sent, to be taken out of the errors in which a server repeats them."""

    def __init__(self) -> None:
        self._tokens: set[str] = set()

    def add(self, authorization: str) -> None:
        """Remember an ``Authorization`` header: what follows the name of its scheme, and the last word of that."""
        _, *rest = authorization.split(maxsplit=1)
        self._tokens |= {*rest, authorization.split()[-1]}

    def concealed(self, text: str) -> str:
        """Return the text with ``[token]`` in the place of every token."""
        return str(_Concealment(self._tokens).concealed(text)) if self._tokens else text

    def for_recording(self) -> RecordingSecrets:
        """Return what takes the tokens that were sent so far out of what is recorded."""
        return RecordingSecrets({token for token in self._tokens if len(token) >= _SHORTEST_BEGINNING})

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


class RecordingSecrets:
    """Takes tokens of at least 4 characters out of what is recorded; a shorter one is a word, and no secret."""

    def __init__(self, tokens: set[str]) -> None:
        self._tokens = tokens
        self._concealment = _Concealment(tokens) if tokens else None

    def without(self, value: T) -> T:
        """Return parsed JSON, which is changed in place, with ``[token]`` in the place of every token in its texts."""
        root: dict[str, Any] = {"": value}
        if self._concealment is not None:
            self._concealment.conceal_within(root)
        return cast(T, root[""])

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return headers, with ``[removed]`` in the place of those that hold secrets."""
        return {
            self.without(name).replace("[token]", "token"): REMOVED if holds_secret(name) else self.without(value)
            for name, value in headers.items()
        }

    def pieces(self) -> PieceConcealment:
        """Return what takes the tokens out of one body that comes in pieces."""
        return PieceConcealment(self._tokens)


class PieceConcealment:
    """Takes tokens out of bytes that come in pieces, where one is cut between two pieces too.

    A piece is held back only while its end may be the beginning of a token.
    """

    def __init__(self, tokens: set[str]) -> None:
        forms = _forms(tokens)
        self._forms = [form.encode() for form in forms]
        self._pattern = re.compile("|".join(map(_as_pattern, forms)).encode()) if forms else None
        self._held: list[bytes] = []
        self._found: list[tuple[int, int]] = []
        """Where tokens are in what is held."""
        self._clear = 0
        """How many bytes of what is held have been looked at."""
        self._before = b""
        """The last bytes of what was released, since a short token does not begin within a word."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the pieces that are certain now, oldest first: as many as were fed, in the end."""
        self._held.append(piece)
        text = b"".join((self._before, *self._held))
        at, begun = len(self._before) + self._clear, -1
        while self._pattern is not None:
            if begun < at:
                begun = self._begun(text, at)
            match = self._pattern.search(text, at)
            if match is None or match.start() >= begun:
                break
            self._add(match.span())
            at = match.end()
        return self._release(text, len(text) if begun < 0 else begun)

    def close(self) -> list[bytes]:
        """Return the pieces that are held, at the end of the body."""
        text = b"".join((self._before, *self._held))
        at = len(self._before) + self._clear
        if self._pattern is not None:
            for match in self._pattern.finditer(text, at):
                self._add(match.span())
                at = match.end()
        begun = self._begun(text, at)
        if len(text) - begun >= _SHORTEST_BEGINNING:
            self._add((begun, len(text)))
        return self._release(text, len(text))

    def _add(self, span: tuple[int, int]) -> None:
        self._found.append((span[0] - len(self._before), span[1] - len(self._before)))

    def _begun(self, text: bytes, at: int) -> int:
        """Return where, after ``at``, a token may begin that ends after the text; the text's length for nowhere."""
        earliest = len(text)
        for form in self._forms:
            # Only what follows tells whether a short one is a word of its own.
            longest = len(form) - (len(form) >= _LONG)
            start = text.find(form[:1], max(at, len(text) - longest), earliest)
            while start >= 0:
                if form.startswith(text[start:]):
                    earliest = start
                    break
                start = text.find(form[:1], start + 1, earliest)
        return earliest

    def _release(self, text: bytes, begun: int) -> list[bytes]:
        """Let go of the pieces that end before ``begun``, without the tokens in them."""
        begun -= len(self._before)
        released: list[bytes] = []
        start = 0
        for piece in self._held:
            end = start + len(piece)
            if end > begun:
                break
            released.append(_without(piece, [(first - start, last - start) for first, last in self._found]))
            start = end
        del self._held[: len(released)]
        self._found = [(first - start, last - start) for first, last in self._found if last > start]
        self._clear = begun - start
        self._before = text[: len(self._before) + start][-_LONGEST_ESCAPE:]
        return released


def holds_secret(header: str) -> bool:
    """Tell whether a header of that name is one that holds a secret."""
    return not _SECRET_WORDS.isdisjoint(re.split("[-_]", header.lower()))


def _without(piece: bytes, found: list[tuple[int, int]]) -> bytes:
    """Return a piece, with a mark where a token begins in it, and nothing where one goes on."""
    parts: list[bytes] = []
    at = 0
    for first, last in found:
        if last > 0 and first < len(piece):
            if first >= 0:
                parts += (piece[at:first], MARK)
            at = min(last, len(piece))
    return b"".join((*parts, piece[at:]))


class _Concealment:
    """What is to be taken out, in each form in which it may be repeated."""

    def __init__(self, tokens: set[str]) -> None:
        self._tokens = tokens
        # As in bytes, only ASCII makes words: a token may stand among those of a language without spaces.
        self._pattern = re.compile("|".join(map(_as_pattern, _forms(tokens))), re.ASCII)

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
            return self._without_beginning(self._without_long_beginnings(self._pattern.sub("[token]", value)))
        if isinstance(value, Mapping):
            headers = cast(Mapping[str, str], value)
            kind: Any = type(headers)
            return kind({name: self.concealed(each) for name, each in headers.items()})
        return value

    def _without_long_beginnings(self, text: str) -> str:
        """Take out beginnings of long tokens, wherever: a body may end within one, and be quoted in an error."""
        for token in self._tokens:
            at = text.find(token[:_LONG_BEGINNING]) if len(token) >= _LONG else -1
            while at >= 0:
                length = _LONG_BEGINNING
                while length < len(token) and text.startswith(token[length], at + length):
                    length += 1
                text = f"{text[:at]}[token]{text[at + length :]}"
                at = text.find(token[:_LONG_BEGINNING], at + len("[token]"))
        return text

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


def _forms(tokens: set[str]) -> list[str]:
    """Return how tokens are written: plainly, in a URL, and in JSON; the longest first."""
    forms: set[str] = set()
    for token in tokens:
        in_json = json.dumps(token)[1:-1]
        forms |= {token, in_json, in_json.replace("/", r"\/")}
        for safe in _SAFE_IN_URLS:
            in_url = quote(token, safe=safe)
            forms |= {in_url, re.sub("%..", lambda escape: escape.group().lower(), in_url)}
        for escaped in _ESCAPED_IN_JSON:
            for digits in ("04x", "04X"):
                forms.add(in_json.translate({ord(each): f"\\u{ord(each):{digits}}" for each in escaped}))
    return sorted(forms, key=len, reverse=True)


def _as_pattern(token: str) -> str:
    escaped = re.escape(token)
    if len(token) >= _LONG:
        return escaped
    # A short one, as for tests, may be a word, and be part of others. A pattern that begins with letters is found fast.
    return rf"{escaped}(?![^\W_])(?:{'|'.join(f'{before}{escaped})' for before in _WORD_BEGINS)})"
