"""Recordings shown by ``chatapi replay``, and given again by the server of the test kit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from chatapi_async import (
    AsyncChatClient,
    ChatAPIError,
    ChatCompletionResponse,
    RecordingError,
    Timeouts,
)
from chatapi_async.__main__ import main
from chatapi_async.emulator import Emulator, ScriptedAnswer
from chatapi_async.emulator._replayed import replayed
from chatapi_async.emulator._steps import Pause
from chatapi_async.recording import End, Outcome, Recording, read_recording
from chatapi_async.testing import ChatServer
from tests.raw_server import DONE, RawServer, chunk
from tests.test_recorder import ENDS, files_in, limits_of
from tests.test_recording import PART, TIMED_OUT, recording, written

NEVER_SENT = Outcome("failed", "APIConnectionError", "nobody there", processed="no", retryable=True)
Save = Callable[[Recording], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def save(recording: Recording) -> Path:
        path = tmp_path / "recording.jsonl"
        path.write_bytes(written(recording))
        return path

    return save


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────


def client_for(server: ChatServer, **options: Any) -> AsyncChatClient:
    given: dict[str, Any] = {"base_url": server.base_url, "retries": 0, "max_event_bytes": 2000}
    return AsyncChatClient(operator_id="tn_1", token="t0ken", **given | options)


async def ended(client: AsyncChatClient) -> tuple[Any, ...]:
    """How a stream ended, in what does not depend on the server's address or on how its sockets break."""
    stream_ = client.chat_completion("Hi")
    partial: ChatCompletionResponse | None
    try:
        partial, error = await stream_.get_final_completion(), None
    except ChatAPIError as failure:
        partial, error = getattr(failure, "partial", None), type(failure)
    return error, partial, stream_.status_code, stream_.headers.get("content-type")


def how_of(file: Path) -> str:
    end = read_recording(file).end
    assert end is not None
    return end.how


@pytest.mark.parametrize("end", ENDS)
async def test_an_exchange_that_was_recorded_ends_again_in_the_same_way(
    end: str, server: RawServer, chatapi_server: ChatServer, tmp_path: Path
) -> None:
    server.answer(*ENDS[end][0])
    async with client_for(chatapi_server, base_url=server.url, record=tmp_path, timeout=limits_of(end)) as client:
        first = await ended(client)
    (file,) = files_in(tmp_path)
    chatapi_server.replay(file)
    async with client_for(chatapi_server, record=tmp_path / "again", timeout=limits_of(end)) as client:
        assert await ended(client) == first
        (again,) = files_in(tmp_path / "again")
        assert how_of(again) == {"unreadable": "connection_closed"}.get(how_of(file), how_of(file))
        another = client.chat_completion("Hi", timeout=Timeouts())
        assert (await another.get_final_completion()).completeness == "complete"


async def test_the_responses_own_headers_come_again_and_those_of_the_connection_do_not(
    save: Save, chatapi_server: ChatServer
) -> None:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "x-request-id": "req_recorded",
        "x-odd": "仙台",
        **dict.fromkeys(("connection", "keep-alive", "upgrade", "server", "date"), "recorded"),
        "content-length": "3",
        "transfer-encoding": "chunked",
        "content-encoding": "gzip",
    }
    chatapi_server.replay(save(recording(chunk("Hi", "stop"), DONE, headers=headers)))
    async with client_for(chatapi_server) as client:
        stream_ = client.chat_completion("Hi")
        assert await stream_.get_final_text() == "Hi"
    assert stream_.request_id == "req_recorded"
    assert stream_.headers["x-odd"] == "仙台"
    assert "recorded" not in {value for name, value in stream_.headers.items() if name != "x-request-id"}
    assert "content-encoding" not in stream_.headers


async def test_replays_are_given_in_their_order_among_other_answers(save: Save, chatapi_server: ChatServer) -> None:
    chatapi_server.reply("One")
    chatapi_server.replay(str(save(recording(chunk("Two", "stop"), DONE))))
    chatapi_server.reply("Three")
    async with client_for(chatapi_server) as client:
        assert [await client.chat_completion("Hi").get_final_text() for _ in range(3)] == ["One", "Two", "Three"]
        assert await client.chat_completion_on_chatroom("ch_1", "Hi").get_final_text()


async def test_it_comes_at_the_pace_that_is_asked_for(save: Save, chatapi_server: ChatServer, tmp_path: Path) -> None:
    path = save(recording(chunk("Hel"), chunk("lo"), chunk(finish="stop"), DONE))
    chatapi_server.replay(path, speed=10)
    async with client_for(chatapi_server, record=tmp_path / "again") as client:
        await client.chat_completion("Hi").until_done()
    (again,) = (read_recording(file) for file in files_in(tmp_path / "again"))
    assert again.body == read_recording(path).body
    assert (again.responded or 0.0) >= 0.5 / 10 - 0.01  # as exact as the clocks of event loops are
    assert again.pieces[-1].seconds >= 4 / 10 - 0.01


