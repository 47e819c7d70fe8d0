"""Rules for where a run on a cluster stands, in order of precedence; docs/architecture.md shows the tables.

A run whose job waits or runs, as squeue says, is decided by LISTED; any other by UNLISTED, then by what sbatch answered
(SENT), and only then by accounting (ACCOUNTED). However a job's end became known, ENDED says what it means for the run.
Absence from squeue is an end only where accounting confirms it, or is known to keep nothing.
"""

from __future__ import annotations

from typing import Optional

from ..reasons import because, codes, detailed, read, told
from ..rules import first
from ..sentences import joined
from ..states import State
from . import needed, waiting
from .facts import Facts, Row, shown_of_start

ENDS = {
    "TIMEOUT": "timed_out",
    "DEADLINE": "deadline",
    "OUT_OF_MEMORY": "out_of_memory",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "not_booted",
    "PREEMPTED": "preempted",
}
"""Slurm's states of an ended job that say why it ended, and the codes of these reasons."""
STATES = {state.upper(): state for state in ("suspended", "configuring", "completing")}
"""Slurm's states of a job in the queue that have codes of their own."""
NOTES = (("TIME LIMIT", "TIMEOUT"), ("PREEMPTION", "PREEMPTED"), ("NODE FAIL", "NODE_FAIL"), ("CANCELLED", "CANCELLED"))
"""What slurmstepd's last note in a job's output holds, and the state that sacct would show."""
NOT_OVER = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING")
"""Accounting's states of a job that squeue should list."""


# Wherever its job is --------------------------------------------------------------------------------------------------


def done(facts: Facts) -> Optional[Row]:
    """Its end record says DONE: this submission's, or one that was written since the job was submitted, because a
    script that somebody started by hand saw the run through.
    """
    if facts.end_state != State.DONE:
        return None
    is_since = facts.task is not None and _ended_at(facts) > facts.task.submitted_at and facts.written.has_ended
    return facts.end_row() if facts.is_own_end or is_since else None


# Its job is in the queue ----------------------------------------------------------------------------------------------


def at_work(facts: Facts) -> Optional[Row]:
    """An attempt of this job has begun and not ended, and the job lives or began it after squeue was read."""
    job, start = facts.job, facts.written.start
    if job is None or start.get("job") != job.id or not facts.has_started or facts.written.has_ended:
        return None
    if not job.is_alive and float(start.get("started_at") or 0) <= facts.read_at:
        return None
    reason = "" if job.state in ("RUNNING", "PENDING") else _as_state(job.state)
    return facts.row(State.RUNNING, reason, **shown_of_start(start))


def waits(facts: Facts) -> Optional[Row]:
    """The job waits, for the first time or again, or its nodes are being made ready."""
    job = facts.job
    if job is None or (job.is_alive and job.state != "CONFIGURING"):
        return None
    is_told = job.state == "PENDING" or waiting.is_held(job.reason)
    reason = waiting.explain(job.reason, facts.may_clear) if is_told else _as_state(job.state)
    if is_told and job.reason == "Dependency" and facts.task is not None and facts.task.needs:
        reason = needed.waited_for(facts.task.needs) or reason
    if facts.end_state == State.QUEUED and facts.is_own_end:
        reason = joined((_after(facts), reason))
    expected = job.starts_at if job.starts_at > facts.read_at and not waiting.is_held(job.reason) else None
    return facts.row(State.QUEUED, reason, starts_at=expected, **shown_of_start(facts.written.start))


def starts_again(facts: Facts) -> Optional[Row]:
    """Its supervisor has recorded an end after which Slurm starts the job again."""
    if facts.end_state != State.QUEUED or not _has_ended_here(facts):
        return None
    return facts.row(State.QUEUED, _after(facts))


def has_ended(facts: Facts) -> Optional[Row]:
    """Its supervisor has recorded the end, and the job is about to go."""
    return facts.end_row() if _has_ended_here(facts) else None


def before_training(facts: Facts) -> Row:
    """The job lives, and no attempt of it has begun."""
    # Until the script has written its first line, the log's last one is an earlier start's.
    since = facts.job.starts_at if facts.job is not None else facts.read_at
    said = facts.files.waits_for(facts.token, since) or facts.files.said(since)
    return facts.row(State.RUNNING, detailed(because("before_training"), said))


