"""The judgement of an answer: how it began, how it streamed, how it ended, and what the next one cost. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from chatapi_async._failures import excerpt
from chatapi_async.errors import (
    APITimeoutError,
    ChatAPIError,
    EmptyStreamError,
    ServerStreamError,
    StreamDecodeError,
    StreamTruncatedError,
    UnexpectedContentTypeError,
)

from ._findings import Finding, Step

SLOW: Final = 5.0
"""Seconds after which a first token is called slow: by then, most who wait have looked away."""
_AT_ONCE: Final = 0.02
_MOST_AT_ONCE_CHUNKS: Final = 5
_SHORTEST_SILENCE: Final = 0.3


@dataclass(slots=True)
class Heard:
    """What was heard of one answer so far. Times are seconds since the request began."""

    status: int | None = None
    """HTTP status; None before the response."""

    answered_after: float = 0.0
    """When the response began."""

    media_type: str = ""
    """Such as ``text/event-stream``."""

    length_known: bool = False
    """Whether the response says beforehand how long it is, which a stream cannot before it is whole."""

    closes: bool = False
    """Whether the server said that it closes the connection."""

    arrivals: list[float] = field(default_factory=list[float])
    """When each chunk came."""

    first_text: float | None = None
    """When the first chunk with text came; None where none did."""

    duration: float = 0.0
    """When the answer ended."""

    finish_reason: str | None = None
    usage: str = ""
    """The tokens used, in words; ``""`` where the server does not say."""

    done: bool | None = None
    """Whether ``[DONE]`` came; None where that cannot be seen, since the stream is compressed."""

    connections: int = 0
    """How many connections were made for it."""

    connecting: float = 0.0
    """Seconds that making them took."""

    @property
    def is_stream(self) -> bool:
        """Whether it came as an event stream."""
        return self.media_type == "text/event-stream"


def judge_answered(heard: Heard) -> tuple[Finding, ...]:
    """Judge how the response began; nothing yet, where only its body tells."""
    if not (heard.is_stream or heard.media_type == "application/json" or heard.media_type.endswith("+json")):
        return ()
    words = f"HTTP {heard.status}, {heard.media_type}"
    return (
        Finding("answer", "ok", words, seconds=heard.answered_after),
        Finding("request", "ok", "operator, token and model are accepted"),
    )


def judge_first_token(heard: Heard) -> Finding:
    """Judge when the answer's first text came."""
    if heard.first_text is None:
        words = f"no text came: {_counted(len(heard.arrivals))} without any"
        if heard.finish_reason == "length":
            advice = "A model that thinks before it speaks can use up these few tokens; try another --model to be sure."
        else:
            advice = "Try again, and another --model; if it stays so, show this line to whoever runs the server."
        return Finding("first token", "note", words, advice, heard.duration)
    words = f"the first text came after {heard.first_text:.2f} s"
    if heard.first_text >= SLOW:
        advice = (
            "That is slow: the model may think first, or be busy. Try --model small; show a sign of life while you "
            "wait. The library waits for 120 s unless you set timeout=."
        )
        return Finding("first token", "note", words, advice, heard.first_text)
    return Finding("first token", "ok", words, seconds=heard.first_text)


def judge_stream(heard: Heard) -> Finding:
    """Judge an answer that came whole."""
    ends = f"finish reason {heard.finish_reason or 'none'}"
    if heard.is_stream and heard.done is not None:
        ends += ", [DONE]" if heard.done else ", no [DONE]"
    words = f"whole: {_counted(len(heard.arrivals))}, {ends}, {heard.usage or 'no usage'}"
    if not heard.is_stream:
        advice = "It works, but nothing shows before the end. Ask whoever runs the server why it does not stream."
        return Finding("stream", "note", f"{words}; it came as one JSON body, not as a stream", advice, heard.duration)
    if (why := _held_back(heard)) is not None:
        advice = (
            "Probably a proxy on the way (nginx, a company's firewall, a CDN) collects the answer, or the model behind "
            "the server does not stream. It works, but nothing shows before the end. Ask for the proxy's buffering to "
            "be turned off: in nginx, proxy_buffering off."
        )
        return Finding("stream", "note", f"{words}; {why}", advice, heard.duration)
    return Finding("stream", "ok", words, seconds=heard.duration)


