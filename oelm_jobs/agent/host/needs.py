"""Wait until the runs that one needs are over, on their target and without a device.

A need is judged once, when it is met: what becomes of that run later (it is trained again, archived, cleaned) is judged
by the file that is taken from it, if any, and no more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from .. import records, rundir
from ..reasons import because, read
from ..rules import first
from ..run import inputs
from ..run.inputs import Unmet
from ..states import State
from . import lease_folder, rules

if TYPE_CHECKING:
    from ..record_types import NeedRecord
    from ..run_record import RunRecord

ALWAYS = "always"
LOOK_S = 2.0


def wait(record: RunRecord, tell: Callable[[str], None], *, goes_on: bool) -> bool:
    """Sleep in the kernel until all that a run needs are over; return whether there was anything to wait for.

    Args:
        tell: Is told what is waited for.
        goes_on: It goes on from a checkpoint of its own.

    Raises:
        Unmet: One of them is not over as it has to be.
    """
    has_waited = False
    for need in _unmet(record, goes_on):
        run_dir = need["run_dir"]
        claim = rundir.control(run_dir, rundir.CLAIM)
        if rundir.is_locked(claim):
            has_waited = True
            tell(because("waiting_for_needed", run=need["run"]))
            while rundir.is_locked(claim):
                lease_folder.wait_for_end(claim)
        check(need, _row(run_dir))
    return has_waited


def _unmet(record: RunRecord, goes_on: bool) -> List[NeedRecord]:
    """Return what a run needs on this target and that wasn't met before: what was over when it was submitted has no
    token, and what it took when it first began is on record.
    """
    taken = {row["input"] for row in inputs.read(record.run_dir)} if record.needs else set()
    found = []
    for need in record.needs or ():
        is_settled = not need.get("token") and record.token != rundir.BY_HAND
        # Of an input nobody knows the content as long as it isn't on record: that run may be at work on it again.
        is_met = need["input"] in taken and (goes_on or is_settled) if need.get("input") else is_settled
        if need.get("run_dir") and not is_met:
            found.append(need)
    return found


def check(need: NeedRecord, row: Dict[str, str]) -> None:
    """See that a run which another one needs is over as it has to be.

    Args:
        row: Its ``state`` and ``reason``.

    Raises:
        Unmet: It isn't.
    """
    state = row["state"]
    if state == State.DONE or (need.get("when") == ALWAYS and state in (State.FAILED, State.CANCELLED)):
        return
    code = {State.FAILED: "needed_failed", State.CANCELLED: "needed_cancelled"}.get(State(state), "needed_unknown")
    raise Unmet(State.CANCELLED, because(code, run=need["run"], why=read(row)))


def _row(run_dir: str) -> Dict[str, str]:
    """Return where a run stands that nobody cares for any more."""
    facts = rules.Facts(
        is_held=False,
        start=records.START.read_if_sound(run_dir) or {},
        end=records.END.read_if_sound(run_dir),
        claim=records.CLAIM.read_if_sound(run_dir),
        traces=rules.Traces(run_dir, dict),
    )
    return first(rules.ON_HOST, facts) or rules.no_trace(facts)


def of_ended_jobs(record: RunRecord, patience_s: float, *, goes_on: bool) -> None:
    """See that the runs which one needs, whose jobs are over, have ended as they have to. A job that Slurm starts again
    has seen that before: what it began with may have been started over or removed since.

    Args:
        patience_s: So long another node's records may be behind.
        goes_on: It goes on from a checkpoint of its own.

    Raises:
        Unmet: One has not.
    """
    start = records.START.read_if_sound(record.run_dir) if record.needs else None
    if start is not None and start.get("token") == record.token:
        return
    deadline = time.monotonic() + patience_s
    for need in _unmet(record, goes_on):
        run_dir = need["run_dir"]
        while need.get("when") != ALWAYS:  # of that Slurm's word is enough, which keeps no record of some
            try:
                check(need, _recorded(run_dir))
                break
            except Unmet:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(LOOK_S)


def _recorded(run_dir: str) -> Dict[str, str]:
    """Return where a run on a cluster stands, as its records say."""
    end: Optional[Dict[str, str]] = records.END.read_if_sound(run_dir)  # type: ignore[assignment]  # it has more
    return end if end is not None else {"state": State.UNKNOWN, "reason": because("no_end_record")}
