"""``chatapi doctor`` against servers that are broken in each way, on real sockets: what it sees and says."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme

from chatapi_async.__main__ import main
from chatapi_async._doctor import Finding, Limits, Settings, examine, needs_mending, verdict
from chatapi_async._doctor._findings import STEPS
from chatapi_async._http import ssl_context
from chatapi_async.emulator import Emulator, RunningEmulator, serve_in_thread
from tests.raw_server import (
    CLOSE,
    DONE,
    HOLD,
    RESET,
    WAIT_SECONDS,
    AnyStep,
    RawServer,
    body,
    chunk,
    event,
    head,
    stream,
    wait_for,
)

TOKEN = "s3cret-t0ken-of-the-test"
PASSWORD = "pa55w0rd"
QUICK = Limits(lookup=0.2, connection=5, tls=5, first_token=5, idle=5, request=5)
NO_TLS = Limits(tls=0.1)
"""For a server that does not speak TLS, and waits for more when it is spoken to."""
ANSWER = stream(chunk("One"), chunk(" two"), chunk("", "stop"), DONE)
TEXT_OF_A_MOMENT = 0.35


async def examined(base_url: str, *, limits: Limits = QUICK, **values: str) -> dict[str, Finding]:
    """Examine a server, and return the finding of each step; those who look on see to what holds for all of them."""
    found: list[Finding] = []
    await examine(settings_for(base_url, **values), found.append, limits=limits)
    return checked(found)


def settings_for(base_url: str, *, token: str = TOKEN, operator: str = "tn_1", **options: str) -> Settings:
    environment = {"CHATAPI_BASE_URL": base_url, "CHATAPI_OPERATOR_ID": operator, "CHATAPI_TOKEN": token}
    return Settings.of(environment, **options)


def checked(found: list[Finding]) -> dict[str, Finding]:
    steps = [finding.step for finding in found]
    assert steps == [step for step in STEPS if step in steps], "each step once, in their order"
    assert set(STEPS) - set(steps) <= {"chatroom"}
    shown = f"{found} {verdict(found)}"
    assert TOKEN not in shown
    assert PASSWORD not in shown
    for finding in found:
        assert finding.words
        assert not finding.words.endswith(".")
        assert bool(finding.advice) == (finding.mark in ("fail", "note")), finding
    return {finding.step: finding for finding in found}


def failure(findings: dict[str, Finding]) -> Finding:
    """The one failure, after which nothing is tried, and which the verdict is about."""
    (failed,) = (finding for finding in findings.values() if finding.mark == "fail")
    steps = list(findings)
    after = [findings[step] for step in steps[steps.index(failed.step) + 1 :]]
    assert all(finding.mark == "not tried" and failed.step in finding.words for finding in after)
    assert verdict(list(findings.values())) == f"Do first: {failed.advice}"
    assert needs_mending(list(findings.values())) == "server"
    return failed


# ── a server that works ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def emulator() -> Iterator[RunningEmulator]:
    with serve_in_thread(Emulator(tokens_per_second=None, chatrooms=["ch_known"], token=TOKEN)) as running:
        yield running


async def test_a_server_that_works_is_well_at_every_step(server: RawServer) -> None:
    server.answer(*ANSWER)
    findings = await examined(server.url)
    assert {step: finding.mark for step, finding in findings.items() if finding.mark != "ok"} == {"TLS": "not needed"}
    assert verdict(list(findings.values())) == "All is well."
    assert findings["stream"].words == "whole: 3 chunks, finish reason stop, [DONE], no usage"
    assert "the same connection" in findings["reuse"].words
    assert all(findings[step].seconds is not None for step in ("connection", "answer", "first token", "stream"))
    assert server.connections == 2  # one to look, one to ask


async def test_it_costs_two_small_requests_and_stores_nothing(server: RawServer) -> None:
    server.answer(*ANSWER)
    await examined(server.url, model="small")
    assert [request.target for request in server.requests] == ["/v1/llms/chat/completions"] * 2
    assert [request.json["max_completion_tokens"] for request in server.requests] == [64, 16]
    assert [request.json["model"] for request in server.requests] == ["small"] * 2


async def test_the_second_request_goes_to_the_chatroom_if_there_is_one(server: RawServer) -> None:
    server.answer(*ANSWER)
    findings = await examined(server.url, room="ch 1")
    paths = ["/v1/llms/chat/completions", "/v1/llms/chatrooms/ch%201/chat/completions"]
    assert [request.target for request in server.requests] == paths
    assert "stored" in findings["chatroom"].words
    assert findings["reuse"].mark == "ok"


def test_it_runs_on_trio_too(server: RawServer) -> None:
    server.answer(*ANSWER)
    findings = anyio.run(partial(examined, server.url), backend="trio")
    assert verdict(list(findings.values())) == "All is well."


async def test_it_says_how_many_tokens_were_used(emulator: RunningEmulator) -> None:
    findings = await examined(emulator.base_url)
    assert findings["stream"].words.endswith("tokens")


# ── answers that are none of the model's ─────────────────────────────────────────────────────────────────────────────

AUTHORIZATION = f"Bearer {TOKEN}"
HTML = "<html><head><title>Welcome</title></head><body><h1>Please log in</h1></body></html>"

REFUSALS: dict[str, tuple[tuple[AnyStep, ...], str, str, str]] = {
    "401": (body(json.dumps({"message": f"bad {AUTHORIZATION}"}), 401), "request", "the token is not", "fresh access"),
    "402": (body('{"message": "no credits left"}', 402), "request", "credits.*no credits left", "Add credits"),
    "403": (body('{"message": "not yours"}', 403), "request", "operator may not.*not yours", "belong together"),
    "operator": (body('{"message": "unknown operator"}', 400), "request", "operator id is not", "CHATAPI_OPERATOR_ID"),
    "model": (body('{"message": "no", "code": "unsupported_model"}', 400), "request", "the model is not", "--model"),
    "400": (body('{"message": "n is too large"}', 400), "request", "refuses.*n is too large", "Do as it says"),
    "422": (body('{"message": "n is too large"}', 422), "request", "refuses.*n is too large", "Do as it says"),
    "418": (body("", 418), "request", "refuses.*HTTP 418, without a word", "show this line"),
    "429": (body('{"message": "slow down"}', 429, retry_after="30"), "request", "too many", "Come back in 30 s"),
    "429, no word of when": (body("{}", 429), "request", "too many", "Wait a minute"),
    "404": (body('{"message": "no such path"}', 404), "answer", "no such service", "BASE_URL/v1/llms"),
    "405": (body("", 405), "answer", "no such service", "BASE_URL/v1/llms"),
    "500": (body('{"message": "oh"}', 500, x_request_id="req_7"), "answer", "server failed.*oh", "its id req_7"),
    "502": (body('{"message": "masked"}', 502), "answer", "provider behind", "another --model"),
    "503": (body("", 503), "answer", "not available", "Try again in a minute"),
    "503, back later": (body("", 503, retry_after="7200"), "answer", "not available", "Come back in 2 hours"),
    "504": (body("", 504), "answer", "a proxy gave up", "Try again"),
    "407": (body("", 407), "answer", "proxy wants a login", "USER:PASSWORD@HOST"),
    "a web page": (body(HTML, 404, "text/html"), "answer", "a web page answers.*log in", "host and path"),
    "a page of 200": (body(HTML, 200, "text/html"), "answer", "text/html.*log in", "host and path"),
    "nothing": (body("", 200, ""), "answer", 'no Content-Type, "empty"', "host and path"),
    "moved to itself": (body("", 301, location="/v1/llms/chat/completions/"), "answer", "redirect", "why it redirects"),
    "moved": (
        body("", 301, location="https://api.example.com/ai/v1/llms/chat/completions?x=1"),
        "answer",
        "redirects, HTTP 301, to https://api.example.com/ai/v1",
        "Set the base URL to https://api.example.com/ai$",
    ),
    "a login": (body("", 302, location="/login"), "answer", "redirects, HTTP 302, to /login", "perhaps a login"),
    "moved nowhere": (body("", 302), "answer", "does not say where to", "Check the base URL"),
    "moved to nonsense": (body("", 302, location="http://[::1"), "answer", "location header", "is the service's"),
    "hangs up": ((CLOSE,), "answer", "lost before", "is the service's"),
    "reset": ((RESET,), "answer", "lost before", "is the service's"),
    "no HTTP": ((b"SSH-2.0-OpenSSH_9\r\n\r\n", CLOSE), "answer", "lost before", "is the service's"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_says_what_is_wrong_and_what_to_do(name: str, server: RawServer) -> None:
    answer, step, words, advice = REFUSALS[name]
    server.answer(*answer)
    findings = await examined(server.url, limits=NO_TLS)
    failed = failure(findings)
    assert failed.step == step
    assert_matches(words, failed.words)
    assert_matches(advice, failed.advice)
    assert len(server.requests) == 1, "what was refused is not asked again"
    assert findings["answer"].mark == ("ok" if step == "request" else "fail")
    assert findings["answer"].seconds is not None


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"


async def test_a_token_that_the_server_repeats_is_not_shown(server: RawServer) -> None:
    server.answer(*body(json.dumps({"message": f"bad {AUTHORIZATION}"}), 401))
    assert "[token]" in failure(await examined(server.url)).words


async def test_a_server_that_never_answers_is_given_up(server: RawServer) -> None:
    server.answer(HOLD)
    failed = failure(await examined(server.url, limits=Limits(first_token=0.2)))
    assert failed.step == "answer"
    assert "nothing came back within 0.2 s" in failed.words
    assert "port in the base URL" in failed.advice
    assert failed.seconds is not None
    assert failed.seconds >= 0.2


# ── answers that break ───────────────────────────────────────────────────────────────────────────────────────────────

BREAKS: dict[str, tuple[tuple[AnyStep, ...], str, str, str]] = {
    "cut off": (stream(chunk("One"), chunk(" two")), "stream", "broke off after 2 chunks", "time limits"),
    "not what it is compressed by": (
        stream(b"no gzip", content_encoding="gzip"),
        "first token",
        "broke off before the first chunk: the connection broke .*decompressing",
        "proxy",
    ),
    "compressed in another way": (
        stream(chunk("One"), content_encoding="br"),
        "first token",
        "compressed its answer by 'br'",
        "Turn it off in the proxy",
    ),
    "cut off at once": (stream(), "first token", "broke off before the first chunk", "time limits"),
    "reset": (stream(chunk("One"), RESET), "stream", "broke off after 1 chunk", "time limits"),
    "only [DONE]": (stream(DONE), "first token", "without an answer", "known fault"),
    "an error": (
        stream(chunk("One"), event({"message": "overloaded", "code": 7}, "error")),
        "stream",
        'an error in the stream after 1 chunk.*"overloaded" .code 7.',
        "another --model",
    ),
    "an error that is a 401": (
        stream(event({"error": {"message": f"{TOKEN} expired", "code": 401}}, "error")),
        "first token",
        r"\[token\] expired",
        "fresh access token",
    ),
    "no chunk": (
        stream(event("{nonsense")),
        "first token",
        "what came before the first chunk cannot be read: '{nonsense'",
        "to no other API",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_an_answer_that_breaks_says_where_and_what_to_do(name: str, server: RawServer) -> None:
    answer, step, words, advice = BREAKS[name]
    server.answer(*answer)
    findings = await examined(server.url)
    failed = failure(findings)
    assert failed.step == step
    assert_matches(words, failed.words)
    assert_matches(advice, failed.advice)
    assert (findings["answer"].mark, findings["request"].mark) == ("ok", "ok")


@pytest.mark.parametrize(
    ("answer", "limits", "step", "words"),
    [
        (stream(HOLD), Limits(first_token=0.2), "first token", "no token came within 0.2 s"),
        (stream(chunk("One"), HOLD), Limits(idle=0.2), "stream", "silent after 1 chunk.*nothing new for 0.2 s"),
        (stream(chunk("One"), HOLD), Limits(request=0.2), "stream", "not finished within 0.2 s"),
    ],
)
async def test_an_answer_that_falls_silent_is_given_up(
    answer: tuple[AnyStep, ...], limits: Limits, step: str, words: str, server: RawServer
) -> None:
    server.answer(*answer)
    failed = failure(await examined(server.url, limits=limits))
    assert failed.step == step
    assert_matches(words, failed.words)
    await server.hung_up()


# ── answers that are whole, and could be better ──────────────────────────────────────────────────────────────────────


async def test_an_answer_that_comes_at_once_after_a_silence_is_suspected_to_be_held_back(server: RawServer) -> None:
    gate = server.gate()
    pieces = [chunk(text) for text in ["One", "two", "three", "four", "five", "six"]]
    server.answer(
        head(200, {"content-type": "text/event-stream"}), gate, b"".join([*pieces, chunk("", "stop"), DONE]), CLOSE
    )
    timer = threading.Timer(TEXT_OF_A_MOMENT, gate.open)
    timer.start()
    findings = await examined(server.url)
    timer.join()
    assert findings["stream"].mark == "note"
    assert_matches("nothing came for 0.[34].* s, and then all of it within", findings["stream"].words)
    assert "proxy_buffering off" in findings["stream"].advice
    assert needs_mending(list(findings.values())) == "nothing"
    assert "note" in verdict(list(findings.values()))


async def test_a_stream_whose_length_is_known_beforehand_was_held_back(server: RawServer) -> None:
    whole = b"".join([*(chunk(text) for text in "abcde"), chunk("", "stop"), DONE])
    server.answer(*body(whole, content_type="text/event-stream"))
    finding = (await examined(server.url))["stream"]
    assert finding.mark == "note"
    assert "says beforehand how long it is" in finding.words


async def test_an_answer_that_is_fast_is_not_suspected(emulator: RunningEmulator) -> None:
    assert (await examined(emulator.base_url))["stream"].mark == "ok"


async def test_an_answer_that_is_no_stream_is_said_to_be_none(server: RawServer) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "One"}, "finish_reason": "stop"}
    server.answer(*body(json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]})))
    findings = await examined(server.url)
    assert findings["stream"].mark == "note"
    assert "one JSON body" in findings["stream"].words
    assert "[DONE]" not in findings["stream"].words


@pytest.mark.parametrize(("reason", "advice"), [("length", "thinks before it speaks"), ("stop", "Try again")])
async def test_an_answer_without_text_is_a_note(reason: str, advice: str, server: RawServer) -> None:
    server.answer(*stream(chunk(""), chunk("", reason), DONE))
    findings = await examined(server.url)
    assert findings["first token"].mark == "note"
    assert findings["first token"].words == "no text came: 2 chunks without any"
    assert advice in findings["first token"].advice
    assert findings["stream"].mark == "ok"


async def test_an_answer_without_done_says_so(server: RawServer) -> None:
    server.answer(*stream(chunk("One", "stop")))
    assert "1 chunk, finish reason stop, no [DONE]" in (await examined(server.url))["stream"].words


async def test_of_a_compressed_stream_it_does_not_claim_to_have_seen_the_end(emulator: RunningEmulator) -> None:
    finding = (await examined(emulator.base_url, model="fault/compressed"))["stream"]
    assert finding.words.startswith("whole: ")
    assert "[DONE]" not in finding.words


# ── the second request ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_server_that_closes_each_connection_makes_every_request_pay_for_a_new_one(server: RawServer) -> None:
    server.answer(*stream(chunk("One", "stop"), DONE, connection="close"), CLOSE)
    findings = await examined(server.url)
    assert findings["reuse"].mark == "note"
    assert_matches("closes the connection.* spent [0-9.]+ ms on a new one", findings["reuse"].words)
    assert "keep-alive" in findings["reuse"].advice
    assert needs_mending(list(findings.values())) == "nothing"
    assert server.connections == 3


async def test_a_connection_that_is_lost_without_a_word_is_not_said_to_be_closed_by_the_server(
    server: RawServer,
) -> None:
    server.answer(head(200, {"content-type": "text/event-stream"}), chunk("One", "stop"), DONE, CLOSE)
    assert "the connection was not used again" in (await examined(server.url))["reuse"].words


@pytest.mark.parametrize(
    ("answer", "words", "advice"),
    [
        (body('{"message": "unknown"}', 404), "no such chatroom", "--room"),
        (body('{"message": "no"}', 403), "the operator may not", "may use the chatroom"),
        (body("", 500), "the server failed", "Try again"),
        (stream(chunk("One")), "broke off after 1 chunk", "Try again"),
        ((CLOSE,), "lost before", "is the service's"),
    ],
    ids=["404", "403", "500", "cut off", "hangs up"],
)
async def test_a_chatroom_that_refuses_is_the_chatrooms_failure(
    answer: tuple[AnyStep, ...], words: str, advice: str, server: RawServer
) -> None:
    server.answer(*ANSWER)
    server.answer(*answer)
    findings = await examined(server.url, room="ch_1")
    assert findings["stream"].mark == "ok"
    assert findings["chatroom"].mark == "fail"
    assert findings["reuse"].mark == ("not tried" if answer == (CLOSE,) else "ok")
    assert server.connections == 2  # no other is made to see whether the port speaks TLS, since it has answered
    assert_matches(words, findings["chatroom"].words)
    assert_matches(advice, findings["chatroom"].advice)


async def test_a_second_request_that_fails_is_a_failure(server: RawServer) -> None:
    server.answer(*ANSWER)
    server.answer(*body('{"message": "slow down"}', 429, retry_after="5"))
    failed = failure(await examined(server.url))
    assert failed.step == "reuse"
    assert "the second request failed: too many requests" in failed.words
    assert "5 s" in failed.advice


# ── name and connection ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    failed = failure(await examined("https://api.invalid"))
    assert failed.step == "name lookup"
    assert "no machine of the name api.invalid (Name or service not known)" in failed.words
    assert "spelling" in failed.advice


async def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
    failed = failure(await examined("https://api.invalid"))
    assert failed.step == "name lookup"
    assert "DNS" in failed.advice


async def test_a_name_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = failure(await examined(f"https://{'a' * 70}.invalid"))
    assert failed.step == "name lookup"


def resolve_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def getaddrinfo(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_name_server_that_never_answers_holds_up_neither_the_step_nor_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    asked: list[threading.Thread] = []

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        asked.append(threading.current_thread())
        answers.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    failed = failure(asyncio.run(examined("https://api.invalid", limits=Limits(lookup=0.05))))
    assert failed.step == "name lookup"
    assert "no name server says where api.invalid is (within 0.05 s)" in failed.words
    assert asked[0].daemon, "otherwise the process would wait for it at its end"
    answers.set()
    asked[0].join(5)
    assert not asked[0].is_alive()


async def test_a_port_at_which_nobody_listens(unused_port: int) -> None:
    failed = failure(await examined(f"http://localhost:{unused_port}"))
    assert failed.step == "connection"
    assert "refuses" in failed.words
    assert "container" in failed.advice


async def test_the_default_address_is_suspected_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_with(monkeypatch, socket.gaierror(socket.EAI_NONAME, "no"))
    found: list[Finding] = []
    environment = {"CHATAPI_OPERATOR_ID": "tn_1", "CHATAPI_TOKEN": TOKEN, "CHATAPI_URL": "https://api.example.com"}
    await examine(Settings.of(environment), found.append, limits=QUICK)
    findings = checked(found)
    assert findings["base URL"].mark == "note"
    assert "CHATAPI_URL" in findings["base URL"].words
    assert "Set CHATAPI_BASE_URL" in verdict(found)
    assert "name lookup" in verdict(found)


async def test_a_machine_that_says_nothing_is_given_up() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        # Nobody accepts: once the queue is full, the system says nothing to whoever comes.
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        port = listener.getsockname()[1]
        failed = failure(await examined(f"http://127.0.0.1:{port}", limits=Limits(connection=0.3)))
    assert failed.step == "connection"
    assert f"nobody answers at 127.0.0.1:{port} within 0.3 s" in failed.words
    assert "firewall" in failed.advice


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def listening(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port at which connections are served, over TLS if there is a context; until all have ended."""
    serving: list[asyncio.Task[None]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        await close(writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve_one(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as listener:
        yield listener.sockets[0].getsockname()[1]
        with anyio.fail_after(WAIT_SECONDS):
            await asyncio.gather(*serving)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def answer_whoever_asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        request = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in request.split(b"\r\n") if line.lower().startswith(b"content-l")
        )
        await reader.readexactly(length)
        for step in ANSWER:
            assert isinstance(step, bytes)
            writer.write(step)


async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The authority is one that ``SSL_CERT_FILE`` names."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    ssl_context.cache_clear()
    yield
    ssl_context.cache_clear()


def context_of(authority: trustme.CA, *names: str, **dates: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names, **dates).configure_cert(context)
    return context


def days(number: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=number)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("left", "mark", "words"), [(100.5, "ok", "valid for 100 days"), (3.5, "note", "valid for 3 days")]
)
async def test_a_certificate_that_is_trusted(left: float, mark: str, words: str, authority: trustme.CA) -> None:
    context = context_of(authority, "127.0.0.1", not_after=days(left))
    async with listening(answer_whoever_asks, context) as port:
        findings = await examined(f"https://127.0.0.1:{port}")
    assert findings["TLS"].mark == mark
    assert words in findings["TLS"].words
    assert "TLSv1.3" in findings["TLS"].words
    assert findings["reuse"].mark == "ok"
    assert_matches("saved [0-9.]+ ms", findings["reuse"].words)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(
    ("name", "dates", "words", "advice"),
    [
        ("127.0.0.1", {"not_before": days(-9), "not_after": days(-1)}, "has expired", "renew"),
        ("127.0.0.1", {"not_before": days(1), "not_after": days(9)}, "not valid yet", "date of this machine"),
        ("api.example.com", {}, "not for 127.0.0.1", "the name that the certificate is for"),
    ],
)
async def test_a_certificate_that_is_no_good(
    name: str, dates: dict[str, Any], words: str, advice: str, authority: trustme.CA
) -> None:
    async with listening(wait_for_the_end, context_of(authority, name, **dates)) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}"))
    assert failed.step == "TLS"
    assert words in failed.words
    assert advice in failed.advice


