"""The types of the JSON objects that commands print with ``--json``, by command in PRINTED.

For the tests and the reference (tools/reference): nothing imports this module when a command runs.
"""

from __future__ import annotations

from typing import Any, TypedDict

from ..agent.messages import DeviceRow, Partition, Progress, TicketRow
from ..analysis.output.result_types import Results
from ..data.token_folder import Manifest


class Printed(TypedDict):
    """What every command prints."""

    version: int
    """1; raised by a change that breaks readers."""


class WithErrors(Printed):
    """What a command about several runs prints."""

    unreachable: dict[str, str]
    """Target to why it could not be asked."""
    misread: dict[str, str]
    """``STUDY/RUN`` to why the index can't be believed about it; it was left alone."""


class Named(TypedDict):
    """A run."""

    study: str
    """Its study's name."""
    run: str
    """Its name."""


# oelm-submit ----------------------------------------------------------------------------------------------------------


class SubmittedRun(TypedDict):
    """What became of a run of a submission."""

    run: str
    """Its name."""
    state: str
    """Where it stands."""
    submitted: bool
    """False where it was left alone."""
    note: str
    """Why it was left alone; else empty."""
    run_dir: str
    """Absolute path of its folder on the target."""


class _ChosenMay(TypedDict, total=False):
    chosen: dict[str, dict[str, Any]]
    """With ``--confirm``: the values that were chosen, by group and setting."""


class Submitted(Printed, _ChosenMay):
    """A submission."""

    study: str
    """The study's name."""
    target: str
    """The target's name."""
    runs: list[SubmittedRun]
    """In their order."""


class _DivisionMay(TypedDict, total=False):
    batch_size: int
    """Of the built-in trainer: sequences per process and micro-step."""
    accumulation: int
    """Of the built-in trainer: micro-steps per step."""


class PlannedRun(_DivisionMay):
    """A run that would be submitted."""

    run: str
    """Its name."""
    group: str
    """Its group's name."""
    label: str
    """What tables call the group."""
    seed: int
    """Its seed."""
    tag: str
    """What sets it apart from the study's own: a name, a combination of a sweep, or both; empty for those."""
    gpus: int | list[int]
    """How many GPUs, or which ones."""
    world_size: int
    """Number of processes."""
    global_batch: int
    """Sequences per step; 0 where a program has its own."""
    run_dir: str
    """Absolute path of its folder on the target."""
    command: list[str | list[str]]
    """The words of its command; of several stages a list of them for each."""
    start_s: float | None
    """Seconds until it is expected to begin; null where that isn't known."""
    duration_s: float | None
    """Seconds that it is expected to take; null where no run of its group was measured there."""


class Difference(TypedDict):
    """A key that isn't the same for all groups."""

    key: str
    """Its name."""
    kind: str
    """``scientific`` or ``execution``."""
    values: dict[str, Any]
    """Value by group."""
    reason: str
    """The reason that the study declares; empty where it declares none."""
    voids: list[str]
    """Metrics that can't be compared because of it."""


class Planned(Printed, _ChosenMay):
    """A plan (``--dry-run``)."""

    study: str
    """The study's name."""
    target: str
    """The target's name."""
    mode: str
    """``sequential`` or ``parallel``."""
    executed: bool
    """False."""
    runs: list[PlannedRun]
    """In their order."""
    differences: list[Difference]
    """Of the groups, but for the factors."""


# oelm-status ----------------------------------------------------------------------------------------------------------


class ProgressOfRun(Progress, total=False):
    """What is known of a run besides its state: what the target answered, by its clock."""

    clock_ahead_s: float
    """How far the target's clock is ahead of the one here, where it is."""


class _ReasonMay(TypedDict, total=False):
    code: str
    """Which reason it is, for programs."""
    values: dict[str, Any]
    """What its sentence was filled in with, by name."""


class Run(_ReasonMay):
    """Where a run stands."""

    project: str
    """Absolute path of its project."""
    study: str
    """Its study's name."""
    name: str
    """Its name."""
    group: str
    """Its group's name."""
    label: str
    """What tables call the group."""
    seed: int
    """Its seed."""
    tag: str
    """Its tag; empty where it has none."""
    target: str
    """The target's name."""
    run_dir: str
    """Absolute path of its folder on the target."""
    fingerprint: str
    """Hash of what makes it scientifically itself."""
    state: str
    """``PLANNED``, ``QUEUED``, ``RUNNING``, ``DONE``, ``FAILED``, ``CANCELLED`` or ``UNKNOWN``."""
    reason: str
    """Why, in English; may be empty."""
    queued_at: float | None
    """When it was submitted."""
    observed_at: float | None
    """When the target last answered for it; null before the first answer."""
    max_steps: int | None
    """How many steps it takes; null where nobody says."""
    eta_s: float | None
    """Seconds that it is expected to take yet; null where that isn't known."""
    progress: ProgressOfRun
    """What else is known of it."""


