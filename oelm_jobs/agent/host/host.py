"""What a run needs on a plain host: a claim that the kernel keeps, its place in a lane, leased devices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Collection, Dict, List, Optional, Tuple

from .. import processes, records, rundir
from ..reasons import because
from ..run import place, waiting
from ..run.words import Ground
from ..states import State
from . import flock, keeper, lease, lease_folder, needs, permitted, ports, tickets

if TYPE_CHECKING:
    from ..record_types import Attempt, JobStart, OutcomeRecord, StartRecord
    from ..run_record import RunRecord

STOP_GRACE_S = 7.0
"""Time for a checkpoint between SIGTERM and SIGKILL; a cancel promises an end within 10 s."""


TICKET_VARIABLE = "OELM_TICKET_FD"
"""Variable of a program that goes on after a wait: the descriptor of its ticket."""


class Host(place.Place):
    """What a run needs on a plain host."""

    signals: Tuple[int, ...] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    look_s = 0.0

    def __init__(self, record: RunRecord, say: Callable[[str], None]) -> None:
        self._record = record
        self._say = say
        self._run_dir = Path(record.run_dir)
        self._held: Optional[lease.Lease] = None
        self._port_lock: Optional[int] = None
        self._is_handed = False
        flock.close_waited()
        self._served_fd = int(os.environ.pop(keeper.SERVED_VARIABLE, "-1"))
        if self._served_fd >= 0:
            os.set_inheritable(self._served_fd, False)

    def claim(self) -> None:
        """Use the descriptor of the claim that the launcher handed over, else take the claim."""
        path = rundir.control(self._run_dir, rundir.CLAIM)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(rundir.CLAIM_FD), os.stat(str(path))):
                os.set_inheritable(rundir.CLAIM_FD, False)
                self._is_handed = True
                with contextlib.suppress(OSError):  # a full disk; who started this process has mostly written it
                    rundir.write_claim(rundir.CLAIM_FD, self._record.token, processes.identify(os.getpid()))
                return
        handle = rundir.lock(path, patience_s=2.0)
        with contextlib.suppress(FileNotFoundError):
            rundir.control(self._run_dir, rundir.CANCEL).unlink()  # of an execution that is over
        rundir.write_claim(handle, self._record.token, processes.identify(os.getpid()))

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

    def wait_for_turn(self, *, goes_on: bool) -> float:
        """Sleep in the kernel until the run before this one in its lane is over, and those that it needs."""
        queued_at = float(os.environ.pop("OELM_QUEUED_AT", "") or tickets.arrival(time.time()))
        if TICKET_VARIABLE in os.environ:  # this execution stands in line already: its needs were met before it did
            return queued_at
        before = self._record.after
        if before:
            self._tell(because("waiting_for_run", run=rundir.run_name(before)))
            claim = rundir.control(before, rundir.CLAIM)
            while rundir.is_locked(claim):
                lease_folder.wait_for_end(claim)
            stop_on_failure(self._record)
        has_waited = needs.wait(self._record, self._tell, goes_on=goes_on)
        if not (before or has_waited):
            return queued_at
        # A place in the line for devices is earned by waiting for devices, not by waiting for one's own lane.
        return tickets.arrival(time.time())

    def acquire(self, queued_at: float) -> None:
        """Wait in the queue for a lease."""
        request = self._record.gpus
        if not request and self._record.program:
            request = max(1, self._record.program.get("cpus") or 1)
            os.environ[permitted.CUDA] = ""  # by which a host with GPUs gives CPU slots
        self._held = lease.acquire(
            request if isinstance(request, int) else tuple(request),
            queued_at=queued_at,
            token=self._record.token,
            run=self._record.run,
            run_dir=str(self._run_dir),
            is_late=bool(os.environ.pop(keeper.LATE_VARIABLE, "")),
            is_alone=self._record.group == rundir.SPEED_TRIAL,  # it measures what others would disturb
            ticket_handle=int(os.environ.pop(TICKET_VARIABLE, "-1")),
            wait_far=lambda path, handle: self._wait_far(path, handle, queued_at),
            say=self._say,
            tell=self._tell,
        )
        self._say_served()

    def _wait_far(self, path: Path, handle: int, queued_at: float) -> None:
        """Wait for the lock of a file in a small program's place, holding the claim and the ticket."""
        # A lane has one run in line, whose place there is of the moment when its turn came.
        if self._record.after or not self._is_handed:
            return
        kept, environment = [rundir.CLAIM_FD, handle], {keeper.LATE_VARIABLE: "1", TICKET_VARIABLE: str(handle)}
        if self._served_fd >= 0:
            kept.append(self._served_fd)
            environment[keeper.SERVED_VARIABLE] = str(self._served_fd)
        environment["OELM_QUEUED_AT"] = "%.6f" % queued_at
        record = dict(self._record.to_json(), command=self._record.command)
        flock.wait(path, stdin=json.dumps(record).encode(), kept=kept, environment=environment)

    def _say_served(self) -> None:
        """Let the keeper of this submission's other runs start the next one."""
        if self._served_fd >= 0:
            with contextlib.suppress(OSError):  # it is gone: nothing waits there any more
                os.write(self._served_fd, b"%d\n" % os.getpid())
            os.close(self._served_fd)
            self._served_fd = -1

    def _tell(self, reason: str) -> None:
        """Say what is waited for, and record it."""
        self._say(reason)
        waiting.write(self._run_dir, self._record.token, reason)

    def devices(self) -> List[str]:
        """Return the leased devices' labels."""
        return [device.label for device in self._held.devices] if self._held else []

    def environment(self) -> Dict[str, str]:
        """Return the environment variables that limit a process to the leased devices."""
        found = self._held.environment() if self._held else {}
        return found if self._record.gpus else {**found, "OMP_NUM_THREADS": str(len(self.devices()))}

    def start_record(self) -> JobStart:
        """Return how many runs may have each of the GPUs at a time, where that is more than this one."""
        return {"per_gpu": self._held.per_gpu} if self._held and self._held.per_gpu > 1 else {}

    def argv(self, command: List[str], number: int, avoided: Collection[int] = ()) -> Tuple[List[str], Optional[int]]:
        """Return the argv with torchrun's ``--master_port`` set to a port that is free here now; None without one."""
        argv = list(command)
        if "--master_port" not in argv[:-1]:
            return argv, None
        port = self._reserve_port(avoided)
        argv[argv.index("--master_port") + 1] = str(port)
        return argv, port

    def _reserve_port(self, avoided: Collection[int]) -> int:
        """Reserve a port that is free here now, in place of the last one."""
        wanted = self._record.port
        if self._port_lock is not None:
            os.close(self._port_lock)
        port, self._port_lock = ports.reserve_port(wanted, avoided)
        if wanted and port != wanted:
            self._say("port %d is taken; using %d" % (wanted, port))
        return port

    def ground(self, number: int, avoided: Collection[int] = ()) -> Ground:
        """Return the devices' number and a free port."""
        return Ground(len(self.devices()) if self._record.gpus else 0, port=self._reserve_port(avoided))

    def pass_stop(self, pid: int, number: int) -> float:
        """Pass a stop on as SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        return place.stop_grace(self._record, STOP_GRACE_S)

    def judge_stop(self, number: int, attempts: List[Attempt], outcome: OutcomeRecord) -> place.Verdict:
        """Judge a stopped run as cancelled: submitting it again resumes it."""
        by_signal = because("stopped", signal=signal.Signals(number).name)
        why = because("cancelled") if self.is_cancelled() else by_signal
        return place.stopped(State.CANCELLED, why, outcome, cause=place.CANCEL)

    def go_on_later(self) -> str:
        """Return why not: nothing starts a run again here."""
        return because("starts_nothing")

    def release(self) -> None:
        """Give the lease back."""
        if self._held is not None:
            self._held.release()


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
    # What was cancelled while its keeper held it has at most the end of an earlier submission.
    is_others = end is not None and end.get("token") != record.token
    is_cancelled = is_others and rundir.control(record.after, rundir.CANCEL).exists()
    if end is None or end["state"] != State.DONE or is_cancelled:
        content = {"by": "stop-on-failure", "time": time.time(), "jobs": list(jobs)}
        rundir.write_json(rundir.control(record.run_dir, rundir.CANCEL), content)
        raise place.Stopped
