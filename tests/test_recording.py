"""Recordings as files: what is written is read back exactly; any bytes are a recording, or an error that says where."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async import (
    APIConnectionError,
    APITimeoutError,
    ChatAPIError,
    ChatCompletionChunkResponse,
    ChatCompletionWithChatroomStreamResponse,
    EventTooLargeError,
    RateLimitError,
    RecordingError,
    StreamClosedError,
    StreamTruncatedError,
    UnexpectedContentTypeError,
)
from chatapi_async._recording_lines import end_line, opening_lines, parse, piece_line, response_line
from chatapi_async.recording import End, Outcome, Piece, RecordedRequest, Recording, read_recording
from tests.raw_server import DONE, chunk, event
from tests.test_properties import mutated_streams, split

BEGAN = datetime(2026, 11, 26, 22, 10, 30, 123456, tzinfo=UTC)
REQUEST = RecordedRequest("POST", "http://localhost/v1", {"authorization": "[removed]"}, {"messages": [], "n": 1})
EVENT_STREAM = {"content-type": "text/event-stream", "x-request-id": "req_1"}
ENDED = End(9.0, "body_ended")
PART = (chunk("Hel"), chunk("lo"))
TIMED_OUT = Outcome("failed", "APITimeoutError", "too long", "idle", 0.5, "unknown", retryable=False)


def recording(*pieces: bytes, end: End | None = ENDED, **changes: Any) -> Recording:
    """A recording of an answer with this body, read a second a piece."""
    given: dict[str, Any] = {
        "library": "chatapi-async 1.0",
        "began": BEGAN,
        "operation": "chat_completion",
        "request": REQUEST,
        "status_code": 200,
        "headers": EVENT_STREAM,
        "responded": 0.5,
        "pieces": tuple(Piece(float(number), piece) for number, piece in enumerate(pieces, 1)),
        "end": end,
    }
    return Recording(**given | changes)


def written(recording: Recording) -> bytes:
    """The file of a recording."""
    lines = [opening_lines(recording.library, recording.began, recording.operation, recording.request)]
    if recording.status_code is not None:
        lines.append(response_line(recording.responded or 0.0, recording.status_code, recording.headers))
    lines += [piece_line(piece) for piece in recording.pieces]
    if recording.end is not None:
        lines.append(end_line(recording.end))
    return b"".join(lines)


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(split(mutated_streams() | st.binary(max_size=60)))
def test_the_bytes_and_how_they_were_split_come_back_exactly(body: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = body
    original = recording(*pieces)

    again = parse(written(original), "x.jsonl")

    assert again == original
    assert again.body == whole


texts = st.text(st.characters(exclude_categories=[]) | st.just("\ud83d"), max_size=9)
ends = st.builds(
    End,
    st.floats(0, 1e6).map(lambda seconds: round(seconds, 6)),
    st.sampled_from(["body_ended", "client_closed", "connection_closed", "connection_reset", "unreadable"]),
    st.text(max_size=9),
    st.none()
    | st.builds(Outcome, st.sampled_from(["complete", "stopped", "failed"]))
    | st.builds(Outcome, st.just("failed"), st.sampled_from(["APITimeoutError", "Other"]), st.text(max_size=9)),
)


@given(
    st.dictionaries(texts, texts | st.none() | st.integers() | st.lists(texts)),
    st.dictionaries(st.sampled_from(["a", "x-b"]), st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8"))),
    st.none() | ends,
)
def test_requests_headers_and_ends_come_back_exactly(
    body: dict[str, Any], headers: dict[str, str], end: End | None
) -> None:
    original = recording(b"x", end=end, headers=headers, request=RecordedRequest("POST", "http://é", headers, body))

    assert parse(written(original), "x.jsonl") == original


def test_a_request_that_is_nested_as_deeply_as_can_be_sent_comes_back() -> None:
    body: dict[str, Any] = {"messages": []}
    for _ in range(250):
        body = {"x": body}
    original = recording(DONE, request=RecordedRequest("POST", "http://x", {}, body))
    assert parse(written(original), "x.jsonl") == original


def test_a_person_can_read_it() -> None:
    lines = written(recording("data: 仙台\n\n".encode(), b"\xe4\xbb")).decode().splitlines()
    assert lines == [
        '{"recording": 1, "library": "chatapi-async 1.0", "began": "2026-11-26T22:10:30.123456Z", '
        '"operation": "chat_completion"}',
        '{"request": {"method": "POST", "url": "http://localhost/v1", "headers": {"authorization": "[removed]"}, '
        '"body": {"messages": [], "n": 1}}}',
        '{"response": {"seconds": 0.5, "status": 200, "headers": {"content-type": "text/event-stream", '
        '"x-request-id": "req_1"}}}',
        '{"seconds": 1.0, "text": "data: 仙台\\n\\n"}',
        '{"seconds": 2.0, "base64": "5Ls="}',
        '{"end": {"seconds": 9.0, "how": "body_ended"}}',
    ]


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(written(recording(DONE)))
    assert read_recording(path) == read_recording(str(path)) == recording(DONE)
    with pytest.raises(FileNotFoundError):
        read_recording(tmp_path / "b.jsonl")


# ── any bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────

FILE = written(recording(chunk("Hel"), b"\xff", DONE, end=End(3.5, "client_closed", "d", TIMED_OUT)))
TOKENS = [b"\n", b"{}", b"null", b"1e999", b"-1", b'"seconds":', b'{"end": 1}\n', b"NaN", b"\xff", b"[", b'"\\ud83d"']


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A recording with pieces cut out, repeated, or put in."""
    data = FILE
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 200)))
        data = data[:start] + draw(st.sampled_from([b"", data[start:end] * 2, *TOKENS])) + data[end:]
    return data


