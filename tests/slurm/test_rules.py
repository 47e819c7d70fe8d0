"""Each rule for where a run on a cluster stands, with facts to which it is the first to apply, and the order of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oelm_jobs.agent.reasons import because, codes, read, told
from oelm_jobs.agent.slurm import rules
from oelm_jobs.agent.slurm.commands import Job
from oelm_jobs.agent.slurm.facts import Facts, Files, Row, Written
from oelm_jobs.agent.slurm.tasks import Task
from tests.slurm.recorded import ENDED, LATER, NAME, READ, STARTED, SUBMITTED, TOKEN
from tests.support import rules_on_the_page

Rule = Callable[[Facts], "Row | None"]
TABLES = {
    "LISTED": rules.LISTED, "UNLISTED": rules.UNLISTED, "SENT": rules.SENT, "ACCOUNTED": rules.ACCOUNTED,
    "ENDED": rules.ENDED,
}  # fmt: skip
TASK = Task(TOKEN, 0, NAME, None, SUBMITTED)
ARRAY_TASK = TASK._replace(task=3)
START = {"token": TOKEN, "number": 1, "job": "7", "started_at": STARTED, "devices": ["n1/gpu:0"]}
BY_HAND = Job(id="9", task=None, name="by-hand", state="RUNNING")


class Left(Files):
    """What a run and its job left, as told."""

    def __init__(self, *, said: str = "", log: bool = True, output: bool = False, note: str = "") -> None:
        super().__init__("/root", "/root/exp_a", TASK)
        self._said, self._log, self._output, self._note = said, log, output, note

    def said(self, since: float = 0.0) -> str:
        return self._said

    def has_log(self) -> bool:
        return self._log

    def has_output(self) -> bool:
        return self._output

    def was_started(self) -> bool:
        return self._output

    def slurms_note(self) -> str:
        return self._note


def job(state: str, **changes: Any) -> Job:
    """Return the run's job as squeue or sacct shows it."""
    made = Job(id="7", task=None, name=NAME, state=state, submitted_at=SUBMITTED, starts_at=STARTED)
    return made._replace(**changes)


def end(state: str, reason: str = "", **changes: Any) -> dict[str, Any]:
    """Return an end record of the run's first attempt."""
    attempt = {"number": 1, "job": "7", "devices": ["n1/gpu:0"], "started_at": STARTED}
    return {"token": TOKEN, "state": state, "reason": reason, "ended_at": ENDED, "attempts": [attempt], **changes}


def facts(
    *, start: dict[str, Any] | None = None, end: dict[str, Any] | None = None, is_cancelled: bool = False, **known: Any
) -> Facts:
    """Return facts about a run of which little is known."""
    written = Written(start or {}, end or {}, is_cancelled)
    nothing: dict[str, Any] = {"task": TASK, "job": None, "files": Left(), "read_at": READ}
    return Facts(**{**nothing, "run_dir": "/root/exp_a", "token": TOKEN, "written": written, **known})


def listed(job_state: str, **known: Any) -> Facts:
    """Return facts about a run whose job squeue shows in a state."""
    changes = {name: known.pop(name) for name in ("reason", "starts_at") if name in known}
    return facts(job=job(job_state, **changes), **known)


def asked(**known: Any) -> Facts:
    """Return facts about a run that left the queue, once accounting was asked."""
    return facts(answer={"id": "7"}, **known)


