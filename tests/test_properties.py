"""What holds for any input: it is read, or it is one of our errors; and how it was split changes nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import os
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import (
    APIStatusError,
    AsyncChatClient,
    ChatAPIError,
    ChatCompletionChunkResponse,
    MessageAccumulator,
    ServerStreamError,
    StreamDecodeError,
    StreamError,
    UnknownEvent,
    decode_stream,
)
from chatapi_async._decode import DONE, HEARTBEAT, NOTHING, ChunkDecoder
from chatapi_async._failures import excerpt, parse_retry_after, server_stream_error, status_error
from tests.test_sse import SMALLEST_BOUND, events_of, events_of_httpx_sse, outcome, with_data

HEAD = '{"id":"msg_1","object":"chat.completion.chunk","model":"anthropic:claude-sonnet-4-5","choices":[{"delta":'
TEXTS = [
    "".join(
        f"data: {HEAD}{delta}}}]}}\n\n"
        for delta in (
            '{"role":"assistant"},"index":0',
            '{"role":"assistant","content":"仙台の🙂"},"index":0',
            '{"content":"a\\ud83d"},"index":0',
            '{"content":"\\ude00b"},"index":0',
            '{"tool_calls":[{"id":"toolu_1","type":"function","function":{"name":"f","arguments":""},"index":0}]},"index":0',
            '{"tool_calls":[{"function":{"arguments":"{\\"a\\": 1}"},"index":0}]},"index":0',
            '{},"index":0,"finish_reason":"stop"',
        )
    )
    + "data: [DONE]\n\n",
    '\ufeff: ping\r\n\r\nid: 1\r\ndata: {"choices":[{"delta":{"content":[{"type":"text","text":"é"}]}}]}\r\n\r\n'
    'event: ping\r\ndata: {"type":"ping"}\r\n\r\nevent: error\r\ndata: {"error":{"message":"m","code":502}}\r\n\r\n',
    'data: {"choices":[],"usage":{"total_tokens":null}}\r\rdata: {"choices":[{"message":\rdata: {"content":"x"},'
    '"delta":null,"finish_reason":"length"}]}\r\rerror: {"message":"m"}\r\rdata: [DONE]',
]  # fmt: skip
STREAMS = [text.encode() for text in TEXTS]
if RECORDED := os.environ.get("CHATAPI_TEST_STREAMS"):
    STREAMS += [file.read_bytes() for file in sorted(Path(RECORDED).glob("*.sse"))]
TOKENS = [b"\n", b"\r", b"\r\n", b"\n\n", b"\xff", b"\xef\xbb\xbf", b"data:", b"event: error\n", b"error: x\n",
          b"id: 1\n", b":", b'"', b"{", b"}]", b"\\ud83d", b"null", b'"error":"m",', b"[DONE]", b"\0"]  # fmt: skip


@st.composite
def mutated_streams(draw: st.DrawFn, compress: Callable[[bytes], bytes] = bytes) -> bytes:
    """A realistic stream with pieces cut out, repeated, or put in."""
    body = compress(draw(st.sampled_from(STREAMS)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(body)))
        end = draw(st.integers(start, min(len(body), start + 60)))
        inserted = draw(st.one_of(st.sampled_from([b"", body[start:end] * 2, body[:60]]), st.sampled_from(TOKENS)))
        body = body[:start] + inserted + body[end:]
    return body


@st.composite
def split(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """A body, and the same in pieces, some of which may be empty."""
    body = draw(bodies)
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=12)))
    return body, [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "choices", "index", "x"]), values)
    ),
    max_leaves=8,
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["assistant", None, 5]),
        "content": st.sampled_from(["", "Hi", "\ud83d", "\ude00!", None, 5, [{"type": "text", "text": "a"}], [1]]),
        "tool_calls": st.sampled_from([None, [], [{"index": 0, "id": ""}], [{"tool_id": "1"}], [{"index": "x"}], {}]),
    },
)
chunk_like = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["", "1", None, 1, 1.5, True]),
        "object": st.sampled_from(["chat.completion.chunk", "error", None]),
        "created": st.sampled_from([None, 0, 1.0, "5", "today", 2**70, True]),
        "choices": st.none()
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.sampled_from([0, 1, None, "1", 1.5]),
                    "delta": st.none() | deltas,
                    "finish_reason": st.sampled_from([None, "stop", 3]),
                    "error": st.sampled_from([None, "", "m"]),
                },
            ),
            max_size=2,
        ),
        "error": st.sampled_from([None, {}, "m", {"message": "m"}]),
        "usage": st.sampled_from([None, {}, {"total_tokens": 1}, 5]),
        "x": json_values,
    },
)


# ── bytes to events ──────────────────────────────────────────────────────────────────────────────────────────────────


@given(
    split(st.binary(max_size=80) | st.lists(st.sampled_from(TOKENS), max_size=8).map(b"".join)),
    st.integers(SMALLEST_BOUND, 60),
)
def test_any_bytes_in_any_pieces_give_the_same_events(body: tuple[bytes, list[bytes]], bound: int) -> None:
    whole, pieces = body

    assert outcome(*pieces) == outcome(whole)
    assert outcome(*pieces, max_event_bytes=bound) == outcome(whole, max_event_bytes=bound)


@given(split(mutated_streams()), st.integers(SMALLEST_BOUND, 400))
def test_a_bound_cuts_the_events_off_and_changes_none(body: tuple[bytes, list[bytes]], bound: int) -> None:
    whole, pieces = body
    events, error = outcome(*pieces, max_event_bytes=bound)
    unbounded, _ = outcome(whole)

    assert events == (unbounded if error is None else unbounded[: len(events)])
    assert error is not None or len(events) == len(unbounded)


sse_lines = st.one_of(
    st.sampled_from(["", "", "data", "event: ping", "event", "retry: 5", ": ping", "data: [DONE]", "event: error"]),
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8).map("data:".__add__),
)


@given(st.lists(sse_lines, max_size=20))
def test_httpx_sse_alone_reads_the_same_where_it_is_right(lines: list[str]) -> None:
    body = "".join(f"{line}\n" for line in lines).encode() + b"\n"

    assert with_data(events_of(body)) == events_of_httpx_sse(body)


# ── events to chunks ─────────────────────────────────────────────────────────────────────────────────────────────────


def decoded(decoder: ChunkDecoder[ChatCompletionChunkResponse], name: str, data: str) -> str:
    """What one event becomes, or the error that it is, in a form that can be compared."""
    try:
        item = decoder.decode(name, data)
    except (ServerStreamError, StreamDecodeError) as error:
        return repr(error)
    assert item in (DONE, HEARTBEAT) or isinstance(item, ChatCompletionChunkResponse | UnknownEvent)
    return repr(item)


@given(st.sampled_from(["", "message", "ping", "error"]), (json_values | chunk_like).map(json.dumps) | st.text())
def test_any_event_is_a_chunk_or_unknown_or_an_error_of_ours(name: str, data: str) -> None:
    result = decoded(ChunkDecoder(ChatCompletionChunkResponse), name, data)

    result.encode()


@given(chunk_like)
def test_while_half_a_character_is_held_chunks_decode_the_same(fields: dict[str, Any]) -> None:
    data = json.dumps(fields)
    holding = ChunkDecoder(ChatCompletionChunkResponse)
    holding.decode("", '{"choices": [], "held": "\\ud83d"}')

    assert decoded(holding, "", data) == decoded(ChunkDecoder(ChatCompletionChunkResponse), "", data)


@given(json_values.map(json.dumps) | chunk_like.map(json.dumps) | st.text())
def test_any_json_body_is_a_chunk_or_an_error_of_ours(text: str) -> None:
    try:
        chunk = ChunkDecoder(ChatCompletionChunkResponse).decode_body(text)
    except (ServerStreamError, StreamDecodeError):
        return
    assert isinstance(chunk, ChatCompletionChunkResponse)


@given(st.lists(st.text(st.sampled_from("aé仙🙂🎉"), max_size=4).flatmap(lambda text: st.tuples(
    st.just(text), st.lists(st.integers(0, 8), max_size=4))), min_size=1, max_size=3))  # fmt: skip
def test_text_cut_between_any_two_units_comes_out_whole(texts: list[tuple[str, list[int]]]) -> None:
    """Each choice has a text of its own, which is cut by UTF-16 unit; the pieces of the choices come in turn."""
    decoder = ChunkDecoder(ChatCompletionChunkResponse)
    accumulator = MessageAccumulator()
    pieces = [utf16_pieces(text, cuts) for text, cuts in texts]
    for turn in range(max(len(own) for own in pieces)):
        choices = [
            {"index": index, "delta": {"content": own[turn]}} for index, own in enumerate(pieces) if turn < len(own)
        ]
        chunk = decoder.decode("", json.dumps({"choices": choices}))
        assert isinstance(chunk, ChatCompletionChunkResponse)
        accumulator.add(chunk)

    assert [choice.message.text for choice in accumulator.completion().choices] == [text for text, _ in texts]


def utf16_pieces(text: str, cuts: list[int]) -> list[str]:
    units = text.encode("utf-16-le")
    places = sorted({0, *(2 * cut for cut in cuts if 2 * cut < len(units)), len(units)})
    raw = [units[start:end] for start, end in pairwise(places)]
    return [piece.decode("utf-16-le", "surrogatepass") for piece in raw] or [""]


# ── the whole way ────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(pieces: list[bytes], headers: dict[str, str]) -> tuple[str, str, int, int]:
    """What a caller gets of a response with this body: the error, the completion or its part, and how much came."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=headers, content=body())

    async def read() -> tuple[str, str, int, int]:
        transport = httpx.MockTransport(respond)
        merged, error = MessageAccumulator(), None
        async with (
            httpx.AsyncClient(transport=transport, trust_env=False) as http_client,
            AsyncChatClient("http://localhost", operator_id="tn_1", token="t0ken", http_client=http_client) as client,
            client.chat_completion("Hi") as stream,
        ):
            try:
                async for chunk in stream:
                    merged.add(chunk)
            except StreamError as failure:
                error = failure
        completion = stream.snapshot if error is None else error.partial
        assert completion == merged.completion(completion.completeness if completion else "failed")
        assert (completion.completeness in ("truncated", "failed")) == (error is not None)
        return repr(error), repr(completion), stream.stats.chunks, stream.stats.heartbeats

    return asyncio.run(read())


