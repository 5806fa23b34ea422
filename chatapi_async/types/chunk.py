"""What a stream is made of: one chunk per event, with whatever increments it carries."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import Field

from ._lenient import NullMeans, Received
from .message import ContentPart, text_of
from .response import Usage

T = TypeVar("T")

# A choice of two bytes on the wire takes a thousand here; no request gets more than ten.
_Bounded = Annotated[list[T], Field(max_length=1024)]


class StreamFunctionCall(Received):
    """A fragment of a function call: the name comes once, the arguments in pieces."""

    name: str | None = None
    """Name of the function, in the call's first fragment."""

    arguments: str | None = None
    """The next piece of the arguments' JSON text."""


class StreamToolCall(Received):
    """A fragment of a tool call (the contract's streamed ``ToolCall``).

    Two shapes occur: the described one (``tool_id``, ``tool_name``, ``is_client_tool``) and OpenAI's incremental one
    (``index``, ``id``, ``type``, ``function``). :class:`MessageAccumulator` merges both.
    """

    index: int | None = None
    """Which of the message's calls this fragment belongs to; some providers leave it out."""

    id: str | None = None
    """Id of the call, usually in its first fragment alone."""

    type: str | None = None
    """``"function"``, usually in the first fragment alone."""

    function: StreamFunctionCall | None = None
    """Name and arguments."""

    tool_id: str | None = None
    """Id of the call in the described shape."""

    tool_name: str | None = None
    """Name of the tool in the described shape."""

    is_client_tool: bool | None = None
    """Whether the client is to run the tool; the server runs its own."""


class DeltaMessage(Received):
    """What a chunk adds to a choice's message. Null and absent are the same."""

    role: str | None = None
    """Role of the message; it may come in every chunk, or never."""

    content: str | list[ContentPart] | None = None
    """New text, or a list of parts whose text parts are the new text."""

    tool_calls: _Bounded[StreamToolCall] | None = None
    """Fragments of tool calls."""

    @property
    def text(self) -> str:
        """The new text, ``""`` where there is none."""
        return text_of(self.content)


class ChunkChoice(Received):
    """What a chunk adds to one choice."""

    index: Annotated[int, NullMeans(int)] = 0
    """Which choice; a request for ``n`` answers gets choices 0 to n - 1."""

    delta: Annotated[DeltaMessage, NullMeans(DeltaMessage)] = Field(default_factory=DeltaMessage)
    """What is new in its message."""

    finish_reason: str | None = None
    """Why the choice ended: ``stop``, ``length``, ``tool_calls``, ``content_filter`` or a provider's own word."""


class BaseChunk(Received):
    """What the chunks of both operations have in common."""

    id: Annotated[str, NullMeans(str)] = ""
    """Id of the answer; ``""`` where the provider sends none. It can change in mid-stream."""

    object: Annotated[str, NullMeans(str)] = ""
    """``"chat.completion.chunk"``; ``""`` where the provider sends none."""

    created: int | None = None
    """When the answer was made, in seconds since 1970; often absent."""

    model: Annotated[str, NullMeans(str)] = ""
    """The model that answers; ``""`` where the provider sends none."""

    choices: Annotated[_Bounded[ChunkChoice], NullMeans(list)] = Field(default_factory=list[ChunkChoice])
    """What is new in each choice; empty in chunks that carry something else, such as usage."""

    usage: Usage | None = None
    """Tokens used so far, in whichever chunk the provider sends them."""

    @property
    def text(self) -> str:
        """New text of the first choice (index 0), ``""`` where there is none."""
        for choice in self.choices:
            if choice.index == 0:
                return choice.delta.text
        return ""

    @property
    def has_content(self) -> bool:
        """Whether it brings anything of the answer: text, a tool call, a provider's own field of a delta, or an end."""
        for choice in self.choices:
            delta = choice.delta
            if delta.content or delta.tool_calls or choice.finish_reason or any((delta.model_extra or {}).values()):
                return True
        return False


class ChatCompletionChunkResponse(BaseChunk):
    """One event of ``chat_completion``."""

    system_fingerprint: str | None = None
    """The provider's mark of the configuration that answered."""


class ChatCompletionWithChatroomStreamResponse(BaseChunk):
    """One event of ``chat_completion_on_chatroom``."""
