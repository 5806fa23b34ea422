"""The logger ``chatapi_async``: what it says in which situation, at which level, and at what cost."""

from __future__ import annotations

import ast
import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import chatapi_async
from chatapi_async import ChatAPIError, ChatStream, Timeouts
from tests.raw_server import CLOSE, DONE, HOLD, RESET, AnyStep, RawServer, body, chunk, client_of, event, stream

SOURCES = Path(chatapi_async.__file__).parent
ANSWER = stream(chunk("Hi", "stop"), DONE)
PING = event({"type": "ping"}, "ping")
LIMITED = body('{"message": "slow down"}', 429)

DEBUG, WARNING = logging.DEBUG, logging.WARNING
OPENED = (DEBUG, r"POST \S+: 200 after \d+\.\d{3} s")
COMPLETE = (DEBUG, r"POST \S+ \(complete, 1 chunks\) ended after \d+\.\d{3} s")


def failed(kind: str) -> tuple[int, str]:
    return DEBUG, rf"POST \S+ failed after \d+\.\d{{3}} s: {kind}"


def retried(kind: str, number: int) -> tuple[int, str]:
    return WARNING, rf"POST \S+ failed: {kind}; retry {number} in \d+\.\d\d s"


def ended(how: str, chunks: int = 0) -> tuple[int, str]:
    return DEBUG, rf"POST \S+ \({how}, {chunks} chunks\) ended after \d+\.\d{{3}} s"


async def read(stream_: ChatStream[Any]) -> None:
    await stream_.until_done()


async def read_events(stream_: ChatStream[Any]) -> None:
    async for _ in stream_.events():
        pass


async def leave(stream_: ChatStream[Any]) -> None:
    async with stream_:
        await anext(stream_)


async def stop(stream_: ChatStream[Any]) -> None:
    await anext(stream_)
    await stream_.stop()


async def cancel(stream_: ChatStream[Any]) -> None:
    await anext(stream_)
    reader = asyncio.create_task(stream_.until_done())
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])


Use = Callable[[ChatStream[Any]], Awaitable[None]]
UNAUTHORIZED = body("{}", 401)
UNKNOWN = (WARNING, r"POST \S+ \(open, 0 chunks\): skipped an unknown event 'ping' \(logged once a stream\)")

# What the server answers, how the stream is used, and what is logged.
SCENARIOS: dict[str, tuple[list[tuple[AnyStep, ...]], Use, list[tuple[int, str]]]] = {
    "an answer": ([ANSWER], read, [OPENED, COMPLETE]),
    "an answer in one piece": ([body('{"choices": [{"message": {"content": "Hi"}}]}')], read, [OPENED, COMPLETE]),
    "a token that is renewed": ([UNAUTHORIZED, ANSWER], read, [failed("AuthenticationError 401"), OPENED, COMPLETE]),
    "a retry": (
        [LIMITED, LIMITED, ANSWER],
        read,
        [
            failed("RateLimitError 429"),
            retried("RateLimitError 429", 1),
            failed("RateLimitError 429"),
            retried("RateLimitError 429", 2),
            OPENED,
            COMPLETE,
        ],
    ),
    "a status": ([body("", 500)], read, [failed("InternalServerError 500"), ended("failed")]),
    "a lost connection": ([(RESET,)], read, [failed("APIConnectionError"), ended("failed")]),
    "a timeout": ([(HOLD,)], read, [failed("APITimeoutError"), ended("failed")]),
    "a silence": ([stream(chunk("Hi"), HOLD)], read, [OPENED, ended("failed", 1)]),
    "a truncated answer": ([stream(chunk("Hi"), CLOSE)], read, [OPENED, ended("truncated", 1)]),
    "an error event": ([stream(event("oh", "error"))], read, [OPENED, ended("failed")]),
    "a broken event": ([stream(event("{"))], read, [OPENED, ended("failed")]),
    "unknown events": ([stream(PING, PING, chunk("", "stop"), PING, DONE)], read, [OPENED, UNKNOWN, COMPLETE]),
    "unknown events handed over": ([stream(PING, chunk("", "stop"), DONE)], read_events, [OPENED, COMPLETE]),
    "keep-alive comments": ([stream(b": ping\n\n" * 3, chunk("", "stop"), DONE)], read, [OPENED, COMPLETE]),
    "keep-alive comments between events": (
        [stream(b": ping\n\n" * 3, chunk("", "stop"), DONE)],
        read_events,
        [OPENED, COMPLETE],
    ),
    "a stream that is left": ([stream(chunk("Hi"), HOLD)], leave, [OPENED, ended("stopped", 1)]),
    "a stream that is stopped": ([stream(chunk("Hi"), HOLD)], stop, [OPENED, ended("stopped", 1)]),
    "a stream that is cancelled": ([stream(chunk("Hi"), HOLD)], cancel, [OPENED, ended("stopped", 1)]),
}


