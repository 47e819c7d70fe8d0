"""Tell group and seed from the name of a run's folder or file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from oelm_jobs.agent import rundir

SEED = re.compile(r"[-_.]?s(?:eed)?[-_]?(\d{1,6})(?=$|[-_.])", re.IGNORECASE)


def group_of(path: Path, groups: Sequence[str]) -> str:
    """Return the known group whose name the folder's name contains (the longest), else the folder's own name without
    ``exp_``.
    """
    name = (path.stem if path.is_file() else path.resolve().name).lower()
    name = rundir.run_name(name)
    plain = re.sub(r"[^a-z0-9]", "", name)
    for known in sorted(groups, key=len, reverse=True):
        if re.sub(r"[^a-z0-9]", "", known.lower()) in plain:
            return known
    return SEED.sub("", name) or name


def seed_of(path: Path) -> int | None:
    """Return the seed that a folder's or file's name tells; None where it tells none."""
    named = SEED.search(path.stem if path.is_file() else path.resolve().name)
    return int(named[1]) if named else None
