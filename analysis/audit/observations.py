"""Audit what runs recorded, whatever their configurations say: learning rates, steps, validations, parameter counts,
copies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Study

from ..findings import DECLARED, UNFAIR, VOID, WARNING, AuditFinding, warning
from ..reading import foreign
from ..reading.loaded_run import LoadedRun
from .schedule import fit

RATE_TOLERANCE = 0.03
"""Relative difference of learning rates at one step that printing with three digits can't explain."""

SHAPES = {
    "cosine": _("cosine"), "linear": _("linear"), "constant": _("constant"),
    "inverse_sqrt": _("inverse square root"), "unknown": _("another shape"),
}  # fmt: skip
"""How a report calls the shape of a schedule."""

SHAPE = ("d_model", "num_layers", "d_ff", "seq_len", "position")
"""Train keys that the number of parameters follows from."""


def from_curves(groups: Mapping[str, Sequence[LoadedRun]], study: Study) -> list[AuditFinding]:
    """Return what the runs' own records show to be unequal."""
    runs = [run for members in groups.values() for run in members]
    return [
        *learning_rates(runs, study),
        *steps(runs, study),
        *validation_intervals(runs),
        *unknown_batches(runs),
        *totals(runs, study),
        *copies(runs),
    ]


def learning_rates(runs: Sequence[LoadedRun], study: Study) -> Iterator[AuditFinding]:
    """Compare every run's learning rates with those of the first run that has some, and describe both schedules where
    they differ.
    """
    seen = _with_rates(runs)
    members = [run for run in seen if run is seen[0] or _rates_differ(seen[0], run)]
    if len(members) < 2:
        return
    is_between = not any(a.group == b.group and _rates_differ(a, b) for a, b in itertools.combinations(members, 2))
    asked = (key for key in study.factors if foreign.SCHEDULE.fullmatch(key))
    declared = _declared(study, "max_lr", "min_lr", "warmup_steps", "max_steps", *asked) if is_between else ""
    groups = tuple(dict.fromkeys(run.group for run in members))
    statement = _("the learning rates were not the same: {schedules}", [_describe(run) for run in members])
    if declared:
        statement = _("{what}, as declared: {reason}", statement, declared)
    yield AuditFinding(severity=DECLARED if declared else UNFAIR, text=statement, groups=groups, key="learning_rate")


def _with_rates(runs: Sequence[LoadedRun]) -> list[LoadedRun]:
    return [run for run in runs if run.curve is not None and np.isfinite(run.curve.lr).any()]


def _declared(study: Study, *keys: str) -> str:
    """Return why groups may differ in one of some keys; empty where nothing is declared."""
    of_question: dict[str, str] = {**dict.fromkeys(study.factors, _("a factor of the study")), **study.declared}
    return next((of_question[key] for key in keys if key in of_question), "")


def rates_differ(a: Sequence[LoadedRun], b: Sequence[LoadedRun]) -> bool:
    """Tell whether two arms were trained at different learning rates."""
    seen = _with_rates([*a, *b])
    return any(_rates_differ(seen[0], run) for run in seen[1:])


def _rates_differ(a: LoadedRun, b: LoadedRun) -> bool:
    """Tell whether more than 2 % of the steps that both runs cover had different learning rates.

    Steps between two logged ones are interpolated; a schedule is smooth but for the end of its warm-up, which the 2 %
    allow for.
    """
    assert a.curve is not None and b.curve is not None
    tables = []
    for curve in (a.curve, b.curve):
        known = np.isfinite(curve.lr) & (curve.lr >= 0)
        tables.append((curve.step[known].astype(float), curve.lr[known]))
    (xa, ya), (xb, yb) = tables
    points = xa[(xa >= xb[0]) & (xa <= xb[-1])] if min(len(xa), len(xb)) > 1 else ()
    if not len(points):
        return False
    left, right = np.interp(points, xa, ya), np.interp(points, xb, yb)
    off = np.abs(left - right) > RATE_TOLERANCE * np.maximum(np.maximum(left, right), 1e-12)
    return bool(np.mean(off) > 0.02)


def _describe(run: LoadedRun) -> Sentence:
    assert run.curve is not None
    schedule = fit(run.curve.step, run.curve.lr)
    if schedule is None:
        return _("{run} (too few values)", run.name)
    return _(
        "{run} {shape}, peak {peak}, warm-up {warmup}, decay until {end}, last {final}",
        run.name,
        SHAPES[schedule.shape],
        f"{schedule.peak:.3g}",
        "–" if schedule.warmup is None else f"{round(schedule.warmup, -1 if schedule.warmup >= 1000 else 0):,.0f}",
        "–" if schedule.end is None else f"{_rounded(schedule.end):,.0f}",
        f"{schedule.final:.3g}",
    )


def _rounded(value: float) -> float:
    """Return a fitted step with three significant digits: more would be invented."""
    return round(value, 2 - math.floor(math.log10(value))) if value >= 1 else value