@given(st.binary() | files())
def test_any_bytes_are_a_recording_or_an_error_that_names_the_line(data: bytes) -> None:
    problem: RecordingError | None = None
    try:
        found = parse(data, "x.jsonl")
    except RecordingError as error:
        problem = error
    else:
        with suppress(ChatAPIError):
            for each in found.chunks():
                assert isinstance(each, ChatCompletionChunkResponse | ChatCompletionWithChatroomStreamResponse)
    if problem is not None:
        assert str(problem).startswith(f"x.jsonl, line {problem.line}: ")
        assert 1 <= problem.line <= data.count(b"\n") + 2


def test_a_recording_that_broke_off_anywhere_is_read_as_far_as_it_goes() -> None:
    whole = parse(FILE, "x.jsonl")
    opening = FILE.index(b'{"response"')
    for length in range(opening, len(FILE)):
        part = parse(FILE[:length], "x.jsonl")
        assert part.pieces == whole.pieces[: len(part.pieces)]
        assert len(part.pieces) >= FILE[:length].count(b"\n") - 3 - (length >= len(FILE) - 1)
        assert part.end is None or length == len(FILE) - 1
    for length in range(opening - 1):
        with pytest.raises(RecordingError):
            parse(FILE[:length], "x.jsonl")


def changed(old: str, new: str) -> bytes:
    assert old.encode() in FILE
    return FILE.replace(old.encode(), new.encode(), 1)


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", 1, "the file is empty"),
        (b"\n \n", 1, "the file is empty"),
        (b"# Notes\n", 1, 'this is no recording, whose first line is {"recording": 1, …}'),
        (b'{"a": 1}\n', 1, "this is no recording"),
        (b"[1]", 1, "this is no recording"),
        (changed('"recording": 1', '"recording": 2'), 1, "format 2, and format 1 is what is read"),
        (changed("2026-11-26T22:10:30.123456Z", "yesterday"), 1, "began: Input should be a valid datetime"),
        (changed('"chat_completion"', '"chat"'), 1, "operation: Input should be 'chat_completion'"),
        (FILE.splitlines()[0] + b"\n", 2, "the recording broke off before its request"),
        (changed('{"request"', '{"end"'), 2, 'a line with "request" should be here'),
        (changed('"url"', '"uri"'), 2, "url: Field required"),
        (changed('"status": 200', '"status": 7'), 3, "status: Input should be greater"),
        (changed('"x-request-id"', '"x request id"'), 3, "headers: x request id"),
        (changed('"req_1"', '"req_1\\r\\na: b"'), 3, "headers: x-request-id"),
        (changed('{"response"', '{"seconds"'), 3, 'a line with "response" or "end" should be here'),
        (changed('"seconds": 1.0', '"seconds": -1'), 4, "seconds: Input should be greater than or equal"),
        (changed('"seconds": 1.0', '"seconds": NaN'), 4, "seconds: Input should be a finite number"),
        (changed('"text": ', '"base64": "", "text": '), 4, 'a read has either "text" or "base64"'),
        (changed('"text": ', '"txt": '), 4, 'a read has either "text" or "base64"'),
        (changed('"text": "', '"text": "\\ud83d'), 4, "cannot be made out"),
        (changed('"base64": "/w=="', '"base64": "="'), 5, "cannot be made out"),
        (changed('"how": "client_closed"', '"how": "so so"'), 7, "how: Input should be 'body_ended'"),
        (FILE + b"\n" + FILE, 9, "nothing follows the end"),
        (FILE + b"x", 8, "it is no JSON"),
        (changed('"messages"', '\n"messages"'), 2, "it is no JSON"),
        (FILE.replace(b'"messages"', b'"\xff"'), 2, "it is no JSON"),
        (changed('"messages": []', '"messages": ' + "[" * 99999), 2, "it is no JSON"),
    ],
)
def test_an_error_says_where_and_what(data: bytes, line: int, words: str) -> None:
    with pytest.raises(RecordingError) as caught:
        parse(data, "some/file.jsonl")
    assert caught.value.line == line
    assert str(caught.value).startswith(f"some/file.jsonl, line {line}: ")
    assert words in str(caught.value)