class Host(TypedDict, total=False):
    """A target with ``--gpus``."""

    devices: list[DeviceRow]
    """Its GPUs, or CPU slots where it has none."""
    queue: list[TicketRow]
    """Runs that wait for devices, in their order."""
    limit: str
    """What runs are held to there (``CUDA_VISIBLE_DEVICES``, a Slurm job); empty where nothing does."""
    junk: list[str]
    """What lies in the folder of leases and is none."""
    lease_error: str
    """Why the leases can't be read."""
    disk_free: int
    """Free bytes at its root."""
    partitions: list[Partition]
    """Of a cluster."""


class HeldRun(TypedDict):
    """A run that lies on a target and isn't in the index."""

    study: str
    """Its study's name."""
    name: str
    """Its name."""
    run_dir: str
    """Its folder there."""
    state: str | None
    """Where it stands; null where that was not asked."""


class Held(TypedDict):
    """Runs of a project that a target holds and the index lacks."""

    target: str
    """The target's name."""
    project: str
    """Path of the project that submitted them, where it was then; empty where their records don't name it."""
    is_own: bool
    """Whether they are this project's."""
    runs: list[HeldRun]
    """These."""


class LeftBehind(TypedDict):
    """What a run has left on a target when it started over on another."""

    study: str
    """Its study's name."""
    name: str
    """Its name."""
    target: str
    """Where that lies."""
    run_dir: str
    """Its folder there."""


class _StatusMay(TypedDict, total=False):
    hosts: dict[str, Host]
    """Target to what it says of its devices, with ``--gpus``."""
    elsewhere: list[Held]
    """Where the index is empty or is made again: runs on targets that it lacks."""
    left: list[LeftBehind]
    """What runs that started over on another target have left behind."""


class Status(Printed, _StatusMay):
    """Where runs stand; with ``--watch`` one a line, every two seconds. ``oelm-submit --wait`` prints the last."""

    time: float
    """When it was put together."""
    runs: list[Run]
    """The runs that were asked for."""
    unreachable: dict[str, str]
    """Target to why it could not be asked; its runs keep their last state."""


# oelm-logs ------------------------------------------------------------------------------------------------------------


class LogLine(Printed, Named):
    """A line of a log."""

    offset: int
    """Where it begins, in bytes."""
    line: str
    """Its text."""


class LogEnd(Printed, Named):
    """The end of a log."""

    state: str
    """Where the run stands."""
    reason: str
    """Why."""


# oelm-cancel, oelm-forget, oelm-fetch, oelm-clean ---------------------------------------------------------------------


class CancelledRun(Named):
    """What a cancel did."""

    answer: str
    """What was done with it, in words."""


class Cancelled(WithErrors):
    """Runs that were cancelled."""

    runs: list[CancelledRun]
    """Those of targets that could be asked."""


class ForgottenRun(Named):
    """A run that was forgotten, as the [ledger](../run-directory.md#the-ledger-of-a-study) has it."""

    group: str
    """Its group's name."""
    seed: int
    """Its seed."""
    tag: str
    """Its tag; empty where it has none."""
    target: str
    """The target's name."""
    state: str
    """Where it stood."""
    metric: str | None
    """Name of its main metric; null where it told none."""
    value: float | str | None
    """The last value; ``"nan"``, ``"inf"`` and ``"-inf"`` are text."""
    step: int | None
    """The last step that it told."""
    gpu_hours: float | None
    """Over all attempts; null where the target could not be asked."""
    why: str
    """``--why``."""
    files: str
    """What was done with its files: ``archived``, ``removed``, ``none`` (there were none) or ``stays``."""
    place: str
    """Where they are on the target now, if they were moved."""
    copy: str
    """Where the copy that was fetched is now."""


class Forgotten(WithErrors):
    """Runs that were forgotten."""

    runs: list[ForgottenRun]
    """These."""


class FetchedRun(Named):
    """What a fetch did for a run."""

    state: str
    """Where it stands."""
    run_dir: str
    """Where it is at home."""
    files: int
    """Files that are here and verified."""
    bytes: int
    """Their size."""
    new_files: int
    """Files that came now."""
    new_bytes: int
    """Their size."""
    verified: bool
    """True where the run is over and all that was asked for is here, verified."""
    damaged: list[str]
    """Files that could not be had as announced."""
    left: list[str]
    """Files that stayed there, as asked."""
    note: str
    """Why nothing was fetched; else empty."""


