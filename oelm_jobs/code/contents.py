"""Remember hashes of a project's files, and whether they hold secrets, for as long as a file looks unchanged.

What a file looks like is its size, its times of change and its inode: the time of the inode's change can't be set
back. A file that changed less than RECENT_S before it was read is read again, since a clock's tick may hide a change;
what was read is held, since such a file (a log, say) may change again before it is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ..agent import rundir
from ..agent.sentences import Sentence
from ..folders import state_folder
from . import credentials

VERSION = 1
"""Of the file; another one is not read."""
RECENT_S = 60.0
HELD_BYTES = 64 << 20
"""So much is held at most."""


@dataclass(frozen=True)
class Content:
    """A file's hash, and what else is known of its content."""

    sha256: str
    """Hexadecimal."""
    secret: str
    """Why it must not be sent, judged by what is in it; empty where nothing speaks against it."""
    held: bytes | None = None
    """All of it, of a file that may change any moment."""


class Contents:
    """Remembered content of one folder's files, kept in the user's state folder where that can be written."""

    def __init__(self, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(str(folder))).hexdigest()[:16]
        self._path = state_folder() / "contents" / f"{name}.json"
        self._known: dict[str, object] = {}
        self._seen: dict[str, object] = {}
        self._room = HELD_BYTES
        with contextlib.suppress(OSError, ValueError, RecursionError):
            content = json.loads(self._path.read_bytes())
            if isinstance(content, dict) and content.get("version") == VERSION and isinstance(content["files"], dict):
                self._known = content["files"]

    def read(self, path: str, found: os.stat_result) -> Content:
        """Return a file's content record, reading the file unless its stat is unchanged.

        Raises:
            OSError: It can't be read.
        """
        look = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        known = self._known.get(path)
        if isinstance(known, list) and len(known) == 6 and known[:4] == look:
            self._seen[path] = known
            secret = str(known[5])
            return Content(str(known[4]), Sentence.made(secret, secret, {}))  # none that credentials gives has values
        with open(path, "rb") as file:
            content = file.read()
        sha256, secret = hashlib.sha256(content).hexdigest(), credentials.why_by_content(content)
        if time.time() - max(found.st_mtime, found.st_ctime) > RECENT_S:
            self._seen[path] = [*look, sha256, secret]
            return Content(sha256, secret)
        self._room -= len(content)
        return Content(sha256, secret, content if self._room >= 0 else None)

    def save(self) -> None:
        """Save what was read; files that weren't asked for this time are forgotten."""
        if self._seen == self._known:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            content = json.dumps({"version": VERSION, "files": self._seen})
            rundir.write_text(self._path, content, durable=False, mode=0o600)
