"""What is sent: strict where a mistake would cost money, and nothing that the caller did not set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from .message import Message
from .tools import Tool


class ResponseFormat(BaseModel):
    """Form that the answer must have. Further keys (such as a schema) are kept and sent."""

    model_config = ConfigDict(extra="allow")

    type: str
    """``"text"``, ``"json_object"``, or what else the provider knows."""


class MemorySettings(BaseModel):
    """How the server uses what it remembers about the operator's users. The contract requires all three fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    extract_memory: bool = True
    """Whether the server may remember facts from this conversation. Default true."""

    max_memories: int = Field(default=5, ge=1, le=20)
    """How many memories the model is given, 1 to 20. Default 5."""

    min_relevance_score: float = Field(default=0.7, ge=0, le=1)
    """How relevant a memory must be, 0 to 1. Default 0.7."""

    def model_post_init(self, context: Any, /) -> None:
        # The contract requires every field, so all are sent, whichever of them the caller gave.
        self.model_fields_set.update(type(self).model_fields)


class ChatCompletionRequest(BaseModel):
    """Body of both operations. A field that is not set is not sent: the server's defaults are the server's.

    Raises:
        pydantic.ValidationError: an unknown field, or a value out of bounds.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, validate_assignment=True)

    messages: list[Message]
    """The conversation. For a chatroom only the new messages, since the server keeps the others."""

    model: str | None = None
    """``provider/model`` or ``provider:model``; a bare name means ``openai``; also ``large`` and ``small``."""

    stream: bool | None = None
    """Whether the answer is streamed. The client asks for a stream where this is not set; False asks for one JSON
    body, which the client reads too."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    """Randomness, 0 to 2. The server's default is 1."""

    top_p: float | None = Field(default=None, ge=0, le=1)
    """Nucleus sampling: share of the probability mass that is considered, 0 to 1. The server's default is 1."""

    n: int | None = Field(default=None, ge=1, le=10)
    """Number of answers (choices), 1 to 10. The server's default is 1."""

    max_completion_tokens: int | None = Field(default=None, ge=1)
    """Most tokens that the answer may have. The server's default is 10000."""

    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Penalty for what was said at all, -2 to 2. The server's default is 0."""

    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Penalty for what was said often, -2 to 2. The server's default is 0."""

    response_format: ResponseFormat | None = None
    """Form that the answer must have, such as ``{"type": "json_object"}``."""

    tools: list[Tool] | None = None
    """Functions that the model may call."""

    tool_choice: Literal["auto", "any"] | None = None
    """``"auto"``: the model decides whether to call a tool; ``"any"``: it must call one."""

    user: str | None = None
    """Id of the end user."""

    memory_settings: MemorySettings | None = None
    """Use of the server's memories."""

    communication_style: str | None = None
    """How the answer addresses the reader, in words."""

    explanation_style: str | None = None
    """How the answer explains, in words."""

    technical_level: str | None = None
    """How much the reader knows, in words."""

    @classmethod
    def build(cls, messages: MessagesOrRequest, fields: Mapping[str, Any]) -> Self:
        """Make a request from what :meth:`AsyncChatClient.chat_completion` takes.

        Args:
            messages: a ``str`` is one user message; a sequence of messages or mappings is the conversation; a whole
                request is taken as it is, and ``fields`` replace those of the same name in a copy of it.
            fields: further fields of the request.

        Raises:
            pydantic.ValidationError: an unknown field, or a value out of bounds.
        """
        if isinstance(messages, ChatCompletionRequest):
            given: dict[str, Any] = {name: getattr(messages, name) for name in messages.model_fields_set}
        elif isinstance(messages, str):
            given = {"messages": [Message.user(messages)]}
        else:
            given = {"messages": list(messages)}
        return cls.model_validate({**given, **fields})

    def to_body(self) -> bytes:
        """Return the JSON body: only what was set, and ``"stream": true`` unless ``stream`` was set."""
        body = self.model_copy(update={"stream": True if self.stream is None else self.stream})
        unset = {name for name in type(self).model_fields if getattr(body, name) is None}
        return body.model_dump_json(exclude_unset=True, exclude=unset).encode()


class ChatCompletionFields(TypedDict, total=False):
    """The request's fields as keyword arguments of the client's methods; see :class:`ChatCompletionRequest`."""

    model: str | None
    stream: bool | None
    temperature: float | None
    top_p: float | None
    n: int | None
    max_completion_tokens: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    response_format: ResponseFormat | Mapping[str, Any] | None
    tools: Sequence[Tool | Mapping[str, Any]] | None
    tool_choice: Literal["auto", "any"] | None
    user: str | None
    memory_settings: MemorySettings | Mapping[str, Any] | None
    communication_style: str | None
    explanation_style: str | None
    technical_level: str | None


MessagesOrRequest = str | Sequence[Message | Mapping[str, Any]] | ChatCompletionRequest
"""First argument of both operations: one user message, a conversation, or a whole request."""
