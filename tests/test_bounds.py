"""How much a stream may cost: memory, whatever the server sends, and reading, which goes no faster than the caller."""

from __future__ import annotations

import gzip
import json
import select
import socket
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from chatapi_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatClient,
    ChatAPIError,
    EventTooLargeError,
    InternalServerError,
    StreamTruncatedError,
    Timeouts,
    UnexpectedContentTypeError,
)
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    Connection,
    Gate,
    HungUpError,
    RawServer,
    Repeat,
    chunk,
    client_of,
    event,
    head,
    stream,
    wait_for,
)

MEBIBYTE = 1 << 20
LIMIT = 1_000_000
"""``max_event_bytes`` of these tests."""


@contextmanager
def memory_bounded(limit: int) -> Iterator[None]:
    """Fail if more than ``limit`` bytes of new memory are held at any moment."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / MEBIBYTE:.1f} MiB"


def impatient(server: RawServer) -> AsyncChatClient:
    """A client that gives up in time on what a bound should have ended."""
    return client_of(server, max_event_bytes=LIMIT, timeout=Timeouts(total=20), retries=0)


# ── one event without end ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"data: ", b"x" * 10_000),
        (b"", b"data: " + b"x" * 100 + b"\n"),
        (b"", b"data\n" * 1000),
        (b"", b"data: x\r" * 1000),
        (b"", b"event: e\r\n" * 1000),
        (b": ", b"x" * 10_000),
    ],
    ids=["a line", "lines of data", "empty lines of data", "lines that end in CR", "lines of a field", "a comment"],
)
async def test_an_event_without_end_is_given_up_in_bounded_memory(
    beginning: bytes, endless: bytes, server: RawServer
) -> None:
    server.answer(*stream(chunk("Hi"), beginning, Repeat(endless)))
    async with impatient(server) as client:
        with memory_bounded(24 * MEBIBYTE), pytest.raises(EventTooLargeError) as caught:
            await client.chat_completion("Hi").until_done()
        assert caught.value.partial is not None
        assert (caught.value.limit, caught.value.partial.text) == (LIMIT, "Hi")
        await server.hung_up()


async def test_comments_without_a_blank_line_between_them_are_no_event_without_end(server: RawServer) -> None:
    comments = b": ping\n" * 1000
    server.answer(
        *stream(chunk("Hel"), *[comments] * 20, b": pi", b"ng\n", *[comments] * 20, chunk("lo", "stop"), DONE)
    )
    async with client_of(server, max_event_bytes=10_000) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"


async def test_comments_within_an_event_do_not_hide_its_size(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), Repeat(b"data: " + b"x" * 1000 + b"\n: ping\n")))
    async with impatient(server) as client:
        with pytest.raises(EventTooLargeError):
            await client.chat_completion("Hi").until_done()
        await server.hung_up()


# ── compressed, to a thousandth and less ─────────────────────────────────────────────────────────────────────────────

GZIP, DEFLATE = 31, 15
"""The ``wbits`` of zlib."""


def bomb(beginning: bytes, wbits: int) -> bytes:
    """A compressed body, itself of some 400 KiB, that begins so, and goes on with 400 MiB of one line."""
    compressor = zlib.compressobj(9, wbits=wbits)
    start = compressor.compress(beginning) + compressor.flush(zlib.Z_FULL_FLUSH)
    mebibyte = compressor.compress(b"x" * MEBIBYTE) + compressor.flush(zlib.Z_FULL_FLUSH)
    return start + 400 * mebibyte


BOMBS = {
    "stream": (200, "text/event-stream", chunk("Hi") + b"data: ", EventTooLargeError),
    "JSON": (200, "application/json", b'{"choices": "', EventTooLargeError),
    "page": (200, "text/html", b"<p>", UnexpectedContentTypeError),
    "error": (500, "text/html", b"<p>", InternalServerError),
}


@pytest.mark.parametrize("wbits", [GZIP, DEFLATE], ids=["gzip", "deflate"])
@pytest.mark.parametrize("kind", BOMBS)
async def test_a_small_body_that_is_huge_decompressed_is_given_up_in_bounded_memory(
    kind: str, wbits: int, server: RawServer
) -> None:
    status, content_type, beginning, error_type = BOMBS[kind]
    encoding = "gzip" if wbits == GZIP else "deflate"
    headers = {"content-type": content_type, "content-encoding": encoding}
    server.answer(head(status, headers), bomb(beginning, wbits), HOLD)
    async with impatient(server) as client:
        with memory_bounded(16 * MEBIBYTE), pytest.raises(error_type) as caught:
            await client.chat_completion("Hi").until_done()
        await server.hung_up()
    error: Any = caught.value
    if error_type is EventTooLargeError:
        assert error.partial.text == ("Hi" if kind == "stream" else "")
    else:
        assert error.body.startswith("<p>xxx")
        assert len(error.body) == 64 * 1024


@pytest.mark.parametrize("encoding", ["gzip, gzip", "Deflate,GZIP", "br", "zstd"])
@pytest.mark.parametrize("kind", BOMBS)
async def test_any_other_compression_is_refused_by_name(kind: str, encoding: str, server: RawServer) -> None:
    status, content_type, beginning, _ = BOMBS[kind]
    headers = {"content-type": content_type, "content-encoding": encoding}
    server.answer(head(status, headers), gzip.compress(bomb(beginning, GZIP)), HOLD)
    async with impatient(server) as client:
        with memory_bounded(16 * MEBIBYTE), pytest.raises(ChatAPIError) as caught:
            await client.chat_completion("Hi").until_done()
        await server.hung_up()
    if status == 500:
        assert isinstance(caught.value, InternalServerError)
    else:
        assert isinstance(caught.value, UnexpectedContentTypeError)
        assert encoding.lower() in str(caught.value).lower()
        assert caught.value.content_type == content_type


ENCODINGS = pytest.mark.parametrize(
    ("encoding", "wbits"),
    [("gzip", GZIP), ("GZip", GZIP), ("deflate", DEFLATE)],
    ids=["gzip", "in mixed case", "deflate"],
)


@ENCODINGS
async def test_a_compressed_stream_arrives_event_by_event(
    encoding: str, wbits: int, server: RawServer, client: AsyncChatClient
) -> None:
    compressor = zlib.compressobj(wbits=wbits)
    first, second = (compressor.compress(chunk(text)) + compressor.flush(zlib.Z_SYNC_FLUSH) for text in ("Hel", "lo"))
    gate = server.gate()
    end = compressor.compress(DONE) + compressor.flush()
    server.answer(*stream(first, gate, second, end, content_encoding=encoding))
    stream_ = client.chat_completion("Hi")
    assert (await anext(stream_)).text == "Hel"
    gate.open()
    assert (await stream_.get_final_completion()).text == "Hello"


@ENCODINGS
async def test_a_compressed_stream_may_arrive_byte_by_byte(
    encoding: str, wbits: int, server: RawServer, client: AsyncChatClient
) -> None:
    compressor = zlib.compressobj(wbits=wbits)
    data = compressor.compress(chunk("Hello") + DONE) + compressor.flush()
    server.answer(*stream(*(data[at : at + 1] for at in range(len(data))), content_encoding=encoding))
    assert await client.chat_completion("Hi").get_final_text() == "Hello"


@pytest.mark.parametrize("pieces", [1, 2], ids=["in one piece", "one by one"])
async def test_a_gzip_body_may_have_several_members(pieces: int, server: RawServer, client: AsyncChatClient) -> None:
    members = [gzip.compress(chunk("Hel")), gzip.compress(chunk("lo", "stop") + DONE)]
    server.answer(*stream(*([b"".join(members)] if pieces == 1 else members), content_encoding="gzip"))
    assert await client.chat_completion("Hi").get_final_text() == "Hello"


@pytest.mark.parametrize("rest", [b"", b"\xff" * 100], ids=["cut off", "broken"])
async def test_a_gzip_body_that_breaks_off_is_truncated_and_what_came_before_is_kept(
    rest: bytes, server: RawServer, client: AsyncChatClient
) -> None:
    compressor = zlib.compressobj(wbits=GZIP)
    whole_event = compressor.compress(chunk("Hi")) + compressor.flush(zlib.Z_SYNC_FLUSH)
    gate = server.gate()
    server.answer(*stream(whole_event, gate, rest, content_encoding="gzip"))
    stream_ = client.chat_completion("Hi")
    assert (await anext(stream_)).text == "Hi"
    gate.open()
    with pytest.raises(StreamTruncatedError) as caught:
        await anext(stream_)
    assert caught.value.partial is not None
    assert (caught.value.partial.text, caught.value.chunks_received) == ("Hi", 1)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_compressed_as_it_says_is_truncated(
    encoding: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(chunk("Hi", "stop"), DONE, content_encoding=encoding))
    with pytest.raises(StreamTruncatedError, match="after 0 chunks"):
        await client.chat_completion("Hi").until_done()


# ── a long stream ────────────────────────────────────────────────────────────────────────────────────────────────────

# A program takes over the peak of the one that starts it; a fork of it begins with its own.
READ_AND_MEASURE = """
import asyncio, json, os, resource, sys
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from chatapi_async import AsyncChatClient

