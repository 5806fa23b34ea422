"""Asks through the library's own client, as a user's program does, and notes what is heard and when."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
from anyio import current_time

from chatapi_async._stream import ChatStream
from chatapi_async.types import BaseChunk, Usage

from ._answers import Heard

_DONE: Final = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_TAIL_BYTES: Final = 4096
_NEW_CONNECTION: Final = ("connect_tcp.started", "connect_tcp.complete", "start_tls.started", "start_tls.complete")


class Line:
    """Listens on an HTTP client: which connections it makes, and how the body of its last response ends."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.connections = 0
        """How many connections were made so far."""
        self.connecting = 0.0
        """Seconds that making them took."""
        self.tail = b""
        """The end of the last response's body, as it came."""
        self._began = 0.0
        client.event_hooks = {"request": [self._listen_to_request], "response": [self._listen_to_response]}

    async def _listen_to_request(self, request: httpx.Request) -> None:
        trace = request.extensions["trace"]

        async def traced(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith(_NEW_CONNECTION):
                self._note(event)
            await trace(event, info)

        request.extensions["trace"] = traced

    async def _listen_to_response(self, response: httpx.Response) -> None:
        self.tail = b""
        response.stream = _Overheard(response.stream, self)

    def _note(self, event: str) -> None:
        now = current_time()
        if event.endswith(".started"):
            self.connections += event.endswith("connect_tcp.started")
        else:
            self.connecting += now - self._began
        self._began = now


class _Overheard(httpx.AsyncByteStream):
    """The body of a response, whose end is remembered."""

    def __init__(self, stream: Any, line: Line) -> None:
        self._stream = stream
        self._line = line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._line.tail = (self._line.tail + data)[-_TAIL_BYTES:]
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


class Question:
    """One request and its answer, heard in three parts, each of which raises what the stream raises.

    Args:
        stream: the request, not yet sent.
        line: where its client is listened to.
    """

    def __init__(self, stream: ChatStream[BaseChunk], line: Line) -> None:
        self.heard = Heard()
        self._stream = stream
        self._line = line
        self._connections = line.connections
        self._connecting = line.connecting
        self._began = current_time()

    async def begin(self) -> None:
        """Send the request, and wait for the response to begin."""
        try:
            await self._stream
        finally:
            heard = self.heard
            heard.connections = self._line.connections - self._connections
            heard.connecting = self._line.connecting - self._connecting
            heard.status = self._stream.status_code
            headers = self._stream.headers
            heard.answered_after = self._now()
            heard.media_type = re.split("[;,]", headers.get("content-type", ""))[0].strip().lower()
            heard.length_known = "content-length" in headers
            heard.closes = headers.get("connection", "").lower() == "close"

    async def first_text(self) -> None:
        """Read on to the first text, or to the end where there is none."""
        await self._read(to_text=True)

    async def rest(self) -> None:
        """Read the rest."""
        await self._read(to_text=False)
        completion = self._stream.snapshot
        choice = completion.choices[0] if completion.choices else None
        self.heard.finish_reason = None if choice is None else choice.finish_reason
        self.heard.usage = _in_words(completion.usage)
        if "content-encoding" not in self._stream.headers:
            self.heard.done = bool(_DONE.search(self._line.tail))

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def _read(self, *, to_text: bool) -> None:
        heard = self.heard
        try:
            async for chunk in self._stream:
                now = self._now()
                heard.arrivals.append(now)
                if heard.first_text is None and chunk.text:
                    heard.first_text = now
                    if to_text:
                        return
        finally:
            heard.duration = self._now()

    def _now(self) -> float:
        return current_time() - self._began


def _in_words(usage: Usage | None) -> str:
    if usage is None:
        return ""
    prompt, completion, total = (
        "?" if count is None else str(count)
        for count in (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    )
    return f"{prompt} + {completion} = {total} tokens"
