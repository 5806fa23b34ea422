"""What it costs before the first chunk: the import, and a client.

``python -m tests.benchmarks.startup JOB``, with the job as JSON, prints what clients cost that are made.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from .processes import ROOT, environment
from .wire import Order

IMPORTS = {
    "chatapi_async": "import chatapi_async",
    "chatapi_async, a client made": (
        "import chatapi_async; chatapi_async.AsyncChatClient('https://x', operator_id='tn_1', token='t')"
    ),
    "httpx, pydantic": "import httpx, pydantic",
}
"""What is imported, each in interpreters of its own."""


def imports(rounds: int) -> dict[str, dict[str, float]]:
    """The CPU time of imports in fresh interpreters that take turns, in milliseconds: ``minimum`` and ``median``.
    All is compiled before: in a folder of our own, since not every environment lets Python write beside the sources."""
    spent: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as compiled:
        variables = environment() | {"PYTHONPYCACHEPREFIX": compiled}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(rounds + 1):
            for name, statement in IMPORTS.items():
                code = f"import time; cpu = time.process_time(); {statement}; print(time.process_time() - cpu)"
                command = [sys.executable, "-c", code]
                done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=True)
                spent[name].append(float(done.stdout) * 1e3)
    return {name: {"minimum": min(times[1:]), "median": statistics.median(times[1:])} for name, times in spent.items()}


async def making(url: str, clients: int) -> dict[str, Any]:
    """Make clients one after another, and use each for one stream.

    Args:
        url: the server's address; with https, on which it does not answer, each client is used for one failure.
        clients: how many.

    Returns:
        ``make``: CPU microseconds to make a client, the minimum of many. ``first`` and ``later``: CPU milliseconds from
        making a client to the end of a stream of four chunks, for the first client of the process and (the minimum) for
        later ones. ``ssl_contexts``: how many were made.
    """
    from chatapi_async import APIConnectionError, AsyncChatClient

    contexts = 0
    new = ssl.SSLContext.__new__

    def counting(cls: type[ssl.SSLContext], *arguments: Any, **options: Any) -> ssl.SSLContext:
        nonlocal contexts
        contexts += 1
        return new(cls, *arguments, **options)

    ssl.SSLContext.__new__ = counting  # type: ignore[method-assign,assignment]
    used = []
    for _ in range(clients):
        cpu = time.process_time()
        async with AsyncChatClient(url, operator_id="tn_1", token="t", retries=0) as client:
            try:
                await client.chat_completion("Hello", extra_headers=Order(4).headers).until_done()
            except APIConnectionError:
                if not url.startswith("https:"):
                    raise
        used.append((time.process_time() - cpu) * 1e3)
    made = []
    for _ in range(200):
        before = time.perf_counter()
        AsyncChatClient(url, operator_id="tn_1", token="t")
        made.append((time.perf_counter() - before) * 1e6)
    return {"make": min(made), "first": used[0], "later": min(used[1:]), "clients": clients, "ssl_contexts": contexts}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(making(**json.loads(sys.argv[1])))))
