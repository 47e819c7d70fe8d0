"""Fill a report's tables from runs: means and spreads by group, every run, costs, parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from oelm_jobs.agent.sentences import _

from . import tables, told
from .judging.evidence import common_step, loss_at
from .reading.loaded_run import LoadedRun, Validations, finished, perplexity
from .statistics import mean_sd
from .tables import EMPTY, Cell, Column, Table, column
from .told import Goals, Groups, Quantity, RunQuantity

T = TypeVar("T")

COUNTS = ("total_params", "trainable_params", "frozen_params", "frozen_share", "frozen_share_without_embedding")


def comparison(
    groups: Groups,
    labels: Mapping[str, str],
    planned_seeds: Mapping[str, Sequence[int]],
    goals: Goals | None,
    target: float | None = None,
) -> Table:
    """Return one row a group; metrics at each run's own end, the gap to the first group at the step common to both.

    Args:
        goals: Of scripts the metrics; None for the built-in trainer.
        target: Of scripts a value of the main metric, to which steps are counted.
    """
    results: Sequence[Quantity] = (
        (column("final_val_loss", "result"), lambda group, runs: _mean(_losses(runs, "final"))),
        (column("final_val_ppl", "result"), lambda group, runs: _ppl(_losses(runs, "final"))),
        (column("gap_to_baseline", "result"), lambda group, runs: _gap(group, groups)),
        (column("best_val_loss", "result"), lambda group, runs: _mean(_losses(runs, "best"))),
        (column("best_val_ppl", "result"), lambda group, runs: _ppl(_losses(runs, "best"))),
    )
    if goals is not None:
        results = told.results(groups, goals, target)
    quantities: tuple[Quantity, ...] = (
        _label(labels),
        (column("status", "result"), lambda group, runs: Cell(_states(runs))),
        (column("seeds", "result"), lambda group, runs: Cell(_seeds(runs, planned_seeds[group]))),
        (column("step", "result"), lambda group, runs: Cell(_span([run.last_step for run in runs]))),
        *results,
        *(_count(key, "parameters") for key in COUNTS),
        (column("gpus", "cost"), lambda group, runs: Cell(_set([run.world_size for run in runs]))),
        (column("sequences_per_step", "cost"), lambda group, runs: Cell(_set([run.global_batch for run in runs]))),
        (column("tokens_per_s_per_gpu", "cost"), lambda group, runs: _mean([r.tokens_per_s_per_gpu for r in runs])),
        (column("hours", "cost"), lambda group, runs: _mean([run.elapsed_hours for run in runs])),
        (column("gpu_hours", "cost"), lambda group, runs: _mean([run.gpu_hours for run in runs])),
        (column("peak_gpu_mem_gb", "cost"), lambda group, runs: _largest([run.peak_gpu_mem_gb for run in runs])),
    )
    made = _of_groups("comparison", quantities, groups)
    remarks = []
    if any(cell.sd for row in made.rows for cell in row):
        remarks.append(_("± is the standard deviation over seeds; – is not known."))
    if any(len(finished(runs)) < len(runs) for runs in groups.values()):
        remarks.append(
            _("Metrics are those of finished runs; the table of every run has the others, too.")
            if goals is not None
            else _("Losses and PPL are those of finished runs; the table of every run has the others, too.")
        )
    points = [(run.final, run.best) for runs in groups.values() for run in runs]
    if any(f and b and f.full and not b.full for f, b in points):
        remarks.append(
            _("The final loss is on the whole validation file, the best one on a part of it: the two don't compare.")
        )
    gaps = [i for i, each in enumerate(made.columns) if each.key == "gap_to_baseline"]
    if any(row[i].value is not None for row in made.rows for i in gaps):
        remarks.append(
            _("The gap is taken at the last step that both arms told it at.")
            if goals is not None
            else _("The gap is taken at the last step that both arms validated at.")
        )
    if any(each.key == "steps_to_target" for each in made.columns):
        said = _(
            "Target: {metric} {value}, as asked. Medians over runs; > means not reached by then.",
            next(iter(goals or {})),
            tables.number(target or 0.0),
        )
        remarks.append(said)
    made = made if goals is None else made.without_gaps(tables.KEPT["comparison"])
    return replace(made, is_turned=len(groups) <= 6, remarks=tuple(remarks))


def _of_groups(key: str, quantities: Sequence[Quantity], groups: Groups) -> Table:
    """Return a table with a row for each group."""
    rows = (tuple(make(group, runs) for _column, make in quantities) for group, runs in groups.items())
    return Table(key, tuple(quantity[0] for quantity in quantities), tuple(rows))


def _label(labels: Mapping[str, str]) -> Quantity:
    return column("group"), lambda group, runs: Cell(labels.get(group) or group)


def _count(key: str, section: str = "") -> Quantity:
    """Return a count or share of parameters, on which the runs of a group should agree."""
    name = key.removesuffix("_params")
    return column(key, section), lambda group, runs: _one([getattr(run.parameters, name) for run in runs])


def _losses(runs: Sequence[LoadedRun], which: Literal["final", "best"]) -> list[float]:
    return [point.loss for run in finished(runs) if (point := getattr(run, which)) is not None]


def by_run(groups: Groups, goals: Goals | None) -> Table:
    """Return one row a run: every seed's value, so that nothing hides behind a mean.

    Args:
        goals: Of scripts the metrics; None for the built-in trainer.
    """
    results: Sequence[RunQuantity] = (
        (column("final_val_loss", "result"), lambda group, run: run.final.loss if run.final else None),
        (column("final_val_ppl", "result"), lambda group, run: run.final.ppl if run.final else None),
        (column("best_val_loss", "result", is_plain=True), lambda group, run: run.best.loss if run.best else None),
        (column("best_val_ppl", "result"), lambda group, run: run.best.ppl if run.best else None),
        (column("best_step", "result"), lambda group, run: run.best.step if run.best else None),
    )
    if goals is not None:
        results = told.of_run(goals)
    quantities: tuple[RunQuantity, ...] = (
        (column("run"), lambda group, run: run.name),
        (column("group", "result"), lambda group, run: group),
        (column("seed", "result"), lambda group, run: None if run.seed is None else str(run.seed)),
        (column("status", "result"), lambda group, run: run.told_status),
        (column("step", "result"), lambda group, run: run.last_step),
        *results,
        (column("tokens_per_s_per_gpu", "cost"), lambda group, run: run.tokens_per_s_per_gpu),
        (column("hours", "cost"), lambda group, run: run.elapsed_hours),
        (column("attempts", "cost"), lambda group, run: run.attempts),
    )
    rows = [
        tuple(Cell(value(group, run)) for _column, value in quantities)
        for group, runs in groups.items()
        for run in runs
    ]
    earlier = tuple(
        f"{run.name} {run.final.step:,}"
        for runs in groups.values() for run in runs
        if run.final is not None and run.last_step is not None and run.final.step < run.last_step
    )  # fmt: skip
    remark = _("Last validated before the last step: {runs}.", earlier)
    columns = tuple(quantity[0] for quantity in quantities)
    made = Table("runs", columns, tuple(rows), remarks=(remark,) if earlier else ())
    return made if goals is None else made.without_gaps(tables.KEPT["runs"])


def parameters(groups: Groups, labels: Mapping[str, str]) -> Table:
    """Return counts by group and kind of parameter."""
    keys = ("embedding_params", "qk_params", "other_params", *COUNTS)
    return _of_groups("parameters", [_label(labels), *map(_count, keys)], groups)


def layers(groups: Groups) -> Table | None:
    """Return parameters by part of the model, the trainable ones by group; None where no treatment.json has layers."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for group, runs in groups.items():
        treatments = [run.treatment for run in runs if run.treatment and run.treatment.layers]
        for layer in treatments[0].layers if treatments else ():
            name, table = _part(layer.name), found.setdefault(group, {})
            total, trainable = table.get(name, (0, 0))
            table[name] = (total + layer.total, trainable + layer.trainable)
    if not found:
        return None
    rows = []
    for name in dict.fromkeys(name for table in found.values() for name in table):
        counts = [table.get(name) for table in found.values()]
        totals = {count[0] for count in counts if count}
        total_cell = Cell(totals.pop() if len(totals) == 1 else None)
        rows.append((Cell(name), total_cell, *(Cell(count[1] if count else None) for count in counts)))
    columns = (
        column("layer"),
        column("total_params"),
        *(Column(f"trainable_{group}", tables.COUNT, _("Trainable in {group}", group)) for group in found),
    )
    return Table("layers", columns, tuple(rows))