CASES: list[tuple[str, Rule, Facts, str, str]] = [
    # (table, the rule that decides, facts, state, reason)
    ("LISTED", rules.done, listed("RUNNING", start=START, end=end("DONE")), "DONE", ""),
    ("LISTED", rules.done, listed("PENDING", start={**START, "token": "by-hand"}, end=end("DONE", token="by-hand")),
     "DONE", ""),
    ("LISTED", rules.at_work, listed("SUSPENDED", start=START), "RUNNING", "suspended"),
    ("LISTED", rules.at_work, listed("PENDING", start={**START, "started_at": LATER}), "RUNNING", ""),
    ("LISTED", rules.waits, listed("PENDING", reason="Priority", start=START), "QUEUED",
     "waits for its turn (Priority)"),
    ("LISTED", rules.waits, listed("CONFIGURING", start=START, end=end("QUEUED", "preemption")), "QUEUED",
     "after preemption; configuring"),
    ("LISTED", rules.starts_again, listed("COMPLETING", start=START, end=end("QUEUED", "preemption")), "QUEUED",
     "after preemption"),
    ("LISTED", rules.has_ended, listed("RUNNING", start=START, end=end("FAILED", "NaN")), "FAILED", "NaN"),
    ("LISTED", rules.before_training, listed("RUNNING", starts_at=LATER, start=START, end=end("FAILED", "NaN")),
     "RUNNING", "before training"),
    ("LISTED", rules.before_training, facts(job=job("RUNNING", id="8"), start=START, end=end("CANCELLED", "by hand")),
     "RUNNING", "before training"),
    ("LISTED", rules.before_training, listed("RUNNING", files=Left(said="set-up")), "RUNNING",
     "before training: set-up"),
    ("UNLISTED", rules.done, facts(start=START, end=end("DONE"), owner=lambda: BY_HAND), "DONE", ""),
    ("UNLISTED", rules.in_another_job, listed("FAILED", start=START, end=end("FAILED", "NaN"), owner=lambda: BY_HAND),
     "RUNNING", "in job 9"),
    ("UNLISTED", rules.own_end, listed("TIMEOUT", start=START, end=end("FAILED", "NaN")), "FAILED", "NaN"),
    ("UNLISTED", rules.own_end, facts(start=START, end=end("CANCELLED", "cancelled by scancel"),
                                      owner=lambda: BY_HAND._replace(state="COMPLETING")),
     "CANCELLED", "cancelled by scancel"),
    ("UNLISTED", rules.ended_in_queue, listed("TIMEOUT", start=START, end=end("CANCELLED", "stopped by SIGTERM")),
     "FAILED", "time limit, without the time for a checkpoint: submit again to resume"),
    ("SENT", rules.no_trace, facts(task=None, is_end_known=True), "UNKNOWN", "no trace of it on this cluster"),
    ("SENT", rules.end_known, facts(answer={"id": "7"}, is_end_known=True), "UNKNOWN",
     "left the queue; its end was known before"),
    ("SENT", rules.refused, facts(answer={"refused": "Invalid account"}), "FAILED", "not submitted: Invalid account"),
    ("SENT", rules.not_settled, facts(answer={"unknown": "Socket timed out"}), "UNKNOWN",
     "whether Slurm took it is not known yet"),
    ("ACCOUNTED", rules.contradiction, asked(account=job("RUNNING"), trouble="sacct hangs"), "UNKNOWN",
     "accounting says RUNNING, but squeue does not list it"),
    ("ACCOUNTED", rules.ended_by_account, asked(account=job("NODE_FAIL"), trouble="sacct hangs", start=START), "FAILED",
     "node failure: submit again to resume"),
    ("ACCOUNTED", rules.accounts_silent, asked(trouble="sacct hangs", is_new=True), "UNKNOWN",
     "left the queue; accounting does not answer (sacct hangs)"),
    ("ACCOUNTED", rules.cancelled_task, asked(task=ARRAY_TASK, is_array_listed=True, is_new=True), "CANCELLED",
     "cancelled before it started"),
    ("ACCOUNTED", rules.not_accounted_yet, asked(is_new=True, start=START), "UNKNOWN",
     "left the queue; accounting does not list it yet"),
    ("ACCOUNTED", rules.accepted, asked(is_new=True), "QUEUED", "accepted"),
    ("ACCOUNTED", rules.accepted, asked(task=ARRAY_TASK, is_array_listed=True, is_new=True, files=Left(output=True)),
     "QUEUED", "accepted"),
    ("ACCOUNTED", rules.never_started, asked(has_accounts=False, is_new=True), "CANCELLED",
     "cancelled before it started"),
    ("ACCOUNTED", rules.ended_by_output, asked(start=START, has_accounts=False, files=Left(note="DUE TO TIME LIMIT")),
     "FAILED", "time limit, without the time for a checkpoint: submit again to resume"),
    ("ACCOUNTED", rules.ended_by_output, asked(start=START), "FAILED",
     "its job ended without an end record: submit again to resume"),
    ("ENDED", rules.cancelled, facts(ended_as="CANCELLED", start=START, end=end("QUEUED", "preemption")), "CANCELLED",
     "cancelled"),
    ("ENDED", rules.cancelled, facts(ended_as="TIMEOUT", start={**START, "token": "old"}, is_cancelled=True),
     "CANCELLED", "cancelled before it started again"),
    ("ENDED", rules.not_started_again, facts(ended_as="NODE_FAIL", start=START, end=end("QUEUED", "preemption")),
     "FAILED", "Slurm did not start it again after: preemption: submit again to resume"),
    ("ENDED", rules.ended_as_slurm_says, facts(ended_as="BOOT_FAIL"), "FAILED",
     "the node did not boot: submit again to resume"),
    ("ENDED", rules.ended_before_training, facts(ended_as="FAILED", exit_code="0:53", files=Left(log=False)), "FAILED",
     "ended before training started (exit code 0:53): nothing of it is in /root/exp_a; do the compute nodes share that"
     " folder?"),
    ("ENDED", rules.ended_before_training, facts(ended_as="FAILED", exit_code="1:0", files=Left(said="no torch")),
     "FAILED", "ended before training started: no torch"),
    ("ENDED", rules.no_end_record, facts(ended_as="FAILED", exit_code="0:9", start=START), "FAILED",
     "its job ended without an end record (exit code 0:9): submit again to resume"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "rule", "known", "state", "reason"), CASES, ids=[f"{case[0]}-{case[1].__name__}" for case in CASES]
)
def test_a_rule_is_the_first_that_applies_and_says_so(
    table: str, rule: Rule, known: Facts, state: str, reason: str
) -> None:
    answers = [(each, each(known)) for each in TABLES[table]]
    decided, row = next((each, answer) for each, answer in answers if answer is not None)
    assert decided is rule
    assert row is not None and (row["state"], row["reason"]) == (state, reason)


