"""Describe a verdict: its sentences, and numbers in the units of its rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

from . import tables
from .judging.evidence import COUNT_METRICS
from .judging.verdicts import (
    EXACT,
    INCONCLUSIVE,
    MET,
    NO_DATA,
    NOT_MET,
    PAIRED,
    POINT,
    REFUTED,
    SUPPORTED,
    TRIAL,
    UNDECIDABLE,
    VOID,
    WELCH,
    Verdict,
)  # fmt: skip
from .report import Report
from .tables import EMPTY, Cell, Table, column

METRIC_WORDS = {
    "final_val_ppl": _("final validation PPL"),
    "final_val_loss": _("final validation loss"),
    "best_val_ppl": _("best validation PPL"),
    "best_val_loss": _("best validation loss"),
    "trainable_params": _("number of trainable parameters"),
    "total_params": _("number of parameters"),
    "speed": _("training speed"),
    "gpu_hours": _("GPU-hours"),
}
"""What each metric of a hypothesis is called."""
OUTCOME_WORDS = {
    SUPPORTED: _("supported"), REFUTED: _("refuted"), INCONCLUSIVE: _("inconclusive"),
    MET: _("met (one seed)"), NOT_MET: _("not met (one seed)"),
    VOID: _("void"), UNDECIDABLE: _("undecidable"), NO_DATA: _("no data"),
}  # fmt: skip
"""How a report calls what a verdict can be."""
METHOD_WORDS = {
    PAIRED: _("paired t"), WELCH: _("Welch's t"), EXACT: _("exact count"), POINT: _("point estimate"),
    TRIAL: _("median of the speed trial, sign test"),
}  # fmt: skip
"""How a report calls the method of an interval."""


def claim(h: Hypothesis, labels: Mapping[str, str]) -> str:
    """Return the claim in the study's words, else in ours."""
    return h.claim or _(
        "{metric} of {group} against {against}: {rule}",
        metric(h),
        labels.get(h.group, h.group),
        labels.get(h.against, h.against),
        rule(h),
    )


def metric(h: Hypothesis) -> Sentence:
    """Return the metric's name."""
    return METRIC_WORDS[h.metric]


def rule(h: Hypothesis) -> Sentence:
    """Return the decision rule in words."""
    if h.relation == "reduction":
        return _("reduction between {low} and {high}", percent(h.bounds[0]), percent(h.bounds[1]))
    if h.relation == "ratio_at_least":
        if h.margin:
            return _("ratio at least {bound}, conceding {margin}", f"{h.bounds[0]:g}", percent(h.margin))
        return _("ratio at least {bound}", f"{h.bounds[0]:g}")
    if h.relation == "at_most_above":
        return _("at most {bound} above", percent(h.bounds[0]))
    return _("differs by less than {bound}", percent(h.bounds[0]))


def percent(share: float, *, signed: bool = False) -> str:
    """Return a share as a percentage of three digits at most, with a real minus sign."""
    if math.isinf(share):
        return "∞" if share > 0 else "−∞"
    value = 100 * share
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    shown = f"{value:{'+' if signed and round(value, digits) else ''}.{digits}f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return shown.replace("-", "−") + " %"


def in_rule_units(h: Hypothesis, ratio: float) -> str:
    """Return a ratio as the rule counts: a reduction, a plain ratio, or a signed difference in percent."""
    if h.relation == "reduction":
        return percent(1 - ratio)
    if h.relation == "ratio_at_least":
        return f"{ratio:.3f}" if math.isfinite(ratio) else "∞"
    return percent(ratio - 1, signed=True)


def interval(verdict: Verdict) -> tuple[str, str] | None:
    """Return the bounds in the rule's units, the smaller first."""
    if verdict.interval is None:
        return None
    low, high = verdict.interval
    h = verdict.hypothesis
    if h.relation == "reduction":
        low, high = high, low
    return in_rule_units(h, low), in_rule_units(h, high)


def interval_words(verdict: Verdict) -> Sentence | None:
    """Return level, interval, number and method in words; None without an interval."""
    bounds = interval(verdict)
    if bounds is None or verdict.level is None:
        return None
    units = {TRIAL: _("paired rounds"), PAIRED: _("pairs")}.get(verdict.method, _("seeds per arm"))
    return _(
        "{level} interval {low} to {high}, {count} {units}, {method}",
        percent(1 - 2 * (1 - verdict.level)),
        bounds[0],
        bounds[1],
        verdict.count,
        units,
        METHOD_WORDS[verdict.method],
    )


