"""Check that what is written under a name from elsewhere lies in the folder that it is meant for.

A folder is the user's to choose: it and those above it may be links (``models`` on a big disk), and they are followed.
Names below it come from another machine: they hold no step upwards, and no link below the folder leads anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import time
from pathlib import Path
from typing import Any, Iterator, Tuple, Union

from . import rundir
from .sentences import _

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Tokens of submissions and names of transfers: they become parts of file names."""
FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""With which a file is opened: no link is followed, and a FIFO keeps nobody waiting."""

_FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
"""With which a folder is held; macOS has no O_PATH, so there it must be readable."""


class Outside(ValueError):
    """A name leads out of the folder that it was meant for; nothing was written."""

    is_refusal = True


def path_in(folder: Union[str, Path], name: str) -> Path:
    """Return the path of ``name`` below ``folder``, links in the folder's own path followed.

    Raises:
        Outside: The name is none of a file below the folder, or a link on the way to it lies below the folder. A link
            in the file's own place is the caller's: renaming replaces it, ``open_new`` refuses it.
    """
    parts = name.split("/")
    if not is_plain(name):
        raise Outside(_("{name!r} is no name of a file below {folder}", name[:200], str(folder)))
    path = Path(os.path.realpath(str(folder)))
    for part in parts[:-1]:
        path = path / part
        with contextlib.suppress(FileNotFoundError):
            mode = os.lstat(str(path)).st_mode
            if stat.S_ISLNK(mode):
                raise Outside(_("{path} is a link that leads elsewhere", str(path)))
            if not stat.S_ISDIR(mode):
                raise Outside(_("{path} is no folder", str(path)))
    return path / parts[-1]


def is_plain(name: str) -> bool:
    """Tell whether a relative name goes down only: no step upwards, no empty step, nothing absolute."""
    return _goes_down("/" + name)


def is_absolute(path: str) -> bool:
    """Tell whether a path is absolute and has no step upwards, as paths in records and requests are."""
    return path == "/" or _goes_down(path)


def _goes_down(path: str) -> bool:
    """Tell whether a path begins at the root and each step leads to something: a status asks it of each run."""
    closed = path + "/"
    return path[:1] == "/" and "\0" not in path and "//" not in closed and "/./" not in closed and "/../" not in closed


def make_parent(folder: Union[str, Path], name: str) -> Path:
    """Make the folders between ``folder`` and ``name``, and ``folder`` itself; return the name's path.

    Raises:
        Outside: As ``path_in`` says.
        OSError: One can't be made.
    """
    with _parent(folder, name, make=True) as (_, path):
        return path


def open_below(folder: Union[str, Path], name: str, flags: int, mode: int = 0o666) -> int:
    """Open a file below a folder, making the folders on the way where it may be made; return the descriptor.

    Raises:
        Outside: As ``path_in`` says, or its own place holds a link or something that is no plain file.
        OSError: It can't be opened.
    """
    with _parent(folder, name, make=bool(flags & os.O_CREAT)) as (parent, path):
        try:
            found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is not None and not stat.S_ISREG(found.st_mode):
            raise Outside(_("{path} is no plain file", str(path)))
        return os.open(path.name, flags | FLAGS, mode, dir_fd=parent)


def replace(source: Tuple[Union[str, Path], str], folder: Union[str, Path], name: str) -> Path:
    """Give a plain file its final name below a folder, in place of what has it; return its path.

    Args:
        source: Another folder, and the file's name below that.

    Raises:
        Outside: As ``path_in`` says of both names, or the source is no plain file.
        OSError: It can't be renamed.
    """
    with _parent(*source, make=False) as (from_parent, old), _parent(folder, name, make=True) as (parent, path):
        if not stat.S_ISREG(os.stat(old.name, dir_fd=from_parent, follow_symlinks=False).st_mode):
            raise Outside(_("{path} is no plain file", str(old)))
        os.replace(old.name, path.name, src_dir_fd=from_parent, dst_dir_fd=parent)
    return path


def write(folder: Union[str, Path], name: str, content: bytes) -> Path:
    """Write a file below a folder whole, in place of what has its name; return its path.

    Raises:
        Outside: As ``path_in`` says.
        OSError: It can't be written.
    """
    with _parent(folder, name, make=True) as (parent, path):
        temporary = ".new.%d.%d" % (os.getpid(), time.monotonic_ns())  # the name itself may be as long as names can be
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FLAGS, 0o666, dir_fd=parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise
    return path


def remove(folder: Union[str, Path], name: str) -> None:
    """Remove a file below a folder, or a link in its place.

    Raises:
        Outside: As ``path_in`` says.
        OSError: It can't be removed.
    """
    with _parent(folder, name, make=False) as (parent, path):
        os.unlink(path.name, dir_fd=parent)


def run_dir(path: Any) -> str:
    """Return a run directory that a request names.

    Raises:
        Outside: It is no absolute path of one (``…/exp_NAME``).
    """
    name = os.path.basename(path) if isinstance(path, str) and is_absolute(path) else ""
    if not name.startswith(rundir.TRAIN_PREFIX) or name == rundir.TRAIN_PREFIX:
        what = _("{path!r} is no run directory: those are absolute and called {prefix}NAME", path, rundir.TRAIN_PREFIX)
        raise Outside(what)
    return str(path)


def token(word: Any) -> str:
    """Return a submission's token, or a transfer's name, that a request names.

    Raises:
        Outside: It can't be part of a file's name.
    """
    if not isinstance(word, str) or not TOKEN.fullmatch(word):
        raise Outside(_("{word!r} is no token", word))
    return word


@contextlib.contextmanager
def _parent(folder: Union[str, Path], name: str, make: bool) -> Iterator[Tuple[int, Path]]:
    """Hold the folder that has ``name`` in it open, and give its descriptor and the name's path: whoever puts a link
    on the way meanwhile leads nobody elsewhere.

    Raises:
        Outside: As ``path_in`` says.
        OSError: A folder on the way can't be entered or made.
    """
    path = path_in(folder, name)
    above = name.split("/")[:-1]
    place = Path(os.path.realpath(str(folder)))
    if make:
        os.makedirs(str(place), exist_ok=True)
    handle = os.open(str(place), _FOLDER)
    try:
        for part in above:
            place = place / part
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=handle)
            try:
                entered = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):  # open(2); EMLINK on BSD
                    raise
                raise Outside(_("{path} is a link that leads elsewhere", str(place))) from None  # put there just now
            os.close(handle)
            handle = entered
        yield handle, path
    finally:
        os.close(handle)
