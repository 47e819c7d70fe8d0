"""Describe a verdict: its sentences, and numbers in the units of its rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.block import MEAN
from oelm_jobs.spec.study import Hypothesis

from . import tables
from .judging.evidence import COUNT_METRICS, Value
from .judging.scales import RATIO, region, scale_of
from .judging.verdicts import (
    EXACT,
    MEANS_PAIRED,
    MET,
    METHODS,
    NOT_MET,
    OUTCOMES,
    PAIRED,
    POINT,
    TRIAL,
    Verdict,
)  # fmt: skip
from .report import Report
from .tables import Cell, Table, column

METRIC_WORDS = {
    "final_val_ppl": _("final validation PPL"),
    "final_val_loss": _("final validation loss"),
    "best_val_ppl": _("best validation PPL"),
    "best_val_loss": _("best validation loss"),
    "final_test_ppl": _("final test PPL"),
    "final_test_loss": _("final test loss"),
    "trainable_params": _("number of trainable parameters"),
    "total_params": _("number of parameters"),
    "speed": _("training speed"),
    "gpu_hours": _("GPU-hours"),
}
"""What each metric of the built-in trainer's runs is called."""


def metric(h: Hypothesis) -> Sentence:
    """Return what a hypothesis compares."""
    if not h.is_told:
        return METRIC_WORDS[h.metric]
    return _("best {metric}", h.metric) if h.at == "best" else _("last {metric}", h.metric)


def claim(h: Hypothesis, labels: Mapping[str, str]) -> str:
    """Return the claim in the study's words, else in ours."""
    return h.claim or _(
        "{metric} of {group} against {against}: {rule}",
        metric(h),
        labels.get(h.group, h.group),
        labels.get(h.against, h.against),
        rule(h),
    )


def rule(h: Hypothesis) -> Sentence:
    """Return the decision rule in words, and over which blocks it holds."""
    if h.holds == MEAN:
        return _("{rule}, in the mean over the blocks", _rule(h))
    return _("{rule}, in each block", _rule(h)) if h.holds else _rule(h)


def _rule(h: Hypothesis) -> Sentence:
    first, last = h.bounds[0], h.bounds[-1]
    if h.relation in ("reduction", "increase"):
        is_less = h.relation == "reduction"
        if math.isinf(last):
            bound = _bound(h, first)
            return _("reduction of at least {bound}", bound) if is_less else _("increase of at least {bound}", bound)
        low, high = _bound(h, first), _bound(h, last)
        if is_less:
            return _("reduction between {low} and {high}", low, high)
        return _("increase between {low} and {high}", low, high)
    if h.relation == "ratio_at_least":
        if h.margin:
            return _("ratio at least {bound}, conceding {margin}", f"{first:g}", percent(h.margin))
        return _("ratio at least {bound}", f"{first:g}")
    if h.relation == "better_by" and not first:
        return _("higher") if h.is_higher_better else _("lower")
    if h.relation == "better_by":
        bound = _bound(h, first)
        return _("higher by at least {bound}", bound) if h.is_higher_better else _("lower by at least {bound}", bound)
    if h.relation == "at_most_above":
        return _("at most {bound} above", _bound(h, first))
    if h.relation == "at_most_below":
        return _("at most {bound} below", _bound(h, first))
    return _("differs by less than {bound}", _bound(h, first))


def _bound(h: Hypothesis, share: float) -> str:
    """Return a bound of the rule: in percent, or in the metric's own units as the study has it."""
    return percent(share) if scale_of(h) is RATIO else f"{share:,g}".replace("-", "−")


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


def in_rule_units(h: Hypothesis, estimate: float) -> str:
    """Return a ratio or difference as the rule counts: a reduction, a plain ratio, or a signed difference (of a ratio
    in percent).
    """
    scale = scale_of(h)
    if h.relation == "ratio_at_least":
        return f"{estimate:.3f}" if math.isfinite(estimate) else "∞"
    beyond = estimate - scale.equal
    if scale is not RATIO:
        is_less = h.relation == "reduction"
        return tables.number(-beyond if is_less else beyond, digits=3, signed=not is_less)
    return percent(1 - estimate) if h.relation == "reduction" else percent(beyond, signed=True)


