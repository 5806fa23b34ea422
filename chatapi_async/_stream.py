"""``ChatStream``: one answer as it arrives, and every way of reading it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Generic, Self, TypeVar, overload

from ._accumulate import first_message
from ._failures import closed
from ._iterators import EventIterator, ObjectIterator, TextIterator
from ._reader import StreamReader, StreamStats
from .errors import AnswerParseError, ConfigurationError
from .types import (
    AnyEvent,
    ChatCompletionResponse,
    ChunkEvent,
    ChunkT,
    HeartbeatEvent,
    Message,
    ModelT,
    UnknownEvent,
)
from .types.response import checked_model

T = TypeVar("T")

logger = logging.getLogger("chatapi_async")

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class ChatStream(Generic[ChunkT]):
    """One answer, as it arrives: an asynchronous iterator of chunks.

    It is returned at once, without I/O. The request is sent when the stream is first iterated, awaited, or entered with
    ``async with``; whichever comes first. Every way of reading takes from the same stream: each chunk is seen once, in
    whatever mixture, and :meth:`get_final_completion` after half an iteration reads the rest.

    Leaving a loop early leaves the answer running on the server; use ``async with``, :meth:`stop` or :meth:`aclose` to
    end it there and then. A stream that is forgotten is closed when it is collected.

    A read that is cancelled closes the stream: bytes may have been lost, so it never ends as if it were complete.
    One task reads at a time. :meth:`stop` and :meth:`aclose` may be called by another.
    """

    def __init__(self, reader: StreamReader[ChunkT]) -> None:
        self._reader = reader
        self._unknown_logged = False

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChunkT:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: the answer is complete, or was stopped.
            ChatAPIError: see the errors' own descriptions; what had arrived stays in :attr:`snapshot`.
        """
        while (item := await self._reader.next()) is not None:
            if isinstance(item, UnknownEvent):
                self._log_unknown(item)
            elif not isinstance(item, HeartbeatEvent):
                self._reader.accumulator.add(item)
                return item
        raise StopAsyncIteration

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """The new text of the first choice, piece by piece; never an empty piece."""
        return TextIterator(self)

    def events(self) -> AsyncIterator[ChunkEvent[ChunkT] | AnyEvent]:
        """Return an iterator of typed events: each chunk, followed by what it means. Match them on ``type``."""
        return EventIterator(self._reader, self.aclose)

    @overload
    def partial_objects(self, model: type[ModelT], every: float = 0.1) -> AsyncIterator[ModelT]: ...
    @overload
    def partial_objects(self, model: type[dict[str, Any]], every: float = 0.1) -> AsyncIterator[dict[str, Any]]: ...
    def partial_objects(self, model: type[Any], every: float = 0.1) -> AsyncIterator[Any]:
        """Return an iterator of growing snapshots of the JSON that the first choice writes: its text, or its first tool
        call's arguments while it has no text. No two in succession are equal; the last is the whole answer, validated.

        Before that, an instance of a model holds what is whole and valid so far, strings that are still growing too;
        any other field is its default, or None; so is one that may yet be of several models. Validators of an object
        that is not yet whole are not called.

        Args:
            model: a pydantic model, or ``dict``.
            every: seconds from one snapshot to the next, at least, since each is parsed from the start; more where
                that takes long. 0, for short answers, gives one after each chunk that changes it. A snapshot that was
                not due comes with the next chunk, or the end.

        Raises:
            ConfigurationError: ``model`` is neither, or ``every`` is no time.
            AnswerParseError: from the iterator: the whole answer is no JSON, or does not fit. It comes after the last
                snapshot, as every other error of the stream does.
        """
        from ._partial import Snapshots, kind_of  # half as large as all the rest, and needed for this alone

        kind = kind_of(model, "partial_objects", or_dict=True)
        if not every >= 0:
            raise ConfigurationError(f"every={every!r} is no time; give seconds, 0 or more")
        return ObjectIterator(self, Snapshots(kind), every, self._parsed)

    async def until_done(self) -> None:
        """Read the stream to its end.

        Raises:
            ChatAPIError: as iteration does.
        """
        async for _ in self:
            pass

    async def get_final_completion(self) -> ChatCompletionResponse:
        """Read the stream to its end, and return the completion, with every choice, usage and :attr:`completeness`.

        A stopped stream returns what had arrived; ``finish_reason == "length"`` is a result like any other.

        Raises:
            ChatAPIError: as iteration does.
        """
        await self.until_done()
        return self.snapshot

    async def get_final_message(self) -> Message:
        """Read the stream to its end, and return the message of the first choice.

        Raises:
            StreamClosedError: the stream was stopped before any of the answer had come.
            ChatAPIError: as iteration does.
        """
        completion = await self.get_final_completion()
        if completion.message is None and completion.completeness == "stopped":
            error = closed("it was stopped before any of the answer had come")
            error.partial = completion
            raise error
        return first_message(completion)

    async def get_final_text(self) -> str:
        """Read the stream to its end, and return the text of the first choice.

        Raises:
            ChatAPIError: as iteration does.
        """
        return (await self.get_final_completion()).text

    async def get_final_parsed(self, model: type[ModelT]) -> ModelT:
        """Read the stream to its end, and return the first choice as an instance of ``model``: its text, or its first
        tool call's arguments.

        Raises:
            ConfigurationError: ``model`` is no pydantic model; nothing was read.
            AnswerParseError: the answer is no JSON, or does not fit ``model``.
            ChatAPIError: as iteration does.
        """
        checked_model(model, "get_final_parsed")
        completion = await self.get_final_completion()
        return self._parsed(lambda: completion.parse(model))

    # ── opening and closing ──────────────────────────────────────────────────────────────────────────────────────────

    def __await__(self) -> Generator[object, None, Self]:
        """Send the request, wait for the response to begin, and return the stream itself."""
        return self._opened().__await__()

    async def __aenter__(self) -> Self:
        return await self._opened()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def stop(self) -> None:
        """End the answer now, and keep what came: iteration ends, :meth:`get_final_completion` returns the part that
        had arrived, with ``completeness == "stopped"``. No effect on a stream that has ended."""
        await self._reader.end_early(None)

    async def aclose(self) -> None:
        """Close the stream; reading on raises :class:`StreamClosedError`. No effect on a stream that has ended."""
        await self._reader.end_early(closed("it was closed"))

    # ── what is known so far ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def snapshot(self) -> ChatCompletionResponse:
        """The completion so far: ``truncated`` while the stream runs."""
        return self._reader.snapshot

    @property
    def status_code(self) -> int | None:
        """HTTP status of the response, None before it."""
        response = self._reader.response
        return None if response is None else response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response, matched without regard to case; empty before it."""
        response = self._reader.response
        return _NO_HEADERS if response is None else response.headers

    @property
    def request_id(self) -> str | None:
        """The server's id of the request, from its headers; None before the response, or where it sends none."""
        response = self._reader.response
        return None if response is None else response.request_id

    @property
    def stats(self) -> StreamStats:
        """Measurements so far."""
        return self._reader.stats

    def __reduce__(self) -> str:
        raise TypeError("a ChatStream cannot be pickled or copied; hand on its snapshot")

    def __repr__(self) -> str:
        return f"<ChatStream {self._reader}>"

    async def _opened(self) -> Self:
        await self._reader.open()
        return self

    def _parsed(self, parse: Callable[[], T]) -> T:
        try:
            return parse()
        except AnswerParseError as error:
            text = error.text
            error.request_id = self.request_id
            self._reader.conceal(error)
            if error.text != text:
                error.__cause__ = error.__context__ = None  # pydantic's own message shows a part of the text
            raise

    def _log_unknown(self, event: UnknownEvent) -> None:
        if not self._unknown_logged:
            self._unknown_logged = True
            logger.warning(
                "%s: skipped an unknown event %r (logged once a stream)", str(self._reader), event.event[:200]
            )