def _part(name: str) -> str:
    """Return the part of the model that a tensor belongs to: ``blocks.3 Q/K`` and ``blocks.3 other``, else the first
    word.
    """
    words = name.split(".")
    if len(words) > 2 and words[1].isdigit():
        return f"{words[0]}.{words[1]} {'Q/K' if 'qk' in words else 'other'}"
    return words[0]


def efficiency(groups: Groups, labels: Mapping[str, str], target_loss: float | None) -> Table:
    """Return what a loss costs: area under the loss curve, steps, tokens and GPU-hours to a target loss, loss per
    parameter.

    The area is the mean validation loss over log tokens on the range that every run has; a run that never reaches the
    target is censored: ``>`` and what it had spent.
    """
    baseline = next(iter(groups), "")
    target = target_loss if target_loss is not None else _baseline_loss(groups)
    low, high = _token_range(groups)
    trainable = {group: _one([run.parameters.trainable for run in runs]) for group, runs in groups.items()}
    rows = []
    for group, runs in groups.items():
        reached = [reach(run, target) for run in runs] if target is not None else []
        own, base = trainable[group].value, trainable[baseline].value
        rows.append(
            (
                Cell(labels.get(group) or group),
                _mean([area(run, low, high) for run in runs]),
                *(told.censored(reached, i) for i in range(3)),
                trainable[group],
                Cell(own / base if isinstance(own, int) and isinstance(base, int) else None),
                _mean(_losses(runs, "final")),
            )
        )
    columns = (
        "group", "curve_area", "steps_to_target", "tokens_to_target", "gpu_hours_to_target", "trainable_params",
        "trainable_share", "final_val_loss",
    )  # fmt: skip
    remarks = []
    if target_loss is not None:
        said = _(
            "Target: validation loss {loss}, as asked. Medians over runs; > means not reached by then.", f"{target:.4f}"
        )
        remarks.append(said)
    elif target is not None:
        said = _(
            "Target: validation loss {loss}, which every run of {group} had at its end (none was declared). "
            "Medians over runs; > means not reached by then.",
            f"{target:.4f}",
            labels.get(baseline) or baseline,
        )
        remarks.append(said)
    if math.isfinite(low) and high > low:
        remarks.append(_("Area over {low} to {high} tokens, which every run covers.", f"{low:,.0f}", f"{high:,.0f}"))
    return Table("efficiency", tuple(map(column, columns)), tuple(rows), remarks=tuple(remarks))


