"""What the tests on real sockets share."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from hypothesis import settings

from chatapi_async import AsyncChatClient
from chatapi_async.fast import FastHTTPClient
from tests.raw_server import RawServer, client_of

settings.register_profile("tests", max_examples=int(os.environ.get("CHATAPI_TEST_EXAMPLES", "80")), deadline=None)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--http-client", choices=("httpx", "fast"), default="httpx", help="what the tests send through")


def pytest_configure(config: pytest.Config) -> None:
    """With ``--http-client=fast``, whoever makes an ``httpx.AsyncClient``, library or test, gets a fast one."""
    if config.getoption("--http-client") == "fast":
        httpx.AsyncClient = FastHTTPClient  # type: ignore[misc]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    ours = ("BASE_URL", "OPERATOR_ID", "TOKEN", "RECORD", "UPSTREAM_KEY")
    for name in (*(f"CHATAPI_{each}" for each in ours), *proxies, *map(str.lower, proxies)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as server:
        yield server


@pytest.fixture
async def client(server: RawServer) -> AsyncIterator[AsyncChatClient]:
    async with client_of(server) as client:
        yield client


def pytest_collection_finish() -> None:
    """Spare the many tests that collect garbage from looking through every library that any test imports."""
    gc.collect()
    gc.freeze()