class EarlierRun(FetchedRun):
    """What a fetch did for a run of a locked study that was started over or forgotten: its records come home."""

    target: str
    """Where it lies."""
    event: str
    """``rerun`` or ``forgotten``."""


class Fetched(WithErrors):
    """Runs that were fetched."""

    runs: list[FetchedRun]
    """Those of targets that could be reached."""
    earlier: list[EarlierRun]
    """Of locked studies, those that were started over or forgotten and whose records were not all here before."""


class _Cleanable(TypedDict):
    removable: list[str]
    """What may be removed."""
    bytes: int
    """Its size."""
    note: str
    """Why something stays; else empty."""
    removed: list[str]
    """What is gone now."""


class TakenFile(TypedDict):
    """A file that stays, since a run that isn't over takes it."""

    file: str
    """Its name."""
    study: str
    """Study of the run that takes it."""
    run: str
    """That run's name."""
    state: str
    """Where it stands."""
    more: int
    """So many others take it, too, which aren't listed."""


class CleanedRun(_Cleanable):
    """Checkpoints of a run on its target."""

    run: str
    """Its name."""
    taken: list[TakenFile]
    """What stays since others take it."""


class CleanedCode(_Cleanable):
    """Snapshots of code on a target that no run needs."""

    target: str
    """The target's name."""


class CleanedCopies(_Cleanable):
    """Copies on a target of what runs take from other targets, where no run that isn't over takes them."""

    target: str
    """The target's name."""


class Cleaned(Printed):
    """What was removed from targets, or would be."""

    executed: bool
    """False with ``--dry-run``."""
    runs: list[CleanedRun]
    """By run."""
    snapshots: list[CleanedCode]
    """By target."""
    copies: list[CleanedCopies]
    """By target."""
    misread: dict[str, str]
    """``STUDY/RUN`` to why the index can't be believed about it; it was left alone."""


# oelm-doctor, oelm-data, oelm-import-script ---------------------------------------------------------------------------


class Finding(TypedDict):
    """One thing that was looked at."""

    what: str
    """Its name."""
    verdict: str
    """``good``, ``warning`` (it works, but) or ``bad`` (a run would fail)."""
    found: str
    """What was found."""
    mend: str
    """What to do about it; may be empty."""


class Examined(Printed):
    """What was found out about a target."""

    target: str
    """Its name."""
    findings: list[Finding]
    """In the order in which a person looks."""


class Data(Printed):
    """A data folder."""

    folder: str
    """Its path."""
    manifest: Manifest | None
    """Its manifest; null where it has none."""


class ProposedStudy(TypedDict):
    """The study that is proposed."""

    name: str
    """Its name."""
    path: str
    """Its file."""
    text: str
    """What is, or would be, in it."""


class ProposedTargets(TypedDict):
    """The targets that are proposed."""

    path: str
    """The targets file."""
    names: list[str]
    """Targets that it lacks."""
    text: str
    """What is, or would be, added to it."""


class ScriptCommand(TypedDict):
    """A command of the scripts."""

    file: str
    """The script."""
    line: int
    """Its line."""
    words: list[str]
    """The command after expansion."""
    run: str
    """The run that it becomes."""
    target: str
    """And its target."""


class Undeclared(TypedDict):
    """A setting in which commands differ though nothing says so."""

    setting: str
    """Its name."""
    usual: str
    """The value that most have."""
    others: list[str]
    """Other values."""
    scripts: list[str]
    """The scripts that have these."""


class NotUnderstood(TypedDict):
    """A line that was not understood, or has no place in a study."""

    file: str
    """The script."""
    line: int
    """The line's number."""
    source: str
    """The line."""
    why: str
    """Why, in the chosen language."""


class Proposed(Printed):
    """What is proposed for scripts."""

    headline: str
    """All in a line, in the chosen language."""
    scripts: list[str]
    """The scripts that were read."""
    study: ProposedStudy
    """The study."""
    targets: ProposedTargets
    """Its targets."""
    commands: list[ScriptCommand]
    """What the scripts would start."""
    undeclared: list[Undeclared]
    """Differences that nobody declared."""
    not_understood: list[NotUnderstood]
    """Lines that are left."""
    notes: list[str]
    """What is different from the scripts, or to be looked at, in the chosen language."""
    written: list[str]
    """Files that were written (``--write``)."""


PRINTED: dict[str, tuple[type, ...]] = {
    "submit": (Submitted, Planned, Status),
    "status": (Status,),
    "logs": (LogLine, LogEnd),
    "cancel": (Cancelled,),
    "forget": (Forgotten,),
    "fetch": (Fetched,),
    "clean": (Cleaned,),
    "doctor": (Examined,),
    "data": (Data,),
    "import-script": (Proposed,),
    "report": (Results,),
}
"""Command to the objects that it may print."""
