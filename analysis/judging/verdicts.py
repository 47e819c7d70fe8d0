"""Decide hypotheses from intervals at Holm's levels.

Every rule is a region for log(group / against), or for group − against. A hypothesis is *supported* where the interval
of two one-sided bounds lies inside the region, *refuted* where it (of a rule with two sides: that of half the error on
each) lies outside, *inconclusive* where it contains a margin; with fewer than two seeds the point estimate says *met*
or *not met* and nothing more. For each hypothesis one of the two claims is true, so Holm's procedure on the smaller p
value keeps the rate of any false verdict (directional errors: Shaffer 1980).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import BETTER_BY, Hypothesis

from .. import statistics
from ..reading.loaded_run import LoadedRun
from . import limits
from .evidence import COUNT_METRICS, Evidence, Value, gather
from .scales import RATIO, Scale, region, scale_of

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
MET, NOT_MET = "met (one seed)", "not met (one seed)"
VOID, UNDECIDABLE, NO_DATA = "void", "undecidable", "no data"
OUTCOMES = {
    SUPPORTED: _("supported"), REFUTED: _("refuted"), INCONCLUSIVE: _("inconclusive"),
    MET: _("met (one seed)"), NOT_MET: _("not met (one seed)"),
    VOID: _("void"), UNDECIDABLE: _("undecidable"), NO_DATA: _("no data"),
}  # fmt: skip
"""What a verdict can be, and how a report calls it."""

EXACT, PAIRED, WELCH, POINT, TRIAL = "exact", "paired", "welch", "point", "trial"
EACH, MEANS_PAIRED, MEANS_WELCH, COMBINED = "each", "means_paired", "means_welch", "combined"
METHODS = {
    PAIRED: _("paired t"), WELCH: _("Welch's t"), EXACT: _("exact count"), POINT: _("point estimate"),
    TRIAL: _("median of the speed trial, sign test"), EACH: _("the test of each block"),
    MEANS_PAIRED: _("paired t of each seed's mean over the blocks"),
    MEANS_WELCH: _("Welch's t of each seed's mean over the blocks"),
    COMBINED: _("the blocks' variances combined (Satterthwaite)"),
}  # fmt: skip
"""How it was come by, and how a report calls that."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A hypothesis with what the data say about it, on its scale: group / against, or group − against."""

    hypothesis: Hypothesis
    """The claim and its rule."""
    outcome: str
    """One of OUTCOMES."""
    method: str = ""
    """One of METHODS; empty without data."""
    region: tuple[float, float] = (0.0, math.inf)
    """Ratios or differences that satisfy the rule."""
    ratio: float | None = None
    """The estimate: ratio of geometric means over seeds; None where there is none."""
    difference: float | None = None
    """The estimate on the scale of differences: that of the means."""
    interval: tuple[float, float] | None = None
    """Two one-sided bounds of it at ``level`` each; None without two seeds."""
    level: float | None = None
    """One-sided level of the interval after Holm's adjustment."""
    sd: float | None = None
    """Standard deviation of the log ratio, or of the difference, of a pair (Welch: of independent runs)."""
    count: int = 0
    """Pairs; without pairing the smaller number of seeds of the two arms."""
    p_supported: float | None = None
    """p value of the claim (two one-sided tests where the rule has two sides), not adjusted."""
    p_refuted: float | None = None
    """p value of its opposite, not adjusted."""
    group: tuple[Value, ...] = ()
    """Values of the claim's arm."""
    against: tuple[Value, ...] = ()
    """Values of the other arm."""
    step: int | None = None
    """Step that losses, and what a script tells, are compared at."""
    reason: Sentence | None = None
    """Why the outcome is what it is."""
    alarms: tuple[Sentence, ...] = ()
    """Remarks that a reader must not miss: unfairness, a rule that isn't the locked one."""
    notes: tuple[Sentence, ...] = ()
    """Further remarks to print with it: interim runs, left-out seeds, an improvement that broke the rule."""
    block: str = ""
    """The block that it is about alone; empty where it is about all there is."""
    blocks: tuple[Verdict, ...] = ()
    """What each block shows of it, where there are blocks."""

    @property
    def estimate(self) -> float | None:
        """The ratio or the difference."""
        return self.ratio if scale_of(self.hypothesis) is RATIO else self.difference


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What limits a hypothesis beyond its numbers; found by the audit."""

    may_pair: bool = False
    """Equal seeds share data order and initial weights."""
    void: Sentence | None = None
    """Why the factor was never varied; None where it was, or nothing indicates otherwise."""
    undecidable: Sentence | None = None
    """Why the arms can't be compared in this metric (speed on unequal hardware)."""
    alarms: tuple[Sentence, ...] = ()
    """Undeclared differences between the two arms, and that the rule isn't the locked one."""
    notes: tuple[Sentence, ...] = ()
    """Further remarks for the verdict's line."""
    trial: statistics.Estimate | None = None
    """Log ratio of the interleaved speed trial."""


