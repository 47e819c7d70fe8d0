"""Where a run lies in this project, and whether that is a copy."""

from __future__ import annotations

import os
from pathlib import Path

from ..spec.target import Target
from ..stored_run import StoredRun
from ..study.resolve import run_directory
from .sync import record, study_in


def home_of(project: Path, run: StoredRun) -> Path:
    """Return a run's folder in this project, wherever it trains: below ``models/checkpoints``, in its study's folder or
    directly, as on its target. It doesn't depend on which study is the default today, and files of another study stay
    where they are.

    Raises:
        StoreError: What the index has of its names can't be right.
    """
    if run.misnamed is not None:
        raise run.misnamed
    folder = project / "models" / "checkpoints"
    bare, own = (run_directory(place, run.name) for place in (folder, folder / run.study))
    there = Path(run.run_dir)
    if there in (bare, own):
        return there
    home, other = (own, bare) if there.parent.name == run.study else (bare, own)
    is_at_other = record(other).get("run_dir") == run.run_dir and not record(home)
    is_anothers = study_in(home) not in ("", run.study)
    return other if is_at_other or is_anothers else home  # fetched when the default study was another one


def lies_at_home(target: Target, run: StoredRun, home: Path) -> bool:
    """Tell whether a run's directory is, perhaps by another path, the one in the project: then it has no copy."""
    if target.host:
        return False
    try:
        return os.path.samefile(run.run_dir, home)  # also through links, and where a disk is mounted twice
    except OSError:  # one of them isn't there
        return Path(run.run_dir).resolve() == home.resolve()
