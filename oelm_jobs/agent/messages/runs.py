"""Runs: where they stand, their logs, their start on a plain host, their end."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, TypedDict, Union

from ..record_types import Because
from .target import DeviceRow, Root, TicketRow, _EnvironmentMay, _Host


class Progress(TypedDict, total=False):
    """What is said of a run besides its state."""

    token: Optional[str]
    """Token of its newest submission there."""
    devices: Optional[List[str]]
    """What its newest attempt has or had (``gpu:0``, ``cpu:1``; on a cluster with the node)."""
    started_at: Optional[float]
    """When that attempt began."""
    ended_at: Optional[float]
    """When it ended."""
    attempt: Optional[int]
    """The attempt's number."""
    place: Optional[int]
    """Its place in the host's line for devices, from 1."""
    absent: Optional[bool]
    """Whether nothing of it is there."""
    job: Optional[str]
    """Slurm's id of its job."""
    starts_at: Optional[float]
    """When Slurm expects the job to start."""
    step: Optional[int]
    """The last step that it told."""
    max_steps: Optional[int]
    """How many steps it says that it takes."""
    loss: Optional[float]
    """The newest training loss; null where it is no finite number."""
    val_loss: Optional[float]
    """The newest validation loss."""
    tokens_per_s: Optional[float]
    """The newest rate of training."""
    heartbeat_at: Optional[float]
    """When it last told of itself."""
    metrics: Optional[Dict[str, Union[float, str]]]
    """Last values of a script; what JSON has no number for is ``nan``, ``inf`` or ``-inf``."""


class Stand(TypedDict):
    """State of a run."""

    state: str
    reason: Optional[str]


class RunRow(Progress, Because, Stand):
    """Where a run stands."""


class _ArchiveMay(TypedDict, total=False):
    below: Sequence[str]
    """Folders: what is moved aside is removed, each only if it lies below one of them."""


class RunDirs(TypedDict):
    """A request about run directories."""

    run_dirs: Sequence[str]


class ArchiveRequest(_ArchiveMay):
    """A request to move run directories aside."""

    run_dirs: Sequence[str]


class ProbeRequest(RunDirs, total=False):
    """``root``: the host is asked about, too; ``tells``: the root whose runs somebody is to watch over."""

    root: str
    tells: str


class _PollMay(TypedDict, total=False):
    disk_free: int
    devices: List[DeviceRow]
    queue: List[TicketRow]
    queue_age_s: float


class PollAnswer(_Host, _PollMay):
    """Where runs stand, by run directory, and where asked for the devices, the line and the disk of the host."""

    runs: Dict[str, RunRow]


class _LogMay(TypedDict, total=False):
    offset: Optional[int]
    lines: Optional[int]
    wait_s: Optional[float]


class LogRequest(_LogMay):
    """A piece of one of a run's logs, from an offset on or so many lines before its end."""

    run_dir: str
    name: str


class LogAnswer(Stand):
    """The piece (base64), and where the run stood before it was read."""

    content: str
    offset: int
    size: int


class Accepted(TypedDict):
    """Whether a submission was: accepted, repeated, settled or lacking (its code is gone)."""

    answer: str


class Submission(Root):
    """A request about a submission."""

    token: str


class _CodeMay(_EnvironmentMay, total=False):
    snapshot: Optional[str]


class CodeRequest(Submission, _CodeMay):
    """A submission of runs of some code."""


class _LaunchRunMay(TypedDict, total=False):
    """What it asks for devices, and the run directory of the run before it in its lane, both as in its record."""

    gpus: Union[int, List[int]]
    after: Optional[str]
    needs: List[str]
    """Run directories there of those that it needs; absent where there are none."""


class LaunchRun(_LaunchRunMay):
    """A run to start, and the token of its submission."""

    run_dir: str
    token: str
    script: str


class LaunchRequest(CodeRequest):
    """The runs of one submission, in the order of their lane."""

    runs: List[LaunchRun]


class LaunchAnswer(Accepted):
    """By run directory: started or busy."""

    runs: Dict[str, str]


class SettleAnswer(Accepted):
    """The accepted run directories."""

    runs: List[str]


class _MovedMay(TypedDict, total=False):
    removed: List[str]
    """Of those moved the ones of which nothing is left; there where that was asked for."""


class Moved(_MovedMay):
    """Run directories that were moved aside, to where; and those that could not be."""

    moved: Dict[str, str]
    busy: List[str]
    gpu_hours: Dict[str, float]
    """What the attempts of those moved took."""


class Cancelled(TypedDict):
    """What was done, by run directory: cancelled, not running or still ending."""

    runs: Dict[str, str]
