"""Owns the truth about runs on a cluster: squeue first, the run's own records for what it can't know, sacct for what
left the queue without a word; decides nothing and changes nothing.

What Slurm and a run say of a job in the queue is put together in one place (``_live``); ends are slurm_ended's.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import AbstractSet, Any, Dict, Optional, Sequence, Tuple

from .. import rundir
from ..records import read as read_record
from ..run.progress import last_said, progress
from . import commands, reasons
from .commands import Job, SlurmError
from .ended import Records, Row, is_vague, make_row, of_end, of_start, over, read_records, vanished
from .tasks import Listed, Task, find_tasks, that_counts

INTERVAL_S = 30.0
"""How old the queue may be, unless the request says otherwise: one squeue per cluster and interval."""
JUDGED = 16
"""So many jobs that wait for a limit are asked about one by one: those of a submission are of few sizes."""
LIMITS_AGE_S, JUDGED_BY_AGE_S = 600.0, 60.0
"""How old accounts and limits may be for a submission, and for judging a job that Slurm says waits for one; oelm-doctor
asks anew."""


def slurm_poll(request: Dict[str, Any]) -> Dict[str, Any]:
    """Answer where runs stand.

    Args:
        request: ``root`` and ``checkpoint_root`` (both may begin with ``~``); ``runs``, a list of (run directory, token
            of its submission); ``ended``, those whose end is known: accounting is not asked for them; ``interval_s``,
            how old the queue may be; ``host`` asks for the cluster's limits and the disk, too.

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
        read_at, jobs = commands.my_queue(float(request.get("interval_s", INTERVAL_S)))
        if read_at <= newest:
            read_at, jobs = commands.my_queue(0.0)
        answer["runs"] = states(root, wanted, tasks, jobs, read_at, ended=frozenset(request.get("ended", ())))
        answer["queue_age_s"] = max(0.0, time.time() - read_at)
    if request.get("host"):
        from . import site

        checkpoints = os.path.expanduser(request.get("checkpoint_root") or root)
        answer.update(site=site.site(max_age_s=LIMITS_AGE_S), disk_free=rundir.disk_free(checkpoints))
        answer.update(devices=[], queue=[])
    return answer


def of_run(run_dir: str) -> Row:
    """Return the row of a run that has started, by what it says of itself (probe's question).

    Where slurmctld does not answer, an end on record still counts.
    """
    record = read_record(rundir.control(run_dir, rundir.RUN)) or {}
    token, fate = str(record.get("token") or ""), str(record.get("fate") or "")
    wanted = [(run_dir, token)]
    # The fate's file lies in the root's folder of scripts; a script that nobody submitted names none.
    root = os.path.dirname(os.path.dirname(os.path.dirname(fate))) if fate else ""
    tasks: Dict[str, Optional[Task]] = find_tasks(root, wanted) if root else {run_dir: None}
    try:
        read_at, jobs = commands.my_queue(INTERVAL_S)
    except SlurmError as error:
        records = read_records(run_dir)
        if records.is_final:
            return of_end(records.end)
        return make_row(rundir.UNKNOWN, str(error), token=token, **of_start(records.start))
    return states(root, wanted, tasks, jobs, read_at)[run_dir]


def states(
    root: str,
    wanted: Sequence[Tuple[str, str]],
    tasks: Dict[str, Optional[Task]],
    jobs: Sequence[Job],
    read_at: float,
    ended: AbstractSet[str] = frozenset(),
) -> Dict[str, Row]:
    """Return the rows of runs, asking accounting once for all that left the queue without a word.

    Args:
        ended: Run directories whose end is known already.
    """
    listed = Listed(jobs)
    any_at_work = any(job.is_alive or job.is_over for job in jobs)  # a reason outlives what it was about for a while
    rows: Dict[str, Row] = {}
    silent: Dict[str, Records] = {}
    beyond: Dict[Tuple[str, int], bool] = {}  # the runs of a job are of one size
    for run_dir, token in wanted:
        task = tasks[run_dir]
        mine = listed.of(task, run_dir) if task else []
        job = that_counts(mine)
        may_clear = any_at_work
        if task and job and job.state == "PENDING":
            is_per_group = reasons.is_per_group(job.reason)
            may_clear = any_at_work or is_per_group
            if may_clear and (is_per_group or reasons.is_per_user(job.reason)):
                key = (task.token, task.position)
                if key not in beyond and len(beyond) < JUDGED:
                    beyond[key] = _is_beyond_limits(job)
                may_clear = not beyond.get(key, False)
        try:
            records = read_records(run_dir)
            row = _live(run_dir, token, task, job, records, listed, read_at, may_clear)
        except (AttributeError, KeyError, TypeError, ValueError):
            # One run's broken records are not everybody's trouble.
            words = "its records in %s can't be understood" % rundir.CONTROL
            row = make_row(rundir.UNKNOWN, words, token=token)
        if row is None:
            silent[run_dir] = records
        else:
            rows[run_dir] = row
    if silent:
        rows.update(vanished(root, silent, tasks, jobs, ended))
    for run_dir, row in rows.items():
        _add_progress(run_dir, row)
    return rows


