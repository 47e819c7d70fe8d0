"""Find the records of all runs below a root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List

from .. import rundir, verbs

if TYPE_CHECKING:
    from .. import messages


def find(request: messages.FindRequest) -> messages.FindAnswer:
    """Return the records of all runs below a root, archived ones left out.

    Args:
        request: ``root``; ``checkpoint_root``, where run directories lie elsewhere.

    Returns:
        ``runs``: records (run.json), each with ``run_dir`` where it lies now.
    """
    runs: List[Dict[str, object]] = []
    waiting: Dict[str, Dict[str, object]] = {}
    if os.path.isdir(os.path.join(request["root"], rundir.CONTROL, "slurm")):
        from ..slurm import submit as slurm_submit

        waiting = slurm_submit.waiting_records(request["root"])  # of jobs that have not begun: their scripts hold them
    top = request.get("checkpoint_root") or str(Path(request["root"]) / "models" / "checkpoints")
    for folder, folders, _ in os.walk(top):
        record = rundir.read_json(rundir.control(folder, rundir.RUN))
        if record is not None:
            found = dict(waiting.pop(folder, record), run_dir=folder)
            # Nothing of what can't be told in an answer, but that it is there.
            is_told = verbs.FOUND.wrong(found) is None
            runs.append(found if is_told else {"run_dir": os.fsencode(folder).decode("utf-8", "replace")})
            folders[:] = []
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return {"runs": [*runs, *waiting.values()]}
