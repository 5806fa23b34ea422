"""``on_end`` is called once for each stream whose request was begun, however it ends: on asyncio and on trio."""

from __future__ import annotations

import asyncio
import atexit
import functools
import gc
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import traceback
import weakref
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import trio

from chatapi_async import (
    APITimeoutError,
    AsyncChatClient,
    ChatAPIError,
    ChatCompletionRequest,
    ChatStream,
    ConfigurationError,
    RetryPolicy,
    StreamCall,
    StreamClosedError,
    StreamEnd,
    Timeouts,
    tee,
)
from chatapi_async._observation import begin, observers, stream_call
from chatapi_async._observed_reader import ObservedReader, _calls_soon, _Report
from chatapi_async._reader import StreamReader
from chatapi_async.emulator import Emulator, serve_in_thread
from chatapi_async.pacing import heartbeat, paced, sentences
from chatapi_async.relay import relay_sse
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    QUICK,
    RESET,
    AnyStep,
    RawServer,
    body,
    chunk,
    client_of,
    event,
    stream,
    wait_for,
)

AnyStream = ChatStream[Any]
BACKENDS = ("asyncio", "trio")

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
ANSWER = stream(chunk("Hel", model="m-1"), chunk("lo", "stop", usage=USAGE), DONE, x_request_id="req_1")
OPEN = stream(chunk("Hel"), HOLD)
SILENT = stream(HOLD)
UNANSWERED = (HOLD,)


@dataclass
class Scene:
    """A server, a client of it, and the stream that is looked at."""

    server: RawServer
    client: AsyncChatClient
    stream: AnyStream
    ends: list[StreamEnd]

    def drop(self) -> None:
        """Forget the stream."""
        del self.stream

    async def told(self) -> None:
        """Wait until the end has been told."""
        await wait_for(lambda: bool(self.ends), "the end to be told")


Use = Callable[[Scene], Awaitable[None]]


# ── ways to end ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def read_it(scene: Scene) -> None:
    with suppress(ChatAPIError, ValueError):
        await scene.stream.until_done()


async def read_its_events(scene: Scene) -> None:
    with suppress(ChatAPIError):
        async for _ in scene.stream.events():
            pass


async def stop_it(scene: Scene) -> None:
    await anext(scene.stream)
    await scene.stream.stop()
    await scene.stream.stop()


async def stop_it_before_the_first_chunk(scene: Scene) -> None:
    await scene.stream
    await scene.stream.stop()


async def close_it(scene: Scene) -> None:
    await anext(scene.stream)
    await scene.stream.aclose()
    await scene.stream.aclose()


async def leave_it(scene: Scene) -> None:
    async with scene.stream:
        await anext(scene.stream)


async def leave_it_by_an_error(scene: Scene) -> None:
    with suppress(ZeroDivisionError):
        async with scene.stream as entered:
            async for _ in entered:
                raise ZeroDivisionError


async def break_off(scene: Scene) -> None:
    async for _ in scene.stream:
        break
    scene.drop()
    await scene.told()


async def break_off_its_text(scene: Scene) -> None:
    texts = scene.stream.text_stream
    scene.drop()
    async for _ in texts:
        break
    del texts
    await scene.told()


async def forget_it_in_a_cycle(scene: Scene) -> None:
    await anext(scene.stream)
    cycle: list[Any] = [scene.stream]
    cycle.append(cycle)
    scene.drop()
    del cycle
    gc.collect()
    await scene.told()


async def forget_it_in_another_thread(scene: Scene) -> None:
    await anext(scene.stream)
    held = [scene.stream]
    scene.drop()
    thread = threading.Thread(target=held.clear)
    thread.start()
    await scene.told()
    thread.join()


async def keep_it(scene: Scene) -> None:
    await anext(scene.stream)


async def close_the_client(scene: Scene) -> None:
    await anext(scene.stream)
    await scene.client.aclose()


async def _read_while(scene: Scene, does: Use) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_it, scene)
        await scene.server.received()
        await does(scene)
        tasks.cancel_scope.cancel()