@pytest.mark.parametrize(("speed", "pauses"), [(None, []), (1, [0.5, 0.5, 1.0, 7.0]), (2, [0.25, 0.25, 0.5, 3.5])])
def test_pauses_are_left_out_unless_they_are_asked_for(speed: float | None, pauses: list[float]) -> None:
    steps = list(replayed(recording(*PART), speed))
    assert [step.seconds for step in steps if isinstance(step, Pause)] == pauses
    assert [step for step in steps if isinstance(step, bytes)] == list(PART)


async def test_what_broke_off_breaks(save: Save, chatapi_server: ChatServer) -> None:
    chatapi_server.replay(save(recording(*PART, end=None)))
    async with client_for(chatapi_server) as client:
        error, partial, *_ = await ended(client)
    assert error is not None
    assert error.__name__ == "StreamTruncatedError"
    assert partial is not None
    assert partial.text == "Hello"


def test_a_response_that_ended_ends_whatever_the_client_waited_for_then() -> None:
    refused = recording(status_code=401, pieces=(), end=End(2, "body_ended", "", TIMED_OUT))
    assert [step for step in replayed(refused, None) if isinstance(step, Pause)] == []


async def test_a_server_that_took_no_request_is_silent(save: Save, chatapi_server: ChatServer) -> None:
    end = End(1, "no_response", "", Outcome("failed", "APITimeoutError", "too long", "write", 1.0))
    chatapi_server.replay(save(recording(status_code=None, end=end)))
    async with client_for(chatapi_server, timeout=Timeouts(first_chunk=0.15)) as client:
        error, *_ = await ended(client)
    assert error is not None
    assert error.__name__ == "APITimeoutError"


def test_what_cannot_be_given_again_is_refused(save: Save, chatapi_server: ChatServer, tmp_path: Path) -> None:
    path = save(recording(status_code=None, end=End(1, "no_response", "", NEVER_SENT)))
    with pytest.raises(ValueError, match="never reached a server"):
        chatapi_server.replay(path)
    for status in (199, 600):
        with pytest.raises(ValueError, match=f"the recorded status {status} is none that this server can send"):
            chatapi_server.replay(save(recording(status_code=status)))
    with pytest.raises(ValueError, match="speed must be greater than 0, not -1"):
        chatapi_server.replay(save(recording(DONE)), speed=-1)
    with pytest.raises(FileNotFoundError):
        chatapi_server.replay(tmp_path / "none.jsonl")
    path.write_text("Dear diary")
    with pytest.raises(RecordingError, match="line 1"):
        chatapi_server.replay(path)


async def test_a_broken_connection_takes_the_emulators_own_server() -> None:
    emulator = Emulator(tokens_per_second=None)
    emulator.script(
        ScriptedAnswer(recording=recording(chunk("Hi", "stop"), DONE)),
        ScriptedAnswer(recording=recording(*PART, end=End(9, "connection_reset"))),
    )
    transport = httpx.ASGITransport(emulator)
    async with (
        httpx.AsyncClient(transport=transport) as http_client,
        AsyncChatClient("http://localhost", operator_id="tn_1", token="t0ken", http_client=http_client) as client,
    ):
        assert await client.chat_completion("Hi").get_final_text() == "Hi"
        for _ in range(2):  # what is refused stays queued
            with pytest.raises(ChatAPIError, match="the recorded exchange breaks the connection, which takes the emul"):
                await client.chat_completion("Hi").until_done()


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def summary(shown: str) -> dict[str, str]:
    return {line[:14].rstrip(): line[14:] for line in shown.splitlines()}


