"""The README against the package: its names, its tables, its numbers, and its example."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import chatapi_async
from chatapi_async import ChatAPIError, ChatCompletionRequest, RetryPolicy, Timeouts, errors
from chatapi_async.emulator import FAULTS, Emulator, serve_in_thread

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, title
    return found.group(1)


def test_every_picture_and_file_that_it_shows_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(targets) > 6
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_table_of_public_names_is_whole() -> None:
    error_names = {name for name in chatapi_async.__all__ if name.endswith("Error")}
    named = set(re.findall(r"`(\w+)", section("Public names"))) | error_names
    assert set(chatapi_async.__all__) <= named
    assert named - set(chatapi_async.__all__) == {"chatapi_async", "client", "add", "completion"}


def test_every_error_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)`", section("When it goes wrong"), re.MULTILINE)
    public = [
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, ChatAPIError)
    ]
    assert sorted(rows) == sorted(set(public) - {"ChatAPIError"})


def test_the_status_of_each_error_is_right() -> None:
    for name, status in re.findall(r"^\| `(\w+)` \((\d+)\)", README, re.MULTILINE):
        assert f"{status}:" in (getattr(errors, name).__doc__ or "")


def test_timeouts_are_as_in_the_table() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ s|none) ", section("Timeouts"), re.MULTILINE))
    limits = {field.name: getattr(Timeouts(), field.name) for field in fields(Timeouts)}
    assert rows == {name: "none" if limit is None else f"{limit:g} s" for name, limit in limits.items()}


def test_retries_are_as_described() -> None:
    policy = RetryPolicy()
    assert (policy.initial_delay, policy.max_delay, policy.max_retry_after) == (0.5, 8, 60)
    assert re.search(
        r"double from half a second to eight,\s+with full jitter; `Retry-After` is honoured up to a minute", README
    )


def test_the_request_fields_are_all_named() -> None:
    for name in ChatCompletionRequest.model_fields.keys() - {"messages", "stream"}:
        assert f"`{name}`" in section("Use it")


def test_the_table_of_faults_is_whole() -> None:
    rows = re.findall(r"^\| .+? \| (.*) \|$", section("A server that goes wrong"), re.MULTILINE)
    named = re.findall(r"(?:^|, )`(\w+)`", "\n".join(rows), re.MULTILINE)
    assert sorted(named) == sorted(FAULTS)


@pytest.mark.smoke
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    program = section("Use it").partition("```python\n")[2].partition("```")[0]
    with serve_in_thread(Emulator(tokens_per_second=None, chatrooms=["ch_…"])) as server:
        script = tmp_path / "example.py"
        script.write_text(
            program.replace("https://api.example.com", server.base_url)
            .replace('"tn_…"', '"tn"')
            .replace('"…"', '"any"'),
            encoding="utf-8",
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "built-in model" in done.stdout
    assert "stop prompt_tokens=" in done.stdout
    assert done.stdout.endswith("complete\nTrue\n")


PROMISES = re.findall(r"^\| (.*?) \| (`test_.*`) \|$", section("What is promised"), re.MULTILINE)


def functions_of(file: Path) -> set[str]:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("promise", "proofs"), PROMISES, ids=[promise[:40] for promise, _ in PROMISES])
def test_each_promise_has_its_tests(promise: str, proofs: str) -> None:
    for proof in re.findall(r"`([^`]+)`", proofs):
        file, _, name = proof.partition("::")
        assert name in functions_of(Path(__file__).parent / file), proof


def test_no_promise_is_left_without_a_test() -> None:
    rows = [line for line in section("What is promised").splitlines() if line.startswith("| ")]
    assert len(PROMISES) == len(rows) - 1 > 20  # the head of the table is a row


def test_no_test_is_skipped() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        source = file.read_text(encoding="utf-8")
        assert not re.search(r"mark\.(skip|xfail)|pytest\.(skip|xfail|importorskip)\(", source)


def test_what_it_names_is_there() -> None:
    root = Path(__file__).parent.parent
    for module in re.findall(r"`(_\w+|errors)`", section("Inside")):
        assert (root / "chatapi_async" / f"{module}.py").is_file(), module
    modules = {path.stem for path in (root / "chatapi_async").glob("*.py")} - {"__init__", "_version", "_json"}
    assert modules <= set(re.findall(r"`(\w+)`", section("Inside")))


def test_the_dependencies_are_those_that_it_names() -> None:
    requirements = [Requirement(text) for text in requires("chatapi-async") or ()]
    always = {requirement.name for requirement in requirements if requirement.marker is None}
    (named,) = re.findall(r"depends on (.*?) alone", section("Try it"), re.DOTALL)
    assert set(re.findall(r"`([\w-]+)`", named)) == always


def test_the_largest_event_is_as_the_table_says() -> None:
    assert "`max_event_bytes` (16 MiB by default)" in README
    client = chatapi_async.AsyncChatClient(operator_id="tn", token="t")
    assert client.chat_completion("Hi")._reader._max_event_bytes == 16 * 1024 * 1024


def test_the_costs_are_those_of_the_run_that_it_shows() -> None:
    run = json.loads((ROOT / "docs" / "benchmarks.json").read_text(encoding="utf-8"))
    ways = ("64 KiB reads", "a read a chunk", "paced tokens")
    cpu = {
        name: [next(one for one in run["streams"] if one["delivery"] == way)["clients"][name]["cpu"] for way in ways]
        for name in ("floor", "chunks", "fast", "fast-uvloop", "openai-create")
    }
    rows = re.findall(r"^\| .* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", section("Performance"), re.MULTILINE)
    compared = [("chunks", "floor"), ("fast", "floor"), ("fast-uvloop", "floor"), ("openai-create", "chunks")]
    assert [list(row) for row in rows] == [
        [f"{one / other:.1f}" for one, other in zip(cpu[name], cpu[to], strict=True)] for name, to in compared
    ]
    held = run["memory"]["held"]["chunks"]["bytes"] / 1024
    assert f"stream takes {held:.0f} KB" in section("Performance")
    for words in ("chatapi_async", "chatapi_async, a client made", "httpx, pydantic"):
        assert f"{run['startup']['imports'][words]['minimum']:.0f} ms" in section("Performance")
