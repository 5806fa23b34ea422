"""What the benchmarks' server sends, byte for byte, and how a request asks for it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, Self

ORDER_HEADER = "x-benchmark-order"

BLOCK_BYTES = 64 * 1024

Delivery = Literal["blocks", "single", "paced", "held"]
"""``blocks``: 64 KiB in one frame of HTTP, as a proxy sends that collects. ``single``: each chunk in a frame of its
own, as fast as the client reads. ``paced``: so too, but one an interval. ``held``: one chunk, and then nothing."""


@dataclass(frozen=True)
class Order:
    """What a request asks the server to send."""

    chunks: int
    """How many chunks, the role, the finish and the usage included; at least four."""
    delivery: Delivery = "blocks"
    interval: float = 0.0
    """Seconds between two chunks of a paced stream."""
    tool_call: bool = False
    """Whether the answer is the arguments of one tool call, in fragments of four bytes, instead of text."""

    @property
    def headers(self) -> dict[str, str]:
        return {ORDER_HEADER: json.dumps(asdict(self))}

    @classmethod
    def of(cls, header: str) -> Self:
        return cls(**json.loads(header))


# Every word has as many letters as every other, so that all chunks of a stream are equally long. That makes it possible
# to have each read by itself, see `measure`.
_WORDS = (" this", " that", " with", " from", " have", " were", " been", " they", " time", " more", " your", " what")


def _event(choices: str, usage: str = "") -> bytes:
    """One chunk as OpenAI's service sent it in 2024."""
    return (
        'data: {"id":"chatcmpl-ABfwCjPMi0ubw56UyMIIeNfJzyogq","object":"chat.completion.chunk","created":1727346180,'
        f'"model":"gpt-4o-2024-08-06","system_fingerprint":"fp_5050236cbd","choices":[{choices}]{usage}}}\n\n'
    ).encode()


def _choice(delta: str, finish: str = "null") -> bytes:
    return _event(f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}')


def text_event(text: str) -> bytes:
    """The event of a chunk with some text."""
    return _choice(f'{{"content":{json.dumps(text)}}}')


_USAGE = ',"usage":{"prompt_tokens":19,"completion_tokens":177,"total_tokens":196,'
_USAGE += '"completion_tokens_details":{"reasoning_tokens":0}}'
_FUNCTION = '{"index":0,"id":"call_1","type":"function","function":{"name":"save","arguments":""}}'

_TEXTS = [text_event(word) for word in _WORDS]
_FRAGMENTS = [_choice('{"tool_calls":[{"index":0,"function":{"arguments":"word"}}]}')]
_ROLE = _choice('{"role":"assistant","content":"","refusal":null}')
_TOOL_CALL = _choice(f'{{"role":"assistant","content":null,"tool_calls":[{_FUNCTION}]}}')
_END = [_event("", _USAGE), b"data: [DONE]\n\n"]

AROUND_THE_ANSWER = 3
"""How many chunks of a stream are none of the answer: the role, the finish and the usage."""

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nx-filling: %b\r\n\r\n"


def framed(data: bytes) -> bytes:
    """The data as one chunk of HTTP's chunked transfer encoding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


SINGLE_BYTES = len(framed(_TEXTS[0]))
"""The length of one chunk of text that is sent by itself, its framing included."""


def beginning(order: Order) -> bytes:
    """The head of the response and its first chunk. All chunks of text after it begin at a multiple of their length, so
    that a client which reads so many bytes at a time gets one chunk with each read."""
    first = framed(_TOOL_CALL if order.tool_call else _ROLE)
    filling = -len(_HEAD % b"" + first) % SINGLE_BYTES
    return _HEAD % (b"x" * filling) + first


def ending(order: Order) -> bytes:
    """The finish, the usage, ``[DONE]``, and the end of the body."""
    finish = _choice("{}", '"tool_calls"' if order.tool_call else '"stop"')
    return b"".join(framed(event) for event in (finish, *_END)) + b"0\r\n\r\n"


def pieces(order: Order) -> Iterator[bytes]:
    """The whole response to an order that is neither paced nor held, in pieces of some 64 KiB."""
    events = _FRAGMENTS if order.tool_call else _TEXTS
    size = BLOCK_BYTES // len(events[0])

    def block(count: int) -> bytes:
        some = [events[index % len(events)] for index in range(count)]
        return framed(b"".join(some)) if order.delivery == "blocks" else b"".join(map(framed, some))

    yield beginning(order)
    full, rest = divmod(order.chunks - AROUND_THE_ANSWER, size)
    whole = block(size)
    for _ in range(full):
        yield whole
    if rest:
        yield block(rest)
    yield ending(order)


def stamped(nanoseconds: int) -> bytes:
    """A chunk whose text says when it was written: what :func:`delay` reads."""
    return framed(text_event(f"{nanoseconds:020d}"))


def delay(text: str, nanoseconds: int) -> int:
    """How long ago the chunk with this text was written, in nanoseconds."""
    return nanoseconds - int(text)