def reach(run: LoadedRun, target: float) -> tuple[tuple[float | None, float | None, float | None], bool]:
    """Return steps, tokens and GPU-hours until the first validation at or below the target, and whether it was reached.

    GPU-hours are the run's wall clock up to then (validation and checkpoints included) times its GPUs; of a run with
    several attempts, between which it waited, the share of all its GPU-hours that its steps up to then are of all.
    """
    table = run.validations
    if table is None or not len(table.step):
        return (None, None, None), False
    hits = np.flatnonzero(table.loss <= target)
    row = int(hits[0]) if len(hits) else len(table.step) - 1
    hours: float | None = None
    if run.gpu_hours is not None and (run.attempts or 1) > 1 and run.last_step:
        hours = run.gpu_hours * min(1.0, float(table.step[row]) / run.last_step)
    elif (
        run.gpu_hours is not None and run.elapsed_hours and run.curve is not None and np.isfinite(run.curve.time).any()
    ):
        start = float(np.nanmin(run.curve.time))
        spent = (float(table.time[row]) - start) / 3600
        hours = spent * run.gpu_hours / run.elapsed_hours if math.isfinite(spent) and spent >= 0 else None
    tokens = float(table.tokens[row])
    return (float(table.step[row]), tokens if math.isfinite(tokens) else None, hours), bool(len(hits))


