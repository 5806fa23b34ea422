"""Chunks in, a completion out, and the typed events between. No I/O.

The rules go by field, never by the type of a value: texts append; ``role``, ids and names are set once;
``finish_reason`` and ``usage`` are the last that is not empty; lists of details grow; of any other field the last value
that is not null stays. Choices are told apart by their index, not by position. Every piece is touched once: texts are
lists of pieces, joined when they are asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from typing import Any

from pydantic import ValidationError

from ._json import is_array, is_object
from ._tool_calls import ToolCallMerger, keep_last
from .errors import EmptyStreamError
from .types import (
    AnyEvent,
    BaseChunk,
    ChatCompletionResponse,
    Choice,
    ChunkChoice,
    Completeness,
    ContentDeltaEvent,
    ContentDoneEvent,
    ContentPart,
    FinishEvent,
    FunctionToolCallArgumentsDeltaEvent,
    FunctionToolCallArgumentsDoneEvent,
    Message,
    StreamToolCall,
    Usage,
    UsageEvent,
)
from .types.events import TextBuffer
from .types.message import text_of

# Fields beside the contract's that providers send in pieces: as text, and as lists.
_TEXT_FIELDS = frozenset({"reasoning_content", "reasoning", "refusal"})
_LIST_FIELDS = frozenset({"reasoning_details", "annotations"})


class MessageAccumulator:
    """Merges the chunks of one stream into a completion. Synchronous, and independent of where the chunks come from.

    ::

        accumulator = MessageAccumulator()
        for chunk in chunks:
            accumulator.add(chunk)
        completion = accumulator.completion()
    """

    def __init__(self) -> None:
        self._choices: dict[int, _GrowingChoice] = {}
        self._id = ""
        self._model = ""
        self._created: int | None = None
        self._usage: Usage | None = None
        self._extra: dict[str, Any] = {}

    @property
    def has_choices(self) -> bool:
        """Whether any choice has come."""
        return bool(self._choices)

    @property
    def finished(self) -> bool:
        """Whether every choice that has come ended with a finish reason; False where none has come."""
        return bool(self._choices) and all(choice.finished for choice in self._choices.values())

    def add(self, chunk: BaseChunk) -> None:
        """Merge the next chunk."""
        self._add(chunk, None)

    def add_with_events(self, chunk: BaseChunk) -> list[AnyEvent]:
        """Merge the next chunk, and return the events that it means, in order."""
        events: list[AnyEvent] = []
        self._add(chunk, events)
        return events

    def end(self) -> list[AnyEvent]:
        """Return the events of what is whole now that the stream has ended, for choices without a finish reason."""
        events: list[AnyEvent] = []
        for choice in self._choices.values():
            choice.announce_done(events)
        return events

    def completion(self, completeness: Completeness | None = None) -> ChatCompletionResponse:
        """Return the completion so far; chunks can be added afterwards.

        Args:
            completeness: how whole it is; by default ``"complete"`` if every choice has its finish reason, and
                ``"truncated"`` otherwise.
        """
        return ChatCompletionResponse.merged(
            self._extra,
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=[self._choices[index].whole() for index in sorted(self._choices)],
            usage=self._usage,
            completeness=completeness or ("complete" if self.finished else "truncated"),
        )

    def _add(self, chunk: BaseChunk, events: list[AnyEvent] | None) -> None:
        self._id = self._id or chunk.id
        self._model = self._model or chunk.model
        self._created = self._created or chunk.created
        for choice in chunk.choices:
            growing = self._choices.get(choice.index)
            if growing is None:
                growing = self._choices[choice.index] = _GrowingChoice(choice.index)
            growing.add(choice, events)
        usage = chunk.usage
        # The field behind model_extra, which is a property: it is asked for several times a chunk.
        if extra := chunk.__pydantic_extra__:
            keep_last(self._extra, extra)
            usage = usage or _usage_beside(extra)
        if fingerprint := getattr(chunk, "system_fingerprint", None):
            self._extra["system_fingerprint"] = fingerprint
        if usage is not None and (self._usage is None or _counts(usage)):
            self._usage = usage
            if events is not None:
                events.append(UsageEvent(usage))


class _GrowingChoice:
    """One choice, as far as it has come."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self.finished = False
        """Whether nothing of the answer came after the last finish reason."""
        self._role = ""
        self._content = TextBuffer()
        self._content_seen = False
        self._content_done = 0  # how much of the content was announced as whole
        self._parts: list[ContentPart] = []
        self._calls = ToolCallMerger()
        self._texts: dict[str, TextBuffer] = {}
        self._lists: dict[str, list[Any]] = {}
        self._logprobs: dict[str, list[Any]] = {}
        self._extra: dict[str, Any] = {}
        self._choice_extra: dict[str, Any] = {}

    def add(self, choice: ChunkChoice, events: list[AnyEvent] | None) -> None:
        delta = choice.delta
        if not self._role and delta.role:
            self._role = delta.role
        if (content := delta.content) is not None:
            self._content_seen = True
            if not isinstance(content, str):
                self._parts.extend(part for part in content if part.type != "text")
            if text := text_of(content):
                self.finished = False
                self._content.append(text)
                if events is not None:
                    events.append(ContentDeltaEvent(self.index, text, self._content, self._content.length))
        for fragment in delta.tool_calls or ():
            self.finished = False
            self._add_tool_call(fragment, events)
        if extra := delta.__pydantic_extra__:
            self._add_extra(extra)
        if extra := choice.__pydantic_extra__:
            self._add_choice_extra(extra)
        if reason := choice.finish_reason:
            self.finished = True
            if reason != self.finish_reason:
                self.finish_reason = reason
                if events is not None:
                    self.announce_done(events)
                    events.append(FinishEvent(self.index, reason))

    def announce_done(self, events: list[AnyEvent]) -> None:
        """Add the events of what is whole, unless they were announced before."""
        if self._content.length > self._content_done:
            self._content_done = self._content.length
            events.append(ContentDoneEvent(self.index, str(self._content)))
        for call in self._calls:
            if not call.done:
                call.done = True
                events.append(
                    FunctionToolCallArgumentsDoneEvent(
                        self.index, call.position, call.id, call.name, str(call.arguments)
                    )
                )

    def whole(self) -> Choice:
        """Return the choice as it stands in a completion."""
        calls = self._calls.whole()
        text = str(self._content)
        extra = {**self._extra, **_copies(self._lists), **{name: str(text) for name, text in self._texts.items()}}
        message: dict[str, Any] = {
            "role": self._role or "assistant",
            # An answer of tool calls alone has no content, though some providers stream an empty one beside them.
            "content": text if text or (self._content_seen and not calls) else None,
        }
        if calls:
            message["tool_calls"] = calls
        if self._parts:
            message["content_parts"] = list(self._parts)
        choice_extra = dict(self._choice_extra)
        if self._logprobs:
            choice_extra["logprobs"] = _copies(self._logprobs)
        return Choice.merged(
            choice_extra,
            index=self.index,
            message=Message.merged(extra, **message),
            finish_reason=self.finish_reason,
        )

    def _add_tool_call(self, fragment: StreamToolCall, events: list[AnyEvent] | None) -> None:
        call = self._calls.call_of(fragment)
        piece = call.add(fragment)
        if events is not None:
            events.append(
                FunctionToolCallArgumentsDeltaEvent(
                    self.index, call.position, call.id, call.name, piece, call.arguments, call.arguments.length
                )
            )

    def _add_extra(self, extra: Mapping[str, Any]) -> None:
        for name, value in extra.items():
            if name in _TEXT_FIELDS and isinstance(value, str):
                self._texts.setdefault(name, TextBuffer()).append(value)
            elif name in _LIST_FIELDS and is_array(value):
                self._lists.setdefault(name, []).extend(value)
            elif value is not None:
                self._extra[name] = value

    def _add_choice_extra(self, extra: Mapping[str, Any]) -> None:
        for name, value in extra.items():
            # Some providers repeat the whole message beside every delta; the deltas are what is merged.
            if name == "message" or value is None:
                continue
            if name == "logprobs" and is_object(value):
                for key, tokens in value.items():
                    if is_array(tokens):
                        self._logprobs.setdefault(key, []).extend(tokens)
            else:
                self._choice_extra[name] = value


