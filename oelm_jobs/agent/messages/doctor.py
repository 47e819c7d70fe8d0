"""What doctor asks, and what preflight has tried in a job."""

from __future__ import annotations

from typing import Dict, List, Optional, TypedDict

from .files import TokenFile
from .target import DeviceRow, Root, Tested, TicketRow, _CheckpointsMay, _EnvironmentMay, _Host


class QuotaRow(TypedDict):
    """A limit of a file system on what this user keeps there."""

    mount: str
    """Where the file system lies."""
    paths: List[str]
    """Those of the paths asked about that lie on it."""
    group: str
    """Its name; empty for the user's own."""
    used: int
    """Bytes."""
    limit: int
    files: int
    files_limit: int


class Trial(TypedDict, total=False):
    """How far the start of a run gets: set-up, interpreter, trainer."""

    setup_error: str
    line: str
    is_broken: bool
    error: str
    python: str
    wandb: bool
    torch: str
    cuda: bool
    gpus: int
    trainer_error: str
    compiling: str
    slurm_error: str


class SlurmTrialRequest(_EnvironmentMay):
    """What is tried in a job."""

    python: str
    setup: List[str]
    trial: str


class SlurmTrialAnswer(TypedDict):
    """Why it failed; empty where it didn't."""

    slurm_error: str


class _ExamineMay(_CheckpointsMay, total=False):
    code: str
    files: Optional[List[str]]
    slurm: Optional[bool]
    jobs: Optional[Dict[str, str]]


class ExamineRequest(Root, SlurmTrialRequest, _ExamineMay):
    """What is tried on a target."""

    ports: List[int]


class _ExamineAnswerMay(TypedDict, total=False):
    lease_folder: str
    lease_privacy: str
    lease_room: int
    lease_files: int
    site_error: str
    partitions: List[str]
    tests: Dict[str, Tested]


class ExamineAnswer(_Host, _ExamineAnswerMay):
    """What there is on a target."""

    agent_python: str
    user: str
    root: str
    devices: List[DeviceRow]
    queue: List[TicketRow]
    checkpoints: str
    disk_free: int
    writable: str
    locks: str
    quotas: List[QuotaRow]
    trial: Trial
    bash: str
    rsync: str
    ends_processes: bool
    wandb_login: bool
    ports_taken: List[int]
    data: Dict[str, TokenFile]