def test_a_recording_that_broke_off_was_not_left() -> None:
    assert not recording(*PART, end=None).stopped


def test_what_a_later_version_adds_is_passed_over() -> None:
    data = changed('"library"', '"python": "3.20", "library"')
    assert parse(data, "x.jsonl") == parse(FILE, "x.jsonl")


# ── what the client read ─────────────────────────────────────────────────────────────────────────────────────────────


def test_an_answer_is_its_chunks_and_its_completion() -> None:
    whole = recording(*PART, chunk(finish="stop"), DONE)
    assert [type(each) for each in whole.chunks()] == [ChatCompletionChunkResponse] * 3
    completion = whole.completion()
    assert (completion.text, completion.completeness) == ("Hello", "complete")
    in_room = recording(chunk("Hi", "stop"), DONE, operation="chat_completion_on_chatroom")
    assert [type(each) for each in in_room.chunks()] == [ChatCompletionWithChatroomStreamResponse]
    asked = {"messages": [], "n": 2}
    with pytest.raises(StreamTruncatedError, match="with 1 of 2 answers"):
        recording(chunk("Hi", "stop"), request=RecordedRequest("POST", "http://x", {}, asked)).completion()


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [
        (None, StreamTruncatedError, "the recording broke off after 2 chunks"),
        (End(9, "body_ended"), StreamTruncatedError, "the body ended after 2 chunks"),
        (End(9, "connection_reset", "gone"), StreamTruncatedError, r"the connection broke \(gone\) after 2 chunks"),
        (End(9, "unreadable", "bad"), StreamTruncatedError, r"the connection broke \(bad\) after 2 chunks"),
        (End(9, "client_closed", "", TIMED_OUT), APITimeoutError, "too long"),
        (End(9, "client_closed", "", Outcome("failed", "StreamClosedError", "why")), StreamClosedError, "why"),
        (End(9, "client_closed", "", Outcome("failed", "Unheard", "of")), ChatAPIError, "of"),
    ],
)
def test_what_ended_it_is_raised_again_with_what_had_come(
    end: End | None, error: type[ChatAPIError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        recording(*PART, end=end).completion()
    failure: Any = caught.value
    assert failure.request_id == "req_1"
    if isinstance(failure, StreamTruncatedError | APITimeoutError):
        assert (failure.partial.text, failure.chunks_received) == ("Hello", 2)  # type: ignore[union-attr]
    if isinstance(failure, APITimeoutError):
        assert (failure.phase, failure.limit) == ("idle", 0.5)


@pytest.mark.parametrize("outcome", [None, Outcome("stopped"), Outcome("stopped", "StreamClosedError", "closed")])
@pytest.mark.parametrize("how", ["client_closed", "body_ended"])
@pytest.mark.parametrize("status_code", [None, 200, 500])
def test_what_the_caller_left_ends_without_an_error(outcome: Outcome | None, how: Any, status_code: int | None) -> None:
    left = recording(*PART, end=End(9, how, "", outcome), status_code=status_code)
    if outcome is None and (how == "body_ended" or status_code == 500):
        assert not left.stopped
        return
    assert left.stopped
    completion = left.completion()
    assert (completion.text, completion.completeness) == ("Hello" if status_code == 200 else "", "stopped")


@pytest.mark.parametrize("more", [event({"message": "no more"}, "error"), b"data: {\n\n", DONE, chunk("half")[:-1]])
def test_what_came_after_the_caller_had_left_is_no_error(more: bytes) -> None:
    left = recording(more, end=End(9, "client_closed", "", Outcome("stopped")))
    assert list(left.chunks()) == []
    assert left.completion().completeness == "stopped"


def test_a_body_of_which_reading_failed_is_not_judged() -> None:
    end = End(9, "client_closed", "", Outcome("failed", "StreamClosedError", "reading it failed"))
    with pytest.raises(StreamClosedError, match="reading it failed"):
        recording(b"<p>", headers={"content-type": "text/html"}, end=end).completion()


def test_a_limit_of_the_clients_own_is_kept_to() -> None:
    outcome = Outcome("failed", "EventTooLargeError", "…", limit=300)
    with pytest.raises(EventTooLargeError) as caught:
        recording(chunk("Hi"), chunk("x" * 400), end=End(9, "client_closed", "", outcome)).completion()
    assert caught.value.limit == 300


def test_a_body_that_was_refused_is_refused_again_though_a_token_was_taken_out_of_it() -> None:
    outcome = Outcome("failed", "UnexpectedContentTypeError", "…")
    end = End(9, "client_closed", "", outcome)
    with pytest.raises(UnexpectedContentTypeError, match="no text"):
        recording(b"no text", headers={"content-type": "text/html"}, end=end).completion()


def test_a_status_whose_body_was_not_read_to_its_end_is_the_clients_error() -> None:
    with pytest.raises(RateLimitError):
        recording(b"slow down", status_code=429, end=End(9, "client_closed")).completion()


def test_a_status_is_the_clients_error() -> None:
    headers = {"retry-after": "Thu, 26 Nov 2026 22:10:40 GMT", "x-request-id": "req_7"}
    with pytest.raises(RateLimitError, match="slow down") as caught:
        recording(b'{"message": "slow', b' down"}', status_code=429, headers=headers).completion()
    assert caught.value.request_id == "req_7"
    assert caught.value.retry_after == pytest.approx(10 - 0.623456)


@pytest.mark.parametrize(
    ("end", "error", "processed"),
    [
        (None, StreamTruncatedError, "unknown"),
        (
            End(1, "no_response", "", Outcome("failed", "APIConnectionError", "no", processed="no", retryable=True)),
            APIConnectionError,
            "no",
        ),
        (End(1, "client_closed", "", TIMED_OUT), APITimeoutError, "unknown"),
        (End(1, "no_response", "", Outcome("failed", "ConfigurationError", "bad", processed="no")), ChatAPIError, "no"),
    ],
)
def test_no_response_is_the_clients_error(end: End | None, error: type[ChatAPIError], processed: str) -> None:
    with pytest.raises(error) as caught:
        recording(end=end, status_code=None, headers={}, responded=None).completion()
    assert caught.value.processed == processed
    assert caught.value.request_id is None
