"""Copies below a root of what runs take from other targets (``inputs/STUDY/RUN/HASH``): which of them nobody takes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Set, Tuple

from .. import privacy, rundir, trees
from .taken import Taken
from .uses import NAME

COPIED_S = float(os.environ.get("OELM_COPIED_S", 24 * 3600))
"""What was brought within so long stays: more of it may be on its way, and the submission that it is for may not be on
record yet.
"""
_LEFT = re.compile(r"\.[0-9a-f]{16}\.gone\.\d+")
"""What a removal that was killed leaves."""


def unused(root: str, rows: Iterable[Taken], least_s: float) -> Dict[str, int]:
    """Return this user's copies that no run takes, each with its bytes.

    Args:
        rows: What runs that aren't over take.
        least_s: How old they must be.
    """
    folder = _folder(root)
    used: Set[str] = set()
    for path in {row.name for row in rows if not row.run_dir}:
        real = os.path.realpath(path)
        used.update([real, *map(str, Path(real).parents)])
    found: Dict[str, int] = {}
    for place in _each(folder):
        real = os.path.realpath(place)
        look = os.lstat(place)
        if not NAME.fullmatch(os.path.basename(place)) or not privacy.is_ours(look, folder):
            continue
        if real in used:
            continue
        size, changed_at = _size_and_age(place)
        if time.time() - changed_at >= max(least_s, COPIED_S):
            found[os.path.relpath(place, folder)] = size
    return found


def remove(root: str, names: Iterable[str]) -> List[str]:
    """Remove copies, and what a removal that was killed has left; return the names of those that are gone."""
    folder = _folder(root)
    done = []
    for name in names:
        with contextlib.suppress(OSError):
            trees.remove(os.path.join(folder, name))
            done.append(name)
    for place in _each(folder):
        if _LEFT.fullmatch(os.path.basename(place)):
            shutil.rmtree(place, ignore_errors=True)
    for above in sorted(Path(folder).glob("*/*")) + sorted(Path(folder).glob("*")):
        with contextlib.suppress(OSError):  # it isn't empty
            above.rmdir()
    return done


def _folder(root: str) -> str:
    return os.path.join(root, rundir.CONTROL, rundir.COPIES)


def _each(folder: str) -> Iterator[str]:
    """Yield the path of each folder two below one; links are none."""
    for path in sorted(Path(folder).glob("*/*/*")):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(str(path)).st_mode):
                yield str(path)


def _size_and_age(place: str) -> Tuple[int, float]:
    """Return the bytes of a copy's files, and when something was last put into it: who sends a file sets its time of
    modification, but not that of change.
    """
    size, changed_at = 0, 0.0
    for folder, _folders, names in os.walk(place):
        with contextlib.suppress(OSError):
            files = [os.lstat(os.path.join(folder, name)) for name in names]
            size += sum(look.st_size for look in files)
            changed_at = max(changed_at, *(max(look.st_mtime, look.st_ctime) for look in [os.lstat(folder), *files]))
    return size, changed_at