async def main(url, count):
    async with AsyncChatClient(url, operator_id="tn_1", token="t0ken") as client:
        stream = client.chat_completion("Hi")
        readings = (stream, stream.text_stream, stream.events())
        peaks = []
        for reading, until in zip((stream, *readings), (count // 20, count // 3, count * 2 // 3, count)):
            while stream.stats.chunks < until:
                await anext(reading)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        completion = await stream.get_final_completion()
        print(json.dumps([peaks, len(completion.text), stream.stats.bytes]))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class Numbers(Gate):
    """A step that sends events of about 1 KiB, whose texts are six digits, no two alike."""

    def __init__(self, count: int) -> None:
        self._count = count

    def pass_through(self, connection: Connection) -> None:
        before, after = chunk("~", padding="x" * 890).split(b"~")
        for start in range(0, self._count, 200):
            data = b"".join(b"%b%06d%b" % (before, number, after) for number in range(start, start + 200))
            connection.sock.sendall(b"%x\r\n%b\r\n" % (len(data), data))


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_length_of_a_stream(server: RawServer) -> None:
    count = 200_000
    server.answer(*stream(Numbers(count), chunk(finish="stop"), DONE))
    program = [sys.executable, "-c", READ_AND_MEASURE, server.url, str(count)]
    output = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60).stdout
    (after_a_twentieth, *later), characters, received = json.loads(output)
    assert (characters, received > 190 * MEBIBYTE) == (count * 6, True)
    # The text itself is more than a million characters, of which joining makes copies.
    assert [peak - after_a_twentieth < 8 * MEBIBYTE for peak in later] == [True] * 3, (after_a_twentieth, later)


# ── a slow reader ────────────────────────────────────────────────────────────────────────────────────────────────────


class Flood(Gate):
    """A step that sends events without end, as fast as the client takes them, and knows when it takes no more."""

    def __init__(self) -> None:
        self.sent = 0
        self.blocked = threading.Event()

    def pass_through(self, connection: Connection) -> None:
        data = stream(chunk("x" * 16_000))[1]
        assert isinstance(data, bytes)
        connection.sock.setblocking(False)
        while True:
            for at in range(0, len(data), 4096):
                self._send_all(connection.sock, data[at : at + 4096])

    def _send_all(self, sock: socket.socket, data: bytes) -> None:
        while data:
            _, writable, _ = select.select([], [sock], [], 0.3)
            if not writable:
                self.blocked.set()
                continue
            try:
                count = sock.send(data)
            except BlockingIOError:
                continue
            except OSError:
                raise HungUpError from None
            self.sent += count
            data = data[count:]


async def _slow_reader(server: RawServer) -> None:
    flood = Flood()
    server.answer(head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}), flood)
    async with client_of(server) as client, client.chat_completion("Hi") as stream_:
        await anext(stream_)
        await wait_for(flood.blocked.is_set, "the server to be stopped")
        assert flood.sent < 16 * MEBIBYTE
        more_than_was_under_way = flood.sent + MEBIBYTE
        while stream_.stats.bytes < more_than_was_under_way:
            await anext(stream_)
    await server.hung_up()


