"""Judge how an attempt ended: by the trainer's own record first, then by what its log says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional

from .. import records, rundir
from ..reasons import because, detailed, read
from ..states import State
from . import failure, result
from .place import CRASH, PORT, Place, Verdict

if TYPE_CHECKING:
    from ..record_types import Attempt, OutcomeRecord, StartRecord


class Traces(NamedTuple):
    """Where to look for what an attempt has left."""

    run_dir: Path
    start: StartRecord
    """Of the attempt."""
    log_start: int
    """Size of the log before it, in bytes."""

    @property
    def mark(self) -> str:
        """OELM_ATTEMPT of its processes, which the trainer writes into its records."""
        return rundir.attempt_mark(self.start["token"], self.start["number"])

    def outcome(self) -> OutcomeRecord:
        """Return the trainer's record of this attempt; empty where it left none."""
        outcome = records.OUTCOME.read_if_sound(self.run_dir) or {}
        return outcome if outcome.get("attempt") == self.mark else {}

    def came_to_training(self) -> bool:
        """True where the trainer of this attempt has given a sign of life."""
        beat = records.HEARTBEAT.read_if_sound(self.run_dir) or {}
        return beat.get("attempt") == self.mark

    def last_lines(self) -> List[str]:
        """Return the last lines that this attempt wrote into the log."""
        return rundir.last_lines(self.run_dir / rundir.LOG, failure.LOG_LINES, since=self.log_start)


def judge(
    traces: Traces,
    outcome: OutcomeRecord,
    code: int,
    *,
    stop_signal: Optional[int],
    place: Place,
    before: List[Attempt],
) -> Verdict:
    """Say how an attempt ended.

    Args:
        outcome: The trainer's record of it; empty where it left none.
        code: Exit code of its command; a signal that ended it is negative.
        stop_signal: What the supervisor was asked to stop by; None where nobody asked.
        before: The attempts before it.
    """
    status, reason = outcome.get("status"), read(outcome)
    if status == "completed":
        return Verdict(State.DONE, "")
    if stop_signal is not None:
        return place.judge_stop(stop_signal, before, outcome)
    if status in ("diverged", "oom", "error"):
        words = detailed(because(str(status)), reason)
        if reason == failure.PEER_LOST:  # who ended could not say why: a signal, say
            words = failure.first_failure(traces.last_lines()) or words
        return Verdict(State.FAILED, words, retry=failure.NO_GPU_WORDS not in words, cause=CRASH)
    how = failure.how_it_ended(code)
    if status == "resumable":
        words = because("stopped_outside")
        return place.judge_end(before, outcome) or Verdict(State.FAILED, words, retry=True, cause=CRASH)
    if rundir.disk_free(str(traces.run_dir)) < result.RESERVE_BYTES:  # too full for the trainer's own words
        how = because("disk_full", how=how)
    lines = traces.last_lines()
    if not outcome and failure.is_port_taken(lines) and not traces.came_to_training():
        port = traces.start.get("port")
        words = because("port_taken", port=port) if port else because("rendezvous_taken")
        return Verdict(State.FAILED, words, retry=True, cause=PORT)
    said = failure.first_failure(lines) or failure.telling(lines)[:200]
    words = detailed(because("no_outcome", how=how), said)
    return Verdict(State.FAILED, words, retry=failure.NO_GPU_WORDS not in said, cause=CRASH)