async def cancel_it_before_the_response(scene: Scene) -> None:
    async def nothing(scene: Scene) -> None: ...

    await _read_while(scene, nothing)


async def cancel_it_in_the_middle(scene: Scene) -> None:
    async def first_chunk(scene: Scene) -> None:
        await wait_for(lambda: scene.stream.stats.chunks > 0, "the first chunk")

    await _read_while(scene, first_chunk)


async def cancel_it_while_it_drains(scene: Scene) -> None:
    await _read_while(scene, Scene.told)


async def stop_it_while_another_task_reads(scene: Scene) -> None:
    await _read_while(scene, lambda scene: scene.stream.stop())


async def close_the_client_while_another_task_reads(scene: Scene) -> None:
    await _read_while(scene, lambda scene: scene.client.aclose())


async def read_in_turns(scene: Scene) -> None:
    first, second = tee(scene.stream)
    async with anyio.create_task_group() as tasks:
        for branch in (first, second):
            tasks.start_soon(_exhaust, branch)


async def _exhaust(items: AsyncIterable[Any]) -> None:
    with suppress(ChatAPIError):
        async for _ in items:
            pass


def wrapped(wrap: Callable[[AnyStream], Any], how: str) -> Use:
    """Read the stream through something else: to its end, or to its first item, and then close or forget it."""

    async def use(scene: Scene) -> None:
        items = wrap(scene.stream)
        scene.drop()
        if how == "read":
            await _exhaust(items)
        else:
            await anext(aiter(items))
        if how == "closed":
            await items.aclose()
        del items
        gc.collect()
        await scene.told()

    return use


def paced_(source: AnyStream) -> Any:
    return paced(source, every=0.001)


def first_of_tee(source: AnyStream) -> Any:
    return tee(source, 1)[0]


@dataclass(frozen=True)
class Way:
    answer: tuple[AnyStep, ...]
    use: Use
    expected: tuple[str, str | None, int]
    """Completeness, class of the error, chunks."""
    options: dict[str, Any] | None = None


COMPLETE = ("complete", None, 2)
STOPPED = ("stopped", None, 1)


def no_token() -> str:
    return ""


def broken_token() -> str:
    raise ValueError("no token to be had")


JSON = body('{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}')
FAILING = stream(chunk("Hel"), event({"message": "no"}, "error"))
DRAINED = stream(chunk("Hi", "stop"), DONE, HOLD)
NOTHING_CAME = ("stopped", None, 0)

