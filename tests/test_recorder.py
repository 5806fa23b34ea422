"""What a client with ``record=`` writes, on real sockets: how every exchange went, without changing any."""

from __future__ import annotations

import errno
import gc
import gzip
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from chatapi_async import (
    AsyncChatClient,
    ChatAPIError,
    ChatCompletionResponse,
    ConfigurationError,
    FastHTTPClient,
    RetryPolicy,
    Timeouts,
)
from chatapi_async._recorder import Recorder
from chatapi_async.recording import Recording, read_recording
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    RESET,
    AnyStep,
    RawServer,
    body,
    chunk,
    client_of,
    head,
    stream,
    wait_for,
)

JSON = b'{"choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}'
ANSWER = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), DONE)
GZIP = {"content-encoding": "gzip"}


def files_in(directory: Path) -> list[Path]:
    """The recordings of a directory, the oldest first."""
    return sorted(directory.iterdir())


def recordings_in(directory: Path) -> list[Recording]:
    return [read_recording(file) for file in files_in(directory)]


# ── every end ────────────────────────────────────────────────────────────────────────────────────────────────────────

ENDS: dict[str, tuple[tuple[AnyStep, ...], str]] = {
    "complete": (stream(*ANSWER), "body_ended"),
    "no DONE": (stream(chunk("Hello", "stop")), "body_ended"),
    "goes on after DONE": (stream(*ANSWER, HOLD), "client_closed"),
    "JSON": (body(JSON), "body_ended"),
    "JSON in pieces": (stream(JSON[:9], JSON[9:], content_type="application/json"), "body_ended"),
    "gzip": (stream(gzip.compress(b"".join(ANSWER)), **GZIP), "body_ended"),
    "broken gzip": (stream(gzip.compress(b"".join(ANSWER))[:60], b"\xff" * 99, **GZIP), "unreadable"),
    "brotli": (stream(b"\x0b\x02", **{"content-encoding": "br"}), "client_closed"),
    "truncated": (stream(*ANSWER[:2]), "body_ended"),
    "cut": ((*stream(*ANSWER[:2], CLOSE),), "connection_closed"),
    "cut in a character": ((*stream("data: 仙台".encode()[:-2], CLOSE),), "connection_closed"),
    "reset": ((*stream(*ANSWER[:1], RESET),), "connection_reset"),
    "silent": (stream(*ANSWER[:2], HOLD), "client_closed"),
    "only DONE": (stream(DONE), "client_closed"),
    "error event": (stream(*ANSWER[:1], b'event: error\ndata: {"message": "no more"}\n\n'), "client_closed"),
    "no chunk": (stream(*ANSWER[:1], b"data: {\n\n"), "client_closed"),
    "too large": (stream(chunk("x" * 3000)), "client_closed"),
    "page": (stream(b"<p>Sorry</p>", content_type="text/html"), "body_ended"),
    "500": (body('{"message": "oh"}', 500, **{"x-request-id": "req_9"}), "body_ended"),
    "redirect": (body("", 302, location="http://localhost/"), "body_ended"),
    "400 that is cut": ((head(400, {"content-length": "99"}) + b"so", CLOSE), "connection_closed"),
    "silent from the start": ((HOLD,), "client_closed"),
    "lost before the response": ((CLOSE,), "no_response"),
}


def limits_of(end: str) -> Timeouts:
    """Short ones alone where a limit is what ends the stream, since a machine can be busy."""
    limits = {"silent": Timeouts(idle=0.3), "silent from the start": Timeouts(first_chunk=0.3)}
    return limits.get(end, Timeouts())


@asynccontextmanager
async def no_client_of_ones_own() -> AsyncIterator[None]:
    yield None


HTTP_CLIENTS: dict[str, Callable[[], Any]] = {
    "own": no_client_of_ones_own,
    "httpx": partial(httpx.AsyncClient, trust_env=False),
    "fast": partial(FastHTTPClient, trust_env=False),
}


