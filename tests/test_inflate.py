"""Decompression: the same bytes for every split, a bounded piece at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatapi_async._inflate import PIECE_BYTES, Inflater

TEXT = bytes(range(256)) * 40
COMPRESSED = {
    "gzip": gzip.compress(TEXT, mtime=0),
    "zlib": zlib.compress(TEXT),
    "two members": gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0),
}


def inflated(pieces: Iterable[bytes]) -> tuple[bytes, bool]:
    """What comes out, and whether it broke."""
    inflater, out = Inflater(), bytearray()
    for data in pieces:
        try:
            for piece in inflater.feed(data):
                assert 0 < len(piece) <= PIECE_BYTES
                out += piece
        except zlib.error:
            return bytes(out), True
    return bytes(out), False


@pytest.mark.parametrize("data", COMPRESSED.values(), ids=COMPRESSED)
def test_it_comes_out_as_it_was(data: bytes) -> None:
    assert inflated([data]) == (TEXT, False)
    assert inflated(data[at : at + 1] for at in range(len(data))) == (TEXT, False)


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 10 * PIECE_BYTES])
def test_nothing_is_held_back_however_much_it_grows(size: int) -> None:
    compressor = zlib.compressobj()
    flushed = compressor.compress(b"x" * size) + compressor.flush(zlib.Z_SYNC_FLUSH)

    assert inflated([flushed]) == (b"x" * size, False)


def test_each_piece_is_given_before_the_next_is_made() -> None:
    pieces = Inflater().feed(zlib.compress(b"x" * 10 * PIECE_BYTES)[:-1] + b"!")

    assert [len(next(pieces)) for _ in range(9)] == [PIECE_BYTES] * 9


@given(st.sampled_from([*COMPRESSED.values(), TEXT]), st.data())
def test_where_it_breaks_does_not_hang_on_how_it_was_split(whole: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(broken)), max_size=5)))
    pieces = [broken[start:end] for start, end in zip([0, *cuts], [*cuts, len(broken)], strict=True)]

    assert inflated(pieces) == inflated([broken])
