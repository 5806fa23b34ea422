"""No token is anywhere it could be seen by accident, however it was given and whatever happens.

Looked at is what people print, log, pickle and send to error trackers: representations, attributes, errors with all
that led to them, the variables of our own frames in their tracebacks, and every record of every logger.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

import chatapi_async
from chatapi_async import (
    APIConnectionError,
    APITimeoutError,
    AsyncChatClient,
    AuthenticationError,
    ChatAPIError,
    ChatStream,
    ConfigurationError,
    EmptyStreamError,
    EventTooLargeError,
    InternalServerError,
    RateLimitError,
    ServerStreamError,
    StreamClosedError,
    StreamDecodeError,
    StreamTruncatedError,
    Timeouts,
    UnexpectedContentTypeError,
)
from tests.raw_server import DONE, HOLD, RESET, AnyStep, RawServer, body, chunk, client_of, event, stream

TOKEN = "hush-7c1e"
HEADER = f"Bearer {TOKEN}"
OUR_FILES = Path(chatapi_async.__file__).parent
ANSWER = stream(chunk("Hi", "stop"), DONE)


async def fetch_token() -> str:
    return TOKEN


# What the client, and what the call is given.
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "token": ({"token": TOKEN}, {}),
    "function": ({"token": lambda: TOKEN}, {}),
    "async function": ({"token": fetch_token}, {}),
    "authorization": ({"token": None, "authorization": HEADER}, {}),
    "authorization of a call": ({"token": None}, {"authorization": HEADER}),
    "extra_headers": ({"token": None}, {"extra_headers": {"Authorization": HEADER}}),
}


async def no_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"this is no TLS\r\n")
    writer.close()


async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


@dataclass(frozen=True)
class Situation:
    """What the server does, what else is given, and the error that comes of it."""

    error: type[Exception]
    answer: tuple[AnyStep, ...] = (HOLD,)
    options: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    scheme: str = "http"
    peer: Callable[..., Any] | None = None
    """What serves each connection instead of the scripted server."""
    refused: bool = False
    full: bool = False
    """The one connection that the HTTP client may have is taken."""


def _limits(**limits: float) -> dict[str, Any]:
    return {"timeout": Timeouts(**limits), "retries": 0}


PAGE = "<html><p>Sorry</p></html>"
SITUATIONS: dict[str, Situation] = {
    "refused": Situation(APIConnectionError, refused=True),
    "TLS fails": Situation(APIConnectionError, scheme="https", peer=no_tls),
    "lost while sending": Situation(APIConnectionError, peer=breaks_off, call={"user": "u" * 3_000_000}),
    "lost before the response": Situation(APIConnectionError, (RESET,)),
    "no HTTP": Situation(APIConnectionError, (b"SSH-2.0\r\n\r\n", HOLD)),
    "connect timeout": Situation(APITimeoutError, scheme="https", options=_limits(connect=0.03)),
    "pool timeout": Situation(APITimeoutError, stream(chunk("Hi"), HOLD), _limits(pool=0.03), full=True),
    "first chunk timeout": Situation(APITimeoutError, (HOLD,), _limits(first_chunk=0.03)),
    "idle timeout": Situation(APITimeoutError, stream(chunk("Hi"), HOLD), _limits(idle=0.03)),
    "total timeout": Situation(APITimeoutError, stream(chunk("Hi"), HOLD), _limits(total=0.03)),
    "401 of JSON": Situation(AuthenticationError, body('{"message": "no"}', 401)),
    "401 of HTML": Situation(AuthenticationError, body(PAGE, 401, "text/html")),
    "429": Situation(RateLimitError, body('{"message": "slow down"}', 429)),
    "500 of JSON": Situation(InternalServerError, body('{"message": "oh"}', 500)),
    "500 of HTML": Situation(InternalServerError, body(PAGE, 500, "text/html")),
    "error event": Situation(ServerStreamError, stream(chunk("Hi"), event({"message": "no"}, "error"))),
    "401 as a stream": Situation(ServerStreamError, stream(event({"code": 401, "message": "no"}, "error"))),
    "truncated": Situation(StreamTruncatedError, stream(chunk("Hi"), RESET)),
    "no JSON": Situation(StreamDecodeError, stream(event("{"))),
    "no chunk": Situation(StreamDecodeError, stream(event({"choices": [{"index": "x"}]}))),
    "no JSON body": Situation(StreamDecodeError, body("{")),
    "a page": Situation(UnexpectedContentTypeError, body(PAGE, 200, "text/html")),
    "nothing": Situation(EmptyStreamError, stream(DONE)),
    "too large": Situation(EventTooLargeError, stream(chunk("x" * 200)), {"max_event_bytes": 100}),
    "bad request": Situation(ConfigurationError, call={"n": 11}),
    "bad header": Situation(ConfigurationError, call={"operator_id": "tn_1\n"}),
    "address too long": Situation(ConfigurationError, scheme="http", call={"chatroom_id": "x" * 70_000}),
}


@dataclass
class Scene:
    """What there is to look at when it has happened."""

    client: AsyncChatClient
    stream: ChatStream[Any] | None = None
    error: BaseException | None = None


@asynccontextmanager
async def played(situation: Situation, way: str, server: RawServer) -> AsyncIterator[Scene]:
    """Let it happen, and close everything afterwards."""
    of_client, of_call = WAYS[way]
    server.answer(*situation.answer)
    async with AsyncExitStack() as stack:
        port = server.port
        if situation.peer is not None:
            listener = await stack.enter_async_context(await asyncio.start_server(situation.peer, "127.0.0.1", 0))
            port = listener.sockets[0].getsockname()[1]
        if situation.refused:
            with socket.create_server(("127.0.0.1", 0)) as sock:
                port = sock.getsockname()[1]
        options: dict[str, Any] = {"base_url": f"{situation.scheme}://127.0.0.1:{port}", **situation.options}
        if situation.full:
            limits = httpx.Limits(max_connections=1)
            options["http_client"] = await stack.enter_async_context(httpx.AsyncClient(limits=limits))
        client = await stack.enter_async_context(client_of(server, **options | of_client))
        scene = Scene(client)
        if situation.full:
            await stack.enter_async_context(client.chat_completion("Hi", **of_call))
        try:
            scene.stream = _begin(client, **situation.call | of_call)
            await scene.stream.until_done()
        except BaseException as error:
            scene.error = error
        yield scene


def _begin(client: AsyncChatClient, *, chatroom_id: str = "ch_1", **given: Any) -> ChatStream[Any]:
    return client.chat_completion_on_chatroom(chatroom_id, "Hi", **given)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def attributes(thing: object) -> dict[str, Any]:
    """The values of an object's own attributes and slots."""
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(thing, name) for name in slots if hasattr(thing, name)} | getattr(thing, "__dict__", {})


