"""The upstream's answer, as it passes by, merged into the message that a chatroom keeps. No I/O.

This is the one module of the emulator that knows the library beyond its types: it merges as the library does.
"""

from __future__ import annotations

from chatapi_async._accumulate import MessageAccumulator
from chatapi_async._decode import DONE, HEARTBEAT, NOTHING, ChunkDecoder
from chatapi_async._sse import EventDecoder
from chatapi_async.errors import StreamError
from chatapi_async.types import ChatCompletionChunkResponse, Message, UnknownEvent

_MAX_EVENT_BYTES = 16 * 1024 * 1024


class AnswerMerger:
    """Merges one event stream. An answer ended well with ``[DONE]``, or with the body, if it was whole by then.

    Args:
        choices: how many answers were asked for; the first is the one that is kept.
    """

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self._events = EventDecoder(max_event_bytes=_MAX_EVENT_BYTES)
        self._decoder = ChunkDecoder(ChatCompletionChunkResponse)
        self._accumulator = MessageAccumulator()
        self._over = False

    def feed(self, data: bytes) -> Message | None:
        """Merge what came; return the message once ``[DONE]`` has come, and None before and after."""
        if self._over:
            return None
        try:
            for name, event in self._events.feed(data):
                if self._is_done(name, event):
                    return self._message()
        except StreamError:
            self._over = True  # it went wrong, and the client is told by the same bytes
        return None

    def close(self) -> Message | None:
        """Return the message, if the body ended well without ``[DONE]``, and None otherwise."""
        if self._over:
            return None
        try:
            for name, event in self._events.close():
                if self._is_done(name, event, unterminated=True):
                    return self._message()
        except StreamError:
            return None
        whole = self._accumulator.finished and len(self._accumulator.completion().choices) >= self._choices
        return self._message() if whole else None

    def _is_done(self, name: str, event: str, *, unterminated: bool = False) -> bool:
        decoded = self._decoder.decode(name, event, unterminated=unterminated)
        if decoded is DONE:
            self._over = True
            return True
        if not (decoded is HEARTBEAT or decoded is NOTHING or isinstance(decoded, UnknownEvent)):
            self._accumulator.add(decoded)
        return False

    def _message(self) -> Message | None:
        return _kept(self._accumulator)


def message_of(body: bytes) -> Message | None:
    """Return the first message of a completion; None where the body holds none."""
    accumulator = MessageAccumulator()
    try:
        accumulator.add(ChunkDecoder(ChatCompletionChunkResponse).decode_body(body.decode("utf-8-sig", "replace")))
    except StreamError:
        return None
    return _kept(accumulator)


def _kept(accumulator: MessageAccumulator) -> Message | None:
    """Return of the first answer what goes back with the next question; some servers refuse further fields, and null
    for a text without tool calls beside it, as of a model that was cut off while it reasoned."""
    message = accumulator.completion().message
    if message is None:
        return None
    if message.tool_calls:
        return Message.assistant(message.content, tool_calls=message.tool_calls)
    return Message.assistant(message.content or "")
