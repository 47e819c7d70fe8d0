"""Running Slurm's commands on login and compute nodes: deadlines, formats, and their output as rows.

Sources: squeue(1), scontrol(1). Written for 22.05 to 24.11. One squeue serves every command of a user within
an interval: its output is kept in the user's cache folder, under a lock.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .. import processes, rundir
from ..sentences import _
from . import profile
from . import words as slurm_words

BEFORE_NAME = "|oelm|"
QUEUE_FORMAT = "%F|%K|%T|%S|%V|%N|%P|%q|%r|%k" + BEFORE_NAME + "%j"
"""squeue's fields; comment and name are last because they may hold anything."""
QUEUE_ROW = re.compile(r"\d+\|[^|]+\|[A-Z_]+\|")
"""How a row begins; a greeting does not."""
MARK = re.compile(r"oelm-\w+\.\d+(?!\w)")
"""What job names and comments hold: a submission's token and a script's position."""
QUEUE = ("squeue", "--noheader", "--all", "--array", "--states=all", "--format=" + QUEUE_FORMAT)
"""Jobs that ended within MinJobAge are shown, and those in partitions that are hidden from this user."""
QUEUE_TIMEOUT_S = 40.0
"""Outer deadline of what slurmctld answers."""
CLUSTER_AGE_S, CLUSTER_TIMEOUT_S = 86400.0, 5.0
"""How long a login node's cluster is remembered, and the deadline of asking for it."""
RECORDS_S = 10.0
"""What is kept of KillWait or the warning time for records and the requeue."""
FOREIGN_SETTINGS = ("SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_")
"""Environment variables by which a user's own settings would change what these commands print."""
AS_READ = {"LC_ALL": "C", "SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
"""Variables that make them print what is read here: Unix seconds, and lists of array indices whole, not cut after 64
characters.
"""


class SlurmError(Exception):
    """A command of Slurm failed, and changed nothing; its words are in the message."""

    is_refusal = True


class NotRun(SlurmError):
    """A command can't be run on this host: nothing was asked of Slurm."""

    def __init__(self, command: str, why: str) -> None:
        self.plainly = _("{command} can't be run: {why}", command, why)
        """The message without a hint."""
        super().__init__(self.plainly)


class NotThere(NotRun):
    """A command of Slurm's isn't there."""

    def __init__(self, command: str) -> None:
        super().__init__(command, _("there is none on this host"))
        self.args = (_("{error}, is it a login node?", self.plainly),)


class HalfDone(SlurmError):
    """A command that changes something failed, or gave no answer: what it did is not known."""

    is_refusal = False


OVER = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)
"""States in squeue of a job that has ended for good: one that starts again after a preemption or a node's failure is
COMPLETING, then PENDING.
"""
WAITING = frozenset(
    {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "REVOKED", "SPECIAL_EXIT", "LAUNCH_FAILED",
     "RECONFIG_FAIL"}
)  # fmt: skip
"""States of a job of which nothing runs and which Slurm may start, for the first time or again. In any other state, and
in those that newer versions add, processes of it may live.
"""


class Job(NamedTuple):
    """A job, or one task of an array, as squeue or sacct shows it."""

    id: str
    """What scancel takes: ``12``, or ``12_3`` for a task of an array."""
    task: Optional[int]
    """Index in its array."""
    name: str
    """Job name, whole."""
    state: str
    """In capitals, without what follows it (``CANCELLED by 0`` is CANCELLED)."""
    reason: str = ""
    """Why it waits, or ended (squeue)."""
    submitted_at: float = 0.0
    """Unix seconds; a requeue counts as a submission."""
    starts_at: float = 0.0
    """Start, or the expected one; 0 where there is none."""
    nodes: str = ""
    """Its nodes."""
    partition: str = ""
    """Its partition."""
    qos: str = ""
    """Its quality of service (squeue)."""
    exit_code: str = ""
    """``0:9`` as sacct shows it."""
    comment: str = ""
    """Its comment (squeue), where a script keeps its job's name a second time: a site's plugin may rename jobs."""

    @property
    def marks(self) -> "List[str]":
        """Submission and position that it is known by, as often as its name and comment say them."""
        return MARK.findall("%s %s" % (self.name, self.comment))

    @property
    def is_over(self) -> bool:
        """True once it has ended for good."""
        return self.state in OVER

    @property
    def is_alive(self) -> bool:
        """True while processes of it may live; those of a COMPLETING one are being ended."""
        return self.state not in OVER and self.state not in WAITING


