"""Wait for a lock as flock(1), in place of this process: a hundredth of its memory, and the same process to others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterable, Mapping

from . import lease_folder

COMMAND = ("flock", "--shared", "--no-fork")
"""util-linux's, from 2.30 on; others don't know all of it, and then this process waits itself."""
TRY_TIMEOUT_S = 10.0
WAITED_VARIABLE = "OELM_WAITED_FD"
"""Variable of the program that goes on: the descriptor of the file that was waited for."""


def wait(path: Path, *, stdin: bytes, kept: Iterable[int], environment: Mapping[str, str]) -> None:
    """Become flock(1) until the lock of a file is released, and then this program again, with the same arguments and
    pid. Return where that can't be done, with nothing changed but what stdin holds. Whatever signal
    comes meanwhile ends the process.

    Args:
        stdin: What the program reads again.
        kept: Descriptors that stay open all the time.
        environment: Variables that it gets besides.
    """
    handle, content = -1, -1
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        argv = [sys.executable, *os.fsdecode(Path("/proc/self/cmdline").read_bytes()).split("\0")[1:-1]]
        handle = os.open(str(path), lease_folder.OPENING)
        tried = subprocess.run(
            [*COMMAND, str(path.parent), "true"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TRY_TIMEOUT_S,
        )  # fmt: skip
        if tried.returncode != 0:
            return
        content = os.memfd_create("stdin")
        with os.fdopen(content, "wb", closefd=False) as file:
            file.write(stdin)
        os.lseek(content, 0, os.SEEK_SET)
        os.dup2(content, 0)
        for number in before:  # what comes from now on must not be lost on the way
            signal.signal(number, signal.SIG_DFL)
        for each in (handle, *kept):
            os.set_inheritable(each, True)
        # By its descriptor: flock would make a file anew that was removed meanwhile.
        environment = {**os.environ, **environment, WAITED_VARIABLE: str(handle)}
        os.execvpe(COMMAND[0], [*COMMAND, "/proc/self/fd/%d" % handle, *argv], environment)
    except (OSError, AttributeError, subprocess.TimeoutExpired):  # no such program, or no Linux
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in kept:
            with contextlib.suppress(OSError):
                os.set_inheritable(each, False)
        for each in (handle, content):
            if each >= 0:
                os.close(each)


def close_waited() -> None:
    """Close what a wait has left open here: the descriptor of the file, and the one by which flock had its lock."""
    handle = int(os.environ.pop(WAITED_VARIABLE, "-1"))
    with contextlib.suppress(OSError):  # this process has not waited, and closes nothing
        waited = os.fstat(handle)
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of the listing itself
                if os.path.samestat(os.fstat(int(name)), waited):
                    os.close(int(name))
