"""The WebSocket example in a process of its own, a client on a real socket, and what the service notices of it."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from chatapi_async.emulator import Emulator
from tests.raw_server import DONE, RawServer, Repeat, body, chunk, stream, wait_for
from tests.running_example import EmulatedExample, RunningExample, emulated_example, no_stream_is_open, running_example

pytestmark = [pytest.mark.heavy, pytest.mark.asyncio(loop_scope="module")]

STOP = '{"type": "stop"}'
STOPPED = {"type": "stopped"}
NOT_NOW = {"type": "error", "message": "The assistant cannot answer now."}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def emulated() -> AsyncIterator[EmulatedExample]:
    async with emulated_example("websocket_endpoint.py") as example:
        yield example


@pytest_asyncio.fixture(loop_scope="module")
async def scripted(server: RawServer) -> AsyncIterator[RunningExample]:
    async with running_example("websocket_endpoint.py", server.url) as example:
        yield example


def opened(example: RunningExample) -> connect:
    return connect(example.url.replace("http", "ws") + "/chat")


async def next_event(browser: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(5):
        event: dict[str, Any] = json.loads(await browser.recv())
    return event


async def rest_of_answer(browser: ClientConnection) -> tuple[str, dict[str, Any]]:
    """The text up to the event that is no text, and that event."""
    text = ""
    while (event := await next_event(browser))["type"] == "content.delta":
        text += event["delta"]
    return text, event


async def test_text_arrives_piece_by_piece(scripted: RunningExample, server: RawServer) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("One"), gate, chunk(" two", "stop"), DONE))
    async with opened(scripted) as browser:
        await browser.send("Count")
        assert await next_event(browser) == {"type": "content.delta", "delta": "One"}
        gate.open()
        assert await rest_of_answer(browser) == (" two", {"type": "done"})


@pytest.mark.parametrize("first_token_delay", [0, 60])
async def test_stop_ends_the_answer_upstream(emulated: EmulatedExample, first_token_delay: float) -> None:
    async with (
        emulated.by(Emulator(first_token_delay=first_token_delay)) as emulator,
        opened(emulated.example) as browser,
    ):
        for _ in range(2):
            await browser.send("Why is the sky blue?")
            await wait_for(lambda: emulator.open_streams == 1, "the stream to open")
            if not first_token_delay:
                await next_event(browser)
            await browser.send(STOP)
            await no_stream_is_open(emulator)
            assert (await rest_of_answer(browser))[1] == STOPPED


async def test_a_prompt_ends_the_answer_before_it(emulated: EmulatedExample) -> None:
    async with emulated.by(Emulator()), opened(emulated.example) as browser:
        await browser.send("Tell me about mountains")
        await next_event(browser)
        await browser.send("Tell me about rivers")
        assert (await rest_of_answer(browser))[1] == STOPPED
        text, end = await rest_of_answer(browser)
        assert "rivers" in text
        assert "mountains" not in text
        assert end == {"type": "done"}


@pytest.mark.parametrize("first_token_delay", [0, 60])
@pytest.mark.parametrize("abruptly", [False, True])
async def test_a_browser_that_leaves_ends_the_answer_upstream(
    emulated: EmulatedExample, first_token_delay: float, abruptly: bool
) -> None:
    async with (
        emulated.by(Emulator(first_token_delay=first_token_delay)) as emulator,
        opened(emulated.example) as browser,
    ):
        await browser.send("Why is the sky blue?")
        await wait_for(lambda: emulator.open_streams == 1, "the stream to open")
        if abruptly:
            connection: socket.socket = browser.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            browser.transport.abort()
        else:
            await browser.close()
        await no_stream_is_open(emulator)


async def test_a_failure_is_told_without_internals_and_the_next_prompt_is_answered(
    scripted: RunningExample, server: RawServer
) -> None:
    server.answer(*body('{"message": "t0ken of tn_1"}', 401))
    server.answer(*stream(chunk("Almost")))
    server.answer(*stream(chunk("Yes", "stop"), DONE))
    async with opened(scripted) as browser:
        for answer in [("", NOT_NOW), ("Almost", NOT_NOW), ("Yes", {"type": "done"})]:
            await browser.send("Please?")
            assert await rest_of_answer(browser) == answer


async def test_a_browser_that_leaves_while_much_is_sent_is_no_error(
    scripted: RunningExample, server: RawServer
) -> None:
    server.answer(*stream(Repeat(chunk("word " * 100))))
    async with opened(scripted) as browser:
        await browser.send("Go on")
        await next_event(browser)
        browser.transport.abort()
        await server.hung_up()
