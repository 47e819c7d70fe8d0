"""The types of the records that stay JSON objects between reading and writing (records.py has their limits).

For type checkers alone: nothing imports this module when it runs.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypedDict


class Process(TypedDict, total=False):
    """A process (processes.Identity)."""

    pid: int
    start_time: str
    boot_id: str
    host: str


class ClaimRecord(Process, total=False):
    """claim: who executes a run."""

    token: Optional[str]


class JobStart(TypedDict, total=False):
    """Which start of which Slurm job; empty on a plain host."""

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


class HeartbeatRecord(TypedDict, total=False):
    """heartbeat.json, by the trainer: nobody has checked its numbers."""

    attempt: Optional[str]
    step: Any
    max_steps: Any
    loss: Any
    tokens_per_s: Any
    time: Any


class OutcomeRecord(Told, total=False):
    """outcome.json, by the trainer: nobody has checked its numbers."""

    attempt: Optional[str]
    status: Optional[str]
    step: Any
    resumed_from: Any


class ResultFile(TypedDict):
    """A file of a run that is over."""

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


class LeftFile(TypedDict, total=False):
    """A file that was not fetched."""

    name: str
    size: int
    sha256: str


class FetchedRecord(TypedDict, total=False):
    """fetched.json"""

    version: int
    target: str
    host: str
    run_dir: str
    origin: str
    files: Dict[str, FetchedFile]
    left: List[LeftFile]
    removed: Dict[str, str]
