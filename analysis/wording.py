"""Describe a verdict: its sentences, and numbers in the units of its rule. The catalogues of languages lie in
``words``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from oelm_jobs.spec.study import Hypothesis

from . import tables
from .judging.evidence import COUNT_METRICS
from .judging.verdicts import EXACT, MET, NOT_MET, PAIRED, POINT, TRIAL, Verdict
from .report import Report
from .tables import EMPTY, Cell, Column, Table
from .words import Text, text


def claim(h: Hypothesis, labels: dict[str, str]) -> Text | str:
    """Return the claim in the study's words, else in ours."""
    return h.claim or text(
        "claim_words",
        metric=metric(h),
        group=labels.get(h.group, h.group),
        against=labels.get(h.against, h.against),
        rule=rule(h),
    )


def metric(h: Hypothesis) -> Text:
    """Return the metric's name."""
    return text(f"metric_{h.metric}")


def rule(h: Hypothesis) -> Text:
    """Return the decision rule in words."""
    if h.relation == "reduction":
        return text("rule_reduction", low=percent(h.bounds[0]), high=percent(h.bounds[1]))
    if h.relation == "ratio_at_least":
        if h.margin:
            return text("rule_ratio_at_least_margin", bound=f"{h.bounds[0]:g}", margin=percent(h.margin))
        return text("rule_ratio_at_least", bound=f"{h.bounds[0]:g}")
    return text(f"rule_{h.relation}", bound=percent(h.bounds[0]))


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


def interval_words(verdict: Verdict) -> Text | None:
    """Return level, interval, number and method in words; None without an interval."""
    bounds = interval(verdict)
    if bounds is None or verdict.level is None:
        return None
    units = "units_rounds" if verdict.method == TRIAL else "units_pairs" if verdict.method == PAIRED else "units_seeds"
    return text(
        "interval_words",
        level=percent(1 - 2 * (1 - verdict.level)),
        low=bounds[0],
        high=bounds[1],
        count=verdict.count,
        units=text(units),
        method=text(f"method_{verdict.method}"),
    )


def sentence(verdict: Verdict, labels: dict[str, str]) -> Text:
    """Return what was seen, in one sentence."""
    h = verdict.hypothesis
    group, against = labels.get(h.group, h.group), labels.get(h.against, h.against)
    if verdict.ratio is None:
        return text("sentence_nothing", metric=metric(h), group=group, against=against)
    if verdict.method == TRIAL:
        return text("sentence_trial", group=group, against=against, ratio=f"{verdict.ratio:.3f}")
    gap = verdict.ratio - 1
    key = "sentence_equal" if gap == 0 else "sentence_above" if gap > 0 else "sentence_below"
    fields = {"percent": percent(abs(gap))} if gap else {}
    return text(
        key, metric=metric(h), group=group, against=against, **fields,
        a=_value(h, [v.raw for v in verdict.group]), b=_value(h, [v.raw for v in verdict.against]),
    )  # fmt: skip


def _value(h: Hypothesis, values: Sequence[float]) -> str:
    if not values:
        return tables.DASH
    if any(map(math.isinf, values)):
        return "∞"
    mean = math.exp(math.fsum(map(math.log, values)) / len(values))
    if h.metric in COUNT_METRICS or h.metric == "speed":
        return f"{mean:,.0f}"
    return f"{mean:.4f}" if h.metric.endswith("loss") else f"{mean:.2f}" if mean >= 1 else f"{mean:.3g}"


def reasons(verdict: Verdict, report: Report) -> list[Text]:
    """Return why, and what else belongs into the verdict's own lines."""
    found = [verdict.reason] if verdict.reason else []
    found += verdict.notes
    if verdict.method == EXACT and verdict.hypothesis.metric == "trainable_params":
        runs = report.groups.get(verdict.hypothesis.group, ())
        shares = [(r.parameters.frozen_share, r.parameters.frozen_share_without_embedding) for r in runs]
        if shares and shares[0][0] and shares[0][1]:
            found.append(text("also_without_embedding", share=percent(shares[0][0]), without=percent(shares[0][1])))
    return found


def level_remark(report: Report) -> Text | None:
    """Return why intervals have unequal levels; None where there are fewer than two."""
    count = sum(verdict.interval is not None for verdict in report.verdicts)
    return text("level_remark", count=count) if count > 1 else None


def verdict_table(report: Report) -> Table:
    """Return the verdicts as a table."""
    columns = (
        Column("hypothesis", tables.TEXT), Column("verdict", tables.TEXT), Column("estimate", tables.TEXT),
        Column("interval", tables.TEXT), Column("rule", tables.TEXT), Column("pairs", tables.COUNT),
    )  # fmt: skip
    rows = []
    for verdict in report.verdicts:
        bounds = interval(verdict)
        estimate = in_rule_units(verdict.hypothesis, verdict.ratio) if verdict.ratio is not None else None
        rows.append(
            (
                Cell(verdict.hypothesis.id),
                Cell(text(f"outcome_{verdict.outcome}")),
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
    return Table("verdicts", columns, tuple(rows), remarks=(remark,) if remark else ())
