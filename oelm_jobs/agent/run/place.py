"""What a supervisor needs of where it runs: a plain host (host/host.py) or a Slurm job (slurm/job.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Collection, Dict, List, Optional, Protocol, Tuple

from ..reasons import because
from ..states import State
from .words import Ground

if TYPE_CHECKING:
    from ..record_types import Attempt, JobStart, OutcomeRecord, StartRecord
    from ..run_record import RunRecord

CRASH, TIMEOUT, PREEMPTION, NODE_FAILURE = "crash", "timeout", "preemption", "node failure"
REQUEUE, CANCEL, PORT = "requeue", "cancel", "port"
"""Why an attempt ended without completing, as its record says it (budgets count by it)."""


class Stopped(Exception):
    """A signal, or the submission's own rules, asked this supervisor to end."""


class Superseded(Exception):
    """The run is another execution's by now: touch nothing any more."""


class Refused(Exception):
    """This execution must not begin; the reason is in the message."""


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended."""

    state: State
    """DONE, FAILED, CANCELLED, or QUEUED where the run goes on in a later start of its job."""
    reason: str
    """In words; for DONE no more than a remark."""
    retry: bool = False
    """Whether another attempt may follow at once."""
    cause: str = ""
    """CRASH, TIMEOUT and so on; empty for DONE."""
    why: str = ""
    """Of a stop: the reason without what became of the checkpoint and what to do."""


def stopped(state: State, why: str, outcome: OutcomeRecord, *, cause: str, resumes: bool = True) -> Verdict:
    """Return the verdict on a run that was stopped.

    Args:
        outcome: The trainer's record of the attempt; empty where it left none.
        resumes: Whether it goes on by itself, or is meant not to.
    """
    reason = why if outcome.get("status") == "resumable" else because("without_checkpoint", why=why)
    return Verdict(state, reason if resumes else because("submit_again", why=reason), cause=cause, why=why)


def stop_grace(record: Optional[RunRecord], seconds: float) -> float:
    """Return how long a run has for a checkpoint after SIGTERM: what its own program asks for, else so many seconds."""
    program = record.program if record else None
    return float(program.get("stop_s") or seconds) if program else seconds


class Place(Protocol):
    """A plain host, or a Slurm job; what has a body here is a plain host's."""

    signals: Tuple[int, ...]
    """What asks the supervisor to end its run."""
    look_s: float
    """How often it looks whether the run is still its own; 0 where the kernel would end it."""

    def claim(self) -> None:
        """Make the run this execution's own.

        Raises:
            rundir.Busy: Another execution of it is alive.
            Refused: This execution must not begin.
        """

    def is_mine(self) -> bool:
        """False once another execution has rightfully taken the run over; the kernel keeps a plain host's claim for as
        long as this process lives.
        """
        return True

    def is_cancelled(self) -> bool:
        """True where a cancel came before this execution began."""

    def lost_reason(self, start: StartRecord) -> str:
        """Say why an attempt that left no end was lost, given its start record."""

    def submitted_at(self) -> float:
        """Return when this execution's submission was made, Unix seconds; now, where a script was started by hand."""

    def wait_for_turn(self, *, goes_on: bool) -> float:
        """Wait for the run's place in its lane, and for what it needs; return its place in the queue for devices, Unix
        seconds.

        Args:
            goes_on: It goes on from a checkpoint of its own.

        Raises:
            Stopped: The run before it failed, and the submission says to stop then.
        """

    def acquire(self, queued_at: float) -> None:
        """Have the devices.

        Raises:
            lease.ImpossibleRequest: They can never be had.
        """

    def devices(self) -> List[str]:
        """Return the devices' labels; empty before acquire."""

    def environment(self) -> Dict[str, str]:
        """Return variables that confine the command to the devices."""

    def start_record(self) -> JobStart:
        """Return what start.json and the attempt's record say besides."""
        return {}

    def argv(self, command: List[str], number: int, avoided: Collection[int] = ()) -> "Tuple[List[str], Optional[int]]":
        """Return (words to start an attempt with, its port, which is none of the avoided ones)."""

    def ground(self, number: int, avoided: Collection[int] = ()) -> Ground:
        """Return what a program of the user's own has to know of where attempt ``number`` runs."""

    def spread(self, argv: List[str]) -> List[str]:
        """Return words that start a command once on each of the run's nodes."""
        return argv

    def pass_stop(self, pid: int, number: int) -> float:
        """Pass a stop on to the command; return the seconds that it has for a checkpoint."""

    def has_asked_all(self) -> bool:
        """Tell whether the last stop has reached every process of the run, and not the command alone."""
        return False

    def judge_stop(self, number: int, attempts: List[Attempt], outcome: OutcomeRecord) -> Verdict:
        """Say what a stop by signal ``number`` means for the run.

        Args:
            attempts: Those before this one.
            outcome: The trainer's record of this attempt; empty where it left none.
        """

    def judge_end(self, attempts: List[Attempt], outcome: OutcomeRecord) -> Optional[Verdict]:
        """Say what it means that the command ended after a checkpoint though this process had no signal (arguments as
        in judge_stop); None where nothing is known of it, as where only its own user stops a run.
        """
        return None

    def retries_used(self, attempts: List[Attempt]) -> int:
        """Return how many crashes count against the budget already, before this execution's first attempt."""
        return 0

    def go_on_later(self) -> str:
        """Have the run started again later, after a verdict of QUEUED; return why that can't be, if it can't."""

    def release(self) -> None:
        """Give up the devices; harmless when called again."""

    def leave(self) -> None:
        """Give up the claim, where no kernel frees it: all records are written."""
        return
