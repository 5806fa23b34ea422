"""What those who observe streams are told: when a request is begun, and once more when its stream has ended."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from ._accumulate import MessageAccumulator
from ._reader import StreamStats
from .errors import ConfigurationError
from .types import ChatCompletionRequest, ChatCompletionResponse, Completeness

logger = logging.getLogger("chatapi_async")

FAILURES = (Exception, asyncio.CancelledError)
"""What observers raise that is not for the whole program. The result of a cancelled task raises the second; where
nothing is awaited, nobody cancels the one who reads."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamCall:
    """A call whose request is begun."""

    operation: Literal["chat_completion", "chat_completion_on_chatroom"]
    """Which of the two operations it is of."""
    chatroom_id: str | None
    """The chatroom; None for ``chat_completion``."""
    operator_id: str
    """The ``x-operator-id`` header."""
    server_address: str
    """The host of the base URL."""
    server_port: int
    """Its port; 443 or 80 where the base URL names none."""
    body: bytes = field(repr=False)
    """The request as it is sent, as JSON; it holds what people wrote."""

    @cached_property
    def request(self) -> ChatCompletionRequest:
        """The request that is sent, ``stream`` included; read from ``body`` when it is first asked for."""
        return ChatCompletionRequest.model_validate_json(self.body)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamEnd(StreamCall):
    """A stream that has ended, in whatever way: what ``on_end`` is called with."""

    completeness: Completeness
    """How it ended. ``stopped`` is every end that is the caller's: ``stop()``, ``aclose()``, leaving, forgetting,
    cancelling, closing the client."""
    error: Exception | None
    """What was raised to the one who read; None where it is ``complete`` or ``stopped``. Its message may hold the
    server's words."""
    stats: StreamStats
    """Time to the first chunk, chunks, heartbeats, bytes, duration."""
    status_code: int | None
    """HTTP status of the response, that of an error too; None where none came."""
    request_id: str | None
    """The server's id of the request, None where it sent none."""
    attempts: int
    """How often the request was begun, retries and renewed tokens included."""
    accumulator: MessageAccumulator = field(repr=False)
    """What came, merged."""

    @cached_property
    def completion(self) -> ChatCompletionResponse:
        """What came, as a completion: choices, ``usage``, ``model``, ``id``; made when it is first asked for."""
        return self.accumulator.completion(self.completeness)


def stream_call(url: str, headers: Mapping[str, str], body: bytes, chatroom_id: str | None) -> StreamCall:
    """Describe the request that goes to a URL."""
    parts = urlsplit(url)
    return StreamCall(
        operation="chat_completion" if chatroom_id is None else "chat_completion_on_chatroom",
        chatroom_id=chatroom_id,
        operator_id=headers["x-operator-id"],
        server_address=parts.hostname or "",
        server_port=parts.port or _PORTS[parts.scheme],
        body=body,
    )


def stream_end(call: StreamCall, **how: Any) -> StreamEnd:
    """Return the same call together with how its stream ended: the fields that ``StreamEnd`` has beside."""
    end = StreamEnd(**{each.name: getattr(call, each.name) for each in fields(call)}, **how)
    vars(end).update(vars(call))  # the request too, if it was read
    return end


class Observation(Protocol):
    """One stream, observed."""

    def sending(self) -> AbstractContextManager[object]:
        """Return what is entered while the request is sent, until the response begins, in one task and context."""
        ...

    def ended(self, end: StreamEnd, /) -> object:
        """Called once, when the stream has ended."""
        ...


class Telemetry(Protocol):
    """Observes streams from their begin."""

    def stream_began(self, call: StreamCall) -> Observation:
        """Called in the task that is about to send the request."""
        ...


class _EndHook:
    """The observer that is a function for the end."""

    def __init__(self, on_end: Callable[[StreamEnd], object]) -> None:
        self.ended = on_end

    def stream_began(self, call: StreamCall) -> _EndHook:
        return self

    def sending(self) -> AbstractContextManager[object]:
        return nullcontext()


def observers(on_end: Callable[[StreamEnd], object] | None, telemetry: Telemetry | None) -> tuple[Telemetry, ...]:
    """Read what the client was given.

    Raises:
        ConfigurationError: ``on_end`` is no plain function, or ``telemetry`` does not observe streams.
    """
    found: list[Telemetry] = []
    if telemetry is not None:
        if isinstance(telemetry, type) or not callable(getattr(telemetry, "stream_began", None)):
            kind = telemetry.__name__ if isinstance(telemetry, type) else f"an instance of {type(telemetry).__name__}"
            raise ConfigurationError(
                f"telemetry= was given {kind}; give chatapi_async.otel.OpenTelemetry(), an instance"
            )
        found.append(telemetry)
    if on_end is not None:
        if not callable(on_end):
            raise ConfigurationError(f"on_end must be a function, not {type(on_end).__name__}")
        if inspect.iscoroutinefunction(on_end) or inspect.iscoroutinefunction(type(on_end).__call__):
            raise ConfigurationError(
                "on_end must be a plain function: a stream can end where nothing can be awaited. "
                "Let it put what it gets into a queue that a task of yours reads, or start a task"
            )
        found.append(_EndHook(on_end))
    return tuple(found)


def begin(observers: tuple[Telemetry, ...], call: StreamCall) -> list[Observation]:
    """Tell all observers that a request is begun. One that fails is logged, and told no more of this stream."""
    observations: list[Observation] = []
    for observer in observers:
        try:
            observations.append(observer.stream_began(call))
        except FAILURES:
            logger.exception("telemetry failed when a stream began; the stream goes on without it")
    return observations


@contextmanager
def sending(observations: list[Observation]) -> Generator[None]:
    """Have all observers see that the request is sent within. One that fails is logged."""
    stack = ExitStack()
    for observation in observations:
        try:
            stack.enter_context(observation.sending())
        except FAILURES:
            logger.exception("telemetry failed before a request was sent; it is sent all the same")
    try:
        yield
    finally:
        try:
            stack.close()
        except FAILURES:
            logger.exception("telemetry failed after a request was sent; the stream goes on")


def report(observations: list[Observation], end: StreamEnd) -> None:
    """Tell all observers that the stream has ended. One that fails is logged, and disturbs neither others nor it."""
    for observation in observations:
        try:
            observation.ended(end)
        except FAILURES:
            logger.exception("on_end, or telemetry, failed when a stream had ended; the stream itself is not affected")
