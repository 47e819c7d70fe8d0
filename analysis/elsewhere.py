"""Runs with the settings of those that a study's verdicts rest on: of the project's other studies, and of its own.

Who saw such a result before the study was locked knew what its seeds would show. Equal fingerprints are equal runs; but
more steps, other validations or a test file make another fingerprint of the same training. Therefore it is asked which
fingerprint a run would have if it were as long, and measured as, the other one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from oelm_jobs.agent import records
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import few
from oelm_jobs.programs import built_in, description, length
from oelm_jobs.spec.lineage import Parent
from oelm_jobs.spec.study import Hypothesis, Run, Study
from oelm_jobs.stored_run import StoredRun
from oelm_jobs.study.blocks import hash_in, of_tag

from .audit.lock import data_of
from .audit.locked import is_judged
from .audit.locks import Locks
from .findings import AuditFinding, warning
from .judging.evidence import COUNT_METRICS
from .others import Other, of_others
from .reading.loaded_run import LoadedRun

KEY = "elsewhere"
"""Of what is found of it."""
FILE = "elsewhere.json"
"""In a bundle, what was found when it was made: the other studies' runs are not in it."""


class Alike(msgspec.Struct, frozen=True, kw_only=True):
    """A run with the settings of one that decides, mostly of another study."""

    run: str
    """Name of the one that decides."""
    study: str
    """That of the other run."""
    other: str
    """Name of the other run."""
    queued_at: float
    """Unix seconds by which that one had been queued."""
    differs: dict[str, Any] = {}
    """What it has otherwise of its length and of how it was measured, by setting."""
    is_gone: bool = False
    """Whether it was forgotten or started over since."""

    @property
    def said(self) -> str:
        """The other run, and in what it differs."""
        facts = [f"{key} = {value}" for key, value in self.differs.items()]
        facts += [_("forgotten or started over since")] if self.is_gone else []
        return _("{run} ({facts})", self.other, facts) if facts else self.other


def encoded(found: Sequence[Alike]) -> bytes:
    """Return what was found as a bundle holds it."""
    return msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n"


def in_bundle(project: Path, study: Study) -> list[Alike]:
    """Return what was found when a bundle was made."""
    try:
        content = (project / "experiments" / study.name / FILE).read_bytes()
        return msgspec.json.decode(content, type=list[Alike])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return []


def findings(
    found: Sequence[Alike], deciding: Mapping[str, Sequence[LoadedRun]], since: float, *, is_confirming: bool
) -> list[AuditFinding]:
    """Return what is said of runs that decide and whose settings were run before, mostly by another study.

    Args:
        deciding: By group.
        since: Of the lock, Unix seconds.
        is_confirming: They confirm what was tuned.
    """
    groups = {run.name: group for group, members in deciding.items() for run in members}
    early = [one for one in found if one.run in groups and one.queued_at < since]
    said = []
    for study in sorted({one.study for one in early}):
        theirs = [one for one in early if one.study == study]
        own = dict.fromkeys(one.run for one in theirs)
        others = few([*dict.fromkeys(one.said for one in theirs)])
        concerned = dict.fromkeys(groups[name] for name in own)
        said.append(warning(_said(len(own), study, others, is_confirming=is_confirming), *concerned, key=KEY))
    return said


def alarms(h: Hypothesis, seen: Sequence[AuditFinding]) -> list[Sentence]:
    """Return what is to be said of it in the line of a hypothesis."""
    if h.metric in COUNT_METRICS and not h.is_told:
        return []
    return [one.text for one in seen if one.concerns(h.group, h.against)]


