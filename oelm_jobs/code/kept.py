"""The code of submitted runs, kept in the project under its hash: what a target has of it may be out of reach, or gone,
by the time somebody asks what ran.

It is what was sent: nothing that a snapshot leaves out is in it. A file is stored once, together with those of the
snapshots of runs on this machine.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from ..agent import privacy, rundir, snapshots, trees
from ..errors import ConfigurationError
from . import snapshot
from .snapshot import Tree

FOLDER = "code"
"""Folder beside that of the snapshots of runs on this machine, which are removed once no run needs them."""
NAME = re.compile(r"[0-9a-f]{16}")


def keep(project: Path, code: Tree) -> None:
    """Keep code in the project, readable by its owner alone.

    Raises:
        OSError: It can't be written.
        trees.Busy: Others take their time.
        trees.Damaged: A file has changed since.
    """
    control = project / rundir.CONTROL
    with privacy.confined(""):
        control.mkdir(exist_ok=True)
        privacy.ignore(str(control))
        snapshot.keep(code, control / FOLDER)


def find(project: Path, names: Iterable[str]) -> Iterator[tuple[str, Tree | None]]:
    """Yield the code of hashes, each file of it read anew: what was kept of it, else the project's files where they
    are still the same; None where it isn't here, or isn't what its hash says.
    """
    now: dict[str, Tree] | None = None
    for name in names:
        places = (project / rundir.CONTROL / folder / name for folder in (FOLDER, snapshots.FOLDER))
        found = next(filter(None, map(_whole, places)), None) if NAME.fullmatch(name) else None
        if found is None and now is None:
            now = _now(project)
        yield name, found or (now or {}).get(name)


def _now(project: Path) -> dict[str, Tree]:
    """Return the project's files as they are, by their hash; nothing where one can't be read: they ran nowhere so."""
    found: dict[str, Tree] = {}
    for is_script in (False, True):
        with contextlib.suppress(ConfigurationError):
            taken = snapshot.take(project, is_script=is_script)
            found[taken.hash] = taken
    return found


def _whole(place: Path) -> Tree | None:
    """Return the files of a kept tree, if their hash is its name. A disk may not tell what is executable."""
    try:
        names = trees.files_of(str(place)) if place.is_dir() else None
        if names is None:
            return None
        found = snapshot.tree((name, place / name) for name in names)
    except OSError:
        return None
    guesses: list[Callable[[str], bool]] = [
        lambda name: found.held[name].startswith(b"#!"), lambda name: False, lambda name: True,
    ]  # fmt: skip
    looks = [found.rows, *(tuple((name, guess(name), sha256) for name, _, sha256 in found.rows) for guess in guesses)]
    rows = next((rows for rows in looks if trees.name_of(rows) == place.name), None)
    return None if rows is None else replace(found, rows=rows, hash=place.name)
