"""Types of a run directory's JSON files (docs/run-directory.md) as the report reads them; treatment.json is read as a
``Treatment``.

Every field has a default, null and absent are the same, and unknown keys are ignored: a report is made of what is
there.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec

from oelm_jobs.agent import reasons
from oelm_jobs.agent.sentences import Sentence, _

from .loaded_run import Parameters

NAN = float("nan")
Step = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Metric(msgspec.Struct, frozen=True, gc=False):
    """A line of metrics.jsonl; read without ``strict``, since ``"nan"`` and ``"inf"`` stand for what JSON can't say."""

    step: Step
    tokens: float = NAN
    time: float = NAN
    loss: float = NAN
    lr: float = NAN
    tokens_per_s: float = NAN
    val_loss: float | None = None
    val_full: bool = False
    val_loss_sampled: float = NAN


class Heartbeat(msgspec.Struct, frozen=True):
    """heartbeat.json."""

    step: Step = 0
    max_steps: Step | None = None
    time: float = NAN


class End(msgspec.Struct, frozen=True):
    """The ``final`` and ``best`` entries of an outcome."""

    step: Step = 0
    val_loss: float | None = None
    val_full: bool = False
    test_loss: float | None = None


class Told(msgspec.Struct, frozen=True):
    """What a record of an end says of why."""

    reason: str = ""
    code: Any = None
    values: Any = None

    @property
    def why(self) -> str:
        """The reason; a sentence where the record has its code."""
        return reasons.read({"reason": self.reason, "code": self.code, "values": self.values})


class Outcome(Told, frozen=True):
    """outcome.json."""

    status: str = ""
    step: Step | None = None
    max_steps: Step | None = None
    final: End | None = None
    best: End | None = None
    parameters: Parameters = Parameters()
    tokens_per_s: float | None = None
    peak_gpu_mem_gb: float | None = None
    world_size: int | None = None
    global_batch: int | None = None
    data: dict[str, Any] = {}
    hardware: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    precision: str = ""
    compiled: bool | None = None
    config: dict[str, Any] = {}


class Attempt(msgspec.Struct, frozen=True):
    """An entry of a result's ``attempts``; of one that goes on, start.json knows the first four."""

    number: int = 0
    started_at: float | None = None
    per_gpu: int = 1
    inexact_resume: bool = False
    wall_s: float | None = None
    devices: list[Any] = []


class Metrics(msgspec.Struct, frozen=True):
    """Where a script tells its metrics."""

    lines: list[str] = []
    """Patterns of lines of its log."""
    files: list[str] = []
    """Patterns of names of files, in the run directory or in the working folder."""
    goal: dict[str, str] = {}
    """``minimize`` or ``maximize``, by metric."""


class Program(msgspec.Struct, frozen=True):
    """What run.json says of a script; of the built-in trainer nothing."""

    max_steps: Step | None = None
    settings: dict[str, Any] = {}
    metrics: Metrics = Metrics()


class LockStamp(msgspec.Struct, frozen=True):
    """The lock that was in force when a run was queued."""

    hash: str = ""
    queued_at: float | None = None


class Planned(Told, frozen=True):
    """run.json; the result says the same of the run, and adds how it ended."""

    study: str = ""
    run: str = ""
    group: str = ""
    label: str = ""
    seed: int | None = None
    tag: str = ""
    target: str = ""
    world_size: int | None = None
    global_batch: int | None = None
    factors: dict[str, Any] = {}
    train: dict[str, Any] = {}
    fingerprint: str = ""
    snapshot: str = ""
    revision: str = ""
    train_code: str = ""
    name: str = ""
    diff: str = ""
    program: Program | None = None
    queued_at: float | None = None
    lock: LockStamp | None = None


class Result(Planned, frozen=True):
    """experiment_result.json."""

    status: str = ""
    attempts: list[Attempt] = []
    elapsed_hours: float | None = None
    gpu_hours: float | None = None
    started_at: float | None = None
    outcome: Outcome | None = None


class EndRecord(Told, frozen=True):
    """end.json."""

    state: str = ""
    attempts: list[Attempt] = []


F = TypeVar("F")
LARGEST_JSON = 64 << 20
"""Bytes; a larger record is not one of ours."""


def not_understood(name: str, why: str) -> Sentence:
    """Return what is said of a file that can't be read, or isn't what its name promises."""
    return _("{name} was not understood: {why}", name, why)


def cut_off(name: str) -> Sentence:
    """Return what is said of a file whose last line is half written."""
    return _("the last line of {name} is cut off and was left out", name)


def record_cut_off(name: str) -> Sentence:
    """Return the note on a last record that is shorter than its length says."""
    return _("the last record of {name} is cut off and was left out", name)


def is_cut_off(note: Sentence) -> bool:
    """Tell whether a note is one of these."""
    return note.template in (cut_off("").template, record_cut_off("").template)


def read(
    path: Path, form: type[F], decode: Callable[[bytes], Any] = msgspec.json.decode
) -> tuple[F | None, Sentence | None]:
    """Return the file's content (None where it is absent or not understood) and a note on what was wrong with it."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a FIFO would wait for a writer for ever
            return None, not_understood(path.name, _("it is no file"))
        if found.st_size > LARGEST_JSON:
            return None, not_understood(path.name, _("larger than 64 MiB"))
        content = _without_nulls(decode(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, not_understood(path.name, error.strerror or _("unreadable"))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return None, not_understood(path.name, _first_line(error))
    try:
        return msgspec.convert(content, form, strict=False), None
    except msgspec.ValidationError as error:
        return _fields(content, form), not_understood(path.name, _first_line(error))


def _without_nulls(content: Any) -> Any:
    """Return the content with null entries of objects left out: null and absent both mean unknown."""
    if isinstance(content, dict):
        return {key: _without_nulls(value) for key, value in content.items() if value is not None}
    return [_without_nulls(item) for item in content] if isinstance(content, list) else content


def _fields(content: Any, form: type[F]) -> F | None:
    """Return the record with the fields that are of the right type, the others left at their defaults."""
    if not isinstance(content, dict) or not (known := get_type_hints(form, include_extras=True)):
        return None
    kept = {}
    for name, kind in known.items():
        if name in content:
            with suppress(msgspec.ValidationError):
                kept[name] = msgspec.convert(content[name], kind, strict=False)
    return form(**kept)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
