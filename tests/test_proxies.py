"""Proxies that the environment or the caller's own client names: who is asked for what, and what their failures are."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from chatapi_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatClient,
    ChatAPIError,
    ConfigurationError,
    InternalServerError,
    Timeouts,
    UnexpectedContentTypeError,
)
from tests.raw_server import CLOSE, DONE, HOLD, RESET, RawServer, body, chunk, client_of, stream

ANSWER = stream(chunk("Hi", "stop"), DONE)
# A name that no resolver knows: only a proxy can answer for it.
FAR_HTTP = "http://api.invalid"
FAR_HTTPS = "https://api.invalid"
PASSWORD = "pa55w0rd"
BASIC = b64encode(f"user:{PASSWORD}".encode()).decode()

pytestmark = pytest.mark.filterwarnings("ignore:.* is plain http to another machine")


@pytest.fixture
def proxy() -> Iterator[RawServer]:
    with RawServer() as proxy:
        proxy.answer(*ANSWER)
        yield proxy


class TunnelProxy:
    """A proxy that gives one answer to every CONNECT, and then hangs up, or holds on where the answer is None."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.address = ""

    @classmethod
    @asynccontextmanager
    async def answering(cls, answer: bytes | None) -> AsyncIterator[TunnelProxy]:
        proxy = cls()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            proxy.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            proxy.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            yield proxy


def unused_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


def far_client(base_url: str = FAR_HTTP, **options: Any) -> AsyncChatClient:
    given = {"operator_id": "tn_1", "token": "t0ken", "retries": 0, "timeout": Timeouts(connect=5, first_chunk=5)}
    return AsyncChatClient(base_url, **given | options)


async def failure_of(base_url: str, **options: Any) -> ChatAPIError:
    async with far_client(base_url, **options) as client:
        with pytest.raises(ChatAPIError) as caught:
            await client.chat_completion("Hi").until_done()
    return caught.value


