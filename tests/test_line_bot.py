"""The LINE bot of the examples, with line-bot-sdk as it is, against a stand-in of LINE on loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest

from chatapi_async import AsyncChatClient
from chatapi_async.emulator import Emulator, serve
from chatapi_async.pacing import heartbeat
from tests.platforms.line import ACCESS_TOKEN, CHANNEL_SECRET, Line
from tests.platforms.serving import serving
from tests.raw_server import RESET, RawServer, body, chunk, stream

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parent.parent / "examples" / "line_bot.py"
SECOND = 0.1
"""How long a second of the bot is here."""
QUESTION = "Tell me about rivers"


@asynccontextmanager
async def running(line: Line, upstream: str) -> AsyncGenerator[tuple[str, ModuleType], None]:
    """Serve the bot in this event loop; gives the address of its webhook, and its module."""
    given = {
        "LINE_CHANNEL_SECRET": CHANNEL_SECRET,
        "LINE_CHANNEL_ACCESS_TOKEN": ACCESS_TOKEN,
        "LINE_API_SERVER": line.url,
        "CHATAPI_BASE_URL": upstream,
        "CHATAPI_OPERATOR_ID": "tn_1",
        "CHATAPI_TOKEN": "t0ken",
    }
    spec = importlib.util.spec_from_file_location("line_bot", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        spec.loader.exec_module(module)
        patch.setattr(module, "EVERY", module.EVERY * SECOND)
        patch.setattr(module, "heartbeat", lambda source, every: heartbeat(source, every * SECOND))
        async with serving(module.app) as url:
            yield f"{url}/callback", module


@pytest.fixture
async def line() -> AsyncGenerator[Line, None]:
    async with Line().running() as line:
        yield line


@pytest.fixture
async def webhook(line: Line, server: RawServer) -> AsyncGenerator[str, None]:
    async with running(line, server.url) as (url, _):
        yield url


def without_space(text: str) -> str:
    return "".join(text.split())


async def answer_to(question: str) -> str:
    """What the local server of the service answers: the same each time."""
    async with (
        serve(Emulator(tokens_per_second=None)) as server,
        AsyncChatClient(server.base_url, operator_id="tn_1", token="t0ken") as client,
    ):
        return await client.chat_completion(question).get_final_text()


async def test_run_as_its_docstring_says_it_answers_and_ends_on_a_signal(line: Line) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CHATAPI_")}
    environment |= {"LINE_CHANNEL_SECRET": CHANNEL_SECRET, "LINE_CHANNEL_ACCESS_TOKEN": ACCESS_TOKEN}
    environment |= {"LINE_API_SERVER": line.url, "PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        log = await process.stderr.readuntil(b"(Press")
        address = re.findall(rb"running on (http://\S+) \(Press", log)[0].decode()
        await line.say(f"{address}/callback", QUESTION)
        await line.until(lambda: bool(line.shown["U1"]))
    finally:
        process.send_signal(signal.SIGTERM)
    log += await process.stderr.read()
    await process.wait()
    assert without_space("".join(line.shown["U1"])) == without_space(await answer_to(QUESTION))
    assert b"Application shutdown complete" in log
    assert b"Traceback" not in log


async def test_the_first_sentence_is_the_reply_and_the_rest_is_pushed_in_order(line: Line) -> None:
    async with serve(Emulator(tokens_per_second=40.0)) as upstream, running(line, upstream.base_url) as (webhook, _):
        response = await line.say(webhook, QUESTION)
        assert (response.status_code, line.shown["U1"]) == (200, [])
        whole = await answer_to(QUESTION)
        await line.until(lambda: without_space("".join(line.shown["U1"])) == without_space(whole))
    sent = [call.kind for call in line.calls if call.texts]
    assert sent == ["reply"] + ["push"] * (len(sent) - 1)
    assert len(sent) > 1
    assert line.calls[0].kind == "loading"
    assert line.shown["U1"][0] == whole.partition(". ")[0] + "."
    assert {call.status for call in line.calls} == {200, 202}


async def test_two_users_are_answered_at_once(line: Line, webhook: str, server: RawServer) -> None:
    gate = server.gate()
    server.answer(*stream(chunk("One. Two."), gate, chunk(finish="stop")))
    server.answer(*stream(chunk("Three."), chunk(finish="stop")))
    await line.say(webhook, QUESTION, "U1")
    await line.until(lambda: line.shown["U1"] == ["One."])
    await line.say(webhook, QUESTION, "U2")
    await line.until(lambda: line.shown["U2"] == ["Three."])
    assert line.shown["U1"] == ["One."]
    gate.open()
    await line.until(lambda: line.shown["U1"] == ["One.", "Two."])


async def test_all_of_a_long_answer_is_sent_in_messages_that_fit(line: Line, webhook: str, server: RawServer) -> None:
    text = "🏞️ rivers, 👩‍👩‍👧 and so on " * 1500
    server.answer(*stream(chunk(text), chunk(finish="stop")))
    await line.say(webhook, QUESTION)
    await line.until(lambda: without_space("".join(line.shown["U1"])) == without_space(text))
    assert [(call.kind, len(call.texts)) for call in line.calls if call.texts] == [("reply", 5), ("push", 5)]
    assert {call.status for call in line.calls} == {200, 202}


async def test_a_failure_keeps_what_came_and_says_so(line: Line, webhook: str, server: RawServer) -> None:
    server.answer(*stream(chunk("The Elbe is long. It rises in"), RESET))
    server.answer(*body('{"message": "slow down"}', 429, retry_after="3600"))
    await line.say(webhook, QUESTION, "U1")
    failed = "My answer broke off. Please ask again in a minute."
    await line.until(lambda: line.shown["U1"] == ["The Elbe is long.", "It rises in", failed])
    await line.say(webhook, QUESTION, "U2")
    await line.until(lambda: line.shown["U2"] == ["I am asked too much. Please ask again in a minute."])


async def test_what_is_too_late_for_the_reply_token_is_pushed(server: RawServer) -> None:
    server.answer(*stream(chunk("Late, but here."), chunk(finish="stop")))
    async with Line(reply_token_seconds=0).running() as line, running(line, server.url) as (webhook, _):
        await line.say(webhook, QUESTION)
        await line.until(lambda: line.shown["U1"] == ["Late, but here."])
    assert [(call.kind, call.status) for call in line.calls if call.texts] == [("reply", 400), ("push", 200)]


async def test_the_loading_animation_is_shown_again_while_nothing_comes(
    line: Line, webhook: str, server: RawServer
) -> None:
    gate = server.gate()
    server.answer(*stream(gate, chunk("Well."), chunk(finish="stop")))
    await line.say(webhook, QUESTION)
    await line.until(lambda: len(line.of("loading", 202)) == 3)
    gate.open()
    await line.until(lambda: line.shown["U1"] == ["Well."])


async def test_a_call_that_is_not_signed_by_line_is_refused(line: Line, webhook: str, server: RawServer) -> None:
    response = await line.say(webhook, QUESTION, secret="another secret")
    assert response.status_code == 400
    assert (server.requests, line.calls) == ([], [])


async def test_a_user_is_answered_with_the_last_ten_turns_in_mind(line: Line, server: RawServer) -> None:
    server.answer(*stream(chunk("Yes."), chunk(finish="stop")))
    async with running(line, server.url) as (webhook, module):
        module.EVERY = 0.01
        for number in range(12):
            await line.say(webhook, f"Question {number}")
            await line.until(lambda number=number: len(line.shown["U1"]) == number + 1)
    sent = [[message["content"] for message in request.json["messages"]] for request in server.requests]
    assert sent[1] == ["Question 0", "Yes.", "Question 1"]
    assert len(sent[-1]) == 21
    assert sent[-1][0] == "Question 1"


async def test_an_answer_that_runs_at_shutdown_is_finished_first(line: Line, server: RawServer) -> None:
    server.answer(*stream(chunk("One. Two. Three"), gate := server.gate(), chunk("."), chunk(finish="stop")))
    async with running(line, server.url) as (webhook, _):
        await line.say(webhook, QUESTION)
        await line.until(lambda: bool(line.shown["U1"]))
        asyncio.get_running_loop().call_later(0.3, gate.open)
    assert without_space("".join(line.shown["U1"])) == "One.Two.Three."
