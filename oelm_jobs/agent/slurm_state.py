"""Owns the truth about runs on a cluster: squeue first, the run's own records for what it can't know, sacct for what
left the queue without a word; decides nothing and changes nothing.

What Slurm and a run say is put together in one place (``_state``). A job's name holds submission, position and nothing
else that could be reused, so a reused job id is never taken for the run's. Absence from squeue is a state only where
accounting is known to keep nothing, or confirms it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from . import rundir, slurm_claim, slurm_commands, slurm_reasons, slurm_submit
from .progress import last_said, progress
from .slurm_commands import Job, SlurmError

INTERVAL_S = 30.0
"""How old the queue may be, unless the request says otherwise: one squeue per cluster and interval."""
NEW_S = 60.0
"""So long after its submission a job may be missing from accounting."""
LIMITS_AGE_S = 600.0
"""How old a user's accounts and limits may be for a submission; oelm-doctor asks anew."""
RESUME = ": submit again to resume"


@dataclass(frozen=True)
class Task:
    """Which job, and which task of it, is to execute a run."""

    token: str
    position: int
    """Number of the job in its submission."""
    name: str
    """Job name."""
    task: Optional[int]
    """Index in its array; None for a job of one run."""
    submitted_at: float
    """When Slurm accepted it (until that is known: when its submission was made), Unix seconds."""


@dataclass
class Records:
    """What a run has written."""

    start: Dict[str, Any]
    end: Dict[str, Any]

    @property
    def has_ended(self) -> bool:
        """True where the newest attempt has its end on record."""
        number = self.start.get("number")
        return bool(self.end) and number in [attempt.get("number") for attempt in self.end.get("attempts", [])]


Row = Dict[str, Any]
Named = Dict[Tuple[str, Optional[int]], List[Job]]
"""Jobs by name and index in their array: of ten thousand, each run's own are found at once."""


def slurm_poll(request: Dict[str, Any]) -> Dict[str, Any]:
    """Answer where runs stand.

    Args:
        request: ``root`` and ``checkpoint_root`` (both may begin with ``~``); ``runs``, a list of (run directory, token
            of its submission); ``interval_s``, how old the queue may be; ``host`` asks for the cluster's limits and the
            disk, too.

    Returns:
        ``host``, ``time``, ``runs`` (run directory to its state), ``queue_age_s``; where asked for ``site``
            (slurm_site), ``disk_free`` (bytes) and ``devices`` (empty: Slurm grants them).

    Raises:
        SlurmError: slurmctld does not answer.
    """
    root = os.path.expanduser(request["root"])
    wanted = [(str(run_dir), str(token)) for run_dir, token in request["runs"]]
    answer: Dict[str, Any] = {"host": os.uname().nodename, "time": time.time(), "runs": {}}
    if wanted:
        tasks = find_tasks(root, wanted)
        newest = max((task.submitted_at for task in tasks.values() if task), default=0.0)
        read_at, jobs = slurm_commands.my_queue(float(request.get("interval_s", INTERVAL_S)))
        if read_at <= newest:
            read_at, jobs = slurm_commands.my_queue(0.0)
        answer["runs"] = states(root, wanted, tasks, jobs, read_at)
        answer["queue_age_s"] = max(0.0, time.time() - read_at)
    if request.get("host"):
        from . import slurm_site

        checkpoints = os.path.expanduser(request.get("checkpoint_root") or root)
        answer.update(site=slurm_site.site(max_age_s=LIMITS_AGE_S), disk_free=rundir.disk_free(checkpoints))
        answer.update(devices=[], queue=[])
    return answer


def of_run(run_dir: str) -> Row:
    """Return the row of a run that has started, by what it says of itself (probe's question).

    Where slurmctld does not answer, an end on record still counts.
    """
    record = rundir.read_json(rundir.control(run_dir, rundir.RUN)) or {}
    token, fate = str(record.get("token") or ""), str(record.get("fate") or "")
    wanted = [(run_dir, token)]
    # The fate's file lies in the root's folder of scripts; a script that nobody submitted names none.
    root = os.path.dirname(os.path.dirname(os.path.dirname(fate))) if fate else ""
    tasks: Dict[str, Optional[Task]] = find_tasks(root, wanted) if root else {run_dir: None}
    try:
        read_at, jobs = slurm_commands.my_queue(INTERVAL_S)
    except SlurmError as error:
        records = run_records(run_dir)
        if records.has_ended and records.end.get("state") in (rundir.DONE, rundir.FAILED, rundir.CANCELLED):
            return _ended(records.end)
        return _row(rundir.UNKNOWN, str(error), token=token, **_started(records.start))
    return states(root, wanted, tasks, jobs, read_at)[run_dir]


