"""The test kit as its users have it: the fixture on real sockets, also in a pytest of its own; builders without any."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from importlib.metadata import entry_points, metadata
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import respx

from chatapi_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatClient,
    ChatCompletionChunkResponse,
    ChatCompletionResponse,
    EmptyStreamError,
    MessageAccumulator,
    RateLimitError,
    ServerStreamError,
    StreamTruncatedError,
    Timeouts,
    Usage,
    testing,
)
from chatapi_async.testing import (
    ChatServer,
    chunk,
    completion,
    error,
    event_stream,
    fault,
    route_chat,
    serve_chat,
    tool_call,
)

CALL = tool_call("get_weather", {"location": "仙台"})


def client_of(server: ChatServer, **options: Any) -> AsyncChatClient:
    return AsyncChatClient(server.base_url, operator_id="tn_1", token="t0ken", **{"retries": 0, **options})


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_replies_are_given_in_their_order_and_then_the_model_answers(chatapi_server: ChatServer) -> None:
    chatapi_server.reply("The first, of several words.")
    chatapi_server.reply("The second.")
    async with client_of(chatapi_server) as client:
        answers = [await client.chat_completion("Hi").get_final_text() for _ in range(3)]
    assert answers[:2] == ["The first, of several words.", "The second."]
    assert "built-in model" in answers[2]


async def test_a_sequence_of_texts_comes_a_chunk_each(chatapi_server: ChatServer) -> None:
    chatapi_server.reply(["Hel", "lo, ", "world"])
    async with client_of(chatapi_server) as client:
        texts = [text async for text in client.chat_completion("Hi").text_stream]
    assert texts == ["Hel", "lo, ", "world"]


async def test_a_reply_has_tool_calls_a_finish_reason_and_usage(chatapi_server: ChatServer) -> None:
    chatapi_server.reply("Let me see.", tool_calls=[CALL], usage=Usage(total_tokens=7, total_cost=0.5))
    chatapi_server.reply(tool_calls=[CALL, tool_call("f", "{brok", id="call_2")])
    chatapi_server.reply("Cut", finish_reason="length")
    async with client_of(chatapi_server) as client:
        first, second, third = [await client.chat_completion("Hi").get_final_completion() for _ in range(3)]
    assert first.message is not None
    assert (first.text, first.message.tool_calls, first.usage) == (
        "Let me see.",
        [CALL],
        Usage(total_tokens=7, total_cost=0.5),
    )
    assert second.message is not None
    assert [call.function.arguments for call in second.message.tool_calls or []] == ['{"location": "仙台"}', "{brok"]
    assert (second.text, second.choices[0].finish_reason) == ("", "tool_calls")
    assert (third.text, third.choices[0].finish_reason) == ("Cut", "length")


async def test_a_fault_spoils_the_next_answer_alone(chatapi_server: ChatServer) -> None:
    chatapi_server.fault("truncate", after=2)
    async with client_of(chatapi_server) as client:
        with pytest.raises(StreamTruncatedError) as caught:
            await client.chat_completion("Hi").until_done()
        assert (await client.chat_completion("Hi").get_final_completion()).completeness == "complete"
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"


async def test_a_reply_of_ones_own_can_go_wrong(chatapi_server: ChatServer) -> None:
    chatapi_server.reply(["The sky ", "is blue."], fault=fault("reset", after=2))
    async with client_of(chatapi_server) as client:
        with pytest.raises(StreamTruncatedError) as caught:
            await client.chat_completion("Hi").until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "The sky "


async def test_a_script_of_texts_faults_and_delays(chatapi_server: ChatServer) -> None:
    chatapi_server.script(
        ["One", fault("hang_up"), 0.3, "Two", fault("status", code=429), ["Th", "ree"], 0.3, fault("only_done")]
    )
    async with client_of(chatapi_server) as client:

        async def ask() -> tuple[str, float]:
            stream = client.chat_completion("Hi")
            return await stream.get_final_text(), stream.stats.time_to_first_chunk or 0.0

        text, waited = await ask()
        assert (text, waited < 0.3) == ("One", True)
        with pytest.raises(APIConnectionError):
            await ask()
        text, waited = await ask()
        assert (text, waited >= 0.3) == ("Two", True)
        with pytest.raises(RateLimitError):
            await ask()
        assert (await ask())[0] == "Three"
        with pytest.raises(EmptyStreamError) as caught:
            await ask()
    assert caught.value.partial is not None


@pytest.mark.parametrize("steps", [[0.5], ["One", 1], [1, 2, "One"]])
def test_a_delay_without_an_answer_is_refused(steps: Any, chatapi_server: ChatServer) -> None:
    with pytest.raises(ValueError, match="no answer"):
        chatapi_server.script(steps)


def test_a_fault_that_there_is_not_is_refused_where_it_is_asked_for(chatapi_server: ChatServer) -> None:
    with pytest.raises(ValueError, match="did you mean 'truncate'"):
        chatapi_server.fault("trunkate")
    with pytest.raises(ValueError, match="did you mean 'after'"):
        chatapi_server.script([fault("truncate", aftr=2)])
    with pytest.raises(ValueError, match="after: Input should be greater than or equal to 0"):
        chatapi_server.fault("truncate", after=-1)


async def test_what_came_can_be_asserted(chatapi_server: ChatServer) -> None:
    async with client_of(chatapi_server) as client:
        await client.chat_completion("Hi", temperature=0.5).until_done()
        await client.chat_completion_on_chatroom("ch/1 ü", "And you?").until_done()
    first, second = chatapi_server.requests
    assert first.json() == {"messages": [{"role": "user", "content": "Hi"}], "stream": True, "temperature": 0.5}
    assert (first.chatroom_id, second.chatroom_id) == (None, "ch/1 ü")
    assert first.headers["x-operator-id"] == "tn_1"
    assert second.json()["messages"][0]["content"] == "And you?"
    assert "t0ken" not in repr(chatapi_server.requests)
    assert repr(chatapi_server) == f"<ChatServer {chatapi_server.base_url}>"


async def test_leaving_a_stream_closes_it(chatapi_server: ChatServer) -> None:
    chatapi_server.reply("Wait for it", fault=fault("stall", after=2))
    async with client_of(chatapi_server) as client:
        async with client.chat_completion("Hi") as stream:
            await anext(stream)
            assert chatapi_server.open_streams == 1
        await chatapi_server.wait_for_open_streams(0)
    assert chatapi_server.open_streams == 0


async def test_a_stream_that_stays_open_is_told(chatapi_server: ChatServer) -> None:
    chatapi_server.fault("stall")
    async with client_of(chatapi_server) as client:
        task = asyncio.create_task(client.chat_completion("Hi").until_done())
        await chatapi_server.wait_for_open_streams(1)
        with pytest.raises(TimeoutError, match=r"after 0.05 s there are 1 open streams, not 0"):
            await chatapi_server.wait_for_open_streams(timeout=0.05)
        with pytest.raises(TimeoutError, match=r"^$"):
            async with asyncio.timeout(0.05):
                await chatapi_server.wait_for_open_streams()
        task.cancel()
        await asyncio.wait([task])
        await chatapi_server.wait_for_open_streams()


async def test_a_fault_of_time_meets_the_clients_limits(chatapi_server: ChatServer) -> None:
    chatapi_server.fault("stall", after=2, keep_alive=0.05)
    async with client_of(chatapi_server, timeout=Timeouts(idle=0.2)) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi").until_done()
    assert caught.value.phase == "idle"


async def test_a_refused_request_uses_up_no_answer(chatapi_server: ChatServer) -> None:
    chatapi_server.reply("For the one that is right")
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{chatapi_server.base_url}/v1/llms/chat/completions")).status_code == 401
    async with client_of(chatapi_server) as client:
        assert await client.chat_completion("Hi").get_final_text() == "For the one that is right"


async def test_two_hundred_streams_at_once_each_get_an_answer(chatapi_server: ChatServer) -> None:
    chatapi_server.script([item for n in range(100) for item in (f"Number {n}", fault("reset", after=3))])
    async with client_of(chatapi_server, timeout=Timeouts(first_chunk=20, idle=20)) as client:
        asked = (client.chat_completion("Hi").get_final_text() for _ in range(200))
        results = await asyncio.gather(*asked, return_exceptions=True)
    texts = {result for result in results if isinstance(result, str)}
    assert texts == {f"Number {n}" for n in range(100)}
    assert sum(isinstance(result, StreamTruncatedError) for result in results) == 100
    await chatapi_server.wait_for_open_streams(0)


# ── in a pytest of a user ────────────────────────────────────────────────────────────────────────────────────────────

USERS_TEST = """
import os
import anyio
import pytest
from chatapi_async import AsyncChatClient, StreamTruncatedError
from chatapi_async.testing import ChatServer, fault

