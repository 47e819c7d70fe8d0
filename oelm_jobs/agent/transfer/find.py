"""Find the records of all runs below a root, and where those lie that were started over or forgotten."""

from __future__ import annotations

import glob
import os
from typing import TYPE_CHECKING, Dict, List

from .. import records, rundir, verbs

if TYPE_CHECKING:
    from .. import messages


def top(request: messages.FindRequest) -> str:
    """Return the folder of a root's run directories."""
    return request.get("checkpoint_root") or os.path.join(request["root"], "models", "checkpoints")


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
    for folder, folders, _ in os.walk(top(request)):
        record = rundir.read_json(rundir.control(folder, rundir.RUN))
        if record is not None:
            found = dict(waiting.pop(folder, record), run_dir=folder)
            # Nothing of what can't be told in an answer, but that it is there.
            is_told = verbs.FOUND.wrong(found) is None
            runs.append(found if is_told else {"run_dir": os.fsencode(folder).decode("utf-8", "replace")})
            folders[:] = []
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return {"runs": [*runs, *waiting.values()]}


def archived(request: messages.ArchivedRequest) -> messages.ArchivedAnswer:
    """Tell where lies what was started over or forgotten.

    Args:
        request: ``runs``: by a word of the client's ``run_dir``, where each lay, the ``token`` of its submission, and
            ``place``, where it was moved to (empty where nobody knows).

    Returns:
        ``runs``: by that word an absolute path; empty where nothing of it is found.
    """
    return {"runs": {word: _lies(one["run_dir"], one["token"], one["place"]) for word, one in request["runs"].items()}}


def _lies(run_dir: str, token: str, place: str) -> str:
    if place and os.path.isdir(place):  # nothing else is ever put there
        return place
    folder, name = os.path.split(run_dir)
    moved = glob.glob("%s-*" % glob.escape(os.path.join(folder, rundir.ARCHIVE, name)))
    for path in (run_dir, *sorted(moved)):
        record = records.RUN.read_if_sound(path)
        if record is not None and record.token == token:
            return path
    return ""
