"""The types of the records that stay JSON objects between reading and writing (records.py has their limits).

For type checkers alone: nothing imports this module when it runs.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict, Union

Word = Union[str, List[str]]
"""A word of a command: text, or texts and names of placeholders in turn (text, name, text, …, text)."""


class StageRecord(TypedDict):
    """A command of a run's own program."""

    name: str
    """Empty where there is one command alone."""
    words: List[Word]


class MetricsRecord(TypedDict, total=False):
    """Where a program's metrics are read."""

    lines: List[str]
    """Patterns of lines in the log."""
    files: List[str]
    """Patterns of files."""
    goal: Dict[str, str]
    """``minimize`` or ``maximize`` for each metric that is judged by, the main one first."""


class ProgramRecord(TypedDict, total=False):
    """run.json, ``program``: what a run executes in place of the built-in trainer."""

    stages: List[StageRecord]
    resume: List[Word]
    """What {resume} stands for once there is a checkpoint."""
    checkpoint: str
    """Pattern of its checkpoints, looked for in the run directory and then in the working folder."""
    best: str
    """Pattern of what fetch and clean call its best checkpoint, likewise."""
    length: Optional[str]
    """Name of the setting that says how long a run is."""
    max_steps: Optional[float]
    """Its value."""
    stop_s: float
    """Time for a checkpoint after SIGTERM."""
    cpus: int
    """CPU slots that it leases where it asks for no GPU."""
    data: List[List[str]]
    """Pairs of where the program looks for data, and where they lie."""
    settings: Dict[str, Any]
    settings_file: Optional[str]
    """Kind of the file that {settings_file} names (``json``, ``yaml``, ``toml``), and so its suffix."""
    settings_text: Optional[str]
    """Its content."""
    files: List[str]
    """Patterns of what must exist at the end."""
    metrics: MetricsRecord


class Left(TypedDict):
    """What a run that moved to another target has left on one."""

    target: str
    run_dir: str
    token: str
    """Of its newest submission there."""


class NeedRecord(TypedDict, total=False):
    """A run that another one needs, in the record of that."""

    study: str
    run: str
    run_dir: str
    """Where it lies on the same target; absent where it lies on another one, and was over."""
    token: str
    """Of its newest submission by then, or of the one that it shares."""
    when: str
    """``success`` or ``always``."""
    input: str
    """What the other run calls what it takes from it; absent where that only waits."""
    artifact: str
    """``best``, ``latest`` or a path in its run directory."""
    fingerprint: str
    """The needed run's."""
    path: str
    """Where a copy of what is taken lies, for which nothing is waited."""
    sha256: str
    """That copy's hash."""


class InputRecord(TypedDict):
    """inputs.json: what a run has begun with."""

    input: str
    study: str
    run: str
    artifact: str
    fingerprint: str
    path: str
    sha256: str
    size: int
    time: float


class InputsRecord(TypedDict):
    """inputs.json"""

    version: int
    inputs: List[InputRecord]


class LockStamp(TypedDict, total=False):
    """The lock that was in force when a run was queued."""

    hash: str
    """Of the lock's content."""
    queued_at: float
    """When, Unix seconds by the target's clock; absent until a supervisor has begun."""


class Extended(TypedDict, total=False):
    """The run that one of more steps goes on from."""

    max_steps: Optional[float]
    fingerprint: str
    before: Optional["Extended"]
    """What that one went on from."""


class Spec(TypedDict, total=False):
    """What the client's index keeps of a run's record (records.SPEC)."""

    train: Dict[str, Any]
    """Settings of the built-in trainer; absent of a script."""
    program: ProgramRecord
    """Of a script; absent of the built-in trainer."""
    code: str
    """Hash of a script's code."""
    global_batch: int
    extended_from: Optional[Extended]
    left: List[Left]
    study_file: str
    """Of a study that was named by the path of its file."""


class ClaimRecord(TypedDict, total=False):
    """claim: who executes a run (processes.Identity, and this)."""

    token: Optional[str]
    boot_id: str
    keeper: bool
    """That process holds it for a run that was not started yet."""
    after: Optional[str]
    """Run directory of the one before it in its lane, where a keeper holds it."""
    needs: Optional[List[str]]
    """Run directories of those that it needs, likewise; absent where there are none."""
    has_more_needs: bool
    """There in place of them where they would take more than a page: the launch script says which they are."""


class JobStart(TypedDict, total=False):
    """Which start of which Slurm job; on a plain host how its GPUs are shared."""

    per_gpu: int
    """So many runs could have each of its GPUs at a time, where it did not have them alone."""
    job: Optional[str]
    """Slurm's id."""
    restart: int
    nodes: List[str]


class Started(JobStart, total=False):
    """What the record of an attempt keeps of its start."""

    number: int
    token: Optional[str]
    started_at: Optional[float]
    devices: Optional[List[str]]
    host: str
    port: Optional[int]
    resumed_from: str
    """The checkpoint that a program of the user's own was given, by its name in the run directory; absent without."""
    inexact_resume: bool
    """There where nobody knows whether its result is that of a run which was never interrupted."""


class Because(TypedDict, total=False):
    """Code and values of a reason (reasons.py); nobody has checked those of a record."""

    code: Any
    values: Any


class Told(Because, total=False):
    """A reason."""

    reason: Optional[str]


class Attempt(Started, Told, total=False):
    """An attempt that is over."""

    steps: int
    state: Optional[str]
    cause: str
    """Why it ended (place.CRASH and so on); absent where its supervisor was lost."""
    ended_at: Optional[float]
    wall_s: Optional[float]
    exit_code: Optional[int]


class StartRecord(Started, total=False):
    """start.json: the newest attempt."""

    pid: int
    start_time: str
    boot_id: Optional[str]
    before: Optional[List[Attempt]]
    """Earlier attempts of the same execution, which are on no other record yet."""


class EndRecord(Told, total=False):
    """end.json: how a run stood when its last execution ended."""

    version: int
    token: Optional[str]
    state: str
    ended_at: Optional[float]
    fingerprint: Optional[str]
    attempts: List[Attempt]


class WaitingRecord(Told, total=False):
    """waiting.json: what a supervisor waits for."""

    version: int
    token: Optional[str]
    time: float


class HeartbeatRecord(Told, total=False):
    """heartbeat.json, by the trainer, of a script by the supervisor, whose reason is a remark: nobody has checked its
    numbers.
    """

    attempt: Optional[str]
    step: Any
    max_steps: Any
    loss: Any
    tokens_per_s: Any
    time: Any
    metrics: Any


class OutcomeRecord(Told, total=False):
    """outcome.json, by the trainer: nobody has checked its numbers."""

    attempt: Optional[str]
    status: Optional[str]
    step: Any
    resumed_from: Any


class ResultFile(TypedDict, total=False):
    """A file of a run that is over, or one that was not fetched."""

    name: str
    size: int
    sha256: str


class ManifestRecord(TypedDict):
    """MANIFEST.json"""

    files: List[ResultFile]


class FetchedFile(TypedDict, total=False):
    """A file that was fetched."""

    size: int
    sha256: str
    seen: List[int]


class FetchedRecord(TypedDict, total=False):
    """fetched.json"""

    version: int
    target: str
    host: str
    run_dir: str
    origin: str
    files: Dict[str, FetchedFile]
    left: List[ResultFile]
    removed: Dict[str, str]
