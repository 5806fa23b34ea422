"""The faster HTTP client gives what httpx gives: the same bodies, the same failures, the same care for connections."""

from __future__ import annotations

import asyncio
import gc
import select
import ssl
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpcore
import httpx
import pytest
import trio
import trustme
from anyio import CancelScope, fail_after
from hypothesis import example, given
from hypothesis import strategies as st

from chatapi_async import APIConnectionError, AsyncChatClient, StreamTruncatedError, Timeouts
from chatapi_async._fast_socket import FastStream, _faster
from chatapi_async.fast import FastHTTPClient, _ChunkedBody
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    RESET,
    WAIT_SECONDS,
    AnyStep,
    RawServer,
    body,
    chunk,
    client_of,
    head,
    stream,
    wait_for,
)

# With --http-client=fast, httpx.AsyncClient is the fast one.
PLAIN: Any = FastHTTPClient.__base__
CLIENTS = {"httpx": PLAIN, "fast": FastHTTPClient}
CHUNKED = head(200, {"transfer-encoding": "chunked"})
ANSWER = stream(chunk("Hi", "stop"), DONE)
ENOUGH = 1 << 20
"""More than is taken in at once from any socket here."""


# ── how a body is cut ────────────────────────────────────────────────────────────────────────────────────────────────


class Source:
    """Stands for the socket: each wait brings the next piece, and after the last one the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.coming = deque(pieces)
        self.received: list[bytes] = []
        self.over = False
        self.taken = 0

    def take(self) -> bytes:
        data = self.received[0] if len(self.received) == 1 else b"".join(self.received)
        self.received.clear()
        self.taken += len(data)
        return data

    def put_back(self, data: bytes) -> None:
        if data:
            self.received.insert(0, data)

    async def more(self, limit: float | None) -> None:
        if self.coming:
            self.received.append(self.coming.popleft())
        else:
            self.over = True

    def abort(self) -> None:
        self.over = True

    def forget(self, *_: Any) -> None:
        self.over = True


class H11(httpx.AsyncByteStream):
    """Stands for httpcore's way of reading: it keeps what is left to it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rest: bytes | None = None
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.rest = b"".join([*self.source.received, *self.source.coming])
        return
        yield

    async def aclose(self) -> None:
        self.closed = True


class Cut(NamedTuple):
    pieces: list[bytes]
    rest: bytes | None
    error: Exception | None
    source: Source
    closed: bool


def cut(arriving: list[bytes]) -> Cut:
    source = Source(arriving)
    h11 = H11(source)
    pieces: list[bytes] = []
    error: Exception | None = None

    async def read() -> None:
        body = _ChunkedBody(source, h11, None)  # type: ignore[arg-type]
        async for piece in body:
            assert piece
            pieces.append(bytes(piece))

    try:
        at_once(read())
    except httpx.HTTPError as raised:
        error = raised
    return Cut(pieces, h11.rest, error, source, h11.closed)


def at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


