"""Code as a user writes it: checked by ``mypy --strict`` and strict pyright, and never run."""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, assert_never, assert_type

import httpx
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel

from chatapi_async import (
    AnswerParseError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AsyncChatClient,
    Branch,
    ChatAPIError,
    ChatCompletionChunkResponse,
    ChatCompletionFields,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionWithChatroomStreamResponse,
    Chatroom,
    ChatStream,
    Choice,
    ChunkChoice,
    ChunkEvent,
    Completeness,
    ConfigurationError,
    ContentDeltaEvent,
    ContentDoneEvent,
    ContentPart,
    DeltaMessage,
    EventTooLargeError,
    FinishEvent,
    Function,
    FunctionCall,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    HeartbeatEvent,
    MemorySettings,
    Message,
    MessageAccumulator,
    MessageToolCall,
    RateLimitError,
    ResponseFormat,
    RetryPolicy,
    ServerStreamError,
    StreamCall,
    StreamDecodeError,
    StreamEnd,
    StreamError,
    StreamStats,
    StreamToolCall,
    Timeouts,
    Tool,
    ToolSchema,
    UnexpectedContentTypeError,
    UnknownEvent,
    Usage,
    UsageEvent,
    aggregate,
    decode_stream,
    tee,
    testing,
)
from chatapi_async.emulator import Emulator, ReplyFileError, Upstream, replies_schema
from chatapi_async.otel import OpenTelemetry
from chatapi_async.pacing import (
    DISCORD_LIMIT,
    TELEGRAM_LIMIT,
    Paced,
    Update,
    heartbeat,
    paced,
    sentences,
    split_message,
    utf16_units,
)
from chatapi_async.recording import Recording, read_recording
from chatapi_async.relay import SSE_HEADERS, relay_sse


class Place(BaseModel):
    """Looks a place up."""

    name: str


async def fetch_token() -> str:
    return "token"


# ── the client ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def make_clients() -> None:
    AsyncChatClient()
    AsyncChatClient("https://api.example.com", operator_id="tn_1", token="token")
    AsyncChatClient(token=fetch_token, timeout=5, retries=0)
    AsyncChatClient(token=lambda: "token", timeout=None, retries=RetryPolicy(also=frozenset({"timeout"})))
    AsyncChatClient(authorization="Basic x", timeout=Timeouts(idle=None), max_event_bytes=1024)
    async with AsyncChatClient(http_client=httpx.AsyncClient()) as client:
        assert_type(client, AsyncChatClient)
        assert_type(client.chatroom("ch_1"), Chatroom)
        assert_type(client.chatroom("ch_1").id, str)
    assert_type(await client.aclose(), None)


async def call(client: AsyncChatClient, request: ChatCompletionRequest, fields: ChatCompletionFields) -> None:
    assert_type(client.chat_completion("Hi"), ChatStream[ChatCompletionChunkResponse])
    client.chat_completion([Message.user("Hi"), {"role": "assistant", "content": "Hello"}])
    client.chat_completion((Message.user("Hi"),))
    client.chat_completion([{"role": "user", "content": "Hi"}])
    client.chat_completion(request, temperature=0.5)
    client.chat_completion(request, **fields)
    client.chat_completion(
        "Hi",
        operator_id="tn_2",
        authorization="Bearer x",
        extra_headers={"x-trace": "1"},
        timeout=Timeouts.of(5),
        model="anthropic/claude-sonnet-4-5",
        stream=False,
        temperature=1,
        top_p=0.9,
        n=2,
        max_completion_tokens=100,
        presence_penalty=-2,
        frequency_penalty=None,
        response_format={"type": "json_object"},
        tools=[Tool.from_model(Place), {"type": "function", "function": {}}],
        tool_choice="any",
        user="u",
        memory_settings={"max_memories": 3},
        communication_style="brief",
        explanation_style="by example",
        technical_level="expert",
    )
    client.chat_completion("Hi", response_format=ResponseFormat(type="text"), memory_settings=MemorySettings())

    chatroom = client.chatroom("ch_1")
    for stream in (
        client.chat_completion_on_chatroom("ch_1", "Hi", model="large", timeout=5),
        chatroom.chat_completion("Hi", model="large", timeout=5),
        chatroom.chat_completion(request, operator_id="tn_2", extra_headers={}, **fields),
    ):
        assert_type(stream, ChatStream[ChatCompletionWithChatroomStreamResponse])


