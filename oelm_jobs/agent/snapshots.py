"""Snapshots below a root: where they lie, and holding the one that a submission names while it is made."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator, Mapping

from . import rundir, trees

FOLDER = "snapshots"
LACKING = "lacking"
"""What a submission answers whose snapshot is gone: nothing was started."""


@contextlib.contextmanager
def needed(root: str, request: Mapping[str, Any]) -> Iterator[bool]:
    """Let nobody remove snapshots while a submission is made; yield whether the one that it names is there.

    Raises:
        trees.Busy: Somebody is removing some just now; nothing was done.
    """
    name = str(request.get("snapshot") or "")
    folder = os.path.join(root, rundir.CONTROL, FOLDER)
    with trees.held(folder):
        yield not name or os.path.isdir(os.path.join(folder, name))
