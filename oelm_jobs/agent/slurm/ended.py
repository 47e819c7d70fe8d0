"""Owns what is said of a run whose job has ended: by its own records, by what Slurm calls the end of the job, and from
accounting for what left the queue without a word; leaves runs whose job is in the queue to slurm_state.

Absence from squeue is an end only where accounting is known to keep nothing, or confirms it.
"""

from __future__ import annotations

import os
import time
from typing import AbstractSet, Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from .. import privacy, records, rundir
from ..run import failure
from ..run.progress import last_said
from . import accounts, submit
from .commands import Job, SlurmError
from .tasks import Listed, Task, output_of, was_started

NEW_S = 60.0
"""So long after its submission a job may be missing from accounting."""
RESUME = ": submit again to resume"

Row = Dict[str, Any]
"""Where a run stands, as probe answers it: ``state``, ``reason`` and what else is known."""


class Records(NamedTuple):
    """What a run has written; empty where it wrote nothing."""

    start: Dict[str, Any]
    """Of its newest attempt."""
    end: Dict[str, Any]
    """Of its attempts so far."""
    is_cancelled: bool
    """True where somebody asked for its end."""

    @property
    def has_ended(self) -> bool:
        """True where the newest attempt has its end on record."""
        number = self.start.get("number")
        return bool(self.end) and number in [attempt.get("number") for attempt in self.end.get("attempts", [])]

    @property
    def is_final(self) -> bool:
        """True where that end is one after which Slurm starts nothing again."""
        return self.has_ended and self.end.get("state") in (rundir.DONE, rundir.FAILED, rundir.CANCELLED)


def read_records(run_dir: str) -> Records:
    """Return what a run has written, as far as that bears on its state.

    Raises:
        schema.Misfit: It makes no sense.
    """
    control = run_dir + "/" + rundir.CONTROL + "/"
    try:
        names = os.listdir(control)  # of ten thousand runs that were not at work yet, one look each is enough
    except OSError:
        return Records({}, {}, False)
    if privacy.another(run_dir):  # in a root that a group shares
        return Records({}, {}, False)
    start = records.read(control + rundir.START) if rundir.START in names else None
    end = records.read(control + rundir.END) if rundir.END in names else None
    return Records(start or {}, end or {}, rundir.CANCEL in names)


def make_row(state: str, reason: str = "", **more: Any) -> Row:
    """Return a row."""
    return dict(more, state=state, reason=reason)


def is_vague(end: Dict[str, Any]) -> bool:
    """True for an end whose reason Slurm knows better: the supervisor only saw a signal."""
    return str(end.get("reason", "")).startswith("stopped by")


def of_start(start: Dict[str, Any]) -> Dict[str, Any]:
    """Return what a row says of a start record."""
    return {"devices": start.get("devices"), "started_at": start.get("started_at"), "attempt": start.get("number")}


def of_end(end: Dict[str, Any]) -> Row:
    """Return the row of a run by its own end record."""
    attempts = end.get("attempts") or [{}]
    return make_row(
        str(end.get("state")),
        str(end.get("reason") or ""),
        ended_at=end.get("ended_at"),
        token=end.get("token"),
        attempt=attempts[-1].get("number"),
        job=attempts[-1].get("job"),
        devices=attempts[-1].get("devices"),
        started_at=attempts[-1].get("started_at"),
    )


def over(run_dir: str, state: str, exit_code: str, records: Records, token: str, shown: Dict[str, Any]) -> Row:
    """Return the row of a run whose job has ended, by what Slurm calls its end.

    Args:
        state: Slurm's word; empty where nobody kept it.
        token: The run's submission: records of another one are not about this job.
        shown: What the row says of the job.
    """
    start, end = records.start, records.end
    started = start.get("token") == token
    if start:  # progress is the run's, whichever submission made it
        shown = dict(shown, **(of_start(start) if started else {"attempt": start.get("number")}))
    if state == "CANCELLED" or records.is_cancelled:
        before = "cancelled before it started again" if start else "cancelled before it started"
        return make_row(rundir.CANCELLED, "cancelled" if started else before, **shown)
    if end.get("state") == rundir.QUEUED and end.get("token") == token and records.has_ended:
        reason = "Slurm did not start it again after: %s" % end.get("reason", "")
        return make_row(rundir.FAILED, reason + RESUME, **shown)
    words = {
        "TIMEOUT": "time limit, without the time for a checkpoint",
        "DEADLINE": "deadline",
        "OUT_OF_MEMORY": "out of memory: Slurm killed the job",
        "NODE_FAIL": "node failure",
        "BOOT_FAIL": "the node did not boot",
        "PREEMPTED": "preempted, and not started again",
    }.get(state, "")
    if words:
        return make_row(rundir.FAILED, words + RESUME, **shown)
    code = " (exit code %s)" % exit_code if exit_code not in ("", "0:0") else ""
    if not started:
        control = run_dir + "/" + rundir.CONTROL + "/"
        said = last_said(control)
        words = ": " + said if said else code
        if not os.path.exists(control + rundir.SUPERVISOR_LOG):  # the script's first act
            words += ": nothing of it is in %s; do the compute nodes share that folder?" % run_dir
        return make_row(rundir.FAILED, "ended before training started" + words, **shown)
    return make_row(rundir.FAILED, "its job ended without an end record%s" % code + RESUME, **shown)


