"""Owns which job, and which task of it, is to execute a run, and finding it among those that Slurm shows; leaves what
its state means to slurm_state and slurm_ended.

A job's name holds submission, position and nothing else that could be reused, so a reused job id is never taken for the
run's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from . import rundir, slurm_claim, slurm_submit
from .slurm_commands import Job


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


Named = Dict[Tuple[str, Optional[int]], List[Job]]
"""Jobs by name and index in their array: of ten thousand, each run's own are found at once."""


def find_tasks(root: str, wanted: Iterable[Tuple[str, str]]) -> Dict[str, Optional[Task]]:
    """Return by run directory the task that a submission has for it; None where no submission is known.

    Args:
        wanted: Pairs of run directory and token.
    """
    wanted = list(wanted)
    found: Dict[Tuple[str, str], Task] = {}
    for token in sorted({token for _, token in wanted}):
        content = rundir.read_json(slurm_submit.submission_file(root, token)) or {}
        for job in content.get("jobs", []):
            is_array, position, name = len(job["run_dirs"]) > 1, int(job["position"]), str(job["name"])
            answer = slurm_submit.answer_of(root, token, position) or {}
            refused = str(answer.get("refused") or "")
            submitted_at = float(answer.get("time") or content.get("time") or 0)
            for index, run_dir in enumerate(job["run_dirs"]):
                task = index if is_array else None
                found[token, run_dir] = Task(token, position, name, task, submitted_at, refused)
    return {run_dir: found.get((token, run_dir)) for run_dir, token in wanted}


def by_name(jobs: Iterable[Job]) -> Named:
    """Return jobs by name and index in their array."""
    found: Named = {}
    for job in jobs:
        found.setdefault((job.name, job.task), []).append(job)
    return found


def that_counts(jobs: Sequence[Job]) -> Optional[Job]:
    """Return which of a task's jobs counts, where its script was also submitted by hand: one that lives, else the
    newest.
    """
    if len(jobs) < 2:
        return jobs[0] if jobs else None
    alive = [job for job in jobs if job.is_alive or job.state == "PENDING"]
    return max(alive or jobs, key=lambda job: (job.state != "PENDING", job.submitted_at))


def claimed_by(run_dir: str, named: Named) -> Optional[Job]:
    """Return the job in the queue that has the run's claim, whichever submission it is of."""
    if not named:
        return None
    _, owner = slurm_claim.newest(run_dir)
    if owner is None or owner.released:
        return None
    index = owner.job.partition("_")[2]
    same = named.get((owner.name, int(index) if index.isdigit() else None), ())
    return next((job for job in same if job.id == owner.job), None)


def output_of(root: str, task: Task) -> Path:
    """Return the file of a job's own output, which Slurm makes when it starts the job."""
    return slurm_submit.file_of(root, task.token, task.position, ".log" if task.task is None else "_%d.log" % task.task)


def was_started(root: str, task: Task) -> bool:
    """True where a job left its own output or, as an output with nothing in it is not kept, its supervisor's mark."""
    fate = slurm_submit.file_of(root, task.token, task.position, slurm_submit.FATE)
    return output_of(root, task).exists() or (task.task is None and fate.exists())
