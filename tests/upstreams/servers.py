"""OpenAI-compatible servers that nobody here wrote, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

_START_SECONDS = 120.0
_ENGINE_KEY, _PROXY_KEY = "sk-engine-0123456789", "sk-proxy-0123456789"
_ESTABLISHED = "01"


@dataclass(frozen=True)
class Server:
    """One of them, started; what it is expected to do where they differ."""

    name: str
    wait: Callable[[], None]
    """Waits until it answers."""
    base_url: str
    port: int
    model: str
    key: str | None = None
    answer: str = "air scatters blue light"
    """What it answers to the tests' question, but for space around it."""
    endless: str = "for ever"
    """A question whose answer takes long."""
    gives_usage: bool = True
    streams_tool_calls: bool = True
    bad_request: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Fields of a request that it refuses."""
    refusal: tuple[int, str, str] = (400, "upstream_refused_request", "")
    """The status and code of that in the service's shape, and words of the message."""

    def connections(self) -> int:
        """How many connections to it are open on this machine, as the kernel counts them."""
        count = 0
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                count += state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == self.port
        return count


@contextmanager
def llama_cpp(servers: Path, scratch: Path) -> Iterator[Server]:
    """llama.cpp's server, in C++, with the tiny model."""
    model = scratch / "tiny.gguf"
    writer = Path(__file__).parent / "tiny_model.py"
    subprocess.run([_program(servers / "bin/python"), writer, model], check=True)
    program = _program(servers / "bin/llama-server-vulkan", "llama-server")
    port = _free_port()
    command = [program, "-m", model, "--alias", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    options = ["--api-key", _ENGINE_KEY, "--jinja", "--slots", "--ctx-size", "8192"]
    with _running([*command, *options], scratch / "llama.log") as wait_until_answered:
        yield Server(
            name="llama.cpp",
            wait=lambda: wait_until_answered(f"http://127.0.0.1:{port}/health"),
            base_url=f"http://127.0.0.1:{port}/v1",
            port=port,
            model="tiny",
            key=_ENGINE_KEY,
            bad_request={"messages": [{"role": "user"}]},
            refusal=(400, "upstream_refused_request", "must contain 'content'"),
        )


@contextmanager
def litellm(servers: Path, scratch: Path, behind: Server) -> Iterator[Server]:
    """LiteLLM's proxy, in Python, before llama.cpp's server; it wants a key."""
    config = scratch / "litellm.yaml"
    parameters = {"model": f"openai/{behind.model}", "api_base": behind.base_url, "api_key": behind.key}
    config.write_text(  # YAML is a superset of JSON
        json.dumps(
            {
                "model_list": [{"model_name": "team/tiny:1", "litellm_params": parameters}],
                "general_settings": {"master_key": _PROXY_KEY},
            }
        ),
        encoding="utf-8",
    )
    port = _free_port()
    command = [_program(servers / "bin/litellm"), "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # it would ask the internet what its models cost
    with _running(command, scratch / "litellm.log", environment) as wait_until_answered:
        yield Server(
            name="LiteLLM",
            wait=lambda: wait_until_answered(f"http://127.0.0.1:{port}/health/liveliness"),
            base_url=f"http://127.0.0.1:{port}/v1",
            port=port,
            model="team/tiny:1",
            key=_PROXY_KEY,
            bad_request={"model": "missing"},
            refusal=(400, "upstream_refused_request", "Invalid model name passed in model=missing"),
        )


@contextmanager
def mock_llm(servers: Path, scratch: Path) -> Iterator[Server]:
    """mock-llm, on Express in Node; it repeats the conversation."""
    said = "{{jmes request join(' | ', body.messages[*].content)}}"
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    config = scratch / "mock-llm.yaml"
    config.write_text(
        json.dumps(
            {
                "streaming": {"chunkSize": 4, "chunkIntervalMs": 10},
                "rules": [
                    _rule("@", 200, _completion({"role": "assistant", "content": said}, "stop")),
                    _rule(
                        "body.tool_choice=='required'",
                        200,
                        _completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"),
                    ),
                    _rule(
                        "body.model=='missing'",
                        404,
                        {"error": {"message": "The model `missing` does not exist", "code": "model_not_found"}},
                    ),
                    {
                        "path": "/v1/models",
                        "method": "GET",
                        "match": "@",
                        "response": {
                            "status": 200,
                            "content": json.dumps({"object": "list", "data": [{"id": "parrot", "object": "model"}]}),
                        },
                    },
                ],
            }
        ),
        encoding="utf-8",
    )
    port = _free_port()
    program = _program(servers / "node_modules/.bin/mock-llm")
    environment = {"HOST": "127.0.0.1", "PORT": str(port)}
    with _running([program, "--config", config], scratch / "mock-llm.log", environment) as wait_until_answered:
        yield Server(
            name="mock-llm",
            wait=lambda: wait_until_answered(f"http://127.0.0.1:{port}/health"),
            base_url=f"http://127.0.0.1:{port}/v1",
            port=port,
            model="parrot",
            answer="Why is the sky blue?",
            endless="for ever " * 30,
            gives_usage=False,
            streams_tool_calls=False,
            bad_request={"model": "missing", "stream": False},
            refusal=(400, "unsupported_model", "it has: parrot"),
        )


def _rule(match: str, status: int, content: object) -> dict[str, Any]:
    response = {"status": status, "content": json.dumps(content)}
    return {"path": "/v1/chat/completions", "method": "POST", "match": match, "response": response}


def _completion(message: dict[str, Any], finish_reason: str) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return {"id": "1", "object": "chat.completion", "model": "parrot", "choices": [choice]}


def _program(path: Path, name: str = "") -> Path | str:
    found = path if path.exists() else shutil.which(name)
    assert found, f"{path} is not there; how to install it is said in README.md, under 'Inside'"
    return found


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _running(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Callable[[str], None]]:
    """Start a program, and end it at the end; what is given waits until an address answers."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )

        def wait_until_answered(url: str) -> None:
            deadline = time.monotonic() + _START_SECONDS
            while not _answers(url):
                assert process.poll() is None, f"it ended: {log.read_text(errors='replace')[-2000:]}"
                assert time.monotonic() < deadline, f"it does not start: {log.read_text(errors='replace')[-2000:]}"
                time.sleep(0.1)

        try:
            yield wait_until_answered
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.HTTPError:
        return False