WAYS = {
    "read": Way(ANSWER, read_it, COMPLETE),
    "events read": Way(ANSWER, read_its_events, COMPLETE),
    "JSON": Way(JSON, read_it, ("complete", None, 1)),
    "stopped": Way(OPEN, stop_it, STOPPED),
    "stopped at once": Way(SILENT, stop_it_before_the_first_chunk, NOTHING_CAME),
    "closed": Way(OPEN, close_it, STOPPED),
    "left": Way(OPEN, leave_it, STOPPED),
    "left by an error": Way(OPEN, leave_it_by_an_error, STOPPED),
    "broken off": Way(OPEN, break_off, STOPPED),
    "text broken off": Way(OPEN, break_off_its_text, STOPPED),
    "forgotten in a cycle": Way(OPEN, forget_it_in_a_cycle, STOPPED),
    "forgotten in another thread": Way(OPEN, forget_it_in_another_thread, STOPPED),
    "kept": Way(OPEN, keep_it, STOPPED),
    "client closed": Way(OPEN, close_the_client, STOPPED),
    "client closed while it is read": Way(SILENT, close_the_client_while_another_task_reads, NOTHING_CAME),
    "stopped while it is sent": Way(UNANSWERED, stop_it_while_another_task_reads, NOTHING_CAME),
    "cancelled before the response": Way(UNANSWERED, cancel_it_before_the_response, NOTHING_CAME),
    "cancelled in the middle": Way(OPEN, cancel_it_in_the_middle, STOPPED),
    "cancelled while it drains": Way(DRAINED, cancel_it_while_it_drains, ("complete", None, 1)),
    "error of the server": Way(FAILING, read_it, ("failed", "ServerStreamError", 1)),
    "truncated": Way(stream(chunk("Hel"), CLOSE), read_it, ("truncated", "StreamTruncatedError", 1)),
    "reset": Way(stream(chunk("Hel"), RESET), read_it, ("truncated", "StreamTruncatedError", 1)),
    "no chunk": Way(stream(event("{")), read_it, ("failed", "StreamDecodeError", 0)),
    "empty": Way(stream(DONE), read_it, ("failed", "EmptyStreamError", 0)),
    "401": Way(body('{"message": "no"}', 401), read_it, ("failed", "AuthenticationError", 0)),
    "idle": Way(OPEN, read_it, ("failed", "APITimeoutError", 1), {"timeout": Timeouts(idle=0.01)}),
    "late": Way(UNANSWERED, read_it, ("failed", "APITimeoutError", 0), {"timeout": Timeouts(first_chunk=0.01)}),
    "no token": Way(ANSWER, read_it, ("failed", "ConfigurationError", 0), {"token": no_token}),
    "token fails": Way(ANSWER, read_it, ("failed", "ValueError", 0), {"token": broken_token}),
    "tee": Way(ANSWER, read_in_turns, COMPLETE),
}
for wrap in (first_of_tee, paced_, heartbeat, relay_sse):
    WAYS[f"{wrap.__name__} read"] = Way(ANSWER, wrapped(wrap, "read"), COMPLETE)
    WAYS[f"{wrap.__name__} closed"] = Way(OPEN, wrapped(wrap, "closed"), STOPPED)
    WAYS[f"{wrap.__name__} forgotten"] = Way(OPEN, wrapped(wrap, "forgotten"), STOPPED)


