"""The typed events of ``ChatStream.events()``: what each chunk means, ready to be matched on ``type``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from .chunk import BaseChunk
from .response import Usage

ChunkT = TypeVar("ChunkT", bound=BaseChunk, covariant=True)


# A str takes some fifty bytes beside its characters, of which a token has few; so pieces are joined, so many at a time.
_PIECES_OF_A_BLOCK = 512


class TextBuffer:
    """Text that only grows: appending costs the piece, reading joins what has come since the last reading."""

    __slots__ = ("_blocks", "_pieces", "length")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        self.length = 0

    def append(self, piece: str) -> None:
        """Add ``piece`` at the end."""
        self._pieces.append(piece)
        self.length += len(piece)
        if len(self._pieces) == _PIECES_OF_A_BLOCK:
            self._blocks.append("".join(self._pieces))
            self._pieces.clear()

    def __str__(self) -> str:
        if self._pieces or len(self._blocks) > 1:
            self._blocks[:] = ("".join((*self._blocks, *self._pieces)),)
            self._pieces.clear()
        return self._blocks[0] if self._blocks else ""


@dataclass(frozen=True, slots=True)
class ChunkEvent(Generic[ChunkT]):
    """A chunk arrived; the events that follow, up to the next chunk, are made of it."""

    chunk: ChunkT
    """The chunk as it was decoded."""
    type: Literal["chunk"] = "chunk"


@dataclass(frozen=True, slots=True)
class ContentDeltaEvent:
    """A choice's text grew."""

    index: int
    """Index of the choice."""
    delta: str
    """The new text, never empty."""
    _content: TextBuffer = field(repr=False, compare=False)
    _length: int = field(repr=False, compare=False)
    type: Literal["content.delta"] = "content.delta"

    @property
    def snapshot(self) -> str:
        """The choice's text up to and with ``delta``. Joined when it is asked for, at the cost of its length."""
        return str(self._content)[: self._length]


@dataclass(frozen=True, slots=True)
class ContentDoneEvent:
    """A choice's text is whole."""

    index: int
    """Index of the choice."""
    content: str
    """The whole text, never empty."""
    type: Literal["content.done"] = "content.done"


@dataclass(frozen=True, slots=True)
class FunctionToolCallArgumentsDeltaEvent:
    """A tool call began, or its arguments grew."""

    index: int
    """Index of the choice."""
    tool_index: int
    """Position of the call among the choice's calls, from 0 in the order of their arrival."""
    id: str
    """Id of the call, as far as known."""
    name: str
    """Name of the function, as far as known."""
    arguments_delta: str
    """The new piece of the arguments' JSON text; ``""`` when a call is announced without any."""
    _arguments: TextBuffer = field(repr=False, compare=False)
    _length: int = field(repr=False, compare=False)
    type: Literal["tool_calls.function.arguments.delta"] = "tool_calls.function.arguments.delta"

    @property
    def delta(self) -> str:
        """The same as ``arguments_delta``."""
        return self.arguments_delta

    @property
    def arguments(self) -> str:
        """The arguments up to and with this piece. Joined when asked for, at the cost of their length."""
        return str(self._arguments)[: self._length]


@dataclass(frozen=True, slots=True)
class FunctionToolCallArgumentsDoneEvent:
    """A tool call is whole.

    It comes when its choice finishes, not when the next call starts: fragments of parallel calls can alternate.
    """

    index: int
    """Index of the choice."""
    tool_index: int
    """Position of the call among the choice's calls, from 0 in the order of their arrival."""
    id: str
    """Id of the call."""
    name: str
    """Name of the function."""
    arguments: str
    """The whole arguments as JSON text, as the model wrote them."""
    type: Literal["tool_calls.function.arguments.done"] = "tool_calls.function.arguments.done"


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """A choice finished."""

    index: int
    """Index of the choice."""
    finish_reason: str
    """``stop``, ``length``, ``tool_calls``, ``content_filter`` or a provider's own word."""
    type: Literal["finish"] = "finish"


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """The server said what was used so far."""

    usage: Usage
    """The counts; the last such event holds the final ones."""
    type: Literal["usage"] = "usage"


@dataclass(frozen=True, slots=True)
class HeartbeatEvent:
    """The server showed that it is alive, by a keep-alive comment or an empty event, and said nothing else.

    A stream of these alone is slow; a stream of nothing at all may be dead. None of them resets a timeout.
    """

    type: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event that is no chunk, no error and no end: a provider's own, passed through."""

    event: str
    """Name of the server-sent event, ``""`` where it had none."""
    data: str
    """Its data, as it came."""
    type: Literal["unknown"] = "unknown"


AnyEvent = (
    ContentDeltaEvent
    | ContentDoneEvent
    | FunctionToolCallArgumentsDeltaEvent
    | FunctionToolCallArgumentsDoneEvent
    | FinishEvent
    | UsageEvent
    | HeartbeatEvent
    | UnknownEvent
)
"""Every event but :class:`ChunkEvent`, which is generic in its chunk."""
