"""The file format of recordings: JSON Lines, one exchange a file. Writes its lines, and reads them back. No I/O.

The lines, in their order, each written when it happens::

    {"recording": 1, "library": "chatapi-async 0.1.0", "began": "2026-11-26T22:10:30.123456Z", "operation": …}
    {"request": {"method": "POST", "url": …, "headers": {…}, "body": {…}}}
    {"response": {"seconds": 0.2, "status": 200, "headers": {…}}}        none where there was no response
    {"seconds": 0.3, "text": "data: …"}                                  each read; "base64" where it is no UTF-8
    {"end": {"seconds": 0.4, "how": "body_ended", "outcome": {…}}}       none where the recording broke off
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from ._json import is_object
from ._recording import End, Headers, Operation, Piece, RecordedRequest, Recording, Seconds
from .errors import RecordingError

T = TypeVar("T")

FORMAT: Final = 1
"""The version of the format, which is in a recording's first line."""

_NO_RECORDING: Final = 'this is no recording, whose first line is {"recording": 1, …}'

_AFTER: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("recording",),
    "recording": ("request",),
    "request": ("response", "end"),
    "response": ("seconds", "end"),
    "seconds": ("seconds", "end"),
    "end": (),
}
"""By the key that tells a line's kind: which lines may follow it."""


@dataclass(frozen=True, slots=True)
class _Opening:
    library: str
    began: AwareDatetime
    operation: Operation


@dataclass(frozen=True, slots=True)
class _Response:
    seconds: Seconds
    status: Annotated[int, Field(ge=100, le=999)]
    headers: Headers


@dataclass(frozen=True, slots=True)
class _Read:
    seconds: Seconds
    text: str | None = None
    base64: str | None = None


def opening_lines(library: str, began: datetime, operation: Operation, request: RecordedRequest) -> bytes:
    """Return the lines with which a recording begins."""
    time = f"{began.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    first = {"recording": FORMAT, "library": library, "began": time, "operation": operation}
    sent = {"method": request.method, "url": request.url, "headers": dict(request.headers), "body": request.body}
    return _line(first) + _line({"request": sent})


def response_line(seconds: float, status_code: int, headers: Mapping[str, str]) -> bytes:
    """Return the line that says that the response began."""
    return _line({"response": {"seconds": round(seconds, 6), "status": status_code, "headers": dict(headers)}})


def piece_line(piece: Piece) -> bytes:
    """Return the line of one read."""
    seconds = round(piece.seconds, 6)
    try:
        return _line({"seconds": seconds, "text": piece.data.decode()})
    except UnicodeDecodeError:
        return _line({"seconds": seconds, "base64": base64.b64encode(piece.data).decode()})


def end_line(end: End) -> bytes:
    """Return the line with which a recording ends."""
    said = {name: value for name, value in asdict(end).items() if value not in (None, "")}
    if end.outcome is not None:
        said["outcome"] = {name: value for name, value in asdict(end.outcome).items() if value not in (None, "")}
    return _line({"end": {**said, "seconds": round(end.seconds, 6)}})


def parse(data: bytes, source: str) -> Recording:
    """Return the recording that a file holds. One that broke off, in the middle of a line too, has no ``end``.

    Args:
        data: the whole file.
        source: what it is called, for messages.

    Raises:
        RecordingError: it is none, or a damaged one.
    """
    parser = _Parser(source)
    number = 0
    for number, line, terminated in _lines(data):
        parser.add(number, line, terminated=terminated)
    return parser.recording(number + 1)


def _line(fields: dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a character, in what was sent or in what an error says
        return json.dumps(fields).encode() + b"\n"


def _lines(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Yield the lines that are not blank: their numbers, what they hold, and whether they end."""
    *ended, rest = data.split(b"\n")
    for number, line in enumerate(ended, 1):
        if line.strip():
            yield number, line, True
    if rest.strip():
        yield len(ended) + 1, rest, False


class _Parser:
    """Reads the lines of one file, in their order."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._line = 0
        self._kind = ""
        self._opening: _Opening | None = None
        self._request: RecordedRequest | None = None
        self._response: _Response | None = None
        self._pieces: list[Piece] = []
        self._end: End | None = None

    def add(self, number: int, line: bytes, *, terminated: bool) -> None:
        """Read the next line."""
        self._line = number
        try:
            fields = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            if not terminated and self._kind not in ("", "end"):
                return  # the recording broke off while it was written
            if not self._kind:
                raise self._wrong(_NO_RECORDING) from None
            raise self._wrong(f"it is no JSON: {error}") from None
        kind = next((kind for kind in _AFTER if kind and is_object(fields) and kind in fields), "")
        if kind not in (expected := _AFTER[self._kind]):
            if not self._kind:
                raise self._wrong(_NO_RECORDING)
            wanted = " or ".join(f'"{each}"' for each in expected)
            raise self._wrong(f"a line with {wanted} should be here" if wanted else "nothing follows the end")
        self._kind = kind
        self._take(kind, fields)

    def recording(self, next_line: int) -> Recording:
        """Return what the lines make, once there are no more."""
        self._line = next_line
        if self._opening is None:
            raise self._wrong("the file is empty")
        if self._request is None:
            raise self._wrong("the recording broke off before its request")
        response = self._response
        return Recording(
            library=self._opening.library,
            began=self._opening.began,
            operation=self._opening.operation,
            request=self._request,
            status_code=None if response is None else response.status,
            headers={} if response is None else response.headers,
            responded=None if response is None else response.seconds,
            pieces=tuple(self._pieces),
            end=self._end,
        )

    def _take(self, kind: str, fields: dict[str, Any]) -> None:
        if kind == "recording":
            if fields[kind] != FORMAT:
                raise self._wrong(f"the recording is of format {fields[kind]!r}, and format {FORMAT} is what is read")
            self._opening = self._checked(_OPENING, fields)
        elif kind == "request":
            self._request = self._checked(_REQUEST, fields[kind])
        elif kind == "response":
            self._response = self._checked(_RESPONSE, fields[kind])
        elif kind == "end":
            self._end = self._checked(_END, fields[kind])
        else:
            read = self._checked(_READ, fields)
            self._pieces.append(Piece(read.seconds, self._bytes_of(read)))

    def _checked(self, adapter: TypeAdapter[T], fields: object) -> T:
        try:
            return adapter.validate_python(fields)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            place = "".join(f"{step}: " for step in problem["loc"])
            raise self._wrong(f"{place}{problem['msg']}") from None

    def _bytes_of(self, read: _Read) -> bytes:
        try:
            if read.text is not None and read.base64 is None:
                return read.text.encode()
            if read.base64 is not None and read.text is None:
                return base64.b64decode(read.base64, validate=True)
        except ValueError as error:
            raise self._wrong(f"the bytes of a read cannot be made out: {error}") from None
        raise self._wrong('a read has either "text" or "base64"')

    def _wrong(self, what: str) -> RecordingError:
        return RecordingError(f"{self._source}, line {self._line}: {what}", line=self._line)


_OPENING = TypeAdapter(_Opening)
_REQUEST = TypeAdapter(RecordedRequest)
_RESPONSE = TypeAdapter(_Response)
_READ = TypeAdapter(_Read)
_END = TypeAdapter(End)