# ── a stream ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def read(client: AsyncChatClient) -> None:
    async for chunk in client.chat_completion("Hi"):
        assert_type(chunk, ChatCompletionChunkResponse)
        assert_type(chunk.system_fingerprint, str | None)
    async for chatroom_chunk in client.chat_completion_on_chatroom("ch_1", "Hi"):
        assert_type(chatroom_chunk, ChatCompletionWithChatroomStreamResponse)
    async with client.chat_completion("Hi") as stream:
        assert_type(stream, ChatStream[ChatCompletionChunkResponse])
        async for text in stream.text_stream:
            assert_type(text, str)
    awaited = await client.chat_completion("Hi")
    assert_type(awaited, ChatStream[ChatCompletionChunkResponse])
    assert_type(await anext(awaited), ChatCompletionChunkResponse)
    assert_type(await awaited.until_done(), None)
    assert_type(await awaited.stop(), None)
    assert_type(await awaited.aclose(), None)
    assert_type(await awaited.get_final_completion(), ChatCompletionResponse)
    assert_type(await awaited.get_final_message(), Message)
    assert_type(await awaited.get_final_text(), str)
    assert_type(await awaited.get_final_parsed(Place), Place)
    assert_type(awaited.partial_objects(Place), AsyncIterator[Place])
    assert_type(awaited.partial_objects(dict, every=0.5), AsyncIterator[dict[str, Any]])