async def check(server: ChatServer) -> None:
    server.script(["Hello", fault("truncate", after=2)])
    async with AsyncChatClient(server.base_url, operator_id="tn_1", token="any", retries=0) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
        with pytest.raises(StreamTruncatedError):
            await client.chat_completion("Hi").get_final_text()
        async with client.chat_completion("Hi", model="fault/stall?after=1") as stream:
            await anext(stream)
        await server.wait_for_open_streams(0)
    assert len(server.requests) == 3

{decorator}
async def test_it(chatapi_server):
    await check(chatapi_server)
    assert "127.0.0.1" in os.environ["NO_PROXY"]
"""
SYNCHRONOUS = """
def test_without_a_plugin(chatapi_server):
    anyio.run(check, chatapi_server)

def test_next(chatapi_server):
    assert chatapi_server.requests == []
"""


def run_pytest(where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # pytest-asyncio warns of a setting that these few files do not have.
    warnings = ["-W", "error", "-W", "ignore::pytest.PytestDeprecationWarning"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *warnings, *words]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("decorator", "words", "passed"),
    [
        ("@pytest.mark.asyncio", ["-p", "no:anyio", "-o", "asyncio_mode=strict"], 3),
        ("", ["-o", "asyncio_mode=auto"], 3),
        ("@pytest.mark.anyio", ["-p", "no:asyncio"], 4),
        ("@pytest.mark.anyio", ["-o", "asyncio_mode=strict"], 4),
    ],
    ids=["pytest-asyncio", "pytest-asyncio in auto mode", "anyio", "both"],
)
@pytest.mark.heavy
def test_the_fixture_works_with_every_plugin(decorator: str, words: list[str], passed: int, tmp_path: Path) -> None:
    (tmp_path / "test_bot.py").write_text(USERS_TEST.format(decorator=decorator) + SYNCHRONOUS, encoding="utf-8")
    done = run_pytest(tmp_path, *words)
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr  # with anyio, on asyncio and on trio
    assert done.returncode == 0


@pytest.mark.heavy
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "example.com")
    (tmp_path / "test_bot.py").write_text(USERS_TEST.format(decorator="@pytest.mark.asyncio"), encoding="utf-8")
    done = run_pytest(tmp_path)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.heavy
def test_pytest_lists_the_fixture_with_what_it_is(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--fixtures")
    assert "chatapi_server" in done.stdout
    assert "A running server of the service on a free port" in done.stdout


def test_the_plugin_imports_nothing_until_a_test_asks_for_it() -> None:
    (plugin,) = (entry for entry in entry_points(group="pytest11") if entry.name == "chatapi")
    program = f"import pytest, sys; before = set(sys.modules); import {plugin.value}; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"chatapi_async", "chatapi_async._pytest_plugin", "chatapi_async._version"}


README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.smoke
@pytest.mark.heavy
def test_the_readme_leads_from_nothing_to_a_test_that_cuts_a_stream(tmp_path: Path) -> None:
    files = dict(re.findall(r"<!-- (\w+\.(?:py|ini)) -->\n```\w+\n(.*?)```", README, re.DOTALL))
    assert set(files) == {"bot.py", "test_bot.py", "test_failure.py", "pytest.ini"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    anyio.run(record_a_failure, tmp_path)
    done = run_pytest(tmp_path)
    tests = sum(content.count("async def test_") for content in files.values())
    assert f"{tests} passed" in done.stdout, done.stdout + done.stderr


async def record_a_failure(directory: Path) -> None:
    with serve_chat() as server:
        server.fault("truncate", after=3)
        async with client_of(server, record=directory / "recordings") as client:
            with pytest.raises(StreamTruncatedError):
                await client.chat_completion("Why is the sky blue?").until_done()
    (file,) = (directory / "recordings").iterdir()
    file.rename(directory / "failure.jsonl")


def test_the_readme_names_all_there_is() -> None:
    page = README.partition("## Testing your own bot\n")[2].partition("\n## ")[0]
    members = {name for name in vars(ChatServer) if not name.startswith("_")}
    assert set(re.findall(r"^\| `(?:await )?\.(\w+)", page, re.MULTILINE)) == members
    assert {name for name in testing.__all__ if not re.search(rf"`{name}\b", page)} == set()
    assert "chatapi-async[testing]" in page
    assert "testing" in metadata("chatapi-async").get_all("Provides-Extra", [])


# ── without sockets ──────────────────────────────────────────────────────────────────────────────────────────────────

Answered = Callable[[bytes], Coroutine[Any, Any, ChatCompletionResponse]]


@pytest.fixture
def read() -> Answered:
    """Reads a body through the client."""

    async def read(body: bytes) -> ChatCompletionResponse:
        with respx.mock() as router:
            route_chat(router, body)
            async with AsyncChatClient("https://api.example.com", operator_id="tn_1", token="t") as client:
                return await client.chat_completion("Hi").get_final_completion()

    return read


async def test_a_body_of_texts_and_chunks_is_a_whole_answer(read: Answered) -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    answer = await read(event_stream(["Hel", chunk("lo", role="assistant"), chunk(tool_calls=[CALL], usage=usage)]))
    assert answer.message is not None
    assert (answer.text, answer.message.tool_calls, answer.usage) == ("Hello", [CALL], usage)
    assert (answer.choices[0].finish_reason, answer.completeness) == ("stop", "complete")


async def test_a_finish_reason_of_ones_own_is_the_only_one(read: Answered) -> None:
    body = event_stream(["Hel", chunk("lo", finish_reason="length")])
    assert body.count(b"finish_reason") == 1
    assert body.endswith(b"data: [DONE]\n\n")
    assert (await read(body)).choices[0].finish_reason == "length"


async def test_a_body_that_is_not_complete_breaks_off(read: Answered) -> None:
    with pytest.raises(StreamTruncatedError) as caught:
        await read(event_stream(["Hel"], complete=False))
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hel"


async def test_an_error_ends_a_body(read: Answered) -> None:
    body = event_stream(["Hel", error("overloaded", code=529, type="server_error")])
    assert body.endswith(
        b'event: error\ndata: {"error": {"message": "overloaded", "type": "server_error", "code": 529}}\n\n'
    )
    with pytest.raises(ServerStreamError) as caught:
        await read(body)
    assert (caught.value.message, caught.value.code, caught.value.type) == ("overloaded", 529, "server_error")


async def test_other_events_and_bytes_go_in_as_they_are(read: Answered) -> None:
    body = event_stream([b": ping\n\n", {"type": "ping"}, "Hi"])
    assert body.startswith(b': ping\n\ndata: {"type": "ping"}\n\ndata: {"id":"msg_test"')
    assert (await read(body)).text == "Hi"


def test_a_chunk_says_only_what_it_was_given() -> None:
    assert chunk("Hi").model_dump(exclude_unset=True) == {
        "id": "msg_test",
        "object": "chat.completion.chunk",
        "model": "test",
        "choices": [{"delta": {"content": "Hi"}, "index": 0}],
    }
    assert isinstance(chunk(index=2), ChatCompletionChunkResponse)
    assert chunk(index=2).choices[0].index == 2


def test_a_completion_is_what_its_chunks_make() -> None:
    usage = Usage(total_tokens=3)
    merged = MessageAccumulator()
    for made in (chunk("Hi", role="assistant"), chunk(tool_calls=[CALL], finish_reason="tool_calls", usage=usage)):
        merged.add(made)
    assert merged.completion() == completion("Hi", tool_calls=[CALL], usage=usage)
    assert completion(tool_calls=[CALL]).choices[0].message.content is None
    assert (completion().text, completion().choices[0].finish_reason) == ("", "stop")
    assert completion("Hi", finish_reason="length").choices[0].finish_reason == "length"


async def test_a_route_answers_both_operations_one_answer_after_another(respx_mock: respx.MockRouter) -> None:
    route = route_chat(respx_mock, "One", httpx.Response(429, json={"message": "slow down"}), event_stream(["Three"]))
    async with AsyncChatClient("https://api.example.com/base", operator_id="tn_1", token="t", retries=0) as client:
        assert await client.chat_completion("Hi").get_final_text() == "One"
        with pytest.raises(RateLimitError, match="slow down"):
            await client.chat_completion_on_chatroom("ch_1", "Hi").get_final_text()
        assert await client.chat_completion_on_chatroom("ch_1", "Hi").get_final_text() == "Three"
        assert await client.chat_completion("Hi").get_final_text() == "Three"
    assert route.call_count == 4
    assert route.calls[1].request.url.path.endswith("/v1/llms/chatrooms/ch_1/chat/completions")


def test_a_route_without_an_answer_is_refused(respx_mock: respx.MockRouter) -> None:
    with pytest.raises(ValueError, match="no answer is given"):
        route_chat(respx_mock)