def find_tasks(root: str, wanted: Iterable[Tuple[str, str]]) -> Dict[str, Optional[Task]]:
    """Return by run directory the task that a submission has for it; None where no submission is known."""
    wanted = list(wanted)
    found: Dict[Tuple[str, str], Task] = {}
    for token in sorted({token for _, token in wanted}):
        content = rundir.read_json(slurm_submit.submission_file(root, token)) or {}
        for job in content.get("jobs", []):
            is_array, position, name = len(job["run_dirs"]) > 1, int(job["position"]), str(job["name"])
            answer = slurm_submit.answer_of(root, token, position) or {}
            submitted_at = float(answer.get("time") or content.get("time") or 0)
            for index, run_dir in enumerate(job["run_dirs"]):
                found[token, run_dir] = Task(token, position, name, index if is_array else None, submitted_at)
    return {run_dir: found.get((token, run_dir)) for run_dir, token in wanted}


def states(
    root: str,
    wanted: Sequence[Tuple[str, str]],
    tasks: Dict[str, Optional[Task]],
    jobs: Sequence[Job],
    read_at: float,
) -> Dict[str, Row]:
    """Return the rows of runs, asking accounting once for all that left the queue without a word."""
    named = by_name(jobs)
    any_running = any(job.is_alive for job in jobs)
    rows: Dict[str, Row] = {}
    silent: Dict[str, Records] = {}
    beyond: Dict[Tuple[str, int], bool] = {}  # the runs of a job are of one size
    for run_dir, token in wanted:
        task = tasks[run_dir]
        mine = named.get((task.name, task.task), []) if task else []
        job = _newest(mine) if len(mine) != 1 else mine[0]
        may_clear = any_running
        if any_running and task and job and job.state == "PENDING" and "GRES" in job.reason:
            key = (task.token, task.position)
            if key not in beyond:
                beyond[key] = _is_beyond_quota(root, task, job)
            may_clear = not beyond[key]
        try:
            records = run_records(run_dir, job)
            row = _live(run_dir, token, task, job, records, named, read_at, may_clear)
        except (AttributeError, KeyError, TypeError, ValueError):
            # One run's broken records are not everybody's trouble.
            words = "its records in %s can't be understood" % rundir.CONTROL
            row = _row(rundir.UNKNOWN, words, token=token)
        if row is None:
            silent[run_dir] = records
        else:
            rows[run_dir] = row
    if silent:
        rows.update(_vanished(root, silent, tasks, jobs))
    for run_dir, row in rows.items():
        _add_progress(run_dir, row)
    return rows


def _is_beyond_quota(root: str, task: Task, job: Job) -> bool:
    """True where a job that waits for its user's GPUs asks for more than any user gets by itself."""
    from . import slurm_site

    quota = slurm_site.gpu_quota(job.qos, max_age_s=LIMITS_AGE_S)
    records = slurm_submit.records_of(slurm_submit.file_of(root, task.token, task.position, ".sh"))
    return quota is not None and bool(records) and int(records[0]["world_size"]) > quota


def by_name(jobs: Iterable[Job]) -> Named:
    """Return jobs by name and index in their array."""
    found: Named = {}
    for job in jobs:
        found.setdefault((job.name, job.task), []).append(job)
    return found


def _newest(jobs: Sequence[Job]) -> Optional[Job]:
    """Return the job that counts where a script was also submitted by hand: one that lives, else the newest."""
    alive = [job for job in jobs if job.is_alive or job.state == "PENDING"]
    return max(alive or jobs, key=lambda job: (job.state != "PENDING", job.submitted_at), default=None)


def run_records(run_dir: str, job: Optional[Job] = None) -> Records:
    """Return what a run has written, as far as that bears on its state."""
    control = run_dir + "/" + rundir.CONTROL + "/"
    start = rundir.read_json(control + rundir.START)
    if start is None and (job.state == "PENDING" if job else not os.access(control, os.F_OK)):
        return Records({}, {})  # it has not been at work yet: of ten thousand such, one look each is enough
    return Records(start or {}, rundir.read_json(control + rundir.END) or {})


def _row(state: str, reason: str = "", **more: Any) -> Row:
    return dict(more, state=state, reason=reason)


