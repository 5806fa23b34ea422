"""An example that serves, run as its docstring says: in a process of its own, at any free port."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from chatapi_async.emulator import Emulator, serve
from tests.raw_server import wait_for

EXAMPLES = Path(__file__).parent.parent / "examples"


@dataclass(frozen=True)
class RunningExample:
    """Where the example can be reached, and its process."""

    url: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running_example(name: str, upstream: str) -> AsyncIterator[RunningExample]:
    """Run an example against the server at the address ``upstream``; at the end, fail if it printed a traceback."""
    settings = {"PORT": "0", "CHATAPI_BASE_URL": upstream, "CHATAPI_OPERATOR_ID": "tn_1", "CHATAPI_TOKEN": "t0ken"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, EXAMPLES / name, env=os.environ | settings, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    printed = b""
    while (address := re.search(rb"running on (http://\S+)", printed)) is None:
        line = await process.stderr.readline()
        assert line, printed.decode()
        printed += line
    rest = asyncio.create_task(process.stderr.read())
    try:
        yield RunningExample(address[1].decode(), process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        printed += await rest
    assert b"Traceback" not in printed, printed.decode()


class EmulatedExample:
    """A running example, and the port at which it looks for the service: each test serves an emulator there."""

    def __init__(self, example: RunningExample, port: int) -> None:
        self.example = example
        self._port = port

    @asynccontextmanager
    async def by(self, emulator: Emulator) -> AsyncIterator[Emulator]:
        async with serve(emulator, port=self._port):
            yield emulator


@asynccontextmanager
async def emulated_example(name: str) -> AsyncIterator[EmulatedExample]:
    """Run an example for several tests, each with an emulator of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    async with running_example(name, f"http://127.0.0.1:{port}") as example:
        yield EmulatedExample(example, port)


async def no_stream_is_open(emulator: Emulator) -> None:
    """Wait until that is so, for no more than a second."""
    async with asyncio.timeout(1):
        await wait_for(lambda: emulator.open_streams == 0, "the stream to end")
