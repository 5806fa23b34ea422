"""Runs what is measured, one child process after another, and collects what they print."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

from . import startup
from .clients import CLIENTS
from .growth import LINEAR
from .processes import ask, serving
from .scenarios import Growth, Scenario

PARTS = ("streams", "linear", "memory", "startup")
"""What can be run by itself."""

Say = Callable[[str], object]
"""Told what is being measured now."""

_HELD = ("floor", "chunks", "relay_sse", "fast", "openai-create")
_LIBRARIES = ("chatapi_async", "httpx", "httpx_sse", "pydantic", "anyio", "openai")


def about(short: bool) -> dict[str, Any]:
    """Where and with what it is measured."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "short": short,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "versions": versions,
    }


def not_measured(clients: Sequence[str], parts: Sequence[str]) -> dict[str, str]:
    """The clients and parts that are left out, each with the reason."""
    reasons = {name: client.missing for name, client in CLIENTS.items()}
    left_out = {name: "left out by --only" for name in (*CLIENTS, *PARTS) if name not in (*clients, *parts)}
    return {name: reason for name, reason in (reasons | left_out).items() if reason}


def streams(scenarios: Sequence[Scenario], clients: Sequence[str], say: Say, at_once: int) -> list[dict[str, Any]]:
    """Measure every scenario with those of the clients that take part in it; ``at_once`` of them, which is 1 where the
    numbers are to mean something."""
    found = []
    for scenario in scenarios:
        with serving() as url, ThreadPoolExecutor(at_once) as pool:
            found.append(_scenario(scenario, [name for name in scenario.clients if name in clients], url, pool, say))
    return found


def _scenario(
    scenario: Scenario, clients: Sequence[str], url: str, pool: ThreadPoolExecutor, say: Say
) -> dict[str, Any]:
    turns = [(turn, name) for turn in range(scenario.rounds) for name in clients]

    def taken(turn: int, name: str) -> dict[str, Any]:
        say(f"{scenario.name}, round {turn + 1} of {scenario.rounds}: {name}")
        return ask("measure", {"url": url, "client": name, **scenario.job})

    found: dict[str, list[dict[str, Any]]] = {name: [] for name in clients}
    for (_, name), result in zip(turns, pool.map(taken, *zip(*turns, strict=True)), strict=True):
        found[name].append(result)
    return {
        "name": scenario.name,
        "delivery": scenario.delivery,
        "streams": scenario.streams,
        "chunks": scenario.chunks,
        "interval": scenario.interval,
        "rounds": scenario.rounds,
        "clients": {name: best(rounds) for name, rounds in found.items()},
    }


def best(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make one of the rounds of one client: what others on the machine can only make worse is the best of all rounds,
    the CPU time and the chunks a second; of the rest it is the median. Every round's CPU time is kept beside."""
    kept: dict[str, Any] = {}
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        if any(value is None for value in values):
            kept[name] = None
        else:
            kept[name] = {"cpu": min, "chunks_per_second": max}.get(name, statistics.median)(values)
    return kept | {"cpu_of_rounds": [found["cpu"] for found in rounds]}


def linear(sizes: Growth, say: Say, at_once: int) -> dict[str, Any]:
    """Compare long streams with short ones; ``at_once`` as for :func:`streams`."""

    def compared(name: str) -> dict[str, Any]:
        say(f"linear: {name}")
        tool_call = name == "tool call"
        job = {"kind": "linear", "url": url, "name": name, "short": sizes.short}
        job["long"] = sizes.fragments if tool_call else sizes.long
        job["rounds"] = 1 if tool_call else sizes.linear_rounds
        return ask("growth", job)

    with serving() as url, ThreadPoolExecutor(at_once) as pool:
        return dict(zip(LINEAR, pool.map(compared, LINEAR), strict=True))


def memory(sizes: Growth, clients: Sequence[str], say: Say) -> dict[str, Any]:
    """Measure what memory is held. No time is measured, so the longest runs beside the others."""
    with serving() as url, serving() as other, ThreadPoolExecutor(1) as beside:
        job = {"kind": "many", "url": other, "few": sizes.few, "streams": sizes.many}
        many = beside.submit(ask, "growth", job)
        say(f"memory: iterating over {sizes.long:,} chunks")
        found: dict[str, Any] = {"iterating": ask("growth", {"kind": "iterating", "url": url, "chunks": sizes.long})}
        found["held"] = {}
        for name in _HELD:
            if name in clients:
                say(f"memory: {sizes.held:,} idle streams: {name}")
                job = {"kind": "held", "url": url, "client": name, "streams": sizes.held}
                found["held"][name] = ask("growth", job)
        say(f"memory: {sizes.many:,} short streams")
        found["many"] = many.result()
    return found


def before_the_first_chunk(sizes: Growth, say: Say) -> dict[str, Any]:
    """Measure imports, and clients that are made."""
    say("imports")
    found: dict[str, Any] = {"imports": startup.imports(sizes.import_rounds), "clients": {}}
    with serving() as url:
        for scheme in ("http", "https"):
            say(f"clients for {scheme}")
            job = {"url": url.replace("http", scheme, 1), "clients": 10}
            found["clients"][scheme] = ask("startup", job)
    return found


def to_standard_error(text: str) -> None:
    """Show what is being measured, each in place of the one before where a person looks on."""
    sys.stderr.write(f"{text:<100}\r" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()
