"""What is added to a file that grows, in whole lines."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Optional, Tuple, Union

LONGEST_PART = 1 << 16
"""Bytes of a line without an end that are kept."""
COMPARED = 64
"""Bytes before the place to read on from that are compared, so that a file written anew is noticed."""


class Tail:
    """What is added to a file, in whole lines."""

    def __init__(self, path: Union[str, Path], offset: int = 0) -> None:
        """Begin at a place in the file."""
        self.path = str(path)
        self._offset = offset
        self._file: Optional[Tuple[int, int]] = None
        self._read = b""  # the end of what was read, and
        self._part = b""  # what of it is no whole line yet
        self.passed_over = 0
        """Bytes that were too many for one look."""
        self._is_cut = False  # whether the next line lacks its beginning

    def new(self, most: int) -> bytes:
        """Return the lines that are new, the last ``most`` bytes of them, each with its end (a carriage return or
        newline); a file that was replaced, cut or written anew is read from its beginning.
        """
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return b""
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                return b""
            known, self._file = self._file, (found.st_dev, found.st_ino)
            is_other = known not in (None, self._file) or found.st_size < self._offset
            if not is_other and found.st_size == self._offset:
                return b""
            compared = len(self._read)
            if is_other or os.pread(handle, compared, self._offset - compared) != self._read:
                self._offset, self._read, self._part, self._is_cut = 0, b"", b"", False
            if found.st_size - self._offset > most:
                self.passed_over += found.st_size - most - self._offset
                self._offset, self._part, self._read = found.st_size - most, b"", b""
                self._is_cut = os.pread(handle, 1, self._offset - 1) not in (b"\n", b"\r")
            content = _pread(handle, found.st_size - self._offset, self._offset)
        except OSError:
            return b""
        finally:
            os.close(handle)
        self._offset += len(content)
        self._read = (self._read + content)[-COMPARED:]
        return self._whole_lines(content)

    def rest(self) -> bytes:
        """Return the last line that was read if it lacks its end: the program has ended without one."""
        part, self._part = self._part, b""
        return part + b"\n" if part and not self._is_cut else b""

    def _whole_lines(self, content: bytes) -> bytes:
        end = 1 + max(content.rfind(b"\n"), content.rfind(b"\r"))
        if not end:
            self._part += content
            if len(self._part) > LONGEST_PART:
                self._part, self._is_cut = b"", True
            return b""
        lines, self._part = self._part + content[:end], content[end:]
        if self._is_cut:
            begins = [at for at in (lines.find(b"\n"), lines.find(b"\r")) if at >= 0]
            lines, self._is_cut = lines[1 + min(begins) :], False
        if len(self._part) > LONGEST_PART:
            self._part, self._is_cut = b"", True
        return lines


def _pread(handle: int, count: int, offset: int) -> bytes:
    content = piece = os.pread(handle, count, offset)
    while piece and len(content) < count:
        piece = os.pread(handle, count - len(content), offset + len(content))
        content += piece
    return content
