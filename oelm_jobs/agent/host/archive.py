"""Move run directories aside, so that their runs can start over."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List

from .. import inside, privacy, rundir

if TYPE_CHECKING:
    from .. import messages

ARCHIVE = ".archive"
"""Folder beside run directories that holds those which were started over."""


def archive(request: messages.RunDirs) -> messages.Moved:
    """Move run directories to ``.archive/<name>-<time>`` beside them, all or none.

    Args:
        request: ``run_dirs``; those that don't exist are passed over.

    Returns:
        ``moved``: run directory to its new place; ``busy``: those that a live execution has claimed.

    Raises:
        inside.Outside: One is no run directory; nothing was moved.
        privacy.NotOurs: One is another user's; nothing was moved.
    """
    run_dirs = [inside.run_dir(run_dir) for run_dir in request["run_dirs"]]
    privacy.not_anothers(run_dirs)
    claims: Dict[str, int] = {}
    busy: List[str] = []
    try:
        for run_dir in run_dirs:
            if not os.path.isdir(run_dir):
                continue
            try:
                rundir.control(run_dir, "").mkdir(exist_ok=True)
                claims[run_dir] = rundir.lock(rundir.control(run_dir, rundir.CLAIM), patience_s=2.0)
            except rundir.Busy:
                busy.append(run_dir)
        return {"moved": {run_dir: move_aside(run_dir) for run_dir in claims if not busy}, "busy": busy}
    finally:
        for handle in claims.values():
            os.close(handle)


def move_aside(run_dir: str) -> str:
    """Move a run directory, whose claim this process holds, into the archive; return where it is now."""
    folder = Path(run_dir).parent / ARCHIVE
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = folder / ("%s-%s-%d" % (Path(run_dir).name, stamp, time.monotonic_ns() % 1000000))
    os.rename(run_dir, str(place))
    return str(place)
