"""A message of a conversation, as it is sent to the server and as it comes back."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field

from ._lenient import NullMeans, Received
from ._parsing import checked_model, parse_json

ModelT = TypeVar("ModelT", bound=BaseModel)


class ContentPart(Received):
    """One part of a content that is given as a list. Parts of other types than ``text`` pass through as they are."""

    type: str
    """Kind of the part, such as ``"text"``."""

    text: str | None = None
    """The text of a ``text`` part."""


def text_of(content: str | Iterable[ContentPart] | None) -> str:
    """Return the text of a message's or delta's content: the text parts of a list, in order; ``""`` for none."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if part.type == "text" and part.text)


class FunctionCall(Received):
    """The function that a tool call names, and what it is called with."""

    name: Annotated[str, NullMeans(str)] = ""
    """Name of the function, as declared in the request's ``tools``."""

    arguments: Annotated[str, NullMeans(str)] = ""
    """The arguments as JSON text, exactly as the model wrote it: it may be invalid, and is not checked here."""

    def model_post_init(self, context: Any, /) -> None:
        # The contract requires these keys in a message, so they are sent whether or not they were given.
        self.model_fields_set.update(("name", "arguments"))


class MessageToolCall(Received):
    """A whole tool call in a message (the contract's ``ToolCall`` in a message)."""

    id: Annotated[str, NullMeans(str)] = ""
    """Id of the call; the answering ``tool`` message repeats it as ``tool_call_id``."""

    type: Annotated[str, NullMeans(lambda: "function")] = "function"
    """Kind of the call: ``"function"``."""

    function: FunctionCall
    """The function and its arguments."""

    def model_post_init(self, context: Any, /) -> None:
        # As in FunctionCall: the contract requires them.
        self.model_fields_set.update(("id", "type"))

    def parse(self, model: builtins.type[ModelT]) -> ModelT:
        """Return the arguments as an instance of ``model``.

        Raises:
            ConfigurationError: ``model`` is no pydantic model.
            AnswerParseError: the arguments are no JSON, or do not fit ``model``.
        """
        checked_model(model, "parse")
        what = f"the arguments of {self.function.name!r}"
        return parse_json(self.function.arguments, model.model_validate_json, what=what, expected=model.__name__)


class Message(Received):
    """One message of a conversation.

    Use :meth:`user`, :meth:`system`, :meth:`assistant` and :meth:`tool` to make one. A message that came from the
    server can be sent back as it is.
    """

    role: Annotated[str, NullMeans(lambda: "assistant")]
    """``"system"``, ``"user"``, ``"assistant"``, ``"tool"``, or what else a provider sends."""

    content: str | list[ContentPart] | None = None
    """The text, or a list of parts; None where there is none (an answer of tool calls alone)."""

    tool_calls: list[MessageToolCall] | None = None
    """The tool calls of an assistant's message, in order."""

    tool_call_id: str | None = None
    """In a ``tool`` message: the id of the call that it answers."""

    content_parts: list[ContentPart] | None = Field(default=None, exclude=True)
    """Parts of a streamed content that are not text (such as ``thinking``), in order.

    Filled in by this library when it merges a stream whose content came as parts; never sent.
    """

    @property
    def text(self) -> str:
        """The content as one string: the text parts joined, ``""`` where there is no content."""
        return text_of(self.content)

    @classmethod
    def user(cls, content: str | list[ContentPart], **fields: Any) -> Self:
        """Make a message of the person who asks."""
        return cls(role="user", content=content, **fields)

    @classmethod
    def system(cls, content: str | list[ContentPart], **fields: Any) -> Self:
        """Make a message that instructs the model."""
        return cls(role="system", content=content, **fields)

    @classmethod
    def assistant(
        cls,
        content: str | list[ContentPart] | None = None,
        *,
        tool_calls: list[MessageToolCall] | None = None,
        **fields: Any,
    ) -> Self:
        """Make a message of the model, for a history that the caller keeps."""
        if tool_calls is not None:
            fields["tool_calls"] = tool_calls
        return cls(role="assistant", content=content, **fields)

    @classmethod
    def tool(cls, content: str | list[ContentPart], *, tool_call_id: str, **fields: Any) -> Self:
        """Make the answer to a tool call; ``tool_call_id`` is the ``id`` of the call."""
        return cls(role="tool", content=content, tool_call_id=tool_call_id, **fields)
