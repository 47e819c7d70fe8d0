"""Find run folders below those that the user names, and read old ones: a log, perhaps with small result files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.reasons import because, codes
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.agent.states import State
from oelm_jobs.errors import UsageError

from . import files, foreign, metrics, run_directory, run_files, settings
from .columns import Column
from .loaded_run import DIVERGED, Curve, LoadedRun, Parameters, Point, Validations
from .log_lines import fact
from .log_patterns import KEYS, WORDS
from .logs import Log
from .naming import SEED, group_of, seed_of
from .numbers import is_finite, positive
from .run_state import NO_RECORD

DEPTH = 4
"""Folders below one that is named in which runs are looked for."""
LOG_NAMES = (rundir.LOG, "train.log")
LOG_PATTERNS = ("*.log", "*.out", "*.err", "logs/*.log", "logs/*.out", "logs/*.err")
RESULT_NAMES = (rundir.RESULT, "timing_stats.json", "results.json", "config.json", "args.json", "run_config.json")
OUT, ERR = ".out", ".err"
_PART = re.compile(
    r"[-_.]?(?:\d{4}-\d\d-\d\d\S*|\d{4,}(?=_\d+$)|\d{4,})$|^\d+$"
    r"|(?:^|[-_.])(?:slurm|job|part|rank|node|log|out|attempt|restart|train)[-_.]?\d+$"
)
"""How the name of a log ends that goes on from another: the number of a job, of a rank or a part, a date."""
_OF_ANY = re.compile(
    r"(?:train(?:ing)?|val|eval|test|main|log|output|out|std(?:out|err)|err(?:or)?|console|debug|nohup)?"
)
"""What the log of any run is called."""
HOURS = ("elapsed_hours", "total_hours", "total_time_hours", "hours")
SECONDS = ("elapsed_seconds", "total_time", "total_seconds", "total_time_s", "training_time", "elapsed_s")
"""Keys under which result files state how long a run took."""

_STATES = {
    **dict.fromkeys(("completed", "complete", "success", "done", "finished"), State.DONE),
    **dict.fromkeys(("failed", "error", "oom", DIVERGED, "timeout"), State.FAILED),
    "cancelled": State.CANCELLED,
}
"""What a result file's ``status`` may say."""


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Return the run folders (or log files) at or below the given paths, in order; what lies below a run is its own.

    Raises:
        UsageError: A path doesn't exist, or nothing that looks like a run lies there.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(
                _("--from {path}: there is no such folder", str(path)),
                hint=_("give a folder with a training.log, or one of run folders"),
            )
        if path.is_file() or is_run(path):
            found += files_that_are_runs(path) or [path]
            continue
        below = list(runs_below(path, DEPTH))
        if not below:
            raise UsageError(
                _("--from {path}: neither this folder nor one below it holds a run", str(path)),
                hint=_(
                    "a run folder has a log (training.log, *.log, *.out, *.err) or a table of metrics by step (*.csv,"
                    " *.jsonl, trainer_state.json, TensorBoard's events); --columns names the columns of other tables"
                ),
            )
        found += below
    return [path for path in dict.fromkeys(found) if not (path.suffix == ERR and path.with_suffix(OUT) in found)]


def runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the run folders below a folder, in order."""
    try:
        inner = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:  # it is closed to this user
        return
    for child in inner:
        if is_run(child):
            yield from files_that_are_runs(child) or [child]
        elif depth > 1:
            yield from runs_below(child, depth - 1)


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds a run, the toolkit's, an old one, or another program's."""
    is_own = run_files.exists(folder) or bool(log_files(folder)) or (folder / rundir.RESULT).is_file()
    return is_own or foreign.is_run(folder)


def files_that_are_runs(folder: Path) -> list[Path]:
    """Return the files of a folder where each is a run of its own: tables, or logs whose names tell groups or seeds
    apart; none where they are parts of one run.
    """
    return foreign.files_that_are_runs(folder) or _logs_that_are_runs(folder)


def _logs_that_are_runs(folder: Path) -> list[Path]:
    logs = log_files(folder) if folder.is_dir() else []
    is_one = run_files.exists(folder) or any((folder / name).is_file() for name in RESULT_NAMES)
    if len(logs) < 2 or is_one or any(settings.files_of(folder)):
        return []
    by_stem = {path.with_suffix(""): path for path in logs}  # of a job's .err and .out the latter, which reads both
    told = {(_PART.sub("", SEED.sub("", path.name)), seed_of(path)) for path in by_stem}
    are_parts = any(_OF_ANY.fullmatch(name) and seed is None for name, seed in told)
    return list(by_stem.values()) if len(told) > 1 and not are_parts else []


