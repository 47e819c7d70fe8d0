"""Read runs of other programs as people have them: a folder with settings and tables of metrics, whatever wrote them.

What is compared follows from the settings: those that differ make the groups, seeds apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run.rows import step_name
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.agent.states import State
from oelm_jobs.spec.study import Group, Study

from . import event_files, metric_files, series, settings
from .loaded_run import Curve, LoadedRun, Series
from .naming import group_of, seed_of
from .run_state import NO_RECORD

PART = re.compile(
    r"(?:lightning_|csv_|tb_)?logs|version_\d+|checkpoint-\d+|tensorboard|runs?|metrics|results|files|wandb"
)
"""Folders of a run's own in which its tables may lie."""
SAMPLE = 50
"""Rows among which a table has a column of steps."""
OF_RUN = re.compile(
    r"train|val|valid|eval|test|metrics?|history|log|progress|results?|scalars|trainer_state", re.IGNORECASE
)
"""How the name of a table begins that is one of several of a run."""
SEEDS = re.compile(r"(?:.*[._])?(?:(?:random|rng|manual|global|data)_?)?seed(?:_everything)?")
PLACES = re.compile(
    r"(?:.*[._])?(?:(?:out|output|save|log|logging|ckpt|checkpoint|result|results|work|run|exp|tmp|cache|default_root)"
    r"_?(?:dir|path|file|folder|root|name|id)|logdir|outdir|savedir|(?:exp|experiment|run|wandb|project|group)_?(?:name|id|run|tag)?"
    r"|timestamp|date|time|host|hostname|port|device|master_(?:addr|port)|(?:local_)?rank|pid|job_?id|resume.*|tags|notes"
    r"|wandb.*|version)",
    re.IGNORECASE,
)
"""Settings that say where and when, and what a run is called, not what was done."""
RATE = re.compile(r"(?:.*[./_-])?(?:lr|learning_rate|lr-\w+)(?:/.*)?", re.IGNORECASE)
"""Names of the learning rate, as a setting and as a metric."""
LENGTH = re.compile(r"(?:.*[._])?(?:max_|num_|n_|total_|train_)*(?:steps|epochs|iters|iterations)", re.IGNORECASE)
"""Names of the setting that says how long a run is."""
SCHEDULE = re.compile(rf"{RATE.pattern}|{LENGTH.pattern}|.*(?:warmup|sched|decay).*", re.IGNORECASE)
"""Names of settings that the learning rates follow from."""
MINIMIZED, MAXIMIZED = ("loss", "ppl", "perplexity", "error", "nll", "bpc", "bpb", "wer"), (
    "acc", "accuracy", "f1", "bleu", "auc", "rouge", "reward", "return", "score",
)  # fmt: skip
VALIDATION = ("val", "valid", "validation", "eval", "test", "dev")


def is_run(folder: Path) -> bool:
    """Tell whether a folder holds a table of metrics, or a folder of the usual names in it does."""
    return next(tables(folder), None) is not None


def files_that_are_runs(folder: Path) -> list[Path]:
    """Return the files of a folder where each is a table of a run of its own: several that are called after no part of
    one, with no settings beside them.
    """
    if not folder.is_dir() or any(settings.files_of(folder)):
        return []
    found = [path for path in sorted(folder.iterdir(), key=metric_files.in_order) if path.is_file() and is_table(path)]
    is_part = any(OF_RUN.match(path.stem) or event_files.is_events(path) for path in found)
    return found if len(found) > 1 and not is_part else []


def tables(folder: Path) -> Iterator[Path]:
    """Yield the tables of a run."""
    return metric_files.below(folder, is_table, lambda inner: PART.fullmatch(inner.name) is not None)


def is_table(path: Path) -> bool:
    """Tell whether a file has rows of numbers by step."""
    if path.stem in settings.NAMES or not metric_files.is_table(path):
        return False
    try:
        return any(step_name(row) and len(row) > 1 for row in islice(metric_files.raw(path, []), SAMPLE))
    except OSError:
        return False


