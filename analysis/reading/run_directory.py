"""Owns reading a run directory of the toolkit into a ``LoadedRun``; leaves old folders and bare logs to ``folders``."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np

from oelm_jobs.agent.states import FINAL
from oelm_jobs.spec import TRAIN_PREFIX, State

from ..words import Text, text
from . import files
from .columns import Columns
from .loaded_run import Curve, Layer, LoadedRun, Parameters, Point, TensorGroup, Treatment, Validations

CHUNK = 8 << 20
"""Bytes of metrics.jsonl that are decoded at a time."""
STALE_S = 300.0
"""Seconds without a heartbeat after which a run without an end record isn't called running."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no record."""

_NAME = re.compile(r"(?P<group>.+?)(?:-s(?P<seed>\d+))?(?:-(?P<tag>[A-Za-z0-9_.]+))?$")
_STATUS = {"completed": State.DONE, "diverged": State.FAILED, "oom": State.FAILED, "error": State.FAILED}


def is_run_directory(path: Path) -> bool:
    """Tell whether the toolkit's files (not just a log) are there."""
    return (
        any((path / name).exists() for name in ("metrics.jsonl", ".oelm/run.json", ".oelm/outcome.json"))
        or (files.read(path / "experiment_result.json", files.Result)[0] or files.Result()).run != ""
    )


def load(path: Path, *, now: float, groups: tuple[str, ...] = (), first_seed: int | None = None) -> LoadedRun:
    """Read one run directory, finished or not.

    ``groups`` and ``first_seed`` tell apart names such as ``a-s43`` where no record names group and seed; ``now``
    (Unix seconds) decides whether a run without an end record is still running. Never raises for what the files hold:
    notes say what was not understood.
    """
    notes: list[Text] = []

    def record(name: str, form: type[files.F]) -> files.F | None:
        content, note = files.read(path / name, form)
        if note:
            notes.append(note)
        return content

    result = record("experiment_result.json", files.Result) or files.Result()
    planned = record(".oelm/run.json", files.Planned) or files.Planned()
    outcome = result.outcome or record(".oelm/outcome.json", files.Outcome) or files.Outcome()
    beat = record("heartbeat.json", files.Heartbeat)
    start = record(".oelm/start.json", files.Start)
    end = record(".oelm/end.json", files.EndRecord)
    treated = record("treatment.json", files.Treated)
    curve, validations = _metrics(path / "metrics.jsonl", notes)

    name = result.run or planned.run or planned.name or path.name.removeprefix(TRAIN_PREFIX)
    group, seed, tag = split_name(name, groups, first_seed)
    attempts = result.attempts or (end.attempts if end else [])
    status, reason = _status(result, end, outcome, start, beat, planned, now, attempts)
    final, best = _end_points(outcome, validations, status, reason)
    steps = [outcome.step, beat.step if beat else None]
    steps += [int(table.step[-1]) for table in (curve, validations) if table is not None]
    seen = [step for step in steps if step is not None]
    world_size = result.world_size or outcome.world_size or planned.world_size
    train = result.train or planned.train or outcome.config
    return LoadedRun(
        name=name,
        group=result.group or planned.group or group,
        label=result.label or planned.label,
        seed=result.seed
        if result.seed is not None
        else planned.seed
        if planned.seed is not None
        else _int(train.get("seed"), seed),
        tag=result.tag or planned.tag or tag,
        path=path,
        study=result.study or planned.study,
        status=status,
        reason=reason,
        max_steps=outcome.max_steps or (beat.max_steps if beat else None) or _int(train.get("max_steps"), None),
        last_step=max(seen) if seen else None,
        curve=curve,
        validations=validations,
        final=final,
        best=best,
        parameters=_parameters(outcome, treated),
        world_size=world_size,
        global_batch=result.global_batch or outcome.global_batch or planned.global_batch,
        tokens_per_s=outcome.tokens_per_s or steady_speed(curve),
        elapsed_hours=result.elapsed_hours if result.elapsed_hours is not None else _hours(curve, attempts),
        gpu_hours=result.gpu_hours if result.gpu_hours is not None else _gpu_hours(attempts),
        peak_gpu_mem_gb=outcome.peak_gpu_mem_gb,
        attempts=len(attempts) or None,
        factors=result.factors or planned.factors,
        train=train,
        fingerprint=result.fingerprint or planned.fingerprint,
        treatment=_treatment(treated),
        hardware={key: str(value) for key, value in outcome.hardware.items()},
        versions={key: str(value) for key, value in outcome.versions.items()},
        data=outcome.data,
        precision=outcome.precision,
        started_at=_started(result, attempts, start, curve),
        provenance={
            key: value
            for key, value in (
                ("revision", result.revision or planned.revision or str(outcome.versions.get("revision", ""))),
                ("snapshot", result.snapshot or planned.snapshot),
                ("train_code", result.train_code or planned.train_code),
                ("target", result.target or planned.target),
                ("diff", planned.diff),
            )
            if value
        },
        # A record that is just being written is nothing to report.
        notes=tuple(note for note in notes if note.key != "log_truncated" or status != State.RUNNING),
    )


