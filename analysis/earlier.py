"""Runs that are no more, as a study's ledger has them: started over, or forgotten; and which result of a seed counts.

A result is a run that came to its end, or whose loss diverged, which is a failure of its group. A crash, a cancel or a
supervisor that was lost is none, and may run again. Once a study is locked the first result of a seed decides, if it is
of the configuration that was locked; its files are read where they were moved to.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from oelm_jobs import ledger
from oelm_jobs.agent import records, rundir
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import few
from oelm_jobs.ledger import Entry
from oelm_jobs.spec.study import Study
from oelm_jobs.study.blocks import of_tag

from .audit.locks import Locks
from .reading import run_directory
from .reading.loaded_run import LoadedRun
from .reading.replicates import Dispute

Place = tuple[str, str, int]
"""Group, tag and seed of a run."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A run that was started over or forgotten."""

    entry: Entry
    """Its line in the ledger."""
    run: LoadedRun | None = None
    """It, read from where its files are now; None where they are not here."""

    @property
    def place(self) -> Place:
        """Which run of the study it was."""
        return self.entry.group, self.entry.tag, self.entry.seed

    @property
    def has_result(self) -> bool:
        """Whether it came to its end, or diverged; what was fetched while it ran doesn't say."""
        return self.is_whole or self.entry.has_result

    @property
    def is_whole(self) -> bool:
        """Whether its result is here."""
        return self.run is not None and (self.run.finished or self.run.diverged)

    @property
    def is_as_told(self) -> bool:
        """Whether its files have the value that the ledger has, at whichever step; also where that can't be told, as of
        a loss on training data, or of a program's file, which may have been written over.
        """
        run, metric, value = self.run, self.entry.metric, self.entry.value
        if run is None or metric is None or not isinstance(value, (int, float)):
            return True
        known: list[float] = []
        if run.validations is not None and metric == "val_loss":
            known = [*run.validations.loss.tolist(), *run.validations.sampled.tolist()]
        elif metric in run.series and not run.told_by.get("files"):
            known = run.series[metric].value.tolist()
        return not known or any(math.isclose(one, value, rel_tol=1e-6) for one in known)

    @property
    def gpu_hours(self) -> float | None:
        """What it cost, by its files or else by the ledger."""
        told = self.run.gpu_hours if self.run is not None else None
        return self.entry.gpu_hours if told is None else told

    @property
    def said(self) -> str:
        """Its result: metric and value."""
        value = self.entry.value
        shown = f"{value:.4g}" if isinstance(value, (int, float)) else str(value or self.entry.state)
        return f"{self.entry.metric} {shown}" if self.entry.metric else shown


def entries(project: Path, study: Study, current: Mapping[str, str], runs: Sequence[LoadedRun] = ()) -> list[Entry]:
    """Return the lines of a study's ledger about runs that were started over or forgotten, the oldest first.

    Args:
        current: Token of each run that the index knows, by name: what was to start over and did not is no earlier run.
        runs: The study's runs, whose records say that where the index doesn't.
    """
    found = [
        one for one in ledger.read(project, study.name)
        if one.event == ledger.FORGOTTEN or (one.event == ledger.RERUN and not _goes_on(one, current, runs))
    ]  # fmt: skip
    return sorted(found, key=lambda one: one.time)


def load(
    project: Path,
    study: Study,
    current: Mapping[str, str],
    runs: Sequence[LoadedRun] = (),
    *,
    now: float,
    is_bundled: bool = False,
) -> list[Earlier]:
    """Return the runs that a study's ledger tells of, the oldest first.

    Args:
        current: As for ``entries``.
        runs: As for ``entries``.
        now: Unix seconds.
        is_bundled: The project is a bundle's folder: what lies elsewhere on this machine is none of it.
    """
    groups, first = tuple(study.groups), study.seeds[0] if study.seeds else None
    lines, found = entries(project, study, current, runs), []
    names = {entry.run for entry in lines}
    there = [records.RUN.read_if_sound(run.path) for run in runs if run.name in names]
    taken = {*current.values(), *(one.token for one in lines), *(one.token for one in there if one is not None)}
    for entry in lines:
        path = next(_places(project, study, entry, taken, is_bundled=is_bundled), None)
        run = run_directory.load(path, now=now, groups=groups, first_seed=first) if path is not None else None
        found.append(Earlier(entry=entry, run=run))
    return found


