"""Read from a log why a command died: its last telling line, torchrun's report, slurmstepd's note on its job."""

from __future__ import annotations

import itertools
import re
import signal
from typing import List

from .. import rundir
from ..reasons import because, detailed

PEER_LOST = "another process of the run has ended"
"""The trainer's reason where not the process that writes its record failed, but another one (train/errors.py)."""
NO_GPU_WORDS = "given to this run: torch"
"""What the trainer's reason holds where it was given GPUs that it can't see (train/device.py): it is not tried
again, since nothing will be different then.
"""
LOG_LINES = 400
"""In so many lines at the end of the log torchrun's reports, one a node, and the words before them are looked for."""


TELLING_WORDS = (
    r"Error|error:|Exception:|No module named|No such file|command not found|can't open file|Permission denied|Killed"
    r"|[Ss]egmentation fault|Bus error|core dumped|Illegal instruction"
)
"""What a line holds that says why a program gave up; many do so without the word error."""
LAUNCHER_WORDS = "(?i)torch[./]distributed[./](elastic|run)|ChildFailedError|^=+$|^-+$"
"""What torchrun's own words on its ranks' deaths hold; where its report begins, the reasons stand before."""
PORT_WORDS = "(?i)EADDRINUSE|address already in use"
"""What is said where somebody else listens on a port."""


def telling(lines: List[str]) -> str:
    """Return the line that tells why a command died: the last one that names an error, torchrun's own summary of its
    ranks' deaths apart.
    """
    errors = [line for line in lines if re.search(TELLING_WORDS, line)]
    own = [line for line in errors if not re.search(LAUNCHER_WORDS, line)]
    own = [line for line in own if PEER_LOST not in line] or own
    before = list(itertools.takewhile(lambda line: not re.search(LAUNCHER_WORDS, line), lines))
    return (own or before or errors or lines or [""])[-1].strip()


def is_port_taken(lines: List[str]) -> bool:
    """Tell whether a command died because somebody else has its port."""
    return any(re.search(PORT_WORDS, line) for line in lines)


def first_failure(lines: List[str]) -> str:
    """Return which process failed first and how, with the newest error that was said before, from torchrun's reports
    (one a node); empty where there is none, or where it ended by itself with an error of its own (exit code 1), of
    which the log tells more.

    A report lists all that ended, also those that torchrun ended in consequence, each with its time
    (torch.distributed.elastic.multiprocessing.errors, ChildFailedError).
    """
    failures = re.findall(
        r"time *: (\S+)\n *host *: (\S+)\n *rank *: (\d+) .*\n *exitcode *: (-?\d+)", "\n".join(lines)
    )
    at_first = min(failures)[0] if failures else ""
    telling = [failure for failure in failures if failure[0] == at_first and failure[3] not in ("1", "-15")]
    if not telling:
        return ""
    _, host, rank, code = telling[0]
    before = itertools.takewhile(lambda line: "failed (exitcode" not in line, lines)
    others = ("distributed/elastic", "distributed.elastic", "srun: ", "slurmstepd", PEER_LOST)
    said = [line.strip() for line in before if re.search(r"(?i)(error|exception): ", line)]
    said = [line for line in said if not any(mark in line for mark in others)]
    ended = because("process_ended", rank=rank, host=host, how=how_it_ended(int(code)))
    return detailed(ended, said[-1][:200] if said else "")


def slurmstepds_note(job_log: str) -> str:
    """Return slurmstepd's last note in a job's output (``… CANCELLED AT … DUE TO PREEMPTION ***``); empty without."""
    for line in reversed(rundir.tail(job_log, 8192).decode("utf-8", "replace").splitlines()):
        if "slurmstepd" in line and "***" in line:
            return line
    return ""


def how_it_ended(code: int) -> str:
    """Return what an exit code says; a signal that ended the process is negative."""
    if code >= 0:
        return because("exit_code", code=code)
    try:
        return because("killed", signal=signal.Signals(-code).name)
    except ValueError:  # most real-time signals have no name
        return because("killed", signal="signal %d" % -code)
