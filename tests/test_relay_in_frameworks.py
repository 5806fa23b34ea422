"""``relay_sse`` as the body of a response of each web framework, served by real servers to clients that hang up."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from functools import partial
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.trio
import litestar
import openai
import pytest
import quart
import trio
import uvicorn
from fastapi import FastAPI
from litestar.response import Stream
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chatapi_async import AsyncChatClient, ChatCompletionRequest, Tool
from chatapi_async.emulator import Emulator, serve, serve_in_thread
from chatapi_async.relay import SSE_HEADERS, relay_sse
from tests.raw_server import RawServer, Repeat, chunk, client_of, stream, wait_for

pytestmark = pytest.mark.heavy

PATH = "/v1/llms/chat/completions"

# ── one application, as each framework has it written ────────────────────────────────────────────────────────────────


def in_starlette(client: AsyncChatClient, **options: Any) -> Any:
    async def answer(request: Request) -> StreamingResponse:
        stream = client.chat_completion(ChatCompletionRequest.model_validate_json(await request.body()))
        return StreamingResponse(relay_sse(stream, **options), headers=SSE_HEADERS)

    return Starlette(routes=[Route(PATH, answer, methods=["POST"])])


def in_starlette_behind_middleware(client: AsyncChatClient, **options: Any) -> Any:
    async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)

    app = in_starlette(client, **options)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)
    return app


def in_fastapi(client: AsyncChatClient, **options: Any) -> Any:
    app = FastAPI()

    @app.post(PATH)
    async def answer(request: ChatCompletionRequest) -> StreamingResponse:
        return StreamingResponse(relay_sse(client.chat_completion(request), **options), headers=SSE_HEADERS)

    return app


def in_litestar(client: AsyncChatClient, **options: Any) -> Any:
    async def answer(request: litestar.Request[Any, Any, Any]) -> Stream:
        stream = client.chat_completion(ChatCompletionRequest.model_validate_json(await request.body()))
        return Stream(relay_sse(stream, **options), headers=SSE_HEADERS)

    # The names of a function inside another are looked up where litestar is told to.
    names = {"litestar": litestar, "Any": Any, "Stream": Stream}
    return litestar.Litestar(
        [litestar.post(PATH, status_code=200, signature_namespace=names)(answer)], logging_config=None
    )


def in_quart(client: AsyncChatClient, **options: Any) -> Any:
    app = quart.Quart(__name__)

    @app.post(PATH)
    async def answer() -> quart.Response:
        stream = client.chat_completion(ChatCompletionRequest.model_validate(await quart.request.get_json()))
        response = quart.Response(relay_sse(stream, **options), headers=SSE_HEADERS)
        response.timeout = None  # otherwise Quart cuts the answer off after its RESPONSE_TIMEOUT
        return response

    return app


def in_plain_asgi(client: AsyncChatClient, **options: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = b""
        while (message := await receive())["more_body"]:
            request += message["body"]
        stream = client.chat_completion(ChatCompletionRequest.model_validate_json(request + message["body"]))
        headers = [(name.encode(), value.encode()) for name, value in SSE_HEADERS.items()]

        async def answer() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in relay_sse(stream, **options):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

    return app


Make = Callable[..., Any]
APPS: dict[str, Make] = {
    "Starlette": in_starlette,
    "BaseHTTPMiddleware": in_starlette_behind_middleware,
    "FastAPI": in_fastapi,
    "Litestar": in_litestar,
    "Quart": in_quart,
    "plain ASGI": in_plain_asgi,
}

# ── servers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

SMALL = 4096


def listen() -> socket.socket:
    """Bind a free port, with buffers that soon are full."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
    listener.bind(("127.0.0.1", 0))
    listener.listen(256)
    return listener


@asynccontextmanager
async def by_uvicorn(app: Any) -> AsyncIterator[str]:
    config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with closing(listen()) as listener:
        await server.startup(sockets=[listener])
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for each in server.servers:
            each.close()
        await wait_for(lambda: not server.server_state.tasks, "every response to be over")
        for connection in list(server.server_state.connections):
            connection.transport.abort()


