"""What is sent: as the server received it, and with respx where no socket is needed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import respx

from chatapi_async import (
    APITimeoutError,
    AsyncChatClient,
    ChatCompletionRequest,
    ConfigurationError,
    Message,
    Timeouts,
)
from tests.raw_server import DONE, HOLD, RawServer, chunk, client_of, stream

ANSWER = stream(chunk("Hi", "stop"), DONE)
OPERATIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "chat_completion": (
        lambda client, *given, **options: client.chat_completion(*given, **options),
        "/v1/llms/chat/completions",
    ),
    "chat_completion_on_chatroom": (
        lambda client, *given, **options: client.chat_completion_on_chatroom("ch_1", *given, **options),
        "/v1/llms/chatrooms/ch_1/chat/completions",
    ),
    "chatroom": (
        lambda client, *given, **options: client.chatroom("ch_1").chat_completion(*given, **options),
        "/v1/llms/chatrooms/ch_1/chat/completions",
    ),
}


# ── the request ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("operation", "path"), OPERATIONS.values(), ids=OPERATIONS)
async def test_the_request_as_the_server_received_it(
    operation: Any, path: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*ANSWER)
    await operation(client, [Message.user("仙台?")], model="openai/gpt-4o", n=2, tools=None).until_done()
    (request,) = server.requests
    assert request.line == f"POST {path} HTTP/1.1"
    assert request.json == {
        "messages": [{"role": "user", "content": "仙台?"}],
        "model": "openai/gpt-4o",
        "n": 2,
        "stream": True,
    }
    names = [name.lower() for name, _ in request.headers]
    assert len(names) == len(set(names))
    assert {name: request.header(name) for name in ("x-operator-id", "authorization", "content-type", "accept")} == {
        "x-operator-id": "tn_1",
        "authorization": "Bearer t0ken",
        "content-type": "application/json",
        "accept": "text/event-stream, application/json",
    }


@pytest.mark.parametrize(("operation", "path"), OPERATIONS.values(), ids=OPERATIONS)
async def test_a_call_has_its_own_headers_and_timeout(
    operation: Any, path: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(HOLD)
    with pytest.raises(APITimeoutError) as caught:
        await operation(
            client,
            "Hi",
            operator_id="tn_2",
            authorization="Basic abc",
            extra_headers={"X-Trace": "1", "Accept": "application/json"},
            timeout=Timeouts(first_chunk=0.1),
        )
    assert caught.value.limit == 0.1
    request = server.requests[0]
    sent = [request.header(name) for name in ("x-operator-id", "authorization", "x-trace", "accept")]
    assert sent == ["tn_2", "Basic abc", "1", "application/json"]


async def test_extra_headers_can_stand_for_operator_and_token(server: RawServer) -> None:
    server.answer(*ANSWER)
    async with client_of(server, operator_id=None, token=None) as client:
        headers = {"X-Operator-ID": "tn_3", "Authorization": "Bearer other"}
        await client.chat_completion("Hi", extra_headers=headers).until_done()
    assert (server.requests[0].header("x-operator-id"), server.requests[0].header("authorization")) == (
        "tn_3",
        "Bearer other",
    )


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("Hi", [{"role": "user", "content": "Hi"}]),
        ([{"role": "user", "content": "Hi", "name": "Ann"}], [{"role": "user", "content": "Hi", "name": "Ann"}]),
        (ChatCompletionRequest(messages=[Message.system("Be brief")]), [{"role": "system", "content": "Be brief"}]),
    ],
    ids=["text", "mappings", "request"],
)
@respx.mock
async def test_what_can_be_given_as_messages(given: Any, messages: Any) -> None:
    route = respx.post("http://localhost/v1/llms/chat/completions").respond(json={"choices": [{"message": {}}]})
    await AsyncChatClient(operator_id="tn_1", token="t").chat_completion(given, user="u1").until_done()
    sent = json.loads(route.calls.last.request.content)
    assert sent == {"messages": messages, "user": "u1", "stream": True}


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://127.0.0.1/", "/v1/llms/chat/completions"),
        ("http://127.0.0.1/api", "/api/v1/llms/chat/completions"),
        ("http://127.0.0.1/api/deep//", "/api/deep/v1/llms/chat/completions"),
        ("https://api.example.com:8443/x", "/x/v1/llms/chat/completions"),
    ],
)
@respx.mock
async def test_the_path_of_the_base_url_is_kept(base_url: str, path: str) -> None:
    route = respx.post(path=path).respond(json={"choices": [{"message": {}}]})
    await AsyncChatClient(base_url, operator_id="tn_1", token="t").chat_completion("Hi").until_done()
    assert route.call_count == 1


@pytest.mark.parametrize(
    ("chatroom_id", "segment"),
    [
        ("ch_01", "ch_01"),
        ("a/b", "a%2Fb"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("/", "%2F"),
        ("?", "%3F"),
        ("a#b", "a%23b"),
        ("%2e%2e", "%252e%252e"),
        ("会議", "%E4%BC%9A%E8%AD%B0"),
        ("a b\r\nx", "a%20b%0D%0Ax"),
        ("...", "..."),
    ],
)
async def test_a_chatroom_id_is_one_segment_of_the_path(
    chatroom_id: str, segment: str, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*ANSWER)
    await client.chatroom(chatroom_id).chat_completion("Hi").until_done()
    assert server.requests[0].target == f"/v1/llms/chatrooms/{segment}/chat/completions"


@pytest.mark.parametrize("chatroom_id", ["", " ", ".", "..", "\ud800", None, 7])
async def test_a_chatroom_id_that_is_no_segment_is_refused(chatroom_id: Any, client: AsyncChatClient) -> None:
    with pytest.raises(ConfigurationError, match="chatroom id"):
        client.chatroom(chatroom_id)
    with pytest.raises(ConfigurationError, match="chatroom id"):
        client.chat_completion_on_chatroom(chatroom_id, "Hi")


async def test_a_chatroom_shows_its_id(client: AsyncChatClient) -> None:
    room = client.chatroom("ch_1")
    assert room.id == "ch_1"
    assert repr(room) == f"<Chatroom 'ch_1' of {client!r}>"


# ── what is refused before anything is sent ──────────────────────────────────────────────────────────────────────────

BAD_VALUES = ["s3cr3t\r\nx-admin: 1", "s3cr3t\n", "s3cr3t\0", "s3cr3té"]


@pytest.mark.parametrize("value", BAD_VALUES)
@pytest.mark.parametrize(
    "use",
    [
        lambda value: AsyncChatClient(token=value),
        lambda value: AsyncChatClient(authorization=value),
        lambda value: AsyncChatClient(token="t", operator_id=value).chat_completion("Hi"),
        lambda value: AsyncChatClient(token="t").chat_completion("Hi", operator_id=value),
        lambda value: AsyncChatClient(operator_id="tn_1").chat_completion("Hi", authorization=value),
        lambda value: AsyncChatClient(token="t", operator_id="tn_1").chat_completion("Hi", extra_headers={"x": value}),
    ],
    ids=["token", "authorization", "operator_id", "operator_id of a call", "authorization of a call", "extra_headers"],
)
def test_a_value_that_no_header_can_hold_is_refused_and_not_shown(use: Any, value: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be sent") as caught:
        use(value)
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in repr(caught.value)


@pytest.mark.parametrize("token", [*BAD_VALUES, "", None, b"s3cr3t", "Bearer s3cr3t"])
async def test_a_fresh_token_that_no_header_can_hold_is_refused_and_not_shown(token: Any, server: RawServer) -> None:
    async with client_of(server, token=lambda: token) as client:
        with pytest.raises(ConfigurationError) as caught:
            await client.chat_completion("Hi")
    assert "s3cr3t" not in str(caught.value)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: AsyncChatClient(token="t").chat_completion("Hi"), "no operator id.*CHATAPI_OPERATOR_ID"),
        (lambda: AsyncChatClient(operator_id="tn_1").chat_completion("Hi"), "no token.*CHATAPI_TOKEN"),
        (lambda: AsyncChatClient(token="t", authorization="Basic x"), "not both"),
        (lambda: AsyncChatClient("ftp://example.com"), "no http or https URL"),
        (lambda: AsyncChatClient("http://["), "no URL"),
        (lambda: AsyncChatClient("https://user:pass@example.com"), "user name or password"),
        (lambda: AsyncChatClient("https://example.com/?a=1"), "query"),
        (lambda: AsyncChatClient(max_event_bytes=0), "max_event_bytes=0"),
        (lambda: AsyncChatClient(retries=-1), "max_retries"),
        (lambda: AsyncChatClient(token="t", operator_id="tn_1").chat_completion("Hi", n=11), "n: .*10"),
        (lambda: AsyncChatClient(token="t", operator_id="tn_1").chat_completion("Hi", temprature=1), "temprature"),
        (lambda: AsyncChatClient(token="t", operator_id="tn_1").chat_completion(7), "messages must be"),
        (
            lambda: AsyncChatClient(token="t", operator_id="tn_1").chat_completion("a", extra_headers={"a b": "1"}),
            "a b",
        ),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_at_once(use: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        use()
    assert caught.value.processed == "no"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]", "api.localhost"])
def test_plain_http_to_this_machine_is_no_cause_for_warning(host: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        AsyncChatClient(f"http://{host}:8000")
    assert caught == []


@pytest.mark.parametrize("host", ["example.com", "10.0.0.1", "0.0.0.0", "localhost.example.com"])
def test_plain_http_to_another_machine_is_warned_about_at_the_callers_line(host: str) -> None:
    with pytest.warns(UserWarning, match="tokens can be read") as caught:
        AsyncChatClient(f"http://{host}")
    assert caught[0].filename == __file__


@respx.mock
async def test_the_environment_stands_in_for_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATAPI_BASE_URL", "https://api.example.com/base/")
    monkeypatch.setenv("CHATAPI_OPERATOR_ID", "tn_env")
    monkeypatch.setenv("CHATAPI_TOKEN", "from-env")
    route = respx.post(path__regex=".*").respond(json={"choices": [{"message": {}}]})
    for client in (
        AsyncChatClient(),
        AsyncChatClient("http://localhost", operator_id="tn_1", token="given"),
        AsyncChatClient(authorization="Basic abc"),
    ):
        await client.chat_completion("Hi").until_done()
    sent = [
        (str(call.request.url), call.request.headers["x-operator-id"], call.request.headers["authorization"])
        for call in route.calls
    ]
    assert sent == [
        ("https://api.example.com/base/v1/llms/chat/completions", "tn_env", "Bearer from-env"),
        ("http://localhost/v1/llms/chat/completions", "tn_1", "Bearer given"),
        ("https://api.example.com/base/v1/llms/chat/completions", "tn_env", "Basic abc"),
    ]


def test_the_representation_shows_where_and_for_whom_but_no_secret() -> None:
    client = AsyncChatClient("https://api.example.com", operator_id="tn_1", token="s3cr3t")
    assert repr(client) == "<AsyncChatClient https://api.example.com operator_id='tn_1'>"
    stream_ = client.chat_completion("Hi", extra_headers={"authorization": "Bearer s3cr3t"})
    shown = f"{vars(client)} {vars(stream_)} {vars(stream_._reader)}"
    assert "s3cr3t" not in shown
