"""Many streams at once on one client: none waits for another, or disturbs it, and none leaves anything behind."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, Self

import anyio
import httpx
import pytest
import trio

from chatapi_async import AsyncChatClient, ChatStream, StreamClosedError
from tests.raw_server import DONE, chunk, client_of, stream, wait_for


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192 if hard == resource.RLIM_INFINITY else min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Exchange(asyncio.Protocol):
    """The server's end of one connection. It answers one request after another."""

    def __init__(self, server: CrowdServer) -> None:
        self.prompt = ""
        self._server = server
        self._received = b""
        self._answering: asyncio.Task[None] | None = None

    def send(self, *steps: bytes) -> None:
        self._transport.write(b"".join(steps))

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._server.transports.add(transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if length and len(body) >= int(length):
            self._received = b""
            self.prompt = json.loads(body)["messages"][0]["content"]
            self._answering = asyncio.ensure_future(self._answer())

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.transports.discard(self._transport)
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self) -> None:
        self._server.requests += 1
        self._server.answering += 1
        try:
            await self._server.answer(self)
        finally:
            self._server.answering -= 1


class CrowdServer:
    """A server on an event loop in a thread of its own, for more connections than threads would do."""

    def __init__(self, answer: Callable[[Exchange], Awaitable[None]]) -> None:
        self.answer = answer
        self.requests = 0
        self.answering = 0
        """How many answers have begun and not ended, neither by themselves nor by the client's hanging up."""
        self.transports: set[asyncio.Transport] = set()
        """The connections that are open."""
        self.url = ""
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listener = await self._loop.create_server(lambda: Exchange(self), "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        self._listening.set()
        await self._stop.wait()
        listener.close()
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


def repeated(prompt: str) -> list[bytes]:
    """The answer that repeats the prompt, letter by letter: its beginning, its chunks, and its end."""
    return [step for step in stream(*map(chunk, prompt), DONE) if isinstance(step, bytes)]


def when_all_have_come(count: int) -> Callable[[Exchange], Awaitable[None]]:
    """Answer each request once so many have arrived."""
    barrier = asyncio.Barrier(count)

    async def answer(exchange: Exchange) -> None:
        await barrier.wait()
        exchange.send(*repeated(exchange.prompt))

    return answer


async def half(exchange: Exchange) -> None:
    """Repeat half of the prompt, and go silent."""
    exchange.send(*repeated(exchange.prompt)[: 1 + len(exchange.prompt) // 2])
    await asyncio.Event().wait()


class AtRandom:
    """Take a random time before the first piece of the answer and before the last; leave some without an end."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    async def __call__(self, exchange: Exchange) -> None:
        head, first, *others, done, end = repeated(exchange.prompt)
        for pieces in ([head], [first], others, [done, end]):
            await asyncio.sleep(self._chance.choice((0, 0, 0.001, 0.003)))
            if end in pieces and self._chance.random() < 0.1:
                await asyncio.Event().wait()
            exchange.send(*pieces)


@pytest.fixture
async def unhandled() -> AsyncIterator[list[dict[str, Any]]]:
    """What the event loop's exception handler is told; nothing, or the test fails."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    yield told
    assert told == []


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_thousand_streams_at_once_do_not_wait_for_one_another(unhandled: Any) -> None:
    prompts = [f"no. {number}" for number in range(1000)]
    with CrowdServer(when_all_have_come(1000)) as server:
        async with client_of(server) as client, asyncio.timeout(30):
            texts = await asyncio.gather(*(client.chat_completion(prompt).get_final_text() for prompt in prompts))
    assert texts == prompts


async def _others_are_undisturbed() -> None:
    prompts = [f"the answer to question {number}" for number in range(25)]
    texts: dict[str, str] = {}
    cancelled: list[ChatStream[Any]] = []

    async def answer(exchange: Exchange) -> None:
        pieces = repeated(exchange.prompt)
        exchange.send(*pieces[:10])
        while exchange.prompt == "cancelled" or len(cancelled) < len(prompts):  # noqa: ASYNC110 - in another thread
            await asyncio.sleep(0.002)
        exchange.send(*pieces[10:])

    chance = random.Random(3)

    async def read(client: AsyncChatClient, prompt: str) -> None:
        texts[prompt] = await client.chat_completion(prompt).get_final_text()

    async def read_in_part(client: AsyncChatClient, prompt: str, chunks: int) -> None:
        with anyio.CancelScope() as scope:
            stream_ = client.chat_completion(prompt)
            async for _ in stream_:
                if stream_.stats.chunks == chunks:
                    scope.cancel()
        cancelled.append(stream_)

    with CrowdServer(answer) as server:
        async with client_of(server) as client, anyio.create_task_group() as tasks:
            for prompt in prompts:
                tasks.start_soon(read, client, prompt)
                tasks.start_soon(read_in_part, client, "cancelled", chance.randrange(1, 9))
    assert texts == {prompt: prompt for prompt in prompts}
    assert {stream_.snapshot.completeness for stream_ in cancelled} == {"stopped"}


async def test_streams_are_undisturbed_by_others_that_are_cancelled_on_asyncio(unhandled: Any) -> None:
    await _others_are_undisturbed()


def test_streams_are_undisturbed_by_others_that_are_cancelled_on_trio() -> None:
    trio.run(_others_are_undisturbed)


async def _closing_the_client() -> None:
    prompts = [f"the answer to question {number}" for number in range(100)]
    caught: dict[str, StreamClosedError] = {}
    streams: list[ChatStream[Any]] = []

    async def read(stream_: ChatStream[Any], prompt: str) -> None:
        with pytest.raises(StreamClosedError) as info:
            await stream_.until_done()
        caught[prompt] = info.value

    with CrowdServer(half) as server:
        client = client_of(server)
        async with anyio.create_task_group() as tasks:
            for prompt in prompts:
                streams.append(client.chat_completion(prompt))
                tasks.start_soon(read, streams[-1], prompt)
            halves = [len(prompt) // 2 for prompt in prompts]
            await wait_for(lambda: [each.stats.chunks for each in streams] == halves, "half of every answer")
            await client.aclose()
        await wait_for(lambda: not server.transports, "every connection to be closed")
    parts = {
        prompt: error.partial and (error.partial.text, error.partial.completeness) for prompt, error in caught.items()
    }
    assert parts == {prompt: (prompt[: len(prompt) // 2], "stopped") for prompt in prompts}


async def test_closing_the_client_ends_a_hundred_streams_with_what_has_come_on_asyncio(unhandled: Any) -> None:
    await _closing_the_client()


def test_closing_the_client_ends_a_hundred_streams_with_what_has_come_on_trio() -> None:
    trio.run(_closing_the_client)


# ── cancelled at any moment ──────────────────────────────────────────────────────────────────────────────────────────

POOL = 20
"""How many connections the caller's own HTTP client has: so few that streams wait for one another."""
AT_ONCE = 50

CancelIn = Callable[[float], object]
"""Cancels the caller after so many seconds."""


async def _by_task(read: Callable[[CancelIn], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(read(lambda seconds: loop.call_later(seconds, task.cancel)))
    await asyncio.wait([task])


async def _twice(read: Callable[[CancelIn], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        task.cancel()
        loop.call_soon(task.cancel)

    task = asyncio.ensure_future(read(lambda seconds: loop.call_later(seconds, cancel)))
    await asyncio.wait([task])


async def _by_timeout(read: Callable[[CancelIn], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            await read(lambda seconds: timeout.reschedule(loop.time() + seconds))


async def _by_scope(read: Callable[[CancelIn], Awaitable[None]]) -> None:
    with anyio.CancelScope() as scope:
        await read(lambda seconds: setattr(scope, "deadline", anyio.current_time() + seconds))


def stage(stream_: ChatStream[Any]) -> str:
    """How far a stream came."""
    if stream_.snapshot.completeness == "complete":
        return "complete"
    return "reading" if stream_.status_code else "before the response"


async def _storm(count: int, ways: list[Any]) -> None:
    chance = random.Random(5)
    stages: Counter[str] = Counter()

    async def one_after_another(client: AsyncChatClient) -> None:
        for _ in range(count // AT_ONCE):
            stream_ = client.chat_completion("hello")
            chunks = chance.choice((0, 0, 0, 0, 0, 0, 1, 2, 5))
            seconds = chance.random() * chance.choice((0, 0.001, 0.005, 0.03))

            async def read(cancel_in: CancelIn) -> None:
                if not chunks:  # noqa: B023 - it ends before the next one begins
                    cancel_in(seconds)  # noqa: B023
                async for _ in stream_:  # noqa: B023
                    if stream_.stats.chunks == chunks:  # noqa: B023
                        cancel_in(seconds)  # noqa: B023

            await chance.choice(ways)(read)
            stages[stage(stream_)] += 1

    limits = httpx.Limits(max_connections=POOL)
    with CrowdServer(AtRandom(6)) as server:
        async with httpx.AsyncClient(limits=limits, trust_env=False) as http_client:
            client = client_of(server, http_client=http_client)
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(one_after_another, client)
            await wait_for(lambda: server.answering == 0, "every unfinished answer to be hung up on")
            pool = http_client._transport._pool  # type: ignore[attr-defined]
            assert pool._requests == []
            assert [each for each in pool.connections if not (each.is_idle() or each.is_closed())] == []

            server.answer = when_all_have_come(POOL)
            texts: list[str] = []

            async def again() -> None:
                texts.append(await client.chat_completion("once more").get_final_text())

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    for _ in range(POOL):
                        tasks.start_soon(again)
            assert texts == ["once more"] * POOL
        await wait_for(lambda: not server.transports, "every connection to be closed")
    assert min(stages[each] for each in ("before the response", "reading", "complete")) > count / 100, stages


@pytest.mark.heavy
async def test_ten_thousand_streams_cancelled_at_any_moment_leave_nothing_on_asyncio(unhandled: Any) -> None:
    await _storm(10_000, [_by_task, _twice, _by_timeout, _by_scope])
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_thousand_streams_cancelled_at_any_moment_leave_nothing_on_trio() -> None:
    trio.run(_storm, 1000, [_by_scope])
