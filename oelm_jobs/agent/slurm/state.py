"""Where runs on a cluster stand: gathers the facts (squeue first, then the runs' own records, then sacct for what left
the queue without a word) and asks the rules. Changes nothing but what is to be told of them (notify).
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, AbstractSet, Dict, List, Mapping, Optional, Sequence, Tuple, cast

from .. import reasons, records, rundir
from ..rules import first
from ..run.progress import add_progress
from ..states import State
from . import accounts, commands, profile, rules, submit, waiting
from .commands import Job, SlurmError
from .facts import Facts, Files, Row, read_written, row_of_end, shown_of_start
from .tasks import Listed, Task, find_tasks, that_counts

if TYPE_CHECKING:
    from .. import messages

INTERVAL_S = 30.0
"""How old the queue may be, unless the request says otherwise: one squeue per cluster and interval."""
NEW_S = 60.0
"""So long after its submission a job may be missing from accounting."""
JUDGED = 16
"""So many jobs that wait for a limit are asked about one by one: those of a submission are of few sizes."""
LIMITS_AGE_S, JUDGED_BY_AGE_S = 600.0, 60.0
"""How old accounts and limits may be for a submission, and for judging a job that Slurm says waits for one; oelm-doctor
asks anew."""


def slurm_poll(request: messages.SlurmPollRequest) -> messages.PollAnswer:
    """Answer where runs stand.

    Args:
        request: ``root`` and ``checkpoint_root`` (both may begin with ``~``); ``runs``, a list of (run directory, token
            of its submission); ``ended``, those whose end is known: accounting is not asked for them; ``interval_s``,
            how old the queue may be; ``host`` asks for the cluster's limits and the disk, too.

    Returns:
        ``host``, ``time``, ``runs`` (run directory to its state), ``queue_age_s``; where asked for ``site``
            (slurm/site.py), ``disk_free`` (bytes) and ``devices`` (empty: Slurm grants them).

    Raises:
        SlurmError: slurmctld does not answer.
    """
    root = os.path.expanduser(request["root"])
    wanted = [(str(run_dir), str(token)) for run_dir, token in request["runs"]]
    answer: messages.PollAnswer = {"host": os.uname().nodename, "time": time.time(), "runs": {}}
    if wanted:
        interval_s, ended = float(request.get("interval_s", INTERVAL_S)), frozenset(request.get("ended", ()))
        read_at, rows = _look(root, wanted, interval_s, ended)
        answer["runs"] = {run_dir: cast("messages.RunRow", row) for run_dir, row in rows.items()}
        answer["queue_age_s"] = max(0.0, time.time() - read_at)
        _tell(root, wanted, rows)
    if request.get("host"):
        from . import site

        checkpoints = os.path.expanduser(request.get("checkpoint_root") or root)
        answer["site"], answer["disk_free"] = site.site(max_age_s=LIMITS_AGE_S), rundir.disk_free(checkpoints)
        answer["devices"], answer["queue"] = [], []
    return answer


def rows_of(root: str, wanted: Sequence[Tuple[str, str]]) -> Dict[str, Row]:
    """Return where runs stand, by run directory.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    return _look(root, wanted, INTERVAL_S, frozenset())[1]


def _look(
    root: str, wanted: Sequence[Tuple[str, str]], interval_s: float, ended: AbstractSet[str]
) -> Tuple[float, Dict[str, Row]]:
    """Return when the queue was read, and the rows."""
    tasks = find_tasks(root, wanted)
    newest = max((task.submitted_at for task in tasks.values() if task), default=0.0)
    read_at, jobs = commands.my_queue(interval_s)
    if read_at <= newest:
        read_at, jobs = commands.my_queue(0.0)
    return read_at, states(root, wanted, tasks, jobs, read_at, ended=ended)


def _tell(root: str, wanted: Sequence[Tuple[str, str]], rows: Mapping[str, Row]) -> None:
    """Have told what is to be told of it; nobody who looks suffers where that fails."""
    if os.path.isdir(rundir.control(root, rundir.NOTIFY)):
        from ..notify import polled

        with contextlib.suppress(Exception):
            polled.note(root, wanted, rows)


