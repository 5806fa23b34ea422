"""The results as tables that can be read in a terminal and pasted into Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .targets import MEBIBYTE, Target, ratio, targets

_NOTHING = "–"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A number with its unit, or a dash where there is none."""
    return _NOTHING if value is None else f"{value:,.{digits}f}{unit}"


def report(results: Mapping[str, Any]) -> str:
    """Everything that was measured, as it is printed."""
    return "\n\n".join(_sections(results))


def with_targets(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results with the targets beside them, as they are written to JSON."""
    found = targets(results)
    return {**results, "targets": [{**asdict(target), "met": target.met} for target in found]}


def _sections(results: Mapping[str, Any]) -> Iterator[str]:
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    yield f"Python {about['python']} on {about['system']}, {about['cpus']} CPUs; {versions}"
    if about["short"]:
        yield "The short form shows that it runs; its numbers mean nothing."
    yield "\n".join(f"- {name}: {client['whose']}, {client['what']}" for name, client in results["clients"].items())
    for scenario in results.get("streams", ()):
        yield f"### {scenario['name']}"
        yield _of_scenario(scenario)
    yield from _of_the_rest(results)
    yield "### Targets"
    yield _of_targets(targets(results))
    if left_out := results["not_measured"]:
        yield "### Not measured"
        yield "\n".join(f"- {name}: {reason}" for name, reason in left_out.items())


def _of_scenario(scenario: Mapping[str, Any]) -> str:
    clients = scenario["clients"]
    floor = clients.get("floor", {}).get("cpu")
    paced = bool(scenario["interval"])
    header = ["client", "CPU µs a chunk", "× floor", "chunks a second", "peak MiB", "grown MiB"]
    rows = []
    for name, found in clients.items():
        cells = [name, number(found["cpu"]), number(ratio(found["cpu"], floor), 2)]
        cells.append(number(found["chunks_per_second"], 0))
        cells += [number(ratio(found[what], MEBIBYTE)) for what in ("peak", "growth")]
        if paced:
            cells += [number(found[what], 2) for what in ("delay_median", "delay_99")]
        rows.append(cells)
    return table(header + ["delay ms, median", "99 %"] * paced, rows)


def _of_the_rest(results: Mapping[str, Any]) -> Iterator[str]:
    if linear := results.get("linear"):
        yield "### Long streams"
        rows = [
            [
                f"{name}, {found['short_chunks']:,} and {found['long_chunks']:,} chunks",
                number(found["short"], 2),
                number(found["long"], 2),
                number(ratio(found["long"], found["short"]), 2),
                number(ratio(found["growth"], MEBIBYTE)),
            ]
            for name, found in linear.items()
        ]
        yield table(["", "CPU µs a chunk, short", "long", "long / short", "grown MiB"], rows)
    if memory := results.get("memory"):
        yield "### Idle streams"
        rows = [
            [name, f"{found['streams']:,}", number(ratio(found["bytes"], 1024)), number(found["cpu"], 2)]
            for name, found in memory["held"].items()
        ]
        yield table(["client", "streams", "KB a stream", "CPU ms to open one"], rows)
    if startup := results.get("startup"):
        yield "### Before the first chunk"
        rows = [
            [f"import {name}", *(number(found[what]) for what in ("minimum", "median"))]
            for name, found in startup["imports"].items()
        ]
        yield table(["CPU ms", "minimum", "median"], rows)
        rows = [
            [scheme, number(found["make"]), number(found["first"]), number(found["later"]), str(found["ssl_contexts"])]
            for scheme, found in startup["clients"].items()
        ]
        header = ["clients for", "µs to make one", "CPU ms, first client and its stream", "later ones", "SSL contexts"]
        yield table(header, rows)


def _of_targets(found: Sequence[Target]) -> str:
    rows = []
    for target in found:
        limit = f"{'≥' if target.at_least else '≤'} {target.limit:g}{target.unit}"
        met = {None: "not measured", True: "met", False: "NOT MET"}[target.met]
        rows.append([target.what, number(target.value, 2 if target.unit else 0, target.unit), limit, met])
    return table(["ratio, or size", "measured", "target", "result"], rows)