def split_name(name: str, groups: tuple[str, ...], first_seed: int | None) -> tuple[str, int | None, str]:
    """Split a run's name into group, seed and tag; the longest known group that fits wins."""
    for known in sorted(groups, key=len, reverse=True):
        if name == known or name.startswith(known + "-"):
            rest = re.fullmatch(r"(?:-s(\d+))?(?:-(.+))?", name[len(known) :])
            assert rest is not None  # every tail that begins with a dash fits the second alternative
            return known, int(rest[1]) if rest[1] else first_seed, rest[2] or ""
    match = _NAME.fullmatch(name)
    if match is None:
        return name, first_seed, ""
    if match["seed"] is None:
        return name, first_seed, ""
    return match["group"], int(match["seed"]), match["tag"] or ""


def steady_speed(curve: Curve | None) -> float | None:
    """Return the median of tokens per second, the first tenth of the records (warm-up of caches and compilers) left
    out.
    """
    if curve is None:
        return None
    steady = curve.tokens_per_s[len(curve.step) // 10 :]
    steady = steady[np.isfinite(steady)]
    return float(np.median(steady)) if len(steady) else None


def _metrics(path: Path, notes: list[Text]) -> tuple[Curve | None, Validations | None]:
    train, val = Columns(), Columns(keep_lowest="loss")
    not_understood = 0
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return None, None
    except OSError as error:
        notes.append(text("file_not_understood", name=path.name, why=error.strerror or "unreadable"))
        return None, None
    with stream:
        for lines in whole_lines(stream):
            records, bad = _decode(lines)
            not_understood += bad
            _add(records, train, val)
        is_cut_off = stream.tell() > 0 and stream.seek(-1, os.SEEK_END) >= 0 and stream.read(1) != b"\n"
    if is_cut_off:
        notes.append(text("log_truncated", name=path.name))
    if not_understood:
        notes.append(text("lines_not_understood", name=path.name, count=not_understood))
    note_columns(train, notes, path.name)
    columns = train.finish()
    return Curve(**columns) if columns is not None else None, finish_validations(val)


def note_columns(train: Columns, notes: list[Text], name: str) -> None:
    """Note what was replaced or thinned while training records were collected."""
    columns = train.finish()
    if train.repeated or train.restarts:
        notes.append(text("steps_repeated", name=name, count=f"{train.repeated:,}", restarts=train.restarts))
    if columns is not None and train.last_added_step < int(columns["step"][-1]):
        notes.append(
            text("ends_earlier", name=name, step=f"{train.last_added_step:,}", reached=f"{int(columns['step'][-1]):,}")
        )
    if train.stride > 1:
        notes.append(text("rows_thinned", name=name, stride=train.stride))


def finish_validations(val: Columns) -> Validations | None:
    """Return the collected validations."""
    columns = val.finish()
    return Validations(**columns) if columns is not None else None


def whole_lines(stream: BinaryIO) -> Any:
    """Yield blocks of whole lines of at most CHUNK bytes; a last line without a newline is left out."""
    rest = b""
    while block := stream.read(CHUNK):
        cut = block.rfind(b"\n")
        if cut < 0:
            rest = (rest + block)[-(LONGEST_LINE + 1) :]
            continue
        yield rest + block[: cut + 1]
        rest = block[cut + 1 :]


_decoder = msgspec.json.Decoder(files.Metric)


def _decode(lines: bytes) -> tuple[list[files.Metric], int]:
    try:
        return _decoder.decode_lines(lines), 0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        records, bad = [], 0
        for line in lines.split(b"\n"):
            if not line.strip():
                continue
            try:
                records.append(_decoder.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                bad += 1
        return records, bad


def _add(records: list[files.Metric], train: Columns, val: Columns) -> None:
    if not records:
        return
    step = np.array([r.step for r in records], dtype=np.int64)
    tokens = np.array([r.tokens for r in records], dtype=np.float64)
    time = np.array([r.time for r in records], dtype=np.float64)
    train.add(
        {
            "step": step,
            "tokens": tokens,
            "loss": _floats([r.loss for r in records]),
            "lr": np.array([r.lr for r in records], dtype=np.float64),
            "tokens_per_s": np.array([r.tokens_per_s for r in records], dtype=np.float64),
            "time": time,
        }
    )
    rows = [i for i, r in enumerate(records) if r.val_loss is not None]
    if rows:
        val.add(
            {
                "step": step[rows],
                "tokens": tokens[rows],
                "loss": _floats([records[i].val_loss for i in rows]),
                "full": np.array([records[i].val_full for i in rows], dtype=np.bool_),
                "time": time[rows],
            }
        )


def _floats(values: list[Any]) -> Any:
    try:
        return np.array(values, dtype=np.float64)
    except ValueError:
        return np.array([files.number(value) for value in values], dtype=np.float64)


def _status(
    result: files.Result,
    end: files.EndRecord | None,
    outcome: files.Outcome,
    start: files.Start | None,
    beat: files.Heartbeat | None,
    planned: files.Planned,
    now: float,
    attempts: list[files.Attempt],
) -> tuple[str, str]:
    """Return state and reason; a start newer than the newest recorded end means that the run goes on."""
    ended = max((attempt.number for attempt in attempts), default=0)
    alive = beat is not None and now - beat.time < STALE_S
    if start is not None and attempts and start.number > ended:
        return (State.RUNNING, "") if alive else (State.UNKNOWN, "no heartbeat")
    state = result.status or (end.state if end else "")
    reason = result.reason or (end.reason if end else "")
    if outcome.status in ("diverged", "oom") and state in ("", State.FAILED):
        return State.FAILED, outcome.status
    if state:
        return state, reason
    if outcome.status:
        return _STATUS.get(outcome.status, State.UNKNOWN), outcome.reason or (
            "" if outcome.status == "completed" else outcome.status
        )
    if alive:
        return State.RUNNING, ""
    if beat is None and start is None and planned != files.Planned():
        return State.QUEUED, ""
    return State.UNKNOWN, "no heartbeat" if beat or start else "no record"


def end_points(validations: Validations | None) -> tuple[Point | None, Point | None]:
    """Return the last validation and the one with the lowest loss; a loss that isn't a number is taken as infinite."""
    if validations is None:
        return None, None
    last = len(validations.step) - 1
    final = Point(
        step=int(validations.step[last]), loss=_or_inf(validations.loss[last]), full=bool(validations.full[last])
    )
    finite = np.where(np.isfinite(validations.loss), validations.loss, np.inf)
    low = int(np.argmin(finite))
    if not math.isfinite(finite[low]):
        return final, None
    return final, Point(step=int(validations.step[low]), loss=float(finite[low]), full=bool(validations.full[low]))


def _end_points(
    outcome: files.Outcome, validations: Validations | None, status: str, reason: str
) -> tuple[Point | None, Point | None]:
    """Complete the end points by what the outcome of a finished run states."""
    final, best = end_points(validations)
    if status in FINAL:
        stated = outcome.final
        loss = files.number(stated.val_loss) if stated else None
        if stated is not None and loss is not None and (final is None or stated.step >= final.step):
            final = Point(step=stated.step, loss=_or_inf(loss), full=stated.val_full)
        stated = outcome.best
        loss = files.number(stated.val_loss) if stated else None
        if best is None and stated is not None and loss is not None and math.isfinite(loss):
            best = Point(step=stated.step, loss=loss, full=stated.val_full)
    if reason == "diverged":
        final = Point(step=outcome.step or (final.step if final else 0), loss=math.inf, full=False)
    return final, best


def _or_inf(loss: float) -> float:
    """A validation loss that isn't a number is the worst one there is."""
    return float(loss) if not math.isnan(loss) else math.inf


def _parameters(outcome: files.Outcome, treated: files.Treated | None) -> Parameters:
    counts = outcome.parameters
    if counts == files.Counts() and treated is not None:
        counts = treated.parameters
    return Parameters(**{name: getattr(counts, name) for name in files.Counts.__struct_fields__})


def _treatment(treated: files.Treated | None) -> Treatment | None:
    if treated is None:
        return None
    return Treatment(
        model_type=treated.model_type,
        freeze_qk=treated.freeze_qk,
        freeze_ffn=treated.freeze_ffn,
        qk_init=treated.qk_init,
        groups={
            name: TensorGroup(**{key: getattr(group, key) for key in files.TreatedTensors.__struct_fields__})
            for name, group in treated.groups.items()
        },
        qk_orthogonality_error=treated.qk_orthogonality_error,
        layers=tuple(Layer(name=layer.name, total=layer.total, trainable=layer.trainable) for layer in treated.layers),
    )


def _hours(curve: Curve | None, attempts: list[files.Attempt]) -> float | None:
    walls = [attempt.wall_s for attempt in attempts if attempt.wall_s is not None]
    if walls:
        return sum(walls) / 3600
    if curve is None:
        return None
    known = curve.time[np.isfinite(curve.time)]
    return float(known.max() - known.min()) / 3600 if len(known) > 1 else None


def _gpu_hours(attempts: list[files.Attempt]) -> float | None:
    parts = [
        attempt.wall_s * len(attempt.devices) for attempt in attempts if attempt.wall_s is not None and attempt.devices
    ]
    return sum(parts) / 3600 if parts else None


def _started(
    result: files.Result, attempts: list[files.Attempt], start: files.Start | None, curve: Curve | None
) -> float | None:
    known = [result.started_at, *(attempt.started_at for attempt in attempts), start.started_at if start else None]
    if curve is not None and np.isfinite(curve.time).any():
        known.append(float(np.nanmin(curve.time)))
    times = [time for time in known if time is not None]
    return min(times) if times else None


def _int(value: Any, otherwise: int | None) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else otherwise
