"""What index, records and ledgers of a project have of the runs of other studies."""

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
from oelm_jobs.agent.states import State
from oelm_jobs.spec.study import Study
from oelm_jobs.stored_run import StoredRun

from .reading import files

if TYPE_CHECKING:
    from oelm_jobs.agent.record_types import Extended

CLOCKS_S = 60.0
"""Clocks of two machines may differ by so much."""


@dataclass(kw_only=True, eq=False)
class Other:
    """What is known of a run of another study."""

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
    project: Path, study: Study, seeds: Collection[int | None], stored: Sequence[StoredRun]
) -> Iterator[Other]:
    """Yield what index, records and ledgers have of runs of other studies with some seeds."""
    folder = project / "models" / "checkpoints"
    known: set[str] = set()
    for row in stored:
        name = rundir.TRAIN_PREFIX + row.name
        places = [row.run_dir, f"{folder}/{row.study}/{name}", f"{folder}/{name}"]
        known.update(places)
        if row.study != study.name and row.seed in seeds:
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
    for path in _run_directories(folder, study.name):
        record = records.RUN.read_if_sound(path) if str(path) not in known else None
        if record is None or record.study in ("", study.name) or record.seed not in seeds:
            continue
        if (record.program is not None) is (study.program is not None):
            program = record.program or {}
            yield Other(
                study=record.study, run=record.run, seed=record.seed,
                fingerprints=_chain(record.fingerprint, record.extended_from),
                settings=program.get("settings", {}) if record.program is not None else record.train,
                global_batch=record.global_batch, is_gone=path.parent.name == rundir.ARCHIVE, places=[path],
            )  # fmt: skip
    for entry in ledger.read_all(project):
        if entry.study != study.name and entry.seed in seeds and entry.fingerprint:
            yield Other(
                study=entry.study, run=entry.run, seed=entry.seed, fingerprints=[entry.fingerprint], settings={},
                step=entry.step, is_gone=True, known=[entry.time, entry.queued_at],
            )  # fmt: skip


def _chain(fingerprint: str, extended: Extended | None) -> set[str]:
    """Return the fingerprints of a run and of those that it went on from."""
    found = {fingerprint}
    while extended:
        found.add(str(extended.get("fingerprint") or ""))
        extended = extended.get("before")
    return found - {""}


def _run_directories(folder: Path, own: str) -> Iterator[Path]:
    """Yield the run directories below the project's checkpoints, those that were moved aside too, but for the folder
    of a study.
    """
    for place in [folder, *(each for each in _folders(folder) if each.name not in (own, rundir.ARCHIVE))]:
        if place == folder or not place.name.startswith(rundir.TRAIN_PREFIX):
            for inner in (place, place / rundir.ARCHIVE):
                yield from (path for path in _folders(inner) if path.name.startswith(rundir.TRAIN_PREFIX))


def _folders(place: Path) -> Iterable[Path]:
    with suppress(OSError):
        return sorted(Path(entry.path) for entry in os.scandir(place) if entry.is_dir())
    return ()
