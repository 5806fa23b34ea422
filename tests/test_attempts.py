"""How often a call is sent, with whose token, and what each refusal means, on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from email.utils import formatdate
from typing import Any

import pytest

from chatapi_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatClient,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    StreamClosedError,
    Timeouts,
    UnprocessableEntityError,
)
from tests.raw_server import DONE, HOLD, RESET, RawServer, Repeat, body, chunk, client_of, head, stream, wait_for

ANSWER = stream(chunk("Hi", "stop"), DONE)

# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Tokens:
    """Gives t1, t2, t3, …"""

    def __init__(self) -> None:
        self.given = 0

    def sync(self) -> str:
        self.given += 1
        return f"t{self.given}"

    async def asynchronous(self) -> str:
        await asyncio.sleep(0)
        return self.sync()


UNAUTHORIZED = body('{"message": "expired"}', 401)
LIMITED = body('{"message": "slow down"}', 429)


@pytest.mark.parametrize("kind", ["sync", "asynchronous"])
@pytest.mark.parametrize(
    ("answers", "error_type", "tokens"),
    [
        ([ANSWER], None, ["t1"]),
        ([UNAUTHORIZED, ANSWER], None, ["t1", "t2"]),
        ([UNAUTHORIZED], AuthenticationError, ["t1", "t2"]),
        ([LIMITED, LIMITED, ANSWER], None, ["t1", "t2", "t3"]),
        ([LIMITED, UNAUTHORIZED, LIMITED, ANSWER], None, ["t1", "t2", "t3", "t4"]),
        ([UNAUTHORIZED, LIMITED, UNAUTHORIZED], AuthenticationError, ["t1", "t2", "t3"]),
    ],
)
async def test_a_function_is_asked_before_each_attempt_and_once_more_after_a_401(
    kind: str, answers: Any, error_type: type[Exception] | None, tokens: list[str], server: RawServer
) -> None:
    for answer in answers:
        server.answer(*answer)
    async with client_of(server, token=getattr(Tokens(), kind)) as client:
        stream_ = client.chat_completion("Hi")
        if error_type:
            with pytest.raises(error_type):
                await stream_
        else:
            assert await stream_.get_final_text() == "Hi"
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {token}" for token in tokens]


@pytest.mark.parametrize("options", [{"token": "t0ken"}, {"token": None, "authorization": "Bearer t0ken"}])
async def test_a_fixed_token_is_not_tried_again_after_a_401(options: Any, server: RawServer) -> None:
    server.answer(*UNAUTHORIZED)
    async with client_of(server, **options) as client:
        with pytest.raises(AuthenticationError):
            await client.chat_completion("Hi")
    assert [request.header("authorization") for request in server.requests] == ["Bearer t0ken"]


async def test_a_slow_token_function_that_uses_up_the_time_sends_nothing(server: RawServer) -> None:
    def token() -> str:
        time.sleep(0.1)
        return "t0ken"

    server.answer(HOLD)
    async with client_of(server, token=token, timeout=Timeouts(first_chunk=0.05), retries=0) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.chat_completion("Hi")
    assert (caught.value.processed, server.requests) == ("no", [])


# ── statuses and retries ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "headers", "error_type", "processed", "requests"),
    [
        (301, {"location": "/login"}, APIStatusError, "no", 1),
        (308, {"location": "/v2"}, APIStatusError, "no", 1),
        (400, {}, BadRequestError, "no", 1),
        (402, {}, PaymentRequiredError, "no", 1),
        (403, {}, PermissionDeniedError, "no", 1),
        (404, {}, NotFoundError, "no", 1),
        (408, {}, APIStatusError, "unknown", 1),
        (409, {}, ConflictError, "unknown", 1),
        (422, {}, UnprocessableEntityError, "no", 1),
        (429, {}, RateLimitError, "no", 3),
        (500, {}, InternalServerError, "unknown", 1),
        (500, {"retry-after": "0"}, InternalServerError, "unknown", 1),
        (502, {}, InternalServerError, "unknown", 1),
        (503, {}, InternalServerError, "unknown", 1),
        (503, {"retry-after": "0"}, InternalServerError, "no", 3),
        (504, {}, InternalServerError, "unknown", 1),
    ],
)
async def test_a_status_is_an_error_and_only_what_was_not_processed_is_sent_again(
    status: int,
    headers: Any,
    error_type: type,
    processed: str,
    requests: int,
    server: RawServer,
    client: AsyncChatClient,
) -> None:
    content = '{"message": "no model x", "code": "unsupported_model"}'
    server.answer(*body(content, status, x_request_id="req_1", **headers))
    with pytest.raises(APIStatusError, match=f"HTTP {status} from POST .*no model x.*unsupported_model") as caught:
        await client.chat_completion("Hi")
    error = caught.value
    assert type(error) is error_type
    assert (error.status_code, error.message, error.code) == (status, "no model x", "unsupported_model")
    assert error.body == json.loads(content)
    assert (error.request_id, error.headers["X-Request-ID"]) == ("req_1", "req_1")
    assert (error.processed, error.retryable) == (processed, requests > 1)
    assert len(server.requests) == requests


@pytest.mark.parametrize("content", [b"<html><title>Bad gateway</title></html>", b"", b"\xff\xfe", b"[1, 2]"])
async def test_an_error_body_can_be_anything(content: bytes, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*body(content, 502, content_type="text/html"))
    with pytest.raises(InternalServerError, match="HTTP 502"):
        await client.chat_completion("Hi")


@pytest.mark.parametrize(
    ("rest", "limit"),
    [((Repeat(b"x" * 4096),), None), ((b"half", HOLD), 0.2), ((b"half", Repeat(b"x", 0.02)), 0.2), ((RESET,), None)],
    ids=["endless", "silent", "slow", "reset"],
)
async def test_an_error_body_without_end_costs_a_bounded_time(
    rest: Any, limit: float | None, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(head(500, {"content-length": "99999999"}), *rest)
    with pytest.raises(InternalServerError, match="HTTP 500") as caught:
        await client.chat_completion("Hi", timeout=limit)
    assert isinstance(caught.value.body, str)
    assert len(caught.value.body) <= 64 * 1024
    await server.all_closed()


async def _seconds_until_answered(client: AsyncChatClient) -> float:
    began = time.monotonic()
    assert await client.chat_completion("Hi").get_final_text() == "Hi"
    return time.monotonic() - began


@pytest.mark.parametrize("when", ["1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"])
async def test_retry_after_is_waited_for(when: Any, server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*body("", 429, retry_after=when if isinstance(when, str) else when()))
    server.answer(*ANSWER)
    assert await _seconds_until_answered(client) > 0.9
    assert len(server.requests) == 2


async def test_a_retry_after_in_the_past_is_not_waited_for(server: RawServer, client: AsyncChatClient) -> None:
    server.answer(*body("", 503, retry_after=formatdate(0, usegmt=True)))
    server.answer(*ANSWER)
    assert await client.chat_completion("Hi").get_final_text() == "Hi"


@pytest.mark.parametrize(
    ("retry_after", "limit"),
    [("61", None), (formatdate(4_000_000_000, usegmt=True), None), ("30", Timeouts(total=5))],
    ids=["seconds", "date", "beyond the total"],
)
async def test_a_retry_after_that_is_too_long_is_raised_at_once(
    retry_after: str, limit: Any, server: RawServer, client: AsyncChatClient
) -> None:
    server.answer(*body("", 429, retry_after=retry_after))
    began = time.monotonic()
    with pytest.raises(RateLimitError) as caught:
        await client.chat_completion("Hi", timeout=limit)
    assert time.monotonic() - began < 3
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 30
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("also", "answer", "error_type"),
    [
        ("connection_lost", (RESET,), APIConnectionError),
        ("timeout", (HOLD,), APITimeoutError),
        ("server_error", body("", 500), InternalServerError),
    ],
)
async def test_a_risky_failure_is_tried_again_only_by_name(
    also: Any, answer: Any, error_type: type[Exception], server: RawServer
) -> None:
    server.answer(*answer)
    for named, requests in ((frozenset(), 1), (frozenset([also]), 3)):
        policy = RetryPolicy(max_retries=2, initial_delay=0.01, also=named)
        async with client_of(server, retries=policy, timeout=Timeouts(first_chunk=0.1)) as client:
            with pytest.raises(error_type):
                await client.chat_completion("Hi")
        assert len(server.requests) == requests
        server.requests.clear()


async def test_no_retries(server: RawServer) -> None:
    server.answer(*LIMITED)
    async with client_of(server, retries=0) as client:
        with pytest.raises(RateLimitError):
            await client.chat_completion("Hi")
    assert len(server.requests) == 1


async def test_a_call_that_waits_to_try_again_can_be_cancelled(
    server: RawServer, client: AsyncChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*body("", 429, retry_after="50"))
    reader = asyncio.create_task(client.chat_completion("Hi").until_done())
    await wait_for(lambda: "RateLimitError 429; retry 1 in 50.00 s" in caplog.text, "the wait")
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert len(server.requests) == 1


async def test_a_client_closed_while_a_call_waits_to_try_again_sends_nothing_more(
    server: RawServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(*body("", 429, retry_after="50"))
    client = client_of(server)
    reader = asyncio.create_task(client.chat_completion("Hi").until_done())
    await wait_for(lambda: "retry 1" in caplog.text, "the wait")
    await client.aclose()
    with pytest.raises(StreamClosedError, match="client was closed"):
        await reader
    assert len(server.requests) == 1


async def test_attempts_are_logged(
    server: RawServer, client: AsyncChatClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "chatapi_async")
    server.answer(*LIMITED)
    server.answer(*ANSWER)
    await client.chat_completion("Hi").until_done()
    assert "failed after" in caplog.text
    assert "completions: 200 after" in caplog.text
    assert "slow down" not in caplog.text