def of_run(run_dir: str) -> Row:
    """Return the row of a run that has started, by what it says of itself (probe's question).

    Where slurmctld does not answer, an end on record still counts.
    """
    record = records.RUN.read(run_dir)
    token, fate = (record.token, record.fate or "") if record is not None else ("", "")
    wanted = [(run_dir, token)]
    # The fate's file lies in the root's folder of scripts; a script that nobody submitted names none.
    root = os.path.dirname(os.path.dirname(os.path.dirname(fate))) if fate else ""
    tasks: Dict[str, Optional[Task]] = find_tasks(root, wanted) if root else {run_dir: None}
    try:
        read_at, jobs = commands.my_queue(INTERVAL_S)
    except SlurmError as error:
        written = read_written(run_dir)
        if written.is_final:
            return row_of_end(written.end)
        return dict(shown_of_start(written.start), state=State.UNKNOWN, **reasons.told(str(error)), token=token)
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
    silent: List[Facts] = []
    beyond: Dict[Tuple[str, int], bool] = {}  # the runs of a job are of one size
    for run_dir, token in wanted:
        task = tasks[run_dir]
        job = that_counts(listed.of(task, run_dir)) if task else None
        may_clear = any_at_work
        if task and job and job.state == "PENDING":
            is_per_group = waiting.is_per_group(job.reason)
            may_clear = any_at_work or is_per_group
            if may_clear and (is_per_group or waiting.is_per_user(job.reason)):
                key = (task.token, task.position)
                if key not in beyond and len(beyond) < JUDGED:
                    beyond[key] = _is_beyond_limits(job)
                may_clear = not beyond.get(key, False)
        try:
            facts = Facts(
                run_dir=run_dir,
                token=token,
                task=task,
                job=job,
                written=read_written(run_dir),
                files=Files(root, run_dir, task),
                read_at=read_at,
                may_clear=may_clear,
                owner=functools.partial(listed.owner_of, run_dir),
            )
            row = first(rules.LISTED if facts.is_in_queue else rules.UNLISTED, facts)
        except (AttributeError, KeyError, TypeError, ValueError):
            # One run's broken records are not everybody's trouble.
            reason = reasons.because("not_understood", folder=rundir.CONTROL)
            row = {"token": token, "state": State.UNKNOWN, **reasons.told(reason)}
        if row is None:
            silent.append(facts)
        else:
            rows[run_dir] = row
    if silent:
        rows.update(_unlisted(root, silent, jobs, ended))
    for run_dir, row in rows.items():
        if row.get("attempt") is not None:  # the trainer has started
            add_progress(row, run_dir)
    return rows


def _unlisted(root: str, silent: Sequence[Facts], jobs: Sequence[Job], ended: AbstractSet[str]) -> Dict[str, Row]:
    """Return the rows of runs whose job is not in the queue and that left no end, asking accounting once for all.

    Args:
        jobs: What squeue lists.
        ended: Run directories whose end is known: nobody is asked for them.
    """
    rows: Dict[str, Row] = {}
    asked: List[Tuple[Task, Facts]] = []
    answers: Dict[Tuple[str, int], Mapping[str, object]] = {}
    for facts in silent:
        task = facts.task
        if task is not None:
            key = (task.token, task.position)
            if key not in answers:
                answers[key] = submit.answer_of(root, task.token, task.position) or {}
            facts = facts._replace(job=None, answer=answers[key], is_end_known=facts.run_dir in ended)
        row = first(rules.SENT, facts)
        if row is not None:
            rows[facts.run_dir] = row
        elif task is not None:
            asked.append((task, facts))
    if not asked:
        return rows
    known: Optional[List[Job]] = []
    trouble = ""
    try:
        since = min(task.submitted_at for task, _ in asked)
        known = accounts.jobs([str(facts.answer["id"]) for _, facts in asked], since)
    except SlurmError as error:
        trouble = str(error) or type(error).__name__
        known = error.found if isinstance(error, accounts.HalfAnswered) else []
    accounted, everywhere = Listed(known or ()), Listed((*jobs, *(known or ())))
    for task, facts in asked:
        incarnations = accounted.of(task, facts.run_dir)
        facts = facts._replace(
            account=max(incarnations, key=lambda job: (job.submitted_at, job.starts_at), default=None),
            trouble=trouble,
            has_accounts=known is not None,
            is_array_listed=everywhere.has_any(task),
            is_new=time.time() - task.submitted_at < NEW_S,
        )
        rows[facts.run_dir] = first(rules.ACCOUNTED, facts) or rules.ended_by_output(facts)
    return rows


def _is_beyond_limits(job: Job) -> bool:
    """True where a job that waits for a limit asks for more than it could get if nobody else had any; found out once a
    minute, however many commands watch.
    """
    path = commands.cache_file("beyond")
    known = profile.recall(path, JUDGED_BY_AGE_S) or {"jobs": {}}
    if job.id not in known["jobs"]:
        known["jobs"][job.id] = _judge_limits(job)
        profile.keep(path, known)
    return bool(known["jobs"][job.id])


def _judge_limits(job: Job) -> bool:
    from . import site

    try:
        shown = commands.show_job(job.id)
        qualities = commands.qualities_of_partitions()
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