def _said(count: int, study: str, others: str, *, is_confirming: bool) -> Sentence:
    if is_confirming and count == 1:
        return _("1 confirming run has the settings of a run of study {study} that was queued before the lock: {runs}",
                 study, others)  # fmt: skip
    if is_confirming:
        return _(
            "{count} confirming runs have the settings of runs of study {study} that were queued before the lock: "
            "{runs}",
            count, study, others,
        )  # fmt: skip
    if count == 1:
        return _("1 run that decides has the settings of a run of study {study} that was queued before the lock: "
                 "{runs}", study, others)  # fmt: skip
    return _(
        "{count} runs that decide have the settings of runs of study {study} that were queued before the lock: {runs}",
        count, study, others,
    )  # fmt: skip


# Finding them ---------------------------------------------------------------------------------------------------------


def find(
    project: Path, study: Study, runs: Sequence[LoadedRun], locks: Locks, stored: Sequence[StoredRun]
) -> list[Alike]:
    """Return the other runs, forgotten ones included, with the settings of a study's runs that decide.

    Args:
        runs: The study's.
        stored: All runs of the project that the index has.
    """
    own = [_Own(run, study, locks) for run in runs if is_judged(study, run) and run.seed is not None]
    tokens = {(one.run.name, one.token) for one in own}
    others = [*of_others(project, study, {one.run.seed for one in own}, stored, tokens)] if own else []
    by_print: dict[str, list[Other]] = {}
    by_rest: dict[tuple[int, str], list[Other]] = {}
    nameless: dict[int, dict[int, dict[str, list[Other]]]] = {}  # by seed, step and fingerprint
    for other in others:
        for known in other.fingerprints:
            by_print.setdefault(known, []).append(other)
        if other.settings:
            by_rest.setdefault((other.seed, _rest(study, other.settings, other.global_batch)), []).append(other)
        elif other.step is not None:
            of_step = nameless.setdefault(other.seed, {}).setdefault(other.step, {})
            for known in other.fingerprints:
                of_step.setdefault(known, []).append(other)
    found: dict[tuple[str, str, str], Alike] = {}
    for one in own:
        seed = one.run.seed or 0
        same = {id(other): other for known in one.fingerprints for other in by_print.get(known, ())}
        near = by_rest.get((seed, one.rest), ()) if one.made is not None else ()
        same |= {id(other): other for other in near if one.would_be(other)}
        for step, of_step in nameless.get(seed, {}).items():
            same |= {id(other): other for known in one.as_long_as(step) for other in of_step.get(known, ())}
        for other in same.values():
            if (at := other.queued_at) is not None:
                alike = Alike(
                    run=one.run.name, study=other.study, other=other.run, queued_at=at, differs=one.differing(other),
                    is_gone=other.is_gone,
                )  # fmt: skip
                _keep(found, alike)
    return [*found.values()]


def _keep(found: dict[tuple[str, str, str], Alike], alike: Alike) -> None:
    """Keep of what is known several times of a run the earliest, which is gone only where all of it is."""
    place = (alike.run, alike.study, alike.other)
    known = found.get(place, alike)
    first = min(known, alike, key=lambda one: one.queued_at)
    found[place] = msgspec.structs.replace(first, is_gone=known.is_gone and alike.is_gone)


def _loose(study: Study) -> tuple[str, ...]:
    """Return the settings that say how long a run is, and how it is measured."""
    if study.program is None:
        return (length.KEY, *built_in.MEASURED)
    return (study.program.length,) if study.program.length else ()


def _rest(study: Study, settings: Mapping[str, Any], global_batch: int) -> str:
    """Return what equal runs have in common in any case."""
    program, loose = study.program, _loose(study)
    if program is None:
        keys: Collection[str] = [key for key in built_in.SCIENTIFIC if key in settings]
    else:
        keys = settings.keys() - {*program.execution, program.seed}
    kept = {key: settings[key] for key in keys if key not in loose}
    return json.dumps([kept, global_batch], sort_keys=True, default=str)