def run(backend: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run an event loop from its begin to its end."""
    anyio.run(main, backend=backend)
    gc.collect()


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")  # trio warns of what is forgotten
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WAYS)
def test_the_end_is_told_once(name: str, backend: str, server: RawServer) -> None:
    way = WAYS[name]
    ends: list[StreamEnd] = []
    kept: list[Scene] = []
    server.answer(*way.answer)

    async def main() -> None:
        client = client_of(server, on_end=ends.append, **way.options or {})
        scene = Scene(server, client, client.chat_completion("Hi"), ends)
        kept.append(scene)
        await way.use(scene)

    run(backend, main)
    (end,) = ends
    assert (end.completeness, end.error and type(end.error).__name__, end.stats.chunks) == way.expected
    assert end.completion.completeness == end.completeness
    assert end.completion.text == ("Hello" if way.expected == COMPLETE else end.completion.text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_never_begun_has_no_end(backend: str, server: RawServer) -> None:
    ends: list[StreamEnd] = []

    async def main() -> None:
        async with client_of(server, on_end=ends.append) as client:
            streams = [client.chat_completion("Hi") for _ in range(3)]
            await streams[0].aclose()
            await streams[1].stop()
            with pytest.raises(ConfigurationError):
                client.chat_completion("Hi", temperature=3)
            sentences(streams[2])
            del streams[2]

    run(backend, main)
    assert ends == []


def test_a_stream_that_is_read_on_after_its_loop_says_why_it_ended(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    server.answer(*OPEN)
    kept = client_of(server, on_end=ends.append).chat_completion("Hi")

    async def main() -> None:
        await anext(kept)

    asyncio.run(main())
    assert [end.completeness for end in ends] == ["stopped"]

    async def again() -> None:
        with pytest.raises(StreamClosedError, match="its event loop ended") as caught:
            await anext(kept)
        assert caught.value.partial is not None
        assert caught.value.partial.text == "Hel"

    asyncio.run(again())


# ── where no event loop tells ────────────────────────────────────────────────────────────────────────────────────────


def _opened_in(loop: asyncio.AbstractEventLoop, server: RawServer, ends: list[StreamEnd]) -> AnyStream:
    server.answer(*OPEN)
    opened = client_of(server, on_end=ends.append).chat_completion("Hi")

    async def main() -> None:
        await anext(opened)

    loop.run_until_complete(main())
    return opened


@pytest.fixture
def _collected() -> Iterator[None]:
    yield
    gc.collect()


def unclosed(test: Any) -> Any:
    """Mark a test whose sockets nobody is left to close; they are collected at its end."""
    ignored = ("ignore:.*:ResourceWarning", "ignore:.*aclose.* was never awaited:RuntimeWarning")
    return pytest.mark.usefixtures("_collected")(pytest.mark.filterwarnings(*ignored)(test))


@unclosed
def test_forgotten_while_its_loop_stands_still(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    loop = asyncio.new_event_loop()
    opened = _opened_in(loop, server, ends)
    del opened
    assert [end.completeness for end in ends] == ["stopped"]
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    gc.collect()
    assert len(ends) == 1


@unclosed
def test_forgotten_after_its_loop_was_closed(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    loop = asyncio.new_event_loop()
    opened = _opened_in(loop, server, ends)
    loop.close()
    assert ends == []
    del opened
    assert [end.completeness for end in ends] == ["stopped"]


@unclosed
def test_forgotten_in_the_last_moment_of_its_loop(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    loop = asyncio.new_event_loop()
    held = [_opened_in(loop, server, ends)]

    def forget_and_stop() -> None:
        loop.stop()
        held.clear()

    loop.call_soon(forget_and_stop)
    loop.run_forever()
    assert ends == []
    loop.close()
    assert [end.completeness for end in ends] == ["stopped"]


@unclosed
def test_kept_after_its_loop_was_closed_and_stopped_in_another(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    loop = asyncio.new_event_loop()
    opened = _opened_in(loop, server, ends)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):  # httpcore would close the connection
        asyncio.run(opened.stop())
    assert [end.completeness for end in ends] == ["stopped"]


@unclosed
async def test_a_read_that_is_abandoned_in_the_middle(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    server.answer(*UNANSWERED)
    async with client_of(server, on_end=ends.append) as client:
        read = client.chat_completion("Hi").__anext__()
        read.send(None)
        read.close()
        assert [end.completeness for end in ends] == ["stopped"]
    assert len(ends) == 1


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_forgotten_after_trio_has_ended(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    server.answer(*OPEN)
    kept = client_of(server, on_end=ends.append).chat_completion("Hi")

    async def main(opened: AnyStream) -> None:
        await anext(opened)

    trio.run(main, kept)
    assert [end.completeness for end in ends] == ["stopped"]
    del kept
    assert len(ends) == 1


def test_what_an_event_loop_that_has_ended_does_not_call_is_told_at_once(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    told: list[StreamEnd] = []
    server.answer(*ANSWER)
    soon: list[Any] = []

    async def main() -> None:
        async with client_of(server, on_end=ends.append) as client:
            await client.chat_completion("Hi").until_done()
        soon.append(_calls_soon())

    trio.run(main)
    hook = observers(told.append, None)
    soon[0](_Report(begin(hook, ends[0]), ends[0]))
    assert told == ends


def test_a_loop_that_has_ended_leaves_nothing_for_the_end_of_the_program(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[Any] = []
    monkeypatch.setattr(atexit, "register", left.append)
    monkeypatch.setattr(atexit, "unregister", left.remove)
    server.answer(*ANSWER)

    async def main() -> None:
        async with client_of(server, on_end=bool) as client:
            await client.chat_completion("Hi").until_done()
        assert len(left) == 1

    for _ in range(3):
        asyncio.run(main())
        assert left == []

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    closed = weakref.ref(loop)
    del loop
    gc.collect()
    assert closed() is None, "a loop that is closed without its generators is kept"
    assert left == []


def test_it_is_told_by_the_loop_and_not_in_the_middle_of_what_is_collected(server: RawServer) -> None:
    """A garbage collection can come while an exporter holds its lock."""
    lock = threading.Lock()
    ends: list[StreamEnd] = []

    def on_end(end: StreamEnd) -> None:
        assert lock.acquire(timeout=1)
        ends.append(end)
        lock.release()

    async def main() -> None:
        server.answer(*OPEN)
        cycle: list[Any] = [client_of(server, on_end=on_end).chat_completion("Hi")]
        await anext(cycle[0])
        cycle.append(cycle)
        del cycle
        with lock:
            gc.collect()
        await wait_for(lambda: len(ends) == 1, "the end")

    asyncio.run(main())


LEFT = {
    "kept by a module": "asyncio.run(opened())",
    "kept by a module on trio": "import trio; trio.run(opened)",
    "its loop is never closed": "loop = asyncio.new_event_loop(); loop.run_until_complete(opened())",
    "its loop is closed, and no more": (
        "loop = asyncio.new_event_loop(); loop.run_until_complete(opened()); loop.close()"
    ),
    "the program fails": "asyncio.run(opened()); raise SystemExit(0)",
}


@pytest.mark.parametrize("name", LEFT)
def test_told_before_the_program_ends(name: str, server: RawServer) -> None:
    """What was registered first at exit is called last: an exporter is set up before the first stream."""
    server.answer(*OPEN)
    program = f"""
        import asyncio, atexit, tempfile, weakref
        weakref.finalize(tempfile.TemporaryFile, print)  # it has weakref be called first of all, and so last
        atexit.register(print, "exporter shut down")
        from chatapi_async import AsyncChatClient
        told = lambda end: print(end.completeness)
        client = AsyncChatClient({server.url!r}, operator_id="tn_1", token="t", on_end=told)
        kept = client.chat_completion("Hi")
        async def opened():
            await anext(kept)
        {LEFT[name]}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split("\n")[:2] == ["stopped", "exporter shut down"], done.stderr
    assert done.returncode == 0


# ── what is told ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_the_end_tells(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    server.answer(*ANSWER)
    async with client_of(server, on_end=ends.append) as client:
        room = client.chatroom("ch_1/é")
        await room.chat_completion("Hi", model="openai/gpt-4o", temperature=0.5, operator_id="tn_2").until_done()
    (end,) = ends
    assert (end.operation, end.chatroom_id, end.operator_id) == ("chat_completion_on_chatroom", "ch_1/é", "tn_2")
    assert (end.server_address, end.server_port) == ("127.0.0.1", server.port)
    assert (end.status_code, end.request_id, end.attempts) == (200, "req_1", 1)
    assert end.request == ChatCompletionRequest.build(
        "Hi", {"model": "openai/gpt-4o", "temperature": 0.5, "stream": True}
    )
    assert end.completion is end.completion
    assert end.completion.usage is not None
    assert (end.completion.text, end.completion.usage.total_tokens) == ("Hello", 5)
    assert end.stats.time_to_first_chunk is not None
    assert 0 < end.stats.time_to_first_chunk <= end.stats.duration


@pytest.mark.parametrize(
    ("base_url", "address", "port"),
    [
        ("https://api.example.com/chat", "api.example.com", 443),
        ("http://localhost", "localhost", 80),
        ("http://[::1]:8080", "::1", 8080),
    ],
)
def test_the_address_is_that_of_the_base_url(base_url: str, address: str, port: int) -> None:
    call = stream_call(f"{base_url}/v1/llms/chat/completions", {"x-operator-id": "tn_1"}, b"{}", None)
    assert (call.server_address, call.server_port, call.operation) == (address, port, "chat_completion")


async def test_what_is_told_shows_neither_content_nor_token(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    server.answer(*stream(chunk("a secret answer", "stop"), DONE))
    async with client_of(server, on_end=ends.append) as client:
        await client.chat_completion("a secret question").until_done()
    shown = repr(ends)
    assert "tn_1" in shown
    assert "secret" not in shown
    assert "t0ken" not in shown


async def test_attempts_and_the_status_of_an_error_are_told(server: RawServer) -> None:
    ends: list[StreamEnd] = []
    server.answer(*body('{"message": "slow down"}', 429, x_request_id="req_9"))
    async with client_of(server, on_end=ends.append, retries=QUICK) as client:
        with pytest.raises(ChatAPIError) as caught:
            await client.chat_completion("Hi")
    (end,) = ends
    assert (end.attempts, end.status_code, end.request_id) == (3, 429, "req_9")
    assert end.error is caught.value


async def test_where_nobody_listens_there_was_an_attempt_and_no_status() -> None:
    ends: list[StreamEnd] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = AsyncChatClient(
        f"http://127.0.0.1:{port}",
        operator_id="tn_1",
        token="t",
        on_end=ends.append,
        retries=RetryPolicy(max_retries=0),
    )
    with pytest.raises(ChatAPIError):
        await client.chat_completion("Hi").until_done()
    (end,) = ends
    assert (end.attempts, end.status_code, end.request_id, end.stats.chunks) == (1, None, None, 0)


async def test_what_was_raised_does_not_keep_the_stream(server: RawServer) -> None:
    async with client_of(server, on_end=bool, token=broken_token) as client:
        opened = client.chat_completion("Hi")
        with suppress(ValueError):
            await opened
        reader = weakref.ref(opened._reader)
        gc.disable()
        try:
            del opened
            assert reader() is None
        finally:
            gc.enable()


async def test_it_is_told_before_the_reader_sees_the_end(server: RawServer) -> None:
    seen: list[str] = []
    server.answer(*stream(chunk("Hel"), CLOSE))
    async with client_of(server, on_end=lambda _: seen.append("told")) as client:
        try:
            await client.chat_completion("Hi").until_done()
        except ChatAPIError:
            seen.append("raised")
    assert seen == ["told", "raised"]


# ── hooks that go wrong ──────────────────────────────────────────────────────────────────────────────────────────────


class Observer:
    """An observer that fails where it is told to, and remembers the rest."""

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise ZeroDivisionError(name)

    def stream_began(self, call: StreamCall) -> Observer:
        self._called("began")
        return self

    def sending(self) -> AbstractContextManager[object]:
        self._called("sending")
        return _Sending(self._called)

    def ended(self, end: StreamEnd) -> None:
        self._called("ended")


class _Sending(AbstractContextManager[None]):
    def __init__(self, called: Callable[[str], None]) -> None:
        self._called = called

    def __enter__(self) -> None:
        self._called("entered")

    def __exit__(self, *exc_info: object) -> None:
        self._called("left")


ALL_CALLS = ["began", "sending", "entered", "left", "ended"]


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("", ALL_CALLS),
        ("began", ["began"]),
        ("sending", ["began", "sending", "ended"]),
        ("entered", ["began", "sending", "entered", "ended"]),
        ("left", ALL_CALLS),
        ("ended", ALL_CALLS),
    ],
)
async def test_an_observer_that_fails_is_logged_and_disturbs_nothing(
    fails: str, calls: list[str], server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    observer, ends = Observer(fails), []
    server.answer(*ANSWER)
    async with client_of(server, telemetry=observer, on_end=ends.append) as client:
        assert await client.chat_completion("a question").get_final_text() == "Hello"
    assert observer.calls == calls
    assert len(ends) == 1
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == (1 if fails else 0)
    for record in errors:
        assert record.name == "chatapi_async"
        assert record.exc_info is not None
        shown = record.getMessage() + "".join(traceback.format_exception(record.exc_info[1]))
        assert "ZeroDivisionError" in shown
        assert "a question" not in shown


async def test_the_result_of_a_cancelled_task_cancels_nobody_who_reads(
    server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    def note(end: StreamEnd) -> None:
        raise asyncio.CancelledError

    server.answer(*ANSWER)
    server.answer(*OPEN)
    async with client_of(server, on_end=note) as client:
        assert await client.chat_completion("Hi").get_final_text() == "Hello"
        opened = await client.chat_completion("Hi")
        await opened.stop()
        await server.hung_up()
    assert caplog.text.count("on_end, or telemetry, failed") == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_is_raised_and_the_connection_closed(
    error: type[BaseException], server: RawServer
) -> None:
    def note(end: StreamEnd) -> None:
        raise error

    server.answer(*OPEN)
    async with client_of(server, on_end=note) as client:
        opened = await client.chat_completion("Hi")
        with pytest.raises(error):
            await opened.stop()
        await server.hung_up()


def test_what_ctrl_c_comes_before_is_told_when_the_loop_ends(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    ends: list[StreamEnd] = []
    kept: list[AnyStream] = []
    server.answer(*OPEN)

    async def main() -> None:
        kept.append(await client_of(server, on_end=ends.append).chat_completion("Hi"))
        with monkeypatch.context() as patch:
            patch.setattr("chatapi_async._observed_reader.stream_end", interrupted)
            with pytest.raises(KeyboardInterrupt):
                await kept[0].stop()
        assert ends == []

    trio.run(main)
    assert [end.completeness for end in ends] == ["stopped"]


async def test_an_observer_that_fails_does_not_hide_the_error_of_the_stream(server: RawServer) -> None:
    server.answer(*body('{"message": "no"}', 401))
    async with client_of(server, telemetry=Observer("left"), on_end=lambda _: 1 / 0) as client:
        with pytest.raises(ChatAPIError, match="401"):
            await client.chat_completion("Hi")


async def coroutine_function(end: StreamEnd) -> None: ...


class AsyncCallable:
    async def __call__(self, end: StreamEnd) -> None: ...


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_end": coroutine_function}, "plain function.*a queue"),
        ({"on_end": functools.partial(coroutine_function)}, "plain function"),
        ({"on_end": AsyncCallable()}, "plain function"),
        ({"on_end": []}, "on_end must be a function, not list"),
        ({"telemetry": object()}, r"an instance of object; give chatapi_async\.otel\.OpenTelemetry\(\)"),
        ({"telemetry": Observer}, "given Observer; give .*, an instance"),
    ],
)
def test_what_cannot_observe_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        AsyncChatClient("http://localhost", operator_id="tn_1", token="t", **options)


# ── no cost where it is not used ─────────────────────────────────────────────────────────────────────────────────────


def _loaded(program: str) -> set[str]:
    program = f"{program}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_of_it_is_imported_until_it_is_used() -> None:
    made = "from chatapi_async import AsyncChatClient as C; C(operator_id='tn', token='t'"
    ours = {"chatapi_async._observation", "chatapi_async._observed_reader"}
    assert {
        name for name in _loaded(f"{made}).chat_completion('Hi')") if name in ours or "opentelemetry" in name
    } == set()
    used = _loaded(f"{made}, on_end=print).chat_completion('Hi')")
    assert {name for name in used if name in ours or "opentelemetry" in name} == ours


async def test_a_chunk_is_read_by_the_same_code_whether_or_not_anybody_observes(server: RawServer) -> None:
    async with client_of(server) as client, client_of(server, on_end=bool) as observed:
        reader, observed_reader = (each.chat_completion("Hi")._reader for each in (client, observed))
    assert type(reader) is StreamReader
    assert isinstance(observed_reader, ObservedReader)
    assert {"next", "_exclusively", "_advance"} & set(vars(ObservedReader)) == set()


@pytest.fixture(scope="module")
def emulated() -> Iterator[str]:
    with serve_in_thread(Emulator(tokens_per_second=None)) as server:
        yield server.base_url


async def test_one_function_for_many_clients(emulated: str) -> None:
    ends: list[StreamEnd] = []
    for operator in ("tn_1", "tn_2"):
        async with AsyncChatClient(emulated, operator_id=operator, token="t", on_end=ends.append) as client:
            await client.chat_completion("Hello", timeout=30).until_done()
            with pytest.raises(APITimeoutError):
                await client.chat_completion("Hello", model="fault/no_response", timeout=0.01).until_done()
    assert [(end.operator_id, end.completeness) for end in ends] == [
        (operator, completeness) for operator in ("tn_1", "tn_2") for completeness in ("complete", "failed")
    ]
