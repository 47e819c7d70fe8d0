"""Find the records of all runs below a root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List

from .. import rundir, verbs

if TYPE_CHECKING:
    from .. import messages


def waiting_records(root: str) -> Dict[str, Dict[str, object]]:
    """Return by run directory the records of Slurm jobs that have not begun yet: only their scripts hold them."""
    if not os.path.isdir(os.path.join(root, rundir.CONTROL, "slurm")):
        return {}
    from ..slurm import submit as slurm_submit

    return slurm_submit.waiting_records(root)


def find(request: messages.FindRequest) -> messages.FindAnswer:
    """Return the records of all runs below a root, archived ones left out.

    Args:
        request: ``root``; ``checkpoint_root``, where run directories lie elsewhere.

    Returns:
        ``runs``: records (run.json), each with ``run_dir`` where it lies now.
    """
    runs: List[Dict[str, object]] = []
    waiting = waiting_records(str(request["root"]))
    top = request.get("checkpoint_root") or str(Path(request["root"]) / "models" / "checkpoints")
    for folder, folders, _ in os.walk(top):
        record = rundir.read_json(rundir.control(folder, rundir.RUN))
        if record is not None:
            found = dict(waiting.pop(folder, record), run_dir=folder)
            # Nothing of what can't be told in an answer, but that it is there.
            runs.append(
                found if verbs.fits_find(found) else {"run_dir": os.fsencode(folder).decode("utf-8", "replace")}
            )
            folders[:] = []
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return {"runs": [*runs, *waiting.values()]}
