"""Owns finding runs: a study's run directories, or folders that the user names; leaves reading one to ``rundir`` and ``folders``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from oelm_jobs.errors import UsageError, valid_choices
from oelm_jobs.spec import TRAIN_PREFIX, Study

from . import rundir
from .records import LoadedRun


def load_study_runs(study: Study, folder: Path, *, at: float | None = None) -> list[LoadedRun]:
    """Read every run directory of a study below its checkpoint folder (``models/checkpoints[/<study>]``), by name."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.glob(f"{TRAIN_PREFIX}*") if path.is_dir())
    return load_directories(found, study=study, at=at)


def load_directories(paths: Iterable[Path], *, study: Study, at: float | None = None) -> list[LoadedRun]:
    """Read run directories."""
    moment = now(at)
    groups: Sequence[str] = tuple(study.groups)
    first = study.seeds[0] if study.seeds else None
    return [rundir.load(path, now=moment, groups=tuple(groups), first_seed=first) for path in paths]


def select(runs: Sequence[LoadedRun], names: Sequence[str]) -> list[LoadedRun]:
    """Return the runs whose name or group is among ``names``; all without names.

    Raises:
        UsageError: A name fits no run.
    """
    if not names:
        return list(runs)
    known = {run.name for run in runs} | {run.group for run in runs}
    for name in names:
        if name not in known:
            raise UsageError(f"{name!r} names no group or run that is here; {valid_choices(name, known)}")
    return [run for run in runs if run.name in names or run.group in names]


def output_folder(project: Path, study: Study) -> Path:
    """Return where a study's report goes: ``experiments/analysis`` for the default one, ``experiments/<study>/analysis`` for others."""
    folder = project / "experiments"
    return (folder if study.is_default else folder / study.name) / "analysis"


def summary_path(project: Path, study: Study) -> Path:
    """Return where a study's summary goes."""
    folder = project / "experiments"
    return (folder if study.is_default else folder / study.name) / f"{study.name}_summary.json"


def user_style(project: Path) -> Path | None:
    """Return the project's own style file, where it has one."""
    path = project / "templates" / "report.mplstyle"
    return path if path.is_file() else None


def now(fixed: float | None = None) -> float:
    """Return the time that staleness is judged by; SOURCE_DATE_EPOCH fixes it (reproducible-builds.org)."""
    if fixed is not None:
        return fixed
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    return float(given) if given.isdigit() else time.time()
