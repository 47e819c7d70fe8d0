"""What index, records and ledgers of a project have of runs beside those that a study's verdicts rest on."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oelm_jobs import ledger
from oelm_jobs.agent import records, rundir
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from oelm_jobs.ledger import Entry
from oelm_jobs.spec.study import Study
from oelm_jobs.stored_run import StoredRun

from .audit.locked import is_judged
from .reading import files

if TYPE_CHECKING:
    from oelm_jobs.agent.record_types import Extended

Token = tuple[str, str]
"""Name of a run, and the token of its submission."""
CLOCKS_S = 60.0
"""Clocks of two machines may differ by so much."""


@dataclass(kw_only=True, eq=False)
class Other:
    """What is known of a run that decides nothing in a study: of another one, or forgotten, or with a tag."""

    study: str
    run: str
    seed: int
    fingerprints: Collection[str]
    """Its own, and those of the shorter runs that it went on from."""
    settings: Mapping[str, Any]
    """Empty where they aren't known."""
    global_batch: int = 0
    step: int | None = None
    """How far it came, where its settings aren't known."""
    is_gone: bool = False
    known: Sequence[float | None] = ()
    """Unix seconds by which it had been queued, by the clock here."""
    stored: StoredRun | None = None
    places: Sequence[Path] = ()
    """Where its files may lie here."""

    @cached_property
    def queued_at(self) -> float | None:
        """Unix seconds by which it had been queued; None where nothing tells."""
        times = [*self.known]
        if self.stored is not None:
            progress = self.stored.progress
            if not progress and self.stored.state not in (State.QUEUED, State.RUNNING):
                return None  # it was never there
            started = progress.get("started_at")
            times += [self.stored.queued_at, started - progress.get("clock_ahead_s", 0.0) if started else None]
        found = (records.RUN.read_if_sound(place) for place in self.places)
        for record in found:
            if record is not None and (record.study, record.run) == (self.study, self.run) and record.queued_at:
                times.append(record.queued_at + CLOCKS_S)
        return min((at for at in times if at and math.isfinite(at)), default=None)

    @cached_property
    def test(self) -> str:
        """The hash of its test file; empty where nothing tells."""
        for place in self.places:
            result, _note = files.read(place / rundir.RESULT, files.Result)
            if result is not None and result.study == self.study and result.outcome is not None:
                return str(result.outcome.data.get("test_sha256") or "")
        return ""


def of_others(
    project: Path, study: Study, seeds: Collection[int | None], stored: Sequence[StoredRun], tokens: Collection[Token]
) -> Iterator[Other]:
    """Yield what index, records and ledgers have of runs with some seeds, but for those that may decide in a study.

    Args:
        tokens: Of those that decide, which may have been moved aside.
    """
    folder = project / "models" / "checkpoints"
    known: set[str] = set()
    tokens = {*tokens, *((row.name, row.token) for row in stored if row.study == study.name)}
    for row in stored:
        name = rundir.TRAIN_PREFIX + row.name
        places = [row.run_dir, f"{folder}/{row.study}/{name}", f"{folder}/{name}"]
        known.update(places)
        if row.seed in seeds and not _may_decide(study, row):
            row = row.without_misread()
            if row.is_script is (study.program is not None):
                yield Other(
                    study=row.study,
                    run=row.name,
                    seed=row.seed,
                    fingerprints=_chain(row.fingerprint, row.extended_from),
                    settings=row.settings,
                    global_batch=int(row.spec["global_batch"]),
                    stored=row,
                    places=[*map(Path, places)],
                )
    for path in _run_directories(folder):
        record = records.RUN.read_if_sound(path) if str(path) not in known else None
        if record is None or record.study == "" or record.seed not in seeds:
            continue
        is_gone = path.parent.name == rundir.ARCHIVE
        if _is_of(record, tokens, study) if is_gone else _may_decide(study, record):
            continue
        if (record.program is not None) is (study.program is not None):
            program = record.program or {}
            yield Other(
                study=record.study, run=record.run, seed=record.seed,
                fingerprints=_chain(record.fingerprint, record.extended_from),
                settings=program.get("settings", {}) if record.program is not None else record.train,
                global_batch=record.global_batch, is_gone=is_gone, places=[path],
            )  # fmt: skip
    for entry in ledger.read_all(project):
        if entry.seed in seeds and entry.fingerprint and not (_is_of(entry, tokens, study) or _never_was(entry)):
            yield Other(
                study=entry.study, run=entry.run, seed=entry.seed,
                fingerprints=_chain(entry.fingerprint, entry.extended_from), settings=entry.settings,
                global_batch=entry.global_batch, step=entry.step, is_gone=True, known=[entry.time, entry.queued_at],
            )  # fmt: skip


def _may_decide(study: Study, run: StoredRun | RunRecord) -> bool:
    """Tell whether a run that is there may decide in a study, or may have: what was queued when is told of it then."""
    return run.study == study.name and run.group in study.groups and is_judged(study, run)


def _is_of(one: RunRecord | Entry, tokens: Collection[Token], study: Study) -> bool:
    """Tell whether what was moved aside, or a line of a ledger, is of one of a study's submissions."""
    return one.study == study.name and (one.run, one.token) in tokens


def _never_was(entry: Entry) -> bool:
    """Tell whether nothing of a run was there to be seen: it was cancelled while it waited."""
    return entry.files == ledger.NONE and entry.step is None and entry.value is None and not entry.has_result


def _chain(fingerprint: str, extended: Extended | None) -> set[str]:
    """Return the fingerprints of a run and of those that it went on from."""
    found = {fingerprint}
    while extended:
        found.add(str(extended.get("fingerprint") or ""))
        extended = extended.get("before")
    return found - {""}


def _run_directories(folder: Path) -> Iterator[Path]:
    """Yield the run directories below the project's checkpoints, those that were moved aside too."""
    for place in [folder, *(each for each in _folders(folder) if each.name != rundir.ARCHIVE)]:
        if place == folder or not place.name.startswith(rundir.TRAIN_PREFIX):
            for inner in (place, place / rundir.ARCHIVE):
                yield from (path for path in _folders(inner) if path.name.startswith(rundir.TRAIN_PREFIX))


def _folders(place: Path) -> Iterable[Path]:
    with suppress(OSError):
        return sorted(Path(entry.path) for entry in os.scandir(place) if entry.is_dir())
    return ()
