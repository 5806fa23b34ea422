"""The built-in model: a conversation in, a plan of the answer out. Pure: no I/O, no clock, no randomness.

The same conversation always gets the same answer. It is made of fixed sentences, in the language of the prompt, around
what the prompt says; it shows what the conversation was before, calls tools, and reports what they returned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatapi_async.types import ChatCompletionRequest, Message

from ._language import asks_to_recall, is_greeting, language_of
from ._phrases import Phrases
from ._tokens import excerpt, pieces, terms, topic
from ._tool_calls import Call, call_tools

_TOKENS_PER_MESSAGE = 3
_MOST_RECALLED = 5
_LONGEST_READ = 4000


@dataclass(frozen=True)
class PlannedCall:
    """A tool call of an answer; its arguments' JSON text is in pieces."""

    id: str
    name: str
    argument_pieces: tuple[str, ...]

    @property
    def arguments(self) -> str:
        """The arguments as JSON text; cut off where the answer reached its token limit."""
        return "".join(self.argument_pieces)


@dataclass(frozen=True)
class Answer:
    """One of the ``n`` answers: text in pieces, then tool calls, and why it ends."""

    text_pieces: tuple[str, ...]
    calls: tuple[PlannedCall, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        """The whole text, ``""`` where there is none."""
        return "".join(self.text_pieces)

    @property
    def tokens(self) -> int:
        """Number of pieces: what the answer costs."""
        return len(self.text_pieces) + sum(len(call.argument_pieces) for call in self.calls)


@dataclass(frozen=True)
class Plan:
    """What the model answers to one request."""

    answers: tuple[Answer, ...]
    prompt_tokens: int
    usage: Mapping[str, Any] | None = None
    """What is said to have been used; None for the tokens as they were counted."""

    @property
    def completion_tokens(self) -> int:
        """Tokens of all answers together."""
        return sum(answer.tokens for answer in self.answers)


def plan(request: ChatCompletionRequest, history: Sequence[Message] = ()) -> Plan:
    """Return what the model answers to ``request``.

    Args:
        request: the new messages, and how to answer them.
        history: what was said in the chatroom before; empty where the request holds the whole conversation.
    """
    conversation = [*history, *request.messages]
    tools = [tool.function for tool in request.tools or []]
    prompt_tokens = sum(_TOKENS_PER_MESSAGE + len(pieces(message.text)) for message in conversation)
    prompt_tokens += sum(len(pieces(function.model_dump_json())) for function in tools)

    prompt = prompt_of(conversation)[:_LONGEST_READ]
    phrases = language_of(prompt)
    results = _trailing_results(conversation)
    must_call = request.tool_choice == "any"

    answers: list[Answer] = []
    for variant in range(request.n or 1):
        seed = f"{len(conversation)}:{variant}"
        calls = () if results else call_tools(tools, prompt, required=must_call, seed=seed)
        if calls:
            names = ", ".join(call.name for call in calls)
            text = "" if must_call else phrases.calling.format(tools=names)
        elif results:
            text = _report(phrases, conversation, results, prompt)
        else:
            text = _reply(phrases, conversation, prompt, variant)
        if request.response_format and request.response_format.type == "json_object" and not calls:
            text = json.dumps({"answer": text, "language": phrases.code}, ensure_ascii=False)
        answers.append(_cut(text, calls, request.max_completion_tokens))
    return Plan(tuple(answers), prompt_tokens)


def prompt_of(conversation: Sequence[Message]) -> str:
    """Return what the user said last; ``""`` where the user said nothing."""
    return next((message.text for message in reversed(conversation) if message.role == "user"), "")


def tools_that_answered(conversation: Sequence[Message]) -> list[str]:
    """Return the names of the tools whose results the conversation ends with; ``"tool"`` is one that nobody called."""
    names = {call.id: call.function.name for message in conversation for call in message.tool_calls or []}
    results = _trailing_results(conversation)
    return list(dict.fromkeys(names.get(message.tool_call_id or "") or "tool" for message in results))


def _reply(phrases: Phrases, conversation: Sequence[Message], prompt: str, variant: int) -> str:
    said = [message.text for message in conversation if message.role == "user"]
    earlier = said[:-1]
    if asks_to_recall(prompt):
        if not earlier:
            return phrases.nothing_recalled
        quotes = ", ".join(phrases.quotation.format(excerpt(text, 20)) for text in earlier[-_MOST_RECALLED:])
        return phrases.recalled.format(count=len(earlier), quotes=quotes)
    quoted = excerpt(prompt, 20)
    if is_greeting(prompt, phrases) or not quoted:
        sentences = [phrases.greeting]
    else:
        subject = excerpt(topic(prompt) or quoted, 8)
        opening = phrases.openings[variant % len(phrases.openings)]
        body = phrases.bodies[(len(prompt) + variant) % len(phrases.bodies)]
        sentences = [opening.format(prompt=quoted), body.format(topic=phrases.quotation.format(subject))]
    if earlier:
        related = excerpt(_most_related(earlier, prompt), 20)
        sentences.insert(1, phrases.remembered.format(turn=len(said), earlier=related))
    return phrases.space.join(sentences)


def _most_related(earlier: Sequence[str], prompt: str) -> str:
    """Return the message that shares the most words with ``prompt``; of equals the newest."""
    asked = set(terms(prompt))
    return max(reversed(earlier), key=lambda text: len(asked.intersection(terms(text))))


def _trailing_results(conversation: Sequence[Message]) -> list[Message]:
    """Return the tool messages at the end of the conversation."""
    start = len(conversation)
    while start and conversation[start - 1].role == "tool":
        start -= 1
    return list(conversation[start:])


def _report(phrases: Phrases, conversation: Sequence[Message], results: Sequence[Message], prompt: str) -> str:
    return phrases.tool_answer.format(
        tools=", ".join(tools_that_answered(conversation)),
        result="; ".join(excerpt(message.text, 60) for message in results),
        prompt=excerpt(prompt, 20),
    )


def _cut(text: str, calls: Sequence[Call], limit: int | None) -> Answer:
    """Return the answer, with no more than ``limit`` tokens of it."""
    text_pieces = pieces(text)
    left = None if limit is None else max(limit - len(text_pieces), 0)
    whole = limit is None or len(text_pieces) <= limit
    planned: list[PlannedCall] = []
    for call in calls if whole else ():
        if left == 0:
            whole = False
            break
        argument_pieces = pieces(call.arguments)
        planned.append(PlannedCall(call.id, call.name, tuple(argument_pieces[:left])))
        if left is not None:
            whole = len(argument_pieces) <= left
            left = max(left - len(argument_pieces), 0)
    finish_reason = "length" if not whole else "tool_calls" if calls else "stop"
    return Answer(tuple(text_pieces[:limit]), tuple(planned), finish_reason)
