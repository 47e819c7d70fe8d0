"""What a process asks the disk to keep: which files get their names, with which bytes, and what is synced when."""

from __future__ import annotations

import functools
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Journal:
    """Files below a folder, as they are synced and get their names; what a file holds when it gets one."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._events: list[tuple[str, str, int]] = []
        """What is done, the path below the folder, and the file's number (stat(2), st_ino)."""
        self._synced: dict[int, tuple[int, int]] = {}
        """Size and time of the last change when a file was synced, by its number."""
        self.contents: dict[str, bytes] = {}
        """What a file held when it got its name."""

    def note_sync(self, descriptor: int, path: str) -> None:
        """Note fsync(2) of a file or folder."""
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            self._add("sync", path + "/", 0)
        else:
            self._synced[found.st_ino] = found.st_size, found.st_mtime_ns
            self._add("sync", path, found.st_ino)

    def note_name(self, how: str, source: str, path: str) -> None:
        """Note that a file gets a name, by rename(2) or link(2)."""
        if not self._is_inside(path):
            return
        found = os.stat(source)
        self.contents[os.path.relpath(path, self._folder)] = Path(source).read_bytes()
        synced = self._synced.get(found.st_ino)
        self._add(how if synced in (None, (found.st_size, found.st_mtime_ns)) else how + " changed", path, found.st_ino)

    def note_removal(self, path: str) -> None:
        """Note that a name goes; those of temporary files say nothing."""
        if os.path.exists(path) and not os.path.basename(path).startswith("."):
            self._add("remove", path, 0)

    def _is_inside(self, path: str) -> bool:
        return path.startswith(self._folder + os.sep)

    def _add(self, what: str, path: str, number: int) -> None:
        if self._is_inside(path):
            name = os.path.relpath(path, self._folder) + ("/" if path.endswith("/") else "")
            self._events.append((what, name, number))

    def lines(self, *names: str) -> list[str]:
        """Return what was done in its order, a temporary file called by the name that it gets.

        Args:
            names: Only what bears one of these names; all where there are none.
        """
        found = []
        for at, (what, name, number) in enumerate(self._events):
            if what == "sync" and number:
                named = (path for how, path, which in self._events[at:] if which == number and how != "sync")
                name = next(named, name)
            found.append(f"{what} {name}")
        return [line for line in found if not names or line.rpartition(" ")[2] in names]


_current: list[Journal] = []


def _on_audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Hear of renames, links and removals, whoever asks for them (PEP 578)."""
    for journal in _current:
        if event == "os.rename":
            journal.note_name("name", os.fspath(arguments[0]), os.fspath(arguments[1]))
        elif event == "os.link":
            journal.note_name("link", os.fspath(arguments[0]), os.fspath(arguments[1]))
        elif event == "os.remove":
            journal.note_removal(os.fspath(arguments[0]))


@functools.cache
def _listen() -> None:
    """Have audit events told, once: a hook stays for as long as the process lives."""
    sys.addaudithook(_on_audit)


@contextmanager
def kept(folder: Path) -> Iterator[Journal]:
    """Keep a journal of what this process does below a folder."""
    _listen()
    journal, fsync = Journal(folder), os.fsync

    def noted(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        journal.note_sync(number, os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    os.fsync = noted
    _current.append(journal)
    try:
        yield journal
    finally:
        _current.remove(journal)
        os.fsync = fsync
