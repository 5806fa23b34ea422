"""Records exchanges as they go, each in a file of its own, without changing them: it stands before the HTTP layer."""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final
from weakref import finalize

from ._http import SendsRequests
from ._recording import End, How, Operation, Outcome, Piece, RecordedRequest
from ._recording_lines import end_line, opening_lines, piece_line, response_line
from ._response import BodyBrokenError, ReadableResponse
from ._secrets import RecordingSecrets, Secrets
from ._timeouts import Timeouts
from ._version import __version__
from .errors import APITimeoutError, ChatAPIError, ConfigurationError, EventTooLargeError
from .types import Completeness

logger = logging.getLogger("chatapi_async")

# Windows would write other line ends without the first; nobody else may read what people say to one another.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MODE: Final = 0o600


class Recorder:
    """Records the exchanges of one client.

    Args:
        directory: where to; it is made where there is none.

    Raises:
        ConfigurationError: nothing can be written there.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        try:
            self._directory = Path(directory).absolute()
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with TemporaryFile(dir=self._directory):
                pass
        except (OSError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"nothing can be recorded in {directory!r}: {error}; give a directory that can be written to"
            ) from error
        self._numbers = itertools.count(1)

    def of_call(self, http: SendsRequests, operation: Operation, secrets: Secrets) -> CallRecorder:
        """Return what sends the requests of one call, and records them.

        Args:
            http: what sends them in fact.
            operation: which operation is called.
            secrets: the tokens that the call has sent.
        """
        return CallRecorder(self, http, operation, secrets)

    def new_file(self, began: datetime, operation: Operation) -> RecordingFile:
        """Return a new file, whose name can be sorted by time, and which no other process has."""
        while True:
            name = f"{began:%Y%m%dT%H%M%S.%fZ}-{operation}-{next(self._numbers):06d}.jsonl"
            try:
                return RecordingFile(self._directory / name)
            except FileExistsError:
                continue


class RecordingFile:
    """A file to which a recording is written, line by line. What cannot be written ends the file, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = os.getpid()
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, _FLAGS, _MODE)
        except FileExistsError:
            raise
        except OSError as error:
            self._warn(error)

    def write(self, line: bytes) -> None:
        """Write a line now."""
        if self._descriptor < 0 or os.getpid() != self._process:  # a fork of it has the file too, and no part in it
            return
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError as error:
            self._warn(error)
            self.close()

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                self._warn(error)

    def _warn(self, error: OSError) -> None:
        logger.warning("the recording %s stops here: %s", self._path, error.strerror or error)


class Exchange:
    """One exchange while it goes on. Its file is closed once it is known how it ended, and what came of it."""

    def __init__(self, file: RecordingFile, secrets: RecordingSecrets) -> None:
        self._file = file
        self._secrets = secrets
        self._pieces = secrets.pieces()
        self._times: deque[float] = deque()
        self._began = time.monotonic()
        self._end: tuple[float, How, str] | None = None
        self._outcome: Outcome | None = None
        self._finished = False

    def responded(self, status_code: int, headers: Mapping[str, str]) -> None:
        """Record that the response began."""
        self._file.write(response_line(self._seconds(), status_code, self._secrets.headers(headers)))

    def read(self, data: bytes) -> None:
        """Record a read of its body."""
        self._times.append(self._seconds())
        self._write(self._pieces.feed(data))

    def ended(self, how: How, detail: str = "") -> None:
        """Record how it ended; no effect once that is known."""
        if self._end is None:
            self._end = (self._seconds(), how, self._secrets.without(detail))
            if self._outcome is not None:
                self.finish()

    def judged(self, completeness: Completeness, error: ChatAPIError | None) -> None:
        """Record what the client made of it; no effect once that is known."""
        if self._outcome is None:
            self._outcome = _outcome(completeness, error, self._secrets)
            if self._end is not None:
                self.finish()

    def finish(self) -> None:
        """Close its file, with what is known by now; no effect where that was done."""
        if self._finished:
            return
        self._finished = True
        self._write(self._pieces.close())
        seconds, how, detail = self._end or (self._seconds(), "client_closed", "")
        self._file.write(end_line(End(seconds, how, detail, self._outcome)))
        self._file.close()

    def _write(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._file.write(piece_line(Piece(self._times.popleft(), piece)))

    def _seconds(self) -> float:
        return time.monotonic() - self._began


class CallRecorder:
    """Sends the requests of one call, and records each with what came of it."""

    def __init__(self, recorder: Recorder, http: SendsRequests, operation: Operation, secrets: Secrets) -> None:
        self._recorder = recorder
        self._http = http
        self._operation: Operation = operation
        self._secrets = secrets
        self._exchange: Exchange | None = None

    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes,
        timeouts: Timeouts,
        on_progress: Callable[[bool], None],
    ) -> ReadableResponse:
        """Send a request: the HTTP layer's own interface, with its results and errors."""
        if self._exchange is not None:
            self._exchange.finish()
        exchange = self._exchange = self._begin(url, headers, content)
        try:
            response = await self._http.post(
                url, headers=headers, content=content, timeouts=timeouts, on_progress=on_progress
            )
        except ChatAPIError as error:
            exchange.ended("no_response")
            exchange.judged("failed", error)
            raise
        except BaseException:
            exchange.ended("client_closed")
            raise
        exchange.responded(response.status_code, response.headers)
        return RecordedResponse(response, exchange)

    def ended(self, completeness: Completeness, error: ChatAPIError | None) -> None:
        """Record how the stream ended that was made of the last exchange."""
        if self._exchange is not None:
            self._exchange.judged(completeness, error)

    def _begin(self, url: str, headers: Mapping[str, str], content: bytes) -> Exchange:
        began = datetime.now(UTC)
        secrets = self._secrets.for_recording()
        body = secrets.without(_parsed(content))
        request = RecordedRequest("POST", secrets.without(url), secrets.headers(headers), body)
        file = self._recorder.new_file(began, self._operation)
        exchange = Exchange(file, secrets)
        file.write(opening_lines(f"chatapi-async {__version__}", began, self._operation, request))
        return exchange


class RecordedResponse:
    """A response that is recorded while it is read; see :class:`Response`."""

    def __init__(self, response: ReadableResponse, exchange: Exchange) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.request_id = response.request_id
        self.unreadable = response.unreadable
        self._response = response
        self._exchange = exchange
        finalize(self, exchange.finish)  # where it is forgotten, or the process ends

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._response.__anext__()
        except StopAsyncIteration:
            self._exchange.ended("body_ended")
            raise
        except BodyBrokenError as broken:
            self._exchange.ended(broken.how, str(broken))
            raise
        self._exchange.read(data)
        return data

    async def aclose(self) -> None:
        """Be done with it; see :meth:`Response.aclose`."""
        self._exchange.ended("client_closed")
        await self._response.aclose()


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:  # a whole number of thousands of digits
        return content.decode()


def _outcome(completeness: Completeness, error: ChatAPIError | None, secrets: RecordingSecrets) -> Outcome:
    if error is None:
        return Outcome(completeness)
    return Outcome(
        completeness,
        type(error).__name__,
        secrets.without(str(error)),
        phase=error.phase if isinstance(error, APITimeoutError) else None,
        limit=error.limit if isinstance(error, APITimeoutError | EventTooLargeError) else None,
        processed=error.processed,
        retryable=error.retryable,
    )
