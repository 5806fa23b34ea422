"""What a server that misbehaves does, step by step, and what faults are put together from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from . import _wire

EVENT_STREAM: Mapping[str, str] = MappingProxyType(
    {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store"}
)
"""Headers of a stream."""

Count = Annotated[int, Field(ge=0)]
"""A parameter that counts events."""

Seconds = Annotated[float, Field(ge=0, le=86400)]
"""A parameter that is a time."""

Chunk = dict[str, Any]
"""A chunk as a JSON object."""


@dataclass(frozen=True)
class Head:
    """A step: begin the response."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: EVENT_STREAM)


@dataclass(frozen=True)
class Pause:
    """A step: send nothing for so many seconds, or only a comment every ``keep_alive`` seconds."""

    seconds: float
    keep_alive: float | None = None


class Act(Enum):
    """A step without anything to say."""

    STORE = "store"
    """The answer is whole, as the server sees it: a chatroom stores it now."""
    CLOSE = "close"
    """Close the connection in an orderly way (TCP FIN), and do nothing more."""
    RESET = "reset"
    """Break the connection (TCP RST), and do nothing more."""


Step = Head | Pause | Act | bytes
"""Bytes are sent at once, by themselves. After the last step the response ends as it should."""


@dataclass(frozen=True)
class Answered:
    """An answer as a healthy server would give it: what a fault spoils."""

    chunks: tuple[Chunk, ...]
    """The stream's chunks; the last has the usage, and those before it the finish reasons."""
    completion: dict[str, Any]
    """The same as one JSON body."""
    interval: float
    """Seconds before each chunk."""
    now: float
    """The time of day in seconds since 1970."""

    def until(self, after: int) -> tuple[Chunk, ...]:
        """Return the first ``after`` chunks, but none that belongs to the answer's end."""
        end = next(number for number, chunk in enumerate(self.chunks) if finishes(chunk))
        return self.chunks[: min(after, end)]


def finishes(chunk: Chunk) -> bool:
    """Whether a choice ends with the chunk."""
    return any(choice.get("finish_reason") for choice in chunk["choices"])


def event(data: object, name: str | None = None) -> bytes:
    """Return a server-sent event whose data is a text, or an object as JSON."""
    text = data if isinstance(data, str) else _wire.data(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


DONE_EVENT = event(_wire.DONE)
"""The event that ends a stream."""


def paced(answered: Answered, chunks: Iterable[Chunk]) -> Iterator[Step]:
    """Yield the events of chunks, at the pace of the answer."""
    for chunk in chunks:
        yield Pause(answered.interval)
        yield event(chunk)


def begun(answered: Answered, after: int) -> Iterator[Step]:
    """Yield the beginning of a stream with its first ``after`` events."""
    yield Head()
    yield from paced(answered, answered.until(after))


def whole(answered: Answered, chunks: Iterable[Chunk] | None = None) -> Iterator[Step]:
    """Yield a stream that ends as it should, with other chunks where ``chunks`` are given."""
    yield Head()
    yield from paced(answered, answered.chunks if chunks is None else chunks)
    yield Act.STORE
    yield DONE_EVENT


def delayed(steps: Iterator[Step], seconds: float) -> Iterator[Step]:
    """Yield the steps, with a pause after the response's head."""
    for step in steps:
        yield step
        if isinstance(step, Head):
            yield Pause(seconds)
