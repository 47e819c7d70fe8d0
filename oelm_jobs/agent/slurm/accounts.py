"""Questions to Slurm's accounting, which may be absent, closed to users, or hung.

Source: sacct(1).
"""

from __future__ import annotations

import os
import re
import time
from typing import Any, Dict, Iterable, List, Optional, Tuple

from .. import reasons
from ..sentences import _, encoded
from . import words as slurm_words
from .commands import Job, NotRun, SlurmError, cache_file, call, seconds
from .profile import keep, recall

FORMAT = "JobID,State,ExitCode,Submit,Start,End,NodeList,JobName"
CHUNK = 500
"""Job ids in one sacct."""
TIMEOUT_S = 15.0
"""Outer deadline: with slurmdbd hung, sacct blocks for more than 30 s while all else works."""
PATIENCE_S = 60.0
"""After so long no further sacct is begun: whoever asks has a deadline, too."""
NONE_KEPT = re.compile(
    r"(?im)^(?:\S+: )*(?:slurm accounting storage is disabled|you are not running a supported accounting)"
    r"|^(?:.*\s)?\S*sacct: .*permission denied"
)
"""What sacct says where the cluster keeps no accounts, or not for its users."""
ROW = re.compile(r"\d[\w+]*(?:_[^|]*)?\|[A-Z_]+")
"""How a row of a job begins, which no step's does."""
PAUSE_S = 120.0
"""So long sacct is not asked again after it gave no answer."""


class HalfAnswered(SlurmError):
    """Accounting answered for some of the jobs."""

    def __init__(self, words: str, found: List[Job]) -> None:
        super().__init__(words)
        self.found = found
        """What it said of them."""


def jobs(ids: Iterable[str], since: float) -> Optional[List[Job]]:
    """Return what accounting knows of jobs (base ids of arrays), every incarnation of them; None where the cluster
    keeps none.

    Args:
        since: The earliest submission, Unix seconds.

    Raises:
        SlurmError: It does not answer (now, or a moment ago).
        HalfAnswered: It did for some of them.
    """
    failed = is_silent()
    if failed.get("none"):
        return None
    if failed:
        raise SlurmError(reasons.read(dict(failed, reason=failed["words"])))
    wanted = sorted(set(ids))
    found: List[Job] = []
    begun = time.monotonic()
    for first in range(0, len(wanted), CHUNK):
        if time.monotonic() - begun > PATIENCE_S:
            raise HalfAnswered(_("sacct takes more than {seconds:.0f} s", PATIENCE_S), found)
        try:
            code, out, err = ask(since, "--duplicates", "--jobs=" + ",".join(wanted[first : first + CHUNK]))
            trouble = slurm_words.said(err, "sacct", code) if code != 0 else ""
            keeps_none = code != 0 and bool(NONE_KEPT.search(err))
        except SlurmError as error:
            trouble, keeps_none = str(error), isinstance(error, NotRun)
        if trouble:
            gave_no_answer(trouble, none=keeps_none)
            if keeps_none:
                return None
            raise HalfAnswered(trouble, found)
        found += read(out)
    return found


def ask(since: float, *options: str) -> Tuple[int, str, str]:
    """Run sacct for jobs that were there from ``since`` (Unix seconds) on; return (exit code, stdout, stderr).

    Raises:
        SlurmError: It isn't there, or gave no answer in time.
    """
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 3600))  # clocks differ
    argv = ["sacct", "--noheader", "--parsable2", "--allocations", "--starttime=" + start, "--format=" + FORMAT]
    if os.environ.get("SLURM_CLUSTERS"):  # which sacct alone does not read
        argv.append("--clusters=" + os.environ["SLURM_CLUSTERS"])
    return call([*argv, *options], TIMEOUT_S)


def is_silent(command: str = "sacct") -> Dict[str, Any]:
    """Return what was remembered when a command last had no answer of accounting, for a while; empty where it may be
    asked.
    """
    return recall(cache_file(command), PAUSE_S)


def gave_no_answer(words: str, *, none: bool = False, command: str = "sacct") -> None:
    """Remember that accounting did not answer a command, or (``none``) that the cluster keeps no accounts."""
    keep(cache_file(command), {"words": words, "none": none, **encoded(words)})


def read(text: str) -> List[Job]:
    """Return the rows of sacct in FORMAT; steps are left out, ranges of pending tasks spelled out."""
    jobs = []
    for line in text.splitlines():
        fields = line.split("|", 7)
        if len(fields) != 8 or not ROW.match(line):
            continue
        shown, state, exit_code, submitted_at, start, _, nodes, name = fields
        base, _, rest = shown.partition("_")
        job = Job(
            id=base,
            task=None,
            name=name,
            state=(state.split() or [""])[0],
            submitted_at=seconds(submitted_at),
            starts_at=seconds(start),
            nodes=nodes,
            exit_code=exit_code,
        )
        jobs += [job._replace(id="%s_%d" % (base, task), task=task) for task in tasks(rest)] if rest else [job]
    return jobs


def tasks(text: str) -> List[int]:
    """Return the indices in ``3`` or ``[2-7%3]`` or ``[1,3,5-7:2]`` as squeue and sacct write them."""
    return [int(number) for number in slurm_words.numbers(text.strip("[]").partition("%")[0])]