def area(run: LoadedRun, low: float, high: float) -> float | None:
    """Return the mean validation loss over log tokens between two token counts; None where the run doesn't cover
    them.
    """
    if run.validations is None or not (high > low > 0):
        return None
    table = run.validations.curve
    known = np.isfinite(table.tokens) & np.isfinite(table.loss) & (table.tokens > 0)
    if np.count_nonzero(known) < 2:
        return None
    x, y = np.log(table.tokens[known]), table.loss[known]
    if x[0] > math.log(low) + 1e-9 or x[-1] < math.log(high) - 1e-9:
        return None
    inside = x[(x > math.log(low)) & (x < math.log(high))]
    points = np.concatenate([[math.log(low)], inside, [math.log(high)]])
    heights = np.interp(points, x, y)
    trapezoids = (heights[1:] + heights[:-1]) / 2 * np.diff(points)
    return float(trapezoids.sum() / (points[-1] - points[0]))


def _token_range(groups: Groups) -> tuple[float, float]:
    known = [
        table.tokens[np.isfinite(table.tokens) & (table.tokens > 0)]
        for runs in groups.values()
        for table in _curves(runs)
    ]
    ranges = [(float(tokens[0]), float(tokens[-1])) for tokens in known if len(tokens) > 1]
    if not ranges:
        return math.nan, math.nan
    return max(low for low, _high in ranges), min(high for _low, high in ranges)


def _baseline_loss(groups: Groups) -> float | None:
    """Return the loss that every run of the first group has at the end of its validation curve."""
    ends = [float(table.loss[-1]) for table in _curves(finished(next(iter(groups.values()), ())))]
    return max(filter(math.isfinite, ends), default=None)


def _curves(runs: Sequence[LoadedRun]) -> list[Validations]:
    return [run.validations.curve for run in runs if run.validations is not None and not run.diverged]


def _gap(group: str, groups: Groups) -> Cell:
    """Return how far a group's PPL lies above the first one's, at the last step that both validated at."""
    baseline = next(iter(groups))
    arms = finished(groups[group]), finished(groups[baseline])
    runs = [run for arm in arms for run in arm]
    step, _ = common_step(runs)
    if group == baseline or step is None or any(run.diverged for run in runs):
        return EMPTY
    own, base = ([found[0] for run in arm if (found := loss_at(run, step)) is not None] for arm in arms)
    if not (own and base):
        return EMPTY
    gap = math.fsum(own) / len(own) - math.fsum(base) / len(base)
    return Cell(math.expm1(gap) if gap < 700 else math.inf)


def _states(runs: Sequence[LoadedRun]) -> str | None:
    if not runs:
        return _("no runs")
    counts = Counter(run.status for run in runs)
    return runs[0].status if len(counts) == 1 else ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))


def _seeds(runs: Sequence[LoadedRun], planned: Sequence[int]) -> str:
    done = sum(run.finished or run.source == "log" for run in runs)
    total = max(len(runs), len(planned))
    return f"{done}/{total}" if done != total else str(total)


def _known(values: Sequence[T | None]) -> list[T]:
    return [value for value in values if value is not None]


def _span(values: Sequence[int | None]) -> int | str | None:
    known = _known(values)
    if not known:
        return None
    return known[0] if min(known) == max(known) else f"{min(known):,}–{max(known):,}"


def _set(values: Sequence[int | None]) -> str | None:
    return " / ".join(map(str, sorted(set(_known(values))))) or None


def _mean(values: Sequence[float | None]) -> Cell:
    return Cell(*mean_sd(_known(values)))


def _ppl(losses: Sequence[float]) -> Cell:
    """Return exp of the mean loss (the geometric mean of PPL) with the standard deviation of PPL."""
    mean, _sd = mean_sd(losses)
    return EMPTY if mean is None else Cell(perplexity(mean), mean_sd(list(map(perplexity, losses)))[1])


def _one(values: Sequence[float | int | None]) -> Cell:
    """Return what all runs of a group agree on; the values side by side where they don't."""
    known = sorted(set(_known(values)))
    if len(known) < 2:
        return Cell(known[0]) if known else EMPTY
    return Cell(" / ".join(f"{value:,}" for value in known))


def _largest(values: Sequence[float | None]) -> Cell:
    return Cell(max(_known(values), default=None))
