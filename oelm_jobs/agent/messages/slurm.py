"""Runs on Slurm: their jobs' submission, where they stand, their end."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, TypedDict

from .runs import Accepted, CodeRequest, SettleAnswer
from .target import Root, Unsent, _CheckpointsMay


class _NeededMay(TypedDict, total=False):
    when: str


class Needed(_NeededMay):
    """A run that those of a script need, and the token of its submission."""

    run_dir: str
    token: str


class _ScriptMay(TypedDict, total=False):
    after: Optional[int]
    needs: List[Needed]
    """Those that are not over; absent where there are none."""


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
