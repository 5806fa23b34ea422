"""Faults on demand: what a user of this library's own client sees of each, on real sockets."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from chatapi_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatClient,
    AuthenticationError,
    BadRequestError,
    ChatAPIError,
    ConflictError,
    EmptyStreamError,
    EventTooLargeError,
    InternalServerError,
    NotFoundError,
    PaymentRequiredError,
    PermissionDeniedError,
    RateLimitError,
    ServerStreamError,
    StreamDecodeError,
    StreamError,
    StreamTruncatedError,
    Timeouts,
    UnexpectedContentTypeError,
    UnprocessableEntityError,
)
from chatapi_async.emulator import FAULTS, Emulator, RunningEmulator, serve, serve_in_thread
from chatapi_async.types import ChatCompletionResponse, HeartbeatEvent, UnknownEvent
from tests.raw_server import QUICK, wait_for

PATIENT = Timeouts(first_chunk=30, idle=30)
IMPATIENT = Timeouts(first_chunk=0.3, idle=0.3)
HEALTHY = "Hello! I am the built-in model"


@pytest.fixture
async def running() -> AsyncIterator[RunningEmulator]:
    async with serve(Emulator(tokens_per_second=None, chatrooms=["ch_1"])) as running:
        yield running


@pytest.fixture
async def client(running: RunningEmulator) -> AsyncIterator[AsyncChatClient]:
    async with client_of(running) as client:
        yield client


def client_of(running: RunningEmulator, **options: Any) -> AsyncChatClient:
    given = {"operator_id": "tn_1", "token": "t0ken", "retries": QUICK, "timeout": PATIENT}
    return AsyncChatClient(running.base_url, **given | options)


async def answer(client: AsyncChatClient, fault: str, limits: Timeouts | None = None) -> ChatCompletionResponse:
    return await client.chat_completion("Hi", model=f"fault/{fault}", timeout=limits).get_final_completion()


# Faults that leave the answer whole: what a client must read all the same.
WHOLE = [
    *("no_done", "no_finish_reason", "second_answer", "json", "json?shape=chunk", "bytewise", "bom", "crlf", "cr"),
    *("comments", "comments?count=3", "empty_events", "compressed", "compressed?encoding=deflate"),
    *("no_created", "no_ids", "changing_ids", "no_role", "unknown_words", "empty_first_chunk", "no_delta"),
    *("message_beside_delta", "padding", "null_content", "content_parts", "reasoning", "garbage?kind=json"),
    *("provider_events", "provider_events?named=false", "stall?seconds=0.01", "stall?after=3&seconds=0.01"),
    *("no_response?seconds=0.01", "slow?tokens_per_second=2000", "never_ends?seconds=0.01", "stall?seconds=0"),
    *(f"usage?shape={shape}" for shape in FAULTS["usage"].choices["shape"]),
]


@pytest.mark.parametrize("fault", WHOLE)
async def test_a_fault_that_leaves_the_answer_whole(fault: str, client: AsyncChatClient) -> None:
    completion = await answer(client, fault)
    healthy = await client.chat_completion("Hi").get_final_completion()
    assert completion.text == healthy.text
    assert completion.text.startswith(HEALTHY)
    assert completion.completeness == "complete"


# What the client raises, and how much of the answer is in `.partial`.
FAILED: list[tuple[str, type[ChatAPIError], str]] = [
    ("truncate", StreamTruncatedError, "Hello"),
    ("truncate?after=0", StreamTruncatedError, ""),
    ("truncate?after=3", StreamTruncatedError, "Hello!"),
    ("truncate?inside=event", StreamTruncatedError, "Hello"),
    ("truncate?inside=character", StreamTruncatedError, "Hello"),
    ("hang_up?after=2", StreamTruncatedError, "Hello"),
    ("reset", StreamTruncatedError, "Hello"),
    ("stall?after=2", APITimeoutError, "Hello"),
    ("stall?after=2&keep_alive=0.05", APITimeoutError, "Hello"),
    ("slow?tokens_per_second=1", APITimeoutError, ""),
    ("only_done", EmptyStreamError, ""),
    ("empty", StreamTruncatedError, ""),
    ("html", UnexpectedContentTypeError, ""),
    ("broken_json", StreamDecodeError, ""),
    ("garbage", StreamDecodeError, "Hello"),
    ("garbage?kind=bytes", StreamDecodeError, "Hello"),
    ("huge", EventTooLargeError, ""),
    ("compressed?encoding=br", UnexpectedContentTypeError, ""),
    ("error?done=true", ServerStreamError, "Hello"),
    ("error?after=0&code=401", ServerStreamError, ""),
    ("error?shape=text&framing=data", StreamDecodeError, "Hello"),
]


@pytest.mark.parametrize(("fault", "kind", "came"), FAILED, ids=[fault for fault, _, _ in FAILED])
async def test_a_fault_that_breaks_the_answer(
    fault: str, kind: type[StreamError], came: str, client: AsyncChatClient
) -> None:
    with pytest.raises(kind) as caught:
        await answer(client, fault, IMPATIENT if kind is APITimeoutError else None)
    assert type(caught.value) is kind
    assert caught.value.partial is not None
    assert caught.value.partial.text == came
    assert caught.value.partial.completeness == ("truncated" if kind is StreamTruncatedError else "failed")


@pytest.mark.parametrize("fault", ["hang_up", "reset?after=0"])
async def test_a_connection_that_is_lost_before_the_response(
    fault: str, client: AsyncChatClient, running: RunningEmulator
) -> None:
    with pytest.raises(APIConnectionError) as caught:
        await answer(client, fault)
    assert caught.value.processed == "unknown"
    assert len(running.emulator.requests) == 1


@pytest.mark.parametrize("fault", ["stall", "stall?keep_alive=0.05", "no_response"])
async def test_nothing_comes_before_the_first_chunk(
    fault: str, client: AsyncChatClient, running: RunningEmulator
) -> None:
    with pytest.raises(APITimeoutError) as caught:
        await answer(client, fault, IMPATIENT)
    assert caught.value.phase == "first_chunk"
    await wait_for(lambda: running.emulator.open_streams == 0, "the emulator to see the hang-up")


async def test_comments_in_a_stall_are_heartbeats(client: AsyncChatClient) -> None:
    stream = client.chat_completion("Hi", model="fault/stall?after=2&seconds=0.2&keep_alive=0.02")
    beats = [event async for event in stream.events() if isinstance(event, HeartbeatEvent)]
    assert len(beats) >= 2
    assert stream.snapshot.completeness == "complete"


async def test_a_body_that_stays_open_after_done_does_not_hold_up_the_answer(client: AsyncChatClient) -> None:
    async with asyncio.timeout(5):
        assert (await answer(client, "never_ends")).completeness == "complete"


SHAPES = list(itertools.product(*(FAULTS["error"].choices[name] for name in ("shape", "framing"))))


@pytest.mark.parametrize(("shape", "framing"), [each for each in SHAPES if each != ("text", "data")])
async def test_an_error_in_the_stream_in_every_shape(shape: str, framing: str, client: AsyncChatClient) -> None:
    with pytest.raises(ServerStreamError) as caught:
        await answer(client, f"error?shape={shape}&framing={framing}&code=busy")
    assert caught.value.message == "the provider is overloaded"
    assert caught.value.code == ("busy" if shape in ("object", "code") else None)
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello"


async def test_an_error_after_the_finish_reason(client: AsyncChatClient) -> None:
    with pytest.raises(ServerStreamError) as caught:
        await answer(client, "error_after_finish")
    assert caught.value.code == 502
    assert caught.value.partial is not None
    assert caught.value.partial.text.startswith(HEALTHY)


STATUSES = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
    500: InternalServerError,
    502: InternalServerError,
    503: InternalServerError,
}


@pytest.mark.parametrize(("code", "kind"), STATUSES.items())
@pytest.mark.parametrize(("options", "seconds"), [("", None), ("&retry_after=90", 90), ("&retry_after=90&date=1", 90)])
async def test_a_status(
    code: int, kind: type[APIStatusError], options: str, seconds: float | None, client: AsyncChatClient
) -> None:
    with pytest.raises(kind) as caught:
        await answer(client, f"status?code={code}{options}")
    assert caught.value.status_code == code
    assert caught.value.retry_after == (None if seconds is None else pytest.approx(seconds, abs=3))
    assert "as the fault asked for" in caught.value.message


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ("code", "Bad Request, as the fault asked for", "bad_request"),
        ("error", "Bad Request, as the fault asked for", "400"),
        ("html", "Bad Request Bad Request", None),
        ("empty", "", None),
    ],
)
async def test_the_body_of_a_status(body: str, message: str, code: str | None, client: AsyncChatClient) -> None:
    with pytest.raises(BadRequestError) as caught:
        await answer(client, f"status?code=400&body={body}")
    assert (caught.value.message, caught.value.code) == (message, code)


@pytest.mark.parametrize("code", [301, 304, 307, 599])
async def test_a_status_that_has_no_error_of_its_own(code: int, client: AsyncChatClient) -> None:
    with pytest.raises(APIStatusError) as caught:
        await answer(client, f"status?code={code}")
    assert caught.value.status_code == code


async def test_what_was_not_processed_is_sent_again_and_gets_the_fault_again(
    client: AsyncChatClient, running: RunningEmulator
) -> None:
    with pytest.raises(RateLimitError):
        await answer(client, "status?code=429&retry_after=0")
    assert len(running.emulator.requests) == 1 + QUICK.max_retries


async def test_an_emoji_that_is_cut_in_half(client: AsyncChatClient) -> None:
    assert (await answer(client, "cut_emoji")).text.startswith("😀Hello!")


async def test_a_byte_that_is_no_utf8(client: AsyncChatClient) -> None:
    assert (await answer(client, "invalid_utf8")).text.startswith("\N{REPLACEMENT CHARACTER}Hello!")


@pytest.mark.parametrize("shape", FAULTS["tool_calls"].choices["shape"])
async def test_tool_calls_in_every_shape(shape: str, client: AsyncChatClient) -> None:
    completion = await answer(client, f"tool_calls?shape={shape}")
    assert completion.message is not None
    calls = completion.message.tool_calls or []
    assert len(calls) == {"pair": 2, "seven": 7}.get(shape, 1)
    assert {call.function.name for call in calls} == {"get_weather"}
    assert {call.function.arguments for call in calls} == {"" if shape == "described" else '{"location": "Sendai"}'}
    assert completion.choices[0].finish_reason == ("stop" if shape == "stop" else "tool_calls")


USED = {"null": (None, None), "never": None}


@pytest.mark.parametrize("shape", FAULTS["usage"].choices["shape"])
async def test_usage_in_every_shape(shape: str, client: AsyncChatClient) -> None:
    usage = (await answer(client, f"usage?shape={shape}")).usage
    healthy = (await client.chat_completion("Hi").get_final_completion()).usage
    assert healthy is not None
    expected = USED.get(shape, (healthy.prompt_tokens, healthy.completion_tokens))
    assert (usage and (usage.prompt_tokens, usage.completion_tokens)) == expected


async def test_usage_in_every_chunk_grows(client: AsyncChatClient) -> None:
    chunks = [chunk async for chunk in client.chat_completion("Hi", model="fault/usage?shape=every")]
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert len(counts) == len(chunks)
    assert counts[:3] == [0, 1, 2]


async def test_words_of_the_provider_are_kept(client: AsyncChatClient) -> None:
    completion = await answer(client, "unknown_words")
    assert completion.message is not None
    assert (completion.message.role, completion.choices[0].finish_reason) == ("model", "eos")


async def test_a_providers_events_are_unknown_ones(client: AsyncChatClient) -> None:
    stream = client.chat_completion("Hi", model="fault/provider_events")
    unknown = {event.event async for event in stream.events() if isinstance(event, UnknownEvent)}
    assert unknown == {"ping", "content_block_delta", "message_delta", "message_stop"}


def test_every_fault_is_tried_here() -> None:
    elsewhere = {"status", "error_after_finish", "cut_emoji", "invalid_utf8", "tool_calls", "chaos"}
    tried = {fault.partition("?")[0] for fault in (*WHOLE, *(fault for fault, _, _ in FAILED))}
    assert tried | elsewhere == set(FAULTS)


# ── how a fault is called for ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_header_calls_for_a_fault_and_counts_for_more(client: AsyncChatClient) -> None:
    wanted = {"x-fault": "truncate?after=3"}
    with pytest.raises(StreamTruncatedError) as caught:
        await client.chat_completion_on_chatroom("ch_1", "Hi", model="fault/html", extra_headers=wanted).until_done()
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello!"


async def test_the_response_says_which_fault_it_has(client: AsyncChatClient) -> None:
    stream = await client.chat_completion("Hi", model="fault:comments?count=2")
    assert stream.headers is not None
    assert stream.headers["x-fault"] == "comments?count=2"
    await stream.until_done()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("trunkate", "there is no fault 'trunkate', did you mean 'truncate'?; there are: truncate, hang_up, "),
        ("%%", "there is no fault '%%'; there are: truncate, "),
        ("", "there is no fault ''; there are: truncate, "),
        (
            "truncate?afer=2",
            "the fault 'truncate' has no parameter 'afer', did you mean 'after'?; it has: after, inside",
        ),
        ("bom?x=2", "the fault 'bom' has no parameter 'x'; it has none"),
        ("truncate?after=-1", "the fault 'truncate': after: Input should be greater than or equal to 0"),
        ("truncate?after=", "the fault 'truncate': after: Input should be a valid integer"),
        ("truncate?inside=word", "the fault 'truncate': inside: Input should be 'event' or 'character'"),
        ("stall?seconds=nan", "the fault 'stall': seconds: Input should be a finite number"),
    ],
)
async def test_a_fault_that_there_is_not(fault: str, message: str, client: AsyncChatClient) -> None:
    with pytest.raises(BadRequestError) as caught:
        await answer(client, fault)
    assert caught.value.message.startswith(message)
    assert caught.value.code == "unknown_fault"


async def test_a_chatroom_stores_whole_answers_alone(running: RunningEmulator, client: AsyncChatClient) -> None:
    room = client.chatroom("ch_1")
    for fault in ("truncate", "reset", "error", "only_done", "status"):
        with pytest.raises(ChatAPIError):
            await room.chat_completion("Hi", model=f"fault/{fault}").until_done()
    assert running.emulator.chatrooms["ch_1"] == []
    await room.chat_completion("Hi", model="fault/crlf").until_done()
    assert len(running.emulator.chatrooms["ch_1"]) == 2


async def test_without_a_stream_only_what_is_no_stream_goes_wrong(running: RunningEmulator) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": "fault/html"}
    headers = {"authorization": "Bearer x", "x-operator-id": "tn_1"}
    url = f"{running.base_url}/v1/llms/chat/completions"
    async with httpx.AsyncClient(trust_env=False, headers=headers) as http:
        page = await http.post(url, json=body)
        refused = await http.post(url, json={**body, "model": "fault/truncate"})
    assert page.headers["content-type"].startswith("text/html")
    assert refused.json()["message"] == "the fault 'truncate' is one of a stream; send 'stream': true"


async def test_on_another_server_the_connection_cannot_be_broken() -> None:
    transport = httpx.ASGITransport(Emulator(tokens_per_second=None))
    async with (
        httpx.AsyncClient(transport=transport) as http,
        AsyncChatClient("http://localhost", operator_id="tn_1", token="t", http_client=http) as client,
    ):
        with pytest.raises(BadRequestError, match=r"takes the emulator's own server: serve\(\)"):
            await answer(client, "reset")
        with pytest.raises(StreamTruncatedError):
            await answer(client, "truncate")


# ── chance, and many at once ─────────────────────────────────────────────────────────────────────────────────────────


async def picked(seed: int, requests: int) -> list[str]:
    """Which faults the requests of one emulator get; a client that has its head gives up, and one without has none."""
    found: list[str] = []
    headers = {"authorization": "Bearer x", "x-operator-id": "tn_1"}
    body = {"messages": [{"role": "user", "content": "Hi"}], "model": f"fault/chaos?seed={seed}", "stream": True}
    async with serve(Emulator(tokens_per_second=None)) as running, httpx.AsyncClient(trust_env=False) as http:
        url = f"{running.base_url}/v1/llms/chat/completions"
        for _ in range(requests):
            try:
                async with asyncio.timeout(0.3), http.stream("POST", url, json=body, headers=headers) as response:
                    found.append(response.headers["x-fault"])
            except (httpx.TransportError, TimeoutError):
                found.append("no response")
    return found


async def test_chaos_is_the_same_for_the_same_seed() -> None:
    first, again, other = await picked(7, 12), await picked(7, 12), await picked(8, 12)
    assert first == again
    assert first != other
    assert len(set(first)) > 6


@pytest.mark.parametrize(
    "fault", ["stall?after=2", "stall?keep_alive=0.01", "huge?size=1000000000", "no_response", "slow"]
)
async def test_a_client_that_leaves_in_the_middle_of_a_fault_ends_it(fault: str, running: RunningEmulator) -> None:
    async with client_of(running, timeout=None, max_event_bytes=1 << 31) as client:
        task = asyncio.create_task(answer(client, fault))
        await wait_for(lambda: running.emulator.open_streams == 1, "the stream to begin")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wait_for(lambda: running.emulator.open_streams == 0, "the stream to end")
        assert (await client.chat_completion("Hi").get_final_text()).startswith(HEALTHY)


async def test_two_hundred_streams_at_once_that_go_wrong() -> None:
    with serve_in_thread(Emulator(tokens_per_second=None)) as running:
        async with client_of(running, retries=0, timeout=Timeouts(first_chunk=20, idle=20)) as client:
            faults = itertools.islice(itertools.cycle(("reset", "hang_up", "truncate", "hang_up?after=3", "crlf")), 200)
            results = await asyncio.gather(*(answer(client, fault) for fault in faults), return_exceptions=True)
            await wait_for(lambda: running.emulator.open_streams == 0, "every stream to end")
    kinds = [type(result) for result in results]
    expected = (StreamTruncatedError, APIConnectionError, StreamTruncatedError, StreamTruncatedError)
    assert kinds == [*expected, ChatCompletionResponse] * 40


async def test_a_fault_leaves_no_line_in_the_servers_log(
    client: AsyncChatClient, running: RunningEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    for fault in ("reset", "reset?after=0", "hang_up", "hang_up?after=1", "truncate", "html"):
        with pytest.raises(ChatAPIError):
            await answer(client, fault)
    await wait_for(lambda: running.emulator.open_streams == 0, "every stream to end")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


@pytest.mark.smoke
def test_the_command_line_lists_every_fault() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chatapi_async", "serve", "--list-faults"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [str(fault) for fault in FAULTS.values()]
    assert "fault/NAME" in done.stderr
    assert str(FAULTS["no_done"]).split(maxsplit=1) == [
        "no_done",
        "The stream ends with its body, after the finish reason and without [DONE].",
    ]
    assert str(FAULTS["garbage"]).endswith("(after=2, kind=text|json|bytes)")
    assert FAULTS["stall"].parameters == {"after": 0, "seconds": 600, "keep_alive": None}