def log_files(folder: Path) -> list[Path]:
    """Return the logs to read, in the order of writing: training.log alone where it exists, else all logs by the
    numbers in their names.

    Of one Slurm job, ``.err`` (progress bars, mostly) comes before ``.out``, whose records then win.
    """
    for name in LOG_NAMES:
        if (folder / name).is_file():
            return [folder / name]
    found = {path for pattern in LOG_PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return sorted(found, key=lambda path: (_numbers(path.stem), path.stem, path.suffix != ".err", path.name))


def load(path: Path, *, now: float, groups: Sequence[str], first_seed: int | None, group: str = "") -> LoadedRun:
    """Read one folder (or log file); ``group`` is what the user says it is, otherwise its name decides."""
    if path.is_dir() and run_files.exists(path):
        run = run_directory.load(path, now=now, groups=groups, first_seed=first_seed)
        if not group or (group == run.group and not run.study):
            return run
        # The user's word overrides the record, also about the study.
        return replace(run, group=group, label=run.label if group == run.group else "", tag="", study="")
    return _old(path, group or group_of(path, groups))


def _old(path: Path, group: str) -> LoadedRun:
    notes: list[Sentence] = []
    is_file = path.is_file()
    logs = [*_beside(path), path] if is_file else log_files(path)
    log = Log()
    for file in logs:
        try:
            log.read(file)
        except OSError as error:
            notes.append(files.not_understood(file.name, error.strerror or _("unreadable")))
    name = ", ".join(file.name for file in logs[:3]) + (" …" if len(logs) > 3 else "")
    if not logs:
        notes.append(_("there is no log"))
    notes += _log_notes(log, name)
    results = {} if is_file else _results(path, notes)
    config = {key: value for key, value in log.facts.items() if key in KEYS}
    stated = {key: _setting(key, value) for key, value in results.items() if key in KEYS}
    config |= {key: value for key, value in stated.items() if value is not None}
    status, reason = _status(results, log, config.get("max_steps"))
    world, sequences, seed = (config.pop(key, None) for key in ("world_size", "global_batch", "seed"))
    if sequences is None and world and config.get("batch_size"):
        sequences = world * config["batch_size"] * (config.get("gradient_accumulation_steps") or 1)
    per_step = sequences * config["seq_len"] if sequences and config.get("seq_len") else math.nan
    trained, validated = log.train.finish(), log.val.finish()
    curve = Curve(**trained, **_unlogged(trained, per_step)) if trained else None
    validations = None
    if validated:
        full, unknown = np.zeros(len(validated["step"]), dtype=np.bool_), np.full(len(validated["step"]), math.nan)
        validations = Validations(**validated, **_unlogged(validated, per_step), full=full, sampled=unknown)
    metrics.note_columns(log.train, notes, name)
    final, best = run_directory.end_points(validations)
    # Finite losses after a NaN mean that the weights are sound, or that training resumed from before it.
    if log.is_nan_at_end or DIVERGED in codes(reason):
        reason = because(DIVERGED)
        final = Point(step=int(curve.step[-1]) if curve is not None else 0, loss=math.inf)
    plain = path.stem if is_file else path.resolve().name
    seconds = _number(results, *SECONDS)
    hours = _number(results, *HOURS) or (seconds / 3600 if seconds else None)
    return LoadedRun(
        name=plain if is_file else rundir.run_name(plain),
        group=group,
        label="",
        seed=seed if isinstance(seed, int) else seed_of(path),
        path=path,
        source="log",
        status=status,
        reason=reason,
        max_steps=config.get("max_steps"),
        last_step=max((int(table.step[-1]) for table in (curve, validations) if table is not None), default=None),
        curve=curve,
        validations=validations,
        final=final,
        best=best,
        parameters=_parameters(log.facts, results, config),
        world_size=world,
        global_batch=sequences,
        tokens_per_s=_number(results, "tokens_per_s", "tokens_per_second", "throughput") or metrics.steady_speed(curve),
        elapsed_hours=hours,
        gpu_hours=hours * world if hours is not None and world else None,
        peak_gpu_mem_gb=_number(results, "peak_gpu_mem_gb", "peak_memory_gb"),
        checkpoint_bytes=None if is_file else _checkpoint_bytes(path),
        train=config,
        notes=tuple(notes),
    )


def _beside(path: Path) -> list[Path]:
    """Return the .err of a job's .out."""
    other = path.with_suffix(ERR)
    return [other] if path.suffix == OUT and other.is_file() else []


def _log_notes(log: Log, files_read: str) -> list[Sentence]:
    name, count = files_read or "–", "{:,}".format
    notes = (
        (
            log.not_understood,
            _(
                "{count} of {lines} lines of {name} are no records "
                "({alike} of them look like one and aren't understood)",
                count(log.not_understood), count(log.lines), name, count(log.alike),
            ),
        ),
        (log.overwritten, _("{count} progress bars of {name} were passed over", count(log.overwritten), name)),
        (
            log.disagreeing,
            _(
                "in {count} validations of {name} the PPL isn't exp(loss): the loss was taken",
                count(log.disagreeing), name,
            ),
        ),
        (log.is_truncated, files.cut_off(name)),
        (log.encoding, _("{name} is {encoding} text and was read as such", name, log.encoding)),
        (log.not_finite, _("{count} lines of {name} tell a loss that isn't finite", count(log.not_finite), name)),
        (not log.train.added and not log.val.added, _("{name} holds no record of a step", name)),
    )  # fmt: skip
    return [note for applies, note in notes if applies]


def _unlogged(columns: Mapping[str, Column], tokens_per_step: float) -> dict[str, Column]:
    """Return the columns that no log has."""
    step = columns["step"]
    return {"tokens": step * tokens_per_step, "time": np.full(len(step), math.nan)}


def _results(folder: Path, notes: list[Sentence]) -> dict[str, Any]:
    """Return the plain values of the small result files, those of nested tables included; earlier files win."""
    found: dict[str, Any] = {}
    for name in RESULT_NAMES:
        content, note = files.read(folder / name, dict, json.loads)  # which knows the NaN that Python writes
        if note:
            notes.append(note)
        for key, value in _flat(content or {}).items():
            found.setdefault(key, value)
    return found


def _flat(content: Mapping[str, Any], depth: int = 2) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and depth:
            for inner, nested in _flat(value, depth - 1).items():
                found.setdefault(inner, nested)
        elif isinstance(value, (str, int, float, bool)):
            found[str(key)] = value
    return found


def _status(results: Mapping[str, Any], log: Log, planned: float | None) -> tuple[str, str]:
    stated = str(results.get("status", "")).lower()
    if stated in _STATES:
        return _STATES[stated], "" if _STATES[stated] == State.DONE else stated
    reached = max(log.train.last_added_step, log.val.last_added_step)
    if "complete" in log.facts or (planned and 0 < planned <= reached):
        return State.DONE, ""
    return State.UNKNOWN, NO_RECORD if reached < 0 else ""


def _number(results: Mapping[str, Any], *keys: str) -> float | None:
    return next((value for key in keys if (value := positive(results.get(key))) is not None), None)


def _parameters(facts: Mapping[str, Any], results: Mapping[str, Any], config: Mapping[str, Any]) -> Parameters:
    counts: dict[str, int | None] = {}
    for kind in ("total", "trainable", "frozen"):
        key = f"{kind}_params"
        value = facts.get(key, results.get(key, results.get(f"{kind}_parameters")))
        counts[kind] = int(value) if is_finite(value) and value >= 0 else None
    total, trainable, frozen = counts.values()
    if frozen is None and total is not None and trainable is not None:
        frozen = total - trainable
    if trainable is None and total is not None and frozen is not None:
        trainable = total - frozen
    shape = [n for n in (config.get(key) for key in ("vocab_size", "seq_len", "d_model")) if isinstance(n, int)]
    embedding = (shape[0] + shape[1]) * shape[2] if len(shape) == 3 else None
    return Parameters(total=total, trainable=trainable, frozen=frozen, embedding=embedding)


def _setting(key: str, value: Any) -> Any:
    """Return a configuration's value from a result file; None where it isn't of the key's kind."""
    value = fact(key, value) if isinstance(value, str) else value
    return value if key in WORDS or is_finite(value) else None


def _checkpoint_bytes(folder: Path) -> int | None:
    """Return the size of the newest numbered checkpoint (best_model.pt often has no optimizer state)."""
    found = [(_numbers(path.stem), path) for path in folder.glob("checkpoint*.pt") if path.is_file()]
    return max(found)[1].stat().st_size if found else None


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d{1,12}", name))