@pytest.mark.usefixtures("trusted")
async def test_one_server_of_several_that_shows_another_certificate(authority: trustme.CA) -> None:
    good, bad = context_of(authority, "127.0.0.1"), context_of(authority, "api.example.com")
    shown = iter([good])

    def choose(connection: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        connection.context = next(shown, bad)

    good.sni_callback = choose
    async with listening(wait_for_the_end, good) as port:
        findings = await examined(f"https://127.0.0.1:{port}")
    assert findings["TLS"].mark == "ok"
    failed = failure(findings)
    assert failed.step == "answer"
    assert "not for 127.0.0.1" in failed.words


async def test_a_certificate_of_an_unknown_issuer(authority: trustme.CA) -> None:
    async with listening(wait_for_the_end, context_of(authority, "127.0.0.1")) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}"))
    assert failed.step == "TLS"
    assert "an issuer that this machine does not know" in failed.words
    assert "SSL_CERT_FILE" in failed.advice


async def test_a_certificate_that_vouches_for_itself(authority: trustme.CA) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with authority.cert_pem.tempfile() as certificate, authority.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    async with listening(wait_for_the_end, context) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}"))
    assert "nobody but itself vouches" in failed.words


async def test_https_at_a_port_that_speaks_http(server: RawServer) -> None:
    async def answer_in_plain_text(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(answer_in_plain_text) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}"))
    assert failed.step == "TLS"
    assert "does not speak TLS" in failed.words
    assert "http://" in failed.advice


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1 << 16)