async def test_a_slow_reader_stops_the_server_on_asyncio(server: RawServer) -> None:
    await _slow_reader(server)


def test_a_slow_reader_stops_the_server_on_trio(server: RawServer) -> None:
    trio.run(_slow_reader, server)


# ── HTTP without end ─────────────────────────────────────────────────────────────────────────────────────────────────

CHUNKED = head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"", b"x" * 1000),
        (b"HTTP/1.1 200 ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nx-header: ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"x-header: 1\r\n" * 100),
    ],
    ids=["no line", "status line", "header", "headers"],
)
async def test_a_response_that_never_begins_is_given_up_in_bounded_memory(
    beginning: bytes, endless: bytes, server: RawServer
) -> None:
    server.answer(beginning, Repeat(endless))
    async with impatient(server) as client:
        with memory_bounded(16 * MEBIBYTE), pytest.raises(APIConnectionError) as caught:
            await client.chat_completion("Hi")
        await server.hung_up()
    assert caught.value.processed == "unknown"


async def test_interim_responses_without_end_are_given_up_at_the_timeout(server: RawServer) -> None:
    server.answer(Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10))
    async with client_of(server, timeout=Timeouts(first_chunk=0.3)) as client:
        with memory_bounded(16 * MEBIBYTE), pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi")
        await server.hung_up()
    assert caught.value.phase == "first_chunk"


@pytest.mark.parametrize(
    ("beginning", "endless"),
    [
        (b"0\r\nx-trailer: ", b"x" * 1000),
        (b"0\r\n", b"x-trailer: 1\r\n" * 100),
        (b"", b"0" * 1000),
        (b"1;", b"x" * 1000),
    ],
    ids=["trailer", "trailers", "size of a chunk", "extension of a chunk"],
)
async def test_chunked_encoding_that_never_ends_is_truncated_in_bounded_memory(
    beginning: bytes, endless: bytes, server: RawServer
) -> None:
    server.answer(*stream(chunk("Hi"), CLOSE)[:-1], beginning, Repeat(endless))
    async with impatient(server) as client:
        with memory_bounded(16 * MEBIBYTE), pytest.raises(StreamTruncatedError) as caught:
            await client.chat_completion("Hi").until_done()
        await server.hung_up()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"


async def test_empty_events_without_end_are_given_up_at_the_timeout_in_bounded_memory(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), Repeat(b"\n" * 1000 + event("") * 100)))
    async with client_of(server, timeout=Timeouts(idle=0.3)) as client:
        with memory_bounded(16 * MEBIBYTE), pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi").until_done()
        await server.hung_up()
    assert caught.value.phase == "idle"
