"""Read runs from anything tabular: the columns that the user names, of CSV files, JSON or TensorBoard's events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from oelm_jobs.agent import rundir
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import UsageError, valid_choices

from . import metric_files, series
from .loaded_run import LoadedRun
from .naming import group_of, seed_of
from .run_state import NO_RECORD

_PART = re.compile(r"(?:lightning_|csv_|tb_)?logs|version_\d+|checkpoint-\d+|tensorboard|work|wandb|\..*")
"""Folders that trackers make inside of a run's."""
OF_RUN = " - "
"""Stands between the names of run and column where W&B's page exports several runs."""
EXAMPLE = _("for example: --columns step=Step,val_loss=eval_loss")
SAMPLE = 5000
"""Rows among which a column has to have a number."""


def columns_of(words: Sequence[str]) -> dict[str, str]:
    """Return the columns of ``METRIC=COLUMN,…`` by metric.

    Raises:
        UsageError: A word has no sign of equality, or none names a metric.
    """
    found: dict[str, str] = {}
    for word in (part.strip() for each in words for part in each.split(",") if part.strip()):
        name, sign, column = word.partition("=")
        if not (name and sign and column):
            raise UsageError(_("--columns {word}: give METRIC=COLUMN", word), hint=EXAMPLE)
        found[name] = column
    if not set(found) - {"step"}:
        raise UsageError(_("--columns names no metric"), hint=EXAMPLE)
    return found


def find_runs(paths: Sequence[Path], columns: Mapping[str, str]) -> list[Path]:
    """Return the runs at the given paths, of the tables there those that have a column that was named: a file is one,
    as is a folder with tables below it that lies in a given folder; else the folder itself, or each of its files.

    Raises:
        UsageError: A path doesn't exist, or no table there has a column.
    """
    found: list[Path] = []
    seen: dict[str, None] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(_("--from {path}: there is no such folder", str(path)))
        if path.is_file():
            found += [path] if _fits(path, columns, seen) else []
            continue
        inner = sorted(path.iterdir(), key=metric_files.in_order)
        own = [child for child in inner if child.is_file() and _fits(child, columns, seen)]
        below = [child for child in inner if child.is_dir() and next(_tables(child, columns, seen), None)]
        runs = [child for child in below if not _PART.fullmatch(child.name)]
        found += runs or ([path] if below else own if len(own) > 1 else [path] if own else [])
    if not found:
        wanted = ", ".join(column for metric, column in columns.items() if metric != "step")
        raise UsageError(
            _("no table there has a column {columns}; {choices}", wanted, valid_choices(wanted, list(seen))),
            hint=_("a table is a file *.csv, *.tsv, *.jsonl, *.ndjson or *.json, or one of TensorBoard's events"),
        )
    return list(dict.fromkeys(found))


def _fits(path: Path, columns: Mapping[str, str], seen: dict[str, None]) -> bool:
    """Tell whether a file is a table with a column that was named; note in ``seen`` which it has."""
    if not metric_files.is_table(path):
        return False
    wanted = tuple(column for metric, column in columns.items() if metric != "step")
    try:
        for row in islice(metric_files.raw(path, []), SAMPLE):
            seen.update(dict.fromkeys(row))
            if any(name in wanted or name.endswith(tuple(OF_RUN + column for column in wanted)) for name in row):
                return True
    except OSError:
        return False
    return False


def _tables(folder: Path, columns: Mapping[str, str], seen: dict[str, None]) -> Iterator[Path]:
    """Yield the tables in a folder and in those below it."""
    return metric_files.below(folder, lambda path: _fits(path, columns, seen))


def load(
    path: Path, columns: Mapping[str, str], groups: Sequence[str], goals: Mapping[str, str], group: str = ""
) -> list[LoadedRun]:
    """Read a run, or the runs of one table that W&B's page exported.

    Args:
        goals: Which way metrics are better, where the user says it.
        group: What the user says it is; otherwise its name decides.
    """
    tables = [path] if path.is_file() else list(_tables(path, columns, {}))
    seen: dict[str, None] = {}
    for row in islice(metric_files.raw(tables[0], []), SAMPLE) if len(tables) == 1 else ():
        seen |= dict.fromkeys(row)
    found: dict[str, dict[str, str]] = {}
    for metric, column in columns.items():
        for name in seen if column not in seen else ():
            if metric != "step" and name.endswith(OF_RUN + column):
                found.setdefault(name[: -len(OF_RUN + column)], dict(columns))[metric] = name
    if not found:
        return [_load(tables, path, path, columns, groups, goals, group)]
    return [_load(tables, path, Path(run.replace("/", "_")), own, groups, goals, group) for run, own in found.items()]


def _load(
    tables: Sequence[Path],
    path: Path,
    named: Path,
    columns: Mapping[str, str],
    groups: Sequence[str],
    goals: Mapping[str, str],
    group: str,
) -> LoadedRun:
    """Read one run, whose name, group and seed are those of ``named``."""
    notes: list[Sentence] = []
    found = series.of_tables(tables, lambda metric: goals.get(metric, ""), notes, columns)
    name = named.stem if named.is_file() else rundir.run_name(named.resolve().name)
    lacking = [f"{metric}={column}" for metric, column in columns.items() if metric != "step" and metric not in found]
    if lacking:
        notes.append(_("{run} has no column for {columns}", name, lacking))
    steps = [told.last.step for told in found.values() if not told.is_counted]
    return LoadedRun(
        name=name,
        group=group or group_of(named, groups),
        label="",
        seed=seed_of(named),
        path=path,
        source="log",
        is_script=True,
        reason="" if found else NO_RECORD,
        last_step=max(steps, default=None),
        series={metric: found[metric] for metric in columns if metric in found},
        notes=tuple(notes),
    )
