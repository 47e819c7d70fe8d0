"""Thousands of runs on a cluster, by what squeue, accounting and the runs' own records say of them.

Each case is a line (what Slurm says, and what was submitted) and a column (what the run has written).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.slurm import accounts, state, submit
from oelm_jobs.agent.slurm.commands import Job, SlurmError
from oelm_jobs.agent.slurm.tasks import Task
from tests.slurm.recorded import ENDED, LATER, READ, STARTED, SUBMITTED, TOKEN

OLD = "oelm-0"
"""An earlier submission."""
EARLY = 500.0
"""Before the submission."""
OTHER = "900"
"""Id of another job."""
PROGRESS = ("step", "max_steps", "tokens_per_s", "loss", "heartbeat_at", "val_loss")


# What a run has written -----------------------------------------------------------------------------------------------


def columns() -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None, bool]]:
    """Yield start record, end record and whether a cancel was asked for; ``JOB`` stands for the run's own job."""
    starts = [
        None, start(), start(number=2), start(job=OTHER), start(started_at=LATER), start(token=OLD, job="5"),
        start(token=OLD, job="5", number=2),
    ]  # fmt: skip
    ends: list[dict[str, Any] | None] = [None]
    said = [("DONE", ""), ("FAILED", "NaN"), ("CANCELLED", "stopped by SIGTERM"), ("CANCELLED", "cancelled by scancel"),
            ("QUEUED", "preemption")]  # fmt: skip
    moments = ((TOKEN, EARLY), (TOKEN, SUBMITTED + 1), (TOKEN, ENDED), (OLD, EARLY), (OLD, ENDED))
    for (word, reason), (token, at) in itertools.product(said, moments):
        attempt = {"number": 1, "job": "JOB", "devices": ["n1/gpu:0"], "started_at": STARTED}
        ends.append({"token": token, "state": word, "reason": reason, "ended_at": at, "attempts": [attempt]})
    yield from itertools.product(starts, ends, (False,))
    yield from itertools.product(starts, (None, ends[-3]), (True,))


def start(**changes: Any) -> dict[str, Any]:
    """Return the start record of the run's first attempt."""
    return {"token": TOKEN, "number": 1, "job": "JOB", "started_at": STARTED, "devices": ["n1/gpu:0"], **changes}


# What Slurm says ------------------------------------------------------------------------------------------------------


def listed(word: str, reason: str = "", *, starts_at: float = STARTED, exit_code: str = "") -> Callable[[Task], Job]:
    """Return what makes a row of squeue or sacct for a run's job."""

    def made(task: Task) -> Job:
        number = task.job if task.task is None else f"{task.job}_{task.task}"
        return Job(id=number, task=task.task, name=task.name, state=word, reason=reason, submitted_at=SUBMITTED,
                   starts_at=starts_at, exit_code=exit_code)  # fmt: skip

    return made


@dataclass(frozen=True, kw_only=True)
class Line:
    """What Slurm says, and what was submitted."""

    queue: Callable[[Task], Job] | None = None
    """The job's row of squeue."""
    others: Sequence[Job] = ()
    """What squeue lists besides."""
    is_beyond: bool = False
    """Whether a job that waits for a limit asks for more than it can ever get."""
    owner: str = ""
    """Slurm's word for another job, which has the run's claim."""
    has_task: bool = True
    array_of: int | None = None
    """Index of the run in an array."""
    refused: str = ""
    answer: str = "id"
    """What sbatch answered: ``id``, ``refused`` or ``unknown``."""
    is_known: bool = False
    """Whether the run's end is known already."""
    is_new: bool = False
    """Whether it was submitted a moment ago."""
    accounts: Callable[[Task], Sequence[Job]] | None = lambda task: ()
    """The rows of sacct; None where the cluster keeps no accounts."""
    silent: str = ""
    """Why accounting does not answer, or stopped half-way (``half``)."""
    output: str | None = None
    """What the job's output holds."""
    log: str | None = ""
    """What the supervisor's log says."""
    log_at: float = STARTED + 1
    """When that was written."""


def rows(*made: Callable[[Task], Job]) -> Callable[[Task], Sequence[Job]]:
    """Return what makes several rows."""
    return lambda task: [each(task) for each in made]


def neighbour(task: Task) -> Sequence[Job]:
    """Return another task of a run's array."""
    return [listed("COMPLETED")(task)._replace(id=f"{task.job}_7", task=7)]


