"""Who may execute a run on a cluster, where flock can't be trusted: exclusive files that name job and restart count.

A claim is the file ``.oelm/slurm-claim.<n>`` with the highest n. Taking one makes the next number exclusively, so of
all who saw the same owner end, one gets it and nobody ever removes a living claim. An owner counts as ended only when
it says so itself in its claim, or Slurm does.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

from .. import processes, rundir
from ..sentences import _
from . import commands, words

PREFIX = "slurm-claim."
ARCHIVING, ARCHIVING_S = "archive", 60.0
"""What stands for the job where a run's directory is about to be moved away, and how long that may take."""
KEEP = 8
"""Newest claims that are kept: a network file system's stale listing must not lead to a number that is gone."""
PATIENCE_S = 600.0
"""So long a job waits for Slurm's word on the owner, or for an owner that is ending."""
LOOK_S = 5.0
"""How often it asks."""
GONE_S = 10.0
"""A run's folder that is missing for so long is gone."""
CLOCKS_S = 3.0
"""So much clocks of a cluster may differ for a job without our marks to be told by its times. Where ids come round
soon, another job may have the id a few seconds later.
"""
FENCE_S = 15.0
"""How often an owner looks whether it still is one; a successor on another node waits twice as long."""


class Ended(NamedTuple):
    """Whether a claim's owner has ended."""

    has_ended: Optional[bool]
    """None where it isn't known yet."""
    why: str = ""
    is_untold: bool = False
    """Whether Slurm can't tell."""


class Unanswered(Exception):
    """Slurm did not say in time whether a claim's owner has ended."""


@dataclass(frozen=True)
class Owner:
    """One incarnation of a job that executes a run."""

    job: str
    """Job id; ``12_3`` of an array's task."""
    restart: int
    """``SLURM_RESTART_COUNT``."""
    name: str
    """Job name, by which a reused job id is told."""
    token: str
    """Token of the submission."""
    identity: processes.Identity
    """The supervisor."""
    time: float
    """When the claim was taken, Unix seconds."""
    cluster: str = ""
    """``SLURM_CLUSTER_NAME``: another cluster that shares the disk knows nothing of the job."""
    released: bool = False
    """True once the supervisor is through with the run."""

    @staticmethod
    def read(path: Path) -> "Optional[Owner]":
        """Return the owner that a claim names; None where it can't be read."""
        content = rundir.read_json(path) or {}
        identity = processes.Identity.from_json(content.get("identity"))
        try:
            return Owner(
                str(content["job"]),
                int(content["restart"]),
                str(content["name"]),
                str(content["token"]),
                identity or processes.Identity(0, "", "", ""),
                float(content["time"]),
                str(content.get("cluster") or ""),
                bool(content["released"]),
            )
        except (KeyError, TypeError, ValueError):
            return None


def newest(run_dir: str) -> "Tuple[int, Optional[Owner]]":
    """Return (number, owner) of a run's claim; (0, None) where it never had one."""
    try:
        numbers = _numbers(run_dir)
    except OSError:
        numbers = []
    if not numbers:
        return 0, None
    return numbers[-1], Owner.read(rundir.control(run_dir, PREFIX + str(numbers[-1])))


def _numbers(run_dir: str) -> List[int]:
    names = os.listdir(run_dir + "/" + rundir.CONTROL)
    found = [name[len(PREFIX) :] for name in names if name.startswith(PREFIX)]
    return sorted(int(number) for number in found if number.isdigit())


class Claim:
    """A claim that this process has taken."""

    def __init__(self, run_dir: str, number: int, owner: Owner, before: Optional[Owner]) -> None:
        self.before = before
        """The owner before, where there was one."""
        self._run_dir = run_dir
        self._number = number
        self._owner = owner
        self._gone_since: Optional[float] = None

    def is_held(self) -> bool:
        """False once Slurm gave the run to another job or incarnation, because it took this one for dead, or its
        directory was moved or removed: the run may have begun anew in another one of the same name.
        """
        try:
            numbers = _numbers(self._run_dir)
        except FileNotFoundError:
            # A file system that is mounted again has no folder for a moment.
            self._gone_since = self._gone_since or time.monotonic()
            return time.monotonic() - self._gone_since < GONE_S
        except OSError:
            return True  # a file system that is away for a moment takes no claim from anybody
        self._gone_since = None
        if numbers[-1:] != [self._number]:
            return False
        owner = Owner.read(rundir.control(self._run_dir, PREFIX + str(self._number)))
        return owner is None or owner.identity == self._owner.identity

    def release(self) -> None:
        """Say that this owner is through with the run; harmless when called again."""
        if not self._owner.released and self.is_held():
            self._owner = replace(self._owner, released=True)
            with contextlib.suppress(OSError):
                path = rundir.control(self._run_dir, PREFIX + str(self._number))
                rundir.write_json(path, asdict(self._owner))


