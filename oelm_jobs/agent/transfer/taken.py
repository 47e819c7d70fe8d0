"""What runs that are not over take from others, so that nobody removes it: where it lies, and which run it is."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Collection, Dict, Iterable, List, NamedTuple, Optional, Tuple, cast

from .. import records, rundir
from ..run import inputs
from ..run_record import RunRecord
from ..sentences import _
from ..states import State
from .uses import Use, Uses

if TYPE_CHECKING:
    from .. import messages
    from ..record_types import NeedRecord

    _Row = Tuple[str, str, NeedRecord]
    """Study and name of a run, and a need of it."""


NAMED = 3
"""So many of those that take one file are named; thousands may start from one model."""


class Taken(NamedTuple):
    """A file or a folder that a run takes from another one."""

    run_dir: str
    """Of that other one, as the record of the run that takes it has it; empty of a copy."""
    name: str
    """The file's or folder's name there; of a copy its path."""
    study: str
    run: str
    """Of the run that takes it."""
    state: str
    """Where that stands."""


def taken(uses: Uses) -> Tuple[List[Taken], str]:
    """Return what runs that are not over take, and why they may take anything; empty where that is known."""
    scripts = _Scripts(uses.with_needs)
    doubt = ""
    if uses.unread:
        doubt = _(
            "what {path} says can't be understood, and what its runs may take stays: move it away once none of its runs"
            " is alive (oelm-status)",
            uses.unread,
        )
    who = {run_dir: rows for run_dir, use in uses.newest.items() if (rows := scripts.of(run_dir, use))}
    found = [(row, state) for run_dir, state in uses.not_over(who).items() for row in who[run_dir]]
    for run_dir, use in uses.unanswered:
        found += [(row, State.UNKNOWN) for row in scripts.of(run_dir, use)]
        if not os.path.exists(use.script):
            doubt = doubt or _("a submission there has no answer yet: what its runs may take stays (oelm-status)")
    names_of = functools.lru_cache(maxsize=None)(_names)
    places = []
    for (study, run, need), state in found:
        run_dir = need.get("run_dir") or ""
        if need.get("path"):
            places.append(Taken("", need["path"], study, run, state))
        else:
            names = names_of(run_dir, need.get("artifact") or "")
            places += [Taken(run_dir, name, study, run, state) for name in names]
    return list(dict.fromkeys(places)), doubt


def _names(run_dir: str, artifact: str) -> List[str]:
    """Return the name of an artifact in its run directory, and of what that leads to, if it is a link."""
    made = inputs.find(run_dir, artifact)
    if not made:
        return []
    real = os.path.relpath(os.path.realpath(made), os.path.realpath(run_dir))
    return list(dict.fromkeys([os.path.relpath(made, run_dir), real]))


class _Scripts:
    """The records in launch scripts, each read once."""

    def __init__(self, with_needs: Collection[str]) -> None:
        self._with_needs = with_needs
        self._known: Dict[str, Dict[str, RunRecord]] = {}

    def of(self, run_dir: str, use: Use) -> List[_Row]:
        """Return study and name of a run with each of its needs by which it takes something, as its launch script and
        its own record say.
        """
        if use.script not in self._known:
            held = rundir.records_of(Path(use.script), '"needs"')
            sound = [RunRecord.of(each) for each in held if records.RUN.shape.wrong(each) is None]
            self._known[use.script] = {record.run_dir: record for record in sound}
        begun = records.RUN.read_if_sound(run_dir) if run_dir in self._with_needs else None
        both = [record for record in (self._known[use.script].get(run_dir), begun) if record is not None]
        rows = [(record, need) for record in both for need in record.needs or ()]
        return [(record.study, record.run, need) for record, need in rows if need.get("input")]


def told(rows: Iterable[Taken]) -> List[messages.Taken]:
    """Return what is said of those that take something of a run: of each file the first few, the last of them with the
    number of the others.
    """
    by_place: Dict[Tuple[str, str], List[Taken]] = {}
    for row in rows:
        if row.run_dir:
            by_place.setdefault((row.run_dir, row.name), []).append(row)
    said: List[messages.Taken] = []
    for those in by_place.values():
        said += [cast("messages.Taken", row._asdict()) for row in those[:NAMED]]
        if those[NAMED:]:
            said[-1]["more"] = len(those[NAMED:])
    return said


class Takers:
    """Who takes what, to be looked up."""

    def __init__(self, rows: Iterable[Taken]) -> None:
        self._real = functools.lru_cache(maxsize=None)(os.path.realpath)
        self._rows: Dict[Tuple[str, str], Taken] = {}
        for row in rows:
            if row.run_dir:
                self._rows.setdefault((self._real(row.run_dir), row.name), row)

    def of(self, run_dir: str, name: str) -> Optional[Taken]:
        """Return who takes a file of a run, or a folder that it lies in; None where nobody does."""
        real = self._real(run_dir)
        while name:
            row = self._rows.get((real, name))
            if row is not None:
                return row
            name = name.rpartition("/")[0]
        return None
