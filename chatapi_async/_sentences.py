"""Text in, whole sentences out as they complete, however the text is cut into pieces. No I/O.

A sentence is complete when what follows shows it: white space and the next character, or after a full-width mark the
next character alone. Whether it is the end of a sentence or that of an abbreviation, ``sentencex`` is asked. A newline
ends a sentence too, since models do not wrap lines; a list marker alone is no sentence, and goes to what follows it.
Inline code is not cut, except by a newline, and an emoji behind a sentence belongs to it. A fenced code block is one
unit with its fence lines, so that a caller can tell it by its beginning and leave it out.

An end is judged by one character after it and a bounded number before it, so the work is linear in the text, however
long a sentence is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ._splitting import Fence, extra

_CONTEXT: Final = 200
_NARROW: Final = ".!?…‥؟۔।॥։᙮᠃။៕"
_WIDE: Final = "。！？｡．"
_CLOSING: Final = ")]}\"'”’“‘»«›‹*_`~"
_OPENING: Final = "([{\"'“‘„«»‹›*_`~¿¡「『（［｛〈《【"
_OPENED: Final = re.compile(rf"(?<!\w)[{re.escape(_OPENING)}]+")
_MARK_OR_NEWLINE: Final = re.compile(rf"[\n{_NARROW}{_WIDE}]")
_BEHIND_NARROW: Final = re.compile(rf"[{re.escape(_NARROW + _CLOSING)}]*")
_BEHIND_WIDE: Final = re.compile(rf"[{re.escape(_NARROW + _WIDE)})\]}}\"'”’」』）］｝〉》】〕〗〙〛｣*_`~]*")
_EMOJI: Final = "\u2600-\u27bf\u2b50\u2b55\ufe0f\u200d\U0001f000-\U0001faff\U000e0020-\U000e007f"
_BEHIND_EMOJI: Final = re.compile(rf"[{_EMOJI}{re.escape(_CLOSING)}]*")
_ONE_EMOJI: Final = re.compile(f"[{_EMOJI}]")
_PAIRED: Final = re.compile("`+|[«»]")
_GAP: Final = re.compile(r"[^\S\n]*")
_SPACE: Final = re.compile(r"\s")  # sentencex panics where one of several bytes is behind an initial
_HALF: Final = re.compile("[\ud800-\udfff]")
_LIST_MARKERS: Final = re.compile(
    r"(?:\s*(?:[-+*•–—>]|#{1,6}|\[[ xX]?\]|[*_]{0,3}\(?(?:\d{1,9}|[A-Za-z])[.)][*_]{0,3})(?!\S))+\s*"
)
_ORDINAL: Final = re.compile(r"(?<!\S)\d{1,2}\.\Z")
_ABBREVIATION: Final = re.compile(r"(?<!\w)(?:[Aa]pprox|[Ee]qs?)\.\Z")  # some that sentencex does not know
_CLOSING_BRACKET: Final = re.compile("[」』]\\Z")  # what is quoted so goes on: 「…」と言った
_WITH_ORDINALS: Final = frozenset(
    ("cs", "da", "de", "et", "fi", "hr", "hu", "is", "lb", "lv", "nb", "nn", "no", "pl", "sk", "sl", "sr", "tr")
)
_MAY_OPEN_FENCE: Final = re.compile(r"\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)*(?:```|~~~)")


class SentenceSplitter:
    """Finds the sentences of a text that is still growing.

    Args:
        language: code of the text's language, such as ``"de"`` or ``"de-AT"``, for its abbreviations. Where it writes
            ordinals as ``3.``, a number of one or two digits ends no sentence.

    Raises:
        ConfigurationError: the extra ``bots`` is not installed.
    """

    def __init__(self, language: str = "en") -> None:
        self._segment: Any = extra("sentencex").segment
        self._language = re.split("[-_]", language.lower())[0]
        self._markers: list[str] = []
        self._sentence: list[str] = []
        self._gap: list[str] = []
        self._behind: re.Pattern[str] | None = None
        self._line_has_ended_one = False
        self._looked_at = 0
        self._open_code = ""
        self._open_quote = ""
        self._fence: Fence | None = None
        self._code_line: list[str] = []

    def add(self, text: str) -> list[str]:
        """Append ``text``, of any length and cut anywhere, and return the sentences that it completes."""
        sentences: list[str] = []
        position = 0
        while position < len(text):
            if self._fence:
                position = self._read_code(self._fence, text, position, sentences)
            elif self._behind is None:
                position = self._read_text(text, position, sentences)
            else:
                position = self._read_end(self._behind, text, position, sentences)
        return sentences

    def rest(self) -> str:
        """Return what no sentence has taken yet: the last sentence, once the text is at its end."""
        return "".join([*self._markers, *self._sentence, *self._gap]).strip()

    def _read_text(self, text: str, position: int, sentences: list[str]) -> int:
        found = _MARK_OR_NEWLINE.search(text, position)
        end = found.end() if found else len(text)
        self._sentence.append(text[position:end])
        if found and found[0] != "\n":
            self._behind = _BEHIND_WIDE if found[0] in _WIDE else _BEHIND_NARROW
        elif found:
            self._end_line(sentences)
        return end

    def _read_end(self, behind: re.Pattern[str], text: str, position: int, sentences: list[str]) -> int:
        if not self._gap:
            closing = _matched(behind, text, position)
            self._sentence.append(closing)
            position += len(closing)
        gap = _matched(_GAP, text, position)
        position += len(gap)
        if gap:
            self._gap.append(gap)
        if position < len(text):
            self._look()
            following = text[position]
            ends = following != "\n" and self._ends_before(following)
            if ends and _ONE_EMOJI.match(following):
                self._behind = _BEHIND_EMOJI
            elif not (self._gap and following == "»" and self._open_quote == "«"):
                if ends:
                    self._take(sentences)
                    self._line_has_ended_one = True
                self._behind = None
            self._sentence += self._gap
            self._gap.clear()
        return position

    def _look(self) -> None:
        """Note whether inline code is open, and which guillemet: that of French, or that of German, the reverse."""
        for mark in _PAIRED.findall("".join(self._sentence[self._looked_at :])):
            if mark[0] == "`":
                self._open_code = "" if mark == self._open_code else self._open_code or mark
            elif not self._open_code:
                self._open_quote = mark if self._open_quote in ("", mark) else ""
        self._looked_at = len(self._sentence)

    def _read_code(self, fence: Fence, text: str, position: int, sentences: list[str]) -> int:
        newline = text.find("\n", position)
        end = newline + 1 if newline >= 0 else len(text)
        self._sentence.append(text[position:end])
        self._code_line.append(text[position:end])
        if newline >= 0:
            if fence.closed_by("".join(self._code_line)):
                self._fence = None
                self._take(sentences)
            self._code_line.clear()
        return end

    def _end_line(self, sentences: list[str]) -> None:
        whole = not self._line_has_ended_one
        self._line_has_ended_one = False
        self._looked_at = 0
        self._open_code = self._open_quote = ""
        line = "".join(self._sentence)
        self._fence = Fence.opened_by(line.removesuffix("\n")) if whole else None
        if self._fence:
            return
        if _LIST_MARKERS.fullmatch(line):
            self._markers.append(f"{line.strip()} ")
            self._sentence.clear()
        else:
            self._take(sentences)

    def _take(self, sentences: list[str]) -> None:
        if sentence := "".join(self._sentence).strip():
            sentences.append("".join(self._markers) + sentence)
            self._markers.clear()
        self._sentence.clear()
        self._looked_at = 0
        self._gap.clear()

    def _ends_before(self, following: str) -> bool:
        if self._open_code or following in _NARROW or not (self._gap or self._behind is not _BEHIND_NARROW):
            return False
        if self._behind is _BEHIND_EMOJI:
            return True
        before = "".join(reversed(list(self._last_pieces())))
        if len(before) <= _CONTEXT:
            starts_code = not self._line_has_ended_one and _MAY_OPEN_FENCE.match(before)
            if starts_code or _LIST_MARKERS.fullmatch(before):
                return False
        before = before[-_CONTEXT:]
        if self._language in _WITH_ORDINALS and _ORDINAL.search(before):
            return False
        if _ABBREVIATION.search(before) or (_CLOSING_BRACKET.search(before) and following in "とっ"):
            return False
        # Quotation marks, brackets and emphasis hide from sentencex that a sentence ends before or begins behind them.
        bare = before.rstrip(_CLOSING).rstrip()
        if bare == before:
            bare = _OPENED.sub(" ", before)  # and that a word is an abbreviation
        elif following.islower():
            return False
        # One letter alone would be taken for an initial or a numeral, and "An" or "In" ends even an abbreviation.
        following = "Ax" if following in _OPENING else f"{following}x" if following.isalpha() else following
        asked = _HALF.sub("\ufffd", _SPACE.sub(" ", bare) + (" " if self._gap else "") + following)
        segments: list[str] = self._segment(self._language, asked)
        return len(segments) > 1 and segments[-1] == asked[-len(following) :]

    def _last_pieces(self) -> Iterator[str]:
        length = 0
        for piece in reversed(self._sentence):
            yield piece[-_CONTEXT - 1 :]
            length += len(piece)
            if length > _CONTEXT:
                return


def _matched(pattern: re.Pattern[str], text: str, position: int) -> str:
    found = pattern.match(text, position)
    return found[0] if found else ""
