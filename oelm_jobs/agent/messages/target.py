"""A target: its devices and who waits for them, a cluster's partitions and accounts."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, TypedDict, Union


class Root(TypedDict):
    """A request about a root."""

    root: str


class _CheckpointsMay(TypedDict, total=False):
    checkpoint_root: str


class _EnvironmentMay(TypedDict, total=False):
    environment: Optional[Dict[str, str]]


class DeviceRow(TypedDict):
    """A device of a host, and who has it."""

    label: str
    name: str
    memory_mb: int
    memory_used_mb: int
    utilisation: int
    user: str
    run: str
    holder: str
    fault: str


class _TicketMay(TypedDict, total=False):
    time: float
    token: str
    request: Union[int, Sequence[int]]
    devices: Sequence[int]


class TicketRow(_TicketMay):
    """A run that waits in a host's line."""

    user: str
    run: str
    run_dir: str


class LeaseTable(TypedDict):
    """The devices of a host and its line."""

    devices: List[DeviceRow]
    queue: List[TicketRow]
    limit: str
    junk: List[str]


class Partition(TypedDict):
    """A partition of a cluster, as sinfo writes it."""

    name: str
    is_default: bool
    is_up: bool
    takes_jobs: bool
    """A drained one does not."""
    max_time: str
    default_time: str
    nodes: int
    gres: List[str]
    features: List[str]
    qos: str


class Accounting(TypedDict):
    """What sacctmgr says of this user: its default account, associations, all accounts, qualities of service."""

    users: List[Dict[str, str]]
    accounts: List[Dict[str, str]]
    groups: List[Dict[str, str]]
    qualities: List[Dict[str, str]]


class _SiteMay(TypedDict, total=False):
    kill_wait_s: float
    """From Slurm's SIGTERM to its SIGKILL."""


class Site(Accounting, _SiteMay):
    """What bears on submissions to a cluster."""

    version: str
    cluster: str
    partitions: List[Partition]
    is_enforced: bool
    """Whether Slurm takes jobs of known accounts alone."""
    is_limited: bool
    """Whether it keeps to their limits."""
    max_array: int
    """Tasks."""


class Unsent(TypedDict, total=False):
    """Why sbatch took no script: one of these."""

    refused: str
    limit: str
    unknown: str


class Tested(Unsent, total=False):
    """What sbatch would make of a job: when it would start, or why it would not."""

    starts_in_s: float
    options: List[str]
    """The long options that it knows, where it does not know one."""


class _HostMay(TypedDict, total=False):
    lease_error: str
    limit: str
    junk: List[str]
    site: Site


class _Host(_HostMay):
    host: str
    time: float
