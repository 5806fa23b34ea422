"""Which answer a reply file has for a request. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from chatapi_async.types import FunctionCall, Message, MessageToolCall

from ._contract import provider_and_name
from ._faults import read_fault
from ._model import prompt_of, tools_that_answered
from ._reply_document import Condition, Replies, Reply
from ._scripted import ScriptedAnswer
from ._tokens import excerpt

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class UnmatchedError(Exception):
    """No rule answers the request, and the file wants such a one to be refused; ``str(error)`` says what it asked."""


@dataclass(frozen=True)
class Asked:
    """What a request asks, as far as a rule can tell."""

    conversation: Sequence[Message]
    """What was said in the chatroom before, and the messages of the request."""

    model: str | None = None
    """As the request names it."""

    chatroom_id: str | None = None
    """The chatroom's id; None where the request is not for one."""

    @cached_property
    def prompt(self) -> str:
        """What the user said last."""
        return prompt_of(self.conversation)

    @cached_property
    def tools(self) -> list[str]:
        """The tools whose results the conversation ends with."""
        return tools_that_answered(self.conversation)


class RuleBook:
    """The rules of a reply file, and how often each has answered.

    Args:
        replies: the rules.
        name: the file's, for errors.
    """

    def __init__(self, replies: Replies, name: str) -> None:
        self._replies = replies
        self._name = name
        self._answered = Counter[int]()

    def answer(self, asked: Asked) -> ScriptedAnswer | None:
        """Return what the first rule that holds says; None where there is none, which leaves it to a model.

        Raises:
            UnmatchedError: there is none, and the file wants that to be refused.
        """
        for number, rule in enumerate(self._replies.rules):
            groups = _groups(rule.when, asked)
            if groups is not None:
                replies = rule.answers or [rule]
                reply = replies[min(self._answered[number], len(replies) - 1)]
                self._answered[number] += 1
                return _scripted(reply, groups, asked)
        if self._replies.unmatched == "refuse":
            raise UnmatchedError(_unmatched(asked, self._name))
        return None


def _groups(when: Condition, asked: Asked) -> Mapping[str, str] | None:
    """Return what the named groups of the condition's expression found; None where the condition does not hold."""
    if when.tool_result is None:
        if asked.tools and (when.equals, when.contains, when.matches) != (None, None, None):
            return None
    elif when.tool_result not in asked.tools:
        return None
    if when.model is not None and provider_and_name(when.model) != provider_and_name(asked.model):
        return None
    if when.chatroom_id is not None and when.chatroom_id != asked.chatroom_id:
        return None
    if when.equals is not None and when.equals != asked.prompt:
        return None
    if when.contains is not None and when.contains not in asked.prompt:
        return None
    if when.matches is None:
        return {}
    # An expression that takes for ever holds up the server: it is for whoever wrote it to mend.
    found = when.matches.search(asked.prompt)
    return None if found is None else found.groupdict(default="")


def _scripted(reply: Reply, groups: Mapping[str, str], asked: Asked) -> ScriptedAnswer:
    calls = [
        MessageToolCall(
            id=f"call_{len(asked.conversation)}_{number}" if call.id is None else call.id,
            function=FunctionCall(name=call.name, arguments=_filled(call.arguments, groups, _within_json)),
        )
        for number, call in enumerate(reply.tool_calls or ())
    ]
    text = reply.text if reply.chunks is None else reply.chunks
    if text is not None:
        text = _filled(text, groups) if isinstance(text, str) else [_filled(chunk, groups) for chunk in text]
    return ScriptedAnswer(
        text,
        tool_calls=calls,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        fault=None if reply.fault is None else read_fault(reply.fault),
        delay=reply.delay or 0.0,
    )


def _filled(text: str, groups: Mapping[str, str], written: Callable[[str], str] = str) -> str:
    """Return ``text`` with what a group found in the place of its name in braces; other braces stay as they are."""
    return _PLACEHOLDER.sub(lambda found: written(groups[found[1]]) if found[1] in groups else found[0], text)


def _within_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _unmatched(asked: Asked, name: str) -> str:
    after = f" after the result of {', '.join(asked.tools)}" if asked.tools else ""
    room = "" if asked.chatroom_id is None else f" in the chatroom {asked.chatroom_id!r}"
    prompt = excerpt(asked.prompt, 40)
    return (
        f"no rule of {name} answers the prompt {prompt!r}{after} to the model {asked.model or 'large'!r}{room}; "
        "add one, or a last one without 'when', or leave out unmatched = \"refuse\""
    )
