"""Ending runs on a cluster from outside, and moving their directories aside."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence, Set

from .. import privacy, records, rundir, schema
from ..host import archive
from ..run import place
from . import claim as slurm_claim
from . import commands, submit, words
from . import tasks as slurm_tasks
from .commands import HalfDone, Job, SlurmError
from .facts import read_written

if TYPE_CHECKING:
    from .. import messages

PATIENCE_S = 60.0
"""So long the end of running jobs is waited for: Slurm leaves them KillWait (30 s) after SIGTERM."""
MOST_S = 90.0
"""And so long where programs have more time than that: their supervisors end them in any case."""
LOOK_S, LONGEST_LOOK_S = 0.5, 8.0
"""How soon it is first looked, and the pause to which that grows: slurmctld serves others, too."""
IDS_PER_COMMAND = 500


def slurm_cancel(request: messages.SlurmCancelRequest) -> messages.Cancelled:
    """End runs, wherever they stand; harmless for a run that is over.

    Args:
        request: ``root``; ``runs``, a list of (run directory, token).

    Returns:
        ``runs``: run directory to ``cancelled``, ``not running`` or ``still ending``.

    Raises:
        SlurmError: slurmctld does not answer; nothing was cancelled.
        HalfDone: What was cancelled is not known.
    """
    root = os.path.expanduser(request["root"])
    wanted = [(str(run_dir), str(token)) for run_dir, token in request["runs"]]
    living: Dict[str, List[Job]] = {}
    jobs = commands.queue("--me")
    listed = slurm_tasks.Listed(jobs)
    for run_dir, task in slurm_tasks.find_tasks(root, wanted).items():
        found = _jobs_of(run_dir, task, listed)
        if found:
            living[run_dir] = found
        elif task is not None and "unknown" in (submit.answer_of(root, task.token, task.position) or {}):
            submit.give_up(root, task.token, task.position)  # should it still appear
    for run_dir, found in living.items():
        control = rundir.control(run_dir, "")
        control.mkdir(parents=True, exist_ok=True)
        content = {"by": "oelm-cancel", "time": time.time(), "jobs": [job.id for job in found]}
        rundir.write_json(control / rundir.CANCEL, content, durable=False)
    asked = _ask_supervisors(living)
    wanted_jobs = [job for found in living.values() for job in found]
    _scancel(_fewest([job for job in wanted_jobs if job.id not in asked], jobs))
    late = _wait_for_end({job.id for job in wanted_jobs}, asked) if living else set()
    commands.forget_queue()
    answers = {run_dir: "not running" for run_dir, _ in wanted}
    for run_dir, found in living.items():
        answers[run_dir] = "still ending" if any(job.id in late for job in found) else "cancelled"
    return {"runs": answers}


def _jobs_of(run_dir: str, task: Optional[slurm_tasks.Task], listed: slurm_tasks.Listed) -> List[Job]:
    """Return the living jobs that execute a run or would: its submission's, and any that has its claim."""
    found = listed.of(task, run_dir) if task is not None else []
    owner = listed.owner_of(run_dir)
    if owner is not None and owner not in found:
        found.append(owner)
    try:
        has_ended = read_written(run_dir).is_final
    except schema.Misfit:
        has_ended = False
    return [job for job in found if not job.is_over and not (job.state == "COMPLETING" and has_ended)]


def _fewest(wanted: Sequence[Job], jobs: Sequence[Job]) -> List[str]:
    """Return the ids to cancel: of an array that goes as a whole, its own instead of its tasks'."""
    ids = {job.id for job in wanted}
    arrays: Dict[str, Set[str]] = {}
    for job in jobs:
        if job.task is not None and not job.is_over:
            arrays.setdefault(job.id.partition("_")[0], set()).add(job.id)
    for array, members in arrays.items():
        if members <= ids:
            ids = (ids - members) | {array}
    return sorted(ids)


def _ask_supervisors(living: Mapping[str, Sequence[Job]]) -> Dict[str, float]:
    """Ask the supervisors of programs that have more time to stop than Slurm leaves to a job that it ends; return until
    when (monotonic clock) they have it, by job.
    """
    stops: Dict[str, float] = {}
    for run_dir, jobs in living.items():
        stop_s = place.stop_grace(records.RUN.read_if_sound(run_dir), 0.0)
        stops.update({job.id: stop_s for job in jobs if job.state == "RUNNING" and stop_s})
    least_s = commands.kill_wait() - commands.RECORDS_S if stops else 0.0
    until_s = time.monotonic() + commands.RECORDS_S
    found = {job: until_s + stop_s for job, stop_s in stops.items() if stop_s > least_s}
    try:
        _scancel(sorted(found), "--batch", "--signal=TERM")
    except HalfDone:  # then as all others
        return {}
    return found


def _scancel(ids: Sequence[str], *options: str) -> None:
    for first in range(0, len(ids), IDS_PER_COMMAND):
        try:
            code, _, err = commands.call(["scancel", *options, *ids[first : first + IDS_PER_COMMAND]], 60.0)
        except SlurmError as error:
            raise HalfDone(str(error)) from error
        if code != 0 and not any(words.NO_SUCH_JOB.search(line) for line in words.own(err, "scancel")):
            raise HalfDone(words.said(err, "scancel", code))


def _wait_for_end(ids: Set[str], asked: Dict[str, float]) -> Set[str]:
    """Wait until jobs have left their nodes, cancelling again what was just being requeued; return those that have
    not.

    Args:
        asked: Until when the supervisors of some have time to end them; after that Slurm does.
    """
    deadline, pause = time.monotonic() + (MOST_S if asked else PATIENCE_S), LOOK_S
    while True:
        try:
            rows = commands.queue("--me")
        except SlurmError:
            return ids
        late = {row.id for row in rows if row.id in ids and not row.is_over}
        if not late or time.monotonic() > deadline:
            return late
        again = [row.id for row in rows if row.id in late and not row.is_alive]
        overdue = [job for job in late if time.monotonic() > asked.get(job, math.inf)]
        for job in overdue:
            del asked[job]
        with contextlib.suppress(SlurmError):
            _scancel([*again, *overdue])
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_LOOK_S)


def slurm_archive(request: messages.ArchiveRequest) -> messages.Moved:
    """Move run directories aside, all or none (agent/host/archive.py); a living job's claim keeps its run in place.

    Args:
        request: As of archive.

    Returns:
        As archive.

    Raises:
        SlurmError: Whether an owner lives can't be found out.
        inside.Outside: As archive; nothing was moved.
        privacy.NotOurs: One is to be removed and another user's; nothing was moved.
    """
    run_dirs = archive.check(request)
    if request.get("below") is not None:
        privacy.not_anothers(run_dirs)
    claims: Dict[str, slurm_claim.Claim] = {}
    answer: messages.Moved = {"moved": {}, "busy": [], "gpu_hours": {}}
    try:
        for run_dir in run_dirs:
            if os.path.isdir(run_dir):
                claim = slurm_claim.take_for_archive(run_dir)
                if claim is None:
                    return {**answer, "busy": [run_dir]}
                claims[run_dir] = claim
        for run_dir in claims:
            archive.move_aside(run_dir, answer)
    finally:
        for run_dir, claim in claims.items():
            if run_dir not in answer["moved"]:
                claim.release()
    return archive.removed(request, answer)
