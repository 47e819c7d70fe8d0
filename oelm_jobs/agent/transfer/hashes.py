"""SHA-256 of large files that rarely change, remembered with size and times of the file."""

from __future__ import annotations

import array
import contextlib
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from .. import rundir

NAME = "hashes.json"
"""File in a control folder that remembers the hashes of a root's token files, or of a run's checkpoints."""
PIECE_BYTES = 1 << 20


class Memory:
    """Hashes remembered in a file; without a name, or where it can't be written, nothing is remembered."""

    def __init__(self, path: Optional[Path]) -> None:
        self._path = path
        self._known: Dict[str, object] = rundir.read_json(path) or {} if path is not None else {}
        self._changed = False

    def sha256(self, path: str) -> str:
        """Return a file's SHA-256 in hexadecimal.

        Raises:
            OSError: It can't be read.
        """
        return str(self._look(path, False)[0])

    def ids(self, path: str) -> "tuple[str, int, int]":
        """Return a file's SHA-256 in hexadecimal, the largest little-endian uint16 in it, and which of them is the
        first of that size; 0 of an empty file.

        Raises:
            OSError: It can't be read.
        """
        digest, largest, at = self._look(path, True)
        return str(digest), max(0, int(largest)), int(at)

    def _look(self, path: str, with_ids: bool) -> List[Any]:
        found = os.stat(path)
        look = [found.st_size, found.st_mtime_ns, found.st_ino]
        known = self._known.get(path)
        if isinstance(known, list) and known[:3] == look and len(known) == 6 and (not with_ids or known[4] >= 0):
            return known[3:]
        digest, largest, at, done = hashlib.sha256(), -1, 0, 0
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(PIECE_BYTES), b""):
                digest.update(piece)
                if with_ids:
                    more, place = _largest(piece, largest)
                    if more > largest:
                        largest, at = more, done + place
                    done += len(piece) // 2
        self._known[path] = [*look, digest.hexdigest(), largest, at]
        self._changed = True
        return [digest.hexdigest(), largest, at]

    def save(self) -> None:
        """Save the hashes; files that are gone are forgotten."""
        if not self._changed or self._path is None:
            return
        kept = {path: known for path, known in self._known.items() if os.path.exists(path)}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rundir.write_json(self._path, kept, durable=False)


def _largest(piece: bytes, known: int) -> "tuple[int, int]":
    """Return the largest little-endian uint16 of a piece and its place; ``known`` and no place where none exceeds it.

    Few come near the largest so far, and those alone are compared: a tenth of the time of comparing all.
    """
    high = piece[1::2]
    top = max(known, 0) >> 8
    if len(high.translate(None, bytes(range(top, 256)))) * 16 > len(high) * 15:
        place = -1
        for found in re.finditer(b"[\\x%02x-\\xff]" % top, high):
            value = high[found.start()] << 8 | piece[2 * found.start()]
            if value > known:
                known, place = value, found.start()
        return known, place
    ids = array.array("H", piece[: len(high) * 2])
    if sys.byteorder == "big":
        ids.byteswap()
    largest = max(ids, default=-1)
    return (largest, ids.index(largest)) if largest > known else (known, -1)
