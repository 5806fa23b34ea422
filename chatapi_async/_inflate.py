"""Compressed bytes in, decompressed bytes out, a bounded piece at a time, however they are split. No I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Final

PIECE_BYTES: Final = 64 * 1024
READABLE: Final = frozenset({"gzip", "x-gzip", "deflate"})
"""The content encodings (RFC 9110, 8.4.1) that :class:`Inflater` reads."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32


def encoding_of(headers: Mapping[str, str]) -> str:
    """Return the content encoding of a body, ``""`` for none."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def unread_encoding(headers: Mapping[str, str]) -> str:
    """Return the content encoding of a body, where it is none that is read; else ``""``."""
    encoding = encoding_of(headers)
    return "" if encoding in READABLE else encoding


class Inflater:
    """Decompresses one body: gzip, of any number of members, or the zlib format that is called ``deflate``."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what ``data`` holds, at most 64 KiB at a time, each piece before what follows it is looked at.

        Raises:
            zlib.error: it is not compressed in this way; all that came before has been yielded.
        """
        while True:
            if self._stream.eof:
                self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
            before = self._stream.copy()
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error:
                # What zlib had read of it up to the fault is lost with the call; so it is read in smaller parts.
                if len(data) < 2:
                    raise
                self._stream = before
                middle = len(data) // 2
                yield from self.feed(data[:middle])
                data = data[middle:]
                continue
            if piece:
                yield piece
            data = self._stream.unconsumed_tail or self._stream.unused_data
            if not data and len(piece) < PIECE_BYTES:
                return
