"""A real Chromium, and the web chat in a process of its own. Needs Debian's package ``chromium``.

``pytest tests/browser --pictures DIR`` leaves pictures of the page in a directory.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error, Locator, Page, async_playwright

from tests.raw_server import WAIT_SECONDS, RawServer
from tests.running_example import EmulatedExample, RunningExample, emulated_example, running_example


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--pictures", metavar="DIR", type=Path, help="where pictures of the page are written")


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = request.config.getoption("--pictures") or tmp_path_factory.mktemp("pictures")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class ChatPage:
    """The page, as a person uses it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.question = page.get_by_role("textbox", name="Your question")
        self.send = page.get_by_role("button", name="Send")
        self.stop = page.get_by_role("button", name="Stop")
        self.again = page.get_by_role("button", name="Try again")
        self.failure = page.get_by_role("alert")

    @property
    def answer(self) -> Locator:
        """The text of the last answer."""
        return self.page.locator(".text").last

    @property
    def note(self) -> Locator:
        return self.page.locator(".note").last

    async def ask(self, question: str) -> None:
        await self.question.fill(question)
        await self.question.press("Enter")


class Chromium:
    """Opens pages, each in a profile of its own."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    @asynccontextmanager
    async def open(self, example: RunningExample, **options: Any) -> AsyncIterator[ChatPage]:
        """Open the page; at the end, fail if its script raised an error that it did not handle."""
        errors: list[Error] = []
        async with await self._browser.new_context(**options) as context:
            context.set_default_timeout(WAIT_SECONDS * 1000)
            page = await context.new_page()
            page.on("pageerror", lambda error: errors.append(error))
            await page.goto(example.url)
            yield ChatPage(page)
        assert not errors


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Chromium]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        async with browser:
            yield Chromium(browser)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def emulated() -> AsyncIterator[EmulatedExample]:
    """The web chat, whose service is the emulator that a test serves."""
    async with emulated_example("web_chat") as example:
        yield example


class ScriptedService(RawServer):
    """A scripted server for all tests, which starts each of them anew."""

    def forget(self) -> None:
        self._answers.clear()
        self.requests.clear()


@pytest.fixture(scope="session")
def scripted_service() -> Iterator[ScriptedService]:
    with ScriptedService() as server:
        yield server


@pytest.fixture
def server(scripted_service: ScriptedService) -> RawServer:
    scripted_service.forget()
    return scripted_service


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scripted(scripted_service: ScriptedService) -> AsyncIterator[RunningExample]:
    """The web chat, whose service is the scripted server."""
    async with running_example("web_chat", scripted_service.url) as example:
        yield example