async def test_a_port_that_hangs_up_in_the_handshake() -> None:
    async with listening(hang_up) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}"))
    assert failed.step == "TLS"
    assert "hung up" in failed.words


async def test_a_port_that_says_nothing_to_a_handshake() -> None:
    async with listening(wait_for_the_end) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}", limits=Limits(tls=0.2)))
    assert failed.step == "TLS"
    assert "says nothing" in failed.words


async def refuse_every_cipher(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1 << 16)
    writer.write(b"\x15\x03\x03\x00\x02\x02\x28")  # a fatal alert, handshake_failure (RFC 5246, 7.2)


async def test_a_server_that_speaks_another_tls_than_this_machine() -> None:
    async with listening(refuse_every_cipher) as port:
        failed = failure(await examined(f"https://127.0.0.1:{port}"))
    assert failed.step == "TLS"
    assert "cannot be secured" in failed.words
    assert "HANDSHAKE_FAILURE" in failed.words


@contextmanager
def shaking_hands(context: ssl.SSLContext) -> Iterator[int]:
    """A port that speaks TLS, in a thread, and hangs up on whoever does not."""

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock, suppress(OSError), context.wrap_socket(sock, server_side=True) as secured:
                    secured.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_http_at_a_port_that_speaks_https(authority: trustme.CA) -> None:
    with shaking_hands(context_of(authority, "127.0.0.1")) as port:
        failed = failure(await examined(f"http://127.0.0.1:{port}"))
    assert failed.step == "answer"
    assert "speaks https" in failed.words
    assert "https://" in failed.advice


