"""That the benchmarks run, and that what they make of their measurements is right. No number is judged here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.clients import CLIENTS, Client
from tests.benchmarks.measure import delays
from tests.benchmarks.run import PARTS, best, not_measured
from tests.benchmarks.scenarios import BLOCKS, FULL, PACED, SINGLE
from tests.benchmarks.tables import number, report, table, with_targets
from tests.benchmarks.targets import Target, ratio, targets
from tests.benchmarks.wire import BLOCK_BYTES, SINGLE_BYTES, Delivery, Order, beginning, delay, pieces, stamped

ROOT = Path(__file__).parent.parent

ABOUT = {"short": False, "python": "3.11", "system": "Linux", "cpus": 2, "versions": {"httpx": "0.28", "openai": None}}


def results(**parts: Any) -> dict[str, Any]:
    """Results in which nothing was measured but these parts."""
    return {"about": ABOUT, "clients": {}, "not_measured": {}, **parts}


def scenario(delivery: str, streams: int, **cpu: float) -> dict[str, Any]:
    """A scenario as it is found in results; each client with its CPU time."""
    others = dict.fromkeys(("chunks_per_second", "peak", "growth", "delay_median", "delay_99"))
    clients = {name.replace("_", "-"): {**others, "cpu": value} for name, value in cpu.items()}
    return {"name": delivery, "delivery": delivery, "streams": streams, "interval": 0.0, "clients": clients}


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.heavy
def test_the_short_form_runs_and_writes_json(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    command = [sys.executable, "-W", "error", "-m", "tests.benchmarks", "--short", "--only", "floor", "chunks"]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "### Targets" in done.stdout
    assert "- openai-create: left out by --only" in done.stdout
    found = json.loads(file.read_text())
    assert list(found["clients"]) == ["floor", "chunks"]
    assert {one["delivery"] for one in found["streams"]} >= {BLOCKS, SINGLE, PACED}
    for one in found["streams"]:
        assert list(one["clients"]) == ["floor", "chunks"]
        assert all(client["cpu"] > 0 and client["chunks_per_second"] > 0 for client in one["clients"].values())
    paced = next(one for one in found["streams"] if one["delivery"] == PACED)
    assert paced["clients"]["chunks"]["delay_99"] >= paced["clients"]["chunks"]["delay_median"] > 0
    measured = {target["what"] for target in found["targets"] if target["met"] is not None}
    assert f"CPU, chunks / floor, {PACED}" in measured


def test_a_name_that_there_is_not_is_refused() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "curl"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "invalid choice: 'curl'" in done.stderr


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tool_call", [False, True])
@pytest.mark.parametrize("delivery", ["blocks", "single"])
@pytest.mark.parametrize("chunks", [4, 5, 600])
def test_a_response_has_as_many_chunks_as_were_ordered(delivery: Delivery, chunks: int, tool_call: bool) -> None:
    order = Order(chunks, delivery, tool_call=tool_call)
    _, _, body = b"".join(pieces(order)).partition(b"\r\n\r\n")

    events = []
    while body:
        size, _, body = body.partition(b"\r\n")
        data, body = body[: int(size, 16)], body[int(size, 16) + 2 :]
        assert len(data) <= BLOCK_BYTES
        events += data.split(b"\n\n")[:-1]

    *sent, done = [event.removeprefix(b"data: ") for event in events]
    assert done == b"[DONE]"
    parsed = [json.loads(event) for event in sent]
    assert len(parsed) == chunks
    assert parsed[-2]["choices"][0]["finish_reason"] == ("tool_calls" if tool_call else "stop")
    assert parsed[-1]["usage"]


def test_each_chunk_of_text_begins_where_a_read_does() -> None:
    order = Order(300, "single")
    start = len(beginning(order))

    assert start % SINGLE_BYTES == 0
    response = b"".join(pieces(order))
    for index in range(297):
        piece = response[start + index * SINGLE_BYTES :][:SINGLE_BYTES]
        assert re.fullmatch(rb'[0-9a-f]+\r\ndata: \{.*"content":" \w{4}".*\}\n\n\r\n', piece)


def test_an_order_is_read_as_it_was_written() -> None:
    order = Order(20, "paced", 0.02)

    assert [Order.of(header) for header in order.headers.values()] == [order]


def test_a_stamp_tells_the_delay() -> None:
    data = stamped(1_000_000).split(b"\r\n")[1].removeprefix(b"data: ")
    text = json.loads(data)["choices"][0]["delta"]["content"]

    assert delay(text, 3_500_000) == 2_500_000


# ── what is made of it ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_of_several_rounds() -> None:
    rounds = [
        {"cpu": 9.0, "chunks_per_second": 100.0, "delay_99": 3.0, "peak": None},
        {"cpu": 7.0, "chunks_per_second": 120.0, "delay_99": 1.0, "peak": None},
        {"cpu": 8.0, "chunks_per_second": 110.0, "delay_99": 2.0, "peak": None},
    ]

    assert best(rounds) == {
        "cpu": 7.0,
        "chunks_per_second": 120.0,
        "delay_99": 2.0,
        "peak": None,
        "cpu_of_rounds": [9.0, 7.0, 8.0],
    }


def test_delays() -> None:
    assert delays([float(value) for value in range(1000, 0, -1)]) == {"delay_median": 501.0, "delay_99": 991.0}
    assert delays([]) == {"delay_median": None, "delay_99": None}


@pytest.mark.parametrize(
    ("value", "to", "expected"), [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3, 0, None)]
)
def test_ratio(value: float | None, to: float | None, expected: float | None) -> None:
    assert ratio(value, to) == expected


@pytest.mark.parametrize(
    ("value", "at_least", "met"),
    [(1.5, False, True), (1.51, False, False), (1.5, True, True), (1.49, True, False), (None, True, None)],
)
def test_whether_a_target_is_met(value: float | None, at_least: bool, met: bool | None) -> None:
    assert Target("what", value, 1.5, at_least).met is met


def test_targets_are_made_of_the_streams_that_they_name() -> None:
    streams = [
        scenario(BLOCKS, 1, floor=5.0, chunks=9.0, openai_create=120.0),
        scenario(SINGLE, 1, floor=20.0, chunks=30.0, events=42.0),
        scenario(SINGLE, 200, floor=1.0, chunks=100.0),
    ]
    found = {target.what: target for target in targets(results(streams=streams))}

    assert found[f"CPU, chunks / floor, {BLOCKS}"].value == 1.8
    assert found[f"CPU, chunks / floor, {SINGLE}"].value == 1.5
    assert found[f"CPU, chunks / floor, {SINGLE}"].met is False
    assert found[f"CPU, openai-create / chunks, {BLOCKS}"].value == pytest.approx(13.33, abs=0.01)
    assert found[f"CPU, events / chunks, {SINGLE}"].met is True
    assert found[f"CPU, chunks / floor, {PACED}"].met is None


def test_no_target_is_left_out_where_nothing_was_measured() -> None:
    everything = {target.what for target in targets(results())}
    linear = {"chunks": {"short": 8.0, "long": 8.4, "short_chunks": 2000, "long_chunks": 200_000, "growth": None}}

    assert all(target.met is None for target in targets(results()))
    assert len(targets(results(linear=linear))) == len(everything)
    assert report(results()).count("not measured") == len(everything)
    assert len(with_targets(results())["targets"]) == len(everything)


def test_a_table_can_be_read_and_pasted() -> None:
    assert table(["client", "µs"], [["floor", "5.2"], ["openai-create", "127.0"]]) == (
        "| client        |    µs |\n|---------------|------:|\n| floor         |   5.2 |\n| openai-create | 127.0 |"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"), [((1234.56,), "1,234.6"), ((2.0, 2, "×"), "2.00×"), ((None, 2, "×"), "–")]
)
def test_number(arguments: tuple[Any, ...], expected: str) -> None:
    assert number(*arguments) == expected


def test_the_report_says_how_each_client_stands_to_the_floor() -> None:
    text = report(results(streams=[scenario(BLOCKS, 1, floor=5.0, chunks=9.0)]))

    assert re.search(r"\| chunks +\| +9\.0 \| +1\.80 \|", text)


# ── the clients ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_that_is_not_there_is_told_with_the_reason() -> None:
    def needing(what: str) -> Client:
        return Client("nobody", "none", "not at all", CLIENTS["floor"].open, what)

    assert needing("chatapi_async").missing is None
    assert needing("chatapi_async:AsyncChatClient").missing is None
    assert needing("no_such_module").missing == "no_such_module is not installed"
    assert needing("chatapi_async:Sync").missing == "chatapi_async has no Sync"


def test_what_was_not_asked_for_is_told_too() -> None:
    assert not_measured(list(CLIENTS), PARTS).keys() <= {name for name, client in CLIENTS.items() if client.missing}
    left_out = not_measured(["chunks"], ["streams"])
    assert left_out["floor"] == left_out["memory"] == "left out by --only"
    assert not left_out.keys() & {"chunks", "streams"}


def test_each_scenario_measures_the_floor() -> None:
    assert all("floor" in one.clients and "chunks" in one.clients for one in FULL)
    assert {one.streams for one in FULL} == {1, 20, 200, 1_000}
