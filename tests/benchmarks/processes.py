"""Child processes: the server, and one for each thing that is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class BenchmarkError(Exception):
    """Something could not be measured; the message is what the child process said."""


def environment() -> dict[str, str]:
    """The environment of a child: without proxies, without what makes clients behave otherwise, without a tracer."""
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    left_out = ("CHATAPI_", "OPENAI_", "COVERAGE_", "COV_CORE_")
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in proxies and not name.startswith(left_out)
    }


@contextmanager
def serving() -> Iterator[str]:
    """The server, in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.benchmarks.server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment(), cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        if not (address := process.stdout.readline().strip()):
            raise BenchmarkError("the server did not start")
        yield address  # leaving `with` closes its standard input, which ends it


def ask(module: str, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a module of the benchmarks in a process of its own.

    Args:
        module: its name, such as ``measure``.
        job: its one argument, as JSON.

    Returns:
        What it prints: one line of JSON.

    Raises:
        BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", json.dumps(job)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{module} {json.dumps(job)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
