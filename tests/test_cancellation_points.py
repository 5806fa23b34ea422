"""Streams that are cancelled at each of the points at which they wait, one after another, on asyncio and on trio."""

from __future__ import annotations

import asyncio
import gc
import itertools
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import coroutine
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from chatapi_async import (
    AsyncChatClient,
    ChatStream,
    InternalServerError,
    RetryPolicy,
    StreamClosedError,
    Timeouts,
    tee,
)
from chatapi_async.pacing import heartbeat, paced
from chatapi_async.recording import read_recording
from chatapi_async.relay import relay_sse
from tests.raw_server import (
    DONE,
    HOLD,
    WAIT_SECONDS,
    AnyStep,
    Connection,
    Gate,
    RawServer,
    Request,
    body,
    chunk,
    client_of,
    head,
    stream,
    wait_for,
)

AnyStream = ChatStream[Any]
Use = Callable[[AnyStream], Coroutine[Any, Any, None]]
Operation = Callable[[], Coroutine[Any, Any, None]]


class Points:
    """Counts how often an operation waits, and cancels it at one of these times."""

    def __init__(self, at: int, on_wait: Callable[[], None]) -> None:
        self.cancel: Callable[[Any], object] = bool
        """Cancels; it is told what is waited for."""
        self._left = at
        self._on_wait = on_wait

    @property
    def reached(self) -> bool:
        """Whether the operation waited that often."""
        return self._left <= 0

    async def count(self, use: Use, stream_: AnyStream) -> None:
        """Use a stream, and count."""
        await self._run(use(stream_))

    @coroutine
    def _run(self, operation: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        go_on = partial(operation.send, None)
        while True:
            try:
                waits_for = go_on()
            except StopIteration:
                return
            self._left -= 1
            if self._left == 0:
                self.cancel(waits_for)
            self._on_wait()
            try:
                go_on = partial(operation.send, (yield waits_for))
            except BaseException as error:
                go_on = partial(operation.throw, error)


# ── ways to cancel: each sees to it that the cancellation comes out of the operation again ───────────────────────────


async def by_cancel(points: Points, operation: Operation) -> None:
    task = asyncio.create_task(operation())
    points.cancel = lambda _: task.cancel()
    await _task_ended(points, task)


async def by_two_cancels(points: Points, operation: Operation) -> None:
    task = asyncio.create_task(operation())
    points.cancel = lambda _: task.cancel() and task.get_loop().call_soon(task.cancel)
    await _task_ended(points, task, cancels=2)


async def by_cancel_in_the_moment_of_going_on(points: Points, operation: Operation) -> None:
    task = asyncio.create_task(operation())

    def cancel(waits_for: asyncio.Future[Any] | None) -> None:
        if waits_for is None:
            task.get_loop().call_soon(task.cancel)
        else:
            waits_for.add_done_callback(lambda _: task.cancel())

    points.cancel = cancel
    await _task_ended(points, task)


async def by_cancelled_wait_for(points: Points, operation: Operation) -> None:
    task = asyncio.create_task(asyncio.wait_for(operation(), WAIT_SECONDS))
    points.cancel = lambda _: task.cancel()
    await _task_ended(points, task)


async def _task_ended(points: Points, task: asyncio.Task[None], cancels: int = 1) -> None:
    await asyncio.wait([task])
    if not points.reached:
        task.result()
    assert task.cancelled() == points.reached
    assert task.cancelling() == (cancels if points.reached else 0)


async def by_timeout(points: Points, operation: Operation) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            points.cancel = lambda _: timeout.reschedule(asyncio.get_running_loop().time())
            await operation()
    assert timeout.expired() == points.reached


async def by_scope(points: Points, operation: Operation) -> None:
    with anyio.CancelScope() as scope:
        points.cancel = lambda _: scope.cancel()
        await operation()
        await checkpoint()
    assert scope.cancelled_caught == points.reached


async def by_task_group(points: Points, operation: Operation) -> None:
    async with anyio.create_task_group() as tasks:
        points.cancel = lambda _: tasks.cancel_scope.cancel()
        tasks.start_soon(operation)


# ── the server ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Turn(Gate):
    """A step that waits until the client waits again, so that it has read by itself what comes before the step."""

    def __init__(self) -> None:
        super().__init__()
        self._writer.setblocking(False)

    def open(self) -> None:
        with suppress(BlockingIOError):  # it is open already
            super().open()

    def pass_through(self, connection: Connection) -> None:
        super().pass_through(connection)
        self._reader.recv(1 << 16)


class ServerOfStreams(RawServer):
    """Gives the same answers to each stream, one to each of its requests. A header tells streams apart."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = Turn()
        self._gates.append(self.turn)
        self._answers_of: dict[str, tuple[AnyStep, ...]] = {}
        self._requests_of: Counter[str | None] = Counter()

    def answer_piece_by_piece(self, *steps: AnyStep) -> None:
        self.answer(*[each for step in steps for each in (step, self.turn)][:-1])

    def answer_stream(self, name: str, *steps: AnyStep) -> None:
        """Answer the stream of that name otherwise than all the others."""
        self._answers_of[name] = steps

    def take(self, request: Request) -> tuple[AnyStep, ...]:
        name = request.header("x-stream")
        self._requests_of[name] += 1
        return self._answers_of.get(name or "") or self._answers[self._requests_of[name] - 1]


@pytest.fixture
def server() -> Iterator[ServerOfStreams]:
    with ServerOfStreams() as server:
        yield server


# ── the client ───────────────────────────────────────────────────────────────────────────────────────────────────────

EVENTS = (chunk("Hel"), chunk("lo"), chunk(finish="stop"), DONE)
JSON = (b'{"choices": [{"message": {"role": "assistant", ', b'"content": "Hello"}, "finish_reason": "stop"}]}')


TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here is encrypted, and this takes no time to make."""


async def _token() -> str:
    await checkpoint()
    return "t0ken"


class Bench:
    """A client of the server, and what must be so whenever none of its streams is open."""

    def __init__(self, server: ServerOfStreams, http_client: httpx.AsyncClient, record: Path | None = None) -> None:
        options: dict[str, Any] = {"token": _token, "http_client": http_client, "timeout": Timeouts(pool=1.0)}
        retries = RetryPolicy(initial_delay=0.001)
        self.client: AsyncChatClient = client_of(server, retries=retries, record=record, **options)
        self.server = server
        self.pool: Any = http_client._transport._pool  # type: ignore[attr-defined]

    def stream(self, name: object) -> AnyStream:
        return self.client.chat_completion("Hi", extra_headers={"x-stream": str(name)})

    async def has_nothing_in_use(self) -> None:
        assert not self.pool._requests
        open_ones = [each for each in self.pool.connections if not each.is_closed()]
        assert all(each.is_idle() for each in open_ones), open_ones
        await wait_for(lambda: self.server.open_connections == len(open_ones), "the server to see every hang-up")

    async def gets_another_answer(self) -> None:
        assert await self.stream("last").get_final_text() == "Hello"

    @asynccontextmanager
    async def waits_for_its_connection(self) -> AsyncIterator[None]:
        """Let another stream have the one connection until a request waits for it."""
        self.server.answer_stream("holder", *stream(HOLD))
        holder = await self.stream("holder")
        over = False

        async def give_up() -> None:
            await wait_for(lambda: over or len(self.pool._requests) == 2, "a request to wait")
            await holder.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(give_up)
            yield
            over = True

    @asynccontextmanager
    async def has_another_stream(self) -> AsyncIterator[None]:
        """Read another stream before and after."""
        gate = self.server.gate()
        self.server.answer_stream("other", *stream(EVENTS[0], gate, *EVENTS[1:]))
        other = self.stream("other")
        await anext(other)
        yield
        gate.open()
        assert await other.get_final_text() == "Hello"


# ── what is cancelled ────────────────────────────────────────────────────────────────────────────────────────────────


async def _iterate(stream_: AsyncIterable[Any]) -> None:
    async for _ in stream_:
        pass


async def _iterate_events(stream_: AnyStream) -> None:
    async for _ in stream_.events():
        pass


async def _get_message(stream_: AnyStream) -> None:
    assert (await stream_.get_final_message()).text == "Hello"


async def _stop_in_the_middle(stream_: AnyStream) -> None:
    await anext(stream_)
    await stream_.stop()
    assert (await stream_.get_final_completion()).completeness == "stopped"


async def _break_in_a_block(stream_: AnyStream) -> None:
    async with stream_:
        async for _ in stream_:
            break


async def _raise_in_a_block(stream_: AnyStream) -> None:
    async def block() -> None:
        async with stream_:
            async for _ in stream_:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await block()


async def _close_a_generator(stream_: AnyStream) -> None:
    async def texts() -> AsyncIterator[str]:
        async with stream_:
            async for chunk in stream_:
                yield chunk.text

    generator: Any = texts()
    try:
        assert await anext(generator) == "Hel"
    finally:
        await generator.aclose()


async def _show_at_a_pace(stream_: AnyStream) -> None:
    async for _ in paced(stream_, every=0.001):
        pass


async def _show_a_heartbeat(stream_: AnyStream) -> None:
    async for _ in heartbeat(paced(stream_, every=0.001), every=0.001):
        pass


async def _relay(stream_: AnyStream) -> None:
    async with relay_sse(stream_) as events:
        async for _ in events:
            pass


async def _leave_a_relay(stream_: AnyStream) -> None:
    async with relay_sse(stream_) as events:
        await anext(events)


async def _tee(stream_: AnyStream) -> None:
    first, second = tee(stream_)
    async with first, second:
        await _iterate(first)
        await _iterate(second)


async def _fail(stream_: AnyStream) -> None:
    with pytest.raises(InternalServerError):
        await stream_


@dataclass(frozen=True)
class Life:
    """One life of a stream: how it is used, what the server answers to its requests, how it ends if not cancelled."""

    use: Use
    answers: tuple[tuple[AnyStep, ...], ...] = (stream(*EVENTS),)
    length: int = len(b"".join(EVENTS))
    """Bytes of the body up to the end of the answer."""
    ends_with: type[Exception] = StopAsyncIteration
    completeness: str = "complete"
    keep_alive: bool = True
    recorded: bool = False
    """Whether its exchanges are recorded."""
    in_background: bool = False
    """Whether a task of its own reads: then the operation waits less often, and the server waits for nothing."""
    beside: Callable[[Bench], AbstractAsyncContextManager[None]] = nullcontext


LIVES = {
    "iterate": Life(_iterate),
    "connect": Life(_iterate, keep_alive=False),
    "wait for the connection": Life(_iterate, beside=Bench.waits_for_its_connection),
    "another stream": Life(_iterate, beside=Bench.has_another_stream),
    "events": Life(_iterate_events),
    "message": Life(_get_message),
    "JSON": Life(_get_message, (stream(*JSON, content_type="application/json"),), len(b"".join(JSON))),
    "goes on after DONE": Life(_iterate, (stream(*EVENTS, b": \n\n", b": \n\n"),)),
    "429 and retry": Life(_iterate, (body("not now", 429), stream(*EVENTS))),
    "401 and new token": Life(_iterate, (body("who?", 401), stream(*EVENTS))),
    "recorded": Life(_iterate, recorded=True),
    "recorded, 429 and retry": Life(_iterate, (body("not now", 429), stream(*EVENTS)), recorded=True),
    "500": Life(_fail, ((head(500, {"content-length": "4"}), b"so", b"so"),), 0, InternalServerError, "failed"),
    "stop": Life(_stop_in_the_middle, completeness="stopped"),
    "break": Life(_break_in_a_block, ends_with=StreamClosedError, completeness="stopped"),
    "raise": Life(_raise_in_a_block, ends_with=StreamClosedError, completeness="stopped"),
    "paced": Life(_show_at_a_pace, in_background=True),
    "heartbeat": Life(_show_a_heartbeat, in_background=True),
    "relay": Life(_relay, in_background=True),
    "leave a relay": Life(
        _leave_a_relay,
        (stream(*EVENTS[:2], HOLD),),  # since it reads ahead, an answer would end before it is left
        ends_with=StreamClosedError,
        completeness="stopped",
        in_background=True,
    ),
    "tee": Life(_tee, in_background=True),
    "generator": Life(_close_a_generator, ends_with=StreamClosedError, completeness="stopped"),
}
ENDLESS = Life(_iterate, (stream(*EVENTS, HOLD),))

WAYS = {
    "asyncio": [by_cancel, by_two_cancels, by_cancel_in_the_moment_of_going_on],
    "trio": [by_scope],
}
"""These cancel each life of a stream; the others cancel some."""
OTHER_WAYS = {"asyncio": [by_cancelled_wait_for, by_timeout, by_scope, by_task_group], "trio": [by_task_group]}
SOME_LIVES = ("iterate", "connect", "429 and retry", "stop", "raise", "heartbeat", "relay")


def _matrix() -> Iterator[Any]:
    for ways, names, marks in ((WAYS, tuple(LIVES), ()), (OTHER_WAYS, SOME_LIVES, pytest.mark.heavy)):
        for backend in ways:
            for name, way in itertools.product(names, ways[backend]):
                yield pytest.param(LIVES[name], way, backend, id=f"{name}-{way.__name__}-{backend}", marks=marks)
    yield pytest.param(ENDLESS, by_two_cancels, "asyncio", id="never ends after DONE-asyncio")


def _http_client(max_connections: int) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=max_connections)
    return httpx.AsyncClient(limits=limits, trust_env=False, verify=TLS)


