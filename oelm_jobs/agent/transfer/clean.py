"""Remove the snapshots below a root that nobody needs.

A run that is not over needs its snapshot, and so does a submission of which not every answer is known. Removing and
submitting exclude each other by a lock: a submission either names its snapshot before others are looked at, or finds
it gone, starts nothing and says so, and the client sends the code once more.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .. import privacy, probe, records, rundir, trees
from ..sentences import _
from ..snapshots import FOLDER
from ..states import FINAL

if TYPE_CHECKING:
    from .. import messages

BLIND_S = 24 * 3600.0
"""On a file system without locks, what was asked for within so long stays: it may be for a submission being made."""
_NAME = re.compile(r"[0-9a-f]{16}")


class Use(NamedTuple):
    """A use of a snapshot: who names it."""

    time: float
    """When it was submitted; a run's newest use counts."""
    token: str
    snapshot: str
    """Name of the snapshot; empty where an older version did not write it down."""
    is_slurm: bool


def snapshots(request: messages.SnapshotsRequest) -> messages.SnapshotsAnswer:
    """Find snapshots that nobody needs.

    Args:
        request: ``root``; ``checkpoint_root``, where run directories lie elsewhere; ``young_s``: what was asked for
            within so many seconds stays, since a submission whose fate is not known may name it.

    Returns:
        ``unused``: their names; ``freed``: bytes that removing them would free; ``note``: why some can't be judged,
            empty where all could be.
    """
    folder = os.path.join(request["root"], rundir.CONTROL, FOLDER)
    names, note = _unused(folder, request)
    return {"unused": names, "freed": _size([os.path.join(folder, name) for name in names]), "note": note}


def discard(request: messages.DiscardRequest) -> messages.Freed:
    """Remove snapshots, each only while nobody needs it, and the files that no other one has.

    Args:
        request: As for ``snapshots``, and ``names``.

    Returns:
        ``removed``: names of those that are gone; ``freed``: bytes.

    Raises:
        trees.Busy: Somebody is submitting just now; nothing was removed.
    """
    folder = os.path.join(request["root"], rundir.CONTROL, FOLDER)
    with trees.held(folder, alone=True) as is_held:
        blind_s = 0.0 if is_held else BLIND_S
        names = [name for name in _unused(folder, request, blind_s)[0] if name in request["names"]]
        places = [os.path.join(folder, name) for name in names]
        freed = _size(places)
        for place in places:
            trees.remove(place)
        trees.sweep(folder, blind_s)
    return {"removed": names, "freed": freed}


def _unused(folder: str, request: messages.SnapshotsRequest, least_s: float = 0.0) -> Tuple[List[str], str]:
    """Return this user's snapshots of some age that nobody needs, and why some can't be judged."""
    candidates: Set[str] = set()
    root, now, young_s = request["root"], time.time(), max(request.get("young_s") or 0.0, least_s)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            place = os.path.join(folder, name)
            look = os.lstat(place)
            is_one = _NAME.fullmatch(name) and stat.S_ISDIR(look.st_mode) and privacy.is_ours(look, folder)
            if is_one and now - look.st_mtime >= young_s:
                candidates.add(name)
    if not candidates:
        return [], ""
    top = request.get("checkpoint_root") or os.path.join(root, "models", "checkpoints")
    wanted, note = _wanted(root, top, candidates)
    return sorted(candidates - wanted), note


def _wanted(root: str, top: str, candidates: Set[str]) -> Tuple[Set[str], str]:
    """Return the snapshots that unfinished runs and submissions name, and why some can't be judged."""
    uses, wanted = _submissions(root)
    for run_dir, use in _runs(top):
        uses[run_dir] = max(use, uses.get(run_dir, use))
    asked: Dict[str, Use] = {}
    for run_dir, use in uses.items():
        name = use.snapshot or _in_script(rundir.control(run_dir, rundir.SCRIPT))
        if name and name not in candidates:
            continue
        if privacy.another(run_dir):
            if not _is_over_there(run_dir):
                wanted.add(name)
        else:
            asked[run_dir] = use._replace(snapshot=name)
    states, note = _states(root, asked)
    wanted.update(use.snapshot for run_dir, use in asked.items() if not _is_over(states.get(run_dir)))
    if "" in wanted:  # of an older version, and not over: it may be any
        return set(candidates), note or _("a run that is not over does not say which snapshot it needs")
    return wanted, note


