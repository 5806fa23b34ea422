"""Answers that are given instead of the model's. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from chatapi_async.recording import Recording
from chatapi_async.types import MessageToolCall, Usage

from ._faults import ChosenFault
from ._model import Answer, Plan, PlannedCall
from ._replayed import why_never
from ._tokens import pieces


@dataclass(frozen=True)
class ScriptedAnswer:
    """What the emulator answers to one request, whatever it asks."""

    text: str | Sequence[str] | None = None
    """The text; a sequence of texts comes a chunk each. None for what the built-in model says."""

    tool_calls: Sequence[MessageToolCall] = ()
    """Calls after the text."""

    finish_reason: str | None = None
    """Why it ends; None, the default, for ``tool_calls`` where there are some, and ``stop`` where there are none, or
    for what the built-in model says where the text is its own."""

    usage: Usage | None = None
    """What it is said to have used; None, the default, for what it has by the emulator's count."""

    fault: ChosenFault | None = None
    """How it goes wrong; None, the default, for not at all."""

    delay: float = 0.0
    """Seconds between the response's headers and the first chunk."""

    recording: Recording | None = None
    """A recorded exchange, of which the response is given again, in the place of all of the above."""

    speed: float | None = None
    """How many times as fast as it was recorded; None, the default, for without a pause."""

    def __post_init__(self) -> None:
        if self.speed is not None and not self.speed > 0:
            raise ValueError(f"speed must be greater than 0, not {self.speed}")
        if self.recording is not None and (reason := why_never(self.recording)):
            raise ValueError(reason)

    def plan(self, modelled: Plan) -> Plan:
        """Return what is answered in the place of ``modelled``, to a request for as many answers."""
        if self.text is None and not self.tool_calls:
            answers = modelled.answers
            if self.finish_reason is not None:
                answers = tuple(replace(answer, finish_reason=self.finish_reason) for answer in answers)
        else:
            text = self.text or ""
            texts = tuple(pieces(text)) if isinstance(text, str) else tuple(text)
            calls = tuple(
                PlannedCall(call.id, call.function.name, tuple(pieces(call.function.arguments)))
                for call in self.tool_calls
            )
            finish_reason = self.finish_reason or ("tool_calls" if calls else "stop")
            answers = (Answer(texts, calls, finish_reason),) * len(modelled.answers)
        usage = None if self.usage is None else self.usage.model_dump(exclude_unset=True)
        return Plan(answers, modelled.prompt_tokens, usage)