LISTED = (done, at_work, waits, starts_again, has_ended, before_training)


# Its job is not in the queue, or is shown there as ended --------------------------------------------------------------


def in_another_job(facts: Facts) -> Optional[Row]:
    """Another job has the run's claim and lives: its script was submitted again, perhaps by hand."""
    other = facts.owner()
    if other is None or not other.is_alive or other.state == "COMPLETING" or other == facts.job:
        return None
    row = facts.row(State.RUNNING, because("in_job", job=other.id), **shown_of_start(facts.written.start))
    return dict(row, job=other.id)


def own_end(facts: Facts) -> Optional[Row]:
    """Its end record says FAILED or CANCELLED, and knows why."""
    if facts.end_state not in (State.FAILED, State.CANCELLED) or not facts.is_own_end:
        return None
    # Where the supervisor only saw a signal, Slurm knows better what it was for.
    return None if "stopped" in codes(read(facts.written.end)) else facts.end_row()


def ended_in_queue(facts: Facts) -> Optional[Row]:
    """squeue shows how its job ended; of a job that slurmctld refused and keeps, sbatch's answer says more."""
    if facts.job is None or facts.task is None or (facts.task.refused and not facts.has_started):
        return None
    return ended(facts, facts.job.state, facts.job.exit_code)


UNLISTED = (done, in_another_job, own_end, ended_in_queue)


# By sbatch's answer ---------------------------------------------------------------------------------------------------


def no_trace(facts: Facts) -> Optional[Row]:
    """This cluster knows no submission of it."""
    if facts.task is not None:
        return None
    return {"absent": True, "state": State.UNKNOWN, **told(because("no_trace_on_cluster"))}


def end_known(facts: Facts) -> Optional[Row]:
    """The client knows its end already."""
    if not facts.is_end_known:
        return None
    return {"state": State.UNKNOWN, **told(because("end_known"))}


def refused(facts: Facts) -> Optional[Row]:
    """sbatch refused it."""
    if "id" in facts.answer or "refused" not in facts.answer:
        return None
    return {"state": State.FAILED, **told(because("not_submitted", why=facts.answer["refused"]))}


def not_settled(facts: Facts) -> Optional[Row]:
    """Whether Slurm has the job is not known."""
    if "id" in facts.answer:
        return None
    return {"state": State.UNKNOWN, **told(because("not_settled"))}


SENT = (no_trace, end_known, refused, not_settled)


# By accounting --------------------------------------------------------------------------------------------------------


def contradiction(facts: Facts) -> Optional[Row]:
    """Accounting takes it for a job that squeue should list."""
    account = facts.account
    if account is None or account.state not in NOT_OVER:
        return None
    return facts.row(State.UNKNOWN, because("contradiction", state=account.state))


def ended_by_account(facts: Facts) -> Optional[Row]:
    """Accounting says how its job ended."""
    account = facts.account
    return ended(facts, account.state, account.exit_code) if account is not None else None


def accounts_silent(facts: Facts) -> Optional[Row]:
    """Accounting gave no answer about it."""
    if not facts.trouble:
        return None
    return facts.row(State.UNKNOWN, because("accounts_silent", why=facts.trouble))


def cancelled_task(facts: Facts) -> Optional[Row]:
    """A task that is cancelled before it started leaves no trace, while its array is known."""
    is_task = facts.task is not None and facts.task.task is not None
    if not is_task or not facts.is_array_listed or facts.has_started or facts.files.has_output():
        return None
    return ended(facts, "CANCELLED")


def not_accounted_yet(facts: Facts) -> Optional[Row]:
    """It has started and left the queue, and accounting hears of everything a little later."""
    if not (facts.has_accounts and facts.is_new and facts.has_started):
        return None
    return facts.row(State.UNKNOWN, because("not_accounted_yet"))


def accepted(facts: Facts) -> Optional[Row]:
    """It was submitted a moment ago, and neither squeue nor accounting has heard of it."""
    return facts.row(State.QUEUED, because("accepted")) if facts.has_accounts and facts.is_new else None


def never_started(facts: Facts) -> Optional[Row]:
    """Without accounts: what left the queue and was never started was cancelled."""
    if facts.has_accounts or facts.has_started or facts.files.was_started():
        return None
    return ended(facts, "CANCELLED")


