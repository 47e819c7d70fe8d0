"""What a study's lock shows: which parts of the plan were fixed before which runs were queued, and what came later."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import few
from oelm_jobs.names import CONFIRM
from oelm_jobs.spec.study import Study
from oelm_jobs.study.blocks import of_tag

from ..printed import date
from ..reading.loaded_run import LoadedRun
from .lock import Lock
from .locks import Locks
from .plan import SEARCH, changes, plan_changes


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a lock shows of a study's runs."""

    binding: Lock
    """The lock that verdicts are held to: that of the first run that they rest on."""
    lines: tuple[Sentence, ...]
    """What was locked when, and before what."""
    faults: tuple[Sentence, ...]
    """What is not as it should be: changed, replaced, or queued without the lock."""
    told: frozenset[str] = frozenset()
    """Runs of which it is told here whether the lock came before them."""
    search_first: bool | None = None
    """Whether search space, budget and selection rule were locked before the first trial was queued; None without one.
    """
    rest_first: bool | None = None
    """Whether all the rest was locked before the first run was queued that verdicts rest on; None without one."""


def account(locks: Locks, study: Study, runs: Sequence[LoadedRun]) -> Account:
    """Return what a study's locks show of its runs."""
    begun = [run for run in runs if run.lock or run.started_at is not None]
    is_swept = study.sweep is not None
    judged = [run for run in begun if is_judged(study, run)]
    trials = [run for run in begun if not is_judged(study, run)] if is_swept else []
    used = {run.lock for run in judged} or {run.lock for run in trials}
    binding = next((one for one in locks.all if one.sha256 in used), locks.newest)
    named = _(
        "Lock {hash} of {date}, by the clock of the machine that wrote it.", _short(binding), date(binding.locked_at)
    )
    if begun and not any(run.lock for run in begun):
        is_late = any(run.started_at is not None and run.started_at < binding.locked_at for run in begun)
        older = _("No run records the lock that it was queued under: that it came before them rests on that clock.")
        return Account(
            binding=binding,
            lines=(named,) if is_late else (named, older),
            faults=(*locks.remarks, *_relocked(locks, begun)),
            search_first=False if is_late and is_swept else None,
            rest_first=False if is_late else None,
        )
    lines, faults = [named], [*locks.remarks, *_relocked(locks, begun)]
    late_trials = _late(trials, locks, binding, SEARCH)
    if is_swept and not late_trials:
        lines.append(_search_said(trials))
    if late_trials:
        what = _("search space, budget and selection rule were not locked, or others were, when {runs} were queued",
                 few([run.name for run in late_trials]))  # fmt: skip
        faults.append(what)
    late = _late(judged, locks, binding, tuple(key for key in binding.plan if key not in SEARCH))
    if late:
        what = _("hypotheses, seeds and configuration were not locked, or others were, when {runs} were queued",
                 few([run.name for run in late]))  # fmt: skip
        faults.append(what)
    else:
        lines.append(_rest_said(judged, is_confirming=study.is_tuning, is_searched=bool(trials)))
    faults += [*_strange(locks, begun), *_other_code(binding, judged)]
    return Account(
        binding=binding,
        lines=tuple(lines),
        faults=tuple(faults),
        told=frozenset(run.name for run in (*judged, *trials)),
        search_first=not late_trials if trials else None,
        rest_first=not late if judged else None,
    )


class Tagged(Protocol):
    """Anything that is known of a run."""

    @property
    def tag(self) -> str:
        """The run's."""


def is_judged(study: Study, run: Tagged) -> bool:
    """Tell whether verdicts rest on a run: of a study that tunes on one that confirms what was chosen."""
    return of_tag(study, run.tag)[1] == (CONFIRM if study.is_tuning else "")


def _short(lock: Lock) -> str:
    return lock.sha256[:12]


def _strange(locks: Locks, begun: Sequence[LoadedRun]) -> list[Sentence]:
    """Name the runs that were queued under a lock that nobody knows."""
    strange = [run for run in begun if run.lock and locks.by_hash(run.lock) is None]
    return [
        _(
            "{runs}: queued under a lock that is not known here ({hash})",
            few([run.name for run in strange if run.lock == sha256]),
            sha256[:12],
        )
        for sha256 in dict.fromkeys(run.lock for run in strange)
    ]


def _other_code(binding: Lock, judged: Sequence[LoadedRun]) -> list[Sentence]:
    """Name the runs of other code than was locked."""
    other = [run.name for run in judged if run.provenance.get("train_code", binding.code) != binding.code]
    return [_("{runs}: other code than was locked", few(other))] if other and binding.code else []


def _search_said(trials: Sequence[LoadedRun]) -> Sentence:
    if not trials:
        return _("No trial has begun since.")
    return _("Search space, budget and selection rule were locked before the first trial was queued ({date}).",
             _first(trials))  # fmt: skip


def _rest_said(judged: Sequence[LoadedRun], *, is_confirming: bool, is_searched: bool) -> Sentence:
    if not judged and is_confirming:
        return _("No run that confirms has begun since.")
    if not judged and is_searched:
        return _("No run that decides has begun since: those of the sweep decide nothing.")
    if not judged:
        return _("No run has begun since.")
    if is_confirming:
        return _("The rest was locked before the first run that confirms was queued ({date}).", _first(judged))
    if is_searched:
        return _("The rest was locked before the first run that decides was queued ({date}).", _first(judged))
    return _("All of it was locked before the first run that counts here was queued ({date}).", _first(judged))


def _first(runs: Sequence[LoadedRun]) -> str:
    """Return when the first of several runs was queued, by its target's clock."""
    return date(min(run.queued_at or run.started_at or 0.0 for run in runs))


def _late(runs: Sequence[LoadedRun], locks: Locks, binding: Lock, keys: Sequence[str]) -> list[LoadedRun]:
    """Return the runs that were queued while nothing, or something else, was locked of a part of the plan."""
    found = []
    for run in runs:
        then = locks.by_hash(run.lock)
        if then is None or any(changes({key: then.plan.get(key)}, {key: binding.plan.get(key)}) for key in keys):
            found.append(run)
    return found


def _relocked(locks: Locks, begun: Sequence[LoadedRun]) -> list[Sentence]:
    """Return what each lock changed of the one before, and under which runs had been queued before it."""
    found = []
    for number, (before, after) in enumerate(itertools.pairwise(locks.all), 1):
        earlier = [one.sha256 for one in locks.all[:number]]
        names = [run.name for run in begun if run.lock in earlier]
        differing = [change.said for change in plan_changes(before.plan, after.plan)]
        seeds = [[*map(str, one.seeds)] for one in (before, after)]
        differing += [_("the seeds were {before} and are {after}", seeds[0], seeds[1])] if seeds[0] != seeds[1] else []
        what = few(differing) if differing else _("nothing in the plan")
        when = date(after.locked_at)
        if names:
            found.append(
                _("locked anew on {date}, after {runs} had been queued; changed: {what}", when, few(names), what)
            )
        else:
            found.append(_("locked anew on {date}; changed: {what}", when, what))
    return found