GZIP = partial(gzip.compress, mtime=0)
KINDS = ["text/event-stream", "text/event-stream; charset=latin-1", "application/json", "text/html", ""]


@given(split(mutated_streams() | st.binary(max_size=40)), st.sampled_from(KINDS))
def test_any_body_in_any_pieces_ends_in_the_same_completion_or_error(
    body: tuple[bytes, list[bytes]], kind: str
) -> None:
    whole, pieces = body

    assert answer(pieces, {"content-type": kind}) == answer([whole], {"content-type": kind})


@given(split(mutated_streams() | st.binary(max_size=40)), st.sampled_from(KINDS))
def test_decode_stream_gives_the_same_chunks_and_the_same_end_as_the_client(
    body: tuple[bytes, list[bytes]], kind: str
) -> None:
    whole, pieces = body
    merged, error, chunks = MessageAccumulator(), None, 0
    try:
        for chunk in decode_stream(pieces, content_type=kind):
            merged.add(chunk)
            chunks += 1
    except StreamError as failure:
        error = failure
    completion = merged.completion("complete") if error is None else error.partial

    assert (repr(error), repr(completion), chunks) == answer([whole], {"content-type": kind})[:3]
    assert error is None or error.chunks_received == chunks
    assert completion == merged.completion(completion.completeness if completion else "complete")