@asynccontextmanager
async def by_hypercorn(app: Any) -> AsyncIterator[str]:
    listener = listen()
    port = listener.getsockname()[1]
    config = hypercorn.Config.from_mapping(bind=[f"fd://{listener.detach()}"], accesslog=None, errorlog=None)
    stopped = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stopped.wait, mode="asgi"))
        yield f"http://127.0.0.1:{port}"
        stopped.set()


Serve = Callable[[Any], AbstractAsyncContextManager[str]]
each_app = pytest.mark.parametrize("make", APPS.values(), ids=APPS)
each_server = pytest.mark.parametrize("served", [by_uvicorn, by_hypercorn], ids=["uvicorn", "hypercorn"])


def client_at(url: str) -> AsyncChatClient:
    return AsyncChatClient(url, operator_id="tn_1", token="t0ken")


@pytest.fixture(autouse=True, scope="module")
def _nothing_waits_for_the_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.fixture(autouse=True)
async def _no_task_is_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    yield
    await wait_for(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "every task to end")
    gc.collect()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR", "CRITICAL")]


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return city


@each_server
@each_app
async def test_this_library_reads_the_same_completion_from_an_application_as_from_the_service(
    make: Make, served: Serve
) -> None:
    request = {"n": 2, "tools": [Tool.from_function(get_weather)], "model": "openai/gpt"}
    async with serve(Emulator(tokens_per_second=None)) as running, client_at(running.base_url) as client:
        original = await client.chat_completion("How is the weather in Oslo?", **request).get_final_completion()
        async with served(make(client)) as url, client_at(url) as outer:
            answer = outer.chat_completion("How is the weather in Oslo?", **request)
            relayed = await answer.get_final_completion()

    assert {name: answer.headers[name] for name in SSE_HEADERS} == SSE_HEADERS
    assert relayed.choices == original.choices
    assert [choice.finish_reason for choice in relayed.choices] == ["tool_calls", "tool_calls"]
    assert relayed.usage == original.usage
    assert (relayed.model, relayed.completeness) == (original.model, "complete")


@each_app
async def test_the_client_of_openai_reads_an_application(make: Make) -> None:
    async with serve(Emulator(tokens_per_second=None)) as running, client_at(running.base_url) as client:
        original = await client.chat_completion("Tell me about rivers").get_final_text()
        async with (
            by_uvicorn(make(client)) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1/llms", api_key="t0ken", max_retries=0) as outer,
        ):
            chunks = await outer.chat.completions.create(
                model="large", messages=[{"role": "user", "content": "Tell me about rivers"}], stream=True
            )
            pieces = [choice async for chunk in chunks for choice in chunk.choices]

    assert "".join(piece.delta.content or "" for piece in pieces) == original
    assert pieces[-1].finish_reason == "stop"


# ── clients that hang up ─────────────────────────────────────────────────────────────────────────────────────────────


async def ask(url: str) -> socket.socket:
    """Send a request, and read nothing."""
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me about rivers"}], "stream": True})
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", int(url.rpartition(":")[2])))
    await loop.sock_sendall(sock, (head + body).encode())
    return sock


async def received(sock: socket.socket, expected: bytes) -> None:
    data = b""
    while expected not in data:
        piece = await asyncio.get_running_loop().sock_recv(sock, SMALL)
        assert piece
        data += piece


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


each_hang_up = pytest.mark.parametrize("hang_up", [reset, socket.socket.close], ids=["reset", "close"])
MOMENTS = {
    "before the first token": ({"first_token_delay": 60.0}, b"\r\n\r\n"),
    "while tokens come": ({"tokens_per_second": 10.0}, b'"content":'),
    "while the upstream is silent": ({"tokens_per_second": 0.01}, b"data: "),
}


async def closes_within_a_second(is_closed: Callable[[], bool]) -> None:
    with anyio.fail_after(1):
        while not is_closed():  # noqa: ASYNC110 - the server that counts has no event for it
            await anyio.sleep(0.001)