def split(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({place % (len(data) + 1) for place in at} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(places)]


def every_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@st.composite
def plain_chunks(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A body, and the same in plain chunks."""
    content = st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\n", b"x" * 300])
    contents = draw(st.lists(content, max_size=6))
    encoded = b""
    for each in contents:
        size = f"{len(each):x}".rjust(draw(st.integers(1, 8)), "0")
        encoded += (size.upper() if draw(st.booleans()) else size).encode() + b"\r\n" + each + b"\r\n"
    return b"".join(contents), encoded


PLACES = st.lists(st.integers(0, 1 << 16), max_size=30)
ENDS = st.sampled_from([b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"000\r\n\r\n", b"00000000\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"])
ODD = [
    b"5;a=b\r\nhello\r\n", b"5 \r\nhello\r\n", b" 5\r\nhello\r\n", b"5\nhello\n", b"\r\n", b"\n", b"garbage", b"\0",
    b"0x10\r\n", b"+5\r\nhello\r\n", b"-5\r\n", b"1_0\r\n", b"000000005\r\nhello\r\n", b"fffffffff\r\n", b"5\r",
    b"5\rX", b"0;a=b\r\n\r\n", b"0\n\n", b"1" * 100, "\uff15\r\nhello\r\n".encode(),
]  # fmt: skip


@given(plain_chunks(), ENDS, PLACES)
def test_the_pieces_join_to_the_body_and_its_end_is_left_to_h11(
    plain: tuple[bytes, bytes], end: bytes, places: list[int]
) -> None:
    content, encoded = plain
    for arriving in (split(encoded + end, places), every_byte(encoded + end)):
        result = cut(arriving)
        assert (b"".join(result.pieces), result.rest, result.error) == (content, end, None)


@given(plain_chunks(), st.sampled_from(ODD), st.binary(max_size=20) | ENDS, PLACES)
@example((b"", b""), b"garbage", b"", [])
def test_what_is_no_plain_chunk_is_left_to_h11_with_all_that_follows(
    plain: tuple[bytes, bytes], odd: bytes, after: bytes, places: list[int]
) -> None:
    content, encoded = plain
    if odd == b"5\r" and after.startswith(b"\n"):
        after = b"X" + after
    for arriving in (split(encoded + odd + after, places), every_byte(encoded + odd + after)):
        result = cut(arriving)
        assert (b"".join(result.pieces), result.rest, result.error) == (content, odd + after, None)


@pytest.mark.parametrize("end", [b"XX", b"\rX", b"\n\n", b"\n", b"0\r\n\r\n", b"\r0", b"\r\r\n"])
@pytest.mark.parametrize("cut_up", [every_byte, lambda data: [data]], ids=["byte by byte", "at once"])
def test_a_malformed_end_of_a_chunk_is_an_error_after_what_came_before_it(
    end: bytes, cut_up: Callable[[bytes], list[bytes]]
) -> None:
    result = cut(cut_up(b"2\r\nHi\r\n5\r\nthere" + end + b"5\r\nlater\r\n0\r\n\r\n"))
    assert b"".join(result.pieces) == b"Hithere"
    assert isinstance(result.error, httpx.RemoteProtocolError)
    assert result.closed
    assert result.rest is None


@given(plain_chunks(), PLACES, st.integers(0, 1 << 16))
def test_a_body_that_breaks_off_gives_what_came_and_leaves_the_end_to_h11(
    plain: tuple[bytes, bytes], places: list[int], length: int
) -> None:
    content, encoded = plain
    encoded = encoded[: length % (len(encoded) + 1)]
    result = cut(split(encoded, places))
    assert content.startswith(b"".join(result.pieces))
    assert encoded.endswith(result.rest or b"")
    assert len(result.rest or b"") < 10, "no more than the beginning of a chunk's head is left"
    assert b"".join(result.pieces) == b"".join(cut(every_byte(encoded)).pieces)
    assert result.error is None


def test_a_chunk_alone_whose_end_is_malformed_is_an_error_too() -> None:
    result = cut([b"2\r\nHi\r\n", b"5\r\nhelloXX"])
    assert b"".join(result.pieces) == b"Hihello"
    assert isinstance(result.error, httpx.RemoteProtocolError)


def test_what_looks_like_a_chunk_within_a_chunk_is_content() -> None:
    assert cut([b"a\r\n", HELLO, b"\r\n", END]).pieces == [HELLO]
    assert cut([b"f\r\n12345", HELLO, b"\r\n" + END]).pieces == [b"12345", HELLO]


def test_all_that_is_at_hand_is_one_piece() -> None:
    encoded = b"2\r\nHi\r\n1\r\n \r\n5\r\nthe"
    assert cut([encoded, b"re\r\n", b"1\r\n!\r\n1\r\n", b"!\r\n0\r\n\r\n"]).pieces == [b"Hi the", b"re", b"!", b"!"]


class Counted(bytes):
    """Bytes that count what is copied of them."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(key, slice):
            Counted.copied += len(part)
            return Counted(part)
        return part

    def __add__(self, other: bytes) -> Counted:  # type: ignore[override]
        Counted.copied += len(self) + len(other)
        return Counted(bytes(self) + bytes(other))

    def __radd__(self, other: bytes) -> Counted:
        return Counted(other) + self


@pytest.mark.parametrize(
    ("encoded", "content", "size"),
    [
        (b"186a0\r\n" + b"x" * 100_000 + b"\r\n", b"x" * 100_000, 1),
        (b"186a0\r\n" + b"x" * 100_000 + b"\r\n", b"x" * 100_000, 7),
        (b"1\r\nx\r\n" * 20_000, b"x" * 20_000, 1),
        (b"1\r\nx\r\n" * 20_000, b"x" * 20_000, 65_536),
        (b"00000001\r\nx\r\n" * 10_000, b"x" * 10_000, 5),
    ],
    ids=["one chunk by bytes", "one chunk in sevens", "tiny chunks by bytes", "tiny chunks at once", "zeros in fives"],
)
def test_a_body_is_copied_a_few_times_however_it_comes(encoded: bytes, content: bytes, size: int) -> None:
    encoded += END
    Counted.copied = 0
    result = cut([Counted(encoded[i : i + size]) for i in range(0, len(encoded), size)])
    assert b"".join(result.pieces) == content
    assert result.source.taken <= len(encoded) + 10
    assert Counted.copied <= 8 * len(encoded)


# ── the same as httpx, on real sockets ───────────────────────────────────────────────────────────────────────────────


class Got(NamedTuple):
    status: int | None
    content: bytes
    error: type[Exception] | None


async def got(http_client: httpx.AsyncClient, url: str, method: str = "POST") -> Got:
    status: int | None = None
    pieces: list[bytes] = []
    try:
        async with http_client.stream(method, url, content=b"{}") as response:
            status = response.status_code
            async for piece in response.aiter_raw():
                pieces.append(piece)
    except httpx.HTTPError as error:
        return Got(status, b"".join(pieces), type(error))
    return Got(status, b"".join(pieces), None)


BROKEN = httpx.RemoteProtocolError
HELLO = b"5\r\nhello\r\n"
END = b"0\r\n\r\n"
LONG = b"".join(b"%x\r\n" % (i * 97) + b"y" * (i * 97) + b"\r\n" for i in range(1, 100))
SAME: dict[str, tuple[tuple[AnyStep, ...], Got, int]] = {
    # the steps of an answer; what is read; how many connections a further request makes two requests take
    "chunks": (stream(b"hel", b"lo"), Got(200, b"hello", None), 1),
    "no chunks": (stream(), Got(200, b"", None), 1),
    "at once": ((CHUNKED + HELLO * 3 + END,), Got(200, b"hello" * 3, None), 1),
    "byte by byte": (tuple(every_byte(CHUNKED + HELLO * 2 + END)), Got(200, b"hello" * 2, None), 1),
    "large": ((CHUNKED + LONG, LONG + END), Got(200, b"y" * (97 * 99 * 100), None), 1),
    "upper case, zeros": ((CHUNKED, b"0000000A\r\nhellohello\r\n", END), Got(200, b"hello" * 2, None), 1),
    "more zeros": ((CHUNKED, HELLO, b"0" * 12 + HELLO, HELLO, END), Got(200, b"hello" * 3, None), 1),
    "extension": ((CHUNKED, HELLO, b"5;a=b\r\nhello\r\n", HELLO, END), Got(200, b"hello" * 3, None), 1),
    "empty extension": ((CHUNKED, b"5;\r\nhello\r\n", HELLO + END), Got(200, b"hello" * 2, None), 1),
    "space after the size": ((CHUNKED, HELLO, b"5 \r\nhello\r\n" + END), Got(200, b"hello" * 2, None), 1),
    "trailers": ((CHUNKED, HELLO, b"0\r\nA: b\r\nC: d\r\n\r\n"), Got(200, b"hello", None), 1),
    "last chunk of zeros": ((CHUNKED, HELLO, b"000000\r\n\r\n"), Got(200, b"hello", None), 1),
    "last chunk with extension": ((CHUNKED, HELLO, b"0;a=b\r\n\r\n"), Got(200, b"hello", None), 1),
    "last chunk byte by byte": ((CHUNKED, HELLO, *every_byte(b"0\r\nA: b\r\n\r\n")), Got(200, b"hello", None), 1),
    "length beside chunks": (
        (head(200, {"content-length": "3", "transfer-encoding": "Chunked"}), HELLO, END),
        Got(200, b"hello", None),
        1,
    ),
    "HTTP/1.0": ((CHUNKED.replace(b"1.1", b"1.0"), HELLO, END), Got(200, b"hello", None), 2),
    "lines ended by LF": ((CHUNKED.replace(b"\r\n", b"\n") + HELLO, END), Got(200, b"hello", None), 1),
    "connection: close": (
        (head(200, {"transfer-encoding": "chunked", "connection": "close"}), HELLO, END),
        Got(200, b"hello", None),
        2,
    ),
    "truncated before a chunk": ((CHUNKED, HELLO, CLOSE), Got(200, b"hello", BROKEN), 2),
    "truncated in a size": ((CHUNKED, HELLO, b"5", CLOSE), Got(200, b"hello", BROKEN), 2),
    "truncated in a chunk": ((CHUNKED, HELLO, b"5\r\nhe", CLOSE), Got(200, b"hellohe", BROKEN), 2),
    "truncated after a chunk": ((CHUNKED, HELLO, b"5\r\nhello\r", CLOSE), Got(200, b"hellohello", BROKEN), 2),
    "truncated in its end": ((CHUNKED, HELLO, b"0\r\n", CLOSE), Got(200, b"hello", BROKEN), 2),
    "reset": ((RESET,), Got(None, b"", httpx.ReadError), 2),
    "garbage": ((CHUNKED, HELLO, b"garbage\r\n"), Got(200, b"hello", BROKEN), 2),
    "garbage after the size": ((CHUNKED, HELLO, b"5zz\r\nhello\r\n"), Got(200, b"hello", BROKEN), 2),
    "0x": ((CHUNKED, b"0x5\r\nhello\r\n" + END), Got(200, b"", BROKEN), 2),
    "sign": ((CHUNKED, HELLO + b"+5\r\nhello\r\n" + END), Got(200, b"hello", BROKEN), 2),
    "underscore": ((CHUNKED, HELLO + b"1_0\r\n" + b"x" * 16 + b"\r\n" + END), Got(200, b"hello", BROKEN), 2),
    "NUL": ((CHUNKED, HELLO + b"5\0\r\nhello\r\n" + END), Got(200, b"hello", BROKEN), 2),
    "space before the size": ((CHUNKED, HELLO + b" 5\r\nhello\r\n" + END), Got(200, b"hello", BROKEN), 2),
    "size ended by LF": ((CHUNKED, HELLO + b"5\nhello\r\n" + END), Got(200, b"hello", BROKEN), 2),
    "chunk ended by LF": ((CHUNKED, HELLO + b"5\r\nhello\n" + END), Got(200, b"hellohello", BROKEN), 2),
    "chunk not ended": ((CHUNKED, HELLO + b"5\r\nhello" + END), Got(200, b"hellohello", BROKEN), 2),
    "chunk longer than its size": ((CHUNKED, HELLO + b"3\r\nhello\r\n" + END), Got(200, b"hellohel", BROKEN), 2),
    "blank line between chunks": ((CHUNKED, HELLO + b"\r\n" + HELLO + END), Got(200, b"hello", BROKEN), 2),
    "size of 21 digits": ((CHUNKED, HELLO + b"0" * 20 + b"5\r\nhello\r\n" + END), Got(200, b"hello", BROKEN), 2),
    "size without an end": ((CHUNKED, HELLO, b"1" * 200_000), Got(200, b"hello", BROKEN), 2),
    "extension without an end": ((CHUNKED, HELLO, b"5;" + b"a" * 200_000), Got(200, b"hello", BROKEN), 2),
    "enormous size": ((CHUNKED, HELLO, b"f" * 20 + b"\r\nhe", CLOSE), Got(200, b"hellohe", BROKEN), 2),
    "trailers without an end": ((CHUNKED, HELLO, b"0\r\nA: " + b"b" * 200_000), Got(200, b"hello", BROKEN), 2),
    "malformed trailer": ((CHUNKED, HELLO, b"0\r\nno trailer\r\n\r\n"), Got(200, b"hello", BROKEN), 2),
    "another coding": (
        (head(200, {"transfer-encoding": "gzip, chunked"}), HELLO, END),
        Got(None, b"", BROKEN),
        2,
    ),
    "of a length": (body(b"hello"), Got(200, b"hello", None), 1),
    "of a length, with blank lines": (body(b"a\n\nb\r\n\r\n\n\n"), Got(200, b"a\n\nb\r\n\r\n\n\n", None), 1),
    "of a length, truncated": ((head(200, {"content-length": "9"}), b"hello", CLOSE), Got(200, b"hello", BROKEN), 2),
    "until the end": ((head(), b"5\r\nhello\r\n", CLOSE), Got(200, b"5\r\nhello\r\n", None), 2),
    "204": ((head(204, {"transfer-encoding": "chunked"}),), Got(204, b"", None), 1),
    "304": ((head(304, {"transfer-encoding": "chunked"}),), Got(304, b"", None), 1),
    "1xx before": ((head(100), head(103, {"link": "</a>"}) + CHUNKED + HELLO, END), Got(200, b"hello", None), 1),
    "no HTTP": ((b"SSH-2.0-OpenSSH_9\r\n\r\n",), Got(None, b"", BROKEN), 2),
    "nothing": ((CLOSE,), Got(None, b"", BROKEN), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
async def test_an_answer_is_read_as_httpx_reads_it(name: str) -> None:
    steps, expected, connections = SAME[name]
    for make in CLIENTS.values():
        with RawServer() as server:
            server.answer(*steps)
            server.answer(*body(b"next"))
            async with make(timeout=WAIT_SECONDS) as http_client:
                assert await got(http_client, server.url) == expected
                assert await got(http_client, server.url) == Got(200, b"next", None)
            assert server.connections == connections


@pytest.mark.parametrize("client_name", CLIENTS)
async def test_a_head_has_no_body_however_its_length_is_announced(client_name: str, server: RawServer) -> None:
    server.answer(CHUNKED)
    server.answer(*body(b"next"))
    async with CLIENTS[client_name](timeout=WAIT_SECONDS) as http_client:
        assert await got(http_client, server.url, "HEAD") == Got(200, b"", None)
        assert await got(http_client, server.url) == Got(200, b"next", None)
    assert server.connections == 1


async def _exhaust(pieces: AsyncIterator[bytes]) -> None:
    async for _ in pieces:
        pass


@pytest.mark.parametrize(
    "steps",
    [
        (CHUNKED + HELLO, RESET),
        (CHUNKED + HELLO + b"5\r\nhe", RESET),
        (CHUNKED + HELLO + b"5;a=b\r\nhe", RESET),
        (CHUNKED + HELLO + b"0\r\n", RESET),
    ],
    ids=["between chunks", "in a chunk", "in an odd chunk", "in the end"],
)
async def test_a_reset_in_mid_answer_is_the_error_that_httpx_raises(steps: Any) -> None:
    for make in CLIENTS.values():
        with RawServer() as server:
            gate = server.gate()
            server.answer(steps[0], gate, steps[1])
            async with make(timeout=WAIT_SECONDS) as http_client, http_client.stream("POST", server.url) as response:
                pieces = response.aiter_raw()
                assert await anext(pieces) in (b"hello", b"hellohe")
                gate.open()
                with pytest.raises(httpx.ReadError):
                    await _exhaust(pieces)
            assert http_client._transport._pool.connections == []


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("more", [END + b"junk", END + END, END + b"\r\n", END + CHUNKED + b"4\r\nnope\r\n" + END])
async def test_a_connection_on_which_more_than_the_response_came_is_not_used_again(
    method: str, more: bytes, server: RawServer
) -> None:
    server.answer(CHUNKED + HELLO + more)
    server.answer(*body(b"next"))
    async with FastHTTPClient(timeout=WAIT_SECONDS) as http_client:
        assert await got(http_client, server.url, method) == Got(200, b"hello" if method == "POST" else b"", None)
        assert await got(http_client, server.url) == Got(200, b"next", None)
    assert server.connections == 2


async def test_a_connection_on_which_something_came_later_is_not_used_again() -> None:
    later = asyncio.Event()
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(CHUNKED + HELLO + END)
            await later.wait()
            writer.write(CHUNKED + b"4\r\nnope\r\n" + END)

    async with listening(serve) as port, FastHTTPClient(timeout=WAIT_SECONDS) as http_client:
        assert await got(http_client, f"http://127.0.0.1:{port}") == Got(200, b"hello", None)
        later.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert await got(http_client, f"http://127.0.0.1:{port}") == Got(200, b"hello", None)
        await http_client.aclose()
    assert connections == 2


async def test_a_connection_on_which_something_came_that_nobody_looked_at_is_not_used_again(server: RawServer) -> None:
    gate = server.gate()
    server.answer(CHUNKED + HELLO + END, gate, CHUNKED + b"4\r\nnope\r\n" + END, HOLD)
    server.answer(*body(b"next"))
    async with FastHTTPClient(timeout=WAIT_SECONDS) as http_client:
        async with http_client.stream("POST", server.url, content=b"{}") as response:
            assert b"".join([piece async for piece in response.aiter_raw()]) == b"hello"
        sock = response.extensions["network_stream"].get_extra_info("socket")
        gate.open()
        select.select([sock], [], [], WAIT_SECONDS)  # the event loop has no turn meanwhile
        assert await got(http_client, server.url) == Got(200, b"next", None)
    assert server.connections == 2


async def test_answers_that_come_at_once_are_read_on_a_connection_that_is_used_again(server: RawServer) -> None:
    server.answer(*body(b"hellohello"))
    server.answer(CHUNKED + HELLO + HELLO + END)
    async with FastHTTPClient(timeout=WAIT_SECONDS) as http_client:
        for _ in range(3):
            assert await got(http_client, server.url) == Got(200, b"hellohello", None)
    assert server.connections == 1


async def test_the_ends_of_a_connection_can_be_asked_for(server: RawServer) -> None:
    server.answer(*body(b"hello"))
    async with FastHTTPClient() as http_client:
        response = await http_client.post(server.url, content=b"{}")
        connection = response.extensions["network_stream"]
        assert connection.get_extra_info("server_addr") == ("127.0.0.1", server.port)
        assert connection.get_extra_info("client_addr")[0] == "127.0.0.1"
        assert connection.get_extra_info("ssl_object") is None
        assert connection.get_extra_info("no such thing") is None


async def test_the_environments_proxy_is_asked(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    server.answer(*stream(b"hel", b"lo"))
    async with FastHTTPClient() as http_client:
        assert await got(http_client, "http://api.invalid/") == Got(200, b"hello", None)
    assert server.requests[0].target == "http://api.invalid/"


@pytest.mark.parametrize(
    "size",
    [19, 65_535, 65_536, 65_537, 65_538, 65_539, 65_540, 90_000],
)
async def test_the_head_of_a_response_is_read_without_what_follows_it(size: int) -> None:
    beginning = b"HTTP/1.1 200 OK".ljust(size - 4, b"x") + b"\r\n\r\n"
    for arriving in ([beginning + HELLO], split(beginning + HELLO, [size - 3, size - 2, size - 1, size])):
        source: Any = _faster(_anyio_stream())
        read = b""
        for data in arriving:
            source.data_received(data)
            while source.received and not read.endswith(b"\r\n\r\n"):
                data = await source.read(65_536)
                assert 0 < len(data) <= 65_536
                read += data
        assert (read, source.take()) == (beginning, HELLO)


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param(head(200, {"content-length": "200000"}), id="of a length"),
        pytest.param(CHUNKED + b"30d40;a=b\r\n", id="in an odd chunk"),
    ],
)
async def test_blank_lines_in_a_body_are_no_more_work_than_other_bytes(beginning: bytes, server: RawServer) -> None:
    end = b"\r\n" + END if beginning.startswith(CHUNKED) else b""
    pieces: list[int] = []
    for content in (b"\n\n", b"xx"):
        server.answer(beginning + content * 100_000 + end)
    async with FastHTTPClient() as http_client:
        for _ in range(2):
            async with http_client.stream("POST", server.url, content=b"{}") as response:
                pieces.append(len([piece async for piece in response.aiter_raw()]))
    assert pieces[0] < 10 * pieces[1]


async def test_what_is_no_response_is_read_at_once_such_as_that_of_a_socks_proxy() -> None:
    source: Any = _faster(_anyio_stream())
    consent = b"\x05\x00\x00\x01\x0a\x0a\x00\x01\x1f\x90"  # at 10.10.0.1
    source.data_received(consent)
    assert await source.read(4096) == consent


async def test_a_wait_that_was_given_up_is_no_trouble_to_what_happens_later() -> None:
    source: Any = _faster(_anyio_stream())
    source.pause_writing()
    waits = [asyncio.ensure_future(source.read(10)), asyncio.ensure_future(source.write(b"x"))]
    await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    source.data_received(b"x")
    source.resume_writing()
    source.connection_lost(None)
    assert (await source.read(10), await source.read(10)) == (b"x", b"")


async def test_no_more_is_taken_in_than_a_bound_until_it_has_been_read() -> None:
    source: Any = _faster(_anyio_stream())
    transport = source._transport
    for _ in range(2):
        wait = asyncio.ensure_future(source.more(None))
        await asyncio.sleep(0)
        assert transport.reading
        source.data_received(b"x" * 40_000)
        await wait
        assert transport.reading
        source.data_received(b"x" * 40_000)
        assert not transport.reading
        assert len(source.take()) == 80_000


async def test_a_slow_reader_stops_the_server(server: RawServer) -> None:
    size = 40 * ENOUGH
    server.answer(CHUNKED, b"%x\r\n" % size + b"x" * size + b"\r\n", END)
    came = 0
    async with FastHTTPClient() as http_client, http_client.stream("POST", server.url, content=b"{}") as response:
        async for piece in response.aiter_raw():
            came += len(piece)
            assert len(piece) < ENOUGH, "it went on taking in what nobody read"
            if came < 10 * ENOUGH:
                for _ in range(50):
                    await asyncio.sleep(0)
    assert came == size


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def listening(serve: Serve, authority: trustme.CA | None = None) -> AsyncIterator[int]:
    """A port at which connections are served, over TLS if there is an authority; until all have ended."""
    context = None
    if authority is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    serving: list[asyncio.Task[None]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve_one(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as listener:
        yield listener.sockets[0].getsockname()[1]
        with fail_after(WAIT_SECONDS):
            await asyncio.gather(*serving)


async def passed_on(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass a connection on to another port, until either end hangs up."""
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))


@pytest.fixture
async def tls_url(server: RawServer, authority: trustme.CA) -> AsyncIterator[str]:
    """The server by TLS."""
    async with listening(partial(passed_on, server.port), authority) as port:
        yield f"https://127.0.0.1:{port}"


async def test_an_answer_streams_over_tls(server: RawServer, tls_url: str, trusting: ssl.SSLContext) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("Hi"), gate, chunk(" there", "stop"), DONE))
    server.answer(*ANSWER)
    async with (
        FastHTTPClient(verify=trusting) as http_client,
        client_of(server, base_url=tls_url, http_client=http_client) as client,
    ):
        async with client.chat_completion("Hi") as stream_:
            assert (await anext(stream_)).text == "Hi"
            gate.open()
            assert await stream_.get_final_text() == "Hi there"
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
        connection = http_client._transport._pool.connections[0]._connection._network_stream
        assert isinstance(connection, FastStream)
        assert connection.get_extra_info("ssl_object").selected_alpn_protocol() in (None, "http/1.1")
    assert server.connections == 1


async def test_an_authority_that_is_not_trusted_is_a_connection_error_and_nothing_was_sent(
    server: RawServer, tls_url: str
) -> None:
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    async with FastHTTPClient(verify=other) as http_client:
        with pytest.raises(APIConnectionError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            await client_of(server, base_url=tls_url, http_client=http_client, retries=0).chat_completion("Hi")
    assert (caught.value.processed, server.requests) == ("no", [])
    await server.all_closed()


async def test_plain_http_in_place_of_tls_is_a_connection_error_and_nothing_was_sent() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(refuse) as port, FastHTTPClient() as http_client:
        url = f"https://127.0.0.1:{port}"
        client = AsyncChatClient(url, operator_id="tn_1", token="t", http_client=http_client, retries=0)
        with pytest.raises(APIConnectionError) as caught:
            await client.chat_completion("Hi")
    assert caught.value.processed == "no"


async def test_a_tls_handshake_that_takes_too_long_is_a_connect_timeout(server: RawServer) -> None:
    async with FastHTTPClient(timeout=httpx.Timeout(WAIT_SECONDS, connect=0.05)) as http_client:
        with pytest.raises(httpx.ConnectTimeout):
            await http_client.get(f"https://127.0.0.1:{server.port}")
        await server.all_closed()


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_hang_up_in_mid_answer_over_tls_is_a_truncated_stream(
    end: Any, server: RawServer, tls_url: str, trusting: ssl.SSLContext
) -> None:
    server.answer(*stream(chunk("Hi"), end))
    async with FastHTTPClient(verify=trusting) as http_client:
        with pytest.raises(StreamTruncatedError) as caught:
            await client_of(server, base_url=tls_url, http_client=http_client).chat_completion("Hi").until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"


async def test_leaving_a_stream_early_over_tls_closes_the_connection(
    server: RawServer, tls_url: str, trusting: ssl.SSLContext
) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async with FastHTTPClient(verify=trusting) as http_client:
        async with client_of(server, base_url=tls_url, http_client=http_client).chat_completion("Hi") as stream_:
            await anext(stream_)
        await server.hung_up()


async def test_a_slow_reader_of_a_large_answer_over_tls_gets_all_of_it(
    server: RawServer, tls_url: str, trusting: ssl.SSLContext
) -> None:
    size = 5 * ENOUGH
    server.answer(CHUNKED, b"%x\r\n" % size + b"x" * size + b"\r\n", END, CLOSE)
    came = 0
    async with (
        FastHTTPClient(verify=trusting) as http_client,
        http_client.stream("POST", tls_url, content=b"{}") as response,
    ):
        async for piece in response.aiter_raw():
            came += len(piece)
            for _ in range(20):
                await asyncio.sleep(0)
    assert came == size


async def test_an_answer_that_comes_unasked_over_tls_is_not_the_answer_to_the_next_request(
    authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    later = asyncio.Event()
    answers = iter(["mine", "yours"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"".join(stream(chunk(next(answers), "stop"), DONE)))
            await later.wait()
            writer.write(b"".join(stream(chunk("not yours", "stop"), DONE)))

    async with listening(serve, authority) as port, FastHTTPClient(verify=trusting) as http_client:
        url = f"https://127.0.0.1:{port}"
        client = AsyncChatClient(url, operator_id="tn_1", token="t", http_client=http_client)
        assert await client.chat_completion("Hi").get_final_text() == "mine"
        later.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert await client.chat_completion("Hi").get_final_text() == "yours"
        await http_client.aclose()


async def test_what_a_proxy_sends_with_its_consent_is_not_the_answer_of_the_server_behind_it(
    server: RawServer, tls_url: str, trusting: ssl.SSLContext
) -> None:
    async def consent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(stream(chunk("forged", "stop"), DONE)))
        await passed_on(int(tls_url.rpartition(":")[2]), reader, writer)

    server.answer(*ANSWER)
    async with listening(consent) as port:
        proxied = FastHTTPClient(verify=trusting, proxy=f"http://127.0.0.1:{port}")
        client = client_of(server, base_url=tls_url, http_client=proxied, retries=0)
        with suppress(APIConnectionError):
            assert await client.chat_completion("Hi").get_final_text() == "Hi"
        await proxied.aclose()


async def test_a_proxy_that_hangs_up_after_its_consent_is_a_connect_error() -> None:
    async def consent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def trace(event: str, info: Any) -> None:
        nonlocal connection
        if event == "connection.connect_tcp.complete":
            connection = info["return_value"]
        if event.endswith("start_tls.started"):
            await wait_for(lambda: connection.over, "the end of the connection")

    connection: Any = None
    timeout = httpx.Timeout(WAIT_SECONDS, connect=0.5)
    async with listening(consent) as port:
        http_client = FastHTTPClient(proxy=f"http://127.0.0.1:{port}", timeout=timeout)
        try:
            with pytest.raises(httpx.ConnectError):
                await http_client.get("https://api.invalid", extensions={"trace": trace})
        finally:
            await http_client.aclose()


# ── as a user has it ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def http_client() -> AsyncIterator[FastHTTPClient]:
    async with FastHTTPClient() as http_client:
        yield http_client


@pytest.fixture
def client(server: RawServer, http_client: FastHTTPClient) -> AsyncChatClient:
    return client_of(server, http_client=http_client)


async def test_chunks_come_one_by_one_as_they_are_sent(server: RawServer, client: AsyncChatClient) -> None:
    gates = [server.gate() for _ in range(3)]
    server.answer(*stream(chunk("a"), gates[0], chunk("b"), gates[1], chunk("c", "stop"), gates[2], DONE))
    texts: list[str] = []
    async for each in client.chat_completion("Hi"):
        texts.append(each.text)
        gates[len(texts) - 1].open()
    assert texts == ["a", "b", "c"]


async def test_the_final_message_is_merged_and_the_connection_is_used_again(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi"), chunk(" there", "stop"), DONE))
    for _ in range(3):
        assert (await client.chat_completion("Hi").get_final_message()).text == "Hi there"
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_leaving_a_stream_early_closes_its_connection(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async with client.chat_completion("Hi") as stream_:
        await anext(stream_)
    await server.hung_up()
    stream_ = await client.chat_completion("Hi")
    await stream_.aclose()
    await server.hung_up(2)


async def test_closing_the_client_closes_idle_connections(server: RawServer) -> None:
    server.answer(*ANSWER)
    async with FastHTTPClient() as http_client:
        await client_of(server, http_client=http_client).chat_completion("Hi").until_done()
        assert server.open_connections == 1
    await server.all_closed()


async def test_a_hundred_streams_and_more_do_not_wait_for_one_another(
    server: RawServer, client: AsyncChatClient
) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("Hi"), gate, chunk("!", "stop"), DONE))
    streams = [client.chat_completion("Hi") for _ in range(120)]
    with fail_after(4 * WAIT_SECONDS):
        await asyncio.gather(*(anext(each) for each in streams))
        gate.open()
        assert await asyncio.gather(*(each.get_final_text() for each in streams)) == ["Hi!"] * 120
    assert server.connections == 120


async def test_limits_that_the_caller_sets_are_kept(server: RawServer) -> None:
    server.answer(*stream(b"hello", HOLD))
    limits = httpx.Limits(max_connections=1)
    async with FastHTTPClient(limits=limits, timeout=httpx.Timeout(WAIT_SECONDS, pool=0.05)) as http_client:
        async with http_client.stream("POST", server.url, content=b"{}"):
            assert await got(http_client, server.url) == Got(None, b"", httpx.PoolTimeout)
        await server.hung_up()


async def _forgotten(http_client: httpx.AsyncClient, server: RawServer, read: bool) -> list[httpx.Response]:
    request = http_client.build_request("POST", server.url, content=b"{}")
    response = await http_client.send(request, stream=True)
    if read:
        assert await anext(response.aiter_raw()) == b"hello"
    return [response]


@pytest.mark.parametrize("read", [True, False])
async def test_a_body_that_is_forgotten_closes_its_connection(
    read: bool, server: RawServer, http_client: FastHTTPClient
) -> None:
    server.answer(*stream(b"hello", HOLD))
    await _forgotten(http_client, server, read)
    await wait_for(lambda: gc.collect() >= 0 and server.hang_ups == 1, "the connection to be closed")


async def test_a_body_that_another_thread_collects_closes_its_connection(
    server: RawServer, http_client: FastHTTPClient
) -> None:
    server.answer(*stream(b"hello", HOLD))
    left = await _forgotten(http_client, server, False)

    def forget() -> None:
        left.clear()
        gc.collect()

    thread = threading.Thread(target=forget)
    thread.start()
    thread.join()
    await server.hung_up()


def test_a_body_that_is_forgotten_after_its_event_loop_was_closed_is_no_error(server: RawServer) -> None:
    server.answer(*stream(b"hello", HOLD))

    async def read() -> list[httpx.Response]:
        return await _forgotten(FastHTTPClient(), server, False)

    left = asyncio.run(read())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of asyncio
        left.clear()
        gc.collect()


async def test_a_body_that_was_read_to_its_end_leaves_its_connection_open_when_it_is_forgotten(
    server: RawServer, http_client: FastHTTPClient
) -> None:
    server.answer(*stream(b"hello"))
    for _ in range(2):
        response = await http_client.send(http_client.build_request("POST", server.url, content=b"{}"), stream=True)
        assert b"".join([piece async for piece in response.aiter_raw()]) == b"hello"
        del response
        gc.collect()
        await asyncio.sleep(0)
    assert server.connections == 1


@pytest.mark.parametrize("how", ["forgotten", "cancelled", "cancelled by a scope"])
async def test_a_body_that_is_given_up_gives_its_place_in_the_pool_back(how: str, server: RawServer) -> None:
    server.answer(*stream(b"hello", HOLD))
    limits = httpx.Limits(max_connections=1)
    async with FastHTTPClient(limits=limits, timeout=httpx.Timeout(None, pool=0.5)) as http_client:
        if how == "forgotten":
            await _forgotten(http_client, server, True)
            await wait_for(lambda: gc.collect() >= 0 and server.hang_ups == 1, "the connection to be closed")
        else:
            request = http_client.build_request("POST", server.url, content=b"{}")
            response = await http_client.send(request, stream=True)
            pieces = response.aiter_raw()
            assert await anext(pieces) == b"hello"
            if how == "cancelled":
                reading = asyncio.ensure_future(anext(pieces))
                await asyncio.sleep(0)
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
            else:
                with CancelScope() as scope:
                    asyncio.get_running_loop().call_soon(scope.cancel)
                    await anext(pieces)
        await server.hung_up()
        async with http_client.stream("POST", server.url, content=b"{}") as again:
            assert again.status_code == 200


async def test_a_read_that_is_abandoned_awaits_nothing_more(server: RawServer, http_client: FastHTTPClient) -> None:
    server.answer(*stream(b"hello", HOLD))
    async with http_client.stream("POST", server.url, content=b"{}") as response:
        stream_: Any = response.stream
        body: _ChunkedBody = stream_._stream  # below httpx's own generators
        assert await anext(body) == b"hello"
        reading = body.__anext__()
        reading.send(None)
        reading.close()  # as when its event loop is gone; it would be an error to await anything


async def test_a_read_that_is_cancelled_closes_the_connection(server: RawServer, http_client: FastHTTPClient) -> None:
    server.answer(*stream(b"hello", HOLD))
    async with http_client.stream("POST", server.url, content=b"{}") as response:
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"hello"
        reading = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await server.hung_up()


async def test_a_response_that_is_closed_while_it_is_read_ends_the_read(
    server: RawServer, http_client: FastHTTPClient
) -> None:
    server.answer(*stream(b"hello", HOLD))
    response = await http_client.send(http_client.build_request("POST", server.url, content=b"{}"), stream=True)
    pieces = response.aiter_raw()
    assert await anext(pieces) == b"hello"
    reading = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0)
    await response.aclose()
    with pytest.raises(httpx.ReadError), fail_after(WAIT_SECONDS):
        await reading
    await server.hung_up()


# ── timeouts of httpx ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "steps",
    [(HOLD,), (CHUNKED, HOLD), (CHUNKED, HELLO, HOLD), (CHUNKED, b"5\r\nhe", HOLD), (CHUNKED, b"5;a=b\r\nhe", HOLD)],
    ids=["before the response", "before the body", "between chunks", "in a chunk", "in an odd chunk"],
)
async def test_a_read_that_takes_too_long_is_a_read_timeout_and_closes_the_connection(
    steps: Any, server: RawServer
) -> None:
    server.answer(*steps)
    async with FastHTTPClient(timeout=httpx.Timeout(WAIT_SECONDS, read=0.05)) as http_client:
        with pytest.raises(httpx.ReadTimeout) as caught:
            await http_client.post(server.url, content=b"{}")
        assert caught.value.request.url == server.url
        await server.hung_up()
        assert http_client._transport._pool.connections == []


async def test_a_read_timeout_closes_the_connection_even_if_the_response_is_kept(server: RawServer) -> None:
    server.answer(CHUNKED, HELLO, HOLD)
    async with FastHTTPClient(timeout=httpx.Timeout(WAIT_SECONDS, read=0.05)) as http_client:
        request = http_client.build_request("POST", server.url, content=b"{}")
        response = await http_client.send(request, stream=True)
        with pytest.raises(httpx.ReadTimeout):
            await _exhaust(response.aiter_raw())
        await server.hung_up()
        assert http_client._transport._pool.connections == []


async def test_a_request_that_cannot_be_sent_is_a_write_timeout_and_closes_the_connection() -> None:
    with RawServer(reads_bodies=False) as server:
        async with FastHTTPClient(timeout=httpx.Timeout(WAIT_SECONDS, write=0.05)) as http_client:
            with pytest.raises(httpx.WriteTimeout):
                await http_client.post(server.url, content=b"x" * 30_000_000)
            assert http_client._transport._pool.connections == []
            server.stopping.set()
            await server.all_closed()


async def test_a_large_request_is_sent_whole(server: RawServer, http_client: FastHTTPClient) -> None:
    content = bytes(range(256)) * 40_000
    server.answer(*body(b"got it"))
    assert (await http_client.post(server.url, content=content)).content == b"got it"
    assert server.requests[0].body == content


async def test_a_server_that_closes_while_a_large_request_is_sent_is_a_lost_connection() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.transport.abort()

    async with listening(close) as port, FastHTTPClient() as http_client:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)), fail_after(WAIT_SECONDS):
            await http_client.post(f"http://127.0.0.1:{port}", content=b"x" * 30_000_000)


# ── where it is httpx as it is ───────────────────────────────────────────────────────────────────────────────────────


def _anyio_stream(**changes: Any) -> Any:
    protocol = SimpleNamespace(read_queue=deque(), is_at_eof=False, exception=None)
    transport = SimpleNamespace(set_protocol=lambda _: None, reading=False, write=lambda _: None)
    transport.resume_reading = lambda: setattr(transport, "reading", True)
    transport.pause_reading = lambda: setattr(transport, "reading", False)
    for name, value in changes.items():
        if value is None:
            delattr(transport if name == "set_protocol" else protocol, name)
        else:
            setattr(protocol, name, value)
    return SimpleNamespace(_stream=SimpleNamespace(_transport=transport, _protocol=protocol))


@pytest.mark.parametrize(
    "unfamiliar",
    [
        httpcore.AsyncMockStream([]),
        SimpleNamespace(_stream=None),
        SimpleNamespace(_stream=SimpleNamespace(_transport=SimpleNamespace(set_protocol=print))),
        _anyio_stream(read_queue=deque([b"x"])),
        _anyio_stream(is_at_eof=True),
        _anyio_stream(exception=OSError()),
        _anyio_stream(read_queue=None),
        _anyio_stream(is_at_eof=None),
        _anyio_stream(exception=None),
        _anyio_stream(set_protocol=None),
    ],
    ids=[
        *("other stream", "no stream below", "no protocol", "something was read", "at its end", "broken"),
        *("no queue", "no end", "no exception", "no way to take over"),
    ],
)
async def test_a_stream_that_looks_unfamiliar_stays_as_it_is(unfamiliar: Any) -> None:
    assert _faster(unfamiliar) is unfamiliar
    assert isinstance(_faster(_anyio_stream()), FastStream)


def test_it_works_on_trio(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), chunk(" there", "stop"), DONE))

    async def main() -> str:
        async with FastHTTPClient() as http_client:
            return await client_of(server, http_client=http_client).chat_completion("Hi").get_final_text()

    assert trio.run(main) == "Hi there"


async def test_a_transport_of_the_callers_own_is_used_as_it_is() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, text="mock"))
    async with FastHTTPClient(transport=transport) as http_client:
        assert (await http_client.get("http://api.invalid")).text == "mock"


async def test_a_pool_without_the_private_name_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, **options: Any) -> None:
            self.closed = False

        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *exc_info: object) -> None:
            self.closed = True

        aclose = __aexit__

    monkeypatch.setattr(httpcore, "AsyncConnectionPool", Pool)
    async with FastHTTPClient() as http_client:
        assert vars(http_client._transport._pool) == {"closed": False}  # type: ignore[attr-defined]


def test_it_is_not_imported_by_the_package() -> None:
    code = "import sys, chatapi_async; print(*[name for name in sys.modules if 'fast' in name and 'chatapi' in name])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == ""


async def test_it_is_an_http_client_of_httpx_and_taken_as_the_callers_own(server: RawServer) -> None:
    server.answer(*ANSWER)
    http_client = FastHTTPClient(headers={"user-agent": "mine/1"}, timeout=Timeouts().connect)
    assert isinstance(http_client, httpx.AsyncClient)
    async with client_of(server, http_client=http_client) as client:
        await client.chat_completion("Hi").until_done()
    assert not http_client.is_closed
    assert server.requests[0].header("user-agent") == "mine/1"
    await http_client.aclose()
    await server.all_closed()
