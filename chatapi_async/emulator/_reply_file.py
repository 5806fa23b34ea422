"""A reply file on disk, which may be edited while the emulator runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ._replies import Asked, RuleBook
from ._reply_reading import ReplyFileError, read_replies
from ._scripted import ScriptedAnswer

logger = logging.getLogger("chatapi_async.emulator")
logger.addHandler(logging.NullHandler())


class ReplyFile:
    """The rules of a file. When it has changed it is read again; while it is broken, the rules from before answer.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        ReplyFileError: it breaks the schema.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._name = os.fspath(path)
        self._path = Path(path).absolute()  # a program may change its directory before the file changes
        self._seen = _state(self._path)
        self._rules = self._read()

    def answer(self, asked: Asked) -> ScriptedAnswer | None:
        """Return what the rules say, as they are now; arguments and errors are those of :meth:`RuleBook.answer`."""
        state = _state(self._path)
        if state != self._seen:
            self._seen = state
            try:
                self._rules = self._read()
            except (OSError, ReplyFileError) as error:
                logger.warning("%s\nuntil it is mended, the rules from before answer", error)
            else:
                logger.info("%s has changed, and was read again", self._name)
        return self._rules.answer(asked)

    def _read(self) -> RuleBook:
        return RuleBook(read_replies(self._path.read_bytes(), self._name), self._name)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever the file does; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
