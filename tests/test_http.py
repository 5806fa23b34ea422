"""Connections: who makes, keeps, shares and closes them, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import socket
import ssl
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import trustme

from chatapi_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatClient,
    ChatAPIError,
    ConfigurationError,
    StreamClosedError,
    StreamTruncatedError,
    Timeouts,
)
from chatapi_async._http import ssl_context
from tests.raw_server import CLOSE, DONE, HOLD, RESET, RawServer, body, chunk, client_of, head, stream, wait_for

ANSWER = (chunk("Hi", "stop"), DONE)


# ── connections are used again ───────────────────────────────────────────────────────────────────────────────────────


async def test_streams_one_after_another_share_a_connection(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*ANSWER))
    for _ in range(10):
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
    assert (server.connections, len(server.requests)) == (1, 10)


async def test_an_error_leaves_its_connection_for_the_next_request(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*body('{"message": "no such chatroom"}', 404))
    for _ in range(3):
        with pytest.raises(APIStatusError):
            await client.chat_completion("Hi")
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_no_cookie_of_one_call_is_sent_with_another(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*ANSWER, set_cookie="session=of-alice; Path=/"))
    await client.chat_completion("Hi", operator_id="tn_alice").until_done()
    await client.chat_completion("Hi", operator_id="tn_bob").until_done()
    assert server.requests[1].header("cookie") is None


# ── the caller's own httpx client ────────────────────────────────────────────────────────────────────────────────────


async def test_the_callers_http_client_is_used_and_stays_open(server: RawServer) -> None:
    server.answer(*stream(*ANSWER))
    async with httpx.AsyncClient(headers={"user-agent": "mine/1"}) as http_client:
        async with client_of(server, http_client=http_client) as client:
            await client.chat_completion("Hi").until_done()
        assert not http_client.is_closed
        assert server.requests[0].header("user-agent") == "mine/1"
        async with client_of(server, http_client=http_client) as client:
            await client.chat_completion("Hi").until_done()
        assert server.connections == 1


async def test_a_closed_http_client_of_the_caller_is_named(server: RawServer) -> None:
    http_client = httpx.AsyncClient()
    await http_client.aclose()
    with pytest.raises(StreamClosedError, match="HTTP client is closed"):
        await client_of(server, http_client=http_client).chat_completion("Hi")


async def test_the_authorization_of_a_call_goes_before_that_of_the_callers_http_client(server: RawServer) -> None:
    server.answer(*stream(*ANSWER))
    async with httpx.AsyncClient(auth=("user", "password")) as http_client:
        await client_of(server, http_client=http_client).chat_completion("Hi").until_done()
    assert server.requests[0].header("authorization") == "Bearer t0ken"


def test_what_is_no_http_client_is_refused_at_once() -> None:
    with httpx.Client() as http_client, pytest.raises(ConfigurationError, match=r"httpx\.AsyncClient, not Client"):
        AsyncChatClient(http_client=http_client)  # type: ignore[arg-type]


async def test_redirects_are_not_followed_even_if_the_callers_http_client_would(server: RawServer) -> None:
    server.answer(*body("", 307, location="/elsewhere"))
    async with httpx.AsyncClient(follow_redirects=True) as http_client:
        with pytest.raises(APIStatusError, match=r"Redirects are not followed.*/elsewhere"):
            await client_of(server, http_client=http_client).chat_completion("Hi")
    assert len(server.requests) == 1


async def test_our_own_client_names_itself(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*ANSWER))
    await client.chat_completion("Hi").until_done()
    assert (server.requests[0].header("user-agent") or "").startswith("chatapi-async/")


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_headers_match_without_regard_to_case(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*ANSWER, X_Region="sendai"))
    stream_ = await client.chat_completion("Hi")
    assert stream_.headers["X-REGION"] == stream_.headers["x-region"] == "sendai"
    assert "nothing" not in stream_.headers
    assert len(stream_.headers) == len(list(stream_.headers)) == 3
    assert "'x-region': 'sendai'" in repr(stream_.headers)
    await stream_.aclose()


async def test_repeated_headers_are_joined(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(head(200, {"content-type": "application/json", "Via": "a", "via": "b", "content-length": "0"}))
    stream_ = await client.chat_completion("Hi")
    assert stream_.headers["via"] == "a, b"
    await stream_.aclose()


@pytest.mark.parametrize("name", ["x-request-id", "request-id", "x-correlation-id"])
async def test_the_request_id_is_found(name: str, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(*ANSWER, **{name: "req_1"}))
    assert (await client.chat_completion("Hi")).request_id == "req_1"


async def test_a_compressed_stream_is_read_though_none_was_asked_for(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(gzip.compress(b"".join(ANSWER)), content_encoding="gzip"))
    assert await client.chat_completion("Hi").get_final_text() == "Hi"
    assert server.requests[0].header("accept-encoding") == "identity"


async def test_a_body_that_cannot_be_decompressed_is_a_broken_one(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(b"no gzip", content_encoding="gzip"))
    with pytest.raises(StreamTruncatedError, match="incorrect header check"):
        await client.chat_completion("Hi").until_done()


# ── what goes wrong before the response ──────────────────────────────────────────────────────────────────────────────


def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def test_a_refused_connection_is_tried_again(server: RawServer) -> None:
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        return "t0ken"

    async with client_of(server, base_url=f"http://127.0.0.1:{_unused_port()}", token=token) as client:
        with pytest.raises(APIConnectionError, match="could not connect") as caught:
            await client.chat_completion("Hi")
    assert (caught.value.retryable, caught.value.processed, asked) == (True, "no", 3)
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


@pytest.mark.parametrize("end", [RESET, CLOSE])
async def test_a_connection_lost_before_the_response_is_not_tried_again(
    end: Any, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(end)
    with pytest.raises(APIConnectionError, match="not sent again") as caught:
        await client.chat_completion("Hi")
    assert (caught.value.retryable, caught.value.processed, len(server.requests)) == (False, "unknown", 1)


async def test_a_connection_that_is_reset_before_anything_was_read_is_not_tried_again() -> None:
    connections = 0

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with AsyncChatClient(url, operator_id="tn_1", token="t0ken") as client:
            with pytest.raises(APIConnectionError) as caught:
                await client.chat_completion("Hi")
    assert (caught.value.retryable, caught.value.processed, connections) == (False, "unknown", 1)


async def test_a_kept_connection_that_the_server_closed_is_not_used_again(
    server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(*ANSWER), CLOSE)
    for _ in range(2):
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
        await server.all_closed()
    assert (len(server.requests), server.connections) == (2, 2)


@pytest.mark.parametrize("end", [RESET, CLOSE])
async def test_a_kept_connection_that_is_lost_after_the_request_was_sent_is_not_tried_again(
    end: Any, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*stream(*ANSWER))
    server.answer(end)
    await client.chat_completion("Hi").until_done()
    with pytest.raises(APIConnectionError) as caught:
        await client.chat_completion("Hi")
    assert (caught.value.processed, len(server.requests), server.connections) == ("unknown", 2, 1)


async def test_a_response_that_is_no_http_is_a_lost_connection(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(b"SSH-2.0-OpenSSH_9\r\n\r\n", HOLD)
    with pytest.raises(APIConnectionError):
        await client.chat_completion("Hi")


async def test_a_tls_handshake_that_never_ends_is_a_connect_timeout(server: RawServer) -> None:
    timeouts = Timeouts(connect=0.1, first_chunk=5)
    url = f"https://127.0.0.1:{server.port}"
    async with client_of(server, base_url=url, timeout=timeouts, retries=1) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi")
    assert (caught.value.phase, caught.value.limit, caught.value.processed) == ("connect", 0.1, "no")
    assert caught.value.partial is None
    assert server.connections == 2


async def test_one_number_for_all_timeouts_still_tells_a_connection_that_was_never_made(server: RawServer) -> None:
    url = f"https://127.0.0.1:{server.port}"
    async with client_of(server, base_url=url, timeout=0.1, retries=0) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi")
    assert (caught.value.limit, caught.value.processed, caught.value.retryable) == (0.1, "no", True)


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collection")
async def test_a_tls_handshake_that_is_given_up_closes_its_connection(server: RawServer) -> None:
    async with client_of(server, base_url=f"https://127.0.0.1:{server.port}", timeout=None) as client:
        stream_ = client.chat_completion("Hi")
        reader = asyncio.create_task(stream_.until_done())
        await wait_for(lambda: server.connections == 1, "the client to connect")
        await stream_.stop()
        await reader
        await server.all_closed()


async def test_a_request_that_cannot_be_sent_is_a_write_timeout() -> None:
    with RawServer(reads_bodies=False) as server:
        async with client_of(server, timeout=Timeouts(write=0.1, first_chunk=20)) as client:
            with pytest.raises(APITimeoutError) as caught:
                await client.chat_completion("x" * 30_000_000)
    assert (caught.value.phase, caught.value.limit, caught.value.processed) == ("write", 0.1, "unknown")
    assert server.connections == 1


async def test_a_full_pool_of_the_caller_is_a_pool_timeout(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    http_client = httpx.AsyncClient(limits=httpx.Limits(max_connections=1))
    async with (
        http_client,
        client_of(server, http_client=http_client, timeout=Timeouts(pool=0.1), retries=0) as client,
        client.chat_completion("Hi"),
    ):
        with pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi")
    assert (caught.value.phase, caught.value.limit, caught.value.processed) == ("pool", 0.1, "no")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("base_url", "chatroom_id"),
    [(None, "x" * 70_000), ("https://999.1.1.1", "ch_1"), (f"https://{'x' * 70}.example.com", "ch_1")],
    ids=["very long chatroom id", "host that is no address", "host with a label too long"],
)
async def test_an_address_that_cannot_be_asked_is_an_error_of_ours(
    base_url: str | None, chatroom_id: str, server: RawServer
) -> None:
    server.answer(*body("{}", 404))
    with pytest.raises(ChatAPIError):
        async with client_of(server, base_url=base_url or server.url) as client:
            await client.chat_completion_on_chatroom(chatroom_id, "Hi")


class Break:
    """Has the server send a TLS record that cannot be decrypted, once for each connection."""

    def __init__(self) -> None:
        self._wanted, self._sent = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def __call__(self) -> None:
        self._wanted.release()
        await self._sent.acquire()

    async def when_wanted(self, writer: asyncio.StreamWriter) -> None:
        await self._wanted.acquire()
        os.write(writer.get_extra_info("socket").fileno(), b"\x17\x03\x03\x00\x20" + bytes(32))
        self._sent.release()


@asynccontextmanager
async def behind_tls_that_breaks(sent: bytes) -> AsyncIterator[tuple[AsyncChatClient, Break]]:
    """A client of a server that sends so much, and breaks when it is told to: where both come in one read, asyncio's
    own TLS loses what came before."""
    break_ = Break()
    authority = trustme.CA()
    context, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(trusting)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sent)
        await break_.when_wanted(writer)
        with suppress(OSError):
            await reader.read()
        writer.close()

    async with (
        await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening,
        httpx.AsyncClient(verify=trusting) as http_client,
    ):
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with AsyncChatClient(url, operator_id="tn_1", token="t0ken", http_client=http_client) as client:
            yield client, break_


async def test_a_broken_tls_record_is_a_lost_connection() -> None:
    async with behind_tls_that_breaks(b"") as (client, break_), asyncio.TaskGroup() as group:
        group.create_task(break_())
        with pytest.raises(APIConnectionError, match="BAD_RECORD_MAC") as caught:
            await client.chat_completion("Hi")
    assert caught.value.processed == "unknown"


async def test_a_broken_tls_record_cuts_a_stream_and_is_nothing_to_who_has_left_it() -> None:
    begun = b"".join(step for step in stream(chunk("Air"), HOLD) if isinstance(step, bytes))
    async with behind_tls_that_breaks(begun) as (client, break_):
        async with client.chat_completion("Hi") as left:
            assert (await anext(left)).text == "Air"
            await break_()
        cut = client.chat_completion("Hi")
        assert (await anext(cut)).text == "Air"
        await break_()
        with pytest.raises(StreamTruncatedError, match="BAD_RECORD_MAC") as caught:
            await cut.until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Air"


# ── event loops and closing ──────────────────────────────────────────────────────────────────────────────────────────

# As a module would do it; no event loop runs at import.
MADE_AT_IMPORT = AsyncChatClient("http://127.0.0.1", operator_id="tn_1", token="t0ken")


async def test_a_client_made_at_import_works() -> None:
    async with MADE_AT_IMPORT:
        stream_ = MADE_AT_IMPORT.chat_completion("Hi")
    with pytest.raises(StreamClosedError):
        await stream_


@pytest.mark.parametrize(("scheme", "times"), [("http", 0), ("https", 1)])
async def test_the_certificate_store_is_read_once_for_all_clients_and_never_for_plain_http(
    scheme: str, times: int, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    load = ssl.SSLContext.load_verify_locations
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda *args, **names: read.append(load(*args, **names))
    )
    ssl_context.cache_clear()
    for _ in range(3):
        async with AsyncChatClient(
            f"{scheme}://127.0.0.1:{unused_tcp_port}", operator_id="tn_1", token="t", retries=0
        ) as client:
            with pytest.raises(APIConnectionError):
                await client.chat_completion("Hi")
    assert len(read) == times


def test_one_client_serves_event_loops_one_after_another(server: RawServer) -> None:
    server.answer(*stream(*ANSWER))
    client = client_of(server)
    for _ in range(2):
        assert asyncio.run(client.chat_completion("Hi").get_final_text()) == "Hi"
        asyncio.run(server.all_closed())
    gc.collect()
    assert server.connections == 2


def test_an_event_loop_that_has_ended_is_not_kept_in_memory(server: RawServer) -> None:
    server.answer(*stream(*ANSWER))
    client = client_of(server)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await client.chat_completion("Hi").until_done()

    for _ in range(2):
        asyncio.run(main())
    gc.collect()
    assert [loop() for loop in loops] == [None, None]


def test_a_stream_left_open_by_one_event_loop_can_be_closed_in_another(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    client = client_of(server)
    left = []

    async def leave_open() -> None:
        left.append(await client.chat_completion("Hi"))
        await anext(left[0])

    asyncio.run(leave_open())
    asyncio.run(client.aclose())
    assert left[0].snapshot.text == "Hi"
    asyncio.run(server.hung_up())


def test_a_read_that_a_closed_event_loop_left_waiting_does_not_keep_the_client_from_closing(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    client = client_of(server)
    stream_ = client.chat_completion("Hi")

    async def begin() -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(stream_.until_done())
        await wait_for(lambda: bool(stream_.snapshot.text), "the first chunk")
        return task

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(begin())
    loop.set_exception_handler(lambda *_: None)  # it would complain of the task that is left
    loop.close()
    asyncio.run(client.aclose())
    assert stream_.snapshot.text == "Hi"
    assert stream_.snapshot.completeness == "stopped"
    del left


async def test_a_loop_left_early_closes_the_connection_on_asyncio(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    async for _ in client.chat_completion("Hi"):
        break
    gc.collect()
    await server.hung_up()


async def test_a_stream_closed_with_more_of_it_at_hand_closes_the_connection(
    server: RawServer, client: AsyncChatClient
) -> None:
    *steps, end = stream(chunk("Hi"), chunk("there"), chunk("!"), HOLD)
    server.answer(b"".join(step for step in steps if isinstance(step, bytes)), end)
    async with client.chat_completion("Hi") as stream_:
        assert (await anext(stream_)).text == "Hi"
    await server.hung_up()


async def test_closing_the_client_closes_idle_connections(server: RawServer) -> None:
    server.answer(*stream(*ANSWER))
    async with client_of(server) as client:
        await client.chat_completion("Hi").until_done()
        assert server.open_connections == 1
    await server.all_closed()
    await client.aclose()


async def test_closing_the_client_ends_its_open_streams(server: RawServer) -> None:
    server.answer(*stream(chunk("Hi"), HOLD))
    client = client_of(server)
    reading = client.chat_completion("Hi")
    waiting = client.chat_completion("Hi")
    new = client.chat_completion("Hi")
    await anext(reading)
    await anext(waiting)
    reader = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    await client.aclose()
    with pytest.raises(StreamClosedError, match="client was closed") as caught:
        await reader
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hi"
    for stream_ in (reading, waiting, new, client.chat_completion("Hi")):
        with pytest.raises(StreamClosedError, match=r"client (was|is) closed"):
            await anext(stream_)
    await server.hung_up(2)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "first",
    [
        body(b"".join((chunk("mine", "stop"), DONE)), content_type="text/event-stream"),
        stream(chunk("mine", "stop"), DONE),
        body('{"message": "no"}', 404),
    ],
    ids=["of a length", "in chunks", "an error"],
)
async def test_what_follows_a_response_is_not_the_answer_to_the_next_request(
    first: Any, server: RawServer, client: AsyncChatClient
) -> None:
    extra = b"".join(body(b"".join((chunk("not yours", "stop"), DONE)), content_type="text/event-stream"))
    server.answer(b"".join(first) + extra)
    server.answer(*stream(chunk("yours", "stop"), DONE))
    with suppress(APIStatusError):
        assert await client.chat_completion("Hi").get_final_text() == "mine"
    assert await client.chat_completion("Hi").get_final_text() == "yours"
    assert server.connections == 2
