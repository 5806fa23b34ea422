"""The clients that are compared: a table from a name to how one stream is read with it.

To add one, write a function that opens it, and put it into ``CLIENTS``; nothing else has to be told.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# What is compared is imported where it is used, so that no client's process carries another's library.

Seen = Callable[[str], object]
"""Called with the text of each chunk that has some, at the moment when it is in the consumer's hands."""

Read = Callable[[Mapping[str, str], Seen | None], Awaitable[int]]
"""Sends one request, these headers beside its own, reads the stream to its end, and returns how many chunks came."""

MESSAGES: list[Any] = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Client:
    """A client: how it is opened, and what it needs."""

    whose: str
    """Whose it is: what is of one library stands together, in one colour."""
    label: str
    """What it is called where there is room for it."""
    what: str
    """How a stream is read with it."""
    open: Callable[[str], AbstractAsyncContextManager[Read]]
    """Opens one client of the server at this base URL, with which any number of streams are read at once."""
    needs: str = "chatapi_async"
    """A module, or ``module:name``; where there is none, the client is not measured."""
    shows_text: bool = True
    """Whether it hands over each text as it comes. One that does not has no delay to be measured."""
    crowds: bool = False
    """Whether it is measured with 200 and with 1,000 streams too."""
    loop: str = "asyncio"
    """The module whose event loop it runs in."""

    @property
    def missing(self) -> str | None:
        """Why it cannot be measured; None if it can."""
        module, _, name = self.needs.partition(":")
        for needed in (module, self.loop):
            if find_spec(needed) is None:
                return f"{needed} is not installed"
        there = not name or hasattr(import_module(module), name)
        return None if there else f"{module} has no {name}"


# ── this library ─────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def library(
    base_url: str, consume: Callable[[Any, Seen | None], Awaitable[int]], http_client: str | None = None
) -> AsyncGenerator[Read]:
    """This library, each stream read by ``consume``; ``http_client`` names what of the library it sends through."""
    import chatapi_async

    http = getattr(chatapi_async, http_client)() if http_client else None
    async with chatapi_async.AsyncChatClient(base_url, operator_id="tn_1", token="t", http_client=http) as client:

        async def read(headers: Mapping[str, str], seen: Seen | None) -> int:
            return await consume(client.chat_completion("Hello", extra_headers=headers), seen)

        yield read
    if http is not None:
        await http.aclose()


async def _chunks(stream: Any, seen: Seen | None) -> int:
    count = 0
    async for chunk in stream:
        count += 1
        if seen is not None and (text := chunk.text):
            seen(text)
    return count


async def _text_stream(stream: Any, seen: Seen | None) -> int:
    async for text in stream.text_stream:
        if seen is not None:
            seen(text)
    return int(stream.stats.chunks)


async def _events(stream: Any, seen: Seen | None) -> int:
    async for event in stream.events():
        if seen is not None and event.type == "content.delta":
            seen(event.delta)
    return int(stream.stats.chunks)


async def _get_final_completion(stream: Any, seen: Seen | None) -> int:
    await stream.get_final_completion()
    return int(stream.stats.chunks)


async def _relay_sse(stream: Any, seen: Seen | None) -> int:
    from chatapi_async.relay import relay_sse

    async for event in relay_sse(stream):
        if seen is not None and (text := event.partition(b'"content":"')[2].partition(b'"')[0]):
            seen(text.decode())
    return int(stream.stats.chunks)


