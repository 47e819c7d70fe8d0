"""Telling one process from every other one, finding those of a run, and ending them.

A process is ended only while pid, start time and boot id are those that were recorded, or its environment or its
parents say that it is the run's. Standard library only, Python 3.8, Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Union

ATTEMPT_VARIABLE, RUN_DIR_VARIABLE = "OELM_ATTEMPT", "OELM_RUN_DIR"
"""Environment variables by which a run's processes are known, whatever session they moved to."""

LAUNCHER_LEFTOVERS = ("PET_", "TORCHELASTIC_")
"""Beginnings of variables by which torchrun is told what the command says already: a pod's, or an outer torchrun's
(torch/distributed/argparse_util.py).
"""
MISLEADING = ("PYTHON_EXEC", "PYTHONSAFEPATH")
"""torchrun would start its ranks with another interpreter, and Python would not find the code in its working folder."""

LINUX = sys.platform.startswith("linux")


@dataclass(frozen=True)
class Identity:
    """What tells one process from every other one, before and after, on one host (a pid alone is reused)."""

    pid: int
    """Process id."""
    start_time: str
    """Start as the kernel states it; compared, never interpreted."""
    boot_id: str
    """Differs after a reboot."""
    host: str
    """Host name."""

    def to_json(self) -> Dict[str, object]:
        """Return the identity as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> "Optional[Identity]":
        """Return the identity in a JSON object; None where it holds none."""
        try:
            return Identity(int(value["pid"]), str(value["start_time"]), str(value["boot_id"]), str(value["host"]))
        except (TypeError, KeyError, ValueError):
            return None

    def is_alive(self) -> bool:
        """True while this very process lives on this host."""
        return self.boot_id == boot_id() and start_time_of(self.pid) == self.start_time


def plain_environment() -> Dict[str, str]:
    """Return this process's environment without what would lead a run's launcher astray."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(LAUNCHER_LEFTOVERS) and name not in MISLEADING
    }


def boot_id() -> str:
    """Return what the kernel calls this boot (random(4); on macOS kern.bootsessionuuid).

    ``OELM_BOOT_ID_FILE`` names another file to read it from, so that a reboot can be tested.
    """
    try:
        path = os.environ.get("OELM_BOOT_ID_FILE", "/proc/sys/kernel/random/boot_id")
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return output(["sysctl", "-n", "kern.bootsessionuuid"]) or "unknown"


def start_time_of(pid: int) -> str:
    """Return the start time of process ``pid`` as the kernel states it; empty where there is no such process (or a
    zombie).
    """
    if LINUX:
        try:
            with open("/proc/%d/stat" % pid, "rb") as file:
                # The name in parentheses may hold spaces and parentheses: count behind the last one (proc(5)).
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    state, _, started = output(["ps", "-o", "state=,lstart=", "-p", str(pid)]).partition(" ")
    return "" if state.startswith("Z") else started.strip()


def user_of(pid: int) -> int:
    """Return the user id of a process; this user's own where the system does not say (only one's own are seen then)."""
    try:
        return os.stat("/proc/%d" % pid).st_uid if LINUX else os.getuid()
    except OSError:
        return -1


def identify(pid: int) -> Identity:
    """Return the identity of a living process."""
    return Identity(pid, start_time_of(pid), boot_id(), os.uname().nodename)


def of_run(run_dir: Union[str, Path], attempt: str = "") -> List[Identity]:
    """Return this user's living processes whose environment says that they belong to the run in ``run_dir`` (and to
    one attempt of it, where that is given as ``OELM_ATTEMPT`` names it).

    torchrun puts its ranks in sessions of their own, so neither parents nor process groups tell (docs/architecture.md).
    """
    markers = [RUN_DIR_VARIABLE + "=" + str(run_dir)] + ([ATTEMPT_VARIABLE + "=" + attempt] if attempt else [])
    end = b"\0" if LINUX else b" "  # ps(1) of macOS puts blanks between variables, and values may hold some
    wanted = [end + os.fsencode(marker) + end for marker in markers]
    return _living(
        pid
        for pid, environment in _environments()
        if pid != os.getpid() and all(marker in end + environment + end for marker in wanted)
    )


def _living(pids: Iterable[int]) -> List[Identity]:
    return [identity for identity in map(identify, pids) if identity.start_time]


def _environments() -> "Iterator[tuple[int, bytes]]":
    """Yield (pid, environment) of every process that may be read."""
    if LINUX:
        yield from _in_proc("environ")
        return
    for line in output(["ps", "-axEww", "-o", "pid=,command="]).splitlines():
        pid, _, rest = line.strip().partition(" ")
        if pid.isdigit():
            yield int(pid), os.fsencode(rest)


