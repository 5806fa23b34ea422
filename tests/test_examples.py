"""Every example, run as its docstring says: in a process of its own, against the local server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_every_example_is_tested_and_fits_on_a_screen() -> None:
    lines = {path.stem: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    tested_here = {"stream_text", "chatroom", "tools", "fastapi_endpoint"}
    elsewhere = {"discord_bot", "telegram_bot", "line_bot", "websocket_endpoint"}
    assert set(lines) == tested_here | elsewhere
    assert {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"} == {"web_chat"}
    tests = {path.name for path in Path(__file__).parent.rglob("test_*.py")}
    assert {f"test_{example}.py" for example in (*elsewhere, "web_chat")} <= tests
    assert max(lines.values()) < 100


@pytest.mark.smoke
@pytest.mark.heavy
@pytest.mark.parametrize(
    ("example", "arguments", "expected"),
    [
        ("stream_text", ["Tell me about rivers"], ["rivers", "(stop, "]),
        ("chatroom", [], ["Elbe", "HTTP 404"]),
        ("tools", ["What is the weather in Oslo?"], ['"Oslo"', "arguments of GetWeather", "light rain in Oslo"]),
    ],
)
def test_example_prints_its_answer(example: str, arguments: list[str], expected: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{example}.py", *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("CHATAPI_")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in expected:
        assert text in done.stdout


@pytest.mark.heavy
def test_fastapi_endpoint_streams_and_answers_failures() -> None:
    program = (
        "import socket, sys, uvicorn; sys.path.insert(0, sys.argv[1]); import fastapi_endpoint as example; "
        "listener = socket.create_server(('127.0.0.1', 0)); print(listener.getsockname()[1], flush=True); "
        "uvicorn.Server(uvicorn.Config(example.app, log_level='warning')).run(sockets=[listener])"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(EXAMPLES)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            address = f"http://127.0.0.1:{int(process.stdout.readline())}/answer"
            with httpx.stream("GET", address, params={"prompt": "Tell me about rivers"}, timeout=30) as response:
                pieces = list(response.iter_text())
            assert "rivers" in "".join(pieces)
            assert len(pieces) > 5
            refused = httpx.get(address, params={"prompt": "hi", "model": "unsupported/model"}, timeout=30)
            assert refused.status_code == 502
        finally:
            process.terminate()
