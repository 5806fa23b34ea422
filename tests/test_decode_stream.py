"""``decode_stream``: chunks of bytes without a client. That it agrees with the client is held by test_properties.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatapi_async import (
    ChatCompletionChunkResponse,
    ChatCompletionWithChatroomStreamResponse,
    ConfigurationError,
    EmptyStreamError,
    EventTooLargeError,
    MessageAccumulator,
    ServerStreamError,
    StreamDecodeError,
    StreamError,
    StreamTruncatedError,
    UnexpectedContentTypeError,
    decode_stream,
)
from tests.raw_server import DONE, chunk, event

ANSWER = (chunk("Hel"), b": ping\n\n", event({"type": "ping"}, "ping"), chunk("lo"), chunk(finish="stop"), DONE)
JSON = b'{"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}'


def text_of(chunks: Iterator[ChatCompletionChunkResponse]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize(
    "body",
    [b"".join(ANSWER), bytearray(b"".join(ANSWER)), memoryview(b"".join(ANSWER)), ANSWER, list(ANSWER), iter(ANSWER)],
    ids=["bytes", "bytearray", "memoryview", "tuple", "list", "iterator"],
)
def test_a_body_comes_whole_or_in_pieces(body: bytes) -> None:
    chunks = list(decode_stream(body))
    assert [type(each) for each in chunks] == [ChatCompletionChunkResponse] * 3
    assert [each.text for each in chunks] == ["Hel", "lo", ""]


def test_chunks_are_of_the_type_that_is_asked_for() -> None:
    chunks = list(decode_stream(b"".join(ANSWER), ChatCompletionWithChatroomStreamResponse))
    assert [type(each) for each in chunks] == [ChatCompletionWithChatroomStreamResponse] * 3


def test_a_piece_is_taken_when_the_chunks_before_it_have_been_and_none_after_the_end() -> None:
    taken: list[bytes] = []

    def pieces() -> Iterator[bytes]:
        for piece in (*ANSWER, chunk("another answer")):
            taken.append(piece)
            yield piece

    chunks = decode_stream(pieces())
    assert taken == []
    assert next(chunks).text == "Hel"
    assert taken == [ANSWER[0]]
    assert text_of(chunks) == "lo"
    assert taken == list(ANSWER)


def test_text_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigurationError, match="bytes of a body, not text"):
        decode_stream("data: [DONE]\n\n")  # type: ignore[arg-type]


def test_a_json_body_is_an_answer_whatever_it_is_called() -> None:
    assert text_of(decode_stream(JSON)) == "Hello"
    assert text_of(decode_stream(JSON, content_type="application/json; charset=utf-8")) == "Hello"


@pytest.mark.parametrize(
    ("body", "options", "error", "words"),
    [
        ((DONE,), {}, EmptyStreamError, "without an answer"),
        ((), {}, StreamTruncatedError, "the body ended after 0 chunks, before any answer"),
        (
            (chunk("Hel"),),
            {},
            StreamTruncatedError,
            "the body ended after 1 chunks, without a finish reason; what had arrived",
        ),
        ((chunk("Hello", "stop"),), {"choices": 2}, StreamTruncatedError, "with 1 of 2 answers"),
        ((chunk("Hel"), event({"message": "no more"}, "error")), {}, ServerStreamError, "no more"),
        ((chunk("Hel"), b"data: {\n\n"), {}, StreamDecodeError, "an event is no JSON"),
        ((chunk("Hel"), chunk("x" * 999)), {"max_event_bytes": 500}, EventTooLargeError, "max_event_bytes=500"),
        ((JSON,), {"max_event_bytes": 40, "content_type": "application/json"}, EventTooLargeError, "40"),
        ((b"<p>Sorry</p>",), {"content_type": "text/html"}, UnexpectedContentTypeError, "Sorry"),
    ],
)
def test_what_goes_wrong_is_the_clients_error_and_carries_what_came(
    body: tuple[bytes, ...], options: dict[str, int], error: type[StreamError], words: str
) -> None:
    merged = MessageAccumulator()
    received: list[ChatCompletionChunkResponse] = []
    with pytest.raises(error, match=words) as caught:
        received.extend(decode_stream(body, **options))  # type: ignore[arg-type]
    for each in received:
        merged.add(each)
    failure = caught.value
    assert failure.partial == merged.completion("truncated" if error is StreamTruncatedError else "failed")
    assert failure.chunks_received == len(received)


def test_a_body_that_ends_without_done_is_whole_if_every_answer_is() -> None:
    assert text_of(decode_stream((chunk("Hello", "stop"), chunk("Hello", "stop", index=1)), choices=2)) == "Hello"
