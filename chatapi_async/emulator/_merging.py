"""The upstream's answer, as it passes by, merged into the message that a chatroom keeps. No I/O.

What is merged, and whether its end is a good one, is for the library's own modules to say, as for its client.
"""

from __future__ import annotations

from collections.abc import Iterator

from chatapi_async._accumulate import MessageAccumulator
from chatapi_async._body_decoder import DEFAULT_MAX_EVENT_BYTES, BodyDecoder
from chatapi_async._decode import DONE, HEARTBEAT, NOTHING, Decoded
from chatapi_async._ends import end_with_body
from chatapi_async.errors import StreamError
from chatapi_async.types import ChatCompletionChunkResponse, Message, UnknownEvent


class AnswerMerger:
    """Merges one answer. It ended well with ``[DONE]``, or with the body, if it was whole by then.

    Args:
        choices: how many answers were asked for; the first is the one that is kept.
        content_type: of the body.
    """

    def __init__(self, choices: int, content_type: str = "text/event-stream") -> None:
        self._choices = choices
        self._decoder = BodyDecoder(
            {"content-type": content_type},
            chunk_type=ChatCompletionChunkResponse,
            max_event_bytes=DEFAULT_MAX_EVENT_BYTES,
        )
        self._accumulator = MessageAccumulator()
        self._over = False

    def feed(self, data: bytes) -> Message | None:
        """Merge what came; return the message once ``[DONE]`` has come, and None before and after."""
        return None if self._over else self._merged(self._decoder.feed(data))

    def close(self) -> Message | None:
        """Return the message, if the body ended well without ``[DONE]``, and None otherwise."""
        if self._over:
            return None
        message = self._merged(self._decoder.close(whole=True))
        if self._over:
            return message
        try:
            end_with_body(self._accumulator, how="", chunks=0, choices=self._choices, excerpt="")
        except StreamError:
            return None
        return _kept(self._accumulator)

    def _merged(self, items: Iterator[ChatCompletionChunkResponse | Decoded]) -> Message | None:
        try:
            for item in items:
                if item is DONE:
                    self._over = True
                    return _kept(self._accumulator)
                if not (item is HEARTBEAT or item is NOTHING or isinstance(item, UnknownEvent)):
                    self._accumulator.add(item)
        except StreamError:
            self._over = True  # it went wrong, and the client is told by the same bytes
        return None


def message_of(body: bytes) -> Message | None:
    """Return the first message of a completion; None where the body holds none."""
    merger = AnswerMerger(1, "application/json")
    merger.feed(body)
    return merger.close()


def _kept(accumulator: MessageAccumulator) -> Message | None:
    """Return of the first answer what goes back with the next question; some servers refuse further fields, and null
    for a text without tool calls beside it, as of a model that was cut off while it reasoned."""
    message = accumulator.completion().message
    if message is None:
        return None
    if message.tool_calls:
        return Message.assistant(message.content, tool_calls=message.tool_calls)
    return Message.assistant(message.content or "")
