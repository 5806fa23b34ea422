"""Text in, parts out that fit a platform's limit, however the text is cut into pieces. No I/O.

What fits is never cut. Otherwise a part ends at the last paragraph, else line, else sentence, else word that fits. A
boundary in the first quarter of what fits is passed over, since it would leave a tiny part; the end of a word there is
still better than a cut inside one. Text without spaces is cut after its punctuation, and closing punctuation does not
begin a part. A grapheme cluster is cut only where it is larger than the limit by itself: then between code points.
White space at a cut is dropped, except the indentation of code.

A code fence that a cut leaves open is closed there and opened again in the next part; these lines count. One that began
in the second half of a part, or without room for code there, moves to the next part as a whole. Where the fence lines
would take more than half the limit, the block is cut like plain text. Fences are found at any indentation and after
list markers, as chats do; not in block quotes.

Each decision depends only on the text up to and with the first character that does not fit.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple

from .errors import ConfigurationError

DISCORD_LIMIT: Final = 2000
"""Code points of a Discord message (https://discord.com/developers/docs/resources/message#create-message, ``content``;
the unit is Discord's own answer in https://github.com/discord/discord-api-docs/issues/1315)."""

TELEGRAM_LIMIT: Final = 4096
"""UTF-16 units of a Telegram message: pass ``measure=utf16_units`` (https://core.telegram.org/bots/api#sendmessage,
``text``, after entities parsing. The page says characters; it holds whichever unit is meant)."""

SLACK_LIMIT: Final = 40_000
"""Characters that Slack keeps of a message (https://docs.slack.dev/reference/methods/chat.postMessage, ``text``).
The unit is not named: ``measure=utf16_units`` is safe. Slack advises 4000; ``chat.update`` takes no more than that."""

LINE_LIMIT: Final = 5000
"""UTF-16 units of a LINE message: pass ``measure=utf16_units`` (the number:
https://developers.line.biz/en/reference/messaging-api/#text-message, the unit:
https://developers.line.biz/en/docs/messaging-api/text-character-count)."""

_OPENING: Final = "「『（［｛〈《【〔〖〘〚｢“‘„«‹([{"
_WIDE: Final = "、。，．：；？！｡､…‥」』）］｝〉》】〕〗〙〛｣"
_CLOSING: Final = _WIDE + "・･”’»›)]},.:;?!"
_NOT_CLOSING: Final = f"(?![{re.escape(_CLOSING)}])"
_SPACE: Final = r"[^\S\u00a0\u2007\u202f]"
_NO_FENCE: Final = r"(?![`~]{3}|[`~]+\Z)"
_IN_LINE: Final = re.compile(
    r"\A\s*(?:(?:[-*+>•]|#{1,6}|\d{1,9}[.)])\s+)+"  # a list marker stays with what follows it
    rf"|(?P<end>(?<![.!?…؟۔।॥])[.!?…؟۔।॥]++[)\]\"'”’»*_`]*+)?(?<!{_SPACE})(?P<space>{_SPACE}++){_NOT_CLOSING}{_NO_FENCE}"
    rf"|(?<![{_WIDE}])(?P<wide>[{_WIDE}]++[”’]*+)(?![\s\"']){_NOT_CLOSING}{_NO_FENCE}"
)
_PARAGRAPH, _LINE, _SENTENCE, _WORD = range(4)
_ENDS_WIDE: Final = re.compile("[。！？｡]")
_LINE_AND_EMPTY_ONES: Final = re.compile(r"(?:[^\n]+|\A)\n*")
_FENCE: Final = re.compile(r"\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)*(?P<marks>`{3,}+(?=[^`]*\Z)|~{3,}+)(?P<info>(?s:.*))")


def utf16_units(text: str) -> int:
    """Return the number of UTF-16 code units of ``text``, as Telegram, LINE and JavaScript count."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def split_message(text: str, limit: int, *, measure: Callable[[str], int] = len) -> list[str]:
    """Return ``text`` in parts that fit ``limit``; none if there is nothing but white space.

    Apart from white space at cuts, and fence lines that were added, the parts joined are the text. A fence that is
    still open at the end of the text is closed, if that fits.

    Args:
        text: what to split, plain or Markdown.
        limit: the largest size of a part, such as ``DISCORD_LIMIT``.
        measure: gives the size of a text in the platform's units; it must not shrink as a text grows.

    Raises:
        ConfigurationError: the limit is no whole number above 0, or too small for a single character of the text;
            or ``measure`` gives no size, or one for an empty text; or the extra ``bots`` is not installed.
    """
    splitter = MessageSplitter(limit, measure=measure)
    splitter.add(text)
    return splitter.parts


class MessageSplitter:
    """Splits a text that is still growing. Its parts are at any time those of the text so far, by ``split_message``."""

    def __init__(self, limit: int, *, measure: Callable[[str], int] = len) -> None:
        if not _is_whole(limit) or limit < 1:
            raise ConfigurationError(f"limit must be a whole number, at least 1, such as DISCORD_LIMIT; not {limit!r}")
        if not _is_whole(size := measure("")) or not 0 <= size <= limit:
            raise ConfigurationError(f"measure must give 0 for an empty text, not {size!r}: pass one like utf16_units")
        _cluster_pattern()  # where the extra is missing, that is said before any text has come
        self._limit = limit
        self._measure = measure
        self._closed: list[str] = []
        self._added: list[str] = []
        self._text = ""
        self._fence: Fence | None = None

    def add(self, text: str) -> None:
        """Append ``text``, of any length and cut anywhere."""
        self._added.append(text)

    @property
    def parts(self) -> list[str]:
        """The parts: all but the last will not change any more, and the last is what it should show by now."""
        text, start = "".join([self._text, *self._added]), 0
        self._added.clear()
        try:
            while (window := self._overfull(text, start)) is not None:
                start += self._close(window)
        finally:
            self._text = text[start:]
        window = self._window(self._text)
        shown = window.shown(len(self._text))
        if shown and not window.closing(self._text.rstrip()):
            whole = window.prefix + self._text
            shown = whole if self._measure(whole) <= self._limit else shown
        return [*self._closed, shown] if shown else [*self._closed]

    def _overfull(self, text: str, start: int) -> _Window | None:
        """Return the open part up to and with the first character that does not fit; None where all of it fits."""
        length = self._limit + 1
        while True:
            window = self._window(text[start : start + length])
            # The size does not shrink as the text grows, not even where a closing line is about to be completed.
            sizes = range(len(window.text) + 1)
            fitting = bisect_right(sizes, self._limit, key=lambda end: self._measure(window.shown(end)))
            if fitting < len(sizes):
                return self._window(window.text[:fitting])
            if start + length >= len(text):
                return None
            length *= 2

    def _close(self, window: _Window) -> int:
        """Close a part, if there is anything in it, and return where the next one begins."""
        text, last = window.text, len(window.text) - 1
        blank = len(text) - len(text.lstrip())
        if last == blank == 0:
            if self._fence is None or not self._fence.line:
                raise ConfigurationError(f"limit is {self._limit}, too small even for {text!r}: pass a larger one")
            self._fence = self._fence._replace(line="")
            return 0
        if last == blank:
            return blank
        end, start = window.cut(blank)
        self._closed.append(window.shown(end))
        self._fence = window.line_at(start).fence
        return start

    def _window(self, text: str) -> _Window:
        return _Window(text, self._fence, self._reopened)

    def _reopened(self, fence: Fence) -> Fence:
        return fence if 2 * self._measure(f"{fence.line}\n\n{fence.marks}") <= self._limit else fence._replace(line="")


class Fence(NamedTuple):
    """An open code fence: what closes it, and the line that opens it again (``""`` where there is no room for that)."""

    marks: str
    line: str

    @classmethod
    def opened_by(cls, line: str) -> Fence | None:
        """Return the fence that ``line``, outside of any, opens."""
        found = _FENCE.match(line)
        return cls(found["marks"], (found["marks"] + found["info"]).rstrip()) if found else None

    def closed_by(self, line: str, *, unfinished: bool = False) -> bool:
        """Whether ``line`` closes it, or could once it is finished."""
        marks = line.strip()
        return not marks.strip(self.marks[0]) and (len(marks) >= len(self.marks) or (unfinished and bool(marks)))


def extra(module: str) -> Any:
    """Return a module of the extra ``bots``; a ConfigurationError says what to install where it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigurationError(f"this needs {module}: pip install 'chatapi-async[bots]'") from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int)


