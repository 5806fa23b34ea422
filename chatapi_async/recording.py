"""Recordings of exchanges with the server, as ``AsyncChatClient(record="directory")`` writes them.

::

    recording = read_recording("recordings/20261126T221030.123456Z-chat_completion-000001.jsonl")
    print(recording.status_code, recording.end)
    for chunk in recording.chunks():
        print(chunk.text, end="")
"""

from __future__ import annotations

import os
from pathlib import Path

from ._recording import End, Outcome, Piece, RecordedRequest, Recording
from ._recording_lines import parse

__all__ = ["End", "Outcome", "Piece", "RecordedRequest", "Recording", "read_recording"]


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read the recording of one exchange. One that broke off, since the process was killed, has no ``end``.

    Args:
        path: the file.

    Raises:
        RecordingError: the file is no recording, or a damaged one; the message names the line.
        OSError: the file cannot be read.
    """
    return parse(Path(path).read_bytes(), os.fspath(path))
