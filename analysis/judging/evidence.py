"""Collect the values that decide one hypothesis: which runs, at which step, in which pairs.

The primary end point is the last step on the whole validation file, at the same step for all arms; a diverged seed is
a failure of its arm and is never dropped; pairs are made by seed only where the data order is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

from ..reading.loaded_run import LoadedRun, perplexity

LOSS_METRICS = ("final_val_ppl", "final_val_loss", "best_val_ppl", "best_val_loss")
"""Metrics that are read off validations."""
COUNT_METRICS = ("trainable_params", "total_params")
"""Metrics that are exact."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """The metric of one run."""

    seed: int | None
    """Its seed."""
    run: str
    """Its name."""
    raw: float
    """In the metric's own unit (PPL, loss, parameters, tokens/s, hours); infinite for a diverged run's loss and PPL."""

    @property
    def log(self) -> float:
        """Its natural logarithm, so that a ratio becomes a difference."""
        return math.log(self.raw) if self.raw > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The values of both arms."""

    group: tuple[Value, ...] = ()
    """Of the arm that the claim is about."""
    against: tuple[Value, ...] = ()
    """Of the arm that it is compared with; aligned with ``group`` where paired."""
    is_paired: bool = False
    """True where equal positions share seed and data order."""
    step: int | None = None
    """The step that losses are compared at."""
    at_end: bool = False
    """True where that is the end of every run that is used."""
    notes: tuple[Sentence, ...] = field(default=())
    """What was left out or is unusual, and why."""
    missing: Sentence | None = None
    """Why there is nothing to compare; None where there is."""


def gather(hypothesis: Hypothesis, runs: Mapping[str, Sequence[LoadedRun]], *, may_pair: bool) -> Evidence:
    """Return the values that decide a hypothesis; ``may_pair`` says that equal seeds share the data order."""
    arms = []
    for name in (hypothesis.group, hypothesis.against):
        arm = runs.get(name, ())
        if not arm:
            return Evidence(missing=_("group {group} has no runs", name))
        arms.append(list(arm))
    if hypothesis.metric in COUNT_METRICS:
        return _counts(hypothesis, arms)
    notes: list[Sentence] = []
    chosen = [_usable(arm, notes) for arm in arms]
    if not (chosen[0] and chosen[1]):
        if hypothesis.metric not in LOSS_METRICS:
            without = (hypothesis.group, hypothesis.against)[bool(chosen[0])]
            return Evidence(missing=_("group {group} has no finished run", without))
        chosen = [[run for run in arm if run.validations is not None or run.diverged] for arm in arms]
        notes = [_("unfinished runs are compared")]
        for name, kept in zip((hypothesis.group, hypothesis.against), chosen, strict=True):
            if not kept:
                return Evidence(missing=_("group {group} has no validation yet", name))
    if may_pair:
        chosen, is_paired = _pair(chosen, notes)
    else:
        is_paired = False
    if hypothesis.metric in LOSS_METRICS:
        return _losses(hypothesis, chosen, is_paired, notes)
    return _rates(hypothesis, chosen, is_paired, notes)


def _usable(arm: Sequence[LoadedRun], notes: list[Sentence]) -> list[LoadedRun]:
    kept = []
    for run in arm:
        if run.finished or run.diverged or run.source == "log":
            kept.append(run)
        else:
            notes.append(_("{run} left out: {status}", run.name, run.told_status))
    return kept


def _pair(arms: list[list[LoadedRun]], notes: list[Sentence]) -> tuple[list[list[LoadedRun]], bool]:
    by_seed = [{run.seed: run for run in arm if run.seed is not None} for arm in arms]
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(common) < 2 <= min(map(len, arms)):  # one pair has no spread, several unpaired values do
        return arms, False
    if not common or any(len(table) != len(arm) for table, arm in zip(by_seed, arms, strict=True)):
        return arms, False
    for table in by_seed:
        for seed in sorted(table.keys() - set(common)):
            notes.append(_("{run} left out: seed {seed} has no partner in the other arm", table[seed].name, seed))
    return [[table[seed] for seed in common] for table in by_seed], True


def _counts(hypothesis: Hypothesis, arms: list[list[LoadedRun]]) -> Evidence:
    values: list[tuple[Value, ...]] = []
    for name, arm in zip((hypothesis.group, hypothesis.against), arms, strict=True):
        known = [
            (run, run.parameters.trainable if hypothesis.metric == "trainable_params" else run.parameters.total)
            for run in arm
        ]
        counts = {count for _, count in known if count is not None}
        if not counts:
            return Evidence(missing=_("group {group} has no parameter counts", name))
        if len(counts) > 1:
            told = tuple(f"{c:,}" for c in sorted(counts))
            return Evidence(
                missing=_("the runs of {group} disagree on the number of parameters ({counts})", name, told)
            )
        values.append(tuple(Value(seed=run.seed, run=run.name, raw=float(c)) for run, c in known if c is not None)[:1])
    return Evidence(group=values[0], against=values[1], at_end=True)