def test_an_answer_is_shown_and_how_it_went(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    pieces = (chunk("仙"), chunk("台"), chunk("!", choices=[{"index": 0, "delta": {"tool_calls": [call]}}]),
              chunk(finish="tool_calls"), DONE, b": bye\n\n")  # fmt: skip
    assert main(["replay", "--instantly", str(save(recording(*pieces)))]) == 0
    out, err = capsys.readouterr()
    assert out == "仙台\nf({})\n"
    assert summary(err) == {
        "recorded": "2026-11-26 22:10:30 UTC by chatapi-async 1.0",
        "request": "POST http://localhost/v1",
        "response": "200 after 0.500 s",
        "ended": "complete",
        "chunks": "4",
        "first chunk": "1.000 s",
        "duration": "9.000 s",
    }


def test_several_are_shown_one_after_another(save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, cut = recording(chunk("Hi", "stop"), DONE), recording(chunk("Hel"))
    files = [str(save(each).rename(tmp_path / f"{name}.jsonl")) for name, each in (("a", whole), ("b", cut))]
    assert main(["replay", "--instantly", *files, *files]) == 1
    out, err = capsys.readouterr()
    assert out == "Hi\nHel\n" * 2
    assert re.findall(r"^ended +(\w+)", err, re.M) == ["complete", "StreamTruncatedError"] * 2
    assert main(["replay", "--instantly", str(tmp_path / "none"), *files]) == 2
    assert capsys.readouterr().out == "Hi\nHel\n"


NO_RESPONSE = {"status_code": None, "pieces": (), "end": End(3, "no_response", "", NEVER_SENT)}


@pytest.mark.parametrize(
    ("changes", "code", "ended", "measured"),
    [
        ({}, 1, "StreamTruncatedError: .*the body ended after 2 chunks", ("2", "1.000 s", "9.000 s")),
        (
            {"end": End(9, "connection_reset", "gone")},
            1,
            r"StreamTruncatedError: .*the connection broke \(gone\)",
            ("2", "1.000 s", "9.000 s"),
        ),
        (
            {"end": None},
            1,
            "StreamTruncatedError: .*the recording broke off after 2 chunks",
            ("2", "1.000 s", "2.000 s"),
        ),
        (
            {"end": End(9, "client_closed", "", TIMED_OUT)},
            1,
            "APITimeoutError: too long",
            ("2", "1.000 s", "9.000 s"),
        ),
        (
            {"end": End(9, "client_closed", "", Outcome("stopped"))},
            0,
            "left by the client",
            ("2", "1.000 s", "9.000 s"),
        ),
        ({"status_code": 503, "pieces": ()}, 1, "InternalServerError: HTTP 503 from POST", ("0", "none", "9.000 s")),
        (NO_RESPONSE, 1, "APIConnectionError: nobody there", ("0", "none", "3.000 s")),
    ],
)
def test_a_failure_is_said_as_the_library_says_it(
    changes: dict[str, Any],
    code: int,
    ended: str,
    measured: tuple[str, ...],
    save: Save,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["replay", "--instantly", str(save(recording(*PART, **changes)))]) == code
    out, err = capsys.readouterr()
    said = summary(err)
    assert out == ("" if measured[0] == "0" else "Hello\n")
    assert re.match(ended, said["ended"])
    assert (said["chunks"], said["first chunk"], said["duration"]) == measured
    assert said["response"] == (
        "none" if changes is NO_RESPONSE else f"{changes.get('status_code', 200)} after 0.500 s"
    )


def test_the_bytes_are_shown_as_they_came_to_their_last(save: Save, capfdbinary: Any) -> None:
    pieces = (*PART, chunk(finish="stop"), DONE, b"\xff: after the end")
    assert main(["replay", "--instantly", "--raw", str(save(recording(*pieces)))]) == 0
    assert capfdbinary.readouterr().out == b"".join(pieces)


@pytest.mark.parametrize(
    "changes",
    [{}, {"status_code": None, "pieces": (), "end": End(9.0, "client_closed", "", TIMED_OUT)}, {"status_code": 500}],
)
def test_it_takes_as_long_as_it_took_or_so_many_times_less(changes: dict[str, Any], save: Save) -> None:
    path = save(recording(*PART, **changes))
    began = time.monotonic()
    main(["replay", "--speed", "60", str(path)])
    took = time.monotonic() - began
    assert 9 / 60 <= took < 9


def test_a_chunk_is_shown_when_it_came(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("chatapi_async._commands.replay.time.sleep", waits.append)
    main(["replay", str(save(recording(*PART)))])
    assert waits == pytest.approx([1.0, 2.0, 9.0], abs=0.2)  # nothing was slept, so each is from the beginning
    waits.clear()
    main(["replay", "--speed", "1e-300", str(save(recording(*PART)))])
    assert waits == [1e9] * 3


@pytest.mark.parametrize("name", ["README.md", "there is none", "."])
def test_what_is_no_recording_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parent.parent / name
    assert main(["replay", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("chatapi: ")
    assert err.count("\n") == 1
    assert str(path) in err


@pytest.mark.smoke
def test_a_failure_is_recorded_and_replayed_from_the_command_line(chatapi_server: ChatServer, tmp_path: Path) -> None:
    chatapi_server.fault("truncate", after=2)
    run = partial(subprocess.run, capture_output=True, text=True, timeout=60, check=False)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHATAPI_")}
    given = {"BASE_URL": chatapi_server.base_url, "OPERATOR_ID": "tn_1", "TOKEN": "t0ken", "RECORD": str(tmp_path)}
    env = {**kept, **{f"CHATAPI_{name}": value for name, value in given.items()}}
    command = [sys.executable, "-m", "chatapi_async"]
    sent = run([*command, "send", "Hi"], env=env)
    (file,) = files_in(tmp_path)
    shown = subprocess.run(
        [*command, "replay", file], env=kept, capture_output=True, text=True, timeout=60, check=False
    )
    assert (sent.returncode, sent.stdout) == (shown.returncode, shown.stdout) == (1, "Hello\n")
    assert sent.stderr.removeprefix("chatapi: ").strip() in shown.stderr
