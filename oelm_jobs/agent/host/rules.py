"""Rules for where a run on a plain host stands, in order of precedence; docs/architecture.md shows the table.

A held claim means alive. An end record of the newest submission is final. Where there is neither, the supervisor was
lost: in a reboot, if the boot id says so.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, NamedTuple, Optional

from .. import processes, rundir
from ..reasons import because, detailed, read, told
from ..run import waiting as waiting_record
from ..run.progress import last_said
from ..states import State

if TYPE_CHECKING:
    from ..record_types import ClaimRecord, EndRecord, StartRecord

FORMERLY_WAITING = re.compile("waiting ")
"""How the log of a supervisor ends that waits, of a version that wrote no record of it."""
SPOKE_S = 1.0
"""A wait is recorded within so long of being said."""
Row = Dict[str, Any]
"""Where a run stands, as probe answers it: ``state``, ``reason`` and what else is known."""


class Traces:
    """What is looked for only where a rule needs it."""

    def __init__(self, run_dir: str, line: Callable[[], Mapping[str, int]]) -> None:
        self._run_dir, self._line = run_dir, line

    def said(self) -> str:
        """Return the newest line of the supervisor's log."""
        return last_said("%s/%s/" % (self._run_dir, rundir.CONTROL))

    def waits_for(self, token: str) -> str:
        """Return what a supervisor of this submission waits for; empty where none does."""
        return waiting_record.read(self._run_dir, token)

    def waited_for(self, token: str) -> str:
        """Return what a supervisor of this submission waited for when the last word was written into its log."""
        try:
            spoke_at = os.stat("%s/%s/%s" % (self._run_dir, rundir.CONTROL, rundir.SUPERVISOR_LOG)).st_mtime
        except OSError:
            spoke_at = 0.0
        return waiting_record.read(self._run_dir, token, since=spoke_at - SPOKE_S)

    def needed(self, claim: ClaimRecord) -> str:
        """Return the first that isn't over of the runs that it waits for, by a keeper's claim; empty where all are."""
        run_dirs = claim.get("needs") or ()
        if claim.get("has_more_needs"):
            held = rundir.records_of(rundir.control(self._run_dir, rundir.SCRIPT), '"needs"')
            needs = [need for each in held for need in each.get("needs") or ()]
            run_dirs = [str(need["run_dir"]) for need in needs if need.get("token")]  # the others were over before
        return rundir.first_held(run_dirs)

    def place(self) -> Optional[int]:
        """Return the run's place in the host's line; None where it doesn't stand there."""
        return self._line().get(self._run_dir)

    def boot_id(self) -> str:
        """Return the id of the host's present boot."""
        return processes.boot_id()

    def is_cancelled(self) -> bool:
        """Tell whether somebody asked for the run's end."""
        return os.path.exists("%s/%s/%s" % (self._run_dir, rundir.CONTROL, rundir.CANCEL))

    def lives_on(self) -> bool:
        """Tell whether processes of the run live; all of the host's are looked at."""
        return bool(processes.of_run(self._run_dir))


class Facts(NamedTuple):
    """What is known of a run: its claim, its records, and where to look for more."""

    is_held: bool
    """Whether a process holds its claim."""
    start: StartRecord
    """Of its newest attempt; empty where none has started."""
    end: Optional[EndRecord]
    """Of its attempts so far."""
    claim: Optional[ClaimRecord]
    """What its newest holder wrote into its claim."""
    traces: Traces

    @property
    def token(self) -> str:
        """Token of its newest submission."""
        claimed = self.claim.get("token") if self.claim else None
        ended = self.end.get("token") if self.end else None
        return claimed or ended or self.start.get("token") or ""

    @property
    def is_kept(self) -> bool:
        """True where a keeper took the claim, and has not started the run."""
        return bool(self.claim and self.claim.get("keeper"))

    @property
    def has_started(self) -> bool:
        """True where the newest attempt is one of this submission."""
        return self.start.get("token") == self.token

    @property
    def has_ended(self) -> bool:
        """True where the newest attempt has its end on record."""
        attempts = self.end.get("attempts", []) if self.end else []
        return self.start.get("number") in [attempt.get("number") for attempt in attempts]

    def row(self, state: str, reason: str = "", **more: Any) -> Row:
        """Return a row that shows what is known of this submission's newest attempt."""
        row: Row = {"token": self.token, "state": state, **told(reason)}
        if self.has_started:
            start = self.start
            row.update(devices=start.get("devices"), started_at=start.get("started_at"), attempt=start.get("number"))
        return dict(row, **more)


