"""What the library promises, and whether it holds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .growth import LINEAR
from .scenarios import BLOCKS, PACED, SINGLE

_WAYS = (BLOCKS, SINGLE, PACED)
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Target:
    """A number that was measured, and the limit that it is to keep."""

    what: str
    value: float | None
    """None where it was not measured."""
    limit: float
    at_least: bool = False
    """Whether the limit is the least that is asked, instead of the most."""
    unit: str = "×"

    @property
    def met(self) -> bool | None:
        """Whether it is kept; None where nothing was measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def ratio(value: float | None, to: float | None) -> float | None:
    """One number divided by another; None where either was not measured, or there is nothing to divide by."""
    return value / to if value is not None and to else None


def targets(results: Mapping[str, Any]) -> list[Target]:
    """All targets, those that were not measured too, from the results as they are written to JSON."""
    return [*_of_streams(results), *_of_growth(results), *_of_memory(results), *_of_startup(results)]


def _of_streams(results: Mapping[str, Any]) -> Iterator[Target]:
    for way, limit in zip(_WAYS, (2.0, 1.35, 1.1), strict=True):
        yield Target(f"CPU, chunks / floor, {way}", _cpu_ratio(results, way, "chunks", "floor"), limit)
    for way, limit in zip(_WAYS, (12.0, 6.0, 1.6), strict=True):
        value = _cpu_ratio(results, way, "openai-create", "chunks")
        yield Target(f"CPU, openai-create / chunks, {way}", value, limit, at_least=True)
    for way in (BLOCKS, SINGLE):
        chunks, openai = (_of(results, way, name, "chunks_per_second", 200) for name in ("chunks", "openai-create"))
        what = f"chunks a second, chunks / openai-create, {way}, 200 streams"
        yield Target(what, ratio(chunks, openai), 6.0, at_least=True)
    for name in ("get_final_completion", "events"):
        for way in _WAYS:
            yield Target(f"CPU, {name} / chunks, {way}", _cpu_ratio(results, way, name, "chunks"), 1.5)
    for name in ("fast", "fast-uvloop"):
        for way, limit in ((PACED, 0.5), (SINGLE, 0.7)):
            yield Target(f"CPU, {name} / floor, {way}", _cpu_ratio(results, way, name, "floor"), limit)


def _of_growth(results: Mapping[str, Any]) -> Iterator[Target]:
    for name in LINEAR:
        found = results.get("linear", {}).get(name, {})
        lengths = f"{found['long_chunks']:,} / {found['short_chunks']:,} chunks" if found else "long / short"
        yield Target(f"CPU a chunk, {name}, {lengths}", ratio(found.get("long"), found.get("short")), 1.1)


def _of_memory(results: Mapping[str, Any]) -> Iterator[Target]:
    found = results.get("memory", {})
    for name, limit in (("chunks", 40.0), ("fast", 100.0)):
        held = found.get("held", {}).get(name, {}).get("bytes")
        yield Target(f"memory of an idle stream, {name}", ratio(held, 1024), limit, unit=" KB")
    iterating, many = found.get("iterating", {}), found.get("many", {})
    count = f"{iterating['chunks']:,}" if iterating else "many"
    # What is kept is the text; twice that leaves room for how lists grow and for what the allocator does.
    growth = ratio(iterating.get("growth"), iterating.get("text"))
    yield Target(f"memory, iterating over {count} chunks, growth / text received", growth, 2.0)
    counts = f"from {many['few']:,} to {many['streams']:,}" if many else "of many"
    yield Target(f"memory, growth {counts} short streams", ratio(many.get("growth"), MEBIBYTE), 1.0, unit=" MiB")


def _of_startup(results: Mapping[str, Any]) -> Iterator[Target]:
    imports, clients = (results.get("startup", {}).get(name, {}) for name in ("imports", "clients"))
    ours, theirs = (imports.get(name, {}).get("minimum") for name in ("chatapi_async", "httpx, pydantic"))
    yield Target("CPU, import of chatapi_async / of httpx and pydantic", ratio(ours, theirs), 1.15)
    for scheme, limit in (("https", 1.0), ("http", 0.0)):
        found = clients.get(scheme, {})
        what = f"SSL contexts of {found.get('clients', 'several')} clients for {scheme}"
        yield Target(what, found.get("ssl_contexts"), limit, unit="")


def _cpu_ratio(results: Mapping[str, Any], way: str, client: str, to: str) -> float | None:
    return ratio(_of(results, way, client, "cpu"), _of(results, way, to, "cpu"))


def _of(results: Mapping[str, Any], way: str, client: str, what: str, streams: int | None = None) -> float | None:
    """What was measured of a client where chunks are delivered in this way; with the fewest streams, if not told."""
    for scenario in results.get("streams", ()):
        if scenario["delivery"] == way and streams in (None, scenario["streams"]):
            value: float | None = scenario["clients"].get(client, {}).get(what)
            return value
    return None