async def ended(completion: Awaitable[ChatCompletionResponse]) -> tuple[Any, ...]:
    """How a stream ended, in a form that can be compared."""
    try:
        return "well", await completion
    except ChatAPIError as error:
        attributes = {name: value for name, value in vars(error).items() if name != "headers"}
        return type(error), str(error), attributes


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("http_client", "backend"), [("own", "asyncio"), ("fast", "asyncio"), ("own", "trio")])
def test_a_recording_ends_as_the_stream_did(
    end: str, http_client: str, backend: str, server: RawServer, tmp_path: Path
) -> None:
    answer, how = ENDS[end]
    server.answer(*answer)
    ends: list[tuple[Any, ...]] = []

    async def again(recording: Recording) -> ChatCompletionResponse:
        return recording.completion()

    async def main() -> None:
        limits = limits_of(end)
        options: dict[str, Any] = {"retries": 0, "max_event_bytes": 2000, "timeout": limits}
        async with HTTP_CLIENTS[http_client]() as given:
            for record in (None, tmp_path):
                async with client_of(server, record=record, http_client=given, **options) as client:
                    ends.append(await ended(client.chat_completion("Hi").get_final_completion()))
        (recording,) = recordings_in(tmp_path)
        ends.append(await ended(again(recording)))
        assert recording.end is not None
        assert recording.end.how == how
        assert recording.end.seconds >= max([recording.responded or 0.0, *(each.seconds for each in recording.pieces)])

    anyio.run(main, backend=backend)
    assert ends[0] == ends[1]  # recording changes nothing
    assert ends[1] == ends[2]


@pytest.mark.parametrize("also", [{"status": 999}, {"raises": httpx.ConnectTimeout("the system's own limit")}])
async def test_what_few_servers_and_networks_do_can_be_read_again(also: dict[str, Any], tmp_path: Path) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        if "raises" in also:
            raise also["raises"]
        return httpx.Response(also["status"])

    options: dict[str, Any] = {"operator_id": "tn_1", "token": "t0ken", "retries": 0, "timeout": None}
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http_client,
        AsyncChatClient(http_client=http_client, record=tmp_path, **options) as client,
    ):
        end = await ended(client.chat_completion("Hi").get_final_completion())
    (recording,) = recordings_in(tmp_path)
    assert await ended(again(recording)) == end


async def test_a_number_that_python_does_not_parse_costs_no_answer(server: RawServer, tmp_path: Path) -> None:
    server.answer(*stream(*ANSWER))
    message = {"role": "user", "content": "Hi", "odd": 10**5000}
    async with client_of(server, record=tmp_path) as client:
        assert await client.chat_completion([message]).get_final_text() == "Hello"  # type: ignore[list-item]
    (recording,) = recordings_in(tmp_path)
    assert recording.request.body == server.requests[0].body.decode()
    assert recording.completion().text == "Hello"


@pytest.mark.parametrize("http_client", HTTP_CLIENTS)
async def test_each_read_is_recorded_when_it_comes(http_client: str, server: RawServer, tmp_path: Path) -> None:
    first, second = server.gate(), server.gate()
    server.answer(*stream(chunk("Hel"), first, "data: 仙".encode()[:-1], second, *ANSWER[2:]))
    async with HTTP_CLIENTS[http_client]() as given, client_of(server, record=tmp_path, http_client=given) as client:
        stream_ = client.chat_completion("Hi")
        assert await anext(stream_)
        (part,) = recordings_in(tmp_path)
        assert (part.body, part.end) == (chunk("Hel"), None)
        assert part.responded is not None
        await anyio.sleep(0.02)  # what is measured
        first.open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(ended, stream_.get_final_completion()))
            await second.reached()
            await wait_for(lambda: len(recordings_in(tmp_path)[0].pieces) == 2, "the second read")
            (part,) = recordings_in(tmp_path)
            second.open()
    assert [piece.data for piece in part.pieces] == [chunk("Hel"), b"data: \xe4\xbb"]
    assert part.pieces[0].seconds >= part.responded > 0
    assert part.pieces[1].seconds - part.pieces[0].seconds >= 0.02
    (whole,) = recordings_in(tmp_path)
    assert whole.pieces[:2] == part.pieces
    assert whole.end is not None


async def test_what_was_asked_is_recorded(server: RawServer, tmp_path: Path) -> None:
    server.answer(*stream(*ANSWER, **{"x-request-id": "req_7", "X-Odd": "é"}))
    before = datetime.now(UTC)
    async with client_of(server, record=tmp_path / "deep" / "down") as client:
        await client.chat_completion("Hi", model="small", extra_headers={"x-trace": "abc"}).until_done()
        await client.chat_completion_on_chatroom("ch/1", "Hi").until_done()
    first, second = files_in(tmp_path / "deep" / "down")
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-chat_completion-000001\.jsonl", first.name)
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}Z-chat_completion_on_chatroom-000002\.jsonl", second.name)
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    recording = read_recording(first)
    assert before <= recording.began <= datetime.now(UTC)
    assert recording.library.startswith("chatapi-async ")
    assert (recording.operation, recording.request.method) == ("chat_completion", "POST")
    assert recording.request.url == f"{server.url}/v1/llms/chat/completions"
    assert recording.request.headers["x-trace"] == "abc"
    assert recording.request.headers["authorization"] == "[removed]"
    assert recording.request.body == server.requests[0].json
    assert (recording.status_code, recording.headers["x-request-id"]) == (200, "req_7")
    assert recording.headers["x-odd"] == "é"
    assert recording.body == b"".join(ANSWER)
    assert read_recording(second).request.url.endswith("/v1/llms/chatrooms/ch%2F1/chat/completions")
    assert read_recording(second).completion().text == "Hello"


