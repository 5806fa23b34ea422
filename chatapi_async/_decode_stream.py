"""``decode_stream``: what the client reads of a body, without a client. No I/O.

Decoding and the judgement of the end are the client's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast, overload

from ._accumulate import MessageAccumulator
from ._body_decoder import DEFAULT_MAX_EVENT_BYTES, BodyDecoder
from ._decode import DONE, HEARTBEAT, NOTHING, Decoded
from ._ends import attach, completeness_after, end_with_body, end_with_done
from .errors import ChatAPIError, ConfigurationError
from .types import ChatCompletionChunkResponse, ChunkT, UnknownEvent


@dataclass(frozen=True, slots=True)
class EndOfBody:
    """How the bytes ended."""

    how: str | None = "the body ended"
    """In words, for messages; None where the client left it, so that it is no end to be judged."""
    whole: bool = True
    """Whether the body ended by itself."""
    error: ChatAPIError | None = None
    """What ended it, where that was the client's own doing, such as a limit."""

    @property
    def left(self) -> bool:
        """Whether the client left it without a failure, so that nothing of what follows is one."""
        return self.how is None and self.error is None


@overload
def decode_stream(
    body: bytes | Iterable[bytes],
    *,
    content_type: str = ...,
    choices: int = ...,
    max_event_bytes: int = ...,
) -> Iterator[ChatCompletionChunkResponse]: ...
@overload
def decode_stream(
    body: bytes | Iterable[bytes],
    chunk_type: type[ChunkT],
    *,
    content_type: str = ...,
    choices: int = ...,
    max_event_bytes: int = ...,
) -> Iterator[ChunkT]: ...
def decode_stream(
    body: bytes | Iterable[bytes],
    chunk_type: type[Any] = ChatCompletionChunkResponse,
    *,
    content_type: str = "text/event-stream",
    choices: int = 1,
    max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
) -> Iterator[Any]:
    """Return an iterator of the chunks of a response's body, which ends as a stream of the client with that body does.

    ::

        for chunk in decode_stream(Path("answer.sse").read_bytes()):
            print(chunk.text, end="")

    Nothing is read after the answer's end, and events that are no chunks are passed over.

    Args:
        body: the whole body, or its pieces, however they are split; each is taken when the chunks of those before it
            have been.
        chunk_type: the model of a chunk; ``ChatCompletionWithChatroomStreamResponse`` for a chatroom's.
        content_type: the response's ``Content-Type``. By default that of an event stream, which may turn out to be one
            JSON object of at most 64 KiB; give ``"application/json"`` for any other JSON.
        choices: how many answers were asked for: the request's ``n``. Default 1.
        max_event_bytes: bound of one event, and of a JSON answer, in bytes. 16 MiB by default.

    Raises:
        ConfigurationError: ``body`` is text, which has to be encoded first.
        StreamError: from the iterator, after every chunk that came before; it carries them as ``.partial``.
    """
    if isinstance(body, str):
        raise ConfigurationError("decode_stream takes the bytes of a body, not text; encode it as UTF-8 first")
    pieces = (bytes(body),) if isinstance(body, bytes | bytearray | memoryview) else body
    return decoded(
        pieces,
        {"content-type": content_type},
        chunk_type=cast(type[ChatCompletionChunkResponse], chunk_type),
        choices=choices,
        max_event_bytes=max_event_bytes,
        end=EndOfBody(),
    )


def decoded(
    pieces: Iterable[bytes],
    headers: Mapping[str, str],
    *,
    chunk_type: type[ChunkT],
    choices: int,
    max_event_bytes: int,
    end: EndOfBody,
) -> Iterator[ChunkT]:
    """Yield the chunks of a body of any kind that ends in any way.

    Raises:
        StreamError: as the client raises it, with its part.
        ChatAPIError: what ended the body, likewise.
    """
    accumulator = MessageAccumulator()
    decoder = BodyDecoder(headers, chunk_type=chunk_type, max_event_bytes=max_event_bytes)
    chunks = 0
    try:
        for item in _items(decoder, pieces, end):
            if item is DONE:
                end_with_done(accumulator)
                return
            if item is NOTHING or item is HEARTBEAT or isinstance(item, UnknownEvent):
                continue
            chunks += 1
            accumulator.add(item)
            yield item
        if end.error is not None:
            raise end.error
        if end.how is None:
            return
        end_with_body(accumulator, how=end.how, chunks=chunks, choices=choices, excerpt=decoder.excerpt)
    except ChatAPIError as error:
        if end.left:
            return  # before it came to that
        attach(error, accumulator.completion(completeness_after(error)), chunks)
        raise


def _items(decoder: BodyDecoder[ChunkT], pieces: Iterable[bytes], end: EndOfBody) -> Iterator[ChunkT | Decoded]:
    yield from decoder.feed(b"")
    for piece in pieces:
        yield from decoder.feed(piece)
    if not end.left:
        yield from decoder.close(whole=end.whole)