# Running commands -----------------------------------------------------------------------------------------------------


def call(argv: Sequence[str], timeout_s: float, variables: Mapping[str, str] = AS_READ) -> Tuple[int, str, str]:
    """Run a command; return (exit code, stdout, stderr).

    The command gets a session of its own, so that all of it ends at the deadline.

    Args:
        variables: What its environment has besides; none of it for what hands its environment on to a job.

    Raises:
        SlurmError: It isn't there, or gave no answer in time.
    """
    if shutil.which(argv[0]) is None:
        profile.find(argv[0])
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)}
    environment.update(variables)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise NotThere(argv[0]) from error
    except OSError as error:
        raise NotRun(argv[0], error.strerror or str(error)) from error
    try:
        out, err = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        raise SlurmError(_("{command} gave no answer within {seconds:.0f} s", argv[0], timeout_s)) from None
    return child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def said_by(argv: Sequence[str], timeout_s: float) -> str:
    """Run a command of Slurm's that only looks; return what it prints.

    Raises:
        SlurmError: It fails, isn't there, or gave no answer in time.
    """
    code, out, err = call(argv, timeout_s)
    if code != 0:
        raise SlurmError(slurm_words.said(err, argv[0], code))
    return out


# The queue ------------------------------------------------------------------------------------------------------------


def read_queue(text: str) -> List[Job]:
    """Return the rows of ``squeue -h -r -o QUEUE_FORMAT``; lines of another shape (banners) are passed over."""
    jobs = []
    for line in text.splitlines():
        fields = line.split("|", 9)
        if len(fields) != 10 or not QUEUE_ROW.match(line):
            continue
        array, index, state, starts_at, submitted_at, nodes, partition, qos, reason, rest = fields
        comment, _, name = rest.rpartition(BEFORE_NAME)  # without it a line break in the comment cut the row
        task = int(index) if index.isdigit() else None
        jobs.append(
            Job(
                id=array if task is None else "%s_%d" % (array, task),
                task=task,
                name=name,
                state=state,
                reason="" if reason == "None" else reason,
                submitted_at=seconds(submitted_at),
                starts_at=seconds(starts_at),
                nodes=nodes,
                partition=partition,
                qos=qos,
                comment="" if comment == "(null)" else comment,
            )
        )
    return jobs


def seconds(text: str) -> float:
    """Return a time as Slurm prints it under SLURM_TIME_FORMAT=%s; 0 where there is none."""
    return float(text) if text.isdigit() else 0.0


def queue(*options: str) -> List[Job]:
    """Ask slurmctld for jobs, those included that ended within its MinJobAge.

    Raises:
        SlurmError: It does not answer.
    """
    return read_queue(said_by([*QUEUE, *options], QUEUE_TIMEOUT_S))


def my_queue(interval_s: float) -> Tuple[float, List[Job]]:
    """Return (when it was read, this user's jobs), at most ``interval_s`` old; commands that ask at once share one
    squeue.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    path = cache_file("queue")
    with _locked(path):
        known = profile.recall(path, interval_s)
        if not known:
            known = {"time": time.time(), "text": said_by([*QUEUE, "--me"], QUEUE_TIMEOUT_S)}
            profile.keep(path, known)
        return float(known["time"]), read_queue(str(known["text"]))


def forget_queue() -> None:
    """Make the next look at the queue a fresh one: something was submitted or cancelled."""
    with contextlib.suppress(OSError):
        cache_file("queue").unlink()


def cache_file(what: str) -> Path:
    """Return this user's file for something about this cluster, the same on all its login nodes."""
    # Clusters may share home folders, and even names of login nodes.
    return profile.cache_file(what, *(_cluster_of(os.environ.get("SLURM_CLUSTERS", "")) or _this_host()))


def _this_host() -> Tuple[str, str]:
    return os.uname().nodename, processes.boot_id()


