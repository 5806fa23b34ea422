"""The command line as a person types it: in a process of its own, against the local server on a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import create_server

import pytest

from chatapi_async import ChatCompletionChunkResponse, ChatCompletionResponse
from chatapi_async.emulator import Emulator, RunningEmulator, serve_in_thread
from tests.raw_server import wait_for

COMMAND = [sys.executable, "-m", "chatapi_async"]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningEmulator]:
    with serve_in_thread(Emulator(tokens_per_second=None, chatrooms=["ch_known"], token="secret")) as running:
        yield running


def environment(base_url: str | None = None, token: str = "secret") -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHATAPI_")}
    if base_url is None:
        return kept
    return {**kept, "CHATAPI_BASE_URL": base_url, "CHATAPI_OPERATOR_ID": "tn_test", "CHATAPI_TOKEN": token}


def chatapi(*words: str, env: dict[str, str], stdin: str = "", timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], env=env, input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )


@pytest.mark.smoke
def test_demo_streams_an_answer_and_says_how_fast() -> None:
    done = chatapi("demo", "Why is the sky blue?", "--tokens-per-second", "1000", env=environment())
    assert done.returncode == 0, done.stderr
    answer, _, summary = done.stdout.partition("\n\n")
    assert "sky" in answer
    for label in ("finish reason stop", "usage", "first token", "speed"):
        assert label in summary
    assert "http://127.0.0.1:" in done.stderr


def test_demo_takes_no_notice_of_a_proxy_in_the_environment() -> None:
    env = {**environment(), "HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
    assert chatapi("demo", "--tokens-per-second", "1000", env=env).returncode == 0


def test_send_prints_the_text_and_nothing_else(server: RunningEmulator) -> None:
    done = chatapi("send", "Tell me about rivers", env=environment(server.base_url))
    assert (done.returncode, done.stderr) == (0, "")
    assert "rivers" in done.stdout
    assert done.stdout.endswith("\n")


def test_send_reads_the_prompt_from_standard_input(server: RunningEmulator) -> None:
    done = chatapi("send", "-", env=environment(server.base_url), stdin="Tell me about mountains")
    assert "mountains" in done.stdout


def test_send_json_prints_one_chunk_a_line(server: RunningEmulator) -> None:
    done = chatapi("send", "--json", "Tell me about lakes", env=environment(server.base_url))
    chunks = [ChatCompletionChunkResponse.model_validate_json(line) for line in done.stdout.splitlines()]
    assert "lakes" in "".join(chunk.text for chunk in chunks)
    assert chunks[-1].usage is not None


def test_send_shows_what_came_before_a_fault_that_was_asked_for(server: RunningEmulator) -> None:
    done = chatapi("send", "--model", "fault/truncate?after=3", "Hi", env=environment(server.base_url))
    assert (done.returncode, done.stdout) == (1, "Hello!\n")
    assert done.stderr.startswith("chatapi: the stream ended before the answer did")
    assert (
        chatapi("send", "--model", "fault/stall?after=3&seconds=0", "Hi", env=environment(server.base_url)).returncode
        == 0
    )


@pytest.mark.heavy
def test_the_readmes_commands_for_faults_run_as_they_stand(server: RunningEmulator) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    commands = readme.partition("<!-- faults -->\n```sh\n")[2].partition("```")[0].splitlines()
    assert len(commands) == 2
    for command in commands:
        done = chatapi(*shlex.split(command)[1:], env=environment(server.base_url))
        assert (done.returncode, done.stdout != "") == (0, True)


@pytest.mark.heavy
def test_the_readmes_commands_for_recordings_run_as_they_stand(server: RunningEmulator, tmp_path: Path) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    commands = readme.partition("<!-- replay -->\n```sh\n")[2].partition("```")[0]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", commands],
        env={**environment(server.base_url), "PATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "Here is\nHere is\n")
    assert done.stderr.count("the stream ended before the answer did") == 2


def test_send_final_prints_the_completion(server: RunningEmulator) -> None:
    done = chatapi("send", "--final", "Tell me about seas", env=environment(server.base_url))
    completion = ChatCompletionResponse.model_validate_json(done.stdout)
    assert "seas" in completion.text
    assert completion.completeness == "complete"


def test_send_passes_room_model_and_system_on(server: RunningEmulator) -> None:
    words = (
        "send",
        "hi",
        "--room",
        "ch_known",
        "--model",
        "small",
        "--system",
        "Be brief.",
        "--operator-id",
        "tn_other",
    )
    assert chatapi(*words, env=environment(server.base_url)).returncode == 0
    request = server.emulator.requests[-1]
    body = json.loads(request.body)
    assert request.path == "/v1/llms/chatrooms/ch_known/chat/completions"
    assert request.headers["x-operator-id"] == "tn_other"
    assert body["model"] == "small"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("send", "hi", "--room", "ch_unknown"), 1, "404"),
        (("send", "   "), 2, "the prompt is empty"),
        (("send", "hi", "--base-url", "ftp://host"), 2, "https://api.example.com"),
        (("send", "hi", "--room", ".."), 2, "chatroom id"),
        (("serve", "--host", "127.0.0.1", "--port", "1", "--chatroom", "x", "--tokens-per-second", "0"), 2, "0"),
        (("send",), 2, "prompt"),
        ((), 2, "COMMAND"),
    ],
)
def test_errors_are_one_line_on_standard_error(
    server: RunningEmulator, words: tuple[str, ...], code: int, says: str
) -> None:
    done = chatapi(*words, env=environment(server.base_url))
    assert done.returncode == code
    assert done.stdout.strip() == ""
    assert says in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_refused_token_is_said_without_showing_it(server: RunningEmulator) -> None:
    done = chatapi("send", "hi", env=environment(server.base_url, token="wrong-token"))
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "wrong-token" not in done.stderr


def test_a_missing_token_says_what_to_set(server: RunningEmulator) -> None:
    env = environment(server.base_url)
    del env["CHATAPI_TOKEN"]
    done = chatapi("send", "hi", env=env)
    assert done.returncode == 2
    assert "CHATAPI_TOKEN" in done.stderr


def test_a_closed_pipe_is_no_traceback(server: RunningEmulator) -> None:
    with subprocess.Popen(
        [*COMMAND, "send", "--json", "Tell me about pipes"],
        env=environment(server.base_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(30) == 1
    assert errors == b""


def test_ctrl_c_interrupts_send_and_keeps_what_came_and_the_server_sees_it() -> None:
    emulator = Emulator(tokens_per_second=10)
    with (
        serve_in_thread(emulator) as running,
        subprocess.Popen(
            [*COMMAND, "send", "Tell me about patience"],
            env=environment(running.base_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130
        assert (first + rest).endswith(b"\n")
        assert process.stderr.read() == b""
        asyncio.run(wait_for(lambda: emulator.open_streams == 0, "the server to see the hang-up"))


def test_ctrl_c_stops_an_answer_of_chat_and_keeps_the_session() -> None:
    with (
        serve_in_thread(Emulator(tokens_per_second=40)) as running,
        subprocess.Popen(
            [*COMMAND, "chat"],
            env=environment(running.base_url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"Tell me about rivers\n")
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == b"\n"
        assert process.stderr.readline() == b"[stopped]\n"
        process.stdin.write(b"Tell me about mountains\n")
        process.stdin.close()
        assert b"mountains" in process.stdout.read()
        assert process.wait(30) == 0
        last = json.loads(running.emulator.requests[-1].body)
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user"]


def test_chat_remembers_and_survives_an_error(server: RunningEmulator) -> None:
    done = chatapi("chat", env=environment(server.base_url), stdin="My first line\n\nMy second line\n")
    assert done.returncode == 0
    last = json.loads(server.emulator.requests[-1].body)
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user"]

    done = chatapi("chat", "--room", "ch_unknown", env=environment(server.base_url), stdin="one\ntwo\n")
    assert done.returncode == 0
    assert done.stderr.count("404") == 2


def test_chat_in_a_room_sends_only_the_new_message(server: RunningEmulator) -> None:
    done = chatapi("chat", "--room", "ch_known", env=environment(server.base_url), stdin="one\ntwo\n")
    assert done.returncode == 0
    last = json.loads(server.emulator.requests[-1].body)
    assert [message["content"] for message in last["messages"]] == ["two"]


def test_serve_says_where_and_ends_with_ctrl_c() -> None:
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--create-chatrooms"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "serving on" not in (line := process.stderr.readline()):
            assert line, "the server ended before it served"
        base_url = line.split()[2].rstrip(";")
        done = chatapi("send", "Hello there", "--room", "ch_new", env=environment(base_url))
        assert done.returncode == 0, done.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()


def test_a_taken_port_is_one_readable_line() -> None:
    with closing(create_server(("127.0.0.1", 0))) as taken:
        done = chatapi("serve", "--port", str(taken.getsockname()[1]), env=environment())
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_without_the_extra_the_demo_says_what_to_install() -> None:
    hide = (
        "import sys; sys.modules['starlette'] = None; from chatapi_async.__main__ import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], env=environment(), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "pip install 'chatapi-async[emulator]'" in done.stderr
