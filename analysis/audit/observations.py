"""Audit what runs recorded, whatever their configurations say: learning rates, steps, validations, parameter counts,
copies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Study

from ..findings import DECLARED, UNFAIR, VOID, WARNING, AuditFinding, warning
from ..reading.loaded_run import LoadedRun
from .schedule import fit

RATE_TOLERANCE = 0.03
"""Relative difference of learning rates at one step that printing with three digits can't explain."""

SHAPES = {
    "cosine": _("cosine"), "linear": _("linear"), "constant": _("constant"),
    "inverse_sqrt": _("inverse square root"), "unknown": _("another shape"),
}  # fmt: skip
"""How a report calls the shape of a schedule."""

SHAPE = ("d_model", "num_layers", "d_ff", "seq_len")
"""Train keys that the number of parameters follows from."""

Runs = Mapping[str, Sequence[LoadedRun]]


def from_curves(runs: Runs, study: Study) -> list[AuditFinding]:
    """Return what the runs' own records show to be unequal."""
    findings = learning_rates(runs, study)
    findings += steps(runs, study)
    findings += validation_intervals(runs)
    findings += unknown_batches(runs)
    findings += totals(runs, study)
    findings += copies(runs)
    return findings


def learning_rates(runs: Runs, study: Study) -> list[AuditFinding]:
    """Compare every run's learning rates with those of the first run that has some, and describe both schedules where
    they differ.
    """
    seen = [
        run for members in runs.values() for run in members if run.curve is not None and np.isfinite(run.curve.lr).any()
    ]
    if len(seen) < 2:
        return []
    differing = [run for run in seen[1:] if _rates_differ(seen[0], run)]
    if not differing:
        return []
    members = (seen[0], *differing)
    is_between = not any(a.group == b.group and _rates_differ(a, b) for a, b in itertools.combinations(members, 2))
    declared = _declared(study, "max_lr", "min_lr", "warmup_steps", "max_steps") if is_between else ""
    groups = tuple(dict.fromkeys(run.group for run in members))
    statement = _("the learning rates were not the same: {schedules}", [_describe(run) for run in members])
    if declared:
        statement = _("{what}, as declared: {reason}", statement, declared)
    return [AuditFinding(severity=DECLARED if declared else UNFAIR, text=statement, groups=groups, key="learning_rate")]


def _declared(study: Study, *keys: str) -> str:
    """Return why groups may differ in one of some keys; empty where nothing is declared."""
    of_question: dict[str, str] = {**dict.fromkeys(study.factors, _("a factor of the study")), **study.declared}
    return next((of_question[key] for key in keys if key in of_question), "")


def rates_differ(a: Sequence[LoadedRun], b: Sequence[LoadedRun]) -> bool:
    """Tell whether two arms were trained at different learning rates."""
    seen = [run for run in (*a, *b) if run.curve is not None and np.isfinite(run.curve.lr).any()]
    return any(_rates_differ(seen[0], run) for run in seen[1:]) if len(seen) > 1 else False


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
    if len(xa) < 2 or len(xb) < 2:
        return False
    points = xa[(xa >= xb[0]) & (xa <= xb[-1])]
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


def steps(runs: Runs, study: Study) -> list[AuditFinding]:
    """Return unequal numbers of steps of ended runs, and runs that overshot their plan or their schedule."""
    findings = []
    ended = [
        run
        for members in runs.values()
        for run in members
        if run.last_step is not None and (run.finished or run.source == "log")
    ]
    if len({run.last_step for run in ended}) > 1 and not _declared(study, "max_steps"):
        shown = tuple(f"{run.name} {run.last_step:,}" for run in ended)
        said = _("the runs ended at different steps ({steps}): losses are compared at common steps", shown)
        findings.append(warning(said, key="steps"))
    for run in ended:
        planned = run.max_steps
        if planned is None and run.curve is not None:
            schedule = fit(run.curve.step, run.curve.lr)
            if schedule is not None and schedule.end is not None and schedule.shape in ("cosine", "linear"):
                planned = round(_rounded(schedule.end))
        assert run.last_step is not None
        if planned is not None and run.last_step > planned * 1.02 + 1:
            steps = {"run": run.name, "planned": f"{planned:,}", "reached": f"{run.last_step:,}"}
            said = (
                _("{run} was planned with {planned} steps and trained for {reached}", **steps)
                if run.max_steps is not None
                else _("the schedule of {run} ends near step {planned}, it was trained until {reached}", **steps)
            )
            findings.append(warning(said, run.group, key="overshoot"))
    return findings


