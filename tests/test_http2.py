"""A caller's client that speaks HTTP/2: streams share one connection, and the end of one is not the end of another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset

from chatapi_async import AsyncChatClient, ChatStream
from tests.raw_server import DONE, chunk, wait_for


class Server:
    """Begins an answer to every request, and ends it when the test says so."""

    def __init__(self) -> None:
        self.connections: list[tuple[H2Connection, asyncio.StreamWriter]] = []
        self.begun: list[int] = []
        self.reset: list[int] = []
        self.hung_up = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        self.connections.append((connection, writer))
        while data := await _read(reader):
            for event in connection.receive_data(data):
                if isinstance(event, DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, RequestReceived):
                    headers = [(":status", "200"), ("content-type", "text/event-stream")]
                    connection.send_headers(event.stream_id, headers)
                elif isinstance(event, StreamEnded):
                    self.begun.append(event.stream_id)
                    connection.send_data(event.stream_id, chunk("Hi"))
                elif isinstance(event, StreamReset):
                    self.reset.append(event.stream_id)
            writer.write(connection.data_to_send())
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.hung_up += 1

    def end(self, stream_id: int) -> None:
        ((connection, writer),) = self.connections
        connection.send_data(stream_id, chunk(" there", "stop") + DONE, end_stream=True)
        writer.write(connection.data_to_send())


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except ConnectionError:
        return b""


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[AsyncChatClient]:
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with (
            httpx.AsyncClient(http1=False, http2=True, trust_env=False) as http_client,
            AsyncChatClient(url, operator_id="tn_1", token="t0ken", http_client=http_client) as client,
        ):
            yield client
        await wait_for(lambda: server.hung_up == len(server.connections), "the client to hang up")


async def _cancelled(stream: ChatStream[Any]) -> None:
    with anyio.move_on_after(0.05):
        await stream.until_done()


@pytest.mark.parametrize(
    "end", [ChatStream.aclose, ChatStream.stop, _cancelled], ids=["closed", "stopped", "cancelled"]
)
async def test_a_stream_that_ends_early_leaves_the_others_of_its_connection(
    end: Any, server: Server, client: AsyncChatClient
) -> None:
    first, second = client.chat_completion("Hi"), client.chat_completion("Hi")
    assert [(await anext(each)).text for each in (first, second)] == ["Hi", "Hi"]

    await end(first)
    server.end(server.begun[1])

    assert await second.get_final_text() == "Hi there"
    assert first.snapshot.completeness == "stopped"
    assert len(server.connections) == 1
    assert server.reset == []  # httpx tells the server nothing


async def test_a_request_that_is_cancelled_before_its_response_leaves_the_others_of_its_connection(
    server: Server, client: AsyncChatClient
) -> None:
    first = client.chat_completion("Hi")
    await anext(first)
    opening = asyncio.ensure_future(client.chat_completion("Hi").until_done())
    await wait_for(lambda: len(server.begun) == 2, "the second request")
    opening.cancel()
    await asyncio.wait([opening])
    server.end(server.begun[0])

    assert await first.get_final_text() == "Hi there"
