"""Bytes to events: the same events for every split, and for any input either events or one error."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import NamedTuple

import httpx
import pytest
import respx
from httpx_sse import EventSource

from chatapi_async import AsyncChatClient, EventTooLargeError
from chatapi_async._sse import EventDecoder


class Event(NamedTuple):
    name: str
    data: str
    unterminated: bool


Outcome = tuple[list[Event], Exception | None]

BOM = b"\xef\xbb\xbf"
SIGN_OF_LIFE = Event("", "", unterminated=False)
SMALLEST_BOUND = 7
"""No event with data is smaller; a sign of life is as large."""
TRICKY = {
    "bom-id-comments-and-all-line-ends": (
        BOM + b"id: 1\r\n: ping\r\n\r\n: ping\n\ndata: a\rdata: \xe2\x82\xac\xff\r\revent: x\ndata\n\r\ndata: tail"
    ),
    "error-fields-and-split-emoji": (
        b"error: {}\r\n\r\ndata: \xf0\x9f\x98\x80\nerror: \xf0\x9f\r\r\n\nretry: 5\n\nerror:"
    ),
    "blank-lines-and-carriage-returns": b"\r\r\n\n\rdata:1\r\r\ndata:2\n\rdata:3\r\n\r\n\r\r\rdata\r:\rdata: 4\r",
}


def read_all(pieces: Iterable[bytes], max_event_bytes: int) -> Outcome:
    decoder = EventDecoder(max_event_bytes=max_event_bytes)
    events: list[Event] = []
    try:
        for piece in pieces:
            for name, data in decoder.feed(piece):
                events.append(Event(name, data, unterminated=False))
    except EventTooLargeError as error:
        return events, error
    events.extend(Event(name, data, unterminated=True) for name, data in decoder.close())
    return events, None


def outcome(*pieces: bytes, max_event_bytes: int = 1_000_000) -> tuple[list[Event], str | None]:
    """The events, and the error that ended them, in a form that can be compared."""
    events, error = read_all(pieces, max_event_bytes)
    return events, None if error is None else repr(error)


def events_of(*pieces: bytes, max_event_bytes: int = 1_000_000) -> list[Event]:
    events, error = outcome(*pieces, max_event_bytes=max_event_bytes)
    assert error is None
    return events


def data_of(*pieces: bytes) -> list[str]:
    return [event.data for event in events_of(*pieces)]


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("body", TRICKY.values(), ids=TRICKY)
def test_every_pair_of_cuts_gives_the_same_events(body: bytes) -> None:
    whole = outcome(body)

    for first, second in combinations(range(len(body) + 1), 2):
        assert outcome(body[:first], body[first:second], body[second:]) == whole, (first, second)


@pytest.mark.parametrize("body", TRICKY.values(), ids=TRICKY)
def test_single_bytes_give_the_same_events(body: bytes) -> None:
    assert outcome(*(bytes([byte]) for byte in body)) == outcome(body)


@pytest.mark.parametrize("body", TRICKY.values(), ids=TRICKY)
def test_with_any_bound_every_cut_gives_the_same_events_and_the_same_error(body: bytes) -> None:
    for bound in range(SMALLEST_BOUND, len(body) + 1, 2):
        whole = outcome(body, max_event_bytes=bound)
        for cut in range(len(body) + 1):
            assert outcome(body[:cut], body[cut:], max_event_bytes=bound) == whole, (bound, cut)


def test_an_empty_piece_changes_nothing_even_inside_a_line_end() -> None:
    assert outcome(b"data: 1\r", b"", b"\ndata: 2\r\n\r\n") == outcome(b"data: 1\r\ndata: 2\r\n\r\n")


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
def test_each_line_end_ends_lines_and_events(end: bytes) -> None:
    body = end.join([b"event: a", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])

    assert events_of(body) == [Event("a", "1\n2", False), Event("message", "3", False)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
def test_an_event_is_given_as_soon_as_its_blank_line_came(end: bytes) -> None:
    assert list(EventDecoder(max_event_bytes=100).feed(b"data: 1" + end + end)) == [("message", "1")]


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\0", "\x1a"])
def test_no_other_character_ends_a_line(character: str) -> None:
    assert data_of(f"data: a{character}b\n\n".encode()) == [f"a{character}b"]


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("data:x", "x"),
        ("data: x", "x"),
        ("data:  x ", " x "),
        ("data:a:b", "a:b"),
        ("data: x\ndata\ndata:y", "x\n\ny"),
        ("unknown: 1\ndata: x\ndatabase: 2\n data: 3", "x"),
        ("retry: soon\nretry: 10\nid: \0\ndata: x", "x"),
    ],
)
def test_fields_are_read_as_the_format_says(line: str, data: str) -> None:
    assert data_of(f"{line}\n\n".encode()) == [data]


@pytest.mark.parametrize(
    ("fields", "name"),
    [("", "message"), ("event:\n", "message"), ("event: ping\n", "ping"), ("event: a\nevent: b\n", "b")],
)
def test_an_event_has_the_name_of_its_last_event_field(fields: str, name: str) -> None:
    assert events_of(f"{fields}data: x\n\n".encode()) == [Event(name, "x", False)]


# ── characters ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pieces", [(BOM,), (BOM[:1], BOM[1:]), (BOM[:2], BOM[2:])])
def test_a_byte_order_mark_at_the_start_is_dropped(pieces: tuple[bytes, ...]) -> None:
    assert data_of(*pieces, b"data: 1\n\ndata: 2\n\n") == ["1", "2"]


@pytest.mark.parametrize("body", [BOM, BOM + b"\n\n", b""])
def test_a_body_without_anything_has_no_events(body: bytes) -> None:
    assert events_of(body) == []


def test_only_the_first_byte_order_mark_is_dropped() -> None:
    pieces = [BOM + b"data: " + BOM + b"1\n\n", BOM + b"data: 2\n\n", b"data: 3\n\n"]

    assert data_of(*pieces) == data_of(b"".join(pieces)) == ["\ufeff1", "3"]


def test_a_byte_order_mark_alone_on_the_last_line_is_dropped() -> None:
    assert events_of(BOM + b"data: 1") == [Event("message", "1", True)]


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"a\xffb", "a\ufffdb"), (b"\xe2\x82", "\ufffd"), (b"\xed\xa0\xbd", "\ufffd\ufffd\ufffd"), (b"\xc3\xa9", "é")],
)
def test_invalid_utf8_becomes_replacement_characters(raw: bytes, text: str) -> None:
    assert data_of(b"data: " + raw + b"\n\n") == [text]


@pytest.mark.parametrize("charset", ["", "; charset=latin-1", "; charset=utf-16", '; charset="no such"'])
@respx.mock
async def test_the_body_is_utf8_whatever_the_header_says(charset: str) -> None:
    content = 'data: {"choices": [{"delta": {"content": "é🙂"}}]}\n\ndata: [DONE]\n\n'.encode()
    headers = {"content-type": f"text/event-stream{charset}"}
    respx.post("https://api.example.com/v1/llms/chat/completions").respond(content=content, headers=headers)

    async with AsyncChatClient("https://api.example.com", operator_id="tn_1", token="t") as client:
        assert await client.chat_completion("Hi").get_final_text() == "é🙂"


# ── a provider's `error:` lines ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "event"),
    [
        (b'error: {"message": "m"}\n\n', Event("error", '{"message": "m"}', False)),
        (b"error:x\n\n", Event("error", "x", False)),
        (b"error:\n\n", Event("error", "", False)),
        (BOM + b"error: x\n\n", Event("error", "x", False)),
        (b"event: message\nerror: x\n\n", Event("error", "x", False)),
        (b"data: a\nerror: b\n\n", Event("error", "a\nb", False)),
        (b"data: \r: ping\rerror: x\r\r", Event("error", "\nx", False)),
        (b"error: x", Event("error", "x", True)),
    ],
)
def test_an_error_field_makes_an_error_event(body: bytes, event: Event) -> None:
    assert events_of(body) == [event]


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b"data: error: x", "error: x"),
        (b"data: a error: x", "a error: x"),
        (b" error: x\ndata: y", "y"),
        (b"errors: x\ndata: y", "y"),
        (b"data: y\n:error: x", "y"),
    ],
)
def test_the_word_error_elsewhere_makes_none(line: bytes, data: str) -> None:
    assert events_of(line + b"\n\n") == [Event("message", data, False)]


# ── signs of life ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "signs"),
    [
        (b": ping\n\n", 1),
        (b":\n\n", 1),
        (b": ping\n", 1),
        (b": ping\n: ping\n\n: ping\n\n", 3),
        (b"event: ping\n\n", 1),
        (b"data:\n\n", 1),
        (b"data\n\n", 1),
        (b"data:  \n\n", 1),
        (b"data:\ndata:\n\n", 1),
        (b"retry: 5\n\n", 1),
        (b"id: 7\n\n" + b": ping\n\n" * 3, 3),
        (b"id\n\nid:\n\nid: 7\n\n", 0),
        (b"\n" * 9, 0),
    ],
    ids=repr,
)
def test_comments_and_events_without_data_are_signs_of_life(body: bytes, signs: int) -> None:
    expected = [Event("message", "before", False), *[SIGN_OF_LIFE] * signs, Event("message", "after", False)]

    assert events_of(b"data: before\n\n" + body + b"data: after\n\n") == expected
    assert events_of(BOM + body + b"data: after\n\n") == expected[1:]


@pytest.mark.parametrize("body", [b": pi", b"data:", b"data:\n", b"id: 7", b"retry: 5\n", b"event: ping"])
def test_what_the_body_leaves_open_is_no_sign_of_life(body: bytes) -> None:
    assert events_of(body) == []


def test_a_comment_inside_an_event_changes_nothing() -> None:
    assert events_of(b"data: 1\n: ping\ndata: 2\n: ping\n\n") == [Event("message", "1\n2", False)]


def test_a_comment_is_a_sign_of_life_as_soon_as_its_line_came() -> None:
    assert list(EventDecoder(max_event_bytes=100).feed(b": ping\n")) == [("", "")]


def test_an_error_event_without_data_is_still_an_error() -> None:
    assert events_of(b"event: error\n\n") == [Event("error", "", False)]


# ── the end of the body ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("tail", "events"),
    [
        (b"", []),
        (b"\n", []),
        (b"data: [DONE]", [Event("message", "[DONE]", True)]),
        (b"data: [DONE]\n", [Event("message", "[DONE]", True)]),
        (b"data: [DONE]\r", [Event("message", "[DONE]", True)]),
        (b'event: x\ndata: {"a":', [Event("x", '{"a":', True)]),
        (b"data: a\ndata: b", [Event("message", "a\nb", True)]),
        (b"data: \xf0\x9f", [Event("message", "\ufffd", True)]),
        (b"da", []),
        (b": ping", []),
        (b"event: error", [Event("error", "", True)]),
    ],
)
def test_an_event_left_open_is_given_and_marked(tail: bytes, events: list[Event]) -> None:
    assert events_of(b"data: 1\n\n" + tail) == [Event("message", "1", False), *events]


# ── the bound of an event ────────────────────────────────────────────────────────────────────────────────────────────

LONG = {
    "one-line": b"data: " + b"x" * 60 + b"\n\n",
    "one-line-without-an-end": b"data: " + b"x" * 60,
    "many-lines": b"data: x\n" * 9 + b"\n",
    "many-lines-without-an-end": b"data: x\r" * 9,
    "comment": b":" + b"x" * 60 + b"\r\n",
    "comment-in-an-event": b"data: x\r\n:" + b"x" * 32 + b"\r\n",
    "field-that-is-none": b"x" * 66 + b"\n",
}


@pytest.mark.parametrize("long", LONG.values(), ids=LONG)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_beyond_the_bound_is_an_error_after_the_events_before_it(long: bytes, size: int) -> None:
    body = b"data: 1\n\n: ping\n\ndata: 2\n\n" + long + b"\n\ndata: 3\n\n"
    pieces = [body[start : start + size] for start in range(0, len(body), size)]

    events, error = read_all(pieces, 40)

    assert [event.data for event in events] == ["1", "", "2"]
    assert isinstance(error, EventTooLargeError)
    assert error.limit == 40


def test_the_bound_is_exact() -> None:
    event = b"data: 12345\r\ndata: 6\r\n\r\n"  # 21 bytes, with each line end counted once

    assert outcome(event * 3, max_event_bytes=21) == outcome(event * 3)
    assert outcome(event, max_event_bytes=20) == outcome(event * 3, max_event_bytes=20)
    assert outcome(event, max_event_bytes=20) == ([], repr(EventTooLargeError(20)))


def test_no_number_of_small_events_goes_beyond_the_bound() -> None:
    assert len(events_of(b"data: 1\n\n: ping\n\n" * 1000, max_event_bytes=10)) == 2000
    assert len(events_of(b": ping\n" * 1000, max_event_bytes=10)) == 1000
    assert len(events_of(b"data: 1\n" + b": ping\nid: 1\n" * 1000 + b"\n", max_event_bytes=20)) == 1
    assert len(events_of(*[b"data: 1\n", b"\n"] * 1000, max_event_bytes=10)) == 1000


def test_an_endless_line_is_given_up_at_the_bound() -> None:
    decoder = EventDecoder(max_event_bytes=100)

    for _ in range(10):
        assert list(decoder.feed(b"x" * 10)) == []
    with pytest.raises(EventTooLargeError):
        list(decoder.feed(b"x"))


# ── httpx-sse alone, where it is right ───────────────────────────────────────────────────────────────────────────────


def with_data(events: list[Event]) -> list[Event]:
    return [event for event in events if event.data or event.name == "error"]


def events_of_httpx_sse(body: bytes) -> list[Event]:
    """What httpx-sse alone reads; events without data, which it yields, are left out."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=body)
    events = [Event(event.event, event.data, False) for event in EventSource(response).iter_sse()]
    return [event for event in events if event.data.strip() or event.name == "error"]


@pytest.mark.parametrize(
    "body",
    [
        b"data: 1\n\ndata: 2\n\n",
        b": ping\n\n\n\nevent: a\ndata: 1\ndata:  2\n\n: ping\ndata\ndata:3\n\n",
        b"event: error\ndata: {}\n\nretry: 3\ndata: x\n\nunknown\ndata: y\n\n",
        "data: 仙台の🙂\u2028\n\n".encode(),
        b"data: \xff\xe2\x82\n\n",
    ],
)
def test_httpx_sse_alone_reads_the_same(body: bytes) -> None:
    assert with_data(events_of(body)) == events_of_httpx_sse(body)
