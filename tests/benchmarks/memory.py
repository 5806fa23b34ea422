"""How much memory a process has. Linux alone tells it well; elsewhere it is not measured."""

from __future__ import annotations

import gc
from pathlib import Path

_STATUS = Path("/proc/self/status")

MEASURED = _STATUS.exists()


def resident() -> int | None:
    """Bytes that the process holds now, garbage collected before; None where that is not known."""
    gc.collect()
    return _of("VmRSS:")


def peak() -> int | None:
    """The most that the process ever held. (``ru_maxrss`` would count the parent's memory too.)"""
    return _of("VmHWM:")


def _of(name: str) -> int | None:
    if not MEASURED:
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