# ── others ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _unlimited() -> Any:
    """An httpx client without its limit of a hundred connections, which would make streams wait for one another. As it
    does if not told otherwise, it keeps twenty for later; with a thousand, it takes very long to look through them."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)
    return httpx.AsyncClient(limits=limits, timeout=60.0)


@asynccontextmanager
async def _floor(base_url: str) -> AsyncGenerator[Read]:
    """Bare httpx: cut the bytes at blank lines, validate each data, and nothing else. Not to be imitated: it takes no
    heed of other line ends, of other fields, of errors, and of a body that ends too early."""
    from chatapi_async import ChatCompletionChunkResponse

    url = f"{base_url}/v1/llms/chat/completions"
    validate = ChatCompletionChunkResponse.model_validate_json
    async with _unlimited() as client:

        async def read(headers: Mapping[str, str], seen: Seen | None) -> int:
            count, rest = 0, b""
            async with client.stream("POST", url, headers=headers, json={"messages": MESSAGES}) as response:
                async for data in response.aiter_bytes():
                    *events, rest = (rest + data).split(b"\n\n")
                    for event in events:
                        if event == b"data: [DONE]":
                            continue
                        chunk = validate(event[6:])
                        count += 1
                        if seen is not None and (text := chunk.text):
                            seen(text)
            return count

        yield read


@asynccontextmanager
async def _httpx_sse(base_url: str) -> AsyncGenerator[Read]:
    """httpx-sse as its documentation shows it, and one validation."""
    from httpx_sse import aconnect_sse

    from chatapi_async import ChatCompletionChunkResponse

    url = f"{base_url}/v1/llms/chat/completions"
    async with _unlimited() as client:

        async def read(headers: Mapping[str, str], seen: Seen | None) -> int:
            count = 0
            async with aconnect_sse(client, "POST", url, headers=headers, json={"messages": MESSAGES}) as source:
                async for event in source.aiter_sse():
                    if event.data == "[DONE]":
                        continue
                    chunk = ChatCompletionChunkResponse.model_validate_json(event.data)
                    count += 1
                    if seen is not None and (text := chunk.text):
                        seen(text)
            return count

        yield read


@asynccontextmanager
async def _openai(base_url: str, consume: Callable[..., Awaitable[int]]) -> AsyncGenerator[Read]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="t", max_retries=0, timeout=60.0) as client:
        yield partial(consume, client.chat.completions)


async def _openai_create(completions: Any, headers: Mapping[str, str], seen: Seen | None) -> int:
    count = 0
    stream = await completions.create(model="gpt-4o", messages=MESSAGES, stream=True, extra_headers=headers)
    async for chunk in stream:
        count += 1
        if seen is not None and chunk.choices and (text := chunk.choices[0].delta.content):
            seen(text)
    return count


async def _openai_stream(completions: Any, headers: Mapping[str, str], seen: Seen | None) -> int:
    count = 0
    async with completions.stream(model="gpt-4o", messages=MESSAGES, extra_headers=headers) as stream:
        async for event in stream:
            if event.type == "chunk":
                count += 1
            elif seen is not None and event.type == "content.delta" and event.delta:
                seen(event.delta)
    return count


# ── the table ────────────────────────────────────────────────────────────────────────────────────────────────────────

_HTTPX, _OURS, _OPENAI = "httpx", "this library", "openai-python"

CLIENTS: Mapping[str, Client] = {
    "floor": Client(
        _HTTPX, "bare httpx, the floor", "cut at blank lines, each data validated, nothing else", _floor, crowds=True
    ),
    "httpx-sse": Client(
        _HTTPX, "httpx-sse by hand", "aconnect_sse, aiter_sse, each data validated", _httpx_sse, "httpx_sse"
    ),
    "chunks": Client(_OURS, "iteration", "async for chunk in stream", partial(library, consume=_chunks), crowds=True),
    "text_stream": Client(
        _OURS, "text_stream", "async for text in stream.text_stream", partial(library, consume=_text_stream)
    ),
    "events": Client(_OURS, "events()", "async for event in stream.events()", partial(library, consume=_events)),
    "get_final_completion": Client(
        _OURS,
        "get_final_completion()",
        "await stream.get_final_completion()",
        partial(library, consume=_get_final_completion),
        shows_text=False,
    ),
    "relay_sse": Client(
        _OURS, "relay_sse()", "async for event in relay_sse(stream)", partial(library, consume=_relay_sse)
    ),
    "fast": Client(
        _OURS,
        "iteration, fast transport",
        "async for chunk in stream, through FastHTTPClient",
        partial(library, consume=_chunks, http_client="FastHTTPClient"),
        needs="chatapi_async:FastHTTPClient",
        crowds=True,
    ),
    "fast-uvloop": Client(
        _OURS,
        "the same, on uvloop",
        "async for chunk in stream, through FastHTTPClient, on uvloop",
        partial(library, consume=_chunks, http_client="FastHTTPClient"),
        needs="chatapi_async:FastHTTPClient",
        loop="uvloop",
    ),
    "openai-create": Client(
        _OPENAI,
        "create(stream=True)",
        "async for chunk in await create(stream=True)",
        partial(_openai, consume=_openai_create),
        needs="openai",
        crowds=True,
    ),
    "openai-stream": Client(
        _OPENAI,
        "stream() helper",
        "async for event in its stream() helper",
        partial(_openai, consume=_openai_stream),
        needs="openai",
    ),
}
