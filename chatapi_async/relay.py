"""For web backends: an answer handed on to the backend's own clients as server-sent events."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Final

from ._background import BackgroundStream
from ._background_reader import BackgroundReader
from .errors import (
    APITimeoutError,
    BadRequestError,
    ChatAPIError,
    ConfigurationError,
    EmptyStreamError,
    NotFoundError,
    RateLimitError,
    StreamClosedError,
    StreamTruncatedError,
    UnprocessableEntityError,
)
from .types import BaseChunk

__all__ = ["SSE_HEADERS", "Relay", "relay_sse"]

logger = logging.getLogger("chatapi_async")

SSE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-store", "x-accel-buffering": "no"}
)
"""Headers for the response: what it is, and that no cache keeps it and no proxy (nginx) holds it back."""


def relay_sse(stream: AsyncIterable[BaseChunk], *, keep_alive: float = 15.0) -> Relay:
    """Return an answer as encoded server-sent events, in the shape in which the service itself sends it.

    Each item is one event: ``data: {chunk}``, at the end ``data: [DONE]``. It is the body of a streaming response of
    Starlette, FastAPI, Litestar, Quart or plain ASGI; this library and OpenAI's clients can read it.

    A failure becomes an event named ``error``, ``{"error": {"message", "type", "code"}}``, that tells what a person may
    know, and nothing of the backend; the error itself is logged. An error that is none of this library's is raised
    afterwards. Where the web server cancels the response since its client hung up, the request upstream is cancelled
    too, before the first chunk as well as after it. At most sixteen chunks are read ahead of a client that is slow.

    Args:
        stream: a :class:`~chatapi_async.ChatStream`, or any other asynchronous iterable of chunks.
        keep_alive: seconds of silence before each comment that keeps the connection open, and that lets a server which
            notices hang-ups only by sending notice one.

    Raises:
        ConfigurationError: ``keep_alive`` is no number of seconds.
    """
    return Relay(stream, keep_alive)


_AHEAD: Final = 16
"""How many chunks are read ahead of a slow client: to wait for it with each would cost twice as much."""


class Relay(BackgroundStream[BaseChunk, bytes]):
    """What :func:`relay_sse` returns: an asynchronous iterator of encoded events."""

    def __init__(self, stream: AsyncIterable[BaseChunk], keep_alive: float) -> None:
        if not 0 < keep_alive < inf:
            raise ConfigurationError(f"keep_alive={keep_alive!r} is no interval; give some seconds, such as 15.0")
        self._keep_alive = keep_alive
        self._ended: Exception | None = None
        super().__init__(BackgroundReader(stream, buffer=_AHEAD))

    async def _next(self) -> bytes:
        if self._ended is not None:
            raise self._ended
        if not await self._wait(self._keep_alive):
            return b": keep-alive\n\n"
        try:
            chunk = self._take()
        except StopAsyncIteration as end:
            self._ended = end
            return b"data: [DONE]\n\n"
        except ChatAPIError as error:
            return self._failed(error)
        except Exception as error:
            self._ended = error
            return _event_of(error)
        try:
            return b"data: %b\n\n" % chunk.model_dump_json(exclude_unset=True).encode()
        except ValueError as error:  # what the service sent is nested too deeply to be written
            return self._failed(error)

    def _failed(self, error: Exception) -> bytes:
        self._ended = StopAsyncIteration()
        logger.warning("relay_sse: the answer failed: %s: %s", type(error).__name__, error)
        return _event_of(error)


_FAILURES: tuple[tuple[tuple[type[ChatAPIError], ...], str, str, str], ...] = (
    ((RateLimitError,), "rate_limit_error", "rate_limited", "Too many requests at the moment. Try again shortly."),
    ((APITimeoutError,), "timeout_error", "timeout", "The answer took too long. Try again."),
    ((StreamTruncatedError,), "api_error", "connection_lost", "The answer was cut off. Try again."),
    ((EmptyStreamError,), "api_error", "empty", "There was no answer. Try again."),
    ((StreamClosedError,), "api_error", "cancelled", "The answer was cancelled."),
    ((NotFoundError,), "not_found_error", "not_found", "This conversation does not exist."),
    ((BadRequestError, UnprocessableEntityError), "invalid_request_error", "refused", "This request was refused."),
)


_ANY_OTHER = ("api_error", "unavailable", "The assistant cannot answer now.")


def _event_of(error: Exception) -> bytes:
    """Say of an error what a person in front of it may know."""
    type_, code, message = next((words for kinds, *words in _FAILURES if isinstance(error, kinds)), _ANY_OTHER)
    body = {"error": {"message": message, "type": type_, "code": code}}
    return b"event: error\ndata: %b\n\n" % json.dumps(body).encode()
