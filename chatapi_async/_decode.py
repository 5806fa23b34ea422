"""One event, or one JSON body, in; a chunk, another event, or the end out; or an error. No I/O.

What an event is goes by what it holds, not by a list of names, so that no event vanishes for want of an entry:
``[DONE]`` ends the stream; no data is a heartbeat; an object with ``choices`` is a chunk; an error object, or an event
named ``error``, is an error; other JSON, or an event with a name of its own, is unknown and handed over; anything else
is broken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, Literal

from pydantic import ValidationError

from ._failures import find_error, server_stream_error, shortened
from ._json import is_array, is_object
from ._surrogates import SurrogateJoiner, without_halves
from .errors import StreamDecodeError
from .types import BaseChunk, ChunkT, UnknownEvent


class _Signal(Enum):
    DONE = "[DONE]"
    NOTHING = "nothing"
    HEARTBEAT = "heartbeat"


DONE: Final = _Signal.DONE
"""The server said that the stream is finished."""
NOTHING: Final = _Signal.NOTHING
"""The body broke off in the middle of this event."""
HEARTBEAT: Final = _Signal.HEARTBEAT
"""The server showed that it is alive."""
Decoded = UnknownEvent | Literal[_Signal.DONE, _Signal.NOTHING, _Signal.HEARTBEAT]

# Fields that are left out where they are of a wrong kind: an answer that was paid for does not end for them.
_BESIDE_THE_ANSWER: Final = frozenset({"id", "object", "created", "model", "usage", "system_fingerprint"})

_BEGINS_AS_ERROR: Final = re.compile(r'\s*\{\s*"error"\s*:\s*["{]')

# What httpx-sse, as the format says, calls an event that names no type.
_UNNAMED = frozenset({"", "message"})


class ChunkDecoder(Generic[ChunkT]):
    """Decodes the events of one stream. Stateful only for characters that are cut in half between two chunks.

    Args:
        chunk_type: the model of a chunk.
    """

    def __init__(self, chunk_type: type[ChunkT]) -> None:
        self._chunk_type = chunk_type
        self._validate_json: Callable[[str], ChunkT] = chunk_type.__pydantic_validator__.validate_json
        self._surrogates = SurrogateJoiner()
        self._began = False

    def decode(self, name: str, data: str, *, unterminated: bool = False) -> ChunkT | Decoded:
        """Decode one event.

        Args:
            name: the event's type, ``""`` or ``"message"`` where it names none.
            data: its data.
            unterminated: the body ended before the event did; then it counts only if it is whole.

        Raises:
            ServerStreamError: the event is an error.
            StreamDecodeError: the event should be a chunk, and is none.
        """
        if len(data) < 32:
            if data.strip() == "[DONE]" and name != "error":
                return DONE
            if not (data or unterminated or name == "error"):
                return HEARTBEAT
        if name != "error" and not self._surrogates.held:
            try:
                chunk = self._validate_json(data)
            except ValidationError:
                pass  # not a plain chunk: found out below what it is
            else:
                if "choices" in chunk.model_fields_set and not (
                    _may_be_error(chunk) or (not self._began and self._may_be_whole(chunk))
                ):
                    return chunk
        return self._classify(name, data, unterminated)

    def decode_body(self, text: str) -> ChunkT:
        """Decode a JSON body: a completion, whose messages become deltas, or a chunk.

        Raises:
            ServerStreamError: the body is an error object.
            StreamDecodeError: the body is no JSON, or JSON of another kind.
        """
        try:
            body = without_halves(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise StreamDecodeError(f"the JSON body cannot be read: {error}", event=text) from None
        if is_object(body):
            if error_object := find_error(body):
                raise server_stream_error(error_object)
            if is_array(choices := body.get("choices")):
                return self._validate({**body, "choices": [_with_delta(choice) for choice in choices]}, text)
        raise StreamDecodeError("the JSON body is neither a completion nor a chunk nor an error", event=text)

    def _classify(self, name: str, data: str, unterminated: bool) -> ChunkT | Decoded:
        try:
            value = self._surrogates.join(json.loads(data))
        except (ValueError, RecursionError) as error:
            if name == "error" or (unterminated and _BEGINS_AS_ERROR.match(data)):
                raise server_stream_error(data) from None
            if unterminated:
                return NOTHING
            if name not in _UNNAMED:
                return UnknownEvent(name, data)
            raise StreamDecodeError(f"an event is no JSON ({error}): {shortened(data, 200)!r}", event=data) from None
        if name == "error":
            raise server_stream_error(value)
        if not is_object(value):
            return UnknownEvent(name, data)
        if error_object := find_error(value, named=name not in _UNNAMED):
            raise server_stream_error(error_object)
        if self._surrogates.held:
            self._surrogates.release_finished(value)
        if "choices" in value or str(value.get("object")).startswith("chat.completion"):
            if not self._began and is_array(choices := value.get("choices")):
                value = {**value, "choices": [_with_delta(choice) for choice in choices]}
                self._began = any(is_object(choice) and choice.get("delta") for choice in value["choices"])
            return self._validate(value, data)
        return UnknownEvent(name, data)

    def _may_be_whole(self, chunk: BaseChunk) -> bool:
        """Tell whether the event may be a whole completion: a message, where no delta has come before."""
        self._began = any(choice.delta.model_fields_set for choice in chunk.choices)
        return not self._began and any("message" in (choice.model_extra or ()) for choice in chunk.choices)

    def _validate(self, fields: dict[str, Any], data: str) -> ChunkT:
        try:
            return self._chunk_type.model_validate(fields)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False)
            wrong = {problem["loc"][0] for problem in problems}
            if wrong <= _BESIDE_THE_ANSWER:
                return self._validate({name: value for name, value in fields.items() if name not in wrong}, data)
            place = ".".join(str(step) for step in problems[0]["loc"])
            raise StreamDecodeError(f"an event is no valid chunk: {place}: {problems[0]['msg']}", event=data) from None


def _may_be_error(chunk: BaseChunk) -> bool:
    extra = chunk.__pydantic_extra__
    if not chunk.choices:
        return any(key in (extra or ()) for key in ("error", "message", "detail"))
    if extra and extra.get("error"):
        return True
    for choice in chunk.choices:
        extra = choice.__pydantic_extra__
        if extra and extra.get("error"):
            return True
    return False


def _with_delta(choice: Any) -> Any:
    """Return a choice of a JSON body as a choice of a chunk: its whole message is the delta."""
    if not is_object(choice):
        return choice
    message = choice.get("message")
    if choice.get("delta") or not is_object(message):
        return choice
    delta = dict(message)
    if is_array(calls := message.get("tool_calls")):
        # In a whole message each entry is a call of its own, whatever index it has.
        delta["tool_calls"] = [
            {**call, "index": position} if is_object(call) else call for position, call in enumerate(calls)
        ]
    return {**{key: value for key, value in choice.items() if key != "message"}, "delta": delta}
