"""Collect the values that decide one hypothesis: which runs, at which step, in which pairs.

The primary end point is the last step on the whole validation file, at the same step for all arms; a diverged seed is
a failure of its arm and is never dropped; pairs are made by seed only where the data order is the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

from ..reading.loaded_run import LoadedRun, Series, perplexity

LOSS_METRICS = ("final_val_ppl", "final_val_loss", "best_val_ppl", "best_val_loss")
"""Metrics that are read off validations."""
TEST_METRICS = ("final_test_ppl", "final_test_loss")
"""Metrics of the last step on the test file."""
COUNT_METRICS = {"trainable_params": "trainable", "total_params": "total"}
"""Metrics that are exact, with the count of parameters that each is."""
RATE_METRICS = {"speed": "tokens_per_s", "gpu_hours": "gpu_hours"}
"""Metrics of the whole run, with the figure of it that each is; speed is of all GPUs together."""
LARGEST = 1e150
"""A larger value counts as infinite: its square, which a spread is made of, is beyond all floats."""
_SECONDARY = _("the best of many noisy validations is a secondary end point: the final one decides a claim better")

Arms = list[list[LoadedRun]]
"""The runs of both arms."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """The metric of one run."""

    seed: int | None
    """Its seed."""
    run: str
    """Its name."""
    raw: float
    """In the metric's own unit (PPL, loss, parameters, tokens/s, hours); infinitely bad for a diverged run's loss and
    PPL, and for what a script tells that isn't finite.
    """


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
    """The step that losses, and what a script tells, are compared at."""
    notes: tuple[Sentence, ...] = ()
    """What was left out or is unusual, and why."""
    missing: Sentence | None = None
    """Why there is nothing to compare; None where there is."""


def gather(hypothesis: Hypothesis, runs: Mapping[str, Sequence[LoadedRun]], *, may_pair: bool) -> Evidence:
    """Return the values that decide a hypothesis; ``may_pair`` says that equal seeds share the data order."""
    metric = hypothesis.metric
    arms = [list(runs.get(name, ())) for name in (hypothesis.group, hypothesis.against)]
    if without := _without(hypothesis, arms):
        return Evidence(missing=_("group {group} has no runs", without))
    if metric in COUNT_METRICS and not hypothesis.is_told:
        return _counts(hypothesis, arms)
    notes: list[Sentence] = []
    chosen = [_usable(arm, notes) for arm in arms]
    if without := _without(hypothesis, chosen):
        if metric not in LOSS_METRICS and not hypothesis.is_told:
            return Evidence(missing=_("group {group} has no finished run", without))
        chosen = [[run for run in arm if _has_values(run, hypothesis) or run.diverged] for arm in arms]
        notes = [_("unfinished runs are compared")]
        if without := _without(hypothesis, chosen):
            if hypothesis.is_told:
                return Evidence(missing=_("group {group} has told no {metric} yet", without, metric))
            return Evidence(missing=_("group {group} has no validation yet", without))
    chosen, is_paired = _pair(chosen, notes) if may_pair else (chosen, False)
    compared = _losses if metric in LOSS_METRICS else _tests if metric in TEST_METRICS else _rates
    compared = _told if hypothesis.is_told else compared
    return compared(hypothesis, chosen, is_paired, notes)


def _has_values(run: LoadedRun, hypothesis: Hypothesis) -> bool:
    return hypothesis.metric in run.series if hypothesis.is_told else run.validations is not None


def _without(hypothesis: Hypothesis, arms: Sequence[Sequence[object]]) -> str | None:
    """Return the name of the first arm that is empty."""
    return next((n for n, arm in zip((hypothesis.group, hypothesis.against), arms, strict=True) if not arm), None)


def _usable(arm: Sequence[LoadedRun], notes: list[Sentence]) -> list[LoadedRun]:
    kept = []
    for run in arm:
        if run.finished or run.diverged or run.source == "log":
            kept.append(run)
        else:
            notes.append(_("{run} left out: {status}", run.name, run.told_status))
    return kept


def _pair(arms: Arms, notes: list[Sentence]) -> tuple[Arms, bool]:
    by_seed = [{run.seed: run for run in arm if run.seed is not None} for arm in arms]
    common = sorted(by_seed[0].keys() & by_seed[1].keys())
    seeds_are_known = [*map(len, by_seed)] == [*map(len, arms)]
    # One pair has no spread, several unpaired values do.
    if not common or not seeds_are_known or len(common) < 2 <= min(map(len, arms)):
        return arms, False
    for table in by_seed:
        for seed in sorted(table.keys() - set(common)):
            notes.append(_("{run} left out: seed {seed} has no partner in the other arm", table[seed].name, seed))
    return [[table[seed] for seed in common] for table in by_seed], True


def _counts(hypothesis: Hypothesis, arms: Arms) -> Evidence:
    values = []
    for name, arm in zip((hypothesis.group, hypothesis.against), arms, strict=True):
        known = [(run, getattr(run.parameters, COUNT_METRICS[hypothesis.metric])) for run in arm]
        known = [(run, count) for run, count in known if count is not None]
        if not known:
            return Evidence(missing=_("group {group} has no parameter counts", name))
        counts = [f"{count:,}" for count in sorted({count for run, count in known})]
        if len(counts) > 1:
            said = _("the runs of {group} disagree on the number of parameters ({counts})", name, counts)
            return Evidence(missing=said)
        values.append(_value(*known[0]))
    return Evidence(group=(values[0],), against=(values[1],))


def _value(run: LoadedRun, raw: float) -> Value:
    return Value(seed=run.seed, run=run.name, raw=float(raw))


def common_step(runs: Sequence[LoadedRun]) -> tuple[int | None, bool]:
    """Return the largest step that all (not diverged) runs validated at, and whether it is the end of every one of
    them.
    """
    alive = [run for run in runs if not run.diverged]
    if not alive:
        return None, True
    validated = []
    for run in alive:
        steps = set() if run.validations is None else set(run.validations.step.tolist())
        validated.append(steps | {run.final.step} if run.final is not None else steps)
    step = max(set.intersection(*validated), default=None)
    return step, all(run.final is not None and run.final.step == step for run in alive)


def loss_at(run: LoadedRun, step: int, *, best: bool = False) -> tuple[float, bool] | None:
    """Return the validation loss at a step (or the lowest until then) and whether it is on the whole file; None where
    there is none.
    """
    if not best and run.final is not None and run.final.step == step:
        return run.final.loss, run.final.full
    table = run.validations
    if table is None:
        end = run.best or run.final
        return (end.loss, end.full) if best and end is not None else None
    row = int(np.searchsorted(table.step, step, side="right")) - 1
    if row < 0 or (not best and table.step[row] != step):
        return None
    if best:
        losses = table.loss[: row + 1]
        row = int(np.where(np.isfinite(losses), losses, np.inf).argmin())
    return float(table.loss[row]), bool(table.full[row])


def _losses(hypothesis: Hypothesis, arms: Arms, is_paired: bool, notes: list[Sentence]) -> Evidence:
    everyone = [run for arm in arms for run in arm]
    step, at_end = common_step(everyone)
    if step is None and not all(run.diverged for run in everyone):
        return Evidence(missing=_("the arms were never validated at the same step"), notes=tuple(notes))
    if step is not None and not at_end:
        ends = [f"{run.name} {run.final.step:,}" for run in everyone if run.final is not None]
        notes.append(_("compared at step {step}, the last that all validated at (ends: {ends})", f"{step:,}", ends))
    best = hypothesis.metric.startswith("best")
    if best:
        notes.append(_SECONDARY)
    whole: set[bool] = set()
    values: list[list[Value]] = [[], []]
    for row, arm in zip(values, arms, strict=True):
        for run in arm:
            loss = math.inf
            if not run.diverged and step is not None:
                found = loss_at(run, step, best=best)
                assert found is not None  # every run that didn't diverge validated at that step
                loss, full = found
                whole.add(full)
            row.append(_value(run, loss if hypothesis.metric.endswith("_loss") else perplexity(loss)))
    if len(whole) > 1:
        notes.append(_("some losses are on the whole validation file and some on a part of it"))
    elif False in whole:
        notes.append(
            _("whether losses are on the whole validation file is not known")
            if all(run.source == "log" for run in everyone)
            else _("losses are on a part of the validation file")
        )
    group, against = map(tuple, values)
    return Evidence(group=group, against=against, is_paired=is_paired, step=step, notes=tuple(notes))


def _tests(hypothesis: Hypothesis, arms: Arms, is_paired: bool, notes: list[Sentence]) -> Evidence:
    """Return losses of the last step on the test file."""
    values: list[list[Value | None]] = [[], []]
    ends = {run.test.step for arm in arms for run in arm if run.test is not None}
    for row, arm in zip(values, arms, strict=True):
        for run in arm:
            if run.test is None and not run.diverged:
                notes.append(_("{run} left out: it was not measured on test data", run.name))
                row.append(None)
                continue
            loss = math.inf if run.test is None or run.diverged else run.test.loss
            row.append(_value(run, loss if hypothesis.metric.endswith("_loss") else perplexity(loss)))
    if len(ends) > 1:
        notes.append(_("the runs were measured at different steps ({steps})", [f"{end:,}" for end in sorted(ends)]))
    return _evidence(hypothesis, values, is_paired, notes, max(ends, default=None))


def _told(hypothesis: Hypothesis, arms: Arms, is_paired: bool, notes: list[Sentence]) -> Evidence:
    """Return what scripts tell of a metric: the value at the last step at which all do, or the best until the step that
    all came to. Of a metric that each tells once, that value counts.
    """
    metric = hypothesis.metric
    tables = {run.name: run.series[metric] for arm in arms for run in arm if metric in run.series and not run.diverged}
    ends = {name: table.last.step for name, table in tables.items()}
    is_told_once = all(len(table.step) == 1 for table in tables.values())
    step: int | None = None
    if hypothesis.at == "best" or is_told_once:
        step = min(ends.values(), default=None)
    elif tables:
        step = max(set.intersection(*(set(table.step.tolist()) for table in tables.values())), default=None)
        if step is None:
            return Evidence(missing=_("the arms never told {metric} at the same step", metric), notes=tuple(notes))
    if any(end != step for end in ends.values()):
        shown = [f"{name} {end:,}" for name, end in ends.items()]
        if is_told_once:
            said = _("each run told {metric} once, at different steps ({steps})", metric, shown)
        elif hypothesis.at == "best":
            said = _("the best until step {step}, which all came to (ends: {ends})", f"{step:,}", shown)
        else:
            said = _(
                "compared at step {step}, the last that all told {metric} at (ends: {ends})", f"{step:,}", metric, shown
            )
        notes.append(said)
    if hypothesis.at == "best":
        notes.append(_SECONDARY)
    values: list[list[Value | None]] = [[], []]
    for row, arm in zip(values, arms, strict=True):
        for run in arm:
            found = tables.get(run.name)
            if found is None and not run.diverged:
                notes.append(_("{run} left out: no record of it", run.name))
                row.append(None)
                continue
            raw = math.nan
            if found is not None:
                raw = found.last.value if is_told_once else _told_at(found, step or 0, hypothesis)
            if not abs(raw) <= LARGEST:
                raw = -math.inf if hypothesis.goal == "maximize" else math.inf
            row.append(_value(run, raw))
    said_of = {
        "sampled": _("{metric} was measured on a part of the validation data, as the study says", metric),
        "full": _("{metric} was measured on all of the validation data, as the study says", metric),
        "": _(
            "{metric} is what the program told: on which validation data, and on all or a part of them, is not known"
            " ([metrics] full or sampled can say it)",
            metric,
        ),
    }
    notes.append(said_of[hypothesis.measured])
    return _evidence(hypothesis, values, is_paired, notes, step)


def _told_at(table: Series, step: int, hypothesis: Hypothesis) -> float:
    """Return the value of a step, or the best one until then; NaN where no value is finite."""
    rows = int(np.searchsorted(table.step, step, side="right"))
    if hypothesis.at == "last":
        return float(table.value[rows - 1])
    best = Series(step=table.step[:rows], value=table.value[:rows]).best(hypothesis.goal) if rows else None
    return best.value if best is not None else math.nan


def _rates(hypothesis: Hypothesis, arms: Arms, is_paired: bool, notes: list[Sentence]) -> Evidence:
    """Return speeds or GPU-hours; the caller has checked that hardware and GPU count are equal."""
    values: list[list[Value | None]] = [[], []]
    for row, arm in zip(values, arms, strict=True):
        for run in arm:
            raw = getattr(run, RATE_METRICS[hypothesis.metric])
            is_known = raw is not None and 0 < raw < math.inf
            row.append(_value(run, raw) if is_known else None)
            if not is_known:
                notes.append(_("{run} left out: no record of it", run.name))
    return _evidence(hypothesis, values, is_paired, notes)


def _evidence(
    hypothesis: Hypothesis,
    values: list[list[Value | None]],
    is_paired: bool,
    notes: list[Sentence],
    step: int | None = None,
) -> Evidence:
    """Return the values that are known; of pairs those of which both are."""
    if is_paired:
        pairs = [pair for pair in zip(*values, strict=True) if all(pair)]
        values = [[pair[side] for pair in pairs] for side in (0, 1)]
    group, against = (tuple(value for value in row if value is not None) for row in values)
    if without := _without(hypothesis, (group, against)):
        return Evidence(missing=_("group {group} has no record of it", without), notes=tuple(notes))
    return Evidence(group=group, against=against, is_paired=is_paired, step=step, notes=tuple(notes))
