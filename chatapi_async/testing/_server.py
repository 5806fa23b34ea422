"""The server of the fixture ``chatapi_server``."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial

import anyio.to_thread

from chatapi_async.emulator import (
    ChosenFault,
    Emulator,
    ReceivedRequest,
    RunningEmulator,
    ScriptedAnswer,
    choose_fault,
    serve_in_thread,
)
from chatapi_async.recording import read_recording
from chatapi_async.types import MessageToolCall, Usage


def fault(name: str, **parameters: object) -> ChosenFault:
    """Return a fault, for :meth:`ChatServer.script` and :meth:`ChatServer.reply`.

    Args:
        name: such as ``"truncate"``; ``chatapi serve --list-faults`` has all.
        parameters: the fault's, such as ``after=2``.

    Raises:
        ValueError: there is no such fault, or it has no such parameter or value; the message names the nearest.
    """
    return choose_fault(name, parameters)


class ChatServer:
    """A server of the service for one test, on a free port of this machine.

    It gives the answers that were queued, in their order, then those of a reply file, and then those of the emulator's
    built-in model, as fast as the client takes them. Any token is right, any operator may do everything, and a chatroom
    is made where it is first spoken to. It runs in a thread of its own, so the test may be synchronous, or run on
    asyncio or trio.
    """

    def __init__(self, running: RunningEmulator) -> None:
        self._running = running

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    @property
    def base_url(self) -> str:
        """What a client is given, such as ``"http://127.0.0.1:50123"``."""
        return self._running.base_url

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests that came, oldest first, refused ones and repeated ones too."""
        return self._running.emulator.requests

    @property
    def open_streams(self) -> int:
        """Number of streams that are being sent; one that the client has hung up on is not counted."""
        return self._running.emulator.open_streams

    async def wait_for_open_streams(self, count: int = 0, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """Wait until so many streams are being sent: 0, the default, once what a client left is closed.

        Args:
            count: how many.
            timeout: the most seconds to wait. Default 5.

        Raises:
            TimeoutError: that was not so in time; the message says how many there are.
        """
        emulator = self._running.emulator
        wait = partial(emulator.wait_for_open_streams, count, timeout)
        if not await anyio.to_thread.run_sync(wait, abandon_on_cancel=True):
            raise TimeoutError(f"after {timeout:g} s there are {self.open_streams} open streams, not {count}")

    def reply(
        self,
        text: str | Sequence[str] | None = None,
        *,
        tool_calls: Sequence[MessageToolCall] = (),
        finish_reason: str | None = None,
        usage: Usage | None = None,
        fault: ChosenFault | None = None,
        delay: float = 0.0,
    ) -> None:
        """Queue an answer. The next request that is not refused gets it, whatever it asks.

        Args:
            text: the answer; a sequence of texts comes a chunk each. By default what the built-in model says, or no
                text where there are tool calls.
            tool_calls: calls after the text, such as ``[tool_call("get_weather", {"location": "Sendai"})]``.
            finish_reason: why it ends; by default ``"tool_calls"`` where there are some, else ``"stop"``.
            usage: what it is said to have used; by default as many tokens as it has.
            fault: how it goes wrong, from :func:`fault`; by default not at all.
            delay: seconds between the response's headers and the first chunk. Default 0.
        """
        answer = ScriptedAnswer(text, tool_calls, finish_reason, usage, fault, delay)
        self._running.emulator.script(answer)

    def fault(self, name: str, **parameters: object) -> None:
        """Queue an answer of the built-in model that goes wrong. Arguments and errors are those of :func:`fault`."""
        self.reply(fault=fault(name, **parameters))

    def replies(self, path: str | os.PathLike[str]) -> None:
        """Answer as a reply file says, where no answer is queued.

        Args:
            path: a TOML or JSON file, as for ``chatapi serve --replies``.

        Raises:
            OSError: it cannot be read.
            ValueError: it breaks its schema; the message says everything that does.
        """
        self._running.emulator.load_replies(path)

    def replay(self, path: str | os.PathLike[str], *, speed: float | None = None) -> None:
        """Queue a recorded answer: its status, headers and bytes, and its end; where the connection broke, it breaks.

        Where the client had left first, at a limit of its own, say, the server is silent until it leaves again.
        Headers that belong to the connection are the server's own, as are ``date`` and ``server``.

        Args:
            path: a file that ``AsyncChatClient(record="directory")`` wrote.
            speed: how many times as fast as it came; by default without a pause.

        Raises:
            RecordingError: the file is no recording; the message names the line.
            OSError: the file cannot be read.
            ValueError: the request of the recording never reached a server, or its status is none from 200 to 599; or
                ``speed`` is none.
        """
        self._running.emulator.script(ScriptedAnswer(recording=read_recording(path), speed=speed))

    def script(self, steps: Iterable[str | Sequence[str] | ChosenFault | float]) -> None:
        """Queue several answers.

        Args:
            steps: a text, or a sequence of texts that come a chunk each, is an answer; a :func:`fault` is an answer of
                the built-in model that goes wrong; a number is seconds that the answer after it waits before its first
                chunk.

        Raises:
            ValueError: a number stands last, or before another one.
        """
        delay: float | None = None
        answers: list[ScriptedAnswer] = []
        for step in steps:
            if isinstance(step, int | float):
                if delay is not None:
                    raise ValueError(f"no answer stands between the delays {delay:g} and {step:g}")
                delay = step
                continue
            text, wrong = (None, step) if isinstance(step, ChosenFault) else (step, None)
            answers.append(ScriptedAnswer(text, fault=wrong, delay=delay or 0.0))
            delay = None
        if delay is not None:
            raise ValueError(f"no answer follows the delay {delay:g}")
        self._running.emulator.script(*answers)


@contextmanager
def serve_chat() -> Generator[ChatServer, None, None]:
    """Run a :class:`ChatServer` for as long as the context lasts: what the fixture does, for other test frameworks."""
    with serve_in_thread(Emulator(tokens_per_second=None, create_chatrooms=True)) as running:
        yield ChatServer(running)