def _live(
    run_dir: str,
    token: str,
    task: Optional[Task],
    job: Optional[Job],
    records: Records,
    named: Named,
    read_at: float,
    may_clear: bool,
) -> Optional[Row]:
    """Return the row of a run whose job is in the queue, or whose end is beyond doubt; None where neither holds.

    Args:
        may_clear: Whether a limit per user may clear: other jobs of the user's live.
    """
    start, end = records.start, records.end
    mine = end.get("token") == token and (records.has_ended or start.get("token") != token)
    # A script that somebody started by hand may have seen the run through meanwhile.
    since = task is not None and float(end.get("ended_at") or 0) > task.submitted_at and records.has_ended
    if (mine or since) and end.get("state") == rundir.DONE:
        return _ended(end)
    shown = {"job": job.id, "token": token} if job else {"token": token}
    if job is None or job.is_over:
        other = claimed_by(run_dir, named)
        if other is not None and other.is_alive and other.state != "COMPLETING" and other != job:
            return _row(rundir.RUNNING, "in job %s" % other.id, job=other.id, token=token, **_started(start))
        if mine and end.get("state") in (rundir.FAILED, rundir.CANCELLED) and not _is_vague(end):
            return _ended(end)
        return _over(run_dir, job.state, job.exit_code, records, token, shown) if job else None
    is_at_work = start.get("job") == job.id and start.get("token") == token and not records.has_ended
    began_since = float(start.get("started_at") or 0) > read_at
    if is_at_work and (began_since or job.is_alive):
        words = "" if job.state in ("RUNNING", "PENDING") else job.state.lower()
        return _row(rundir.RUNNING, words, **dict(shown, **_started(start)))
    if not job.is_alive or job.state == "CONFIGURING":
        words = slurm_reasons.explain(job.reason, may_clear) if job.state == "PENDING" else job.state.lower()
        if end.get("state") == rundir.QUEUED and mine:
            words = "; ".join(part for part in ("after %s" % end.get("reason", ""), words) if part)
        expected = job.starts_at if job.starts_at > read_at and not slurm_reasons.is_held(job.reason) else None
        return _row(rundir.QUEUED, words, **dict(shown, starts_at=expected, **_started(start)))
    if mine and (job.state == "COMPLETING" or float(end.get("ended_at") or 0) >= job.starts_at):
        state = end.get("state")
        return _ended(end) if state != rundir.QUEUED else _row(rundir.QUEUED, "after %s" % end.get("reason"), **shown)
    control = run_dir + "/" + rundir.CONTROL + "/"
    # Until the script has written its first line, the log's last one is an older start's.
    said = last_said(control) if _written_at(control + rundir.SUPERVISOR_LOG) >= job.starts_at else ""
    return _row(rundir.RUNNING, "before training: %s" % said if said else "before training", **shown)


def _written_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _is_vague(end: Dict[str, Any]) -> bool:
    """True for an end whose reason Slurm knows better: the supervisor only saw a signal."""
    return str(end.get("reason", "")).startswith("stopped by")


def _started(start: Dict[str, Any]) -> Dict[str, Any]:
    return {"devices": start.get("devices"), "started_at": start.get("started_at"), "attempt": start.get("number")}


def _ended(end: Dict[str, Any]) -> Row:
    attempts = end.get("attempts") or [{}]
    return _row(
        str(end.get("state")),
        str(end.get("reason") or ""),
        ended_at=end.get("ended_at"),
        token=end.get("token"),
        attempt=attempts[-1].get("number"),
        job=attempts[-1].get("job"),
        devices=attempts[-1].get("devices"),
        started_at=attempts[-1].get("started_at"),
    )


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


def _over(run_dir: str, state: str, exit_code: str, records: Records, token: str, shown: Dict[str, Any]) -> Row:
    """Return the row of a run whose job has ended, by what Slurm calls its end."""
    start, end = records.start, records.end
    started = start.get("token") == token
    shown = dict(shown, **_started(start)) if started else shown
    if state == "CANCELLED" or os.path.exists(run_dir + "/" + rundir.CONTROL + "/" + rundir.CANCEL):
        return _row(rundir.CANCELLED, "cancelled" if started else "cancelled before it started", **shown)
    if end.get("state") == rundir.QUEUED and end.get("token") == token and records.has_ended:
        reason = "Slurm did not start it again after: %s" % end.get("reason", "")
        return _row(rundir.FAILED, reason + RESUME, **shown)
    words = {
        "TIMEOUT": "time limit, without the time for a checkpoint",
        "DEADLINE": "deadline",
        "OUT_OF_MEMORY": "out of memory: Slurm killed the job",
        "NODE_FAIL": "node failure",
        "BOOT_FAIL": "the node did not boot",
        "PREEMPTED": "preempted, and not started again",
    }.get(state, "")
    if words:
        return _row(rundir.FAILED, words + RESUME, **shown)
    if not started:
        said = last_said(run_dir + "/" + rundir.CONTROL + "/")
        return _row(rundir.FAILED, "ended before training started" + (": " + said if said else ""), **shown)
    code = " (exit code %s)" % exit_code if exit_code not in ("", "0:0") else ""
    return _row(rundir.FAILED, "its job ended without an end record%s" % code + RESUME, **shown)


