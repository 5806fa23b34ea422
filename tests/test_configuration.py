"""What a caller configures is checked before anything is sent, and no message about it shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from chatapi_async import AsyncChatClient, ChatCompletionRequest, ConfigurationError, Message
from chatapi_async._configuration import (
    Credentials,
    chatroom_segment,
    checked_base_url,
    checked_body,
    checked_header,
    checked_headers,
    checked_size,
    is_exposed,
)

# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def header(**given: Any) -> str:
    credentials = Credentials.of(**{"token": None, "authorization": None, **given})
    assert credentials is not None
    return await credentials.header()


async def fetch_token() -> str:
    return "secret"


@pytest.mark.parametrize(
    ("given", "expected", "refreshable"),
    [
        ({"token": "secret"}, "Bearer secret", False),
        ({"authorization": "Basic secret"}, "Basic secret", False),
        ({"token": lambda: "secret"}, "Bearer secret", True),
        ({"token": fetch_token}, "Bearer secret", True),
    ],
)
async def test_the_authorization_header_comes_from_a_token_a_function_or_itself(
    given: dict[str, Any], expected: str, refreshable: bool
) -> None:
    assert await header(**given) == expected
    credentials = Credentials.of(**{"token": None, "authorization": None, **given})
    assert credentials is not None
    assert credentials.refreshable is refreshable
    assert "secret" not in repr(credentials)


async def test_a_function_is_asked_every_time() -> None:
    answers = iter(["one", "two"])
    credentials = Credentials.of(token=lambda: next(answers), authorization=None)
    assert credentials is not None
    assert [await credentials.header(), await credentials.header()] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_there_are_no_credentials(token: str | None) -> None:
    assert Credentials.of(token=token, authorization=None) is None
    assert Credentials.of(token=token, authorization="") is None


def test_a_token_and_a_whole_header_contradict_each_other() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        Credentials.of(token="secret", authorization="Bearer secret")


@pytest.mark.parametrize("token", ["secret\n", "sec\x00ret", "secrét", "Bearer secret", "bearer secret"])
async def test_a_token_that_cannot_be_sent_is_refused_without_being_shown(token: str) -> None:
    for given in (token, lambda: token):
        with pytest.raises(ConfigurationError) as caught:
            await header(token=given)
        assert "secr" not in str(caught.value)
        assert "sec\\" not in str(caught.value)


@pytest.mark.parametrize("token", [5, b"secret", ["secret"]])
def test_a_token_that_is_neither_text_nor_function_is_refused_at_once(token: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"a str or a function, not {type(token).__name__}") as caught:
        Credentials.of(token=token, authorization=None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("answer", ["", None, 5, b"secret"])
async def test_a_function_that_returns_no_token_is_refused(answer: Any) -> None:
    with pytest.raises(ConfigurationError, match="empty, or no str"):
        await header(token=lambda: answer)


# ── headers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", ["tn_1", "a b", "a\tb", "~!", "x" * 9000])
def test_a_header_of_printable_ascii_is_taken(value: str) -> None:
    assert checked_header("x-operator-id", value) == value


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\x00", "a\x7f", "é", "仙台", " a", "a ", "\ta", "a\t", " ", ""])
def test_a_header_that_cannot_be_sent_is_refused_by_name(value: str) -> None:
    with pytest.raises(ConfigurationError, match="x-operator-id header"):
        checked_header("x-operator-id", value)


@pytest.mark.parametrize("value", [None, 5, b"tn_1"])
def test_a_header_that_is_no_str_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"must be a str, not {type(value).__name__}"):
        checked_header("x-operator-id", value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "é"])
def test_a_name_that_cannot_be_a_headers_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="no name of a header"):
        checked_header(name, "x")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_a_header_that_follows_from_the_body_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"the {name} header cannot be given"):
        checked_header(name, "5")


def test_the_headers_of_a_call_are_known_by_their_lower_case_names() -> None:
    assert checked_headers({"X-Trace": "One", "accept": "text/plain"}) == {"x-trace": "One", "accept": "text/plain"}
    assert checked_headers({}) == checked_headers(None) == {}


@pytest.mark.parametrize(
    ("headers", "match"),
    [
        ([("x-trace", "1")], "must be a mapping, not list"),
        ("x-trace: 1", "must be a mapping, not str"),
        ({"x-trace": 1}, "the x-trace header must be a str, not int"),
        ({"x trace": "1"}, "no name of a header"),
        ({b"x-trace": "1"}, "no name of a header"),
        ({None: "1"}, "no name of a header"),
    ],
)
def test_what_can_be_no_headers_of_a_call_is_refused(headers: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        checked_headers(headers)


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("base_url", "expected"),
    [
        ("https://api.example.com", "https://api.example.com"),
        ("https://api.example.com/", "https://api.example.com"),
        ("HTTPS://api.example.com:8443/proxy/path//", "HTTPS://api.example.com:8443/proxy/path"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_a_base_url_loses_the_slash_at_its_end(base_url: str, expected: str) -> None:
    assert checked_base_url(base_url) == expected


@pytest.mark.parametrize(
    ("base_url", "match"),
    [
        (b"https://secret", "must be a str, not bytes"),
        ("api.example.com", "no http or https URL"),
        ("ftp://api.example.com", "no http or https URL"),
        ("https://", "no http or https URL"),
        ("https://:443", "no http or https URL"),
        ("https://api.example.com:0", "no http or https URL"),
        ("https://api.example.com:65536", "no URL"),
        ("https://api.example.com:http", "no URL"),
        ("https://[::1", "no URL"),
        ("https://api.example.com/a b", "no http or https URL"),
        ("https://api.example.com\n", "no http or https URL"),
        ("https://exämple.com", "no http or https URL"),
        ("https://user:secret@api.example.com", "user name or password"),
        ("https://secret@api.example.com", "user name or password"),
        ("https://api.example.com/?token=secret", "query or a fragment"),
        ("https://api.example.com/#secret", "query or a fragment"),
        ("https://api.example.com?", "query or a fragment"),
    ],
)
def test_what_is_no_base_url_is_refused_without_being_shown(base_url: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        checked_base_url(base_url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "exposed"),
    [
        ("http://api.example.com", True),
        ("http://10.0.0.1:8000", True),
        ("http://localhost.example.com", True),
        ("http://[2001:db8::1]", True),
        ("https://api.example.com", False),
        ("http://localhost:8000", False),
        ("http://chat.localhost", False),
        ("http://127.0.0.1", False),
        ("http://127.1.2.3", False),
        ("http://[::1]:8000", False),
    ],
)
def test_plain_http_to_another_machine_is_exposed(base_url: str, exposed: bool) -> None:
    assert is_exposed(base_url) is exposed


@pytest.mark.parametrize(
    ("chatroom_id", "segment"),
    [
        ("ch_1", "ch_1"),
        ("a/b", "a%2Fb"),
        ("../x", "..%2Fx"),
        ("a?b#c", "a%3Fb%23c"),
        ("%2e%2e", "%252e%252e"),
        ("仙台", "%E4%BB%99%E5%8F%B0"),
        ("a b\n", "a%20b%0A"),
        ("...", "..."),
    ],
)
def test_a_chatroom_id_is_one_segment_whatever_it_holds(chatroom_id: str, segment: str) -> None:
    assert chatroom_segment(chatroom_id) == segment


@pytest.mark.parametrize("chatroom_id", ["", " ", ".", "..", " .. ", "..\n", None, 5, b"ch_1", "\ud800"])
def test_what_is_no_chatroom_id_is_refused(chatroom_id: Any) -> None:
    with pytest.raises(ConfigurationError, match="chatroom id"):
        chatroom_segment(chatroom_id)


# ── requests and sizes ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_request_is_made_of_messages_and_fields() -> None:
    body = checked_body("Hi", {"model": "large", "n": 2})
    assert body == (ChatCompletionRequest(messages=[Message.user("Hi")], model="large", n=2).to_body(), 2)
    assert checked_body("Hi", {}).choices == 1


def test_every_problem_of_a_request_is_named_and_no_value_is_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        checked_body([{"role": "user", "content": {"secret": 1}}], {"temperature": 3, "secret_field": "secret value"})
    message = str(caught.value)
    assert "the request was not sent: messages.0.content" in message
    assert "temperature: Input should be less than or equal to 2; " in message
    assert "secret_field: Extra inputs are not permitted" in message
    assert "secret value" not in message
    assert caught.value.processed == "no"


@pytest.mark.parametrize("messages", [None, 5])
def test_what_can_be_no_messages_is_refused(messages: Any) -> None:
    with pytest.raises(ConfigurationError, match="messages must be a str, a sequence of messages"):
        checked_body(messages, {})


@pytest.mark.parametrize("messages", [Message.user("Hi"), {"role": "user", "content": "Hi"}, b"Hi"])
def test_what_is_no_list_of_messages_is_refused(messages: Any) -> None:
    with pytest.raises(ConfigurationError, match="a list of messages, or a whole request, not a"):
        checked_body(messages, {})


@pytest.mark.parametrize(("typed", "meant"), [("max_tokens", "max_completion_tokens"), ("headers", "extra_headers")])
def test_a_field_of_another_client_is_told_what_it_is_called_here(typed: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{typed}: .*; did you mean {meant}\\?"):
        checked_body("Hi", {typed: 5})


@pytest.mark.parametrize("messages", [[None], ["Hi"]])
def test_what_holds_no_messages_is_refused(messages: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"messages\.0: "):
        checked_body(messages, {})


@pytest.mark.parametrize(
    ("messages", "fields"),
    [
        ("half an emoji: \ud83d", {}),
        ([{"role": "user", "content": "Hi", "note": object()}], {}),
        ("Hi", {"response_format": {"type": "json_schema", "schema": {"title": "\ud83d"}}}),
    ],
)
def test_a_request_that_cannot_be_written_as_json_is_refused_before_anything_is_sent(
    messages: Any, fields: dict[str, Any]
) -> None:
    client = AsyncChatClient(operator_id="tn_1", token="secret")
    with pytest.raises(ConfigurationError, match="the request was not sent"):
        client.chat_completion(messages, **fields)


@pytest.mark.parametrize("value", [1, 2**40])
def test_a_size_is_a_positive_whole_number(value: int) -> None:
    assert checked_size("max_event_bytes", value) == value


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "5"])
def test_what_is_no_size_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_event_bytes="):
        checked_size("max_event_bytes", value)