async def test_a_400_at_a_port_that_speaks_no_https_is_the_servers_word(server: RawServer) -> None:
    server.answer(*body('{"message": "no"}', 400))
    assert "speaks https" not in failure(await examined(server.url, limits=NO_TLS)).words


async def test_certificates_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "authority.pem").write_text("none", encoding="ascii")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    ssl_context.cache_clear()
    findings = await examined("https://127.0.0.1:1")
    assert findings["environment"].mark == "fail"
    assert "SSL_CERT_FILE" in findings["environment"].advice
    assert needs_mending(list(findings.values())) == "configuration"


# ── proxies ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["HTTP_PROXY", "all_proxy"])
async def test_with_a_proxy_the_proxy_is_looked_at_and_the_server_is_not(
    name: str, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(*ANSWER)
    monkeypatch.setenv(name, server.url.replace("//", f"//user:{PASSWORD}@"))
    findings = await examined("http://api.invalid")
    assert findings["environment"].words == f"the server is asked through the proxy {server.url}"
    assert "the proxy at 127.0.0.1" in findings["connection"].words
    assert findings["stream"].mark == "ok"
    assert "everybody on the way" in findings["base URL"].advice
    assert server.requests[0].target == "http://api.invalid/v1/llms/chat/completions"


async def test_a_host_that_no_proxy_names_is_asked_itself(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer(*ANSWER)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    findings = await examined(server.url)
    assert findings["environment"].words == "no proxy is used"
    assert findings["stream"].mark == "ok"


async def test_what_a_proxy_refuses_is_no_sign_that_the_servers_port_speaks_https(
    server: RawServer, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answer(*body('{"message": "no"}', 400))
    monkeypatch.setenv("HTTP_PROXY", server.url)
    async with listening(wait_for_the_end, context_of(authority, "127.0.0.1")) as port:
        findings = await examined(f"http://127.0.0.1:{port}")
    assert "speaks https" not in findings["request"].words


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_where_the_report_cannot_be_written_nothing_is_left_open(backend: str, server: RawServer) -> None:
    server.answer(*stream(chunk("One"), HOLD))

    def report(finding: Finding) -> None:
        if finding.step == "first token":
            raise BrokenPipeError

    async def interrupted() -> None:
        with pytest.raises(BrokenPipeError):
            await examine(settings_for(server.url), report, limits=QUICK)
        await server.all_closed()

    anyio.run(interrupted, backend=backend)


async def test_a_proxy_at_which_nobody_listens(unused_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://localhost:{unused_port}")
    failed = failure(await examined("https://api.invalid"))
    assert failed.step == "connection"
    assert f"localhost:{unused_port} refuses" in failed.words
    assert "the proxy's address in the environment" in failed.advice


async def test_a_proxy_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    resolve_with(monkeypatch, socket.gaierror(socket.EAI_NONAME, "no"))
    failed = failure(await examined("https://127.0.0.1:1"))
    assert failed.step == "name lookup"
    assert "proxy.invalid" in failed.words
    assert "the proxy's address" in failed.advice


@asynccontextmanager
async def tunnelling(port: int | None, refusal: bytes = b"") -> AsyncIterator[str]:
    """A proxy that gives every CONNECT a tunnel to one port, or refuses it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if port is None:
            writer.write(refusal)
            return
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        await close(writer)

    async with listening(serve) as own:
        yield f"http://user:{PASSWORD}@127.0.0.1:{own}"


@pytest.mark.usefixtures("trusted")
async def test_tls_through_a_proxy_is_seen_by_the_request(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(authority, "api.invalid")
    async with listening(answer_whoever_asks, context) as port, tunnelling(port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        findings = await examined("https://api.invalid")
    assert "came through the proxy is trusted" in findings["TLS"].words
    assert findings["reuse"].mark == "ok"


async def test_a_certificate_that_comes_through_a_proxy_and_is_not_trusted(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(authority, "api.invalid")
    async with listening(wait_for_the_end, context) as port, tunnelling(port) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        failed = failure(await examined("https://api.invalid"))
    assert failed.step == "TLS"
    assert "an issuer that this machine does not know" in failed.words


@pytest.mark.parametrize(
    ("refusal", "words", "advice"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407", "USER:PASSWORD@HOST"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway", "Try again"),
    ],
)
async def test_a_proxy_that_gives_no_tunnel(
    refusal: bytes, words: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tunnelling(None, refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        findings = await examined("https://api.invalid")
    failed = failure(findings)
    assert failed.step == "answer"
    assert words in failed.words
    assert advice in failed.advice
    assert findings["TLS"].words == "not seen: it lies behind the proxy"


async def test_a_proxy_that_gives_no_tunnel_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(wait_for_the_end) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        failed = failure(await examined("https://api.invalid", limits=Limits(first_token=0.2)))
    assert failed.step == "answer"
    assert "no connection for the request within 0.2 s" in failed.words


async def test_a_proxy_of_socks_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    findings = await examined("http://127.0.0.1:1")
    assert findings["environment"].mark == "fail"
    assert findings["environment"].advice.startswith("A proxy of SOCKS needs pip install 'httpx[socks]'.")


async def test_a_proxy_that_cannot_be_used_is_a_matter_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"ftp://user:{PASSWORD}@127.0.0.1")
    findings = await examined("http://127.0.0.1:1")
    assert findings["environment"].mark == "fail"
    assert "HTTP_PROXY" in findings["environment"].advice
    assert needs_mending(list(findings.values())) == "configuration"


# ── what is configured ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_token_the_server_is_reached_and_not_asked(server: RawServer) -> None:
    findings = await examined(server.url, token="")
    assert findings["credentials"].mark == "fail"
    assert findings["connection"].mark == "ok"
    assert findings["answer"].mark == "not tried"
    assert server.requests == []
    assert needs_mending(list(findings.values())) == "configuration"
    assert "Set CHATAPI_TOKEN" in verdict(list(findings.values()))


async def test_an_address_that_cannot_be_used_leaves_out_all_but_the_credentials() -> None:
    findings = await examined(f"ftp://user:{PASSWORD}@host")
    assert [step for step, finding in findings.items() if finding.mark != "not tried"] == ["base URL", "credentials"]


async def test_quotes_around_the_token_are_the_first_suspicion_when_it_is_refused(server: RawServer) -> None:
    server.answer(*body('{"message": "no"}', 401))
    findings = await examined(server.url, token=f'"{TOKEN}"')
    assert server.requests[0].header("authorization") == f'Bearer "{TOKEN}"'
    assert "Take the quotes off CHATAPI_TOKEN" in verdict(list(findings.values()))
    assert "this failed: request" in verdict(list(findings.values()))


# ── interrupted ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_was_found_is_kept_when_it_is_cancelled(backend: str, server: RawServer) -> None:
    server.answer(*stream(chunk("One"), HOLD))
    found: list[Finding] = []

    async def interrupted() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(examine, settings_for(server.url), found.append))
            await wait_for(lambda: any(finding.step == "first token" for finding in found), "the first token")
            tasks.cancel_scope.cancel()
        await server.hung_up()

    anyio.run(interrupted, backend=backend)
    findings = checked(found)
    assert findings["first token"].mark == "ok"
    assert findings["stream"].words == "not tried, since it was interrupted"


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def configured(emulator: RunningEmulator, monkeypatch: pytest.MonkeyPatch) -> RunningEmulator:
    monkeypatch.setenv("CHATAPI_BASE_URL", emulator.base_url)
    monkeypatch.setenv("CHATAPI_OPERATOR_ID", "tn_test")
    monkeypatch.setenv("CHATAPI_TOKEN", TOKEN)
    return emulator


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> tuple[int, str]:
        code = main(["doctor", *words])
        shown = capsys.readouterr()
        assert shown.err == ""
        assert TOKEN not in shown.out
        return code, shown.out

    return run


@pytest.mark.usefixtures("configured")
def test_the_command_says_with_what_it_asks_and_what_it_costs(doctor: Run) -> None:
    code, shown = doctor("--model", "small")
    assert code == 0
    assert "two small requests, which cost" in shown.partition("versions")[0]
    assert re.search(r"^versions +chatapi-async [\d.]+, Python [\d.]+ on \w+, httpx [\d.]+, ", shown, re.MULTILINE)
    assert re.search(r"^operator id +tn_test \(from CHATAPI_OPERATOR_ID\)$", shown, re.MULTILINE)
    assert re.search(rf"^token +set, {len(TOKEN)} characters, not shown \(from CHATAPI_TOKEN\)$", shown, re.MULTILINE)
    assert re.search(r"^model +small$", shown, re.MULTILINE)
    assert re.search(r"^ok +connection +[\d.]+ s  the server at ", shown, re.MULTILINE)
    assert shown.endswith("\n\nAll is well.\n")


@pytest.mark.usefixtures("configured")
def test_options_go_before_the_environment(doctor: Run, server: RawServer) -> None:
    server.answer(*ANSWER)
    code, shown = doctor("--base-url", server.url, "--operator-id", "tn_other", "--room", "ch_known")
    assert code == 0
    assert f"{server.url}, from --base-url" in shown
    assert server.requests[0].header("x-operator-id") == "tn_other"
    assert re.search(r"^ok +chatroom ", shown, re.MULTILINE)


@pytest.mark.usefixtures("configured")
def test_a_failure_is_marked_with_advice_below_and_said_again_at_the_end(doctor: Run) -> None:
    code, shown = doctor("--room", "ch_unknown")
    assert code == 1
    assert re.search(r"^FAIL  chatroom .*\n( {30}.*\n)* {30}→ Check the id after --room", shown, re.MULTILINE)
    assert shown.rpartition("\n\n")[2].startswith("Do first: Check the id after --room")


@pytest.mark.usefixtures("configured")
def test_lines_are_not_too_long_for_a_report_and_addresses_stay_whole(doctor: Run) -> None:
    path = "a-b" * 50
    _, shown = doctor("--base-url", f"http://127.0.0.1:1/{path}")
    lines = [line for line in shown.splitlines() if not line.startswith("versions")]
    assert [line for line in lines if len(line) > 110 and path not in line] == []
    assert path in shown


@pytest.mark.usefixtures("configured")
def test_what_a_server_says_cannot_move_the_cursor(doctor: Run, server: RawServer) -> None:
    server.answer(*body(json.dumps({"message": "\x1b[2Jgone"}), 403))
    _, shown = doctor("--base-url", server.url)
    assert "\x1b" not in shown
    assert "gone" in shown


def test_nothing_configured_is_exit_code_2(doctor: Run) -> None:
    code, shown = doctor("--base-url", "http://127.0.0.1:1")
    assert code == 2
    assert re.search(r"^token +not set$", shown, re.MULTILINE)
    assert re.search(r"^operator id +not set$", shown, re.MULTILINE)
    assert "CHATAPI_TOKEN" in shown.rpartition("\n\n")[2]


@pytest.mark.usefixtures("configured")
def test_json_is_an_object_for_each_step(doctor: Run) -> None:
    code, shown = doctor("--json", "--room", "ch_unknown")
    assert code == 1
    settings, *steps = map(json.loads, shown.splitlines())
    assert settings["step"] == "settings"
    assert settings["token"].startswith("set, ")
    assert [step["step"] for step in steps] == list(STEPS)
    assert all(step.keys() == {"step", "mark", "words", "advice", "seconds"} for step in steps)
    assert {step["step"]: step["mark"] for step in steps}["chatroom"] == "fail"


def test_ctrl_c_prints_what_was_found_so_far(server: RawServer) -> None:
    server.answer(*stream(chunk("One"), HOLD))
    env = {**os.environ, "CHATAPI_BASE_URL": server.url, "CHATAPI_OPERATOR_ID": "tn_1", "CHATAPI_TOKEN": TOKEN}
    with subprocess.Popen(
        [sys.executable, "-m", "chatapi_async", "doctor"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "first token" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130
        assert process.stderr.read() == ""
    assert re.search(r"^- +stream +not tried, since it was interrupted$", rest, re.MULTILINE)
    assert "Interrupted" in rest.rpartition("\n\n")[2]
    assert TOKEN not in rest


def test_the_help_says_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert "two small requests, which cost" in " ".join(capsys.readouterr().out.split())


# ── the README's example ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("configured")
def test_the_readmes_example_has_the_shape_of_the_output(doctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATAPI_TOKEN", "an-old-token")
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    example = readme.partition("<!-- doctor -->\n```text\n")[2].partition("```")[0]
    _, shown = doctor()
    assert shape(example)
    assert shape(example) == shape(shown[shown.index("ok ") :])


def shape(output: str) -> str:
    """An output without what differs from one machine and run to another: times and ports."""
    return re.sub(r"\d+\.\d{3} s", "0.000 s", re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", output))
