"""What is worth a word of a run although its state is none the worse for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Mapping, Union

from .. import rundir
from ..reasons import because

MUCH_BYTES = 100_000_000
"""An output that is smaller needs no word."""
LITTLE_BYTES = 1_000_000_000
"""Where less is free, the disk may soon be full."""
SHOWN = 3
"""So many files are named."""


def of_output(run_dir: Union[str, Path], passed_over: int = 0) -> str:
    """Return what to say of how much a run has printed over all attempts; empty where it isn't much.

    Args:
        passed_over: Bytes that live reading didn't look at.
    """
    try:
        size = os.stat(str(Path(run_dir) / rundir.LOG)).st_size
    except OSError:
        return ""
    if size < MUCH_BYTES:
        return ""
    said = because("prints_much", size="%.1f GB" % (size / 1e9))
    if passed_over < MUCH_BYTES:
        return said
    return because("passed_over", what=said, size="%.1f GB" % (passed_over / 1e9))


def of_disk(run_dir: Union[str, Path]) -> str:
    """Return what to say of the room that a run's disk has left; empty where that will do."""
    free = rundir.disk_free(str(run_dir))
    return because("disk_nearly_full", size="%d MB" % (free // 1_000_000)) if free < LITTLE_BYTES else ""


def of_changes(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """Return what to say of files that a run is to read and not to write; empty where none has changed.

    Args:
        before: How they looked when it began, by path.
        after: How they look now.
    """
    changed = sorted(path for path in {**before, **after} if before.get(path) != after.get(path))
    return because("changed_outside", files=_some(changed)) if changed else ""


def of_unreadable(names: List[str]) -> str:
    """Return what to say of files and folders that can't be read; empty where there are none."""
    return because("unreadable", files=_some(sorted(names))) if names else ""


def _some(names: List[str]) -> List[str]:
    return names if len(names) <= SHOWN else [*names[:SHOWN], "…"]