def judge(
    hypotheses: Sequence[Hypothesis],
    runs: Mapping[str, Sequence[LoadedRun]],
    circumstances: Mapping[str, Circumstances],
) -> tuple[Verdict, ...]:
    """Return one verdict a hypothesis, in their order; ``circumstances`` are by the hypothesis's id."""
    drafts = [draft(h, runs, circumstances.get(h.id, Circumstances())) for h in hypotheses]
    tests = [(verdict, estimate) for verdict, estimate in drafts if estimate is not None]
    p_values = [min(verdict.p_supported or 0.0, verdict.p_refuted or 0.0) for verdict, _estimate in tests]
    levels = iter(statistics.holm_levels(p_values, [1 - verdict.hypothesis.level for verdict, _estimate in tests]))
    return tuple(
        verdict if estimate is None else tested(verdict, estimate, next(levels)) for verdict, estimate in drafts
    )


def draft(
    hypothesis: Hypothesis, runs: Mapping[str, Sequence[LoadedRun]], around: Circumstances
) -> tuple[Verdict, statistics.Estimate | None]:
    """Return the verdict where no test is needed for it, else what is known before one, and what is to be tested."""
    trial = around.trial if hypothesis.metric == "speed" and not hypothesis.is_told else None
    evidence = Evidence() if trial is not None else gather(hypothesis, runs, may_pair=around.may_pair)
    base = Verdict(
        hypothesis=hypothesis,
        outcome=NO_DATA,
        region=region(hypothesis),
        group=evidence.group,
        against=evidence.against,
        step=evidence.step,
        reason=evidence.missing,
        alarms=around.alarms,
        notes=(*around.notes, *evidence.notes),
    )
    if evidence.missing:
        return (replace(base, outcome=VOID, reason=around.void) if around.void else base), None
    if trial is None:
        count = min(len(evidence.group), len(evidence.against))
        base = estimated(replace(base, count=count), _estimate(hypothesis, evidence))
    if around.void:
        return replace(base, outcome=VOID, method=POINT, reason=around.void), None
    if around.undecidable:
        return replace(base, outcome=UNDECIDABLE, method=POINT, reason=around.undecidable), None
    if trial is not None:
        return to_test(replace(base, method=TRIAL), trial), trial
    if hypothesis.metric in COUNT_METRICS and not hypothesis.is_told:
        return exact(base), None
    scale = scale_of(hypothesis)
    if why := limits.no_ratio(hypothesis, evidence):
        return replace(base, outcome=UNDECIDABLE, method=POINT, reason=why), None
    a, b = ([scale.linear(value.raw) for value in arm] for arm in (evidence.group, evidence.against))
    if base.count < 2 or not all(map(math.isfinite, a + b)):
        return point(base), None
    if evidence.is_paired:
        base, estimate = replace(base, method=PAIRED), statistics.paired([x - y for x, y in zip(a, b, strict=True)])
    else:
        base, estimate = replace(base, method=WELCH), statistics.welch(a, b)
    if has_spread(estimate, scale, (*base.group, *base.against)):
        return to_test(base, estimate), estimate
    note = _(
        "{count} seeds gave the same result to the last digit: copies, or a seed without effect; taken as one seed",
        estimate.count,
    )
    return point(replace(base, notes=(*base.notes, note))), None


def has_spread(estimate: statistics.Estimate, scale: Scale, values: Sequence[Value]) -> bool:
    """Tell whether values differ by more than rounding."""
    return estimate.sd > 1e-12 * (1 if scale is RATIO else max(abs(value.raw) for value in values))


def to_test(base: Verdict, estimate: statistics.Estimate) -> Verdict:
    """Return what is to be tested with the errors at which the estimate supports and refutes it: its p values."""
    low, high = scale_of(base.hypothesis).margins(base.region)
    p_supported, p_refuted = estimate.p_inside(low, high), estimate.p_outside(low, high)
    return replace(base, p_supported=max(p_supported, estimate.least), p_refuted=max(p_refuted, estimate.least))


def exact(base: Verdict) -> Verdict:
    holds = _holds(base)
    reason = _("an exact count, decided without statistics")
    return replace(base, outcome=SUPPORTED if holds else REFUTED, method=EXACT, count=0, reason=reason)