def _cluster_of(clusters: str) -> Tuple[str, ...]:
    """Return the name and the controller of the cluster that this host is a login node of, asked once a day, with the
    ``clusters`` that the environment names; empty where nobody says.
    """
    return _cluster(profile.cache_file("cluster", os.environ.get("SLURM_CONF", ""), clusters, *_this_host()), clusters)


@functools.lru_cache(maxsize=None)
def _cluster(path: Path, clusters: str) -> Tuple[str, ...]:
    known = profile.recall(path, CLUSTER_AGE_S)
    if not known:
        try:
            shown = settings(CLUSTER_TIMEOUT_S)
        except SlurmError:
            return ()
        known = {"name": shown.get("ClusterName", ""), "host": shown.get("SlurmctldHost[0]", "")}
        profile.keep(path, known)
    return (str(known["name"]), str(known["host"]), clusters) if known.get("name") else ()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the cache's lock, which only saves work: where it can't be had, go on without."""
    handle = None
    with contextlib.suppress(OSError, rundir.Busy):
        handle = rundir.lock(path.with_suffix(".lock"), patience_s=QUEUE_TIMEOUT_S)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


# scontrol -------------------------------------------------------------------------------------------------------------


def show_job(job_id: str, timeout_s: float = 15.0) -> Dict[str, str]:
    """Return what slurmctld knows of one job, as scontrol names it (JobState, Reason, Restarts, TRES, …).

    Raises:
        SlurmError: It does not answer, or knows no such job.
    """
    rows = _show("JobId", ["job", job_id], timeout_s)
    if not rows:
        raise SlurmError(_("scontrol: shows no job {job}", job_id))
    return rows[0]


def qualities_of_partitions(timeout_s: float = 15.0) -> Dict[str, str]:
    """Return each partition's quality of service; empty for one without.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    rows = _show("PartitionName", ["partition"], timeout_s)
    return {row["PartitionName"]: row.get("QoS", "") for row in rows}


def _show(first: str, words: Sequence[str], timeout_s: float) -> List[Dict[str, str]]:
    """Return the entities that ``scontrol show WORDS`` prints, one a line that begins with the key ``first``."""
    rows = []
    for line in said_by(["scontrol", "--oneliner", "show", *words], timeout_s).splitlines():
        if not line.startswith(first + "="):
            continue
        found: Dict[str, str] = {}
        for key, value in re.findall(r"(\S+?)=(.*?)(?=\s+[A-Za-z:/]+=|\s*$)", line):
            found.setdefault(key, value)  # a comment, which comes late, may look like anything
        rows.append(found)
    return rows


def settings(timeout_s: float = QUEUE_TIMEOUT_S) -> Dict[str, str]:
    """Return the cluster's configuration (scontrol show config), by name.

    Raises:
        SlurmError: slurmctld does not answer.
    """
    out = said_by(["scontrol", "show", "config"], timeout_s)
    found: Dict[str, str] = {}
    shown = out.partition("Configuration data as of ")[2] or out
    for name, value in re.findall(r"^(\w\S*) *= ?(.*)$", shown, re.MULTILINE):
        found.setdefault(name, value.strip())
    return found


def kill_wait(config: Optional[Mapping[str, str]] = None) -> float:
    """Return the seconds from Slurm's SIGTERM to its SIGKILL (slurm.conf(5), KillWait); 0 where it does not say.

    Args:
        config: What ``settings`` has returned; asked for where it is not given.
    """
    with contextlib.suppress(SlurmError):
        words = (settings(5.0) if config is None else config).get("KillWait", "").split()
        return float(words[0]) if words and words[0].isdigit() else 0.0
    return 0.0


def cluster_name() -> str:
    """Return the name of the cluster that this is a node of; empty where nobody says."""
    name = os.environ.get("SLURM_CLUSTER_NAME", "")
    with contextlib.suppress(SlurmError):
        name = name or settings().get("ClusterName", "")
    return name


def about(clusters: str) -> None:
    """Let all of Slurm's commands of this process be about one of a site's clusters, by the environment.

    This host's own is reached without accounting, by which Slurm knows the others.
    """
    os.environ.pop("SLURM_CLUSTERS", None)  # the profile's, or the terminal's
    if _cluster_of("")[:1] != (clusters,):
        os.environ["SLURM_CLUSTERS"] = clusters
        os.environ.pop("SLURM_CLUSTER_NAME", None)  # of the job, on another one, in which this may run