@contextmanager
def _no_complaints(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See to it that nothing warns or fails when it is collected, and that no generator waits for being collected."""
    complaints: list[object] = []
    with suppress(RuntimeError):  # there is no such loop on trio, which warns of generators itself
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        sys.set_asyncgen_hooks(finalizer=complaints.append)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda unraisable: complaints.append(unraisable.exc_value))
        yield
        gc.collect()
    assert not complaints


async def _ended_well(stream_: AnyStream, life: Life, *, cancelled: bool) -> None:
    with pytest.raises((StreamClosedError, life.ends_with)) as caught:
        await anext(stream_)
    snapshot = stream_.snapshot
    assert "Hello".startswith(snapshot.text)
    assert snapshot.completeness == (life.completeness if caught.type is life.ends_with else "stopped")
    if not cancelled:
        assert caught.type is life.ends_with
    if snapshot.completeness == "complete":
        assert (snapshot.text, stream_.stats.bytes) == ("Hello", life.length)
    if isinstance(caught.value, InternalServerError):
        assert "soso" in str(caught.value)
    if isinstance(caught.value, StreamClosedError):
        assert caught.value.partial == snapshot


def _tasks() -> set[asyncio.Task[Any]]:
    """The tasks that run; the task that asks is none that anybody has cancelled."""
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return set()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    return tasks


@pytest.mark.parametrize(("life", "way", "backend"), list(_matrix()))
def test_a_stream_that_is_cancelled_at_any_point_leaves_nothing_behind(
    life: Life, way: Any, backend: str, server: ServerOfStreams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for answer in life.answers:
        (server.answer if life.in_background else server.answer_piece_by_piece)(*answer)
    server.answer_stream("last", *body(b"".join(JSON), connection="keep-alive" if life.keep_alive else "close"))

    async def cancelled_at(point: int, bench: Bench) -> bool:
        points = Points(point, server.turn.open)
        stream_ = bench.stream(point)
        tasks = _tasks()
        async with life.beside(bench):
            await way(points, partial(points.count, life.use, stream_))
        await bench.has_nothing_in_use()
        await _ended_well(stream_, life, cancelled=points.reached)
        await bench.gets_another_answer()
        assert _tasks() == tasks
        return points.reached

    async def main() -> None:
        async with _http_client(max_connections=2 if life.beside is Bench.has_another_stream else 1) as http_client:
            bench = Bench(server, http_client, record=tmp_path if life.recorded else None)
            await bench.gets_another_answer()
            with _no_complaints(monkeypatch):
                for point in itertools.count(1):
                    try:
                        if not await cancelled_at(point, bench):
                            break
                    except BaseException as error:
                        error.add_note(f"cancelled at point {point}")
                        raise
        await server.all_closed()
        assert point > (2 if life.in_background else 5)

    anyio.run(main, backend=backend)
    recordings = [read_recording(file) for file in tmp_path.iterdir()]
    assert all(recording.end is not None for recording in recordings)
    assert any(recording.stopped for recording in recordings) == life.recorded


class OtherTransport(httpx.AsyncBaseTransport):
    """A transport of the caller's own."""

    def __init__(self) -> None:
        self._transport = httpx.AsyncHTTPTransport(verify=TLS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


@pytest.mark.parametrize("way", WAYS["asyncio"])
async def test_through_another_transport_every_connection_is_closed(way: Any, server: ServerOfStreams) -> None:
    server.answer_piece_by_piece(*stream(*EVENTS, connection="close"))
    async with client_of(server, http_client=httpx.AsyncClient(transport=OtherTransport())) as client:
        for point in itertools.count(1):
            points = Points(point, server.turn.open)
            stream_ = client.chat_completion("Hi", extra_headers={"x-stream": str(point)})
            await way(points, partial(points.count, _iterate, stream_))
            await server.all_closed()
            if not points.reached:
                break
    assert point > 5