def common_step(runs: Sequence[LoadedRun]) -> tuple[int | None, bool]:
    """Return the largest step that all (not diverged) runs validated at, and whether it is the end of every one of
    them.
    """
    alive = [run for run in runs if not run.diverged]
    if not alive:
        return None, True
    shared: set[int] | None = None
    for run in alive:
        steps = set() if run.validations is None else set(map(int, run.validations.step))
        if run.final is not None:
            steps.add(run.final.step)
        shared = steps if shared is None else shared & steps
    step = max(shared, default=None) if shared else None
    return step, step is not None and all(run.final is not None and run.final.step == step for run in alive)


def loss_at(run: LoadedRun, step: int, *, best: bool = False) -> tuple[float, bool] | None:
    """Return the validation loss at a step (or the lowest until then) and whether it is on the whole file; None where
    there is none.
    """
    if not best and run.final is not None and run.final.step == step:
        return run.final.loss, run.final.full
    if run.validations is None:
        return (run.best.loss, run.best.full) if best and run.best is not None else None
    table = run.validations
    until = int(np.searchsorted(table.step, step, side="right"))
    if until == 0 or (not best and table.step[until - 1] != step):
        return None
    row = (
        int(np.nanargmin(np.where(np.isfinite(table.loss[:until]), table.loss[:until], np.inf))) if best else until - 1
    )
    return float(table.loss[row]), bool(table.full[row])


def _losses(hypothesis: Hypothesis, arms: list[list[LoadedRun]], is_paired: bool, notes: list[Sentence]) -> Evidence:
    everyone = [run for arm in arms for run in arm]
    step, at_end = common_step(everyone)
    diverged = [run for run in everyone if run.diverged]
    if step is None and len(diverged) < len(everyone):
        return Evidence(missing=_("the arms were never validated at the same step"), notes=tuple(notes))
    if step is not None and not at_end:
        ends = [f"{run.name} {run.final.step:,}" for run in everyone if run.final is not None]
        notes.append(_("compared at step {step}, the last that all validated at (ends: {ends})", f"{step:,}", ends))
    best = hypothesis.metric.startswith("best")
    if best:
        notes.append(
            _("the best of many noisy validations is a secondary end point: the final one decides a claim better")
        )
    whole: list[bool] = []
    values: list[tuple[Value, ...]] = []
    for arm in arms:
        row = []
        for run in arm:
            found = (math.inf, True) if run.diverged or step is None else loss_at(run, step, best=best)
            assert found is not None  # every run that didn't diverge validated at that step
            loss, full = found
            if not run.diverged:
                whole.append(full)
            row.append(Value(seed=run.seed, run=run.name, raw=_metric(loss, hypothesis.metric)))
        values.append(tuple(row))
    if len(set(whole)) > 1:
        notes.append(_("some losses are on the whole validation file and some on a part of it"))
    elif whole and not whole[0]:
        notes.append(
            _("whether losses are on the whole validation file is not known")
            if all(run.source == "log" for run in everyone)
            else _("losses are on a part of the validation file")
        )
    return Evidence(
        group=values[0], against=values[1], is_paired=is_paired, step=step, at_end=at_end,
        notes=tuple(notes),
    )  # fmt: skip


def _metric(loss: float, metric: str) -> float:
    return loss if metric.endswith("_loss") else perplexity(loss)


def _rates(hypothesis: Hypothesis, arms: list[list[LoadedRun]], is_paired: bool, notes: list[Sentence]) -> Evidence:
    """Return speeds or GPU-hours. Speed is tokens/s of all GPUs together; the caller has checked that hardware and GPU
    count are equal.
    """
    values: list[list[Value]] = [[], []]
    for position, arm in enumerate(arms):
        for run in arm:
            raw = run.tokens_per_s if hypothesis.metric == "speed" else run.gpu_hours
            if raw is None or not raw > 0 or not math.isfinite(raw):
                notes.append(_("{run} left out: no record of it", run.name))
                raw = math.nan
            values[position].append(Value(seed=run.seed, run=run.name, raw=raw))
    if is_paired:
        both = [(a, b) for a, b in zip(*values, strict=True) if not (math.isnan(a.raw) or math.isnan(b.raw))]
        values = [[a for a, _ in both], [b for _, b in both]]
    else:
        values = [[v for v in arm if not math.isnan(v.raw)] for arm in values]
    for name, kept in zip((hypothesis.group, hypothesis.against), values, strict=True):
        if not kept:
            return Evidence(missing=_("group {group} has no record of it", name), notes=tuple(notes))
    return Evidence(
        group=tuple(values[0]), against=tuple(values[1]), is_paired=is_paired, at_end=True, notes=tuple(notes)
    )