NOTE = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 %s***\n"
STRANGER = Job(id="901", task=None, name="stranger", state="RUNNING")
LINES = {
    **{f"queue {word}": Line(queue=listed(word)) for word in (
        "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RUNNING", "SUSPENDED", "COMPLETING", "STAGE_OUT",
        "A_STATE_OF_2030", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "NODE_FAIL",
        "BOOT_FAIL", "PREEMPTED")},
    "queue PENDING Priority": Line(queue=listed("PENDING", "Priority", starts_at=0.0)),
    "queue PENDING Resources, starts later": Line(queue=listed("PENDING", "Resources", starts_at=LATER)),
    "queue PENDING JobHeldUser": Line(queue=listed("PENDING", "JobHeldUser", starts_at=LATER)),
    "queue PENDING limit": Line(queue=listed("PENDING", "QOSMaxJobsPerUserLimit")),
    "queue PENDING limit, may clear": Line(queue=listed("PENDING", "QOSMaxJobsPerUserLimit"), others=[STRANGER]),
    "queue PENDING limit, beyond": Line(
        queue=listed("PENDING", "QOSMaxJobsPerUserLimit"), others=[STRANGER], is_beyond=True),
    "queue PENDING group, may clear": Line(queue=listed("PENDING", "QOSGrpGRES")),
    "queue PENDING group, beyond": Line(queue=listed("PENDING", "QOSGrpGRES"), is_beyond=True),
    "queue REQUEUE_HOLD held": Line(queue=listed("REQUEUE_HOLD", "job_requeued_in_held_state", starts_at=LATER)),
    "queue RUNNING again": Line(queue=listed("RUNNING", starts_at=LATER)),
    "queue COMPLETING again": Line(queue=listed("COMPLETING", starts_at=LATER)),
    "queue RUNNING, says": Line(queue=listed("RUNNING"), log="set-up: module load"),
    "queue RUNNING, said before": Line(queue=listed("RUNNING"), log="CANCELLED", log_at=STARTED - 1),
    "queue RUNNING, no log": Line(queue=listed("RUNNING"), log=None),
    "queue RUNNING, another has the claim": Line(queue=listed("RUNNING"), owner="RUNNING"),
    "queue CANCELLED, another has the claim": Line(queue=listed("CANCELLED"), owner="RUNNING"),
    "queue CANCELLED, another is ending": Line(queue=listed("CANCELLED"), owner="COMPLETING"),
    "queue CANCELLED, another is over": Line(queue=listed("CANCELLED"), owner="FAILED"),
    "queue FAILED, exit code, says": Line(queue=listed("FAILED", exit_code="0:53"), log="no such module"),
    "queue FAILED, exit code, no log": Line(queue=listed("FAILED", exit_code="0:53"), log=None),
    "queue FAILED, refused": Line(queue=listed("FAILED"), refused="too much", answer="refused"),
    "gone, no task": Line(has_task=False),
    "gone, no task, another has the claim": Line(has_task=False, owner="RUNNING"),
    "gone, another has the claim": Line(owner="RUNNING"),
    "gone, another is ending": Line(owner="COMPLETING"),
    "gone, end known": Line(is_known=True),
    "gone, refused": Line(answer="refused", refused="too much"),
    "gone, unknown": Line(answer="unknown"),
    **{f"accounts {word}": Line(accounts=rows(listed(word, exit_code=code))) for word, code in (
        ("PENDING", "0:0"), ("RUNNING", "0:0"), ("SUSPENDED", "0:0"), ("REQUEUED", "0:0"), ("RESIZING", "0:0"),
        ("COMPLETED", "0:0"), ("CANCELLED", "0:15"), ("FAILED", "0:9"), ("TIMEOUT", "0:15"), ("NODE_FAIL", "1:0"),
        ("OUT_OF_MEMORY", "0:125"), ("PREEMPTED", "0:0"))},
    "accounts TIMEOUT, then CANCELLED": Line(
        accounts=rows(listed("CANCELLED", starts_at=LATER), listed("TIMEOUT", starts_at=STARTED))),
    "accounts silent": Line(silent="sacct gave no answer"),
    "accounts half, not of it": Line(silent="half"),
    "accounts half, of it": Line(silent="half", accounts=rows(listed("TIMEOUT"))),
    "accounts list nothing": Line(),
    "accounts list nothing, new": Line(is_new=True),
    "accounts list nothing, no log": Line(log=None),
    "accounts list nothing, output says time limit": Line(output=NOTE % "DUE TO TIME LIMIT "),
    "accounts list another task": Line(array_of=2, accounts=neighbour),
    "accounts list another task, new": Line(array_of=2, accounts=neighbour, is_new=True),
    "accounts list another task, output": Line(array_of=2, accounts=neighbour, output=""),
    "accounts list no task": Line(array_of=2),
    "no accounts": Line(accounts=None),
    "no accounts, new": Line(accounts=None, is_new=True),
    "no accounts, output": Line(accounts=None, output=""),
    "no accounts, time limit": Line(accounts=None, output=NOTE % "DUE TO TIME LIMIT "),
    "no accounts, preemption": Line(accounts=None, output=NOTE % "DUE TO PREEMPTION "),
    "no accounts, node failure": Line(accounts=None, output=NOTE % "DUE TO NODE FAILURE, SEE SLURMCTLD LOG "),
    "no accounts, cancelled": Line(accounts=None, output=NOTE % ""),
    "no accounts, array": Line(array_of=2, accounts=None),
}  # fmt: skip


