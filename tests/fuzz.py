"""Runs the property tests on and on, each round with other examples: ``python -m tests.fuzz --minutes 60``.

It stops at the first failure, which is shown in the shortest form that was found, and can be repeated with ``--seed``.
``--streams FOLDER`` mutates recorded answers too: every ``*.sse`` file in the folder is the body of one.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

TESTS = (
    *("test_properties.py", "test_inflate.py", "test_accumulate.py", "test_tool_calls.py", "test_types.py"),
    *("test_recording.py", "test_recorded_secrets.py"),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long; the last round is finished (default: 60)")
    parser.add_argument("--examples", type=int, default=2000, help="examples of each property a round (default: 2000)")
    parser.add_argument("--streams", type=Path, help="folder of recorded answers to mutate")
    parser.add_argument("--seed", type=int, default=random.getrandbits(32), help="of the first round")
    arguments = parser.parse_args()
    environment = {**os.environ, "CHATAPI_TEST_EXAMPLES": str(arguments.examples)}
    if arguments.streams:
        environment["CHATAPI_TEST_STREAMS"] = str(arguments.streams.resolve())
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += [str(Path(__file__).parent / name) for name in TESTS]
    until = time.monotonic() + 60 * arguments.minutes
    rounds = 0
    while not rounds or time.monotonic() < until:
        seed = arguments.seed + rounds
        done = subprocess.run([*command, f"--hypothesis-seed={seed}"], env=environment, check=False)
        if done.returncode:
            print(f"round {rounds + 1} failed; it can be repeated with --seed {seed}", file=sys.stderr)
            return 1
        rounds += 1
    print(f"{rounds} rounds of {arguments.examples} examples of each property: nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
