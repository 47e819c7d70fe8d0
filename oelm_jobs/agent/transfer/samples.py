"""Tell from samples what a file is that can't be one of uint16 token ids. Standard library only: it runs where the file
lies.
"""

from __future__ import annotations

import array
import codecs
import os
import sys

PIECE_BYTES = 1 << 13
PIECES = 32
"""So many pieces, evenly spread, are read of a file of whatever size."""
FEWEST = 64
"""Of fewer ids nothing is told."""
MARKS = (
    (b"version https://git-lfs", "lfs"),
    (b"\x93NUMPY", "npy"),
    (b"PK\x03\x04", "zip"),
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ", "xz"),
    (b"PAR1", "parquet"),
)
"""How files of other kinds begin."""


def written_as(path: str) -> str:
    """Return what a file seems to hold instead of uint16 ids: ``uint32``, ``int64``, ``float32``, ``uint8``, ``text``,
    or a kind of MARKS; empty where it may hold ids. Reads at most a quarter of a megabyte.

    Raises:
        OSError: It can't be read.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        begin = file.read(PIECE_BYTES)
        for mark, name in MARKS:
            if begin.startswith(mark):
                return name
        if _is_text(begin):
            return "text"
        pieces = [begin[: len(begin) // 8 * 8]]
        for number in range(1, PIECES if size > PIECES * PIECE_BYTES else 1):
            file.seek((size - PIECE_BYTES) * number // (PIECES - 1) // 8 * 8)  # numbers of 8 bytes stay whole
            pieces.append(file.read(PIECE_BYTES // 8 * 8))
        if size <= PIECES * PIECE_BYTES:
            pieces.append(file.read(PIECES * PIECE_BYTES // 8 * 8))
    sample = b"".join(piece[: len(piece) // 8 * 8] for piece in pieces)
    return _numbers(sample)


def _is_text(begin: bytes) -> bool:
    if len(begin) < 2 * FEWEST:
        return False
    try:
        text = codecs.getincrementaldecoder("utf-8")("strict").decode(begin)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\n\r\f" for character in text)


def _numbers(sample: bytes) -> str:
    ids = array.array("H", sample)
    if sys.byteorder == "big":
        ids.byteswap()
    if len(ids) < 2 * FEWEST:
        return ""
    even, odd = ids[0::2], ids[1::2]
    if max(odd) < 4 and max(even) >= 16:  # the upper halves of numbers below 262,144
        return "int64" if not any(ids[2::4]) and not any(odd) else "uint32"
    # Whole numbers below 65,536 as floats: the upper half begins with 0x3f80 to 0x477f, the lower ends with zeros.
    if max(odd) > 0 and all(low & 0x7F == 0 for low in even) and all(not u or 0x3F80 <= u < 0x4780 for u in odd):
        return "float32"
    high = sample[1::2]
    # No byte above 127, in the lower places neither, and the upper ones differ.
    if max(sample) < 0x80 and high.count(0) * 2 < len(high) and len(set(high)) >= 8:
        return "uint8"
    return ""
