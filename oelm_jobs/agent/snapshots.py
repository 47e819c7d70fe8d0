"""Snapshots below a root: where they lie, and holding the one that a submission names while it is made."""

from __future__ import annotations

import contextlib
import os
from typing import Iterator

from . import rundir, trees

FOLDER = "snapshots"
LACKING = "lacking"
"""What a submission answers whose snapshot is gone: nothing was started."""


@contextlib.contextmanager
def needed(root: str, name: str) -> Iterator[bool]:
    """Let nobody remove snapshots while a submission is made; yield whether the one that it names, if any, is there.

    Raises:
        trees.Busy: Somebody is removing some just now; nothing was done.
    """
    folder = os.path.join(root, rundir.CONTROL, FOLDER)
    with trees.held(folder):
        yield not name or os.path.isdir(os.path.join(folder, name))