def take(run_dir: str, owner: Owner, say: Callable[[str], None]) -> Claim:
    """Take a run's claim for a job.

    Raises:
        rundir.Busy: Its owner lives.
        Unanswered: Whether it does could not be found out.
    """
    deadline, told = time.monotonic() + PATIENCE_S, ""
    while True:
        number, before = newest(run_dir)
        has_ended, why, _untold = _ended(before, owner) if number else Ended(True)
        if has_ended is False:
            raise rundir.Busy(why)
        if has_ended:
            path = rundir.control(run_dir, PREFIX + str(number + 1))
            if rundir.create(path, asdict(owner)):
                _tidy(run_dir, number + 1)
                return Claim(run_dir, number + 1, owner, before)
            continue
        if time.monotonic() > deadline:
            raise Unanswered(why)
        if why != told:
            say(_("waiting: {why}", why))
            told = why
        time.sleep(LOOK_S)


def take_for_archive(run_dir: str) -> Optional[Claim]:
    """Take a run's claim to move its directory away; None where its owner lives, or may.

    Raises:
        commands.SlurmError: Whether it does can't be found out.
    """
    number, before = newest(run_dir)
    ended = _ended(before, None) if number else Ended(True)
    if ended.is_untold:
        raise commands.SlurmError(ended.why)
    if not ended.has_ended:
        return None
    owner = Owner(ARCHIVING, 0, "", "", processes.identify(os.getpid()), time.time())
    rundir.control(run_dir, "").mkdir(exist_ok=True)
    is_mine = rundir.create(rundir.control(run_dir, PREFIX + str(number + 1)), asdict(owner))
    return Claim(run_dir, number + 1, owner, before) if is_mine else None


def is_free(run_dir: str) -> bool:
    """True where no job has the run, by its owner's word or Slurm's."""
    number, owner = newest(run_dir)
    return not number or (owner is not None and _ended(owner, None).has_ended is True)


def _tidy(run_dir: str, number: int) -> None:
    for old in _numbers(run_dir):
        if old <= number - KEEP:
            with contextlib.suppress(OSError):
                rundir.control(run_dir, PREFIX + str(old)).unlink()


def _ended(before: Optional[Owner], mine: Optional[Owner]) -> Ended:
    """Return whether the owner before has ended."""
    if before is None:
        return Ended(None, _("the claim can't be read"))
    if before.released:
        return Ended(True)
    if before.job == ARCHIVING:  # which takes a moment, unless it is killed in it
        is_over = time.time() - before.time > ARCHIVING_S
        return Ended(True) if is_over else Ended(None, _("its directory is being archived"))
    here = commands.cluster_name() if before.cluster else ""
    if before.cluster and not here:
        return Ended(None, _("slurmctld does not answer"))
    if here != before.cluster:
        why = _(
            "whether job {job} of cluster {cluster} lives can't be found out on cluster {here}",
            before.job,
            before.cluster,
            here,
        )
        return Ended(None, why, is_untold=True)
    if mine is not None and before.job == mine.job and (before.name == mine.name or before.token == mine.token):
        if before.restart < mine.restart:
            return Ended(True)  # Slurm starts a job again only when it takes its last incarnation for ended
        if before.identity.host == mine.identity.host and not before.identity.is_alive():
            return Ended(True)
        return Ended(False, _("job {job} executes this run already", before.job))
    return job_has_ended(before)


def job_has_ended(owner: Owner) -> Ended:
    """Ask Slurm whether the incarnation that an owner names has ended."""
    try:
        rows = commands.queue("--jobs=" + owner.job)
    except commands.SlurmError as error:
        if words.NO_SUCH_JOB.search(str(error)):
            return Ended(True)  # slurmctld knows every job that may run; this one it has forgotten
        return Ended(None, _("whether job {job} lives can't be found out ({error})", owner.job, str(error)), True)
    alive = [row.state for row in rows if is_of(row, owner) and row.is_alive]
    if any(state != "COMPLETING" for state in alive):
        return Ended(False, _("job {job} executes this run", owner.job))
    if alive:
        return Ended(None, _("job {job} is ending", owner.job))
    return Ended(True)  # over, requeued and not started again, or the id is another job's now


def is_of(job: commands.Job, owner: Owner) -> bool:
    """Tell whether a job that Slurm lists is a claim's owner; ids are used again, and jobs renamed."""
    if job.id != owner.job:
        return False
    if job.name == owner.name or any(mark.rpartition(".")[0] == owner.token for mark in job.marks):
        return True
    return not job.marks and 0 < job.starts_at <= owner.time + CLOCKS_S  # the claim is taken by a job that has started