def _is_beyond_limits(job: Job) -> bool:
    """True where a job that waits for a limit asks for more than it could get if nobody else had any; found out once a
    minute, however many commands watch.
    """
    path, now = commands.cache_file("limits"), time.time()
    known = (rundir.read_json(path) if path else None) or {}
    known = {name: row for name, row in known.items() if 0 <= now - float(row["time"]) < JUDGED_BY_AGE_S}
    if job.id not in known:
        known[job.id] = {"time": now, "is_beyond": _judge_limits(job)}
        if path is not None:
            with contextlib.suppress(OSError):
                rundir.write_json(path, known, durable=False)
    return bool(known[job.id]["is_beyond"])


def _judge_limits(job: Job) -> bool:
    from . import site

    try:
        shown = commands.show_job(job.id)
        qualities = {row["PartitionName"]: row.get("QoS", "") for row in commands.show_partitions()}
    except SlurmError:
        return False
    asked = site.parse_resources(shown.get("ReqTRES") or shown.get("TRES", ""))  # 22.05: TRES
    known, account = site.accounting(JUDGED_BY_AGE_S), shown.get("Account", "")
    each = [
        site.limits(
            known, account=account, qos=job.qos, partition=partition, partition_qos=qualities.get(partition, "")
        )
        for partition in job.partition.split(",")
    ]
    return all(any(asked.get(resource, 0.0) > most for resource, most in limits.items()) for limits in each)


def _live(
    run_dir: str,
    token: str,
    task: Optional[Task],
    job: Optional[Job],
    records: Records,
    listed: Listed,
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
        return of_end(end)
    shown = {"job": job.id, "token": token} if job else {"token": token}
    if job is None or job.is_over:
        other = listed.owner_of(run_dir)
        if other is not None and other.is_alive and other.state != "COMPLETING" and other != job:
            return make_row(rundir.RUNNING, "in job %s" % other.id, job=other.id, token=token, **of_start(start))
        if mine and end.get("state") in (rundir.FAILED, rundir.CANCELLED) and not is_vague(end):
            return of_end(end)
        if job is None or task is None or (task.refused and start.get("token") != token):
            return None  # what sbatch answered, or accounting, says more
        return over(run_dir, job.state, job.exit_code, records, token, shown)
    is_at_work = start.get("job") == job.id and start.get("token") == token and not records.has_ended
    began_since = float(start.get("started_at") or 0) > read_at
    if is_at_work and (began_since or job.is_alive):
        words = "" if job.state in ("RUNNING", "PENDING") else job.state.lower()
        return make_row(rundir.RUNNING, words, **dict(shown, **of_start(start)))
    if not job.is_alive or job.state == "CONFIGURING":
        is_told = job.state == "PENDING" or reasons.is_held(job.reason)
        words = reasons.explain(job.reason, may_clear) if is_told else job.state.lower()
        if end.get("state") == rundir.QUEUED and mine:
            words = "; ".join(part for part in ("after %s" % end.get("reason", ""), words) if part)
        expected = job.starts_at if job.starts_at > read_at and not reasons.is_held(job.reason) else None
        return make_row(rundir.QUEUED, words, **dict(shown, starts_at=expected, **of_start(start)))
    if mine and (job.state == "COMPLETING" or float(end.get("ended_at") or 0) >= job.starts_at):
        if end.get("state") != rundir.QUEUED:
            return of_end(end)
        return make_row(rundir.QUEUED, "after %s" % end.get("reason"), **shown)
    control = run_dir + "/" + rundir.CONTROL + "/"
    # Until the script has written its first line, the log's last one is an older start's.
    said = last_said(control) if _written_at(control + rundir.SUPERVISOR_LOG) >= job.starts_at else ""
    return make_row(rundir.RUNNING, "before training: %s" % said if said else "before training", **shown)


def _written_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _add_progress(run_dir: str, row: Row) -> None:
    """Add what the trainer says of itself, once it has started."""
    if row.get("attempt") is None:
        return
    row.update(progress(run_dir))
