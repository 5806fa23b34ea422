"""From what went wrong to the error: its class, its words, and whether the request was processed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from chatapi_async import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    StreamClosedError,
    StreamTruncatedError,
    UnexpectedContentTypeError,
    UnprocessableEntityError,
)
from chatapi_async._failures import (
    closed,
    connection_lost,
    error_words,
    excerpt,
    find_error,
    not_connected,
    parse_retry_after,
    server_stream_error,
    status_error,
    timed_out,
    truncated,
    unexpected_content_type,
)
from chatapi_async._response import Headers
from chatapi_async.errors import TimeoutPhase

WHERE = "POST https://api.example.com/x"
NOW = 1_750_000_000.0  # Sun, 15 Jun 2025 15:06:40 GMT


def status(status_code: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> APIStatusError:
    return status_error(
        where=WHERE, status_code=status_code, headers=Headers(headers or {}), body=body, now=NOW, request_id="r1"
    )


def message_of(payload: Any) -> str:
    return status(500, json.dumps(payload).encode()).message


# ── statuses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status_code", "error_type"),
    [
        (400, BadRequestError),
        (401, AuthenticationError),
        (402, PaymentRequiredError),
        (403, PermissionDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, UnprocessableEntityError),
        (429, RateLimitError),
        *((code, APIStatusError) for code in (100, 302, 304, 405, 408, 410, 413, 418, 451, 499)),
        *((code, InternalServerError) for code in (500, 501, 502, 503, 504, 520, 529, 599)),
    ],
)
def test_each_status_has_its_class(status_code: int, error_type: type[APIStatusError]) -> None:
    assert type(status(status_code)) is error_type


def test_what_each_status_says_of_the_request() -> None:
    found = {status_code: status(status_code) for status_code in range(300, 600)}

    perhaps_processed = {303, 408, 409, 424, 499, *range(500, 600)}
    assert {code for code, error in found.items() if error.processed == "unknown"} == perhaps_processed
    assert {code for code, error in found.items() if error.retryable} == {429}


@pytest.mark.parametrize("retry_after", ["0", "5", "Sun, 15 Jun 2025 15:07:00 GMT"])
def test_unavailable_with_a_time_to_come_back_was_not_processed(retry_after: str) -> None:
    error = status(503, headers={"Retry-After": retry_after})

    assert (error.processed, error.retryable) == ("no", True)


@pytest.mark.parametrize("retry_after", ["", "soon", "nan", "inf"])
def test_unavailable_without_a_time_that_can_be_read_may_have_been_processed(retry_after: str) -> None:
    error = status(503, headers={"Retry-After": retry_after})

    assert (error.processed, error.retryable) == ("unknown", False)


@pytest.mark.parametrize("status_code", [400, 401, 402, 500, 502, 504])
def test_a_time_to_come_back_with_any_other_status_allows_no_retry(status_code: int) -> None:
    error = status(status_code, headers={"Retry-After": "5"})

    assert (error.retry_after, error.retryable) == (5, False)


MASKED = b'{"message": "masked"}'
MAYBE = "The request may have been processed and charged; look before you send it again."


@pytest.mark.parametrize(
    ("status_code", "body", "headers", "text"),
    [
        (400, b'{"message": "m", "code": "c"}', {}, "m (code c). Mend the request; it was not processed."),
        (401, b'{"message": "expired"}', {}, "expired. Give a valid token, or a callable that returns a fresh one; "
         "the request was not processed."),
        (402, b"", {}, "no message. Add credits; nothing was processed or stored."),
        (403, b"no", {}, "no. Check the operator id and what it may do; the request was not processed."),
        (404, b"{}", {}, "no message. Check the chatroom id and the base URL; the request was not processed."),
        (418, b"", {}, "no message. The request was not processed."),
        (408, b"", {}, f"no message. {MAYBE}"),
        (409, b"", {}, f"no message. {MAYBE}"),
        (422, b"", {}, "no message. Mend the request; it was not processed."),
        (429, b"", {}, "no message. Nothing was processed; wait a while, then send it again."),
        (429, b"", {"retry-after": "1.5"}, "no message. Nothing was processed; wait 1.5 s, then send it again."),
        (502, MASKED, {}, f"masked. {MAYBE}"),
        (503, MASKED, {"retry-after": "20"}, "masked. Nothing was processed; wait 20 s, then send it again."),
        (503, MASKED, {}, f"masked. {MAYBE}"),
        (301, b"", {"location": "https://new/"}, "no message. Redirects are not followed; set the base URL to where "
         "this one leads: https://new/."),
        (304, b"", {}, "no message. Redirects are not followed; set the base URL to where this one leads: it does "
         "not say."),
    ],
)  # fmt: skip
def test_the_message_of_a_status(status_code: int, body: bytes, headers: dict[str, str], text: str) -> None:
    assert str(status(status_code, body, headers)) == f"HTTP {status_code} from {WHERE}: {text}"


def test_a_status_error_keeps_all_that_the_server_said() -> None:
    error = status(400, b'{"message": "m", "code": "unsupported_model"}', {"X-A": "1"})

    assert (error.status_code, error.message, error.code) == (400, "m", "unsupported_model")
    assert error.body == {"message": "m", "code": "unsupported_model"}
    assert error.headers["x-a"] == "1"
    assert (error.retry_after, error.request_id) == (None, "r1")


@pytest.mark.parametrize(
    ("body", "message", "kept"),
    [
        (b"", "", ""),
        (b"  busy \n now", "busy now", "  busy \n now"),
        (b"caf\xe9", "caf\ufffd", "caf\ufffd"),
        (b"null", "", None),
        (b'"busy"', "busy", "busy"),
        (b'["busy"]', '["busy"]', ["busy"]),
        (b"[" * 200_000, "[" * 199 + "…", "[" * 200_000),
        (b"<html><title>502</title>Bad", "502 Bad", "<html><title>502</title>Bad"),
        (b'\xef\xbb\xbf{"message": "m"}', "m", {"message": "m"}),
    ],
)
def test_any_body_has_a_message(body: bytes, message: str, kept: object) -> None:
    error = status(500, body)

    assert (error.message, error.body) == (message, kept)


def test_a_body_nested_to_any_depth_is_an_error_of_ours() -> None:
    for depth in range(950, 1_050):
        assert status(500, b"[" * depth + b"]" * depth).status_code == 500


@pytest.mark.parametrize("body", [b'{"message": "a\\ud83d"}', b'{"message": "m", "code": "\\ud83d"}', b'"\\ud83d"'])
def test_the_message_of_an_error_can_be_printed_whatever_the_server_sent(body: bytes) -> None:
    str(status(500, body)).encode()


@pytest.mark.parametrize("shape", ["{}", '"{}"', '{{"message": "{}"}}', '{{"message": "m", "code": "{}"}}'])
def test_the_text_of_a_status_error_is_bounded(shape: str) -> None:
    length = len(str(status(500, shape.format("x" * 60_000).encode())))

    assert length < 5_000


@pytest.mark.parametrize("payload", ["x" * 1_000_000, {"message": "x" * 1_000_000}, {"error": ["x" * 1_000_000]}])
def test_the_text_of_an_error_in_the_stream_is_bounded(payload: object) -> None:
    error = server_stream_error(payload)
    length = len(str(error))

    assert length < 5_000
    assert error.payload is payload


# ── what an error says ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"message": "m"}, "m"),
        ({"error": "m"}, "m"),
        ({"error": {"message": "m"}}, "m"),
        ({"error": {"detail": "m"}}, "m"),
        ({"detail": "m"}, "m"),
        ({"error": {"message": "inner"}, "message": "outer"}, "inner"),
        ({"error": {"code": 1}, "message": "m"}, "m"),
        ({"error": "Bad Gateway", "message": "m"}, "m"),
        ({"error": "m", "message": ""}, "m"),
        ({"error": {"code": 1}}, '{"error": {"code": 1}}'),
        ({"message": {"a": "仙"}}, '{"message": {"a": "仙"}}'),
        ({"detail": [{"loc": ["body"]}]}, '{"detail": [{"loc": ["body"]}]}'),
        ({}, ""),
        (" m\n", "m"),
        (3, "3"),
        (False, ""),
    ],
)
def test_every_shape_of_an_error_has_a_message(payload: object, message: str) -> None:
    assert error_words(payload).message == message


def test_a_payload_that_is_nested_too_deeply_to_show_has_a_message_all_the_same() -> None:
    payload: list[Any] = []
    for _ in range(100_000):
        payload = [payload]

    assert error_words(payload).message == "an error nested too deeply to show"


@pytest.mark.parametrize(
    ("payload", "code", "kind"),
    [
        ({"message": "m"}, None, None),
        ({"code": "c", "message": "m", "type": "t"}, "c", "t"),
        ({"code": 0}, 0, None),
        ({"error": {"code": 7, "type": "t"}, "code": 8, "type": "u"}, 7, "t"),
        ({"error": {"message": "m"}, "code": 8}, 8, None),
        ({"error": {"code": None, "type": None}}, None, None),
        ({"code": [1], "type": 5}, None, None),
        ("m", None, None),
    ],
)
def test_code_and_type_are_read_where_they_stand(payload: object, code: object, kind: object) -> None:
    words = error_words(payload)

    assert (words.code, words.type) == (code, kind)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        ({"error": "m"}, True),
        ({"error": {"message": "m"}, "choices": []}, True),
        ({"message": "m"}, True),
        ({"message": "m", "type": "invalid_request_error"}, True),
        ({"message": "m", "object": "error"}, True),
        ({"message": "m", "type": "notice", "code": None}, True),
        ({"message": "m", "choices": None}, True),
        ({"message": "m", "type": "notice"}, False),
        ({"message": "m", "choices": []}, False),
        ({"message": {"role": "assistant"}}, False),
        ({"error": None}, False),
        ({"choices": [{"error": ""}, "x", {}]}, False),
        ({"type": "ping"}, False),
        ({}, False),
    ],
)
def test_an_error_object_is_told_from_others(payload: dict[str, Any], found: bool) -> None:
    assert find_error(payload) == (payload if found else None)


def test_the_error_of_a_choice_is_that_choice() -> None:
    assert find_error({"choices": [{}, {"error": "m"}]}) == {"error": "m"}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"error": {"message": "m", "code": 502}}, "the server sent an error in the stream: m (code 502)"),
        ("out of credits", "the server sent an error in the stream: out of credits"),
        ({}, "the server sent an error in the stream: no message"),
    ],
)
def test_the_message_of_an_error_in_the_stream(payload: object, text: str) -> None:
    assert str(server_stream_error(payload)) == text


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("-5", None),
        ("1_0", None),
        ("1.5", 1.5),
        ("Sun, 15 Jun 2025 15:08:40 GMT", 120.0),
        ("Sun, 15 Jun 2025 15:08:40", 120.0),
        ("Sun, 15 Jun 2025 17:08:40 +0200", 120.0),
        ("Sunday, 15-Jun-25 15:08:40 GMT", 120.0),
        ("Sun, 15 Jun 2025 15:00:00 GMT", 0.0),
        ("inf", None),
        ("-inf", None),
        ("nan", None),
        ("1e999", None),
        ("", None),
        ("soon", None),
        ("5 minutes", None),
        ("Sun, 31 Jun 2025 15:08:40 GMT", None),
        ("Sun, 15 Jun 2025 25:08:40 GMT", None),
        ("Sun, 15 Jun 99999 15:08:40 GMT", None),
        ("Sun, 15 Jun 99999999999999999999 15:08:40 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == seconds


def test_a_date_without_a_zone_is_in_utc_wherever_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as far_away:
        far_away.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        seconds = parse_retry_after("Sun, 15 Jun 2025 15:08:40", now=NOW)
    time.tzset()

    assert seconds == 120


# ── failures of the connection and of the body ───────────────────────────────────────────────────────────────────────


def test_no_connection() -> None:
    error = not_connected(WHERE, "refused")

    assert type(error) is APIConnectionError
    assert (error.processed, error.retryable) == ("no", True)
    assert (
        str(error) == f"could not connect for {WHERE}: refused. Nothing was sent; check the base URL and the network."
    )


def test_a_lost_connection() -> None:
    error = connection_lost(WHERE, "reset")

    assert type(error) is APIConnectionError
    assert (error.processed, error.retryable) == ("unknown", False)
    assert str(error) == (
        f"the connection was lost before {WHERE} was answered: reset. "
        "The server may have processed the request, so it is not sent again."
    )


@pytest.mark.parametrize(
    ("phase", "text"),
    [
        ("connect", "no connection within 2.5 s (connect timeout)"),
        ("pool", "no free connection within 2.5 s (pool timeout)"),
        ("write", "the request could not be sent within 2.5 s (write timeout)"),
        ("first_chunk", "no chunk within 2.5 s (first_chunk timeout)"),
        ("idle", "no new chunk within 2.5 s (idle timeout)"),
        ("total", "the stream was not finished within 2.5 s (total timeout)"),
    ],
)
def test_a_timeout_says_which_wait_it_was(phase: TimeoutPhase, text: str) -> None:
    error = timed_out(phase, 2.5, WHERE, sent=True)

    assert str(error) == f"{text} for {WHERE}. The server may have processed the request."
    assert (error.phase, error.limit) == (phase, 2.5)


@pytest.mark.parametrize(("sent", "processed", "retryable"), [(False, "no", True), (True, "unknown", False)])
def test_a_timeout_says_whether_anything_was_sent(sent: bool, processed: str, retryable: bool) -> None:
    error = timed_out("total", 2.5, WHERE, sent=sent)

    assert str(error).endswith(". Nothing was sent.") != sent
    assert (error.processed, error.retryable) == (processed, retryable)


def test_a_truncated_and_a_closed_stream() -> None:
    assert type(truncated("x")) is StreamTruncatedError
    assert str(truncated("x")) == "the stream ended before the answer did: x; what had arrived is in .partial"
    assert type(closed("x")) is StreamClosedError
    assert str(closed("x")) == "the stream cannot be read: x; what had arrived is in .partial"


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/html", b"<html><h1>Hi</h1>", "Content-Type 'text/html', neither an event stream nor JSON: Hi"),
        ("", b"", "no Content-Type, neither an event stream nor JSON: an empty body"),
        ("text/plain", b"a\n b\xff", "Content-Type 'text/plain', neither an event stream nor JSON: a b\ufffd"),
    ],
)
def test_an_unexpected_content_type_shows_what_came(content_type: str, body: bytes, text: str) -> None:
    error = unexpected_content_type(content_type, body)

    assert type(error) is UnexpectedContentTypeError
    assert str(error) == (
        f"the server answered with {text}. Check that the base URL leads to the service and not to a proxy's page."
    )
    assert (error.content_type, error.body) == (content_type, body.decode("utf-8", "replace"))


# ── excerpts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        (" a \r\n\t b\u2028c ", "a b c"),
        ("a < b and <c>", "a < b and <c>"),
        ("<!DOCTYPE html><h1>502</h1><p>Bad &amp; down</p>", "502 Bad & down"),
        ("<html><style>p {}</style><script>\nif (a < b) {\n}</script>Hi<script src=x></script> there", "Hi there"),
        ("<HTML><BODY>Hi", "Hi"),
        ("<html><!-- hidden -->Hi", "Hi"),
        ("<html><![endif]>Hi<![CDATA[x]]>", "Hi"),
        ("<p>Hi <![", "Hi"),
        ("<p>Hi <![foo[ bar ]]> there", "Hi there"),
        ("<p>Hi<![ 1", "Hi"),
    ],
)
def test_an_excerpt_shows_the_words(text: str, words: str) -> None:
    assert excerpt(text).startswith(words)
    assert len(excerpt(text)) <= len(text)


@pytest.mark.parametrize("text", ["x" * 10**6, "x " * 10**6, "<html>" + "<p>x" * 10**6, "<html>" + "<" * 10**6])
def test_an_excerpt_is_bounded(text: str) -> None:
    assert len(excerpt(text)) <= 200


def test_an_excerpt_that_was_cut_says_so() -> None:
    assert excerpt("x" * 200) == "x" * 200
    assert excerpt("x" * 201) == "x" * 199 + "…"