def vanished(
    root: str,
    silent: Dict[str, Records],
    tasks: Dict[str, Optional[Task]],
    jobs: Sequence[Job],
    ended: AbstractSet[str] = frozenset(),
) -> Dict[str, Row]:
    """Return the rows of runs whose job is not in the queue and that left no end, asking accounting once for all.

    Args:
        silent: Run directory to what the run has written.
        tasks: Run directory to its task.
        jobs: What squeue lists.
        ended: Run directories whose end is known: nobody is asked for them.
    """
    rows: Dict[str, Row] = {}
    asked: Dict[str, Tuple[Task, str]] = {}
    answers: Dict[Tuple[str, int], Dict[str, Any]] = {}
    for run_dir in silent:
        task = tasks[run_dir]
        if task is None:
            rows[run_dir] = make_row(rundir.UNKNOWN, "no trace of it on this cluster", absent=True)
            continue
        key = (task.token, task.position)
        if key not in answers:
            answers[key] = submit.answer_of(root, task.token, task.position) or {}
        answer = answers[key]
        if run_dir in ended:
            rows[run_dir] = make_row(rundir.UNKNOWN, "left the queue; its end was known before")
        elif "id" in answer:
            asked[run_dir] = (task, str(answer["id"]))
        elif "refused" in answer:
            rows[run_dir] = make_row(rundir.FAILED, "not submitted: %s" % answer["refused"])
        else:
            rows[run_dir] = make_row(rundir.UNKNOWN, "whether Slurm took it is not known yet")
    if not asked:
        return rows
    known: Optional[List[Job]] = []
    trouble = ""
    try:
        since = min(task.submitted_at for task, _ in asked.values())
        known = accounts.jobs([job_id for _, job_id in asked.values()], since)
    except SlurmError as error:
        trouble = "left the queue; accounting does not answer (%s)" % error
        known = error.found if isinstance(error, accounts.HalfAnswered) else []
    accounted, everywhere = Listed(known or ()), Listed((*jobs, *(known or ())))
    for run_dir, (task, job_id) in asked.items():
        shown = {"token": task.token, "job": job_id if task.task is None else "%s_%d" % (job_id, task.task)}
        records, mine = silent[run_dir], accounted.of(task, run_dir)
        if mine:
            rows[run_dir] = _by_account(run_dir, mine, records, task.token, shown)
        elif trouble:
            rows[run_dir] = make_row(rundir.UNKNOWN, trouble, **shown)
        else:
            is_kept, is_known = known is not None, everywhere.has_any(task)
            rows[run_dir] = _without_account(root, run_dir, task, records, is_kept, is_known, shown)
    return rows


def _by_account(run_dir: str, rows: Sequence[Job], records: Records, token: str, shown: Dict[str, Any]) -> Row:
    """Return the row of a run that accounting lists, by its newest incarnation."""
    job = max(rows, key=lambda row: (row.submitted_at, row.starts_at))
    if job.state in ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING"):
        words = "accounting says %s, but squeue does not list it" % job.state
        return make_row(rundir.UNKNOWN, words, **shown)
    return over(run_dir, job.state, job.exit_code, records, token, shown)


def _without_account(
    root: str, run_dir: str, task: Task, records: Records, is_kept: bool, is_known: bool, shown: Dict[str, Any]
) -> Row:
    """Return the row of a run that neither the queue nor accounting lists.

    Args:
        is_kept: Whether this cluster keeps accounts.
        is_known: Whether others of its array are listed.
    """
    started = records.start.get("token") == task.token
    if is_known and task.task is not None and not started and not output_of(root, task).exists():
        # A task that is cancelled before it started leaves no trace, while its array is known.
        return over(run_dir, "CANCELLED", "", records, task.token, shown)
    if is_kept and time.time() - task.submitted_at < NEW_S:
        # Accounting hears of everything a little later than the queue.
        if started:
            return make_row(rundir.UNKNOWN, "left the queue; accounting does not list it yet", **shown)
        return make_row(rundir.QUEUED, "accepted", **shown)
    # Without accounts: what Slurm never started was cancelled.
    has_run = is_kept or started or was_started(root, task)
    return over(run_dir, _by_log(root, task) if has_run else "CANCELLED", "", records, task.token, shown)


def _by_log(root: str, task: Task) -> str:
    """Return how a job ended where nobody keeps accounts: slurmstepd's last note in its output says some of it."""
    words = failure.slurmstepds_note(str(output_of(root, task)))
    for mark, state in (("TIME LIMIT", "TIMEOUT"), ("PREEMPTION", "PREEMPTED"), ("NODE FAIL", "NODE_FAIL")):
        if mark in words:
            return state
    return "CANCELLED" if "CANCELLED" in words else ""