@each_hang_up
@each_server
@each_app
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_a_client_that_hangs_up_cancels_the_request_upstream(
    moment: tuple[dict[str, float], bytes], make: Make, served: Serve, hang_up: Callable[[socket.socket], None]
) -> None:
    options, expected = moment
    emulator = Emulator(**options)
    async with serve(emulator) as running, client_at(running.base_url) as client, served(make(client)) as url:
        sock = await ask(url)
        await wait_for(lambda: emulator.open_streams == 1, "the request upstream")
        await received(sock, expected)
        hang_up(sock)
        await closes_within_a_second(lambda: emulator.open_streams == 0)


@each_app
async def test_a_client_that_does_not_read_stops_the_upstream_and_may_hang_up_then(
    make: Make, server: RawServer
) -> None:
    server.answer(*stream(Repeat(chunk("x" * 1000))))
    blocked = False

    async with client_of(server) as client:
        app = make(client)

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def watched_send(message: Any) -> None:
                nonlocal blocked
                blocked = True
                await send(message)
                blocked = False

            await app(scope, receive, watched_send)

        async with by_uvicorn(watched) as url:
            sock = await ask(url)
            await wait_for(lambda: blocked, "a send that has to wait")
            reset(sock)
            await closes_within_a_second(lambda: server.hang_ups == 1)


async def test_two_hundred_clients_that_hang_up_at_random_moments_leave_nothing_behind() -> None:
    randomly = random.Random(7)
    emulator = Emulator(tokens_per_second=40, first_token_delay=0.3)

    async def visit(url: str) -> None:
        sock = await ask(url)
        await anyio.sleep(randomly.uniform(0, 1.5))
        randomly.choice([reset, socket.socket.close])(sock)

    async with (
        serve(emulator) as running,
        client_at(running.base_url) as client,
        by_uvicorn(in_starlette(client)) as url,
    ):
        async with anyio.create_task_group() as visitors:
            for _ in range(200):
                visitors.start_soon(visit, url)
        await closes_within_a_second(lambda: emulator.open_streams == 0)
    assert len(emulator.requests) > 100


@pytest.mark.parametrize("make", [in_starlette, in_starlette_behind_middleware, in_fastapi, in_plain_asgi])
def test_on_trio_too_a_client_that_hangs_up_cancels_the_request_upstream(make: Make) -> None:
    emulator = Emulator(tokens_per_second=0.01)
    listener = listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = hypercorn.Config.from_mapping(bind=[f"fd://{listener.detach()}"], accesslog=None, errorlog=None)

    async def main(upstream: str) -> None:
        stopped = trio.Event()
        async with client_at(upstream) as client, client_at(url) as outer, trio.open_nursery() as nursery:
            serve_app = partial(hypercorn.trio.serve, shutdown_trigger=stopped.wait, mode="asgi")
            nursery.start_soon(serve_app, make(client), config)
            answer = outer.chat_completion("Tell me about rivers")
            await anext(answer)
            assert emulator.open_streams == 1
            await answer.aclose()
            await closes_within_a_second(lambda: emulator.open_streams == 0)
            stopped.set()

    with serve_in_thread(emulator) as running:
        trio.run(main, running.base_url)


# ── servers that tell of a hang-up only when something is sent ───────────────────────────────────────────────────────


def told_by_send(app: Any) -> Any:
    """Wrap an application: the server says that it follows version 2.4 of ASGI, and raises an error from ``send``."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        async def send_or_fail(message: Any) -> None:
            if send.__self__.disconnected:
                raise BrokenPipeError
            await send(message)

        await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send_or_fail)

    return told


@pytest.mark.parametrize("make", [in_starlette, in_starlette_behind_middleware, in_fastapi, in_litestar, in_quart])
@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
async def test_where_only_a_failing_send_tells_of_a_hang_up_the_next_comment_does(
    moment: tuple[dict[str, float], bytes], make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "uvicorn.error")  # it knows of no such send, and logs what comes of it
    emulator = Emulator(**moment[0])
    async with (
        serve(emulator) as running,
        client_at(running.base_url) as client,
        by_uvicorn(told_by_send(make(client, keep_alive=0.2))) as url,
    ):
        sock = await ask(url)
        await received(sock, moment[1])
        await wait_for(lambda: emulator.open_streams == 1, "the request upstream")
        reset(sock)
        await closes_within_a_second(lambda: emulator.open_streams == 0)