def _goes_on(entry: Entry, current: Mapping[str, str], runs: Sequence[LoadedRun]) -> bool:
    """Tell whether a run was to start over and did not."""
    if entry.run in current or entry.files != ledger.MOVING:
        return current.get(entry.run) == entry.token
    there = [records.RUN.read_if_sound(run.path) for run in runs if run.name == entry.run]
    return any(record is not None and record.token == entry.token for record in there)


def _places(project: Path, study: Study, entry: Entry, taken: Collection[str], *, is_bundled: bool) -> Iterator[Path]:
    """Yield the folders on this machine that hold what a run made; ``taken`` as for ``ledger.is_of``."""
    yield from ledger.kept(project, study.name, entry, taken)
    elsewhere = [Path(place) for place in (entry.place, entry.copy) if place and not is_bundled]
    yield from (path for path in elsewhere if ledger.is_of(path, entry, taken))


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Which runs count, once what came before them is known."""

    runs: list[LoadedRun]
    """Where the first result decides, that one in place of a later one."""
    remarks: tuple[Sentence, ...]
    """What ran more than once, and what was forgotten."""
    disputes: tuple[Dispute, ...]
    """Seeds whose first result decides and isn't here, or isn't what the ledger has."""


def selection(past: Sequence[Earlier], study: Study, runs: Sequence[LoadedRun], names: Sequence[str]) -> list[Earlier]:
    """Return what was before the runs that were asked for, and what nothing followed and was asked for itself.

    Args:
        study: As ``loading.selection`` returns it, like ``runs``.
        names: Of groups, runs and blocks.
    """
    places, wanted = {(run.group, run.tag, run.seed) for run in runs}, {*names} - {*study.blocks}
    is_of_blocks = len(wanted) < len({*names})
    return [
        one for one in past
        if (not is_of_blocks or of_tag(study, one.entry.tag)[0])
        and (not wanted or one.place in places or not wanted.isdisjoint((one.entry.group, one.entry.run)))
    ]  # fmt: skip


def settle(past: Sequence[Earlier], study: Study, runs: Sequence[LoadedRun], locks: Locks | None) -> Settled:
    """Return the runs that count for a study. Of a group that it has no more nothing decides."""
    by_place: dict[Place, list[Earlier]] = {}
    for one in past:
        by_place.setdefault(one.place, []).append(one)
    kept = list(runs)
    remarks, disputes, forgotten = [], [], []
    for (group, tag, seed), members in by_place.items():
        newest = next((run for run in kept if (run.group, run.tag, run.seed) == (group, tag, seed)), None)
        first = _binding(members, newest, locks) if locks is not None and group in study.groups else None
        if first is not None and first.run is not None and first.is_whole:
            name = first.entry.run
            kept = [run for run in kept if run is not newest] + [replace(first.run, name=name)]
            remarks.append(_decides(members, newest, first))
            if not first.is_as_told:
                alarm = _not_as_told(first)
                disputes.append(alarm)
                remarks.append(alarm.statement)
        elif first is not None:
            dispute = _away(members, newest, first)
            disputes.append(dispute)
            remarks.append(dispute.statement)
        else:
            forgotten += [one.entry for one in members if one.entry.event == ledger.FORGOTTEN]
            if any(one.entry.event == ledger.RERUN for one in members):
                remarks.append(_counted(members, newest))
    return Settled(runs=kept, remarks=(*_forgotten(forgotten), *remarks), disputes=tuple(disputes))


def _binding(members: Sequence[Earlier], newest: LoadedRun | None, locks: Locks) -> Earlier | None:
    """Return the first result since the study was locked that is of the locked configuration; None where the run that
    is there now is the first, or there is none.
    """
    for one in members:
        known = {lock.fingerprints[one.entry.run] for lock in locks.all if one.entry.run in lock.fingerprints}
        known |= {newest.fingerprint} if not known and newest is not None else set()
        is_locked = not known or not one.entry.fingerprint or one.entry.fingerprint in known
        if one.has_result and is_locked and one.entry.time >= locks.all[0].locked_at:
            return one
    return None


def _times(members: Sequence[Earlier], newest: LoadedRun | None) -> Sentence:
    """Return how often a run was run."""
    entry, count = members[0].entry, len(members) + (newest is not None)
    if count == 1:
        return _("{run}: seed {seed} was forgotten", entry.run, str(entry.seed))
    if count == 2:
        return _("{run}: seed {seed} ran twice", entry.run, str(entry.seed))
    return _("{run}: seed {seed} ran {count} times", entry.run, str(entry.seed), count)


def _thrown_away(members: Sequence[Earlier], newest: LoadedRun | None) -> Sentence:
    """Return how often a run was run, and why results of it don't count, where anybody said so."""
    whys = [*dict.fromkeys(one.entry.why for one in members if one.entry.why)]
    times = _times(members, newest)
    return _("{said} ({why})", times, few(whys)) if whys else times