# What left the queue --------------------------------------------------------------------------------------------------


def _vanished(
    root: str, silent: Dict[str, Records], tasks: Dict[str, Optional[Task]], jobs: Sequence[Job]
) -> Dict[str, Row]:
    """Return the rows of runs whose job is not in the queue and that left no end, from accounting."""
    rows: Dict[str, Row] = {}
    asked: Dict[str, Tuple[Task, str]] = {}
    answers: Dict[Tuple[str, int], Dict[str, Any]] = {}
    for run_dir in silent:
        task = tasks[run_dir]
        if task is None:
            rows[run_dir] = _row(rundir.UNKNOWN, "no trace of it on this cluster", absent=True)
            continue
        key = (task.token, task.position)
        if key not in answers:
            answers[key] = slurm_submit.answer_of(root, task.token, task.position) or {}
        answer = answers[key]
        if "id" in answer:
            asked[run_dir] = (task, str(answer["id"]))
        elif "refused" in answer:
            rows[run_dir] = _row(rundir.FAILED, "not submitted: %s" % answer["refused"])
        else:
            rows[run_dir] = _row(rundir.UNKNOWN, "whether Slurm took it is not known yet")
    if not asked:
        return rows
    since = min(task.submitted_at for task, _ in asked.values())
    known: Optional[List[Job]] = []
    trouble = ""
    try:
        known = slurm_commands.accounts([job_id for _, job_id in asked.values()], since)
    except SlurmError as error:
        trouble = str(error)
    named = by_name(known or ())
    names = {job.name for job in (*jobs, *(known or ()))}
    for run_dir, (task, job_id) in asked.items():
        shown = {"token": task.token, "job": job_id if task.task is None else "%s_%d" % (job_id, task.task)}
        mine = named.get((task.name, task.task), [])
        job = max(mine, key=lambda row: (row.submitted_at, row.starts_at), default=None)
        records = silent[run_dir]
        if trouble:
            rows[run_dir] = _row(rundir.UNKNOWN, "left the queue; accounting does not answer (%s)" % trouble, **shown)
        elif job is not None and job.state in ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING"):
            words = "accounting says %s, but squeue does not list it" % job.state
            rows[run_dir] = _row(rundir.UNKNOWN, words, **shown)
        elif job is not None:
            rows[run_dir] = _over(run_dir, job.state, job.exit_code, records, task.token, shown)
        elif (
            task.task is not None
            and task.name in names
            and records.start.get("token") != task.token
            and not os.path.exists(_output_of(root, task))
        ):
            # A task that is cancelled before it started leaves no trace, while its array is known.
            rows[run_dir] = _over(run_dir, "CANCELLED", "", records, task.token, shown)
        elif known is not None and time.time() - task.submitted_at < NEW_S:
            # Accounting hears of everything a little later than the queue.
            if records.start.get("token") == task.token:
                rows[run_dir] = _row(rundir.UNKNOWN, "left the queue; accounting does not list it yet", **shown)
            else:
                rows[run_dir] = _row(rundir.QUEUED, "accepted", **shown)
        else:
            # Without accounts: what Slurm never started was cancelled.
            started = records.start.get("token") == task.token or _was_started(root, task)
            state = _by_log(root, task) if started or known is not None else "CANCELLED"
            rows[run_dir] = _over(run_dir, state, "", records, task.token, shown)
    return rows


def _by_log(root: str, task: Task) -> str:
    """Return how a job ended where nobody keeps accounts: slurmstepd's last note in its output says some of it."""
    from .slurm_job import last_words

    words = last_words(_output_of(root, task))
    for mark, state in (("TIME LIMIT", "TIMEOUT"), ("PREEMPTION", "PREEMPTED"), ("NODE FAIL", "NODE_FAIL")):
        if mark in words:
            return state
    return "CANCELLED" if "CANCELLED" in words else ""


def _was_started(root: str, task: Task) -> bool:
    """True where a job left its own output or, as an output with nothing in it is not kept, its supervisor's mark."""
    fate = slurm_submit.file_of(root, task.token, task.position, slurm_submit.FATE)
    return os.path.exists(_output_of(root, task)) or (task.task is None and fate.exists())


def _output_of(root: str, task: Task) -> str:
    """Return the file of a job's own output, which Slurm makes when it starts the job."""
    ending = ".log" if task.task is None else "_%d.log" % task.task
    return str(slurm_submit.file_of(root, task.token, task.position, ending))


def _add_progress(run_dir: str, row: Row) -> None:
    """Add what the trainer says of itself, once it has started."""
    if row.get("attempt") is None:
        return
    row.update(progress(run_dir))