def _in_proc(name: str) -> "Iterator[tuple[int, bytes]]":
    """Yield (pid, content of its file of that name below /proc) of every process that may be read."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/%s" % (pid, name), "rb") as file:
            yield int(pid), file.read()


def descendants_of(pid: int) -> List[Identity]:
    """Return the living processes whose parents lead to ``pid``, also those that dropped their environment.

    Below a subreaper (``become_subreaper``) these are all that it ever started, on Linux.
    """
    children: Dict[int, List[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found, left = [], [pid]
    while left:
        mine = children.pop(left.pop(), [])
        left += mine
        found += mine
    return _living(found)


def _parents() -> "Iterator[tuple[int, int]]":
    """Yield (pid, its parent's pid) of every process."""
    if LINUX:
        for pid, stat in _in_proc("stat"):
            rest = stat.rpartition(b")")[2].split()
            if len(rest) > 1:  # it may be gone by now
                yield pid, int(rest[1])
        return
    for line in output(["ps", "-axo", "pid=,ppid="]).splitlines():
        fields = line.split()
        yield int(fields[0]), int(fields[1])


def output(argv: List[str], timeout_s: float = 10.0) -> str:
    """Return a command's output, which depends on nobody's locale or time zone; empty where it is missing or does not
    answer.
    """
    import subprocess  # here, because a probe on Linux never needs it and everybody waits for a probe

    plain, nowhere = dict(os.environ, LC_ALL="C", TZ="UTC0"), subprocess.DEVNULL
    try:
        done = subprocess.run(argv, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere, env=plain, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return os.fsdecode(done.stdout).strip()


def become_subreaper() -> None:
    """Let orphaned descendants become this process's children, so that they can be reaped (prctl(2), Linux only)."""
    if LINUX:
        import ctypes

        PR_SET_CHILD_SUBREAPER = 36
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


# Ending processes -----------------------------------------------------------------------------------------------------


def send(identities: Iterable[Identity], number: int) -> None:
    """Send a signal to those of the processes that live."""
    for identity in identities:
        if identity.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, number)


def _reap() -> None:
    """Reap orphans that became this process's children."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def living(run_dir: Union[str, Path], spared: Iterable[Identity] = ()) -> List[Identity]:
    """Return the processes of a run but this one and those that are spared.

    Descendants, too: a process may have dropped the environment by which it is known.
    """
    found = {*of_run(run_dir), *descendants_of(os.getpid())} - set(spared)
    return sorted((p for p in found if p.pid != os.getpid()), key=lambda identity: identity.pid)


SHELLS = {"sh", "ash", "bash", "dash", "ksh", "zsh", "fish", "csh", "tcsh"}
READERS = {"tee", "ts"}
"""Programs that end on a signal, or wait, without passing it on, and those behind a program in a pipe of theirs."""


def leading(found: Iterable[Identity]) -> List[Identity]:
    """Return of a run's processes those that a stop is for: none that another one has started, which passes it on in
    its own way, unless that is a shell, and none that ends with what it reads from.
    """
    parents, pids = dict(_parents()), {identity.pid for identity in found}
    above = {pid: parents.get(pid) for pid in pids}
    shells = {pid for pid in pids & set(above.values()) if _names_of(pid) & SHELLS}
    led = [identity for identity in found if _is_led(above[identity.pid], above, shells)]
    return [identity for identity in led if not _names_of(identity.pid) & READERS]


def _is_led(pid: Optional[int], above: Mapping[int, Optional[int]], shells: Set[int]) -> bool:
    """Tell whether only shells are between a process and the top."""
    while pid in above:
        if pid not in shells:
            return False
        pid = above[pid]
    return True


def _names_of(pid: int) -> Set[str]:
    """Return what a process is called: a script that names its interpreter in its first line is known by both names."""
    if not LINUX:
        return {os.path.basename(output(["ps", "-o", "comm=", "-p", str(pid)])).lstrip("-")}
    found: Set[str] = set()
    with contextlib.suppress(OSError):  # it has ended, or is another user's
        found.add(os.path.basename(os.readlink("/proc/%d/exe" % pid)))
    with contextlib.suppress(OSError), open("/proc/%d/comm" % pid, encoding="utf-8", errors="replace") as file:
        found.add(file.read().strip())
    return found


def end_run(
    run_dir: Union[str, Path],
    deadline: float,
    say: Callable[[str], None],
    *,
    spared: Iterable[Identity] = (),
    asked: Optional[Set[int]] = None,
) -> None:
    """End every process of a run but this one: SIGTERM, then SIGKILL at the deadline (``time.monotonic()``); reap what
    became ours, and return once none is left.

    Args:
        spared: What may live on.
        asked: Process ids that had SIGTERM before. Where they are given, the others get it only as ``leading`` says.
    """
    from signal import SIGKILL, SIGTERM  # here: whoever only looks for processes ends none

    is_known, asked = asked is not None, asked or set()
    while True:
        _reap()
        alive = living(run_dir, spared)
        if not alive:
            return
        late = time.monotonic() >= deadline
        for identity in leading(alive) if is_known and not late else alive:
            if identity.pid not in asked or late:
                say("ending process %d of this run with %s" % (identity.pid, "SIGKILL" if late else "SIGTERM"))
                asked.add(identity.pid)
                send([identity], SIGKILL if late else SIGTERM)
        time.sleep(0.1)


def kill_attempt(run_dir: Union[str, Path], attempt: str) -> None:
    """Kill one attempt's processes and what descends from this one, but nothing else of the run: another execution may
    have it.

    Args:
        attempt: As ``OELM_ATTEMPT`` names it; empty before there was one.
    """
    from signal import SIGKILL

    own = of_run(run_dir, attempt=attempt) if attempt else []
    send([p for p in own + descendants_of(os.getpid()) if p.pid != os.getpid()], SIGKILL)
