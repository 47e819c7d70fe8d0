"""Types of a run directory's JSON files (docs/run-directory.md) as the report reads them; treatment.json is read as a
``Treatment``.

Every field has a default, null and absent are the same, and unknown keys are ignored: a report is made of what is
there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec

from oelm_jobs.agent import reasons
from oelm_jobs.agent.sentences import Sentence, _

from .loaded_run import Parameters

NAN = float("nan")
Step = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Number = float | str
"""A float, or ``"nan"`` and ``"inf"``, which JSON can't say."""


class Metric(msgspec.Struct, frozen=True, gc=False):
    """A line of metrics.jsonl."""

    step: Step
    tokens: float = NAN
    time: float = NAN
    loss: Number = NAN
    lr: float = NAN
    tokens_per_s: float = NAN
    val_loss: Number | None = None
    val_full: bool = False


class Heartbeat(msgspec.Struct, frozen=True):
    """heartbeat.json."""

    step: Step = 0
    max_steps: Step | None = None
    time: float = NAN


class End(msgspec.Struct, frozen=True):
    """The ``final`` and ``best`` entries of an outcome."""

    step: Step = 0
    val_loss: Number | None = None
    val_full: bool = False


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
    config: dict[str, Any] = {}


class Attempt(msgspec.Struct, frozen=True):
    """An entry of a result's ``attempts``."""

    number: int = 0
    started_at: float | None = None
    wall_s: float | None = None
    devices: list[Any] = []


class Result(Told, frozen=True):
    """experiment_result.json."""

    study: str = ""
    run: str = ""
    group: str = ""
    label: str = ""
    seed: int | None = None
    tag: str = ""
    status: str = ""
    attempts: list[Attempt] = []
    elapsed_hours: float | None = None
    gpu_hours: float | None = None
    fingerprint: str = ""
    snapshot: str = ""
    revision: str = ""
    target: str = ""
    world_size: int | None = None
    global_batch: int | None = None
    train_code: str = ""
    started_at: float | None = None
    factors: dict[str, Any] = {}
    train: dict[str, Any] = {}
    outcome: Outcome | None = None


class Planned(msgspec.Struct, frozen=True):
    """run.json."""

    study: str = ""
    run: str = ""
    name: str = ""
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
    diff: str = ""


class Start(msgspec.Struct, frozen=True):
    """start.json."""

    number: int = 0
    started_at: float | None = None


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


def read(path: Path, form: type[F]) -> tuple[F | None, Sentence | None]:
    """Return the file's content (None where it is absent or not understood) and a note on what was wrong with it."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return None, not_understood(path.name, _("larger than 64 MiB"))
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, not_understood(path.name, error.strerror or _("unreadable"))
    try:
        content = _without_nulls(msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, not_understood(path.name, _first_line(error))
    try:
        return msgspec.convert(content, form), None
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
            try:
                kept[name] = msgspec.convert(content[name], kind)
            except msgspec.ValidationError:
                continue
    try:
        return form(**kept)
    except TypeError:
        return None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def number(value: Number | None) -> float | None:
    """Return a float, with the strings that stand for what JSON can't say as the floats they mean; other strings as
    NaN.
    """
    if value is None or isinstance(value, (int, float)):
        return value
    try:
        return float(value)
    except ValueError:
        return NAN
