"""The types of what the agent's verbs are asked and answer (verbs.py has their limits).

For type checkers alone: nothing imports this module when it runs.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple, TypedDict, Union

from .record_types import Because, ResultFile

# Parts ------------------------------------------------------------------------------------------------------------


class Progress(TypedDict, total=False):
    """What is said of a run besides its state."""

    token: Optional[str]
    devices: Optional[List[str]]
    started_at: Optional[float]
    ended_at: Optional[float]
    attempt: Optional[int]
    place: Optional[int]
    absent: Optional[bool]
    job: Optional[str]
    starts_at: Optional[float]
    step: Optional[int]
    max_steps: Optional[int]
    loss: Optional[float]
    val_loss: Optional[float]
    tokens_per_s: Optional[float]
    heartbeat_at: Optional[float]
    metrics: Optional[Dict[str, Union[float, str]]]
    """Last values of a script; what JSON has no number for is ``nan``, ``inf`` or ``-inf``."""


class Stand(TypedDict):
    """State of a run."""

    state: str
    reason: Optional[str]


class RunRow(Progress, Because, Stand):
    """Where a run stands."""


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


class TokenFile(TypedDict, total=False):
    """What a data file holds, or why that isn't known."""

    manifest: Optional[Dict[str, Any]]
    manifest_error: str
    size: int
    written_as: str
    sha256: str
    largest: int
    at: int
    error: str


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


class Accepted(TypedDict):
    """Whether a submission was: accepted, repeated, settled or lacking (its code is gone)."""

    answer: str


class Root(TypedDict):
    """A request about a root."""

    root: str


class Submission(Root):
    """A request about a submission."""

    token: str


class _MovedMay(TypedDict, total=False):
    removed: List[str]
    """Of those moved the ones of which nothing is left; there where that was asked for."""


class Moved(_MovedMay):
    """Run directories that were moved aside, to where; and those that could not be."""

    moved: Dict[str, str]
    busy: List[str]
    gpu_hours: Dict[str, float]
    """What the attempts of those moved took."""


class _ArchiveMay(TypedDict, total=False):
    below: Sequence[str]
    """Folders: what is moved aside is removed, each only if it lies below one of them."""


class RunDirs(TypedDict):
    """A request about run directories."""

    run_dirs: Sequence[str]


class ArchiveRequest(_ArchiveMay):
    """A request to move run directories aside."""

    run_dirs: Sequence[str]


class Cancelled(TypedDict):
    """What was done, by run directory: cancelled, not running or still ending."""

    runs: Dict[str, str]


class _EnvironmentMay(TypedDict, total=False):
    environment: Optional[Dict[str, str]]


class _CodeMay(_EnvironmentMay, total=False):
    snapshot: Optional[str]


class _CheckpointsMay(TypedDict, total=False):
    checkpoint_root: str


# A plain host -----------------------------------------------------------------------------------------------------


class _LaunchRunMay(TypedDict, total=False):
    """What it asks for devices, and the run directory of the run before it in its lane, both as in its record."""

    gpus: Union[int, List[int]]
    after: Optional[str]


class LaunchRun(_LaunchRunMay):
    """A run to start, and the token of its submission."""

    run_dir: str
    token: str
    script: str


class CodeRequest(Submission, _CodeMay):
    """A submission of runs of some code."""


class LaunchRequest(CodeRequest):
    """The runs of one submission, in the order of their lane."""

    runs: List[LaunchRun]


class LaunchAnswer(Accepted):
    """By run directory: started or busy."""

    runs: Dict[str, str]


class SettleAnswer(Accepted):
    """The accepted run directories."""

    runs: List[str]


class ProbeRequest(RunDirs, total=False):
    """``root``: the host is asked about, too."""

    root: str


class _HostMay(TypedDict, total=False):
    lease_error: str
    limit: str
    junk: List[str]
    site: Site


class _Host(_HostMay):
    host: str
    time: float


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


# Slurm --------------------------------------------------------------------------------------------------------------


class _ScriptMay(TypedDict, total=False):
    after: Optional[int]


class Script(_ScriptMay):
    """A script for sbatch."""

    position: int
    name: str
    script: str
    run_dirs: List[str]


class SlurmSubmitRequest(CodeRequest):
    """The scripts of one submission."""

    jobs: List[Script]


class Sent(Unsent, total=False):
    """What became of a script: its job's id, or why it has none."""

    id: str


_KeptMay = TypedDict("_KeptMay", {"try": int}, total=False)


class Kept(Sent, _KeptMay, total=False):
    """That, as it is kept: with the number of the try that found no room, and the time."""

    time: float