def sentence(verdict: Verdict, labels: Mapping[str, str]) -> Sentence:
    """Return what was seen, in one sentence."""
    h = verdict.hypothesis
    arms = {"group": labels.get(h.group, h.group), "against": labels.get(h.against, h.against)}
    if verdict.ratio is None:
        return _("The {metric} of {group} and {against} can't be compared.", metric=metric(h), **arms)
    if verdict.method == TRIAL:
        return _(
            "In the interleaved speed trial {group} trained at {ratio} times the speed of {against}.",
            ratio=f"{verdict.ratio:.3f}", **arms,
        )  # fmt: skip
    fields = {
        "metric": metric(h), **arms,
        "a": _value(h, [v.raw for v in verdict.group]), "b": _value(h, [v.raw for v in verdict.against]),
    }  # fmt: skip
    gap = verdict.ratio - 1
    if gap == 0:
        return _("The {metric} of {group} equals that of {against} ({a} against {b}).", **fields)
    fields["percent"] = percent(abs(gap))
    if gap > 0:
        return _("The {metric} of {group} is {percent} above that of {against} ({a} against {b}).", **fields)
    return _("The {metric} of {group} is {percent} below that of {against} ({a} against {b}).", **fields)


def _value(h: Hypothesis, values: Sequence[float]) -> str:
    if not values:
        return tables.DASH
    if any(map(math.isinf, values)):
        return "∞"
    mean = math.exp(math.fsum(map(math.log, values)) / len(values))
    if h.metric in COUNT_METRICS or h.metric == "speed":
        return f"{mean:,.0f}"
    return f"{mean:.4f}" if h.metric.endswith("loss") else f"{mean:.2f}" if mean >= 1 else f"{mean:.3g}"


def statement(verdict: Verdict, report: Report) -> list[Sentence]:
    """Return what is said of a verdict: what was seen, the interval where there is one, and why."""
    words = interval_words(verdict)
    return [sentence(verdict, report.labels), *([words] if words else []), *reasons(verdict, report)]


def reasons(verdict: Verdict, report: Report) -> list[Sentence]:
    """Return why, and what else belongs into the verdict's own lines."""
    found = [verdict.reason] if verdict.reason else []
    found += [*verdict.alarms, *verdict.notes]
    if verdict.method == EXACT and verdict.hypothesis.metric == "trainable_params":
        runs = report.groups.get(verdict.hypothesis.group, ())
        shares = [(r.parameters.frozen_share, r.parameters.frozen_share_without_embedding) for r in runs]
        if shares and shares[0][0] and shares[0][1]:
            said = _(
                "{share} of all parameters are frozen, {without} of those outside the embeddings; "
                "the declared quantity decides",
                percent(shares[0][0]), percent(shares[0][1]),
            )  # fmt: skip
            found.append(said)
    return found


def level_remark(report: Report) -> Sentence | None:
    """Return why intervals have unequal levels; None where there are fewer than two."""
    count = sum(verdict.interval is not None for verdict in report.verdicts)
    if count < 2:
        return None
    return _(
        "The levels of the intervals are those of Holm's procedure over the {count} hypotheses with one: all verdicts "
        "together hold at the declared level.",
        count,
    )


def verdict_table(report: Report) -> Table:
    """Return the verdicts as a table."""
    columns = map(column, ("hypothesis", "verdict", "estimate", "interval", "rule", "pairs"))
    rows = []
    for verdict in report.verdicts:
        bounds = interval(verdict)
        estimate = in_rule_units(verdict.hypothesis, verdict.ratio) if verdict.ratio is not None else None
        rows.append(
            (
                Cell(verdict.hypothesis.id),
                Cell(OUTCOME_WORDS[verdict.outcome]),
                Cell(estimate),
                Cell(f"{bounds[0]} … {bounds[1]}") if bounds else EMPTY,
                Cell(rule(verdict.hypothesis)),
                Cell(
                    verdict.count
                    if (verdict.count and verdict.method not in (EXACT, POINT)) or verdict.outcome in (MET, NOT_MET)
                    else None
                ),
            )
        )
    remark = level_remark(report)
    return Table("verdicts", tuple(columns), tuple(rows), remarks=(remark,) if remark else ())