def load(path: Path, root: Path, groups: Sequence[str], goals: Mapping[str, str]) -> LoadedRun:
    """Read a run: its settings, and all that its tables tell.

    Args:
        root: The folder that the user named, within which it lies; the run is called by its path in it.
        groups: Those that a name may mean, where settings don't tell the group.
        goals: Which way metrics are better, where the user says it; of others their names decide.
    """
    notes: list[Sentence] = []
    told = {} if path.is_file() else settings.read(path, notes)
    seed = next((value for name, value in told.items() if SEEDS.fullmatch(name) and type(value) is int), None)
    own = [path] if path.is_file() else list(tables(path))
    found = series.of_tables(own, lambda metric: goals.get(metric) or guessed(metric) or None, notes)
    guesses = _validations_first({name: goal for name in found if name not in goals and (goal := guessed(name))})
    if guesses:
        shown = [_("{metric}: {goal}", name, goal) for name, goal in guesses.items()]
        notes.append(_("which way a metric is better was guessed from its name ({metrics}); --goal says it", shown))
    within = path.resolve().relative_to(root.resolve()).parts if path.resolve() != root.resolve() else ()
    name = rundir.run_name("-".join(within) or path.resolve().name)
    name = name.removesuffix(path.suffix) if path.is_file() else name
    last = max((one.last.step for one in found.values() if not one.is_counted), default=None)
    return LoadedRun(
        name=name,
        group=group_of(Path(name), groups),
        label="",
        seed=seed if seed is not None else seed_of(Path(name)),
        path=path,
        source="log",
        is_script=True,
        status=State.UNKNOWN,
        reason="" if found else NO_RECORD,
        last_step=last,
        curve=_curve(found),
        series=found,
        goals=guesses,
        train={key: value for key, value in told.items() if not SEEDS.fullmatch(key)},
        notes=tuple(notes),
    )


def _curve(found: Mapping[str, Series]) -> Curve | None:
    """Return the learning rates as the audit looks at them; None where none are told."""
    rate = next((one for name, one in found.items() if RATE.fullmatch(name) and not one.is_counted), None)
    if rate is None:
        return None
    unknown = np.full(len(rate.step), np.nan)
    return Curve(step=rate.step, tokens=unknown, loss=unknown, time=unknown, lr=rate.value, tokens_per_s=unknown)


def guessed(metric: str) -> str:
    """Return which way a metric is better by its name: ``minimize`` or ``maximize``; empty where it doesn't say."""
    words = _words(metric)
    if words & {*MINIMIZED, *(f"{word}loss" for word in VALIDATION)}:
        return "minimize"
    return "maximize" if words & {*MAXIMIZED} else ""


def _validations_first(goals: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(goals.items(), key=lambda one: not _words(one[0]) & {*VALIDATION}))


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))


# Groups ---------------------------------------------------------------------------------------------------------------


def is_one(run: LoadedRun) -> bool:
    """Tell whether a run was read here."""
    return run.source == "log" and run.is_script


def differing(runs: Sequence[LoadedRun]) -> list[str]:
    """Return the settings that aren't the same for all runs that tell them, but for what only names a run or its
    place.
    """
    known = [run for run in runs if is_one(run) and run.train]
    keys = dict.fromkeys(key for run in known for key in run.train if not PLACES.fullmatch(key))
    return [key for key in keys if len({_shown(run.train.get(key)) for run in known}) > 1]


def grouped(runs: Sequence[LoadedRun], fixed: Collection[Path] = ()) -> tuple[list[LoadedRun], list[str]]:
    """Return the runs in groups of equal settings, and which settings differ between the groups; where no run tells
    settings that differ, the groups are those of the names.

    Args:
        fixed: Folders of runs whose group the user has said.
    """
    keys = differing(runs)
    short = _short(keys)
    found = []
    for run in runs:
        if is_one(run) and run.train:
            train = {key: value for key, value in run.train.items() if not PLACES.fullmatch(key)}
            told = ", ".join(f"{short[key]}={_shown(train.get(key))}" for key in keys)
            run = replace(run, train=train, group=told if told and run.path not in fixed else run.group)
        found.append(run)
    return found, keys


def _short(keys: Sequence[str]) -> dict[str, str]:
    """Return the last part of each dotted name, where that is clear."""
    last = [key.rpartition(".")[2] for key in keys]
    return {key: word if last.count(word) == 1 else key for key, word in zip(keys, last, strict=True)}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "–" if value is None else str(value)


def together(runs: Sequence[LoadedRun], keys: Sequence[str]) -> list[list[str]]:
    """Return the settings that always change together, so that nothing tells their effects apart."""
    by_pattern: dict[tuple[int, ...], list[str]] = {}
    for key in keys:
        values = [_shown(run.train.get(key)) for run in runs if is_one(run) and run.train]
        seen = list(dict.fromkeys(values))
        by_pattern.setdefault(tuple(seen.index(value) for value in values), []).append(key)
    return [members for members in by_pattern.values() if len(members) > 1]


def study_of(name: str, runs: Sequence[LoadedRun], keys: Sequence[str]) -> Study:
    """Return a study of the runs' groups, whose factors are the settings that differ."""
    groups: dict[str, Group] = {}
    for run in runs:
        factors = {key: run.train.get(key) for key in keys}
        groups.setdefault(run.group, Group(name=run.group, label=run.group, factors=factors, gpus=1, port=None))
    return Study(
        name=name, path=Path(name), question="", is_default=False, factors=tuple(keys),
        seeds=tuple(sorted({run.seed for run in runs if run.seed is not None})), global_batch=0, settings={},
        groups=groups, unequal={}, hypotheses=(), max_retries=0,
    )  # fmt: skip
