"""The entry by which the property tests can be left running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.heavy
def test_the_properties_can_be_left_running(tmp_path: Path) -> None:
    (tmp_path / "recorded.sse").write_bytes(b"data: [DONE]\n\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--minutes", "0", "--examples", "1", "--streams", tmp_path],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "1 rounds of 1 examples of each property: nothing found" in done.stdout