def steps(runs: Sequence[LoadedRun], study: Study) -> Iterator[AuditFinding]:
    """Return unequal numbers of steps of ended runs, and runs that overshot their plan or their schedule."""
    ended = [run for run in runs if run.finished or run.source == "log"]
    reached = {run.name: run.last_step for run in ended if run.last_step is not None}
    asked = (key for key in study.factors if foreign.LENGTH.fullmatch(key))
    if (shown := _unequal(reached)) and not _declared(study, "max_steps", *asked):
        said = _("the runs ended at different steps ({steps}): losses are compared at common steps", shown)
        yield warning(said, key="steps")
    for run in ended:
        planned, last = run.max_steps, reached.get(run.name, 0)
        if planned is None and run.curve is not None:
            schedule = fit(run.curve.step, run.curve.lr)
            if schedule is not None and schedule.end is not None and schedule.shape in ("cosine", "linear"):
                planned = round(_rounded(schedule.end))
        if planned is not None and last > planned * 1.02 + 1:
            words = {"run": run.name, "planned": f"{planned:,}", "reached": f"{last:,}"}
            said = (
                _("{run} was planned with {planned} steps and trained for {reached}", **words)
                if run.max_steps is not None
                else _("the schedule of {run} ends near step {planned}, it was trained until {reached}", **words)
            )
            yield warning(said, run.group, key="overshoot")


def _unequal(values: Mapping[str, int]) -> tuple[str, ...]:
    """Return each name with its value where the values aren't all the same, else nothing."""
    return tuple(f"{name} {value:,}" for name, value in values.items()) if len(set(values.values())) > 1 else ()


def validation_intervals(runs: Sequence[LoadedRun]) -> Iterator[AuditFinding]:
    """Return unequal intervals between validations: "best" of more validations is lower by chance."""
    found: dict[str, int] = {}
    for run in runs:
        table = run.series.get(run.main) or run.validations
        if table is not None and len(table.step) > 2 and (run.is_script or "val_interval" not in run.train):
            found.setdefault(run.group, round(float(np.median(np.diff(table.step)))))
    if shown := _unequal(found):
        said = _(
            "validations came at different intervals ({intervals} steps): the best of more of them is lower by chance",
            shown,
        )
        yield warning(said, key="val_interval")


def unknown_batches(runs: Sequence[LoadedRun]) -> Iterator[AuditFinding]:
    """Return unequal numbers of GPUs where nothing says how many sequences a step had."""
    known = {run.group: run.world_size for run in runs if run.world_size and run.global_batch is None}
    if shown := _unequal(known):
        said = _(
            "the number of GPUs differs ({sizes}) and nothing says how many sequences a step had: with the same "
            "batch per GPU the arms saw different numbers of tokens",
            shown,
        )
        yield warning(said, *known, key="global_batch")


def totals(runs: Sequence[LoadedRun], study: Study) -> Iterator[AuditFinding]:
    """Return unequal total parameter counts: the arms are then not the same model with a different treatment, unless
    the model's shape is what the study asks about.
    """
    found = {run.group: run.parameters.total for run in runs if run.parameters.total}
    if (shown := _unequal(found)) and not _declared(study, *SHAPE):
        yield warning(_("the arms have different numbers of parameters in all ({totals})", shown), key="total_params")


def copies(runs: Sequence[LoadedRun]) -> Iterator[AuditFinding]:
    """Return runs whose validation losses (of scripts: values of the main metric) are all the same: across groups the
    factor had no effect at all, or files were copied.
    """
    seen: dict[bytes, LoadedRun] = {}
    for run in runs:
        told, table = run.series.get(run.main), run.validations
        step, values = (told.step, told.value) if told else (table.step, table.loss) if table else (None, None)
        if step is None or values is None or len(step) < 3 or not np.isfinite(values).all():
            continue
        other = seen.setdefault(step.tobytes() + values.tobytes(), run)
        if other is not run:
            groups = tuple(dict.fromkeys((other.group, run.group)))
            said = _(
                "{a} and {b} have the same validation losses to the last digit: copies, or a factor without any effect",
                other.name, run.name,
            )  # fmt: skip
            if told is not None:
                said = _(
                    "{a} and {b} told the same {metric} to the last digit: copies, or a factor without any effect",
                    other.name, run.name, run.main,
                )  # fmt: skip
            found = AuditFinding(severity=WARNING, text=said, groups=groups, key="copies", is_doubt=True)
            yield found if len(groups) == 1 else replace(found, severity=VOID, is_between=True)


def tuning(runs: Sequence[LoadedRun], study: Study) -> list[AuditFinding]:
    """Return unequal numbers of configurations tried: the arm that was tuned more has an advantage."""
    tried = {group: 1 + len({run.tag for run in runs if run.group == group and run.tag}) for group in study.groups}
    shown = _unequal(tried)
    said = _("the arms were not tuned equally; configurations tried: {counts}", shown)
    return [warning(said, key="tuning")] if shown else []
