"""Faults of the response: its status, its kind, its bytes and its framing. Pure."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Literal

from pydantic import Field

from . import _wire
from ._steps import (
    DONE_EVENT,
    EVENT_STREAM,
    Act,
    Answered,
    Count,
    Head,
    Pause,
    Seconds,
    Step,
    begun,
    event,
    paced,
    whole,
)

_JSON = {"content-type": "application/json"}
_HTML = {"content-type": "text/html; charset=utf-8"}
_PIECE = 1 << 16
_BOM = b"\xef\xbb\xbf"


def status(
    answered: Answered,
    *,
    code: Annotated[int, Field(ge=300, le=599)] = 500,
    retry_after: Seconds | None = None,
    date: bool = False,
    body: Literal["message", "code", "error", "html", "empty"] = "message",
) -> Iterator[Step]:
    """An HTTP error of any status, perhaps with Retry-After in seconds, or with date=true as a date."""
    phrase = HTTPStatus(code).phrase if code in set(HTTPStatus) else f"Status {code}"
    headers = dict(_HTML if body == "html" else _JSON)
    if retry_after is not None:
        headers["retry-after"] = formatdate(answered.now + retry_after, usegmt=True) if date else f"{retry_after:g}"
    if code < 400:
        headers["location"] = "https://moved.example.com/"
    yield Head(code, headers)
    if code == HTTPStatus.NOT_MODIFIED:  # has no body, by RFC 9110
        return
    message = f"{phrase}, as the fault asked for"
    yield {
        "message": json.dumps({"message": message}),
        "code": json.dumps({"message": message, "code": phrase.lower().replace(" ", "_")}),
        "error": json.dumps({"error": {"message": message, "type": "fault", "code": str(code)}}),
        "html": _page(phrase),
        "empty": "",
    }[body].encode()


def html(_: Answered) -> Iterator[Step]:
    """A proxy's page comes instead of an answer, with status 200."""
    yield Head(200, _HTML)
    yield _page("Maintenance").encode()


def json_(answered: Answered, *, shape: Literal["completion", "chunk"] = "completion") -> Iterator[Step]:
    """One JSON body comes instead of a stream: a completion, or with shape=chunk a single chunk."""
    payload = answered.completion
    if shape == "chunk":
        choices = [
            {"index": choice["index"], "delta": choice["message"], "finish_reason": choice["finish_reason"]}
            for choice in payload["choices"]
        ]
        payload = {**payload, "object": "chat.completion.chunk", "choices": choices}
    yield Head(200, _JSON)
    yield Act.STORE
    yield json.dumps(payload, ensure_ascii=False).encode()


def broken_json(answered: Answered) -> Iterator[Step]:
    """A JSON body comes instead of a stream, and breaks off in its middle."""
    text = json.dumps(answered.completion, ensure_ascii=False).encode()
    yield Head(200, _JSON)
    yield text[: len(text) // 2]


def empty(_: Answered) -> Iterator[Step]:
    """The stream has no byte in it."""
    yield Head()


def garbage(answered: Answered, *, after: Count = 2, kind: Literal["text", "json", "bytes"] = "text") -> Iterator[Step]:
    """An event in mid-answer is no chunk: text, JSON that is none (kind=json), or bytes at random (kind=bytes)."""
    given = answered.until(after)
    yield Head()
    yield from paced(answered, given)
    if kind == "bytes":
        yield b"data: \x80\x00\xff\xfe{{{\x1b\n\n"
    else:
        yield event('{"choices": [{"delta": oops' if kind == "text" else [1, 2, 3])
    yield from paced(answered, answered.chunks[len(given) :])
    yield DONE_EVENT


def compressed(answered: Answered, *, encoding: Literal["gzip", "deflate", "br"] = "gzip") -> Iterator[Step]:
    """The stream is compressed, though nobody asked for that."""
    data = b"".join(step for step in whole(answered) if isinstance(step, bytes))
    yield Head(200, {**EVENT_STREAM, "content-encoding": encoding})
    yield Act.STORE
    yield _COMPRESS[encoding](data)


def bytewise(answered: Answered) -> Iterator[Step]:
    """Each byte comes by itself."""
    for step in whole(answered):
        if isinstance(step, bytes):
            yield from chain.from_iterable((bytes((byte,)), Pause(0)) for byte in step)
        else:
            yield step


def bom(answered: Answered) -> Iterator[Step]:
    """A byte order mark stands before the first event."""
    head, *steps = whole(answered)
    yield head
    yield _BOM
    yield from steps


def crlf(answered: Answered) -> Iterator[Step]:
    """Lines end in CR LF."""
    yield from _with_line_ends(answered, b"\r\n")


def cr(answered: Answered) -> Iterator[Step]:
    """Lines end in CR."""
    yield from _with_line_ends(answered, b"\r")


def comments(answered: Answered, *, count: Count = 30) -> Iterator[Step]:
    """Before every event there are so many keep-alive comments."""
    for step in whole(answered):
        if isinstance(step, bytes):
            yield b": ping\n\n" * count
        yield step


def empty_events(answered: Answered) -> Iterator[Step]:
    """Before every event there is one without data, and one whose data is empty."""
    for step in whole(answered):
        if isinstance(step, bytes):
            yield b"id: 1\n\ndata:\n\n"
        yield step


def huge(answered: Answered, *, size: Annotated[int, Field(ge=1, le=1 << 30)] = 17 << 20) -> Iterator[Step]:
    """One event is larger than what a client may read: so many bytes of text (17 MiB)."""
    yield from begun(answered, 1)
    yield b'data: {"choices":[{"index":0,"delta":{"content":"'
    for start in range(0, size, _PIECE):
        yield b"x" * min(_PIECE, size - start)
        yield Pause(0)  # a client that reads as fast as this holds up no other
    yield b'"},"finish_reason":"stop"}]}\n\n'
    yield DONE_EVENT


def invalid_utf8(answered: Answered) -> Iterator[Step]:
    """The text begins with a byte that is no UTF-8."""
    marker = "\x00"
    first, *rest = answered.chunks
    marked = {**first, "choices": [{**choice, "delta": {"content": marker}} for choice in first["choices"]]}
    for step in whole(answered, (marked, *rest)):
        yield step.replace(_wire.data(marker)[1:-1].encode(), b"\xff") if isinstance(step, bytes) else step


def _with_line_ends(answered: Answered, ending: bytes) -> Iterator[Step]:
    for step in whole(answered):
        yield step.replace(b"\n", ending) if isinstance(step, bytes) else step


def _page(title: str) -> str:
    return f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"


def _brotli(data: bytes) -> bytes:
    """Return ``data`` as a Brotli stream of stored blocks (RFC 7932, 9.2), which needs no compressor."""
    stream = b""
    window = 1  # the window's size, one bit, stands before the first block alone
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        header = ((len(piece) - 1) << 3 | 1 << 19) << window
        stream += header.to_bytes(3, "little") + piece
        window = 0
    return stream + b"\x03"


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "br": _brotli}
