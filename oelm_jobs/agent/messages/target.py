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
    """``gpu:0``, ``cpu:0``."""
    name: str
    """The model."""
    memory_mb: int
    """Of a GPU."""
    memory_used_mb: int
    """By whoever uses it."""
    utilisation: int
    """Percent."""
    user: str
    """Who leases it; empty where nobody does."""
    run: str
    """The run that has it."""
    holder: str
    """Who holds its lock without a ticket; else empty."""
    fault: str
    """Why it is leased to nobody; else empty."""


class _TicketMay(TypedDict, total=False):
    time: float
    """When it was submitted."""
    token: str
    """Token of its submission."""
    request: Union[int, Sequence[int]]
    """How many devices it asks for, or which ones."""
    devices: Sequence[int]
    """Those that it was given."""


class TicketRow(_TicketMay):
    """A run that waits in a host's line."""

    user: str
    """Whose it is."""
    run: str
    """Its name."""
    run_dir: str
    """Its folder there."""


class LeaseTable(TypedDict):
    """The devices of a host and its line."""

    devices: List[DeviceRow]
    queue: List[TicketRow]
    limit: str
    junk: List[str]


class Partition(TypedDict):
    """A partition of a cluster, as sinfo writes it."""

    name: str
    """Its name."""
    is_default: bool
    """Whether jobs that name none go there."""
    is_up: bool
    """Whether jobs start there."""
    takes_jobs: bool
    """Whether it accepts jobs; a drained one does not."""
    max_time: str
    """Longest time limit of a job."""
    default_time: str
    """Time limit of a job that names none."""
    nodes: int
    """How many it has."""
    gres: List[str]
    """What its nodes have (``gpu:a5000:4``)."""
    features: List[str]
    """Features of its nodes, which ``constraint`` may name."""
    qos: str
    """Its quality of service; empty where it has none."""


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
