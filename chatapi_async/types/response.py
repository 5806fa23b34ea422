"""What is made of a stream, or received whole: a completion with its choices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from ..errors import AnswerParseError
from ._lenient import NullMeans, Received
from ._parsing import checked_model as checked_model
from ._parsing import parse_json
from .message import Message, MessageToolCall, ModelT

T = TypeVar("T")

Completeness = Literal["complete", "stopped", "truncated", "failed"]
"""How whole a completion is.

``complete``: the server said that it ended. ``stopped``: the caller ended it (``stop()``, ``aclose()``, cancellation).
``truncated``: it is not, or not yet, whole: the stream still runs, or its body ended before the answer did.
``failed``: an error ended it.
"""


_INCOMPLETE: dict[Completeness, str] = {
    "stopped": "It was stopped before its end",
    "truncated": "It is not whole: its end has not come",
    "failed": "It is not whole: an error ended it",
}
_FINISHED = {
    "length": "It was cut at max_completion_tokens (finish_reason 'length'); allow more",
    "content_filter": "A filter ended it (finish_reason 'content_filter')",
}


class Usage(Received):
    """Tokens used, and what they cost. A count that the provider sends as null, or not at all, is None."""

    prompt_tokens: int | None = None
    """Tokens of the request."""

    completion_tokens: int | None = None
    """Tokens of the answer."""

    total_tokens: int | None = None
    """Both together."""

    cache_creation_input_tokens: int | None = None
    """Tokens of the request that the provider stored in its cache."""

    cache_read_input_tokens: int | None = None
    """Tokens of the request that the provider found in its cache."""

    total_cost: float | None = None
    """Cost of the call, in the currency of the account's credits."""


class Choice(Received):
    """One answer of a completion."""

    index: Annotated[int, NullMeans(int)] = 0
    """Which of the ``n`` answers, from 0."""

    message: Message
    """The answer."""

    finish_reason: str | None = None
    """Why it ended: ``stop``, ``length`` (cut at ``max_completion_tokens``), ``tool_calls``, ``content_filter``, or a
    provider's own word; None where none was sent."""


class ChatCompletionResponse(Received):
    """A completion: merged from a stream, or received as one JSON body."""

    id: Annotated[str, NullMeans(str)] = ""
    """Id of the answer: the first one that the stream named."""

    object: Annotated[str, NullMeans(lambda: "chat.completion")] = "chat.completion"
    """``"chat.completion"``."""

    created: int | None = None
    """When the answer was made, in seconds since 1970; None where the server does not say."""

    model: Annotated[str, NullMeans(str)] = ""
    """The model that answered."""

    choices: Annotated[list[Choice], NullMeans(list)] = Field(default_factory=list[Choice])
    """The answers, by their index."""

    usage: Usage | None = None
    """Tokens used; None where the server never said."""

    completeness: Completeness = "complete"
    """How whole the completion is; set by this library."""

    @property
    def message(self) -> Message | None:
        """Message of the first choice, None where no choice came."""
        return self.choices[0].message if self.choices else None

    @property
    def text(self) -> str:
        """Text of the first choice, ``""`` where there is none."""
        return self.choices[0].message.text if self.choices else ""

    def parse(self, model: type[ModelT]) -> ModelT:
        """Return the first choice as an instance of ``model``: its text, or its first tool call's arguments.

        Args:
            model: a pydantic model that fits the JSON which the answer was asked to be.

        Raises:
            ConfigurationError: ``model`` is no pydantic model.
            AnswerParseError: the answer is no JSON (an empty answer is none), or does not fit ``model``.
        """
        checked_model(model, "parse")
        return parse_answer(self, model.model_validate_json, expected=model.__name__)


class ErrorResponse(Received):
    """Body of an HTTP error that the service itself sends."""

    message: str
    """What went wrong."""


def json_text(completion: ChatCompletionResponse) -> str:
    """Return the text that holds the JSON of an answer: that of the first choice, or its first tool call's arguments
    where it has no text."""
    call = _parsed_call(completion)
    return call.function.arguments if call else completion.text


def parse_answer(completion: ChatCompletionResponse, validate: Callable[[str], T], *, expected: str) -> T:
    """Return what ``validate`` makes of the JSON text of an answer.

    Raises:
        AnswerParseError: it is no JSON, or does not fit.
    """
    call = _parsed_call(completion)
    what = f"the arguments of {call.function.name!r}" if call else "the answer"
    try:
        return parse_json(
            json_text(completion),
            validate,
            what=what,
            expected=expected,
            circumstances=_circumstances(completion),
            refusal=_refusal(completion),
        )
    except AnswerParseError as error:
        error.partial = completion
        raise


def _parsed_call(completion: ChatCompletionResponse) -> MessageToolCall | None:
    message = completion.message
    return message.tool_calls[0] if message is not None and not message.text and message.tool_calls else None


def _circumstances(completion: ChatCompletionResponse) -> tuple[str, ...]:
    """Say why the text of an answer may not be what was asked for."""
    choice = completion.choices[0] if completion.choices else None
    found = (_INCOMPLETE.get(completion.completeness), _FINISHED.get((choice and choice.finish_reason) or ""))
    return tuple(sentence for sentence in found if sentence)


def _refusal(completion: ChatCompletionResponse) -> str:
    message = completion.message
    refusal: object = ((message and message.model_extra) or {}).get("refusal")
    return refusal if isinstance(refusal, str) else ""