def interval(verdict: Verdict) -> tuple[str, str] | None:
    """Return the bounds in the rule's units, the smaller first."""
    if verdict.interval is None:
        return None
    h = verdict.hypothesis
    low, high = sorted(verdict.interval, reverse=h.relation == "reduction")
    return in_rule_units(h, low), in_rule_units(h, high)


def interval_words(verdict: Verdict) -> Sentence | None:
    """Return level, interval, number and method in words; None without an interval."""
    bounds = interval(verdict)
    if bounds is None or verdict.level is None:
        return None
    units = {TRIAL: _("paired rounds"), PAIRED: _("pairs"), MEANS_PAIRED: _("seeds")}.get(
        verdict.method, _("seeds per arm")
    )
    return _(
        "{level} interval {low} to {high}, {count} {units}, {method}",
        percent(1 - 2 * (1 - verdict.level)),
        bounds[0],
        bounds[1],
        verdict.count,
        units,
        METHODS[verdict.method],
    )


def sentence(verdict: Verdict, labels: Mapping[str, str]) -> Sentence:
    """Return what was seen, in one sentence."""
    h = verdict.hypothesis
    fields: dict[str, str] = {
        "metric": metric(h),
        "group": labels.get(h.group, h.group),
        "against": labels.get(h.against, h.against),
        "a": _value(h, verdict.group),
        "b": _value(h, verdict.against),
    }
    estimate, equal = verdict.estimate, scale_of(h).equal
    if verdict.blocks:
        return _over_all(verdict, fields)
    if estimate is None:
        return _("The {metric} of {group} and {against} can't be compared.", **fields)
    if verdict.method == TRIAL:
        fields["ratio"] = f"{estimate:.3f}"
        return _("In the interleaved speed trial {group} trained at {ratio} times the speed of {against}.", **fields)
    beyond = abs(estimate - equal)
    fields["percent"] = percent(beyond) if scale_of(h) is RATIO else tables.number(beyond, digits=3)
    if estimate == equal:
        return _("The {metric} of {group} equals that of {against} ({a} against {b}).", **fields)
    if estimate > equal:
        return _("The {metric} of {group} is {percent} above that of {against} ({a} against {b}).", **fields)
    return _("The {metric} of {group} is {percent} below that of {against} ({a} against {b}).", **fields)


def _over_all(verdict: Verdict, fields: dict[str, str]) -> Sentence:
    """Return what was seen over all blocks: of each of them, or of their mean."""
    h, estimate = verdict.hypothesis, verdict.estimate
    names: dict[str, list[str]] = {}
    for block in verdict.blocks:
        names.setdefault(block.outcome, []).append(block.block)
    if h.holds != MEAN:
        outcomes = [_("{outcome} in {blocks}", OUTCOMES[outcome], blocks) for outcome, blocks in names.items()]
        return _("Over the blocks: {outcomes}.", outcomes)
    if estimate is None:
        return _("The {metric} of {group} and {against} can't be compared in the mean over the blocks.",
                 fields["metric"], fields["group"], fields["against"])  # fmt: skip
    return _(
        "In the mean over {blocks} the {metric} of {group} is {change} that of {against}.",
        [block.block for block in verdict.blocks], fields["metric"], fields["group"],
        _change(h, estimate), fields["against"],
    )  # fmt: skip


def _change(h: Hypothesis, estimate: float) -> Sentence:
    beyond = abs(estimate - scale_of(h).equal)
    amount = percent(beyond) if scale_of(h) is RATIO else tables.number(beyond, digits=3)
    return _("{amount} above", amount) if estimate >= scale_of(h).equal else _("{amount} below", amount)


def _value(h: Hypothesis, values: Sequence[Value]) -> str:
    scale = scale_of(h)
    if not values or (scale is RATIO and any(value.raw <= 0 for value in values)):
        return tables.DASH
    mean = scale.mean([value.raw for value in values])
    if math.isinf(mean):
        return "∞" if mean > 0 else "−∞"
    if h.is_told:
        return tables.number(mean)
    if h.metric in COUNT_METRICS or h.metric == "speed":
        return f"{mean:,.0f}"
    return f"{mean:.4f}" if h.metric.endswith("loss") else f"{mean:.2f}" if mean >= 1 else f"{mean:.3g}"