def training(facts: Facts) -> Optional[Row]:
    """Its supervisor lives, and an attempt has begun and not ended."""
    is_at_work = facts.is_held and facts.has_started and not facts.has_ended
    return facts.row(State.RUNNING) if is_at_work else None


def waiting(facts: Facts) -> Optional[Row]:
    """Its keeper or supervisor lives: it waits for its turn or devices, sets up, or is between two attempts."""
    if not facts.is_held or (facts.is_kept and facts.traces.is_cancelled()):
        return None  # a keeper that is stopped holds what it will never start
    if facts.is_kept:
        claim: ClaimRecord = facts.claim or {}
        if before := claim.get("after"):
            reason = because("waiting_for_run", run=rundir.run_name(before))
        elif needed := facts.traces.needed(claim):
            reason = because("waiting_for_needed", run=rundir.run_name(needed))
        else:
            reason = because("waiting_for_turn")
    else:
        reason = facts.traces.waits_for(facts.token) or facts.traces.said()
    return facts.row(State.QUEUED, reason, place=facts.traces.place())


def own_end(facts: Facts) -> Optional[Row]:
    """Its newest submission has its end on record, and no attempt began after it."""
    end = facts.end
    if not end or end.get("token") != facts.token or (facts.has_started and not facts.has_ended):
        return None
    return facts.row(end["state"], read(end), ended_at=end.get("ended_at"))


def rebooted(facts: Facts) -> Optional[Row]:
    """Its attempt began before the host was started again."""
    is_before = facts.has_started and facts.start.get("boot_id") != facts.traces.boot_id()
    return facts.row(State.FAILED, because("submit_again", why=because("reboot"))) if is_before else None


def living_on(facts: Facts) -> Optional[Row]:
    """Its supervisor was lost, and processes of the attempt live."""
    return facts.row(State.UNKNOWN, because("lives_on")) if facts.has_started and facts.traces.lives_on() else None


def lost(facts: Facts) -> Optional[Row]:
    """Its supervisor was lost, and the attempt with it."""
    why = because("submit_again", why=because("supervisor_lost"))
    return facts.row(State.FAILED, why) if facts.has_started else None


def cancelled(facts: Facts) -> Optional[Row]:
    """Its end was asked for before an attempt of this submission began."""
    return facts.row(State.CANCELLED, because("cancelled_before_start")) if facts.traces.is_cancelled() else None


def rebooted_before(facts: Facts) -> Optional[Row]:
    """The host was started again before an attempt began."""
    is_before = facts.claim and facts.claim.get("boot_id") != facts.traces.boot_id()
    return facts.row(State.FAILED, because("rebooted_before_training")) if is_before else None


def lost_waiting(facts: Facts) -> Optional[Row]:
    """Its keeper or supervisor was lost while it waited; one that ends by itself says so."""
    traces = facts.traces
    has_waited = facts.claim and (
        facts.is_kept or traces.waited_for(facts.token) or FORMERLY_WAITING.match(traces.said())
    )
    return facts.row(State.FAILED, because("lost_waiting")) if has_waited else None


def ended_before_training(facts: Facts) -> Optional[Row]:
    """Its script ended before an attempt began."""
    if not facts.claim:
        return None
    return facts.row(State.FAILED, detailed(because("ended_before_training"), facts.traces.said()))


def no_trace(facts: Facts) -> Row:
    """This host knows nothing of it."""
    return facts.row(State.UNKNOWN, because("no_trace_on_host"), absent=True)


ON_HOST = (
    training, waiting, own_end, rebooted, living_on, lost, cancelled, rebooted_before, lost_waiting,
    ended_before_training, no_trace,
)  # fmt: skip