def _held_back(heard: Heard) -> str | None:
    """Return why the answer seems to have been held back until it was whole; None without good reason to think so."""
    arrivals = heard.arrivals
    if len(arrivals) < _MOST_AT_ONCE_CHUNKS:
        return None
    if heard.length_known:
        return "the response says beforehand how long it is, so the answer was whole before the first of it was sent"
    spread = arrivals[-1] - arrivals[0]
    # No model that took its time for the first token says all the others in a fiftieth of it.
    if arrivals[0] < _SHORTEST_SILENCE or spread > _AT_ONCE * arrivals[0]:
        return None
    return f"nothing came for {arrivals[0]:.2f} s, and then all of it within {spread * 1000:.0f} ms"


def judge_broken(error: ChatAPIError, heard: Heard) -> tuple[Finding, ...]:
    """Judge an answer that began with status 200 and went wrong; all findings that follow, the failure last."""
    begun = judge_answered(heard)
    if isinstance(error, UnexpectedContentTypeError) and not begun:
        what = error.content_type or "no Content-Type"
        words = f'HTTP {heard.status}, but no answer of the service: {what}, "{excerpt(error.body) or "empty"}"'
        advice = (
            "Check host and path of the base URL; a website, a login page or a proxy answers there. The library asks "
            "BASE_URL/v1/llms/chat/completions."
        )
        return (Finding("answer", "fail", words, advice, heard.answered_after),)
    step: Step = "first token"
    if heard.arrivals:
        begun = (*begun, judge_first_token(heard))
        step = "stream"
    chunks = len(heard.arrivals)
    came = f"after {_counted(chunks)} and {heard.duration:.2f} s" if chunks else "before the first chunk"
    words, advice = _judge_break(error, came)
    return (*begun, Finding(step, "fail", words, advice, heard.duration))


def _counted(chunks: int) -> str:
    return "1 chunk" if chunks == 1 else f"{chunks} chunks"


def _judge_break(error: ChatAPIError, came: str) -> tuple[str, str]:
    again = "Try again; if it stays so, show this line to whoever runs the server."
    match error:
        case APITimeoutError(phase="first_chunk"):
            words = f"the answer began, and no token came within {error.limit:g} s"
            return words, f"Try another --model, such as small. {again}"
        case APITimeoutError(phase="total"):
            words = f"the answer was not finished within {error.limit:g} s"
            return words, f"Try another --model, such as small. {again}"
        case APITimeoutError():
            words = f"the stream went silent {came}: nothing new for {error.limit:g} s"
            return words, f"A proxy may lose long answers, or the model is stuck. {again}"
        case StreamTruncatedError():
            reason = excerpt(str(error)).partition(": ")[2].partition("; ")[0]
            words = f"the stream broke off {came}: {reason}"
            advice = f"A proxy or the server cuts answers off; look at their time limits. {again}"
            return words, advice
        case UnexpectedContentTypeError():
            words, _, advice = str(error).partition(". ")
            return words, advice
        case EmptyStreamError():
            return "the stream ended properly without an answer in it", f"This is a known fault of the service. {again}"
        case ServerStreamError():
            code = f" (code {excerpt(str(error.code))})" if error.code is not None else ""
            words = f'the server sent an error in the stream {came}: "{excerpt(error.message)}"{code}'
            if str(error.code) == "401":
                return words, "Get a fresh access token (they live about an hour), and put it into CHATAPI_TOKEN."
            return words, f"Do as it says, or try another --model. {again}"
        case StreamDecodeError():
            return f"what came {came} cannot be read: {excerpt(error.event)!r}", (
                "Check that the base URL leads to this service, and to no other API. Then show this line to whoever "
                "runs the server."
            )
        case _:
            return excerpt(str(error)), again


def judge_reuse(first: Heard, second: Heard) -> Finding:
    """Judge whether the second request took the first one's connection."""
    if not second.connections:
        saved = f", which saved {first.connecting * 1000:.1f} ms" if first.connecting else ""
        words = f"the second request took the same connection{saved}"
        return Finding("reuse", "ok", words, seconds=second.answered_after)
    closes = "the server closes the connection after an answer" if first.closes else "the connection was not used again"
    words = f"{closes}: the second request spent {second.connecting * 1000:.1f} ms on a new one"
    advice = (
        "It works. Whoever runs the server, or the proxy before it, can make each request faster by keeping "
        "connections open (keep-alive)."
    )
    return Finding("reuse", "note", words, advice, second.answered_after)
