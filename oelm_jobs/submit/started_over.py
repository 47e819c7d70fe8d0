"""Runs that start over: the study's ledger has a line of what each was, on the disk before anything is moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import ledger
from ..ledger import Entry
from ..runs.locations import never_was
from ..stored_run import StoredRun
from .decide import Take

if TYPE_CHECKING:
    from ..agent import messages


def record(project: Path, takes: Sequence[Take], before: Mapping[str, StoredRun], why: str) -> list[Entry]:
    """Write lines of the runs that are about to start over; return them.

    Args:
        before: What runs were, by name.
        why: In the user's words.

    Raises:
        LocalError: The ledger can't be written; nothing may be moved.
    """
    entries = list(_entries(project, takes, before, why))
    if entries:  # all of one plan, so of one study
        ledger.append(project, entries[0].study, entries)
    return entries


def _entries(project: Path, takes: Sequence[Take], before: Mapping[str, StoredRun], why: str) -> Iterator[Entry]:
    studies = {run.study for run in before.values()} if any(take.gone is not None for take in takes) else set()
    told = {(one.run, one.token) for study in studies for one in ledger.read(project, study)}
    for take in takes:
        known = before.get(take.run.name)
        if known is None or never_was(known):
            continue
        if take.moved_from is not None:
            yield ledger.entry_of(known, event=ledger.RERUN, why=why, files=ledger.STAYS)
        elif take.archives:
            yield ledger.entry_of(known, event=ledger.RERUN, why=why, files=ledger.MOVING)
        elif take.gone is not None and (known.name, known.token) not in told:
            # else it was moved, and what was to follow it was not submitted
            yield ledger.entry_of(known, event=ledger.RERUN, why=why, files=ledger.NONE)


def complete(project: Path, entries: Sequence[Entry], answer: messages.Moved | None, copies: Mapping[str, str]) -> None:
    """Write the lines anew, with where files are now and what they cost.

    Args:
        answer: What the target says of what it moved; None where nothing had to be.
        copies: Where on this machine what was fetched of runs is now, by their names.

    Raises:
        LocalError: The ledger can't be written.
    """
    moved = answer["moved"] if answer is not None else {}
    hours = answer["gpu_hours"] if answer is not None else {}
    completed = [
        _completed(entry, moved, hours, copies)
        for entry in entries
        if entry.files == ledger.MOVING or entry.run in copies
    ]
    if completed:
        ledger.append(project, completed[0].study, completed)


def _completed(entry: Entry, moved: Mapping[str, str], hours: Mapping[str, float], copies: Mapping[str, str]) -> Entry:
    entry = replace(entry, copy=copies.get(entry.run, ""))
    if entry.files != ledger.MOVING:
        return entry
    place = moved.get(entry.run_dir, "")
    files = ledger.ARCHIVED if place else ledger.NONE
    return replace(entry, files=files, place=place, gpu_hours=hours.get(entry.run_dir))