@given(split(mutated_streams().map(GZIP) | mutated_streams(GZIP)))
def test_any_compressed_body_in_any_pieces_ends_in_the_same_completion_or_error(
    body: tuple[bytes, list[bytes]],
) -> None:
    whole, pieces = body
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}

    assert answer(pieces, headers) == answer([whole], headers)


@given(st.data())
def test_what_came_before_the_body_broke_off_is_the_beginning_of_the_answer(data: st.DataObject) -> None:
    whole = STREAMS[0]
    cut = data.draw(st.integers(0, len(whole)))
    accumulator, decoder = MessageAccumulator(), ChunkDecoder(ChatCompletionChunkResponse)

    for event in events_of(whole[:cut]):
        item = decoder.decode(event.name, event.data, unterminated=event.unterminated)
        assert item in (DONE, NOTHING) or isinstance(item, ChatCompletionChunkResponse)
        if isinstance(item, ChatCompletionChunkResponse):
            accumulator.add(item)

    assert "仙台の🙂a😀b".startswith(accumulator.completion().text)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────

DATE_WORDS = ["Mon,", "Jan", "31", "2025", "0001", "9999", "99:99:99", "23:59:60", "GMT", "+9999", "-2359", "-", ".",
              ":", "inf", "1e5", "12-Jan-20", "9" * 400]  # fmt: skip
dates = st.lists(st.sampled_from(DATE_WORDS)).map(" ".join)


@given(st.text() | st.floats().map(str) | dates, st.floats(0, 1e11))
def test_any_retry_after_is_a_wait_or_nothing(value: str, now: float) -> None:
    seconds = parse_retry_after(value, now=now)

    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


MARKUP = ["<html>", "<![", "]]>", "<!--", "-->", "<p", ">", "<", "/", "&#", ";", "script", "</script>", "=", '"', "a",
          "1", " ", "[", "?", "!"]  # fmt: skip
markup = st.lists(st.sampled_from(MARKUP)).map("".join)


@given(markup | markup.map("<p>".__add__) | st.text())
def test_any_excerpt_is_one_bounded_line(text: str) -> None:
    words = excerpt(text)

    assert len(words) <= 200
    assert len(words.splitlines()) <= 1


@given(st.integers(300, 599), st.binary() | json_values.map(lambda value: json.dumps(value).encode()), st.text())
def test_any_answer_that_is_no_success_is_a_status_error_that_can_be_printed(
    status_code: int, body: bytes, retry_after: str
) -> None:
    error: ChatAPIError = status_error(
        where="POST /", status_code=status_code, headers={"retry-after": retry_after}, body=body, now=0, request_id=None
    )

    assert isinstance(error, APIStatusError)
    assert error.retryable <= (error.processed == "no")
    str(error).encode()


@given(json_values)
def test_any_payload_of_an_error_has_a_message(payload: object) -> None:
    assert str(server_stream_error(payload)).startswith("the server sent an error in the stream: ")