class _Own:
    """A run that decides, and what its fingerprint would be if it were as others are."""

    def __init__(self, run: LoadedRun, study: Study, locks: Locks) -> None:
        self.run, self.study = run, study
        record = records.RUN.read_if_sound(run.path)
        self.made = _as_recorded(record, study) if record is not None else None
        self.token = record.token if record is not None else ""
        block = of_tag(study, run.tag)[0]
        self._data = dict.fromkeys([*data_of(run), *(hash_in(lock.data, block) for lock in locks.all)])
        self._data.pop("", None)
        self._length = study.program.length if study.program is not None else length.KEY

    @cached_property
    def fingerprints(self) -> set[str]:
        """Its own, and those with and without the test file."""
        return {self.run.fingerprint, *self._prints({})} - {""}

    @cached_property
    def rest(self) -> str:
        assert self.made is not None
        return _rest(self.study, self.made.settings, self.made.global_batch)

    def _prints(self, changes: Mapping[str, Any], *more: str) -> set[str]:
        """Return its fingerprints with other settings, by each hash that its data can have.

        Args:
            more: Further hashes of data.
        """
        if self.made is None:
            return set()
        made = replace(self.made, settings={**self.made.settings, **changes})
        return {description.of(made).fingerprint(made, digest) for digest in (*self._data, *more)}

    def differing(self, other: Other) -> dict[str, Any]:
        """Return what another run has otherwise of its length and of how it was measured."""
        own, known = self.made.settings if self.made is not None else {}, other.settings
        if not known and self.fingerprints.isdisjoint(other.fingerprints):
            known = {self._length: other.step}
        return {key: known[key] for key in _loose(self.study) if key in known and known[key] != own.get(key)}

    def would_be(self, other: Other) -> bool:
        """Tell whether it would be the other run, if it were as long, which is no shorter, and measured as that."""
        changes = self.differing(other)
        return self._is_no_shorter(changes) and (
            not self._prints(changes, *self._tested(other)).isdisjoint(other.fingerprints)
            or self._is_by_name(other)
        )  # fmt: skip

    def as_long_as(self, step: int) -> set[str]:
        """Return the fingerprints that it would have with as many steps, if these are no fewer than its own."""
        changes = {self._length: step} if self._length else {}
        return self._prints(changes) if changes and self._is_no_shorter(changes) else set()

    def _is_no_shorter(self, changes: Mapping[str, Any]) -> bool:
        own, its = self.made.settings.get(self._length) if self.made is not None else None, changes.get(self._length)
        return its is None or own is None or its >= own

    def _tested(self, other: Other) -> list[str]:
        """Return the hashes of its data with the test file of another run."""
        if not (other.settings.get(built_in.TEST_DATA) and other.test):
            return []
        return data_of(replace(self.run, data={**self.run.data, "test_sha256": other.test}))

    def _is_by_name(self, other: Other) -> bool:
        """Tell whether another run, whose test file nobody knows, was to read the same files as it."""
        if self.made is None or not other.settings.get(built_in.TEST_DATA) or other.test:
            return False
        return all(other.settings.get(key) == self.made.settings.get(key) for key in built_in.DATA)


def _as_recorded(record: RunRecord, study: Study) -> Run:
    """Return a run as its record has it; of a script the words are the study's, since a record has them filled in."""
    settings = record.program.get("settings", {}) if record.program is not None else record.train
    parents = [
        Parent(
            study=str(row.get("study", "")), run=str(row.get("run", "")), group="", seed=0, when="",
            input=row["input"], artifact=row.get("artifact", ""), fingerprint=row.get("fingerprint", ""),
        )
        for row in record.needs or ()
        if row.get("input")
    ]  # fmt: skip
    gpus = record.gpus if isinstance(record.gpus, int) else tuple(record.gpus)
    return Run(
        name=record.run, study=record.study, group=record.group, label="", seed=record.seed, tag=record.tag,
        target=record.target, run_dir=record.run_dir, gpus=gpus, port=None, global_batch=record.global_batch,
        factors={}, settings=settings, max_retries=0, fingerprint=record.fingerprint, parents=tuple(parents),
        program=study.program if record.program is not None else None,
    )  # fmt: skip