def look(stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    assert_type(stream.snapshot, ChatCompletionResponse)
    assert_type(stream.status_code, int | None)
    assert_type(stream.headers, Mapping[str, str])
    assert_type(stream.request_id, str | None)
    stats = stream.stats
    assert_type(stats, StreamStats)
    assert_type(stats.time_to_first_chunk, float | None)
    assert_type(stats.chunks, int)
    assert_type(stats.bytes, int)
    assert_type(stats.duration, float)


async def match_events(stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    async for event in stream.events():
        match event:
            case ChunkEvent():
                assert_type(event.chunk, ChatCompletionChunkResponse)
            case ContentDeltaEvent(index=index, delta=delta):
                assert_type(index, int)
                assert_type(delta, str)
                assert_type(event.snapshot, str)
            case ContentDoneEvent():
                assert_type(event.content, str)
            case FunctionToolCallArgumentsDeltaEvent():
                assert_type(event.tool_index, int)
                assert_type(event.arguments_delta, str)
                assert_type(event.delta, str)
                assert_type(event.arguments, str)
            case FunctionToolCallArgumentsDoneEvent():
                assert_type((event.id, event.name, event.arguments), tuple[str, str, str])
            case FinishEvent():
                assert_type(event.finish_reason, str)
            case UsageEvent():
                assert_type(event.usage, Usage)
            case HeartbeatEvent():
                assert_type(event.type, Literal["heartbeat"])
            case UnknownEvent():
                assert_type((event.event, event.data), tuple[str, str])
            case _:
                assert_never(event)


async def match_types_of_events(stream: ChatStream[ChatCompletionWithChatroomStreamResponse]) -> None:
    async for event in stream.events():
        if event.type == "chunk":
            assert_type(event.chunk, ChatCompletionWithChatroomStreamResponse)
        elif event.type == "content.delta":
            assert_type(event, ContentDeltaEvent)
        elif event.type == "content.done":
            assert_type(event, ContentDoneEvent)
        elif event.type == "tool_calls.function.arguments.delta":
            assert_type(event, FunctionToolCallArgumentsDeltaEvent)
        elif event.type == "tool_calls.function.arguments.done":
            assert_type(event, FunctionToolCallArgumentsDoneEvent)
        elif event.type == "finish":
            assert_type(event, FinishEvent)
        elif event.type == "usage":
            assert_type(event, UsageEvent)
        elif event.type == "heartbeat":
            assert_type(event, HeartbeatEvent)
        elif event.type == "unknown":
            assert_type(event, UnknownEvent)
        else:
            assert_never(event)


async def merge(stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    async def words() -> AsyncIterator[ChatCompletionChunkResponse]:
        async for chunk in stream:
            if chunk.text:
                yield chunk

    assert_type(await aggregate(stream), Message)
    assert_type(await aggregate(words()), Message)
    accumulator = MessageAccumulator()
    async for chunk in stream:
        assert_type(accumulator.add(chunk), None)
        for event in accumulator.add_with_events(chunk):
            if isinstance(event, ContentDeltaEvent):
                assert_type(event.delta, str)
    assert_type((accumulator.has_choices, accumulator.finished), tuple[bool, bool])
    assert_type(accumulator.completion(), ChatCompletionResponse)
    assert_type(accumulator.completion("stopped"), ChatCompletionResponse)
    accumulator.end()


async def show(channel: AsyncIterator[str], stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    updates = paced(stream, every=1.0, limit=DISCORD_LIMIT, measure=utf16_units)
    assert_type(updates, Paced)
    async for update in updates:
        assert_type(update, Update)
        assert_type((update.text, update.delta, update.final, update.part), tuple[str, str, bool, int])
        assert_type(updates.retry_after(1.5), None)
    async with paced(channel) as entered:
        assert_type(entered, Paced)
    async for item in heartbeat(updates, every=4):
        assert_type(item, Update | HeartbeatEvent)
    async for chunk_or_beat in heartbeat(stream):
        assert_type(chunk_or_beat, ChatCompletionChunkResponse | HeartbeatEvent)
    async for sentence in sentences(stream, language="de"):
        assert_type(sentence, str)
    async for text in sentences(stream.text_stream):
        assert_type(text, str)
    assert_type(split_message("text", TELEGRAM_LIMIT, measure=len), list[str])


async def share(stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    first, second = tee(stream)
    assert_type(first, Branch[ChatCompletionChunkResponse])
    assert_type(await anext(second), ChatCompletionChunkResponse)
    assert_type(await first.aclose(), None)
    async for encoded in relay_sse(second, keep_alive=5):
        assert_type(encoded, bytes)
    headers: Mapping[str, str] = SSE_HEADERS
    del headers


# ── what is sent and received ────────────────────────────────────────────────────────────────────────────────────────


def write() -> ChatCompletionRequest:
    assert_type(Message.user("Hi"), Message)
    assert_type(Message.user([ContentPart(type="text", text="Hi")]), Message)
    assert_type(Message.system("Be brief.", name="boss"), Message)
    assert_type(Message.assistant(tool_calls=[MessageToolCall(id="c", function=FunctionCall(name="f"))]), Message)
    assert_type(Message.tool("21 °C", tool_call_id="c"), Message)
    assert_type(Tool.from_function(fetch_token, name="n", description="d", strict=True), Tool)
    assert_type(Tool.from_model(Place, name="n", description="d", strict=None), Tool)
    tool = Tool(function=Function(name="f", description="d", parameters=ToolSchema()))
    request = ChatCompletionRequest(
        messages=[Message.user("Hi")], tools=[tool], tool_choice="auto", memory_settings=MemorySettings(max_memories=3)
    )
    request.temperature = 0.5
    assert_type(request.to_body(), bytes)
    return request


def inspect(completion: ChatCompletionResponse, chunk: ChatCompletionChunkResponse) -> None:
    assert_type(completion.message, Message | None)
    assert_type(completion.text, str)
    assert_type(completion.parse(Place), Place)
    assert_type(completion.created, int | None)
    assert_type(completion.usage, Usage | None)
    assert_type(completion.completeness, Completeness)
    if completion.usage is not None:
        assert_type(completion.usage.total_tokens, int | None)
        assert_type(completion.usage.total_cost, float | None)
    for choice in completion.choices:
        assert_type(choice, Choice)
        assert_type(choice.finish_reason, str | None)
        assert_type(choice.message.content, str | list[ContentPart] | None)
        assert_type(choice.message.text, str)
        for tool_call in choice.message.tool_calls or []:
            assert_type(tool_call, MessageToolCall)
            assert_type(tool_call.parse(Place), Place)
            assert_type(tool_call.function.arguments, str)
    assert_type((chunk.id, chunk.model, chunk.text), tuple[str, str, str])
    for chunk_choice in chunk.choices:
        assert_type(chunk_choice, ChunkChoice)
        assert_type(chunk_choice.delta, DeltaMessage)
        assert_type(chunk_choice.delta.tool_calls, list[StreamToolCall] | None)


# ── errors and limits ────────────────────────────────────────────────────────────────────────────────────────────────


async def fail(stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    try:
        await stream.until_done()
    except ConfigurationError as error:
        assert_type(error.processed, Literal["no", "unknown"])
        invalid: ValueError = error
        raise invalid from None
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except APIStatusError as error:
        assert_type(error.status_code, int)
        assert_type(error.code, str | int | None)
        assert_type(error.message, str)
        assert_type(error.body, object)
        assert_type(error.headers, Mapping[str, str])
    except APITimeoutError as error:
        assert_type(error.phase, Literal["connect", "write", "pool", "first_chunk", "idle", "total"])
        assert_type(error.limit, float)
        assert_type(error.partial, ChatCompletionResponse | None)
    except APIConnectionError as error:
        assert_type(error.request_id, str | None)
    except ServerStreamError as error:
        assert_type(error.type, str | None)
        assert_type(error.payload, object)
    except StreamDecodeError as error:
        assert_type(error.event, str)
    except EventTooLargeError as error:
        assert_type(error.limit, int)
    except UnexpectedContentTypeError as error:
        assert_type((error.content_type, error.body), tuple[str, str])
    except StreamError as error:
        assert_type(error.partial, ChatCompletionResponse | None)
        assert_type(error.chunks_received, int)
    except AnswerParseError as error:
        assert_type(error.text, str)
        assert_type(error.partial, ChatCompletionResponse | None)
    except ChatAPIError as error:
        assert_type(error.retryable, bool)


def limit(error: ChatAPIError) -> None:
    assert_type(Timeouts.of(None), Timeouts)
    assert_type(Timeouts().idle, float | None)
    assert_type(RetryPolicy.of(3), RetryPolicy)
    assert_type(RetryPolicy(max_retries=1).delay(error, 0, 0.5), float | None)


def takes_any_stream(stream: ChatStream[Any]) -> None:
    del stream


def pass_on(
    stream: ChatStream[ChatCompletionChunkResponse],
    chatroom_stream: ChatStream[ChatCompletionWithChatroomStreamResponse],
) -> None:
    takes_any_stream(stream)
    takes_any_stream(chatroom_stream)


def answer_from_a_file(emulator: Emulator) -> None:
    Emulator(replies="replies.toml", tokens_per_second=None)
    try:
        emulator.load_replies(Path("replies.json"))
    except ReplyFileError as error:
        assert_type((error.name, error.problems), tuple[str, tuple[str, ...]])
    assert_type(replies_schema(), dict[str, Any])


def without_a_client(body: bytes, pieces: list[bytes]) -> None:
    for chunk in decode_stream(body):
        assert_type(chunk, ChatCompletionChunkResponse)
    in_chatroom = decode_stream(pieces, ChatCompletionWithChatroomStreamResponse, choices=2, max_event_bytes=1024)
    assert_type(in_chatroom, Iterator[ChatCompletionWithChatroomStreamResponse])


def recordings(client: AsyncChatClient, server: testing.ChatServer) -> None:
    assert_type(AsyncChatClient(record=Path("recordings")), AsyncChatClient)
    recording = read_recording("failure.jsonl")
    assert_type(recording, Recording)
    assert_type(recording.request.headers, Mapping[str, str])
    assert_type(recording.status_code, int | None)
    assert_type(recording.body, bytes)
    assert_type([(piece.seconds, piece.data) for piece in recording.pieces], list[tuple[float, bytes]])
    for chunk in recording.chunks():
        assert_type(chunk.text, str)
    assert_type(recording.completion(), ChatCompletionResponse)
    if recording.end is not None and recording.end.how == "client_closed" and recording.end.outcome is not None:
        assert_type(recording.end.outcome.error, str | None)
    server.replay("failure.jsonl")
    server.replay(Path("failure.jsonl"), speed=2)


def test_kit(server: testing.ChatServer) -> None:
    assert_type(server.base_url, str)
    assert_type(server.open_streams, int)
    assert_type(server.requests[0].chatroom_id, str | None)
    server.reply("Hello", usage=Usage(total_tokens=1), fault=testing.fault("truncate", after=2))
    server.reply(["Hel", "lo"], tool_calls=[testing.tool_call("f", {"a": 1})], finish_reason="length", delay=0.5)
    server.fault("stall", after=3, keep_alive=0.5)
    server.replies("replies.toml")
    server.replies(Path("replies.json"))
    server.script(["Hello", testing.fault("reset"), 0.5, ["Hel", "lo"]])
    assert_type(testing.chunk("Hi", finish_reason="stop"), ChatCompletionChunkResponse)
    assert_type(testing.completion("Hi"), ChatCompletionResponse)
    assert_type(
        testing.event_stream(["Hi", testing.chunk("!"), testing.error("overloaded"), b": ping\n\n"], complete=False),
        bytes,
    )


def relaying(emulator: Emulator) -> None:
    upstream = Upstream("http://localhost:11434/v1", key="sk-…", model="llama3.2:3b")
    assert_type(upstream.base_url, str)
    assert_type(upstream.model, str | None)
    assert_type(Emulator(upstream=upstream, create_chatrooms=True).chatrooms, dict[str, list[Message]])
    assert_type(emulator.open_streams, int)


def note(end: StreamEnd) -> None:
    assert_type(end.operation, Literal["chat_completion", "chat_completion_on_chatroom"])
    assert_type(end.chatroom_id, str | None)
    assert_type(end.operator_id, str)
    assert_type(end.request, ChatCompletionRequest)
    assert_type((end.server_address, end.server_port), tuple[str, int])
    assert_type(end.completeness, Completeness)
    assert_type(end.error, Exception | None)
    assert_type(end.stats, StreamStats)
    assert_type((end.status_code, end.request_id, end.attempts), tuple[int | None, str | None, int])
    assert_type(end.completion, ChatCompletionResponse)
    call: StreamCall = end
    assert_type(call.request.model, str | None)


def observe(ends: list[StreamEnd]) -> None:
    AsyncChatClient(on_end=note)
    AsyncChatClient(on_end=ends.append)
    AsyncChatClient(on_end=print, telemetry=OpenTelemetry())
    AsyncChatClient(telemetry=None)
    OpenTelemetry(tracer_provider=TracerProvider(), meter_provider=MeterProvider(), capture_content=True)
