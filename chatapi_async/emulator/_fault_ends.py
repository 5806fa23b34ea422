"""Faults of time, of how a stream ends, and of what it says of its own failure. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from ._steps import (
    DONE_EVENT,
    Act,
    Answered,
    Count,
    Head,
    Pause,
    Seconds,
    Step,
    begun,
    event,
    finishes,
    paced,
    whole,
)

_MESSAGE = "the provider is overloaded"


def truncate(
    answered: Answered, *, after: Count = 2, inside: Literal["event", "character"] | None = None
) -> Iterator[Step]:
    """The body ends in mid-answer; with inside=event or inside=character, in the middle of one."""
    yield from begun(answered, after)
    if inside is not None:
        text = event({"choices": [{"delta": {"content": "語"}, "index": 0}]})
        yield text[: text.index("語".encode()) + (1 if inside == "character" else 0)]


def hang_up(answered: Answered, *, after: Count = 0) -> Iterator[Step]:
    """The connection is closed without a word: before the response, or with after=N in its middle."""
    if after:
        yield from begun(answered, after)
    yield Act.CLOSE


def reset(answered: Answered, *, after: Count = 2) -> Iterator[Step]:
    """The connection breaks (TCP RST) in mid-answer, or with after=0 before the response."""
    if after:
        yield from begun(answered, after)
    yield Act.RESET


def no_response(answered: Answered, *, seconds: Seconds = 600) -> Iterator[Step]:
    """The response begins only after so many seconds."""
    yield Pause(seconds)
    yield from whole(answered)


def stall(
    answered: Answered,
    *,
    after: Count = 0,
    seconds: Seconds = 600,
    keep_alive: Annotated[float, Field(gt=0, le=3600)] | None = None,
) -> Iterator[Step]:
    """The stream is silent before its first event, or after N, or sends only comments, every keep_alive seconds."""
    given = answered.until(after)
    yield Head()
    yield from paced(answered, given)
    yield Pause(seconds, keep_alive)
    yield from paced(answered, answered.chunks[len(given) :])
    yield Act.STORE
    yield DONE_EVENT


def slow(answered: Answered, *, tokens_per_second: Annotated[float, Field(gt=0)] = 2) -> Iterator[Step]:
    """The tokens come slowly."""
    for step in whole(answered):
        yield Pause(1 / tokens_per_second) if isinstance(step, Pause) else step


def never_ends(answered: Answered, *, seconds: Seconds = 60) -> Iterator[Step]:
    """The body stays open after [DONE]."""
    yield from whole(answered)
    yield Pause(seconds)


def only_done(_: Answered) -> Iterator[Step]:
    """The stream is nothing but [DONE]."""
    yield Head()
    yield DONE_EVENT


def no_done(answered: Answered) -> Iterator[Step]:
    """The stream ends with its body, after the finish reason and without [DONE]."""
    yield Head()
    yield from paced(answered, answered.chunks)
    yield Act.STORE


def no_finish_reason(answered: Answered) -> Iterator[Step]:
    """No choice gets a finish reason, and [DONE] comes all the same."""
    yield from whole(answered, (chunk for chunk in answered.chunks if not finishes(chunk)))


def second_answer(answered: Answered) -> Iterator[Step]:
    """The whole answer comes once more after [DONE]."""
    yield from whole(answered)
    yield from paced(answered, answered.chunks)
    yield DONE_EVENT


def error(
    answered: Answered,
    *,
    after: Count = 2,
    shape: Literal["object", "string", "message", "code", "text"] = "object",
    framing: Literal["event", "data", "field"] = "event",
    code: str = "overloaded",
    done: bool = False,
) -> Iterator[Step]:
    """The server reports an error in the stream: as an event "error", in a plain event, or in a field "error"."""
    payload = {
        "object": {"error": {"message": _MESSAGE, "type": "server_error", "code": code}},
        "string": {"error": _MESSAGE},
        "message": {"message": _MESSAGE},
        "code": {"code": code, "message": _MESSAGE},
        "text": _MESSAGE,
    }[shape]
    yield from begun(answered, after)
    yield Pause(answered.interval)
    if framing == "field":
        yield event(payload).replace(b"data: ", b"error: ", 1)
    else:
        yield event(payload, "error" if framing == "event" else None)
    if done:
        yield DONE_EVENT


def error_after_finish(answered: Answered) -> Iterator[Step]:
    """An error comes in a chunk after the finish reason, and then [DONE]."""
    yield Head()
    yield from paced(answered, answered.chunks)
    failed = {"delta": {"content": ""}, "index": 0, "finish_reason": "error"}
    yield event({**answered.chunks[-1], "choices": [failed], "error": {"message": _MESSAGE, "code": 502}})
    yield DONE_EVENT