def test_each_rule_of_each_table_has_a_case() -> None:
    tried = {(table, rule) for table, rule, *_ in CASES}
    assert tried == {(table, rule) for table, each in TABLES.items() for rule in each}


def test_the_last_rule_applies_whatever_is_known_where_nobody_else_is_asked() -> None:
    assert rules.LISTED[-1](facts()) and rules.ACCOUNTED[-1](facts()) and rules.ENDED[-1](facts())


@pytest.mark.parametrize("name", TABLES)
def test_the_page_on_architecture_lists_the_rules_in_their_order(name: str) -> None:
    assert rules_on_the_page(name) == [rule.__name__ for rule in TABLES[name]]


@pytest.mark.usefixtures("other_words")
def test_a_signal_that_nobody_explained_leaves_the_word_to_slurm_in_whatever_words() -> None:
    why = because("stopped", signal="SIGTERM")
    for vague in (why, because("without_checkpoint", why=why), because("while_waiting", why=why)):
        assert rules.own_end(facts(start=START, end=end("CANCELLED", **told(vague)))) is None
    assert rules.own_end(facts(start=START, end=end("CANCELLED", "stopped by SIGTERM, without a checkpoint"))) is None
    row = rules.own_end(facts(start=START, end=end("CANCELLED", **told(because("cancelled")))))
    assert row is not None and codes(read(row)) == {"cancelled"}


def test_a_job_that_waits_again_says_after_what_and_for_what() -> None:
    known = listed("PENDING", reason="Resources", start=START, end=end("QUEUED", **told(because("preemption"))))
    row = rules.waits(known)
    assert row is not None and row["reason"] == "after preemption; waits for free nodes (Resources)"
    assert codes(read(row)) >= {"after", "preemption", "named", "waits_for_nodes"}