# ── each attempt is an exchange ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_that_is_sent_again_is_another_exchange(server: RawServer, tmp_path: Path) -> None:
    server.answer(*body("not now", 429))
    server.answer(*body("who?", 401))
    server.answer(*stream(*ANSWER))
    async with client_of(server, token=lambda: "t0ken", record=tmp_path) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    busy, refused, whole = recordings_in(tmp_path)
    assert [each.status_code for each in (busy, refused, whole)] == [429, 401, 200]
    assert [each.end is None or each.end.outcome is None for each in (busy, refused, whole)] == [True, True, False]
    assert [(await ended(again(each)))[0].__name__ for each in (busy, refused)] == [
        "RateLimitError",
        "AuthenticationError",
    ]
    assert whole.completion().completeness == "complete"


async def again(recording: Recording) -> ChatCompletionResponse:
    return recording.completion()


async def test_a_wait_that_was_too_long_and_is_tried_again_is_an_exchange(server: RawServer, tmp_path: Path) -> None:
    server.answer(HOLD)
    server.answer(*stream(*ANSWER))
    retries = RetryPolicy(initial_delay=0.001, also={"timeout"})
    async with client_of(server, retries=retries, timeout=Timeouts(first_chunk=0.1), record=tmp_path) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    silent, whole = recordings_in(tmp_path)
    assert (silent.status_code, silent.stopped) == (None, True)
    assert whole.completion().text == "Hello"


async def test_no_connection_is_an_exchange_too(tmp_path: Path) -> None:
    with RawServer() as gone:
        url = gone.url
    async with AsyncChatClient(url, operator_id="tn_1", token="t0ken", retries=0, record=tmp_path) as client:
        end = await ended(client.chat_completion("Hi").get_final_completion())
    (recording,) = recordings_in(tmp_path)
    assert await ended(again(recording)) == end
    assert recording.end is not None
    assert recording.end.how == "no_response"


async def test_streams_one_after_another_share_a_connection(server: RawServer, tmp_path: Path) -> None:
    server.answer(*stream(*ANSWER))
    async with client_of(server, record=tmp_path) as client:
        for _ in range(3):
            await client.chat_completion("Hi").until_done()
    assert server.connections == 1
    assert len(recordings_in(tmp_path)) == 3


async def test_a_call_that_sends_nothing_records_nothing(server: RawServer, tmp_path: Path) -> None:
    def no_token() -> str:
        raise LookupError

    async with client_of(server, token=no_token, record=tmp_path) as client:
        with pytest.raises(LookupError):
            await client.chat_completion("Hi").until_done()
    assert files_in(tmp_path) == []


# ── what the caller does ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_that_is_stopped_or_closed_is_left(server: RawServer, tmp_path: Path) -> None:
    server.answer(*stream(*ANSWER[:1], HOLD))
    async with client_of(server, record=tmp_path) as client:
        for leave in ("stop", "aclose"):
            stream_ = client.chat_completion("Hi")
            await anext(stream_)
            await getattr(stream_, leave)()
        open_one = client.chat_completion("Hi")
        await anext(open_one)
    assert [each.stopped for each in recordings_in(tmp_path)] == [True] * 3
    assert [each.completion().text for each in recordings_in(tmp_path)] == ["Hel"] * 3


async def test_a_stream_that_is_forgotten_has_its_last_line(server: RawServer, tmp_path: Path) -> None:
    server.answer(*stream(*ANSWER[:1], HOLD))
    async with client_of(server, record=tmp_path) as client:
        stream_ = client.chat_completion("Hi")
        await anext(stream_)
        del stream_
        gc.collect()
        (recording,) = recordings_in(tmp_path)
        assert recording.stopped
        assert recording.body == ANSWER[0]
        await server.hung_up()