# ── which proxy is asked ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_request_over_http_goes_through_the_proxy_that_the_environment_names(
    name: str, proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy.url)
    async with far_client() as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
    (request,) = proxy.requests
    assert request.line == f"POST {FAR_HTTP}/v1/llms/chat/completions HTTP/1.1"
    assert (request.header("host"), request.header("authorization")) == ("api.invalid", "Bearer t0ken")


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
async def test_a_request_over_https_asks_the_proxy_for_a_tunnel_and_shows_it_no_token(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with TunnelProxy.answering(b"HTTP/1.1 502 Bad Gateway\r\n\r\n") as proxy:
        monkeypatch.setenv(name, f"http://{proxy.address}")
        await failure_of(FAR_HTTPS)
    (head,) = proxy.heads
    assert head.startswith("CONNECT api.invalid:443 HTTP/1.1\r\n")
    assert "t0ken" not in head


@pytest.mark.parametrize(("name", "base_url"), [("HTTPS_PROXY", "http://{}"), ("HTTP_PROXY", "https://{}")])
async def test_a_proxy_for_the_other_scheme_is_not_asked(
    name: str, base_url: str, proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy.url)
    assert isinstance(await failure_of(base_url.format(unused_address())), APIConnectionError)
    assert proxy.connections == 0


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "example.com, 127.0.0.1"),
        ("localhost", "localhost"),
        ("localhost", "*"),
    ],
)
async def test_a_host_that_no_proxy_lists_is_asked_directly(
    host: str, no_proxy: str, server: RawServer, proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    server.answer(*ANSWER)
    async with client_of(server, base_url=f"http://{host}:{server.port}") as client:
        await client.chat_completion("Hi").until_done()
    assert server.requests[0].target == "/v1/llms/chat/completions"
    assert proxy.connections == 0


async def test_a_host_that_no_proxy_does_not_list_goes_through_the_proxy(
    proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "example.com,localhost")
    async with far_client() as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("own", ["proxy", "no proxy"])
async def test_the_callers_http_client_goes_before_the_environment(
    own: str, server: RawServer, proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://{unused_address()}")
    server.answer(*ANSWER)
    options: dict[str, Any] = {"proxy": proxy.url} if own == "proxy" else {"trust_env": False}
    async with httpx.AsyncClient(**options) as http_client:
        await client_of(server, http_client=http_client).chat_completion("Hi").until_done()
    assert (len(proxy.requests), len(server.requests)) == ((1, 0) if own == "proxy" else (0, 1))


# ── credentials ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_credentials_in_the_address_of_a_proxy_are_sent_to_it(
    proxy: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url.replace("//", f"//user:{PASSWORD}@"))
    async with far_client() as client:
        await client.chat_completion("Hi").until_done()
    assert proxy.requests[0].header("proxy-authorization") == f"Basic {BASIC}"


TUNNEL_ANSWERS: dict[str, tuple[bytes, str]] = {
    "login": (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407 Proxy Authentication Required"),
    "no way": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
    "hangs up": (b"", "disconnected"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n\r\n", "SSH"),
    "no TLS": (b"HTTP/1.1 200 OK\r\n\r\nno TLS at all\r\n", "could not connect"),
}


@pytest.mark.parametrize("answer", TUNNEL_ANSWERS)
async def test_a_tunnel_that_fails_shows_no_credentials_of_the_proxy(
    answer: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    async with TunnelProxy.answering(TUNNEL_ANSWERS[answer][0]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@{proxy.address}")
        error = await failure_of(FAR_HTTPS)
    assert f"Basic {BASIC}" in proxy.heads[0]
    shown = _shown(error, caplog.records)
    assert PASSWORD not in shown
    assert BASIC not in shown


@pytest.mark.parametrize(
    "answer", [body("", 407), body("<p>no", 502, "text/html"), (RESET,), None], ids=["407", "502", "reset", "refused"]
)
async def test_a_proxy_for_http_that_fails_shows_no_credentials_of_the_proxy(
    answer: Any, server: RawServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    address = unused_address() if answer is None else f"127.0.0.1:{server.port}"
    server.answer(*answer or ())
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@{address}")
    shown = _shown(await failure_of(FAR_HTTP), caplog.records)
    assert "api.invalid" in shown
    assert PASSWORD not in shown
    assert BASIC not in shown


def _shown(error: ChatAPIError, records: list[logging.LogRecord]) -> str:
    logged = (f"{record.getMessage()} {vars(record)}" for record in records)
    return "\n".join((*traceback.format_exception(error), repr(error), str(vars(error)), *logged))


# ── what its failures are ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("base_url", [FAR_HTTP, FAR_HTTPS])
async def test_a_proxy_that_refuses_the_connection_is_one_that_was_never_made(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://{unused_address()}")
    error = await failure_of(base_url)
    assert isinstance(error, APIConnectionError)
    assert "could not connect" in str(error)
    assert (error.processed, error.retryable) == ("no", True)


@pytest.mark.parametrize("answer", TUNNEL_ANSWERS)
async def test_a_tunnel_that_fails_is_a_connection_that_was_never_made(
    answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply, words = TUNNEL_ANSWERS[answer]
    async with TunnelProxy.answering(reply) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        error = await failure_of(FAR_HTTPS)
    assert isinstance(error, APIConnectionError)
    assert words in str(error)
    assert error.processed == "no"


async def test_a_tunnel_that_is_never_opened_ends_in_a_timeout_before_anything_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with TunnelProxy.answering(None) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        error = await failure_of(FAR_HTTPS, timeout=Timeouts(connect=0.1, first_chunk=0.1))
    assert isinstance(error, APITimeoutError)
    assert (error.limit, error.processed) == (0.1, "no")


@pytest.mark.parametrize(
    ("answer", "error_type", "words", "processed"),
    [
        (body("<p>Please log in", content_type="text/html"), UnexpectedContentTypeError, "Please log in", "unknown"),
        (body("<h1>Bad gateway", 502, "text/html"), InternalServerError, "Bad gateway", "unknown"),
        (body("<h1>Who are you?", 407, "text/html"), APIStatusError, "HTTP 407.*Who are you", "no"),
        ((CLOSE,), APIConnectionError, "lost before", "unknown"),
    ],
    ids=["a page", "502", "407", "closed"],
)
async def test_the_answer_of_a_proxy_for_http_is_judged_like_the_services(
    answer: Any,
    error_type: type[ChatAPIError],
    words: str,
    processed: str,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.answer(*answer)
    async with far_client() as client:
        with pytest.raises(error_type, match=words) as caught:
            await client.chat_completion("Hi").until_done()
    assert caught.value.processed == processed


@pytest.mark.parametrize(
    "address", [f"ftp://user:{PASSWORD}@127.0.0.1", f"socks5://user:{PASSWORD}@127.0.0.1", "http://127.0.0.1:port"]
)
async def test_a_proxy_that_cannot_be_used_is_an_error_of_configuration(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    monkeypatch.setitem(sys.modules, "socksio", None)
    error = await failure_of(FAR_HTTP)
    assert isinstance(error, ConfigurationError)
    assert "proxy" in str(error).lower()
    assert PASSWORD not in "".join(traceback.format_exception(error))


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_through_a_proxy_arrives_piece_by_piece(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    gate = server.gate()
    server.answer(*stream(chunk("one"), gate, chunk("two", "stop"), DONE))
    async with far_client() as client, client.chat_completion("Hi") as stream_:
        assert (await anext(stream_)).text == "one"
        gate.open()
        assert await stream_.get_final_text() == "onetwo"


@pytest.mark.parametrize("answer", [(HOLD,), stream(chunk("one"), HOLD)], ids=["before the response", "in the stream"])
async def test_a_cancelled_read_closes_the_connection_to_the_proxy(
    answer: Any, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    server.answer(*answer)
    async with far_client() as client:
        reader = asyncio.create_task(client.chat_completion("Hi").until_done())
        await server.received()
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await server.hung_up()
