"""``replay``: recorded exchanges, as they came."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Final

from chatapi_async import ChatAPIError, MessageAccumulator
from chatapi_async._recording import chunks_of
from chatapi_async.errors import RecordingError
from chatapi_async.recording import Recording, read_recording

from . import DONE, FAILED, WRONG_USAGE, AddCommand, complain, positive

_LONGEST_SLEEP: Final = 1e9


def add_to(add: AddCommand) -> None:
    """Add the command."""
    replay = add("replay", _replay, "Show recorded exchanges as they came, one after another, and say how each ended.")
    replay.add_argument("files", nargs="+", metavar="FILE", help="a file that a client with record= wrote")
    pace = replay.add_mutually_exclusive_group()
    pace.add_argument(
        "--speed", type=positive, default=1.0, metavar="N", help="N times as fast as it came (default: 1)"
    )
    pace.add_argument("--instantly", action="store_true", help="without its pauses")
    replay.add_argument("--raw", action="store_true", help="print the bytes of the response's body instead of the text")


def _replay(options: argparse.Namespace) -> int:
    return max([_replay_file(file, options) for file in options.files])


def _replay_file(file: str, options: argparse.Namespace) -> int:
    try:
        recording = read_recording(file)
    except (RecordingError, OSError) as error:
        return complain(error, WRONG_USAGE)
    _introduce(recording)
    playback = _Playback(recording, None if options.instantly else options.speed, raw=options.raw)
    failure = playback.run()
    playback.sum_up(failure)
    return DONE if failure is None else FAILED


def _introduce(recording: Recording) -> None:
    request = recording.request
    _say("recorded", f"{recording.began:%Y-%m-%d %H:%M:%S %Z} by {recording.library}")
    _say("request", f"{request.method} {request.url}")
    answered = "none"
    if recording.status_code is not None:
        answered = f"{recording.status_code} after {recording.responded or 0.0:.3f} s"
    _say("response", answered)
    sys.stderr.flush()


class _Playback:
    """Shows one recording, and measures it by its own times."""

    def __init__(self, recording: Recording, speed: float | None, *, raw: bool) -> None:
        self._recording = recording
        self._speed = speed
        self._raw = raw
        self._chunks = 0
        self._at = 0.0
        self._first_chunk: float | None = None
        self._began = time.monotonic()
        self._completion = MessageAccumulator()

    def run(self) -> ChatAPIError | None:
        """Print what came when it came, and return the error that the client raises for it."""
        pieces = self._pieces()
        try:
            for chunk in chunks_of(self._recording, pieces):
                self._chunks += 1
                if self._first_chunk is None:
                    self._first_chunk = self._at
                self._completion.add(chunk)
                if not self._raw:
                    print(chunk.text, end="", flush=True)
        except ChatAPIError as error:
            return error
        finally:
            if self._raw:
                for _ in pieces:  # what follows the answer's end
                    pass
            else:
                self._end_text()
        return None

    def sum_up(self, error: ChatAPIError | None) -> None:
        """Say how it ended."""
        end = self._recording.end
        if error is not None:
            _say("ended", f"{type(error).__name__}: {error}")
        else:
            _say("ended", "left by the client" if self._recording.stopped else "complete")
        _say("chunks", str(self._chunks))
        _say("first chunk", "none" if self._first_chunk is None else f"{self._first_chunk:.3f} s")
        _say("duration", f"{self._at if end is None else end.seconds:.3f} s")

    def _pieces(self) -> Iterator[bytes]:
        for piece in self._recording.pieces:
            self._wait_until(piece.seconds)
            if self._raw:
                sys.stdout.buffer.write(piece.data)
                sys.stdout.buffer.flush()
            yield piece.data
        if self._recording.end is not None:
            self._wait_until(self._recording.end.seconds)

    def _wait_until(self, seconds: float) -> None:
        self._at = seconds
        if self._speed is not None:
            wait = self._began + seconds / self._speed - time.monotonic()
            time.sleep(min(max(wait, 0.0), _LONGEST_SLEEP))

    def _end_text(self) -> None:
        if self._chunks:
            print(flush=True)
        message = self._completion.completion().message
        for call in (message and message.tool_calls) or ():
            print(f"{call.function.name}({call.function.arguments})", flush=True)


def _say(label: str, text: str) -> None:
    print(f"{label:<14}{' '.join(text.split())}", file=sys.stderr)
