"""Owns SHA-256 of large files that rarely change: computed once, remembered with what the file looked like; leaves
what a hash decides to its callers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any, Dict, Optional

from . import rundir

PIECE_BYTES = 1 << 20


class Memory:
    """Hashes that are remembered in a file; one that can't be written is done without."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: Dict[str, Any] = rundir.read_json(path) or {}
        self._changed = False

    def sha256(self, path: str, largest_id: bool = False) -> "tuple[str, int]":
        """Return a file's SHA-256 in hexadecimal and the largest little-endian uint16 in it (0 unless asked for).

        Raises:
            OSError: It can't be read.
        """
        found = os.stat(path)
        look = [found.st_size, found.st_mtime_ns, found.st_ino]
        known = self._known.get(path)
        if isinstance(known, list) and known[:3] == look and (not largest_id or known[4] >= 0):
            return str(known[3]), int(known[4])
        digest, largest = hashlib.sha256(), 0 if largest_id else -1
        with open(path, "rb") as file:
            for piece in iter(lambda: file.read(PIECE_BYTES), b""):
                digest.update(piece)
                if largest_id:
                    largest = max(largest, _largest(piece))
        self._known[path] = [*look, digest.hexdigest(), largest]
        self._changed = True
        return digest.hexdigest(), max(0, largest)

    def save(self) -> None:
        """Write down what was learned; files that are gone are forgotten."""
        if not self._changed:
            return
        kept = {path: known for path, known in self._known.items() if os.path.exists(path)}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rundir.write_json(self._path, kept, durable=False)


def _largest(piece: bytes) -> int:
    import array
    import sys

    ids = array.array("H", piece[: len(piece) // 2 * 2])
    if sys.byteorder == "big":
        ids.byteswap()
    return max(ids) if ids else 0


def prefix_sha256(path: str, length: int) -> Optional[str]:
    """Return the SHA-256 of a file's first ``length`` bytes; None where it has not so many."""
    digest, left = hashlib.sha256(), length
    with open(path, "rb") as file:
        while left:
            piece = file.read(min(PIECE_BYTES, left))
            if not piece:
                return None
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()