class SlurmSubmitAnswer(Accepted):
    """By position, as text."""

    jobs: Dict[str, Sent]


class SlurmSettleAnswer(SettleAnswer):
    """And why the others were not."""

    refused: Dict[str, str]


class SlurmCancelRequest(Root):
    """Runs as pairs of run directory and token."""

    runs: Sequence[Sequence[str]]


class SlurmPollRequest(SlurmCancelRequest, _CheckpointsMay, total=False):
    """Those whose end is known, how old the queue may be, and whether the cluster is asked about, too."""

    ended: Sequence[str]
    interval_s: float
    host: bool


class SlurmTrialRequest(_EnvironmentMay):
    """What is tried in a job."""

    python: str
    setup: List[str]
    trial: str


class SlurmTrialAnswer(TypedDict):
    """Why it failed; empty where it didn't."""

    slurm_error: str


# Files --------------------------------------------------------------------------------------------------------------


class FindRequest(Root, _CheckpointsMay):
    """Where records are looked for."""


class FindAnswer(TypedDict):
    """The records of runs, which nobody has judged yet (names.what_is_wrong)."""

    runs: List[Dict[str, object]]


class _DataMay(TypedDict, total=False):
    whole: Optional[bool]


class DataRequest(Root, _DataMay):
    """Data files that are looked at."""

    files: List[str]


class DataAnswer(TypedDict):
    """By path."""

    files: Dict[str, TokenFile]


class _EachMay(TypedDict, total=False):
    each: bool


class ContentRequest(Root, _EachMay):
    """Files and folders that are hashed; ``each``: what is in folders is told one by one."""

    files: List[str]


class Content(TypedDict, total=False):
    """What a file or a folder holds, or why that isn't known."""

    size: int
    sha256: str
    files: Dict[str, str]
    arriving: str
    error: str


class ContentAnswer(TypedDict):
    """By path."""

    files: Dict[str, Content]


class ExpectRequest(TypedDict):
    """Where a data file is to lie."""

    folder: str
    name: str
    link: bool


class ExpectAnswer(TypedDict, total=False):
    """Where to put it meanwhile; or ``error``."""

    staging: str
    link: str
    free: int
    rsync: str
    error: str


class AcceptRequest(TypedDict):
    """Data files that have arrived, with their hashes."""

    staging: str
    folder: str
    files: Dict[str, str]


class AcceptAnswer(TypedDict):
    """Their names, by what was done with them."""

    placed: List[str]
    damaged: List[str]
    taken: List[str]


class _HadMay(TypedDict, total=False):
    have: Optional[Dict[str, str]]


class Had(_HadMay):
    """A run, and the hashes of what is known of it here."""

    run_dir: str


class InventoryRequest(TypedDict):
    """Runs that are to be fetched, with which of their checkpoints."""

    runs: List[Had]
    checkpoints: str


class _AnnouncedMay(TypedDict, total=False):
    content: str
    source: str


class Announced(_AnnouncedMay):
    """A file that there is."""

    name: str
    size: int
    sha256: str
    grows: bool


class _HeldMay(TypedDict, total=False):
    path: str
    absent: Optional[bool]


class Held(_HeldMay, Stand):
    """What a run directory holds."""

    files: List[Announced]
    left: List[ResultFile]
    gone: List[str]
    final: bool
    origin: str


class InventoryAnswer(TypedDict):
    """By run directory."""

    rsync: str
    runs: Dict[str, Held]


class ReleaseRequest(TypedDict):
    """Files that were kept for a fetch, by run directory."""

    runs: Dict[str, List[str]]


class Nothing(TypedDict):
    """An answer that says nothing."""


class Removable(TypedDict):
    """Files of a run that lie at home, with size and hash."""

    run_dir: str
    files: Dict[str, Tuple[int, str]]


class RemoveRequest(TypedDict):
    """Files to remove."""

    runs: List[Removable]


class Freed(TypedDict):
    """What was removed, and the bytes that it took."""

    removed: List[str]
    freed: int


class Removed(Freed):
    """What was removed of a run, and why the rest was kept."""

    kept: Dict[str, str]


class RemoveAnswer(TypedDict):
    """By run directory."""

    runs: Dict[str, Removed]


class SnapshotsRequest(Root, _CheckpointsMay, total=False):
    """``young_s``: how old what is unused must be."""

    young_s: float


class SnapshotsAnswer(TypedDict):
    """Names of snapshots that nobody needs, the bytes they take, and why some could not be judged."""

    unused: List[str]
    freed: int
    note: str


class DiscardRequest(SnapshotsRequest):
    """Snapshots to remove."""

    names: List[str]


# Doctor -------------------------------------------------------------------------------------------------------------


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
