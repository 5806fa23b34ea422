"""What is found at each step, and what follows from all of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Mark = Literal["ok", "note", "fail", "not tried", "not needed"]
"""All is well; it works, but look at it; it is wrong; it was not come to; there is nothing to try."""

Step = Literal[
    "base URL",
    "credentials",
    "environment",
    "name lookup",
    "connection",
    "TLS",
    "answer",
    "request",
    "first token",
    "stream",
    "chatroom",
    "reuse",
]

CONFIGURATION: Final[tuple[Step, ...]] = ("base URL", "credentials", "environment")
"""The steps that nothing is sent for: what is wrong there is mended on this machine."""

STEPS: Final[tuple[Step, ...]] = (
    *CONFIGURATION,
    *("name lookup", "connection", "TLS", "answer", "request", "first token", "stream", "chatroom", "reuse"),
)
"""All steps, in their order."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found at one step."""

    step: Step
    mark: Mark
    words: str
    """What was seen, in a sentence without a full stop."""

    advice: str = ""
    """What to do; ``""`` where nothing is to be done."""

    seconds: float | None = None
    """How long it took; None where time says nothing."""

    suspect: bool = False
    """Whether it works by itself, but is so odd that it probably is the cause of whatever fails later."""


def needs_mending(findings: Sequence[Finding]) -> Literal["nothing", "configuration", "server"]:
    """Tell where the first failure lies."""
    failed = next((finding for finding in findings if finding.mark == "fail"), None)
    if failed is None:
        return "nothing"
    return "configuration" if failed.step in CONFIGURATION else "server"


def verdict(findings: Sequence[Finding]) -> str:
    """Say in one line what to do first."""
    failed = next((finding for finding in findings if finding.mark == "fail"), None)
    if failed is None:
        if any(finding.mark == "not tried" for finding in findings):
            return "Interrupted: nothing wrong was found so far."
        if any(finding.mark == "note" for finding in findings):
            return "It works. What is marked note could be better."
        return "All is well."
    suspect = next((finding for finding in findings if finding.suspect and failed.step not in CONFIGURATION), None)
    if suspect is not None:
        return f"Do first: {suspect.advice} It may well be why this failed: {failed.step}."
    return f"Do first: {failed.advice}"