def ended_by_output(facts: Facts) -> Row:
    """slurmstepd's last note in the job's output says some of how it ended."""
    note = facts.files.slurms_note()
    return ended(facts, next((state for mark, state in NOTES if mark in note), ""))


ACCOUNTED = (
    contradiction, ended_by_account, accounts_silent, cancelled_task, not_accounted_yet, accepted, never_started,
    ended_by_output,
)  # fmt: skip


# How its job ended ----------------------------------------------------------------------------------------------------


def cancelled(facts: Facts) -> Optional[Row]:
    """The job was cancelled, or somebody asked for the run's end."""
    if facts.ended_as != "CANCELLED" and not facts.written.is_cancelled:
        return None
    if not facts.has_started and not facts.written.is_cancelled and facts.task is not None and facts.task.needs:
        unmet = needed.unmet(facts.task.needs, facts.job.reason if facts.job is not None else "")
        if unmet:
            return facts.row(State.CANCELLED, unmet, **_shown(facts))
    before = "cancelled_before_restart" if facts.written.start else "cancelled_before_start"
    return facts.row(State.CANCELLED, because("cancelled" if facts.has_started else before), **_shown(facts))


def not_started_again(facts: Facts) -> Optional[Row]:
    """Its supervisor expected Slurm to start the job again."""
    end = facts.written.end
    if facts.end_state != State.QUEUED or end.get("token") != facts.token or not facts.written.has_ended:
        return None
    reason = because("no_restart", why=read(end))
    return facts.row(State.FAILED, because("submit_again", why=reason), **_shown(facts))


def ended_as_slurm_says(facts: Facts) -> Optional[Row]:
    """Slurm's state of the job says why it ended."""
    code = ENDS.get(facts.ended_as)
    return facts.row(State.FAILED, because("submit_again", why=because(code)), **_shown(facts)) if code else None


def ended_before_training(facts: Facts) -> Optional[Row]:
    """No attempt of this submission has begun."""
    if facts.has_started:
        return None
    said = facts.files.said()
    reason = because("ended_before_training")
    reason = detailed(reason, said) if said else _with_code(reason, facts)
    if not facts.files.has_log():
        reason = because("nothing_there", why=reason, folder=facts.run_dir)
    return facts.row(State.FAILED, reason, **_shown(facts))


def no_end_record(facts: Facts) -> Row:
    """An attempt has begun and nobody recorded its end."""
    reason = _with_code(because("no_end_record"), facts)
    return facts.row(State.FAILED, because("submit_again", why=reason), **_shown(facts))


ENDED = (cancelled, not_started_again, ended_as_slurm_says, ended_before_training, no_end_record)


def ended(facts: Facts, state: str, exit_code: str = "") -> Row:
    """Return the row of a run whose job ended in a state of Slurm's (empty where nobody kept it)."""
    facts = facts._replace(ended_as=state, exit_code=exit_code)
    return first(ENDED, facts) or no_end_record(facts)


def _ended_at(facts: Facts) -> float:
    return float(facts.written.end.get("ended_at") or 0)


def _has_ended_here(facts: Facts) -> bool:
    """True where the end record is about this start of the job."""
    job = facts.job
    if job is None or not facts.is_own_end:
        return False
    if job.state == "COMPLETING":
        return True
    last = (facts.written.end.get("attempts") or [{}])[-1]
    # squeue tells whole seconds: another job that starts in the second of an end would seem to have ended
    return last.get("job") in (None, job.id) and _ended_at(facts) >= job.starts_at


def _after(facts: Facts) -> str:
    return because("after", why=read(facts.written.end))


def _as_state(state: str) -> str:
    return because(STATES[state]) if state in STATES else because("job_state", state=state.lower())


def _with_code(what: str, facts: Facts) -> str:
    is_told = facts.exit_code not in ("", "0:0")
    return because("with_exit_code", what=what, code=facts.exit_code) if is_told else what


def _shown(facts: Facts) -> Row:
    """Return what the row of an ended job shows of the run's newest attempt: progress is the run's, whichever
    submission made it.
    """
    start = facts.written.start
    if not start:
        return {}
    return shown_of_start(start) if facts.has_started else {"attempt": start.get("number")}