PROGRAM = """
import asyncio, atexit, os, sys
from chatapi_async import AsyncChatClient

client = AsyncChatClient(sys.argv[1], operator_id="tn_1", token="t0ken")

async def main():
    global stream
    stream = client.chat_completion("Hi")
    await anext(stream)
    {ending}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("ending", "has_end"),
    [
        ("os.kill(os.getpid(), 9)", False),
        ("os._exit(1)", False),
        ("sys.exit(0)", True),
        pytest.param(
            "os.fork() or (atexit._run_exitfuncs(), os._exit(0)); os.wait(); os._exit(1)",
            False,
            id="a fork of it ended",
        ),
    ],
)
def test_what_came_before_the_process_ended_is_kept(
    ending: str, has_end: bool, server: RawServer, tmp_path: Path
) -> None:
    server.answer(*stream(*ANSWER[:1], HOLD))
    environment = {**os.environ, "CHATAPI_RECORD": str(tmp_path / "here")}
    command = [sys.executable, "-c", PROGRAM.format(ending=ending), server.url]
    subprocess.run(command, env=environment, check=False, timeout=60)
    (recording,) = recordings_in(tmp_path / "here")
    assert recording.body == ANSWER[0]
    assert (recording.end is not None) == has_end


# ── what cannot be written ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["file", "file/below", "nul\0byte"])
def test_a_directory_that_cannot_be_written_to_is_refused_at_once(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"nothing can be recorded in .*give a directory that can be written"):
        AsyncChatClient(operator_id="tn_1", token="t0ken", record=tmp_path / name)
    with pytest.raises(ConfigurationError, match="nothing can be recorded in 5"):
        AsyncChatClient(operator_id="tn_1", token="t0ken", record=5)  # type: ignore[arg-type]


def test_a_directory_that_refuses_files_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("chatapi_async._recorder.TemporaryFile", refuse)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        AsyncChatClient(operator_id="tn_1", token="t0ken", record=tmp_path)


async def test_a_disk_that_is_full_costs_the_recording_and_not_the_answer(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*stream(*(step for each in ANSWER for step in (each, server.gate())))[:-1], b"0\r\n\r\n")
    for gate in server._gates:
        gate.open()
    write, left = os.write, 900

    def write_until_full(descriptor: int, data: bytes) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = write(descriptor, data[: min(left, 50)])
        left -= count
        return count

    monkeypatch.setattr("chatapi_async._recorder.os.write", write_until_full)
    async with client_of(server, record=tmp_path) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    (file,) = files_in(tmp_path)
    assert warnings == [f"the recording {file} stops here: No space left on device"]
    recording = read_recording(file)
    assert recording.end is None
    assert b"".join(ANSWER).startswith(recording.body)


async def test_a_directory_that_is_gone_costs_the_recording_and_not_the_answer(
    server: RawServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*stream(*ANSWER))
    directory = tmp_path / "gone"
    async with client_of(server, record=directory) as client:
        directory.rmdir()
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "stops here: No such file or directory" in warnings[0]
        directory.mkdir()
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
    assert len(recordings_in(directory)) == 1


async def test_a_file_that_cannot_be_closed_is_warned_of(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    close = os.close

    def fail(descriptor: int) -> None:
        close(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    server.answer(*stream(*ANSWER))
    async with client_of(server, record=tmp_path) as client:
        stream_ = await client.chat_completion("Hi")
        with monkeypatch.context() as patch:
            patch.setattr("chatapi_async._recorder.os.close", fail)
            assert await stream_.get_final_text() == "Hello"
    assert "stops here: Input/output error" in caplog.text


def test_two_processes_at_the_same_moment_write_two_files(tmp_path: Path) -> None:
    began = datetime(2026, 11, 26, tzinfo=UTC)
    for recorder in (Recorder(tmp_path), Recorder(tmp_path)):
        for _ in range(2):
            recorder.new_file(began, "chat_completion").close()
    assert [file.name[-12:] for file in files_in(tmp_path)] == [f"{number:06d}.jsonl" for number in (1, 2, 3, 4)]


def test_where_to_record_can_be_said_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATAPI_RECORD", str(tmp_path / "a"))
    AsyncChatClient(operator_id="tn_1", token="t0ken")
    AsyncChatClient(operator_id="tn_1", token="t0ken", record=str(tmp_path / "b"))
    monkeypatch.setenv("CHATAPI_RECORD", "")
    AsyncChatClient(operator_id="tn_1", token="t0ken")
    assert [file.name for file in files_in(tmp_path)] == ["a", "b"]


async def test_a_relative_directory_stays_where_it_was(
    server: RawServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(*stream(*ANSWER))
    monkeypatch.chdir(tmp_path)
    async with client_of(server, record="here") as client:
        monkeypatch.chdir("/")
        await client.chat_completion("Hi").until_done()
    assert len(files_in(tmp_path / "here")) == 1