def _decides(members: Sequence[Earlier], newest: LoadedRun | None, first: Earlier) -> Sentence:
    place = str(first.run.path) if first.run is not None else ""
    return _(
        "{said}; the first result was {result} and decides, since the study is locked ({place})",
        _thrown_away(members, newest), first.said, place,
    )  # fmt: skip


def _not_as_told(first: Earlier) -> Dispute:
    entry, place = first.entry, str(first.run.path) if first.run is not None else ""
    said = _(
        "the ledger has {result} as the first result of {run}, which its files have nowhere ({place})",
        first.said, entry.run, place,
    )  # fmt: skip
    return Dispute(group=entry.group, tag=entry.tag, seed=entry.seed, statement=said, reason=said, is_alarm=True)


def _counted(members: Sequence[Earlier], newest: LoadedRun | None) -> Sentence:
    first = next((one for one in members if one.has_result), None)
    if first is None:
        facts = few([ledger.summary(one.entry) for one in members])
        return _("{said}; before, it had no result: {runs}", _times(members, newest), facts)
    return _("{said}; the first result was {result}, the newest one counts", _thrown_away(members, newest), first.said)


def _away(members: Sequence[Earlier], newest: LoadedRun | None, first: Earlier) -> Dispute:
    entry = first.entry
    where = _("its files are gone")
    reason = _("the first result of {run} decides, and is not here", entry.run)
    there = entry.place or entry.run_dir
    if entry.files == ledger.MOVING:  # it was, and the command ended before it could say where to
        there = str(Path(entry.run_dir).with_name(rundir.ARCHIVE))
    if entry.files == ledger.GONE:
        where = _("its files are gone: there is nothing of them in {place} on {target} any more", there, entry.target)
    elif entry.files in ledger.TO_FETCH:
        where = _("its files are in {place} on {target}, and oelm-fetch brings its records", there, entry.target)
        reason = _("the first result of {run} decides, and is not here: oelm-fetch brings it", entry.run)
    said = _("{said}; the first result was {result}", _thrown_away(members, newest), first.said)
    return Dispute(
        group=entry.group,
        tag=entry.tag,
        seed=entry.seed,
        statement=_("{said} and decides, since the study is locked; {where}", said, where),
        reason=reason,
    )


def _forgotten(entries: Sequence[Entry]) -> list[Sentence]:
    if not entries:
        return []
    runs = few([ledger.summary(entry) for entry in entries])
    if len(entries) == 1:
        return [_("1 run of this study was forgotten and counts for nothing here: {runs}", runs)]
    return [_("{count} runs of this study were forgotten and count for nothing here: {runs}", len(entries), runs)]