class Log(logging.Handler):
    """Keeps the records of the library, and each message as it was when it was logged."""

    def __init__(self) -> None:
        super().__init__(1)
        self.records: list[logging.LogRecord] = []
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("chatapi_async"):
            self.records.append(record)
            self.messages.append(record.getMessage())


async def log_of(scenario: str, server: RawServer) -> Log:
    """Let it happen, with every level on; return what was logged."""
    answers, use, _ = SCENARIOS[scenario]
    for answer in answers:
        server.answer(*answer)
    log, root, logger = Log(), logging.getLogger(), logging.getLogger("chatapi_async")
    before = logger.level
    root.addHandler(log)
    logger.setLevel(1)
    try:
        options = {"token": lambda: "t0ken", "timeout": Timeouts(first_chunk=0.3, idle=0.1)}
        async with client_of(server, **options) as client:
            with suppress(ChatAPIError):
                await use(client.chat_completion("Hi"))
    finally:
        root.removeHandler(log)
        logger.setLevel(before)
    return log


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_what_is_logged_and_at_which_level(scenario: str, server: RawServer) -> None:
    log = await log_of(scenario, server)
    expected = SCENARIOS[scenario][2]
    assert [record.levelno for record in log.records] == [level for level, _ in expected], log.messages
    for message, (_, pattern) in zip(log.messages, expected, strict=True):
        assert re.fullmatch(pattern, message), message


@pytest.mark.parametrize("scenario", ["an answer", "a retry", "a status", "unknown events"])
async def test_a_record_holds_plain_values_and_can_be_formatted_later(scenario: str, server: RawServer) -> None:
    log = await log_of(scenario, server)
    for record, message in zip(log.records, log.messages, strict=True):
        assert record.name == "chatapi_async"
        assert record.exc_info is None
        assert record.args
        assert {type(value) for value in record.args} <= {str, int, float}
        assert record.getMessage() == message


async def test_an_unknown_event_is_logged_once_for_each_stream(
    server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*stream(PING, PING, chunk("Hi", "stop"), DONE))
    async with client_of(server) as client:
        for _ in range(2):
            await client.chat_completion("Hi").until_done()
    assert caplog.text.count("unknown event") == 2


async def test_the_name_of_an_unknown_event_takes_one_short_line(
    server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*stream(event({"type": "x"}, "\x1b[31m" + "x" * 100_000), chunk("Hi", "stop"), DONE))
    async with client_of(server) as client:
        await client.chat_completion("Hi").until_done()
    (record,) = caplog.records
    assert len(record.getMessage()) < 1000
    assert record.getMessage().isprintable()


def test_an_application_that_configures_no_logging_sees_nothing_printed(server: RawServer) -> None:
    for answer in (LIMITED, stream(PING, chunk("Hi", "stop"), DONE), (RESET,)):
        server.answer(*answer)
    program = f"""
import asyncio
from chatapi_async import APIConnectionError, AsyncChatClient, RetryPolicy

async def main():
    async with AsyncChatClient({server.url!r}, operator_id="tn_1", token="t", retries=RetryPolicy(1, 0)) as client:
        print(await client.chat_completion("Hi").get_final_text())
        try:
            await client.chat_completion("Hi")
        except APIConnectionError:
            print("lost")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert (done.stdout.split(), done.stderr) == (["Hi", "lost"], "")


def test_no_log_call_formats_a_message_that_may_not_be_wanted() -> None:
    calls = [
        call
        for source in SOURCES.glob("*.py")
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if isinstance(call.func.value, ast.Name) and call.func.value.id == "logger" and call.func.attr != "addHandler"
    ]
    assert len(calls) >= 5
    for call in calls:
        assert isinstance(call.args[0], ast.Constant)
        assert not any(isinstance(node, ast.JoinedStr | ast.BinOp) for node in ast.walk(call.args[0]))
        assert not any(isinstance(argument, ast.JoinedStr) for argument in call.args)