@cache
def _cluster_pattern() -> Any:
    # The halves of a surrogate pair stay together. Flags are taken as pairs: \X looks back over their run for each.
    flag = r"\p{RI}{2}(?![\p{GCB=Extend}\p{GCB=SpacingMark}\u200d])"
    return extra("regex").compile(rf"[\ud800-\udbff][\udc00-\udfff]|{flag}|\X")


class _Line(NamedTuple):
    start: int
    text: str
    fence: Fence | None  # open before this line
    is_fence: bool  # opens or closes one


class _Window:
    """The text of one part, or a little more than fits, by lines."""

    def __init__(self, text: str, fence: Fence | None, reopened: Callable[[Fence], Fence]) -> None:
        self.text = text
        self.prefix = f"{fence.line}\n" if fence and fence.line else ""
        self._lines: list[_Line] = []
        for found in _LINE_AND_EMPTY_ONES.finditer(text):
            start, line = found.start(), found[0].rstrip("\n")
            opened = None if fence else Fence.opened_by(line)
            closes = fence is not None and fence.closed_by(line, unfinished=start + len(line) == len(text))
            self._lines.append(_Line(start, line, fence, closes or opened is not None))
            if closes or opened:
                fence = opened and reopened(opened)

    def line_at(self, position: int) -> _Line:
        return self._lines[bisect_right(self._lines, position, key=lambda line: line.start) - 1]

    def shown(self, end: int) -> str:
        """Return the part that ends at ``end``, with its fence lines; ``""`` where it is white space only."""
        body = self.text[:end].rstrip()
        return self.prefix + body + self.closing(body) if body else ""

    def closing(self, body: str) -> str:
        """Return what closes the fence that ``body`` leaves open; the rest of the line where it has begun to itself."""
        line = self.line_at(len(body) - 1)
        if line.fence is None or not line.fence.line:
            return ""
        marks, tail = line.fence.marks, body[line.start :].lstrip()
        return marks[len(tail) :] if not tail.strip(marks[0]) else f"\n{marks}"

    def _begins_to_close(self, end: int) -> bool:
        # Code that ends so would run together with the line that closes it.
        return self.line_at(end - 1).fence is not None and self.closing(self.text[:end].rstrip())[:1] not in ("\n", "")

    def cut(self, blank: int) -> tuple[int, int]:
        """Return where the part ends and where the next one begins; ``blank`` is the white space at its beginning."""
        last = len(self.text) - 1
        bounds = {found.start() for found in _cluster_pattern().finditer(self.text)}
        inside = bounds & set(range(blank + 1, last + 1))
        boundaries = [at for at in self._boundaries() if at[1] in inside and not self._begins_to_close(at[1])]
        opener = next((line for line in reversed(self._lines[:-1]) if line.is_fence), None)
        if opener and (fence := self._lines[-1].fence) and fence.line:
            before = [end for _, end in boundaries if end <= opener.start]
            no_room = not self.text[opener.start + len(opener.text) : last].strip()
            if before and (no_room or 2 * opener.start >= last):
                return before[-1], self._resume(before[-1], bounds)
            boundaries = [at for at in boundaries if at[1] > opener.start]
        if found := [(kind, -end) for kind, end in boundaries if 4 * end >= last]:
            end = -min(found)[1]
        elif spaces := [end for _, end in boundaries if self.text[end].isspace()]:
            end = spaces[-1]
        else:
            end = self._inside_a_word(sorted(inside, reverse=True), bounds)
        return end, self._resume(end, bounds)

    def _boundaries(self) -> Iterator[tuple[int, int]]:
        lines = [line for line in self._lines if line.text.strip()]
        for above, line in zip([None, *lines], lines, strict=False):
            # A cut behind the line that opens a fence, or before the one that closes it, would leave it empty.
            if above and not (line.is_fence and line.fence) and not (above.is_fence and not above.fence):
                end = above.start + len(above.text.rstrip())
                yield _LINE if line.fence or self.text.count("\n", end, line.start) == 1 else _PARAGRAPH, end
            if not line.is_fence:
                yield from _boundaries_in(line)

    def _resume(self, end: int, bounds: set[int]) -> int:
        """Return where the text goes on after a cut: behind white space, but before the indentation of code."""
        behind = end if not self.text[end].isspace() else len(self.text) - len(self.text[end:].lstrip())
        line = self.line_at(behind)
        if line.fence and line.start > end:
            return line.start
        while behind > end and behind not in bounds:
            behind -= 1
        return behind

    def _inside_a_word(self, ends: list[int], bounds: set[int]) -> int:
        for end in ends:
            if 4 * end < len(self.text) - 1:
                break
            before = self.text[end - 1]
            if before.isspace() or before in _OPENING or self.line_at(end - 1).is_fence or self._begins_to_close(end):
                continue
            if self.text[self._resume(end, bounds)] not in _CLOSING:
                return end
        return next((end for end in ends if not self._begins_to_close(end)), len(self.text) - 1)


def _boundaries_in(line: _Line) -> Iterator[tuple[int, int]]:
    for found in _IN_LINE.finditer(line.text):
        follows = line.text[found.end() : found.end() + 1]
        ends = found["end"] and not follows.islower() if found["space"] else _ENDS_WIDE.search(found[0])
        if follows and (found.start("space") > 0 or found["wide"]):  # not before the indentation
            at = found.start("space") if found["space"] else found.end()
            yield _SENTENCE if ends and not line.fence else _WORD, line.start + at
