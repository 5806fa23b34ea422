# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that a type checker must find: each line ignores its error, and an ignore that ignores nothing is an error.

Checked by ``mypy --strict`` and strict pyright, and never run.
"""

from chatapi_async import (
    AsyncChatClient,
    ChatCompletionChunkResponse,
    ChatCompletionRequest,
    ChatStream,
    Message,
    RetryPolicy,
    Timeouts,
    Tool,
    aggregate,
)
from chatapi_async.otel import OpenTelemetry
from chatapi_async.pacing import paced
from chatapi_async.relay import relay_sse


def show(value: object) -> None:
    del value


def make_clients() -> None:
    AsyncChatClient("https://api.example.com", "tn_1")  # type: ignore[call-arg]
    AsyncChatClient(token=5)  # type: ignore[arg-type]
    AsyncChatClient(api_key="token")  # type: ignore[call-arg]
    AsyncChatClient(timeout="5")  # type: ignore[arg-type]
    AsyncChatClient(retries=1.5)  # type: ignore[arg-type]
    AsyncChatClient(http_client="client")  # type: ignore[arg-type]
    AsyncChatClient(telemetry=OpenTelemetry)  # type: ignore[arg-type]
    OpenTelemetry(capture_content="no")  # type: ignore[arg-type]


async def call(client: AsyncChatClient) -> None:
    client.chat_completion()  # type: ignore[call-arg]
    client.chat_completion(5)  # type: ignore[arg-type]
    client.chat_completion(Message.user("Hi"))  # type: ignore[arg-type]
    client.chat_completion(b"Hi")  # type: ignore[arg-type]
    client.chat_completion("Hi", "large")  # type: ignore[call-arg]
    client.chat_completion("Hi", temprature=1)  # type: ignore[call-arg]
    client.chat_completion("Hi", temperature="warm")  # type: ignore[arg-type]
    client.chat_completion("Hi", tool_choice="none")  # type: ignore[arg-type]
    client.chat_completion("Hi", tools=["weather"])  # type: ignore[list-item]
    client.chat_completion("Hi", messages=[])  # type: ignore[call-arg]
    client.chat_completion("Hi", extra_headers={"x-trace": 1})  # type: ignore[dict-item]
    client.chat_completion_on_chatroom("Hi")  # type: ignore[call-arg]
    client.chatroom(5)  # type: ignore[arg-type]
    client.chatroom("ch_1").chat_completion("Hi", max_tokens=5)  # type: ignore[call-arg]
    with client:  # type: ignore[attr-defined]
        show(client)


async def read(client: AsyncChatClient, stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    show([*stream])  # type: ignore[misc]
    async for chunk in client.chat_completion_on_chatroom("ch_1", "Hi"):
        show(chunk.system_fingerprint)  # type: ignore[attr-defined]
    async for text in stream.text_stream:
        show(text.delta)  # type: ignore[attr-defined]
    async for event in stream.events():
        show(event.delta)  # type: ignore[union-attr]
        if event.type == "content.snapshot":  # type: ignore[comparison-overlap]
            show(event)
    stream.get_final_text().upper()  # type: ignore[attr-defined]
    await aggregate(["Hi"])  # type: ignore[arg-type]
    stream.partial_objects(int)  # type: ignore[type-var]
    await stream.get_final_parsed(dict)  # type: ignore[type-var]
    paced("text")  # type: ignore[arg-type]
    paced(stream.events())  # type: ignore[arg-type]
    relay_sse(stream.text_stream)  # type: ignore[arg-type]
    (await anext(paced(stream))).snapshot  # type: ignore[attr-defined] # noqa: B018


def write(request: ChatCompletionRequest, stream: ChatStream[ChatCompletionChunkResponse]) -> None:
    ChatCompletionRequest()  # type: ignore[call-arg]
    ChatCompletionRequest(messages="Hi")  # type: ignore[arg-type]
    ChatCompletionRequest(messages=[], temperature="warm")  # type: ignore[arg-type]
    request.tool_choice = "none"  # type: ignore[assignment]
    Message.tool("21 °C")  # type: ignore[call-arg]
    Message.user(5)  # type: ignore[arg-type]
    Tool.from_model(5)  # type: ignore[arg-type]
    Tool.from_function("weather")  # type: ignore[arg-type]
    stream.snapshot.parse("Place")  # type: ignore[arg-type]
    show(stream.snapshot.message.text)  # type: ignore[union-attr]
    Timeouts(5, read=5)  # type: ignore[call-arg]
    RetryPolicy(also={"earthquake"})  # type: ignore[arg-type]
    RetryPolicy().max_retries = 5  # type: ignore[misc]