def validation_intervals(runs: Runs) -> list[AuditFinding]:
    """Return unequal intervals between validations: "best" of more validations is lower by chance."""
    found: dict[str, int] = {}
    for group, members in runs.items():
        for run in members:
            if run.validations is not None and len(run.validations.step) > 2 and "val_interval" not in run.train:
                found[group] = round(float(np.median(np.diff(run.validations.step))))
                break
    if len(set(found.values())) < 2:
        return []
    shown = tuple(f"{group} {interval:,}" for group, interval in found.items())
    said = _(
        "validations came at different intervals ({intervals} steps): the best of more of them is lower by chance",
        shown,
    )
    return [warning(said, key="val_interval")]


def unknown_batches(runs: Runs) -> list[AuditFinding]:
    """Return unequal numbers of GPUs where nothing says how many sequences a step had."""
    known = {
        run.group: run.world_size
        for members in runs.values()
        for run in members
        if run.world_size and run.global_batch is None
    }
    if len(set(known.values())) < 2:
        return []
    shown = tuple(f"{group} {size}" for group, size in known.items())
    said = _(
        "the number of GPUs differs ({sizes}) and nothing says how many sequences a step had: with the same "
        "batch per GPU the arms saw different numbers of tokens",
        shown,
    )
    return [warning(said, *known, key="global_batch")]


def totals(runs: Runs, study: Study) -> list[AuditFinding]:
    """Return unequal total parameter counts: the arms are then not the same model with a different treatment, unless
    the model's shape is what the study asks about.
    """
    if _declared(study, *SHAPE):
        return []
    found = {group: run.parameters.total for group, members in runs.items() for run in members if run.parameters.total}
    if len(set(found.values())) < 2:
        return []
    shown = tuple(f"{group} {total:,}" for group, total in found.items())
    said = _("the arms have different numbers of parameters in all ({totals})", shown)
    return [warning(said, key="total_params")]


def copies(runs: Runs) -> list[AuditFinding]:
    """Return runs whose validation losses are all the same: across groups the factor had no effect at all, or files
    were copied.
    """
    seen: dict[bytes, LoadedRun] = {}
    findings = []
    for run in (run for members in runs.values() for run in members):
        if run.validations is None or len(run.validations.step) < 3 or not np.isfinite(run.validations.loss).all():
            continue
        content = run.validations.step.tobytes() + run.validations.loss.tobytes()
        other = seen.setdefault(content, run)
        if other is not run:
            severity = VOID if other.group != run.group else WARNING
            groups = (other.group, run.group) if other.group != run.group else (run.group,)
            said = _(
                "{a} and {b} have the same validation losses to the last digit: copies, or a factor without any effect",
                other.name, run.name,
            )  # fmt: skip
            findings.append(
                AuditFinding(
                    severity=severity,
                    text=said,
                    groups=groups,
                    key="copies",
                    is_doubt=True,
                    is_between=severity == VOID,
                )
            )
    return findings


def tuning(runs: Sequence[LoadedRun], study: Study) -> list[AuditFinding]:
    """Return unequal numbers of configurations tried: the arm that was tuned more has an advantage."""
    tried = {group: 1 + len({run.tag for run in runs if run.group == group and run.tag}) for group in study.groups}
    if len(set(tried.values())) < 2:
        return []
    shown = tuple(f"{group} {count}" for group, count in tried.items())
    return [warning(_("the arms were not tuned equally; configurations tried: {counts}", shown), key="tuning")]