def statement(verdict: Verdict, report: Report) -> list[Sentence]:
    """Return what is said of a verdict: what was seen, the interval where there is one, and why."""
    words = interval_words(verdict)
    own = [sentence(verdict, report.labels), *([words] if words else []), *reasons(verdict, report)]
    return [*own, *(line for block in verdict.blocks for line in _of_block(block, report))]


def _of_block(verdict: Verdict, report: Report) -> list[Sentence]:
    """Return what is said of a verdict on one block, each line with its name."""
    seen, *others = statement(verdict, report.parts.get(verdict.block, report))
    first = _("{block}, {outcome}: {said}", verdict.block, OUTCOMES[verdict.outcome], seen)
    return [first, *(_("{block}: {said}", verdict.block, said) for said in others)]


def reasons(verdict: Verdict, report: Report) -> list[Sentence]:
    """Return why, and what else belongs into the verdict's own lines."""
    found = [*([verdict.reason] if verdict.reason else []), *verdict.alarms, *verdict.notes]
    if verdict.hypothesis.because and not verdict.block:
        found.append(_("the margin, because {reason}", verdict.hypothesis.because))
    if verdict.method == EXACT and verdict.hypothesis.metric == "trainable_params" and not verdict.blocks:
        counts = report.groups[verdict.hypothesis.group][0].parameters
        if counts.frozen_share and counts.frozen_share_without_embedding:
            said = _(
                "{share} of all parameters are frozen, {without} of those outside the embeddings; "
                "the declared quantity decides",
                percent(counts.frozen_share), percent(counts.frozen_share_without_embedding),
            )  # fmt: skip
            found.append(said)
    return found


def remarks(report: Report) -> list[Sentence]:
    """Return what is said of all verdicts: of their levels, and whose margins have no reason."""
    names = [h.id for h in report.study.hypotheses if not h.because and _has_margin(h)]
    said = _('No reason is given for the margin of {hypotheses} (because = "…").', names)
    return [*level_remarks(report), *([said] if names else [])]


def level_remarks(report: Report) -> list[Sentence]:
    """Return why intervals have unequal levels, where there are two or more, and what no level is kept for."""
    found = []
    if sum(verdict.level is not None for verdict in report.verdicts) > 1:
        found.append(_holm(report))
    if report.parts:
        found.append(
            _(
                "What is said of a block alone is at the hypothesis' own level: together the verdicts over all blocks "
                "hold, and not those of single blocks."
            )
        )
    return found


def _has_margin(h: Hypothesis) -> bool:
    """Tell whether a rule has a number that somebody chose: one besides equality."""
    nothing = (scale_of(h).equal, 0.0)  # no ratio is below zero
    return any(math.isfinite(margin) and margin not in nothing for margin in region(h))


def _holm(report: Report) -> Sentence:
    count = sum(verdict.level is not None for verdict in report.verdicts)
    return _(
        "The levels of the intervals are those of Holm's procedure over the {count} hypotheses with one: all verdicts "
        "together hold at the declared level.",
        count,
    )


def verdict_table(report: Report) -> Table:
    """Return the verdicts as a table."""
    columns = map(column, ("hypothesis", "verdict", "estimate", "interval", "rule", "pairs"))
    rows = []
    for verdict in (each for one in report.verdicts for each in (one, *one.blocks)):
        h = verdict.hypothesis
        bounds = interval(verdict)
        is_counted = verdict.outcome in (MET, NOT_MET) or (verdict.count and verdict.method not in (EXACT, POINT))
        cells = (
            _("{hypothesis}, {block}", h.id, verdict.block) if verdict.block else h.id,
            OUTCOMES[verdict.outcome],
            in_rule_units(h, verdict.estimate) if verdict.estimate is not None else None,
            f"{bounds[0]} … {bounds[1]}" if bounds else None,
            _rule(h) if verdict.block else rule(h),
            verdict.count if is_counted else None,
        )
        rows.append(tuple(map(Cell, cells)))
    return Table("verdicts", tuple(columns), tuple(rows), remarks=tuple(remarks(report)))
