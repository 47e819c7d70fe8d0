"""What a run needs on a plain host: a claim that the kernel keeps, its place in a lane, leased devices."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Collection, Dict, List, Optional, Tuple

from .. import processes, records, rundir
from ..reasons import because
from ..run import place, waiting
from ..states import State
from . import lease, lease_folder, ports, tickets

if TYPE_CHECKING:
    from ..record_types import Attempt, JobStart, OutcomeRecord, StartRecord
    from ..run_record import RunRecord

STOP_GRACE_S = 7.0
"""Time for a checkpoint between SIGTERM and SIGKILL; a cancel promises an end within 10 s."""


class Host:
    """What a run needs on a plain host; see run.place.Place."""

    signals: Tuple[int, ...] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    look_s = 0.0

    def __init__(self, record: RunRecord, say: Callable[[str], None]) -> None:
        self._record = record
        self._say = say
        self._run_dir = Path(record.run_dir)
        self._held: Optional[lease.Lease] = None
        self._port_lock: Optional[int] = None

    def claim(self) -> None:
        """Use the descriptor of the claim that the launcher handed over, else take the claim."""
        path = rundir.control(self._run_dir, rundir.CLAIM)
        try:
            handed = os.fstat(rundir.CLAIM_FD)
            if path.exists() and os.path.samestat(handed, os.stat(str(path))):
                os.set_inheritable(rundir.CLAIM_FD, False)
                return
        except OSError:
            pass
        handle = rundir.lock(path, patience_s=2.0)
        with contextlib.suppress(FileNotFoundError):
            rundir.control(self._run_dir, rundir.CANCEL).unlink()  # of an execution that is over
        rundir.write_claim(handle, self._record.token, processes.identify(os.getpid()))

    def is_mine(self) -> bool:
        """Return True: the kernel keeps the claim for as long as this process lives."""
        return True

    def is_cancelled(self) -> bool:
        """Tell whether a cancel came while this execution was starting."""
        return rundir.control(self._run_dir, rundir.CANCEL).exists()

    def lost_reason(self, start: StartRecord) -> str:
        """Return why a supervisor is gone: a reboot, or it was killed."""
        return because("reboot" if start.get("boot_id") != processes.boot_id() else "supervisor_lost")

    def submitted_at(self) -> float:
        """Return the time of submission from the environment, and remove it there: programs started here submit at
        other times.
        """
        return float(os.environ.pop("OELM_SUBMITTED_AT", "") or time.time())

    def wait_for_turn(self) -> float:
        """Sleep in the kernel until the run before this one in its lane is over."""
        queued_at = float(os.environ.pop("OELM_QUEUED_AT", "") or tickets.arrival(time.time()))
        before = self._record.after
        if not before:
            return queued_at
        self._tell(because("waiting_for_run", run=rundir.run_name(before)))
        claim = rundir.control(before, rundir.CLAIM)
        while rundir.is_locked(claim):
            lease_folder.wait_for_end(claim)
        stop_on_failure(self._record)
        # A place in the line for devices is earned by waiting for devices, not by waiting for one's own lane.
        return tickets.arrival(time.time())

    def acquire(self, queued_at: float) -> None:
        """Wait in the queue for a lease."""
        request = self._record.gpus
        self._held = lease.acquire(
            request if isinstance(request, int) else tuple(request),
            queued_at=queued_at,
            token=self._record.token,
            run=self._record.run,
            run_dir=str(self._run_dir),
            say=self._say,
            tell=self._tell,
        )

    def _tell(self, reason: str) -> None:
        """Say what is waited for, and record it."""
        self._say(reason)
        waiting.write(self._run_dir, self._record.token, reason)

    def devices(self) -> List[str]:
        """Return the leased devices' labels."""
        return [device.label for device in self._held.devices] if self._held else []

    def environment(self) -> Dict[str, str]:
        """Return the environment variables that limit a process to the leased devices."""
        return self._held.environment() if self._held else {}

    def start_record(self) -> JobStart:
        """Return nothing: the start record has no further fields."""
        return {}

    def argv(self, command: List[str], number: int, avoided: Collection[int] = ()) -> Tuple[List[str], Optional[int]]:
        """Return the argv with torchrun's ``--master_port`` set to a port that is free here now."""
        wanted = self._record.port
        if self._port_lock is not None:
            os.close(self._port_lock)
        port, self._port_lock = ports.reserve_port(wanted, avoided)
        if wanted and port != wanted:
            self._say("port %d is taken; using %d" % (wanted, port))
        argv = list(command)
        if "--master_port" in argv[:-1]:
            argv[argv.index("--master_port") + 1] = str(port)
        return argv, port

    def pass_stop(self, pid: int, number: int) -> float:
        """Pass a stop on as SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return STOP_GRACE_S

    def judge_stop(self, number: int, attempts: List[Attempt], outcome: OutcomeRecord) -> place.Verdict:
        """Judge a stopped run as cancelled: submitting it again resumes it."""
        by_signal = because("stopped", signal=signal.Signals(number).name)
        why = because("cancelled") if self.is_cancelled() else by_signal
        return place.stopped(State.CANCELLED, why, outcome, cause=place.CANCEL)

    def judge_end(self, attempts: List[Attempt], outcome: OutcomeRecord) -> Optional[place.Verdict]:
        """Return no verdict: only its own user stops a run here."""
        return None

    def retries_used(self, attempts: List[Attempt]) -> int:
        """Return 0: each submission has its own budget."""
        return 0

    def go_on_later(self) -> str:
        """Return why not: nothing starts a run again here."""
        return because("starts_nothing")

    def release(self) -> None:
        """Give the lease back."""
        if self._held is not None:
            self._held.release()

    def leave(self) -> None:
        """Do nothing: the kernel frees the claim."""


def stop_on_failure(record: RunRecord, *jobs: str) -> None:
    """Give up a run whose predecessor failed, where its submission asks for that.

    Args:
        jobs: Slurm's name of this execution.

    Raises:
        place.Stopped: It is given up.
    """
    if not record.after or not record.stop_on_failure:
        return
    end = records.END.read_if_sound(record.after)
    if end is None or end["state"] != State.DONE:
        content = {"by": "stop-on-failure", "time": time.time(), "jobs": list(jobs)}
        rundir.write_json(rundir.control(record.run_dir, rundir.CANCEL), content)
        raise place.Stopped
