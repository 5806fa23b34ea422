"""``doctor``: what is wrong with a configured server, step by step."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import textwrap
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

from chatapi_async import __version__
from chatapi_async._doctor import Finding, Settings, examine, needs_mending, verdict

from . import DONE, FAILED, WRONG_USAGE, AddCommand, add_server_options

_COST = (
    "It sends two small requests, which cost what two short answers cost: at most 64 and 16 tokens. With --room, the "
    "second one goes to the chatroom, which keeps its two messages."
)
_WIDTH = 110
_LABEL_WIDTH = 13
_MARKS = {"ok": "ok", "note": "note", "fail": "FAIL", "not tried": "-", "not needed": "-"}


def add_to(add: AddCommand) -> None:
    """Add the command."""
    doctor = add(
        "doctor",
        _doctor,
        "Check the configured server step by step, and say in plain words what is wrong and what to do.",
    )
    doctor.epilog = f"{_COST} It takes some four minutes at most. No output shows the token."
    doctor.add_argument("--json", action="store_true", help="print each step as JSON, one a line")
    add_server_options(doctor)


def _doctor(options: argparse.Namespace) -> int:
    settings = Settings.of(
        os.environ, base_url=options.base_url, operator_id=options.operator_id, room=options.room, model=options.model
    )
    findings: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        print(_as_json(finding) if options.json else _as_text(finding), flush=True)

    described = {**_versions(), **settings.described()}
    if options.json:
        print(json.dumps({"step": "settings", **described}, ensure_ascii=False), flush=True)
    else:
        print(textwrap.fill(f"chatapi doctor. {_COST}", _WIDTH), _table(described), sep="\n\n", end="\n\n", flush=True)
    try:
        asyncio.run(examine(settings, report))
    finally:
        if not options.json and findings:
            print(f"\n{textwrap.fill(verdict(findings), _WIDTH)}", flush=True)
    return {"nothing": DONE, "configuration": WRONG_USAGE, "server": FAILED}[needs_mending(findings)]


def _versions() -> dict[str, str]:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("httpx", "httpcore", "anyio", "pydantic"))
    python = f"Python {platform.python_version()} on {platform.system()}"
    return {"versions": f"chatapi-async {__version__}, {python}, {libraries}"}


def _table(described: Mapping[str, str]) -> str:
    return "\n".join(f"{label:<{_LABEL_WIDTH}}{words}" for label, words in described.items())


def _as_text(finding: Finding) -> str:
    seconds = "" if finding.seconds is None else f"{finding.seconds:.3f} s"
    head = f"{_MARKS[finding.mark]:<6}{finding.step:<{_LABEL_WIDTH}}{seconds:>9}  "
    indent = " " * len(head)
    lines = [_filled(finding.words, head, indent)]
    if finding.advice:
        lines.append(_filled(finding.advice, f"{indent}→ ", f"{indent}  "))
    return "\n".join(lines)


def _filled(text: str, head: str, indent: str) -> str:
    # What a server says could move a terminal's cursor; and an address must stay whole, to be copied.
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    return textwrap.fill(
        shown, _WIDTH, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _as_json(finding: Finding) -> str:
    shown = {name: value for name, value in asdict(finding).items() if name != "suspect"}
    return json.dumps(shown, ensure_ascii=False)
