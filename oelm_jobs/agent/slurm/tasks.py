"""Which job, and which task of it, is to execute a run.

A job's name and comment hold submission and position, so a reused job id is never taken for the run's, and a job that
a site or a user has renamed is still found.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from .. import rundir
from ..host import launch
from . import claim, submit
from .commands import MARK, Job


class Task(NamedTuple):
    """Which job, and which task of it, is to execute a run."""

    token: str
    """Token of the submission."""
    position: int
    """Number of the job in its submission."""
    name: str
    """Job name."""
    task: Optional[int]
    """Index in its array; None for a job of one run."""
    submitted_at: float
    """When Slurm accepted it (until that is known: when its submission was made), Unix seconds."""
    refused: str = ""
    """Why it was not submitted: slurmctld keeps some jobs that it refused."""
    job: str = ""
    """Id of the job, of an array its own; empty where sbatch's answer isn't known."""
    needs: Tuple[Dict[str, str], ...] = ()
    """The runs that it waits for, as its submission says them."""


EARLIER_S, LATER_S = 200.0, claim.CLOCKS_S
"""So long before and after sbatch's answer Slurm may say that a job was submitted: sbatch takes its time (it retries),
and clocks differ.
"""


def find_tasks(root: str, wanted: Iterable[Tuple[str, str]]) -> Dict[str, Optional[Task]]:
    """Return by run directory the task that a submission has for it; None where no submission is known.

    Args:
        wanted: Pairs of run directory and token.
    """
    wanted = list(wanted)
    found: Dict[Tuple[str, str], Task] = {}
    for token in sorted({token for _, token in wanted}):
        content = rundir.read_json(launch.submission_file(root, token)) or {}
        for job in content.get("jobs", []):
            is_array, position, name = len(job["run_dirs"]) > 1, int(job["position"]), str(job["name"])
            answer = submit.answer_of(root, token, position) or {}
            refused = str(answer.get("refused") or "")
            submitted_at = float(answer.get("time") or content.get("time") or 0)
            needs = tuple(job.get("needs") or ())
            for index, run_dir in enumerate(job["run_dirs"]):
                task = index if is_array else None
                number = str(answer.get("id") or "")
                found[token, run_dir] = Task(token, position, name, task, submitted_at, refused, number, needs)
    return {run_dir: found.get((token, run_dir)) for run_dir, token in wanted}


class Listed:
    """Jobs that squeue or sacct lists: of ten thousand, each run's own are found at once."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._by_key: Dict[str, Dict[Optional[int], List[Job]]] = {}
        self._by_id: Dict[str, List[Job]] = {}
        for job in jobs:
            for key in {job.name, *job.marks}:
                self._by_key.setdefault(key, {}).setdefault(job.task, []).append(job)
            self._by_id.setdefault(job.id, []).append(job)
            if job.task is not None:
                self._by_id.setdefault(job.id.partition("_")[0], []).append(job)

    def of(self, task: Task, run_dir: str) -> List[Job]:
        """Return a task's jobs: those that its submission's mark is on, in the name or in the comment; where a site
        takes both away, that of its id and of its time, or of the name that it had when it last claimed the run.
        """
        found = self._by_key.get(_key(task), {}).get(task.task)
        if found or not task.job:
            return list(found or ())
        number = task.job if task.task is None else "%s_%d" % (task.job, task.task)
        if number not in self._by_id:
            return []
        _, owner = claim.newest(run_dir)
        is_its = owner is not None and (owner.job, owner.token) == (number, task.token)
        return self._by_time(task, number, owner.name if owner is not None and is_its else "")

    def has_any(self, task: Task) -> bool:
        """Tell whether a task's job, or another task of its array, is listed."""
        return _key(task) in self._by_key or bool(task.job and self._by_time(task, task.job))

    def _by_time(self, task: Task, number: str, name: str = "") -> List[Job]:
        """Return the jobs of an id that were submitted when the task was, or are called ``name``; a requeue is another
        submission of the same name. Ids are used again.
        """
        same = [job for job in self._by_id.get(number, ()) if not job.marks]
        since, until = task.submitted_at - EARLIER_S, task.submitted_at + LATER_S
        names = {job.name for job in same if since <= job.submitted_at <= until}
        return [job for job in same if job.name in names or job.name == name]

    def owner_of(self, run_dir: str) -> Optional[Job]:
        """Return the job that has the run's claim, whichever submission it is of."""
        if not self._by_id:
            return None
        _, owner = claim.newest(run_dir)
        if owner is None or owner.released:
            return None
        return next((job for job in self._by_id.get(owner.job, ()) if claim.is_of(job, owner)), None)


def _key(task: Task) -> str:
    """Return by what a task's jobs are found: submission and position."""
    marks = MARK.findall(task.name)
    return marks[-1] if marks else task.name


def that_counts(jobs: Sequence[Job]) -> Optional[Job]:
    """Return which of a task's jobs counts, where its script was also submitted by hand: one that lives, else the
    newest.
    """
    if len(jobs) < 2:
        return jobs[0] if jobs else None
    alive = [job for job in jobs if job.is_alive or job.state == "PENDING"]
    return max(alive or jobs, key=lambda job: (job.state != "PENDING", job.submitted_at))


def output_of(root: str, task: Task) -> Path:
    """Return the file of a job's own output, which Slurm makes when it starts the job."""
    return submit.file_of(root, task.token, task.position, ".log" if task.task is None else "_%d.log" % task.task)


def was_started(root: str, task: Task) -> bool:
    """True where a job left its own output or, as an output with nothing in it is not kept, its supervisor's mark."""
    fate = submit.file_of(root, task.token, task.position, submit.FATE)
    return output_of(root, task).exists() or (task.task is None and fate.exists())
