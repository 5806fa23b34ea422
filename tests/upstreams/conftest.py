"""The servers, started once for all tests; where their programs are is said by ``--servers``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.upstreams.servers import Server, litellm, llama_cpp, mock_llm


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--servers", metavar="DIR", type=Path, default=Path(".servers"), help="where they are installed")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    installed: Path = request.config.getoption("--servers").absolute()
    scratch = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        engine = stack.enter_context(llama_cpp(installed, scratch))
        proxy = stack.enter_context(litellm(installed, scratch, engine))
        mock = stack.enter_context(mock_llm(installed, scratch))
        yield {server.name: server for server in (engine, proxy, mock)}


# LiteLLM takes long to start, and is the last to be needed.
@pytest.fixture(scope="session", params=["llama.cpp", "mock-llm", "LiteLLM"])
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    server = servers[request.param]
    server.wait()
    return server