def point(base: Verdict) -> Verdict:
    """Decide without a spread: one seed, or a diverged seed (which makes the mean infinite)."""
    base = replace(base, method=POINT)
    h = base.hypothesis
    failed, failed_against = (
        tuple(value.run for value in arm if math.isinf(value.raw)) for arm in (base.group, base.against)
    )
    if failed_against:
        reason = _(
            "{runs}, of the arm compared with, diverged: nothing is shown for or against the claim", failed_against
        )
        if h.is_told:
            reason = _(
                "{runs}, of the arm compared with, diverged or ended without a finite {metric}: nothing is shown for "
                "or against the claim",
                failed_against,
                h.metric,
            )
        notes = (*base.notes, *(_("{run} diverged and counts as a failure of its arm", run) for run in failed))
        return replace(estimated(base, None), outcome=INCONCLUSIVE, reason=reason, notes=notes)
    if failed:
        reason = _("{runs} diverged, which counts as a failure of the arm", failed)
        if h.is_told:
            reason = _(
                "{runs} diverged or ended without a finite {metric}, which counts as a failure of the arm",
                failed,
                h.metric,
            )
        return replace(base, outcome=REFUTED if len(base.group) > 1 else NOT_MET, reason=reason)
    reason = _("by the point estimate: one seed, seed variance unknown")
    return _improved(replace(base, outcome=MET if _holds(base) else NOT_MET, count=1, reason=reason))


def _holds(base: Verdict) -> bool:
    """Tell whether the estimate satisfies the rule; one that is a margin but for rounding does, unless equal values
    are the margin of what is to be better.
    """
    assert base.estimate is not None
    low, high = base.region
    if base.hypothesis.relation == BETTER_BY and base.hypothesis.bounds == (0.0,):
        return low < base.estimate < high
    return low <= base.estimate <= high or any(
        math.isclose(base.estimate, margin, rel_tol=1e-12) for margin in base.region
    )


def tested(base: Verdict, estimate: statistics.Estimate, alpha: float, shares: int = 1) -> Verdict:
    """Return the verdict by a test at an error of ``alpha``.

    Args:
        shares: How many tests can refute the claim, each of which gets its share of the error.
    """
    scale = scale_of(base.hypothesis)
    low, high = scale.margins(base.region)
    lower, upper = estimate.interval(alpha)
    inside = lower > low and upper < high and alpha >= estimate.least
    if not inside:  # either bound alone refutes, so each gets half of the error
        alpha /= max(statistics.outside_tests(low, high), 1) * shares
        lower, upper = estimate.interval(alpha)
    if alpha < estimate.least:
        base = replace(estimated(base, scale.told(estimate.mean)), p_supported=None, p_refuted=None, sd=estimate.sd)
        return replace(base, outcome=UNDECIDABLE, count=estimate.count, reason=limits.not_kept(estimate, alpha))
    outcome, reason = INCONCLUSIVE, _("the interval holds the rule's margin: more seeds are needed")
    if inside:
        outcome, reason = SUPPORTED, _("the interval lies inside the rule")
    elif upper < low or lower > high:
        outcome, reason = REFUTED, _("the interval lies outside the rule")
    elif base.method == TRIAL:
        reason = _("the interval holds the rule's margin: a longer trial is needed")
    verdict = replace(
        estimated(base, scale.told(estimate.mean)),
        outcome=outcome,
        interval=(scale.told(lower), scale.told(upper)),
        level=1 - alpha,
        sd=estimate.sd,
        count=estimate.count,
        reason=reason,
    )
    return _improved(verdict) if outcome == REFUTED else verdict


def _improved(verdict: Verdict) -> Verdict:
    """Note where a two-sided rule is broken by an improvement, with the one-sided result."""
    h = verdict.hypothesis
    assert verdict.estimate is not None
    if h.relation != "equivalent_within" or not h.goal or (h.metric == "speed" and not h.is_told):
        return verdict
    low, high = verdict.region
    lower, upper = verdict.interval or (verdict.estimate, verdict.estimate)
    amount = f"{100 * h.bounds[0]:.3g} %" if scale_of(h) is RATIO else f"{h.bounds[0]:.3g}"
    if h.goal == "minimize" and verdict.estimate < low:
        note = _(
            "the two-sided rule is broken by an improvement; the one-sided claim (at most {above} above) {one_sided}",
            amount,
            _("holds") if upper < high else _("is open"),
        )
    elif h.goal == "maximize" and verdict.estimate > high:
        note = _(
            "the two-sided rule is broken by an improvement; the one-sided claim (at most {below} below) {one_sided}",
            amount,
            _("holds") if lower > low else _("is open"),
        )
    else:
        return verdict
    return replace(verdict, notes=(*verdict.notes, note))


def estimated(verdict: Verdict, estimate: float | None) -> Verdict:
    """Return the verdict with an estimate on its scale."""
    if scale_of(verdict.hypothesis) is RATIO:
        return replace(verdict, ratio=estimate)
    return replace(verdict, difference=estimate)


def _estimate(hypothesis: Hypothesis, evidence: Evidence) -> float | None:
    """Return the ratio of geometric means (for pairs that is the geometric mean of the pairs' ratios), or the
    difference of means; None where values can't be compared, or what failed is not simply infinitely more.
    """
    scale = scale_of(hypothesis)
    if scale is RATIO and limits.not_positive(evidence):
        return None
    a, b = (
        math.fsum(scale.linear(value.raw) for value in arm) / len(arm) for arm in (evidence.group, evidence.against)
    )
    return None if math.isinf(b) or a == -math.inf else scale.told(a - b)
