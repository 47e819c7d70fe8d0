"""Hold the claims of a submission's waiting runs in one small process, and start each run when its turn comes.

A few runs of a submission wait for devices themselves, as supervisors; whenever one has its devices or is over, the
next one is started. If the keeper is killed, the kernel frees the claims of all that waited, and they are told as lost
while waiting; what was started goes on. It sleeps in the kernel until a supervisor has its devices or ends, or somebody
cancels a run (``cancel.json``, and any signal).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Deque, Dict, List, NamedTuple, Optional, Sequence

from .. import processes, rundir
from ..sentences import _

STANDING = 3
"""So many supervisors of a submission wait for devices at a time, so that devices which are free together are used
together; and one at least of each number of devices that is asked for.
"""
NEEDED_S = 5.0
"""How often it is looked whether the runs that one needs are over, where they are none of its own."""
RETRY_S = 5.0
"""Pause before a start that failed is tried again: no more processes are allowed, or the disk is full."""
SPARE_FILES = 200
"""So many descriptors a process that holds claims needs besides."""
SERVED_FD = rundir.CLAIM_FD - 1
"""File descriptor on which a supervisor says by its pid that it has its devices."""
SERVED_VARIABLE, LATE_VARIABLE = "OELM_SERVED_FD", "OELM_LATE"
"""Variables of a script: that descriptor; set where others of its submission were started before it."""
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from %s import main; main()"


class Held(NamedTuple):
    """A run whose claim this process holds."""

    run_dir: str
    token: str
    handle: int
    """Descriptor of the claim, above CLAIM_FD."""
    queued_at: float
    """Its place among what its user has queued, Unix seconds."""
    request: str
    """What it asks for devices, in any words: runs that ask for the same wait for each other."""
    after: Optional[str]
    """Run directory of the one before it in its lane."""
    needs: Sequence[str] = ()
    """Run directories of those that have to be over before."""


def room(wanted: int) -> "tuple[int, int]":
    """Let this process open as many files as it may; return (how many claims of those wanted one process can hold, the
    limit as it was).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted + SPARE_FILES if hard == resource.RLIM_INFINITY else min(wanted + SPARE_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(ValueError, OSError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return wanted if now == resource.RLIM_INFINITY else max(1, min(wanted, now - SPARE_FILES)), soft


def begin(runs: Sequence[Held], environment: Dict[str, str], soft_limit: int) -> None:
    """Leave claimed runs, in the order of their turns, to a keeper; start it.

    Args:
        environment: Variables that the runs get.
        soft_limit: Open files that the runs may have.

    Raises:
        OSError: It doesn't start; the claims are free.
    """
    top = Path(__file__).parents[len(__name__.split(".")) - 1]
    try:
        process = subprocess.Popen(
            # Of the standard library alone, whatever the runs have of their own: it is small and starts fast.
            [sys.executable, "-I", "-S", "-c", PROGRAM % __name__, str(top)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            pass_fds=[run.handle for run in runs],
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        with process.stdin, process.stdout:
            # It begins only with the whole of it: where this process is ended before, nothing is ever started.
            process.stdin.write(json.dumps([soft_limit, runs]).encode())
            process.stdin.close()
            if process.stdout.read() != b"kept\n":
                raise ChildProcessError(_("the keeper of waiting runs ended at once: exit code {code}", process.wait()))
        process.returncode = 0  # it lives on by itself
    finally:
        for run in runs:
            os.close(run.handle)


def start(run: Held, environment: Dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a run's launch script with the held claim on CLAIM_FD, in a session of its own, tied to no terminal.

    Raises:
        OSError: It was not started, and the claim is held as before.
    """
    control = rundir.control(run.run_dir, "")
    # The shell gives the claim its number: in this process somebody may use that for something else.
    moved = 'exec bash "$0" %d<&%d %d<&-' % (rundir.CLAIM_FD, run.handle, run.handle)
    with open(str(control / rundir.SUPERVISOR_LOG), "ab", buffering=0) as log:
        log.write(rundir.log_line(rundir.LAUNCHED).encode())
        process = subprocess.Popen(
            # In POSIX mode it leaves BASH_ENV to the script's own shell (bash(1), "Invocation").
            ["bash", "--posix", "-c", moved, str(control / rundir.SCRIPT)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment, OELM_QUEUED_AT="%.6f" % run.queued_at),
            cwd=run.run_dir,
            pass_fds=[run.handle] + ([SERVED_FD] if SERVED_VARIABLE in environment else []),
            start_new_session=True,
        )
    with contextlib.suppress(OSError):  # it is started all the same, and its supervisor writes that, too
        # The script execs the supervisor: the pid and its start time stay the same.
        rundir.write_claim(run.handle, run.token, processes.identify(process.pid))
    os.close(run.handle)
    return process


class Keeper:
    """The runs of a submission that were not started yet, and those that wait for devices themselves."""

    def __init__(self, runs: Sequence[Held], environment: Dict[str, str], woken_fd: int, served_fd: int) -> None:
        """Take over claimed runs, in the order of their turns.

        Args:
            environment: Variables of what is started.
            woken_fd: Where signals are read as bytes.
            served_fd: Where pids of supervisors that have their devices are read.
        """
        self._is_lane = any(run.after for run in runs)
        self._lines: Dict[str, Deque[Held]] = {}
        for run in runs:
            self._lines.setdefault("" if self._is_lane else run.request, deque()).append(run)
        self._environment = environment
        self._woken_fd, self._served_fd = woken_fd, served_fd
        self._started: Dict[int, "subprocess.Popen[bytes]"] = {}
        self._standing: Dict[int, Held] = {}  # by pid, those of them that have no devices yet

    def waiting(self) -> List[Held]:
        """Return the runs that were not started yet."""
        return [run for line in self._lines.values() for run in line]

    def run(self) -> None:
        """Return when every run was started or given up."""
        patience_s = self._start_what_is_due(self._environment)
        late = dict(self._environment, **{LATE_VARIABLE: "1"})
        while any(self._lines.values()):
            select.select([self._woken_fd, self._served_fd], [], [], patience_s)
            self._note_ends()
            self._note_cancels()
            patience_s = self._start_what_is_due(late)

    def _note_ends(self) -> None:
        """Forget supervisors that have their devices or are over."""
        for said in _content(self._served_fd).split():
            if said.isdigit():  # a program of the set-up lines has this descriptor, too
                self._standing.pop(int(said), None)
        for pid, process in list(self._started.items()):
            if process.poll() is not None:
                del self._started[pid]
                self._standing.pop(pid, None)

    def _note_cancels(self) -> None:
        """Give up runs whose end was asked for, and pass on what was meant for one that was just started."""
        if not _content(self._woken_fd).strip(bytes([signal.SIGCHLD])):
            return
        for request, line in self._lines.items():
            cancelled = {run for run in line if _is_cancelled(run)}
            self._lines[request] = deque(run for run in line if run not in cancelled)
            for run in cancelled:
                _give_up(run)
        for pid, run in self._standing.items():
            if _is_cancelled(run):
                self._started[pid].send_signal(signal.SIGTERM)

    def _start_what_is_due(self, environment: Dict[str, str]) -> Optional[float]:
        """Start the runs whose turn it is; return after how many seconds to look again, None for never."""
        look_s: Optional[float] = None
        held: Dict[str, bool] = {}  # thousands of runs may need the same ones: each is looked at once
        for line in self._lines.values():
            passed_over: Deque[Held] = deque()
            try:
                while line and self._is_due(line[0]):
                    if _is_cancelled(line[0]):
                        _give_up(line.popleft())
                        continue
                    # The others don't wait for what it needs.
                    if not self._is_lane and _waits(line[0], held):
                        passed_over.append(line.popleft())
                        look_s = NEEDED_S
                        continue
                    try:
                        process = start(line[0], environment)
                    except FileNotFoundError as error:  # somebody has removed the run
                        _say(line[0], str(error))
                        _give_up(line.popleft())
                    except OSError:
                        return RETRY_S
                    else:
                        self._started[process.pid], self._standing[process.pid] = process, line.popleft()
            finally:
                line.extendleft(reversed(passed_over))
        return look_s

    def _is_due(self, run: Held) -> bool:
        """Tell whether the turn has come of the first of a line."""
        if self._is_lane:  # the one before has its devices: this one is ready when that is over
            return not self._standing
        return len(self._standing) < STANDING or run.request not in [other.request for other in self._standing.values()]


def _is_cancelled(run: Held) -> bool:
    return os.path.exists("%s/%s/%s" % (run.run_dir, rundir.CONTROL, rundir.CANCEL))


def _waits(run: Held, held: Dict[str, bool]) -> bool:
    """Tell whether one that a run needs isn't over.

    Args:
        held: Whether the claims are held of those that were looked at; gets the others.
    """
    for needed in run.needs:
        if needed not in held:
            held[needed] = rundir.is_locked(rundir.control(needed, rundir.CLAIM))
        if held[needed]:
            return True
    return False


def _give_up(run: Held) -> None:
    """Let go of a run that is not to be started."""
    os.close(run.handle)


def _say(run: Held, words: str) -> None:
    """Write a line into a run's log: it is the reason shown where a run ends without a record."""
    with contextlib.suppress(OSError), open(str(rundir.control(run.run_dir, rundir.SUPERVISOR_LOG)), "a") as log:
        log.write(rundir.log_line(words))


def _content(handle: int) -> bytes:
    """Return what can be read now without waiting."""
    found = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            found += os.read(handle, 1 << 16)
    return found


def main() -> None:
    """Keep the runs that stdin names, in a process that ``begin`` has started."""
    soft_limit, rows = json.load(sys.stdin)
    runs = [Held(*row)._replace(needs=tuple(row[-1])) for row in rows]
    del rows
    for run in runs:
        os.set_inheritable(run.handle, False)
    # Open files above the limit stay open; what is started here has the limit that its user knows.
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    woken, wake = os.pipe()
    served, serve = os.pipe()
    for handle in (woken, wake, served):
        os.set_blocking(handle, False)
    os.dup2(serve, SERVED_FD, inheritable=False)
    os.close(serve)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    me = processes.identify(os.getpid())
    for run in runs:
        rundir.write_claim(run.handle, run.token, me, run.needs, keeper=True, after=run.after)
    keeper = Keeper(runs, dict(os.environ, **{SERVED_VARIABLE: str(SERVED_FD)}), woken, served)
    del runs
    sys.stdout.write("kept\n")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nothing, stream)
    try:
        keeper.run()
    except Exception as error:
        from ..reasons import because  # here: a keeper that goes on needs none

        for run in keeper.waiting():
            _say(run, because("cannot_go_on", error=repr(error)))
        raise