async def aggregate(stream: AsyncIterable[BaseChunk]) -> Message:
    """Read an asynchronous iterable of chunks to its end, and return the message of the first choice.

    Args:
        stream: a :class:`ChatStream`, or any other source of chunks, such as a filter over one.

    Raises:
        EmptyStreamError: no choice came.
        ChatAPIError: whatever the stream raises.
    """
    accumulator = MessageAccumulator()
    async for chunk in stream:
        accumulator.add(chunk)
    return first_message(accumulator.completion("complete"))


def first_message(completion: ChatCompletionResponse) -> Message:
    """Return the message of the first choice.

    Raises:
        EmptyStreamError: there is none; the completion is its ``partial``.
    """
    if completion.message is None:
        error = EmptyStreamError()
        error.partial = completion
        raise error
    return completion.message


def _copies(lists: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: list(items) for name, items in lists.items()}


def _counts(usage: Usage) -> bool:
    return not (usage.prompt_tokens is None and usage.completion_tokens is None and usage.total_tokens is None)


def _usage_beside(extra: Mapping[str, Any]) -> Usage | None:
    """Find usage that a provider puts under a key of its own, such as ``x_groq``."""
    for value in extra.values():
        usage = value.get("usage") if is_object(value) else None
        if is_object(usage):
            try:
                return Usage.model_validate(usage)
            except ValidationError:
                continue  # the key is the provider's own, and so is what it holds
    return None
