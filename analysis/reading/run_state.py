"""Determine a run's state and reason from its files: ordered rules, of which the first that applies decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oelm_jobs.agent.reasons import because
from oelm_jobs.agent.sentences import _
from oelm_jobs.agent.states import State

from . import files
from .loaded_run import DIVERGED
from .run_files import RunFiles

NO_HEARTBEAT, NO_RECORD = _("no heartbeat"), _("no record")
_TELLING = (DIVERGED, "oom")
"""Outcomes that say more than the supervisor's reason for a failure."""


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    name: str
    holds: Callable[[RunFiles], bool]
    state: Callable[[RunFiles], str] | str
    reason: Callable[[RunFiles], str] | str = ""


def _outcome(run: RunFiles) -> str:
    return run.outcome.why or run.outcome.status


RULES = (
    Rule("a newer attempt reports", lambda run: run.goes_on and run.is_alive, State.RUNNING),
    Rule("a newer attempt fell silent", lambda run: run.goes_on, State.UNKNOWN, NO_HEARTBEAT),
    Rule(
        "the trainer knows why it failed",
        lambda run: run.outcome.status in _TELLING and run.state in ("", State.FAILED),
        State.FAILED,
        lambda run: because(run.outcome.status),
    ),
    Rule("the end is recorded", lambda run: run.state != "", lambda run: run.state, lambda run: run.reason),
    Rule(
        "the trainer finished", lambda run: run.outcome.status == "completed", State.DONE, lambda run: run.outcome.why
    ),
    Rule("the trainer failed", lambda run: run.outcome.status == "error", State.FAILED, _outcome),
    Rule("the trainer stopped", lambda run: run.outcome.status != "", State.UNKNOWN, _outcome),
    Rule("the trainer reports", lambda run: run.is_alive, State.RUNNING),
    Rule("the trainer fell silent", lambda run: bool(run.heartbeat or run.start), State.UNKNOWN, NO_HEARTBEAT),
    Rule("it was planned only", lambda run: run.planned != files.Planned(), State.QUEUED),
    Rule("nothing is recorded", lambda run: True, State.UNKNOWN, NO_RECORD),
)
"""In order: a start that is newer than every recorded end, then the supervisor's records, then the trainer's, then its
heartbeat.
"""


def rule_of(run: RunFiles) -> Rule:
    """Return the rule that decides."""
    return next(rule for rule in RULES if rule.holds(run))


def state_of(run: RunFiles) -> tuple[str, str]:
    """Return state and reason."""
    rule = rule_of(run)
    state, reason = (said if isinstance(said, str) else said(run) for said in (rule.state, rule.reason))
    return state, reason