def _submissions(root: str) -> Tuple[Dict[str, Use], Set[str]]:
    """Return by run directory the snapshot that its newest submission names, and those that submissions without an
    answer name.
    """
    uses: Dict[str, Use] = {}
    waiting: Set[str] = set()
    for path in Path(root, rundir.CONTROL, "submissions").glob("*.json"):
        content = rundir.read_json(path) or {}
        try:
            token, at, name = str(content["token"]), float(content["time"]), str(content.get("snapshot") or "")
            if content.get("settled"):
                continue
            if content.get("scheduler") != "slurm":
                new = {str(run_dir): Use(at, token, name, False) for run_dir in content["runs"]}
            else:
                new = {}
                for job in content["jobs"]:
                    of_job = _of_job(root, token, at, name, job)
                    if of_job is None:
                        waiting.add(name)
                    else:
                        new.update(of_job)
        except (KeyError, TypeError, ValueError):
            waiting.add("")
            continue
        for run_dir, use in new.items():
            uses[run_dir] = max(use, uses.get(run_dir, use))
    return uses, waiting


def _of_job(root: str, token: str, at: float, name: str, job: Dict[str, Any]) -> Optional[Dict[str, Use]]:
    """Return by run directory the snapshot that a Slurm job names; None where sbatch has not answered yet."""
    from ..slurm import submit as slurm_submit  # here, because few hosts have Slurm

    position = int(job["position"])
    answer = slurm_submit.answer_of(root, token, position)
    if answer is None or not answer.keys() & {"id", "refused"}:
        return None
    if "refused" in answer:
        return {}
    name = name or _in_script(slurm_submit.file_of(root, token, position, ".sh"))
    return {str(run_dir): Use(at, token, name, True) for run_dir in job["run_dirs"]}


def _runs(top: str) -> Iterator[Tuple[str, Use]]:
    """Yield the uses that run directories record themselves: a script may have been started by hand."""
    for folder, folders, _names in os.walk(top):
        record = rundir.read_json(rundir.control(folder, rundir.RUN))
        if record is not None:
            folders[:] = []
            name = str(record.get("snapshot") or "")
            if _NAME.fullmatch(name):
                is_slurm = record.get("scheduler") == "slurm"
                yield folder, Use(0.0, str(record.get("token") or ""), name, is_slurm)
        folders[:] = [name for name in folders if not name.startswith(".")]


def _in_script(path: Path) -> str:
    """Return the snapshot that a launch script names; empty where that isn't known."""
    from ..slurm.submit import records_of

    held = records_of(path)
    return str(held[0].get("snapshot") or "") if held else ""


def _states(root: str, asked: Dict[str, Use]) -> Tuple[Dict[str, messages.RunRow], str]:
    """Return the states of this user's runs, without those that can't be asked about."""
    states = {run_dir: probe.state_or_unknown(run_dir, dict) for run_dir, use in asked.items() if not use.is_slurm}
    runs = [(run_dir, use.token) for run_dir, use in asked.items() if use.is_slurm]
    note = ""
    if runs:
        from ..slurm import commands as slurm_commands
        from ..slurm import state as slurm_state

        try:
            states.update(slurm_state.slurm_poll({"root": root, "runs": runs, "interval_s": 0.0})["runs"])
        except slurm_commands.SlurmError as error:
            note = _("jobs can't be asked about: {why}", str(error))
    return states, note


def _is_over(row: Optional[messages.RunRow]) -> bool:
    return row is not None and (row["state"] in FINAL or bool(row.get("absent")))


def _is_over_there(run_dir: str) -> bool:
    """Tell whether another user's run is over, by its own records."""
    end = records.END.read_if_sound(run_dir)
    is_over = end is not None and end["state"] in FINAL
    return is_over and not rundir.is_locked(rundir.control(run_dir, rundir.CLAIM))


def _size(places: Sequence[str]) -> int:
    """Return the bytes that removing trees would free: those of files that only they and the store have."""
    found: Dict[Tuple[int, int], List[int]] = {}
    for top in places:
        for folder, _folders, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    look = os.lstat(os.path.join(folder, name))
                    row = found.setdefault((look.st_dev, look.st_ino), [look.st_size, look.st_nlink, 0])
                    row[2] += 1
    return sum(size for size, links, ours in found.values() if links - ours <= 1)
