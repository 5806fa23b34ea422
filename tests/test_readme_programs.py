"""The README's shorter programs, each run as it stands within what it takes for granted."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from fastapi.responses import StreamingResponse

from chatapi_async import AsyncChatClient, Message
from chatapi_async.emulator import Emulator, serve
from tests.raw_server import DONE, RawServer, chunk, client_of, stream

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
PROGRAMS = dict(re.findall(r"<!-- ([a-z ]+) -->\n```python\n(.*?)```", README, re.DOTALL))


async def run(title: str, **names: Any) -> dict[str, Any]:
    """Run a program, which may await, and return its names."""
    body = textwrap.indent(PROGRAMS[title], "    ")
    source = f"async def program():\n{body}\n    globals().update(locals())\n"
    compiled = compile(ast.parse(source), title, "exec")
    exec(compiled, names)  # noqa: S102 - it is ours
    await names["program"]()
    return names


@pytest.fixture
async def client() -> AsyncIterator[AsyncChatClient]:
    async with (
        serve(Emulator(tokens_per_second=None)) as server,
        AsyncChatClient(server.base_url, operator_id="tn_1", token="any") as client,
    ):
        yield client


def test_every_program_stands_here() -> None:
    assert set(PROGRAMS) == {
        "structured output",
        "several consumers",
        "for bots",
        "for web backends",
        "a faster client",
        "on end",
        "opentelemetry",
        "recording",
    }
    files = re.findall(r"<!-- \w+\.py -->\n```python\n", README)  # which test_testing.py runs
    assert README.count("```python\n") == len(PROGRAMS) + len(files) + 1  # the first one is a program by itself


async def test_structured_output(server: RawServer) -> None:
    shown: list[tuple[str | None, list[str] | None]] = []
    server.answer(*stream(chunk('{"title": "Pan'), chunk('cakes", "steps": ["Stir"'), chunk("]}", "stop"), DONE))
    async with client_of(server) as client:
        names = await run("structured output", client=client, show=lambda *recipe: shown.append(recipe))
    assert shown[-1] == ("Pancakes", ["Stir"])
    assert names["recipe"] == names["Recipe"](title="Pancakes", steps=["Stir"])
    assert server.requests[0].json["response_format"] == {"type": "json_object"}


async def test_several_consumers(client: AsyncChatClient) -> None:
    shown: list[str] = []

    async def show(chunks: Any) -> None:
        shown.extend([chunk.text async for chunk in chunks])

    names = await run("several consumers", asyncio=asyncio, client=client, show=show)
    assert names["message"].text == "".join(shown) != ""


class Channel:
    """A channel of a platform, as its libraries show it."""

    def __init__(self) -> None:
        self.contents: list[list[str]] = []

    async def send(self, text: str) -> SentMessage:
        self.contents.append([text])
        return SentMessage(self.contents[-1])


class SentMessage:
    def __init__(self, contents: list[str]) -> None:
        self._contents = contents

    async def edit(self, content: str) -> None:
        self._contents.append(content)


async def test_for_bots(client: AsyncChatClient) -> None:
    channel = Channel()
    await run("for bots", client=client, channel=channel)
    expected = await client.chat_completion("Hello").get_final_text()
    assert [contents[-1] for contents in channel.contents] == [expected]


async def test_for_web_backends(client: AsyncChatClient) -> None:
    app = fastapi.FastAPI()
    given = {"app": app, "client": client, "Message": Message, "StreamingResponse": StreamingResponse}
    await run("for web backends", **given)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as browser:
        response = await browser.post("/chat", json=[{"role": "user", "content": "Hello"}])
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.text.startswith("data: {")
    assert response.text.endswith("data: [DONE]\n\n")


async def test_a_faster_client(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer(*stream(chunk("Hello"), chunk("", "stop"), DONE))
    program = PROGRAMS["a faster client"].replace("https://api.example.com", server.url).replace("…", "1")
    monkeypatch.setitem(PROGRAMS, "a faster client", program)
    assert (await run("a faster client"))["text"] == "Hello"


def whole(title: str, server: RawServer) -> str:
    """Run a program that is one by itself, and return what it prints."""
    server.answer(*stream(chunk("Hello"), chunk("", "stop", usage={"total_tokens": 5}), DONE))
    program = PROGRAMS[title].replace("https://api.example.com", server.url).replace("…", "1")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_on_end(server: RawServer) -> None:
    assert whole("on end", server) == "tn_1 small complete None 2 5\n"


def test_opentelemetry(server: RawServer) -> None:
    assert json.loads(whole("opentelemetry", server))["name"] == "chat small"


async def test_recording(
    server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server.answer(*stream(chunk("Hello"), chunk("", "stop"), DONE))
    program = PROGRAMS["recording"].replace("https://api.example.com", server.url).replace("…", "1")
    monkeypatch.setitem(PROGRAMS, "recording", program)
    names = await run("recording")
    assert names["completion"].message == names["message"]
    assert "{'messages': [{'role': 'user', 'content': 'Hello'}], 'stream': True} 200 End(" in capsys.readouterr().out
