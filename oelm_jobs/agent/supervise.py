"""Owns one run on its host, from the claim to the end record: lane, lease, attempts, signals, survivors; leaves
training to the command.

The launch script execs this program, whoever started the script, so that a run started by hand claims and records
like any other. Exit codes and process groups of torchrun carry no meaning (it returns 1 for any failure of its ranks
and puts them in sessions of their own): the trainer's outcome record and OELM_RUN_DIR in the environment of its
processes do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Dict, List, Optional, Tuple

from . import lease, result, rundir

STOP_GRACE_S = 7.0
"""Time for a checkpoint between SIGTERM and SIGKILL; a cancel promises an end within 10 s."""
RETRY_DELAY_S = 2.0
"""Pause before a crashed command is started again."""
EXIT_BUSY, EXIT_REFUSED, EXIT_FAILED = 75, 78, 1
"""Exit codes of the supervisor: claimed by another, not to be run here, run failed."""


class Stopped(Exception):
    """A signal asked this supervisor to end."""


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended."""

    state: str
    reason: str
    retry: bool = False


class Supervisor:
    """One execution of one run, from claim to end record."""

    def __init__(self, record: Dict[str, Any], command: List[str]) -> None:
        self.record = record
        self.command = command
        self.run_dir = Path(record["run_dir"])
        self.token = str(record["token"])
        self.stop_signal: Optional[int] = None
        self._interruptible = True  # False while a raised Stopped would lose a process or a record

    # Preparation ------------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Narrate into supervisor.log (stderr of this process, which the launcher puts there)."""
        print("%s %s" % (time.strftime("%Y-%m-%d %H:%M:%S"), text), file=sys.stderr, flush=True)

    def claim(self) -> int:
        """Return the descriptor of the run's claim: the launcher's if it handed one over, else a new one.

        Raises:
            rundir.Busy: Another execution of this run is alive.
        """
        path = rundir.control(self.run_dir, rundir.CLAIM)
        try:
            handed = os.fstat(rundir.CLAIM_FD)
            if path.exists() and os.path.samestat(handed, os.stat(str(path))):
                os.set_inheritable(rundir.CLAIM_FD, False)
                return rundir.CLAIM_FD
        except OSError:
            pass
        handle = rundir.lock(path, patience_s=2.0)
        rundir.write_claim(handle, self.token, rundir.identify(os.getpid()))
        return handle

    def refusal(self) -> str:
        """Return why this run directory must not be entered; empty when it may."""
        known = rundir.read_json(rundir.control(self.run_dir, rundir.RUN))
        ours = self.record.get("fingerprint", "")
        theirs = (known or {}).get("fingerprint", "")
        continued = (self.record.get("extended_from") or {}).get("fingerprint")
        if ours and theirs and ours != theirs and theirs != continued:
            return "holds a run of another configuration (%s, not %s)" % (theirs[:12], ours[:12])
        return ""

    def history(self) -> List[Dict[str, Any]]:
        """Return the attempts so far; one that has a start but no end lost its supervisor, to a reboot or to a kill."""
        start = rundir.read_json(rundir.control(self.run_dir, rundir.START))
        end = rundir.read_json(rundir.control(self.run_dir, rundir.END))
        attempts = list((end or {}).get("attempts", []))
        if start and all(attempt.get("number") != start.get("number") for attempt in attempts):
            attempts.append(result.lost_attempt(start))
        return attempts

    # The run ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Take the claim, wait in line, run the command with its retries, write the records; return the exit code."""
        rundir.control(self.run_dir, "").mkdir(parents=True, exist_ok=True)
        try:
            self.claim()
        except rundir.Busy:
            self.say("another execution of this run is alive; nothing to do")
            return EXIT_BUSY
        refusal = self.refusal()
        if refusal:
            self.say("refused: %s %s" % (self.run_dir, refusal))
            return EXIT_REFUSED
        end = rundir.read_json(rundir.control(self.run_dir, rundir.END)) or {}
        if end.get("state") == rundir.DONE and end.get("fingerprint") == self.record.get("fingerprint"):
            self.say("already done; nothing to do")
            # The end record is this submission's, too.
            rundir.write_json(rundir.control(self.run_dir, rundir.END), dict(end, token=self.token))
            return 0
        rundir.write_json(rundir.control(self.run_dir, rundir.RUN), dict(self.record, command=self.command))
        rundir.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_stop)
        attempts = self.history()
        queued_at = time.time()
        held = None  # type: Optional[lease.Lease]
        try:
            self._stop_if_cancelled()
            queued_at = self._wait_for_lane()
            self._end_survivors(time.monotonic() + STOP_GRACE_S)
            held = self._lease(queued_at)
            self._interruptible = False
            retries_left = int(self.record.get("max_retries", 0))
            while True:
                attempt, verdict = self._attempt(attempts, held)
                attempts.append(attempt)
                if not verdict.retry or retries_left == 0:
                    break
                retries_left -= 1
                self.say("attempt %d: %s; starting again" % (attempt["number"], verdict.reason))
                self._sleep(RETRY_DELAY_S)
        except Stopped:
            verdict = Verdict(rundir.CANCELLED, self._why_stopped() + (" while waiting" if held is None else ""))
        except lease.ImpossibleRequest as error:
            verdict = Verdict(rundir.FAILED, str(error))
        except OSError as error:
            verdict = Verdict(rundir.FAILED, "the supervisor could not go on: %s" % error)
        self._interruptible = False
        # The devices are free before files are hashed: hashing takes seconds, and others wait.
        if held is not None:
            held.release()
        self.say("%s %s" % (verdict.state, verdict.reason))
        result.write(self.run_dir, self.record, verdict.state, verdict.reason, attempts, queued_at)
        return 0 if verdict.state == rundir.DONE else EXIT_FAILED

    def _on_stop(self, number: int, frame: Optional[FrameType]) -> None:
        self.stop_signal = number
        if self._interruptible:
            raise Stopped

    def _sleep(self, seconds: float) -> None:
        """Sleep, or raise Stopped as soon as a stop is asked for."""
        self._interruptible = True
        if self.stop_signal is None:
            time.sleep(seconds)
        self._interruptible = False
        if self.stop_signal is not None:
            raise Stopped

    def _why_stopped(self) -> str:
        if rundir.control(self.run_dir, rundir.CANCEL).exists():
            return "cancelled"
        return "stopped by %s" % signal.Signals(self.stop_signal or signal.SIGTERM).name

    def _stop_if_cancelled(self) -> None:
        if rundir.control(self.run_dir, rundir.CANCEL).exists():
            raise Stopped

    def _wait_for_lane(self) -> float:
        """Sleep in the kernel until the run before this one in its lane is over; return the place in the device queue.

        Raises:
            Stopped: The predecessor failed and the submission says to stop then.
        """
        queued_at = float(os.environ.get("OELM_QUEUED_AT") or time.time())
        before = self.record.get("after")
        if not before:
            return queued_at
        self.say("waiting for %s to end" % Path(before).name)
        claim = rundir.control(before, rundir.CLAIM)
        while rundir.is_locked(claim):
            lease.wait_for_end(claim)
        end = rundir.read_json(rundir.control(before, rundir.END)) or {}
        if self.record.get("stop_on_failure") and end.get("state") != rundir.DONE:
            rundir.write_json(
                rundir.control(self.run_dir, rundir.CANCEL), {"by": "stop-on-failure", "time": time.time()}
            )
            raise Stopped
        # A place in the line for devices is earned by waiting for devices, not by waiting for one's own lane.
        return time.time()

    def _lease(self, queued_at: float) -> lease.Lease:
        request = self.record["gpus"]
        return lease.acquire(
            tuple(request) if isinstance(request, list) else int(request),
            queued_at=queued_at,
            token=self.token,
            run=str(self.record["run"]),
            run_dir=str(self.run_dir),
            say=self.say,
        )

    # One attempt ------------------------------------------------------------------------------------------------------

    def _attempt(self, before: List[Dict[str, Any]], held: lease.Lease) -> Tuple[Dict[str, Any], Verdict]:
        """Start the command once and see it through; return the attempt's record and the verdict on it."""
        number = 1 + max([int(attempt["number"]) for attempt in before], default=0)
        port = lease.free_port(self.record.get("port"))
        if port != self.record.get("port") and self.record.get("port"):
            self.say("port %d is taken; using %d" % (self.record["port"], port))
        argv = _with_port(self.command, port)
        environment = dict(os.environ, **held.environment())
        environment.update(
            {
                rundir.ATTEMPT_VARIABLE: "%s:%d" % (self.token, number),
                rundir.RUN_DIR_VARIABLE: str(self.run_dir),
                "PYTHONUNBUFFERED": "1",
            }
        )
        environment.pop("OELM_QUEUED_AT", None)
        identity = rundir.identify(os.getpid())
        start = dict(identity.to_json(), number=number, token=self.token, port=port, started_at=time.time())
        start["devices"] = [device.label for device in held.devices]
        rundir.write_json(rundir.control(self.run_dir, rundir.START), start)
        began = time.monotonic()
        with open(str(self.run_dir / rundir.LOG), "ab") as log:
            try:
                child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                return self._record(
                    start, began, Verdict(rundir.FAILED, "cannot start %s: %s" % (argv[0], error)), None
                )
        self.say("attempt %d: process %d on %s" % (number, child.pid, ", ".join(start["devices"])))
        try:
            self._interruptible = True
            if self.stop_signal is not None:
                raise Stopped
            child.wait()
            self._interruptible = False
        except Stopped:
            self._interruptible = False
            self._stop(child)
        self._end_survivors(time.monotonic() + 2.0)
        return self._record(start, began, self._judge(child.returncode, start), child.returncode)

    def _stop(self, child: "subprocess.Popen[bytes]") -> None:
        """Pass a stop on as SIGTERM, leave time for a checkpoint, then end what is left."""
        self.say("%s: passing it on" % self._why_stopped())
        deadline = time.monotonic() + STOP_GRACE_S
        _signal(child.pid, signal.SIGTERM)
        while child.poll() is None and time.monotonic() < deadline:
            try:
                child.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue
        if child.poll() is None:
            self.say("no end after %.0f s: killing" % STOP_GRACE_S)
            _signal(child.pid, signal.SIGKILL)
            child.wait()

    def _end_survivors(self, deadline: float) -> None:
        """End every process of this run but this one: SIGTERM, then SIGKILL at the deadline; reap what became ours."""
        asked = set()  # type: set[int]
        while True:
            _reap()
            alive = [p for p in rundir.processes_of(self.run_dir) if p.pid != os.getpid()]
            if not alive:
                return
            late = time.monotonic() >= deadline
            for identity in alive:
                if identity.pid not in asked or late:
                    self.say("ending process %d of this run with %s" % (identity.pid, "SIGKILL" if late else "SIGTERM"))
                    asked.add(identity.pid)
                    if identity.is_alive():
                        _signal(identity.pid, signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(0.1)

    def _judge(self, code: int, start: Dict[str, Any]) -> Verdict:
        """Say how the attempt ended, from the trainer's own record first."""
        outcome = rundir.read_json(rundir.control(self.run_dir, rundir.OUTCOME)) or {}
        if outcome.get("attempt") != "%s:%d" % (self.token, start["number"]):
            outcome = {}
        status, reason = outcome.get("status"), str(outcome.get("reason") or "")
        if status == "completed":
            return Verdict(rundir.DONE, "")
        if self.stop_signal is not None:
            return Verdict(
                rundir.CANCELLED, self._why_stopped() + ("" if status == "resumable" else ", without a checkpoint")
            )
        if status in ("diverged", "oom", "error"):
            return Verdict(rundir.FAILED, "%s: %s" % (status, reason) if reason else str(status), retry=True)
        how = "killed by %s" % signal.Signals(-code).name if code < 0 else "exit code %d" % code
        if status == "resumable":
            return Verdict(rundir.FAILED, "stopped from outside after a checkpoint", retry=True)
        last = rundir.last_lines(self.run_dir / rundir.LOG, 40)
        telling = [line for line in last if "Error" in line or "error:" in line]
        said = (telling or last or [""])[-1].strip()
        return Verdict(rundir.FAILED, "%s, no outcome%s" % (how, ": " + said[:200] if said else ""), retry=True)

    def _record(
        self, start: Dict[str, Any], began: float, verdict: Verdict, code: Optional[int]
    ) -> Tuple[Dict[str, Any], Verdict]:
        attempt = {name: start[name] for name in ("number", "token", "started_at", "devices", "host", "port")}
        attempt.update(state=verdict.state, reason=verdict.reason, ended_at=time.time())
        # The monotonic clock measures: a wall clock may be set back meanwhile.
        attempt.update(wall_s=round(time.monotonic() - began, 3), exit_code=code)
        return attempt, verdict


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap() -> None:
    """Reap orphans that became this process's children."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _with_port(command: List[str], port: int) -> List[str]:
    """Return the command with torchrun's ``--master_port`` set to a port that is free here and now."""
    argv = list(command)
    if "--master_port" in argv[:-1]:
        argv[argv.index("--master_port") + 1] = str(port)
    return argv


def main(argv: List[str]) -> int:
    """Read the run's record (stdin, JSON) and its command (arguments after ``--``), and see the run through."""
    parser = argparse.ArgumentParser(prog="supervise", description=__doc__)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="-- COMMAND; the value of its --master_port is a preference"
    )
    command = parser.parse_args(argv).command
    command = command[1:] if command[:1] == ["--"] else command
    record = json.load(sys.stdin)
    devnull = os.open(os.devnull, os.O_RDONLY)
    os.dup2(devnull, 0)
    os.close(devnull)
    return Supervisor(record, command).run()
