"""How a word of a command line may go on, for a shell's completion: studies, groups, runs, targets, settings.

Names come from files and from a look at the index of runs in which nothing is written, made or waited for. What is
imported is paid for at every press of the key: ``store``, the index's own module, would take longer than a shell may.
What can't be read knows no names, or is the caller's to pass over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .folders import find_project, index_path, study_files, target_files

MOST = 300
"""Names of runs that are offered at a time."""
BUSY_S = 0.2
"""How long another command that is writing the index is waited for."""
_LAST = "\U0010ffff"
"""Follows whatever a name may go on with."""


def studies(begin: str) -> list[str]:
    """Return the studies that begin so: of files, and of runs whose file is gone."""
    project = _project()
    return _beginning(begin, (path.stem for path in study_files(project)), _studies_of_runs(project))


def runs(begin: str, study: str | None = None, *, studies: bool = True) -> list[str]:
    """Return the groups and runs that were submitted and begin so; of ``STUDY/`` its runs.

    Args:
        study: Only of this one.
        studies: Studies, too, where all are meant.
    """
    project = _project()
    if "/" in begin:
        study, _, begin = begin.partition("/")
        return [f"{study}/{name}" for name in _runs(project, begin, [study])]
    own = [study] if study else _studies_of_runs(project)
    above = own if studies and not study else []
    return _beginning(begin, above, _groups_of_runs(project, begin, own), _runs(project, begin, own))


def groups(begin: str, study: str | None = None) -> list[str]:
    """Return the groups of a study's file that begin so, in a list with commas, too.

    Args:
        study: As a command takes it; None for the default study.
    """
    given, comma, last = begin.rpartition(",")
    found = _beginning(last, _study(study).get("groups", {}))
    return [given + comma + name for name in found if name not in given.split(",")]


def states(begin: str) -> list[str]:
    """Return the states of runs that begin so, in a list with commas, too."""
    from .agent.states import State

    given, comma, last = begin.rpartition(",")
    return [given + comma + state for state in State.__members__ if state.startswith(last.upper())]


def targets(begin: str) -> list[str]:
    """Return the targets that begin so."""
    from . import tomlfile  # here: the index is read without it

    found = ["local"]
    for path in target_files(_project()):
        with contextlib.suppress(Exception):  # the others' names may be known all the same
            found += tomlfile.tables(path)
    return _beginning(begin, found)


def settings(begin: str, study: str | None = None) -> list[str]:
    """Return the settings that may be changed of a study and begin so (``max_`` goes on to ``max_lr=``), or the values
    of one where only some are valid.

    Args:
        study: As for ``groups``.
    """
    from .programs.settable import settable

    found = settable(_study(study))
    key, equals, _ = begin.partition("=")
    if not equals:
        return _beginning(key.replace("-", "_"), [f"{name}=" for name in found])
    return _beginning(begin, [f"{key}={value}" for value in found.get(key, ())])


def _beginning(begin: str, *several: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(name for names in several for name in names) if name.startswith(begin)]


def _project() -> Path:
    return find_project(Path.cwd())


def _study(name: str | None) -> dict[str, Any]:
    """Return the tables of a study; without a name those of the default study, or of the only one in ``jobs/``."""
    from . import tomlfile

    if name and name.endswith(".toml"):
        return tomlfile.tables(Path(name))
    paths = study_files(_project())
    if name:
        return tomlfile.tables(next(path for path in paths if path.stem == name))
    own = [path for path in paths if path.parent.name == "jobs"] or paths  # as load_study has it
    if len(own) == 1:
        return tomlfile.tables(own[0])
    for path in paths:
        with contextlib.suppress(Exception):
            tables = tomlfile.tables(path)
            if tables.get("default") is True:
                return tables
    return {}


# The index ------------------------------------------------------------------------------------------------------------


def _runs(project: Path, begin: str, studies: Iterable[str]) -> list[str]:
    """Return the names of runs that begin so, sorted; of too many the first and the last, so that what all of them have
    in common is what those returned have in common.
    """
    condition = "WHERE project = ? AND study = ? AND name >= ? AND name < ?"  # as the primary key has them sorted
    found: set[str] = set()
    for study in studies:
        values = (str(project), study, begin, begin + _LAST)
        own = _query(f"SELECT name FROM run {condition} ORDER BY name LIMIT {MOST}", *values)
        found.update(own, _query(f"SELECT max(name) FROM run {condition}", *values) if len(own) == MOST else ())
    names = sorted(found)
    return names if len(names) <= MOST else [*names[:MOST], names[-1]]


def _groups_of_runs(project: Path, begin: str, studies: Sequence[str]) -> list[str]:
    """Return the groups that begin so. A run's name begins with its group's: of ten thousand runs only those that are
    called so need to be looked at.
    """
    if not begin:  # all need to be, which is done sooner in the order in which they lie
        chosen = ", ".join("?" * len(studies))
        query = f'SELECT DISTINCT "group" FROM run NOT INDEXED WHERE project = ? AND study IN ({chosen})'
        return _query(query, str(project), *studies)
    query = 'SELECT DISTINCT "group" FROM run WHERE project = ? AND study = ? AND name >= ? AND name < ?'
    return [group for study in studies for group in _query(query, str(project), study, begin, begin + _LAST)]


def _studies_of_runs(project: Path) -> list[str]:
    """Return the studies that have runs, each found behind the one before it and not among all runs."""
    found: list[str] = []
    query = "SELECT min(study) FROM run WHERE project = ? AND study > ?"
    while behind := _query(query, str(project), found[-1] if found else ""):
        found += behind
    return found


def _query(query: str, *values: str | None) -> list[str]:
    """Return the first column of what a query finds; nothing where the index is not there, locked or damaged."""
    import sqlite3  # here: what stands in files needs none

    address = f"file:{quote(str(index_path().absolute()))}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_S)) as index:
            return [str(name) for (name,) in index.execute(query, values) if name is not None]
    except sqlite3.Error:
        return []