# Asking ---------------------------------------------------------------------------------------------------------------


def ask(folder: Path, line: Line, monkeypatch: pytest.MonkeyPatch) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a line's runs, and how often accounting was asked for them.

    Lines that differ in Slurm's words alone share their runs' directories below ``folder``.

    ``JOB`` stands for a run's own job, ``RUN`` for its directory; of progress only whether it was read is kept.
    """
    tasks: dict[str, Task | None] = {}
    queue, accounted = list(line.others), []
    alike = (line.array_of, line.refused, line.answer, line.output, line.log, line.log_at, line.owner)
    root = folder / hashlib.sha256(repr(alike).encode()).hexdigest()[:16]
    is_made = root.exists()
    submit.folder(str(root))
    submitted_at = time.time() - 5.0 if line.is_new else SUBMITTED
    for position, (begun, ended, is_cancelled) in enumerate(columns()):
        number = str(1000 + position)
        name = f"r{position}.{TOKEN}.{position}"
        task = Task(TOKEN, position, name, line.array_of, submitted_at, line.refused, number)
        run_dir = root / f"exp_r{position}"
        if not is_made:
            _write(root, line, task, begun, ended, is_cancelled)
        if line.owner:
            other = Job(id=f"{OTHER}{position}", task=None, name=f"by-hand{position}", state=line.owner)
            queue.append(other)
        if line.queue is not None:
            queue.append(line.queue(task))
        accounted += line.accounts(task) if line.accounts is not None else ()
        tasks[str(run_dir)] = task if line.has_task else None
    asked: list[Any] = []

    def jobs(*arguments: Any) -> Sequence[Job] | None:
        asked.append(arguments)
        if line.silent == "half":
            raise accounts.HalfAnswered("sacct gave no answer", accounted)
        if line.silent:
            raise SlurmError(line.silent)
        return accounted if line.accounts is not None else None

    monkeypatch.setattr(accounts, "jobs", jobs)
    monkeypatch.setattr(state, "_is_beyond_limits", lambda job: line.is_beyond)
    ended_ones = frozenset(tasks) if line.is_known else frozenset()
    wanted = [(run_dir, TOKEN) for run_dir in tasks]
    said = state.states(str(root), wanted, tasks, queue, READ, ended_ones)
    made = []
    for position, run_dir in enumerate(tasks):
        row = said[run_dir]
        if row.get("attempt") is not None:
            assert [row.pop(key) for key in PROGRESS] == [None] * len(PROGRESS)
            row["progress"] = True
        text = json.dumps(row, sort_keys=True).replace(run_dir, "RUN")
        text = text.replace(f'"{OTHER}{position}"', '"OTHER"').replace(f"in job {OTHER}{position}", "in job OTHER")
        number = str(1000 + position)
        text = text.replace(f'"{number}_{line.array_of}"', '"JOB"').replace(f'"{number}"', '"JOB"')
        made.append(json.loads(text))
    return made, len(asked)


def _write(root: Path, line: Line, task: Task, begun: Any, ended: Any, is_cancelled: bool) -> None:
    """Write what a run and its submission left."""
    position = task.position
    control = root / f"exp_r{position}" / rundir.CONTROL
    control.mkdir(parents=True)
    job = task.job if task.task is None else f"{task.job}_{task.task}"
    for name, content in ((rundir.START, begun), (rundir.END, ended)):
        if content is not None:
            (control / name).write_text(json.dumps(content).replace('"JOB"', f'"{job}"'))
    if is_cancelled:
        (control / rundir.CANCEL).write_text("{}")
    if line.log is not None:
        log = control / rundir.SUPERVISOR_LOG
        log.write_text(rundir.log_line(line.log) if line.log else "")
        os.utime(log, (line.log_at, line.log_at))
    answer = {"id": {"id": task.job}, "refused": {"refused": line.refused}, "unknown": {"unknown": "?"}}[line.answer]
    submit.file_of(str(root), TOKEN, position, ".answer.json").write_text(json.dumps(answer))
    if line.output is not None:
        suffix = ".log" if line.array_of is None else f"_{line.array_of}.log"
        submit.file_of(str(root), TOKEN, position, suffix).write_text(line.output)
    if line.owner:
        owner = {"job": f"{OTHER}{position}", "restart": 0, "name": f"by-hand{position}", "token": "t", "identity": {},
                 "time": 1.0, "released": False}  # fmt: skip
        (control / "slurm-claim.2").write_text(json.dumps(owner))
