"""Measures what streaming costs, with this library and with others: ``python -m tests.benchmarks``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import run
from .clients import CLIENTS
from .processes import BenchmarkError
from .scenarios import FULL, FULL_GROWTH, SHORT, SHORT_GROWTH
from .tables import report, with_targets


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true", help="only show that it runs; half a minute at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the CPU time of each client there (PNG)")
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        default=[],
        choices=(*CLIENTS, *run.PARTS),
        help=f"only these clients ({', '.join(CLIENTS)}), or only these parts ({', '.join(run.PARTS)})",
    )
    given = parser.parse_args(arguments)
    clients = [name for name in CLIENTS if name in given.only] or list(CLIENTS)
    # A client by itself is asked for to see what its streams cost.
    parts = [name for name in run.PARTS if name in given.only] or (["streams"] if given.only else list(run.PARTS))
    try:
        results = measured(clients, parts, short=given.short)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    print(report(results))
    if given.json:
        given.json.write_text(json.dumps(with_targets(results), indent=2) + "\n")
    if given.plot:
        from .plot import draw

        draw(results, given.plot)
    return 0


def measured(clients: Sequence[str], parts: Sequence[str], *, short: bool) -> dict[str, Any]:
    """Measure these parts with these clients.

    Returns:
        ``about``, ``clients``, ``not_measured``; of the parts that were asked for ``streams``, ``linear``, ``memory``,
        ``startup``; and ``seconds``, how long it took.

    Raises:
        BenchmarkError: a client failed.
    """
    started = time.monotonic()
    scenarios, sizes = (SHORT, SHORT_GROWTH) if short else (FULL, FULL_GROWTH)
    say, at_once = run.to_standard_error, 2 if short else 1
    results: dict[str, Any] = {"about": run.about(short), "not_measured": run.not_measured(clients, parts)}
    there = [name for name in clients if name not in results["not_measured"]]
    results["clients"] = {
        name: {"whose": CLIENTS[name].whose, "label": CLIENTS[name].label, "what": CLIENTS[name].what} for name in there
    }
    if "streams" in parts:
        results["streams"] = run.streams(scenarios, there, say, at_once)
    if "linear" in parts:
        results["linear"] = run.linear(sizes, say, at_once)
    if "memory" in parts:
        results["memory"] = run.memory(sizes, there, say)
    if "startup" in parts:
        results["startup"] = run.before_the_first_chunk(sizes, say)
    results["seconds"] = time.monotonic() - started
    return results


if __name__ == "__main__":
    sys.exit(main())
