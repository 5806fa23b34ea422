"""Joins characters that a server cut in half between two chunks.

A server that counts text in UTF-16 units can end one delta with the first half of an emoji (``"\\ud83d"``) and begin
the next with the second (``"\\ude00"``). Neither half can be printed or encoded. So a first half at the end of a text
is held back until the same field of a later chunk brings the second. A half that stays alone becomes U+FFFD when more
text follows it, or its choice finishes; where neither comes, it is dropped with the end of the stream.
"""

from __future__ import annotations

from typing import Any

from ._json import is_array, is_object

_Path = tuple[str | int, ...]


def without_halves(value: Any) -> Any:
    """Return parsed JSON that nothing follows with its halves joined; those that stay alone become U+FFFD.

    Raises:
        RecursionError: it is nested too deeply.
    """
    return SurrogateJoiner().join(value, last=True)


class SurrogateJoiner:
    """Makes the parsed JSON of one stream's chunks whole. Stateful: one for each stream."""

    def __init__(self) -> None:
        self.held: dict[_Path, str] = {}
        """First halves that wait for their second, by where they stand."""

    def join(self, value: Any, path: _Path = (), *, last: bool = False) -> Any:
        """Return ``value`` (parsed JSON) with every text free of halves; where it is the ``last``, none is held back.

        Raises:
            RecursionError: it is nested too deeply.
        """
        if isinstance(value, str):
            return _whole(value) if last else self._join_text(value, path)
        if is_object(value):
            return {_whole(key): self.join(item, (*path, key), last=last) for key, item in value.items()}
        if is_array(value):
            return [self.join(item, (*path, _index(item, position)), last=last) for position, item in enumerate(value)]
        return value

    def release_finished(self, chunk: dict[str, Any]) -> None:
        """Give a choice that finishes in this chunk, joined already, what its content still waits for: U+FFFD."""
        choices = chunk.get("choices")
        for position, choice in enumerate(choices if is_array(choices) else ()):
            path = ("choices", _index(choice, position), "delta", "content")
            if is_object(choice) and choice.get("finish_reason") and self.held.pop(path, None):
                given = choice.get("delta")
                delta = given if is_object(given) else {}
                choice["delta"] = {**delta, "content": f"{delta.get('content') or ''}\ufffd"}

    def _join_text(self, text: str, path: _Path) -> str:
        text = self.held.pop(path, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            self.held[path] = text[-1]
            text = text[:-1]
        return _whole(text)


def _index(item: Any, position: int) -> int:
    # Choices and tool calls are told apart by their own index, since chunks hold different ones at one position.
    index = item.get("index") if is_object(item) else None
    return index if isinstance(index, int) else position


def _whole(text: str) -> str:
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
