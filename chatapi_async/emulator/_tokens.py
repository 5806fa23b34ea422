"""Text as the built-in model sees it: token-like pieces, short quotations, and the words that carry meaning. No I/O."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise

from ._language import STOP_WORDS

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff々"
_KANA = "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_HANGUL = "\uac00-\ud7a3"
_DENSE = _HAN + _KANA + _HANGUL

_PIECE = re.compile(
    rf" ?[\U0001f1e6-\U0001f1ff]{{2}}| ?[{_DENSE}]{{1,2}}| ?[^\W{_DENSE}]{{1,8}}| ?[^\w\s]|\s+",
)
_WORD = re.compile(rf"[^\W\d_{_DENSE}]{{3,}}")
_DENSE_RUN = re.compile(rf"[{_HAN}]+|[\u30a1-\u30ff]+|[{_HANGUL}]+")

_JOINER = "\u200d"
_VIRAMA = 9
_SPACING = "\u0e33\u0eb3\uff9e\uff9f"
_LONGEST_QUOTED = 400


def _continues(before: str, piece: str) -> bool:
    """Whether a reader sees the start of ``piece`` and the end of ``before`` as one character."""
    first, last = piece[0], before[-1]
    return (
        last == _JOINER
        or first == _JOINER
        or first in _SPACING
        or "\U0001f3fb" <= first <= "\U0001f3ff"
        or "\U000e0020" <= first <= "\U000e007f"
        or ("\u1100" <= last <= "\u11ff" and "\u1160" <= first <= "\u11ff")
        or unicodedata.category(first)[0] == "M"
        or unicodedata.combining(last) == _VIRAMA
    )


def pieces(text: str) -> list[str]:
    """Split ``text`` into pieces the size of a model's tokens; ``"".join(pieces(text)) == text``.

    A piece is a word with the space before it (long words in parts), a punctuation mark, a run of white space, or one
    or two characters of Chinese, Japanese or Korean. What a reader sees as one character (an emoji with its modifiers,
    a letter with its accents) is never divided.
    """
    result: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if result and _continues(result[-1], piece):
            result[-1] += piece
        else:
            result.append(piece)
    return result


def excerpt(text: str, limit: int) -> str:
    """Return ``text`` on one line, shortened to ``limit`` pieces, with an ellipsis where something was left out."""
    line = " ".join(text[:_LONGEST_QUOTED].split())
    found = pieces(line)
    if len(found) <= limit and len(text) <= _LONGEST_QUOTED:
        return line
    return "".join(found[:limit]).rstrip() + "…"


def terms(text: str) -> list[str]:
    """Return what ``text`` is about, in its order: its words but the most common ones, and pairs of CJK characters."""
    words = (word.casefold() for word in _WORD.findall(text))
    found = [word.removesuffix("s") for word in words if word not in STOP_WORDS]
    for run in _DENSE_RUN.findall(text):
        found += ("".join(pair) for pair in pairwise(run))
    return found


def topic(text: str) -> str:
    """Return the longest word of ``text`` that carries meaning, as it is written there; ``""`` where there is none."""
    words = [word for word in _WORD.findall(text) if word.casefold() not in STOP_WORDS]
    return max([*_DENSE_RUN.findall(text), *words], key=len, default="")
