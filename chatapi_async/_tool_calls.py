"""Fragments of tool calls in, whole calls out. No I/O.

Calls are told apart by their ``index``, else by their ``id`` (a new id is a new call); a fragment with neither
continues the call that was written last. Both of the contract's shapes are read. Providers that give all parallel calls
one index, or neither index nor id, can still be followed: a fragment that names another function begins a new call, and
so does one that names the same again, where the call was whole in its first fragment, or went on without the name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .types import FunctionCall, MessageToolCall, StreamToolCall
from .types.events import TextBuffer


class GrowingToolCall:
    """One call, as far as it has come."""

    __slots__ = (
        "arguments",
        "done",
        "extra",
        "fragments",
        "function_extra",
        "id",
        "index",
        "name",
        "names_repeated",
        "position",
        "type",
    )

    def __init__(self, position: int) -> None:
        self.position = position
        self.index: int | None = None
        self.id = ""
        self.type = ""
        self.name = ""
        self.arguments = TextBuffer()
        self.extra: dict[str, Any] = {}
        self.function_extra: dict[str, Any] = {}
        self.fragments = 0
        self.names_repeated = True
        """Whether every fragment so far named the function."""
        self.done = False
        """Whether the call was already announced as whole."""

    def add(self, fragment: StreamToolCall) -> str:
        """Merge a fragment; return the piece that it adds to the arguments."""
        function = fragment.function
        if self.index is None:
            self.index = fragment.index
        self.id = self.id or fragment.id or fragment.tool_id or ""
        self.type = self.type or fragment.type or ""
        self.name = self.name or _name(fragment)
        if fragment.is_client_tool is not None:
            self.extra["is_client_tool"] = fragment.is_client_tool
        keep_last(self.extra, fragment.model_extra)
        keep_last(self.function_extra, function.model_extra if function else None)
        self.fragments += 1
        self.names_repeated = self.names_repeated and bool(_name(fragment))
        piece = (function and function.arguments) or ""
        if piece:
            self.arguments.append(piece)
        self.done = False
        return piece

    def whole(self) -> MessageToolCall:
        """Return the call as it stands in a message."""
        function = FunctionCall.merged(self.function_extra, name=self.name, arguments=str(self.arguments))
        return MessageToolCall.merged(self.extra, id=self.id, type=self.type or "function", function=function)


class ToolCallMerger:
    """Merges the fragments of one choice's calls."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_last")

    def __init__(self) -> None:
        self._calls: list[GrowingToolCall] = []
        self._by_index: dict[int, GrowingToolCall] = {}
        self._by_id: dict[str, GrowingToolCall] = {}
        self._last: GrowingToolCall | None = None

    def __iter__(self) -> Iterator[GrowingToolCall]:
        """The calls in the order of their arrival."""
        return iter(self._calls)

    def call_of(self, fragment: StreamToolCall) -> GrowingToolCall:
        """Return the call that the fragment belongs to, a new one if need be; the fragment is not merged yet."""
        id_ = fragment.id or fragment.tool_id or ""
        if fragment.index is not None:
            call = self._by_index.get(fragment.index) or self._without_index(id_)
        elif id_:
            call = self._by_id.get(id_)
        else:
            call = self._last
        if call is None or _begins_another(fragment, id_, call):
            call = GrowingToolCall(len(self._calls))
            self._calls.append(call)
        if fragment.index is not None:
            self._by_index[fragment.index] = call
        if id_:
            self._by_id.setdefault(id_, call)
        self._last = call
        return call

    def _without_index(self, id_: str) -> GrowingToolCall | None:
        call = self._by_id.get(id_)
        return call if call is not None and call.index is None else None

    def whole(self) -> list[MessageToolCall]:
        """Return the calls as they stand in a message: by their index, where the provider numbers them."""
        calls = self._calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.whole() for call in calls]


def _begins_another(fragment: StreamToolCall, id_: str, call: GrowingToolCall) -> bool:
    name = _name(fragment)
    if not name or not call.name or (id_ and id_ == call.id):
        return False
    if fragment.index is not None and not id_:
        return False  # the same index, and no id of its own: the same call
    if name != call.name or not call.names_repeated:
        return True
    # Some providers repeat the name in every fragment, so alone it says nothing.
    return call.fragments == 1 and _is_json(str(call.arguments))


def _name(fragment: StreamToolCall) -> str:
    return (fragment.function and fragment.function.name) or fragment.tool_name or ""


def keep_last(kept: dict[str, Any], new: Mapping[str, Any] | None) -> None:
    """Take over the values of ``new`` that are not null."""
    for name, value in (new or {}).items():
        if value is not None:
            kept[name] = value


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
