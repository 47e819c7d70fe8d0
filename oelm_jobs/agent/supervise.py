"""See one run through, from the claim to the end record: attempts, signals, what is left of them.

What differs between a plain host and a Slurm job is the place's (run/place.py).

The launch script execs this program, whoever started the script, so that a run started by hand claims and records
like any other. Exit codes and process groups of torchrun carry no meaning (it returns 1 for any failure of its ranks
and puts them in sessions of their own): the trainer's outcome record and OELM_RUN_DIR in the environment of its
processes do.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Set, Tuple, cast

from . import privacy, processes, records, rundir
from .host import lease
from .host.host import Host
from .notify import in_job
from .reasons import because
from .run import admission, inputs, judge, metrics, place, result, waiting
from .run.place import Place, Refused, Stopped, Superseded, Verdict
from .run.program import Ended, Program, Trainer
from .run.script import Script
from .run_record import RunRecord
from .states import State

if TYPE_CHECKING:
    from .record_types import Attempt, LockStamp, StartRecord

RETRY_DELAY_S = 2.0
"""Pause before a crashed command is started again."""
SURVIVOR_GRACE_S = 2.0
"""Time for what is left of an attempt after its command has ended."""
PORT_TRIES = 5
"""So often another port is tried where a stranger took the one before; it costs nothing of the retries."""
EXIT_FAILED = 1
"""FAILED or CANCELLED."""
EXIT_BUSY = 75
"""Another execution has the claim."""
EXIT_REFUSED = 78
"""Not to be run here."""


class Supervisor:
    """One execution of one run, from claim to end record."""

    def __init__(self, record: RunRecord, command: List[str]) -> None:
        self.record = record
        self.command = command
        self.run_dir = Path(record.run_dir)
        self.token = record.token
        self.stop_signal: Optional[int] = None
        self.place = _place(record, self.say)
        self.program = _program(record, command, self.say)
        self._interruptible = False  # True while a raised Stopped loses neither a process nor a record
        self._mark = ""  # OELM_ATTEMPT of the attempt under way
        self._on_record = 0  # attempts that the end record of an earlier execution has
        self._lost_ports: List[int] = []  # taken by strangers between look and bind
        self._teller = in_job.JobTeller(record)
        self._from_setup: List[processes.Identity] = []  # what set-up lines left running: it serves all attempts

    # Preparation ------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Narrate into supervisor.log (stderr of this process, which the script puts there)."""
        with contextlib.suppress(OSError):  # a full disk or a closed terminal must not end what is watched over
            print(rundir.log_line(text), end="", file=sys.stderr, flush=True)

    def history(self) -> List[Attempt]:
        """Return the attempts so far."""
        attempts, self._on_record = result.attempts_so_far(self.run_dir, self.place.lost_reason)
        return attempts

    def _queued(self) -> Tuple[float, "Optional[LockStamp]"]:
        """Return when the run was first submitted, Unix seconds, and under which lock of its study; a run directory
        keeps both over all submissions.
        """
        known = records.RUN.read_if_sound(self.run_dir)
        at = rundir.finite(known.queued_at if known else None)
        if known and at:
            return at, known.lock
        at = self.place.submitted_at()
        return at, cast("LockStamp", dict(self.record.lock, queued_at=at)) if self.record.lock else None

    # The run ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Take the claim, wait in line, run the command with its retries, write the records; return the exit code."""
        try:
            privacy.not_anothers([str(self.run_dir)])
            rundir.control(self.run_dir, "").mkdir(parents=True, exist_ok=True)
            self.place.claim()
        except rundir.Busy:
            self.say("another execution of this run is alive; nothing to do")
            return EXIT_BUSY
        except (Refused, privacy.NotOurs) as error:
            self.say("refused: %s" % error)
            return EXIT_REFUSED
        try:
            return self._run_claimed()
        except Superseded:
            self.say("another execution has this run now; nothing more is written")
            processes.kill_attempt(self.run_dir, self._mark)
            return EXIT_BUSY
        except OSError as error:  # not even its records could be written: what is said here is the reason shown
            self.say("the supervisor could not go on: %s" % error)
            return EXIT_FAILED
        finally:
            self._stop_listening()
            self.place.leave()

    def _stop_listening(self) -> None:
        """Disarm the timer and ignore what asks for an end: it has come, and the interpreter's own handlers, which it
        puts back when it ends, would make a signal's death of it.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in (signal.SIGALRM, *self.place.signals):
            signal.signal(number, signal.SIG_IGN)

    def _run_claimed(self) -> int:
        refusal, fingerprint = admission.refusal(self.record, self.program.can_go_on)
        if fingerprint != self.record.fingerprint:
            self.record = self.record._replace(fingerprint=fingerprint)
            self.program = _program(self.record, self.command, self.say)
        if refusal:
            self.say("refused: %s %s" % (self.run_dir, refusal))
            return EXIT_REFUSED
        end = records.END.read_if_sound(self.run_dir)
        if end and end["state"] == State.DONE and (end.get("fingerprint") or "") == self.record.fingerprint:
            self.say("already done; nothing to do")
            # The end record is this submission's, too.
            rundir.write_json(rundir.control(self.run_dir, rundir.END), dict(end, token=self.token))
            return 0
        waiting.clear(self.run_dir)  # of a supervisor that was lost
        rundir.mark_origin(self.run_dir, self.token)  # a script that nobody launched, or that Slurm has started
        queued_at, lock = self._queued()
        entered = self.record._replace(command=self.command or None, queued_at=queued_at, lock=lock)
        rundir.write_json(rundir.control(self.run_dir, rundir.RUN), entered.to_json())
        result.reserve(self.run_dir)
        for number in self.place.signals:
            signal.signal(number, self._on_stop)
        self._teller.watch_for_stalls()
        processes.become_subreaper()
        self._from_setup = processes.descendants_of(os.getpid())
        if self.place.look_s:
            signal.signal(signal.SIGALRM, self._on_look)
            signal.setitimer(signal.ITIMER_REAL, self.place.look_s, self.place.look_s)
        attempts = self.history()
        acquired = False
        try:
            self._interruptible = True
            if self.stop_signal is not None or self.place.is_cancelled():
                raise Stopped
            try:
                arrived_at = self.place.wait_for_turn(goes_on=self.program.can_go_on())
                self.program.taken = inputs.take(self.record, goes_on=self.program.can_go_on())
                self._end_survivors(time.monotonic() + SURVIVOR_GRACE_S)
                self.place.acquire(arrived_at)
            finally:
                if self.place.is_mine():  # else a successor waits, and says so there
                    waiting.clear(self.run_dir)
            self._interruptible, acquired = False, True
            verdict = self._attempts(attempts)
        except Stopped:
            self._interruptible = False
            verdict = self.place.judge_stop(self.stop_signal or signal.SIGTERM, attempts, {})
            why = verdict.why or verdict.reason
            verdict = Verdict(
                verdict.state, why if acquired else because("while_waiting", why=why), cause=verdict.cause
            )
        except inputs.Unmet as error:
            verdict = Verdict(error.state, error.reason)
        except lease.ImpossibleRequest as error:
            verdict = Verdict(State.FAILED, str(error))
        except OSError as error:
            verdict = Verdict(State.FAILED, because("cannot_go_on", error=str(error)))
        self._interruptible = False
        processes.end_run(self.run_dir, time.monotonic() + SURVIVOR_GRACE_S, self.say)
        # The devices are free before files are hashed: hashing takes seconds, and others wait.
        self.place.release()
        code = self._conclude(verdict, attempts, queued_at)
        if code or verdict.state != State.QUEUED:
            self._teller.tell_of_end(is_stopped=self.stop_signal is not None)
        return code

    def _attempts(self, attempts: List[Attempt]) -> Verdict:
        """Start the command until it completes, is stopped or has used its retries up; append each attempt."""
        retries_left = self.record.max_retries - self.place.retries_used(attempts)
        while True:
            attempt, verdict = self._attempt(attempts)
            attempts.append(attempt)
            if verdict.cause == place.PORT and len(self._lost_ports) < PORT_TRIES:
                self._lost_ports.append(int(attempt["port"] or 0))
                self.say("attempt %d: %s; trying another one" % (attempt["number"], verdict.reason))
                self._sleep(0)
                continue
            if not verdict.retry or retries_left <= 0:
                return verdict
            retries_left -= 1
            self.say("attempt %d: %s; starting again" % (attempt["number"], verdict.reason))
            self._sleep(RETRY_DELAY_S)

    def _conclude(self, verdict: Verdict, attempts: List[Attempt], queued_at: float) -> int:
        """Write the records that a verdict calls for; return the exit code."""
        self._check_claim()
        self.say("%s %s" % (verdict.state, verdict.reason))
        if verdict.state == State.QUEUED:
            result.write_end(self.run_dir, self.record, verdict.state, verdict.reason, attempts)
            refused = self.place.go_on_later()
            if not refused:
                return 0
            self._check_claim()  # released before: another job may have the run by now
            verdict = Verdict(State.FAILED, because("not_started_again", why=verdict.reason, refused=refused))
            self.say("%s %s" % (verdict.state, verdict.reason))
        if self.stop_signal is not None and verdict.state != State.DONE:
            # Whoever stops a run may not wait until its files are hashed: say the essential first. DONE comes last in
            # any case: nobody would make up for a result that is missing then.
            result.write_end(self.run_dir, self.record, verdict.state, verdict.reason, attempts)
        try:
            result.write(self.run_dir, self.record, verdict.state, verdict.reason, attempts, queued_at)
        except OSError as error:  # a full disk: the reserve is enough for the end record
            reason = because("result_not_written", why=verdict.reason or because("completed"), error=str(error))
            self.say(reason)
            result.use_reserve(self.run_dir)
            result.write_end(self.run_dir, self.record, State.FAILED, reason, attempts)
            return EXIT_FAILED
        return 0 if verdict.state == State.DONE else EXIT_FAILED

    # Signals ----------------------------------------------------------------------------------------------------------

    def _on_stop(self, number: int, frame: Optional[FrameType]) -> None:
        self.stop_signal = number
        if self._interruptible:
            self._interruptible = False  # a second signal must not interrupt what the first one led to
            raise Stopped

    def _on_look(self, number: int, frame: Optional[FrameType]) -> None:
        if self._interruptible:
            self._check_claim()

    def _check_claim(self) -> None:
        if not self.place.is_mine():
            self._interruptible = False
            raise Superseded

    def _sleep(self, seconds: float) -> None:
        """Sleep, or raise Stopped as soon as a stop is asked for."""
        self._interruptible = True
        if self.stop_signal is None:
            time.sleep(seconds)
        self._interruptible = False
        if self.stop_signal is not None:
            raise Stopped

    # One attempt ------------------------------------------------------------------------------------------------------

    def _attempt(self, before: List[Attempt]) -> Tuple[Attempt, Verdict]:
        """Start the command once and see it through; return the attempt's record and the verdict on it."""
        number = 1 + max([int(attempt["number"]) for attempt in before], default=0)
        port = self.program.prepare(self.place, number, self._lost_ports)
        self._mark = rundir.attempt_mark(self.token, number)
        environment = {**processes.plain_environment(), **self.place.environment(), "PYTHONUNBUFFERED": "1"}
        environment.update({processes.ATTEMPT_VARIABLE: self._mark, processes.RUN_DIR_VARIABLE: str(self.run_dir)})
        devices, me = self.place.devices(), processes.identify(os.getpid()).to_json()
        attempt = dict(me, number=number, token=self.token, port=port, **self.place.start_record())
        attempt.update(self.program.start_record())
        start = cast("StartRecord", dict(attempt, started_at=time.time(), devices=devices))
        if before[self._on_record :]:  # should this execution be lost, too, they are on no other record
            start["before"] = before[self._on_record :]
        rundir.write_json(rundir.control(self.run_dir, rundir.START), start)
        began = time.monotonic()
        verdict: Optional[Verdict] = None
        code: Optional[int] = None
        with open(str(self.run_dir / rundir.LOG), "ab+") as log:
            if self.program.is_script:
                rundir.end_line(log)
            traces = judge.Traces(self.run_dir, start, log.tell())
            while verdict is None:
                command = self.program.next(traces)
                if command is None:
                    verdict = Verdict(State.DONE, "")
                    break
                try:
                    child = subprocess.Popen(
                        command.argv,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        env={**environment, **command.environment},
                        cwd=command.folder,
                        start_new_session=True,
                    )
                except OSError as error:
                    why = because("not_started", program=command.argv[0], error=str(error))
                    verdict, code = Verdict(State.FAILED, why, cause=place.CRASH), None
                    break
                what = "attempt %d%s" % (number, ", stage " + command.stage if command.stage else "")
                self.say("%s: process %d on %s" % (what, child.pid, ", ".join(devices)))
                verdict = self._see_through(child, before)
                code = child.returncode
        return result.ended_attempt(start, self.program.outcome(), began, verdict, code), verdict

    def _see_through(self, child: "subprocess.Popen[bytes]", before: List[Attempt]) -> Optional[Verdict]:
        """Wait for a command's end, or bring it about; return how the attempt ended, None where it goes on."""
        began, killed, survivors_until = time.monotonic(), False, 0.0
        asked: Optional[Set[int]] = set() if self.program.is_script else None
        left: List[processes.Identity] = []
        try:
            self._interruptible = True
            if self.stop_signal is not None:
                raise Stopped
            self._wait(child)
            self._interruptible = False
        except Stopped:
            self._interruptible = False
            survivors_until, killed = self._stop(child, asked)
        self._check_claim()
        seconds = time.monotonic() - began
        has_ended_itself = self.program.is_script and self.stop_signal is None and child.returncode == 0
        if has_ended_itself:
            left = self._left_running()
        self._end_survivors(max(survivors_until, time.monotonic() + SURVIVOR_GRACE_S), asked)
        killed = killed or (bool(survivors_until) and time.monotonic() >= survivors_until)
        how = Ended(child.returncode, seconds, None if has_ended_itself else self.stop_signal, killed)
        return self.program.ended(how, left, self.place, before)

    def _wait(self, child: "subprocess.Popen[bytes]") -> None:
        """Wait for a command's end, looking at its progress meanwhile where that is wanted."""
        if not self.program.is_script:
            child.wait()
            return

        def look() -> None:
            self._interruptible = False
            self.program.look()
            self._interruptible = True
            if self.stop_signal is not None:
                raise Stopped

        metrics.watch(child, look)

    def _left_running(self) -> List[processes.Identity]:
        """Return what a command that ended by itself has left running, apart from what is about to end, too."""
        until = time.monotonic() + SURVIVOR_GRACE_S
        left = processes.living(self.run_dir, self._from_setup)
        while left and time.monotonic() < until:
            time.sleep(0.1)
            left = [identity for identity in left if identity.is_alive()]
        return left

    def _stop(self, child: "subprocess.Popen[bytes]", asked: Optional[Set[int]]) -> Tuple[float, bool]:
        """Pass a stop on and leave time for a checkpoint; return when that time is over, and whether it was needed up.

        Args:
            asked: Gets the ids of the processes that the stop was passed on to, where a script's are to have it once.
        """
        number = self.stop_signal or signal.SIGTERM
        self.say("%s: passing it on" % signal.Signals(number).name)
        alive = processes.living(self.run_dir, self._from_setup) if asked is not None else []
        deadline = time.monotonic() + self.place.pass_stop(child.pid, number)
        if asked is not None:
            others = [] if self.place.has_asked_all() else processes.leading(alive)
            processes.send([process for process in others if process.pid != child.pid], signal.SIGTERM)
            asked.update(process.pid for process in (alive if self.place.has_asked_all() else others))
            asked.add(child.pid)
        try:
            child.wait(max(0.01, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.say("no end in the time for a checkpoint: killing")
            child.kill()
            child.wait()
            return deadline, True
        return deadline, False

    def _end_survivors(self, deadline: float, asked: Optional[Set[int]] = None) -> None:
        """End what is left of an attempt, but what set-up lines left running."""
        processes.end_run(self.run_dir, deadline, self.say, spared=self._from_setup, asked=asked)


def _program(record: RunRecord, command: List[str], say: Callable[[str], None]) -> Program:
    return Script(record, os.getcwd(), say) if record.program else Trainer(Path(record.run_dir), command)


def _place(record: RunRecord, say: Any) -> Place:
    if record.scheduler == "slurm":
        from .slurm.job import SlurmJob

        return SlurmJob(record, say)
    return Host(record, say)


def choose(content: Dict[str, Any]) -> RunRecord:
    """Return the record that this process is for: an array's script carries those of all its tasks.

    Args:
        content: A record, or ``shared`` (what all records have in common) and ``runs`` (what each has besides).

    Raises:
        Refused: Several records, and no task of an array to tell which.
    """
    if "runs" not in content:
        return RunRecord.of(content)
    index = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not index.isdigit() or int(index) >= len(content["runs"]):
        raise Refused("this script holds %d runs; sbatch starts each as a task of an array" % len(content["runs"]))
    return RunRecord.of(rundir.merged(content["shared"], content["runs"][int(index)]))


def main(argv: List[str]) -> int:
    """Read the run's record (stdin, JSON) and its command (arguments after ``--``, or the record's; the value of its
    ``--master_port`` is a preference), and see the run through.
    """
    command = argv[1:] if argv[:1] == ["--"] else argv
    content = json.load(sys.stdin)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    try:
        record = choose(content)
        if record.scheduler == "slurm" and "SLURM_JOB_ID" not in os.environ:
            raise Refused("this script is for a Slurm job: start it with sbatch")
        privacy.confine(record.share or "")
        os.environ.pop("SLURM_CLUSTERS", None)  # a job's node is of its own cluster
    except Refused as error:
        print("refused: %s" % error, file=sys.stderr)
        return EXIT_REFUSED
    command = command or list(record.command or ())
    return Supervisor(record, command).run()