def looks_of(name: str, thing: object, depth: int = 2) -> Iterator[tuple[str, str]]:
    """What an object shows of itself, and its attributes of themselves, two levels deep."""
    yield name, f"{thing!r} {thing!s} {thing:}"
    if isinstance(thing, BaseModel):
        yield f"{name}.model_dump", f"{thing.model_dump()} {thing.model_dump_json()}"
    if depth:
        for key, value in attributes(thing).items():
            yield from looks_of(f"{name}.{key}", value, depth - 1)


def chain_of(error: BaseException | None) -> list[BaseException]:
    """The error, and all that led to it."""
    found: list[BaseException] = []
    left = [error]
    while left:
        if (each := left.pop()) is not None and each not in found:
            found.append(each)
            left += [each.__cause__, None if each.__suppress_context__ else each.__context__]
    return found


def looks_of_error(error: BaseException | None) -> Iterator[tuple[str, str]]:
    for each in chain_of(error):
        yield from looks_of(type(each).__name__, each)
        yield f"{type(each).__name__}.args", repr(each.args)
        yield f"traceback of {type(each).__name__}", "".join(traceback.format_exception(each))


def looks_of_frames(error: BaseException | None) -> Iterator[tuple[str, str]]:
    """The variables of our own frames in the tracebacks of the error and all that led to it."""
    for each in chain_of(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if (file := Path(frame.f_code.co_filename)).is_relative_to(OUR_FILES):
                for name, value in frame.f_locals.items():
                    yield f"{file.name}, {frame.f_code.co_name}, {name}", repr(value)


def looks_of_log(records: list[logging.LogRecord]) -> Iterator[tuple[str, str]]:
    for record in records:
        yield f"log of {record.name}", f"{logging.Formatter().format(record)} {vars(record)}"


def places(looks: Iterator[tuple[str, str]], secret: str = TOKEN) -> list[str]:
    """Where the secret is seen."""
    return sorted({place for place, text in looks if secret in text})


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Every record of every logger."""
    caplog.set_level(1)
    return caplog


# ── every failure ────────────────────────────────────────────────────────────────────────────────────────────────────

every_failure = pytest.mark.parametrize("situation", SITUATIONS)
every_way = pytest.mark.parametrize("way", WAYS)
some_ways = pytest.mark.parametrize("way", ["async function", "authorization of a call", "extra_headers"])


@every_failure
@some_ways
async def test_no_failure_shows_the_token(
    situation: str, way: str, server: RawServer, log: pytest.LogCaptureFixture
) -> None:
    async with played(SITUATIONS[situation], way, server) as scene:
        assert type(scene.error) is SITUATIONS[situation].error
        assert places(looks_of_error(scene.error)) == []
        assert places(looks_of("client", scene.client)) == []
        assert places(looks_of("stream", scene.stream)) == []
    assert places(looks_of_log(log.records)) == []


# A call that is refused is refused in the frame that was given the token, by one that holds it as well.
@pytest.mark.parametrize("situation", [name for name in SITUATIONS if SITUATIONS[name].error is not ConfigurationError])
@some_ways
async def test_no_variable_of_ours_in_a_traceback_holds_the_token(situation: str, way: str, server: RawServer) -> None:
    async with played(SITUATIONS[situation], way, server) as scene:
        assert places(looks_of_frames(scene.error)) == []


@every_failure
async def test_an_error_is_copied_and_crosses_to_another_process_whole_and_without_the_token(
    situation: str, server: RawServer
) -> None:
    async with played(SITUATIONS[situation], "extra_headers", server) as scene:
        pickled = pickle.dumps(scene.error)
        assert TOKEN.encode() not in pickled
        for twin in (pickle.loads(pickled), copy.copy(scene.error), copy.deepcopy(scene.error)):  # noqa: S301
            assert type(twin) is type(scene.error)
            assert (str(twin), vars(twin)) == (str(scene.error), vars(scene.error))


@some_ways
@pytest.mark.parametrize("situation", ["refused", "401 of JSON", "truncated", "first chunk timeout"])
async def test_debug_mode_of_asyncio_shows_no_token(
    situation: str, way: str, server: RawServer, log: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    async with played(SITUATIONS[situation], way, server):
        pass
    assert any(record.name == "asyncio" and "took" in record.getMessage() for record in log.records)
    assert places(looks_of_log(log.records)) == []


async def test_a_failure_that_nobody_retrieves_is_logged_without_the_token(
    server: RawServer, log: pytest.LogCaptureFixture
) -> None:
    server.answer(*body("", 401))
    async with client_of(server, token=TOKEN) as client:
        task = asyncio.create_task(client.chat_completion("Hi").until_done())
        await asyncio.wait([task])
        del task
    assert any("never retrieved" in record.getMessage() for record in log.records)
    assert places(looks_of_log(log.records)) == []


# ── on the way ───────────────────────────────────────────────────────────────────────────────────────────────────────


@every_way
async def test_nothing_shows_the_token_from_the_making_of_a_client_to_the_end_of_a_stream(
    way: str, server: RawServer, log: pytest.LogCaptureFixture
) -> None:
    of_client, of_call = WAYS[way]
    gate = server.gate()
    server.answer(*stream(chunk("Hi"), gate, chunk("!", "stop"), DONE))
    async with client_of(server, **of_client) as client:
        stream_ = client.chatroom("ch_1").chat_completion("Hi", **of_call)
        things = {"client": client, "room": client.chatroom("ch_1"), "stream": stream_}
        for step in (lambda: stream_, lambda: anext(stream_), stream_.get_final_completion):
            for name, thing in things.items():
                assert places(looks_of(name, thing)) == []
            things["result"] = await step()  # type: ignore[operator]
            gate.open()
        things |= {"headers": stream_.headers, "snapshot": stream_.snapshot, "stats": stream_.stats}
        for name, thing in things.items():
            assert places(looks_of(name, thing)) == []
    assert server.requests[0].header("authorization") == HEADER
    assert places(looks_of_log(log.records)) == []


@some_ways
@pytest.mark.parametrize("kind", ["client", "room", "stream"])
def test_what_holds_credentials_and_connections_refuses_to_be_pickled(kind: str, way: str, server: RawServer) -> None:
    of_client, of_call = WAYS[way]
    client = client_of(server, **of_client)
    things = {"client": client, "room": client.chatroom("ch_1"), "stream": client.chat_completion("Hi", **of_call)}
    with pytest.raises(TypeError, match="pickle") as caught:
        pickle.dumps(things[kind])
    assert type(things[kind]).__name__ in str(caught.value)


# ── tokens that are none ─────────────────────────────────────────────────────────────────────────────────────────────

BAD_TOKENS = [f"{TOKEN}\n", f"{TOKEN}é", f"Bearer {TOKEN}", TOKEN.encode(), [TOKEN]]


@pytest.mark.parametrize("token", BAD_TOKENS)
@pytest.mark.parametrize("kind", ["value", "async function"])
async def test_a_token_that_cannot_be_sent_is_in_no_traceback(kind: str, token: Any, server: RawServer) -> None:
    async def fetch() -> Any:
        return token

    given = {"value": token, "function": lambda: token, "async function": fetch}[kind]
    with pytest.raises(ConfigurationError) as caught:
        await client_of(server, token=given).chat_completion("Hi")
    assert places(looks_of_error(caught.value)) == []


@pytest.mark.parametrize("name", ["authorization", "extra_headers"])
async def test_a_header_of_a_call_that_cannot_be_sent_is_in_no_traceback(name: str, server: RawServer) -> None:
    value = f"{HEADER}\n"
    given: Any = {name: value if name == "authorization" else {"Authorization": value}}
    with pytest.raises(ConfigurationError) as caught:
        client_of(server).chat_completion("Hi", **given)
    assert places(looks_of_error(caught.value)) == []


@pytest.mark.parametrize("given", [{"token": TOKEN}, {"api_key": TOKEN}, {"headers": {"Authorization": HEADER}}])
def test_a_token_given_by_a_name_that_does_not_exist_is_not_shown(given: Any, server: RawServer) -> None:
    with pytest.raises(ConfigurationError) as caught:
        client_of(server).chat_completion("Hi", **given)
    assert next(iter(given)) in str(caught.value)
    assert places(looks_of_error(caught.value)) == []


async def test_a_token_function_that_fails_after_a_401_shows_nothing_of_the_token_before(
    server: RawServer, log: pytest.LogCaptureFixture
) -> None:
    tokens = iter([TOKEN])
    server.answer(*body("", 401))
    async with client_of(server, token=tokens.__next__) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(Exception) as caught:
            await stream_.until_done()
        with pytest.raises(StreamClosedError) as again:
            await stream_.until_done()
    for error in (caught.value, again.value):
        assert places(looks_of_error(error)) == []
        assert places(looks_of_frames(error)) == []
    assert places(looks_of_log(log.records)) == []


# ── servers that repeat the token ────────────────────────────────────────────────────────────────────────────────────

ERROR = {"message": f"bad token {HEADER}", "code": TOKEN, "type": TOKEN}
LONG_PAGE = f"<html><p>{'x' * 192} {TOKEN}"
ECHOES: dict[str, tuple[AnyStep, ...]] = {
    "a JSON error": body(f'{{"message": "bad {HEADER}", "code": "{TOKEN}"}}', 401),
    "an error page": body(f"<html><p>bad {HEADER}", 403, "text/html"),
    "a header of an error": body("{}", 401, x_you_sent=HEADER, x_request_id=f"for-{TOKEN}"),
    "where it redirects to": body("", 307, location=f"/?token={TOKEN}"),
    "an error event": stream(event({"error": ERROR}, "error")),
    "an error event of text": stream(event(f"bad {HEADER}", "error")),
    "an error object": stream(event({"error": ERROR})),
    "an event that is no JSON": stream(event(f"{{{HEADER}")),
    "an event that is no chunk": stream(event({"choices": [{"index": HEADER}]})),
    "a name in an error": stream(event({"message": "no", TOKEN: {HEADER: 1}}, "error")),
    "a page": body(f"<html><p>bad {HEADER}", 200, "text/html"),
    "a long page that is cut off in it": body(f"{'x ' * (32 * 1024 - 4)}{TOKEN}", 200, "text/html"),
    "a page in which it is cut off": body(LONG_PAGE, 200, "text/html"),
    "a body that is no stream": stream(f"bad {HEADER}".encode()),
}
every_echo = pytest.mark.parametrize("echo", ECHOES)


@every_echo
@some_ways
async def test_a_token_that_the_server_repeats_is_in_no_message_and_not_in_our_log(
    echo: str, way: str, server: RawServer, log: pytest.LogCaptureFixture
) -> None:
    async with played(Situation(ChatAPIError, ECHOES[echo]), way, server) as scene:
        error = scene.error
        assert isinstance(error, ChatAPIError)
        shown = f"{error} {error!r} {''.join(traceback.format_exception(error))} {scene.stream!r}"
        assert TOKEN[:6] not in shown
    # What httpcore logs at its debug level is not ours to change.
    assert places(looks_of_log([record for record in log.records if record.name == "chatapi_async"])) == []


@every_echo
@some_ways
async def test_a_token_that_the_server_repeats_is_in_no_attribute_of_the_error(
    echo: str, way: str, server: RawServer
) -> None:
    async with played(Situation(ChatAPIError, ECHOES[echo]), way, server) as scene:
        assert places(looks_of_error(scene.error)) == []
        assert TOKEN.encode() not in pickle.dumps(scene.error)


LONG_TOKEN = "hush-7c1e+0123456789"


@pytest.mark.parametrize(
    ("token", "said", "shown"),
    [
        ("t", "that is not t, but Bearer t", "that is not [token], but Bearer [token]"),
        ("test", "the latest test", "the latest [token]"),
        ("a.b+c", "a.b+c aab+c", "[token] aab+c"),
        ("s3cret", "no s3cret: s3cr…", "no [token]: [token]…"),
        ("s3cret", "no s3…", "no s3…"),
        (LONG_TOKEN, f"auth=Bearer%20{LONG_TOKEN}", "auth=Bearer%20[token]"),
        (LONG_TOKEN, "said\\nhush-7c1e+0123456789", "said\\n[token]"),
        (LONG_TOKEN, "said hush-7c1e%2B0123456789", "said [token]"),
    ],
)
async def test_a_token_is_replaced_where_it_is_a_word_of_its_own(
    token: str, said: str, shown: str, server: RawServer
) -> None:
    server.answer(*stream(event({"message": said}, "error")))
    async with client_of(server, token=token) as client:
        with pytest.raises(ServerStreamError) as caught:
            await client.chat_completion("Hi").until_done()
    assert caught.value.payload == {"message": shown}


@pytest.mark.heavy
async def test_taking_a_token_out_takes_no_more_time_than_reading_what_it_is_in(server: RawServer) -> None:
    server.answer(*stream(event({"errors": ["a…"] * 100_000}, "error")))
    async with client_of(server, token="ey" + "aB3-" * 225) as client:
        stream_ = client.chat_completion("Hi")
        with pytest.raises(ServerStreamError):
            await stream_.until_done()
    assert stream_.stats.duration < 5


async def test_an_error_nested_without_end_can_be_read(server: RawServer) -> None:
    server.answer(*stream(event('{"error": ' + "[" * 900 + '"x"' + "]" * 900 + "}", "error")))
    async with client_of(server, token=TOKEN) as client:
        with pytest.raises(ServerStreamError):
            await client.chat_completion("Hi").until_done()
