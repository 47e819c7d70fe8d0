"""Decide hypotheses from intervals at Holm's levels.

Every rule is a region for log(group / against). A hypothesis is *supported* where the interval of two one-sided
bounds lies inside the region, *refuted* where it (of a rule with two sides: that of half the error on each) lies
outside, *inconclusive* where it contains a margin; with fewer than two seeds the point estimate says *met* or *not
met* and nothing more. For each hypothesis one of the two claims is true, so Holm's procedure on the smaller p value
keeps the rate of any false verdict (directional errors: Shaffer 1980).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

from .. import statistics
from ..reading.loaded_run import LoadedRun
from .evidence import COUNT_METRICS, Evidence, Value, gather

SUPPORTED, REFUTED, INCONCLUSIVE = "supported", "refuted", "inconclusive"
MET, NOT_MET = "met (one seed)", "not met (one seed)"
VOID, UNDECIDABLE, NO_DATA = "void", "undecidable", "no data"
OUTCOMES = (SUPPORTED, REFUTED, INCONCLUSIVE, MET, NOT_MET, VOID, UNDECIDABLE, NO_DATA)
"""What a verdict can be."""

EXACT, PAIRED, WELCH, POINT, TRIAL = "exact", "paired", "welch", "point", "trial"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A hypothesis with what the data say about it; ratios are group / against."""

    hypothesis: Hypothesis
    """The claim and its rule."""
    outcome: str
    """One of OUTCOMES."""
    method: str = ""
    """``exact``, ``paired`` (t), ``welch`` (t), ``point`` or ``trial`` (the interleaved speed trial)."""
    region: tuple[float, float] = (0.0, math.inf)
    """Ratios that satisfy the rule."""
    ratio: float | None = None
    """The estimate: geometric mean over seeds; None where there is none."""
    interval: tuple[float, float] | None = None
    """Two one-sided bounds of the ratio at ``level`` each; None without two seeds."""
    level: float | None = None
    """One-sided level of the interval after Holm's adjustment."""
    sd: float | None = None
    """Standard deviation of the log ratio of a pair (Welch: of a difference of independent runs)."""
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
    """Step that losses are compared at."""
    reason: Sentence | None = None
    """Why the outcome is what it is."""
    alarms: tuple[Sentence, ...] = ()
    """Remarks that a reader must not miss: unfairness, a rule that isn't the locked one."""
    notes: tuple[Sentence, ...] = ()
    """Further remarks to print with it: interim runs, left-out seeds, an improvement that broke the rule."""


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


def region(hypothesis: Hypothesis) -> tuple[float, float]:
    """Return the ratios group / against that satisfy the rule; "within 5 %" is 1/1.05 to 1.05 (ln 1.05 = 0.0488 both
    ways).
    """
    first = hypothesis.bounds[0]
    if hypothesis.relation == "reduction":
        return 1 - hypothesis.bounds[1], 1 - first
    if hypothesis.relation == "equivalent_within":
        return 1 / (1 + first), 1 + first
    if hypothesis.relation == "at_most_above":
        return 0.0, 1 + first
    if hypothesis.relation == "ratio_at_least":
        return first - hypothesis.margin, math.inf
    raise ValueError(f"{hypothesis.id}: relation {hypothesis.relation!r} has no rule")


def judge(
    hypotheses: Sequence[Hypothesis],
    runs: Mapping[str, Sequence[LoadedRun]],
    circumstances: Mapping[str, Circumstances],
) -> tuple[Verdict, ...]:
    """Return one verdict a hypothesis, in their order; ``circumstances`` are by the hypothesis's id."""
    drafts = [_Draft.make(h, runs, circumstances.get(h.id, Circumstances())) for h in hypotheses]
    tested = [draft for draft in drafts if draft.estimate is not None]
    p_values = []
    for draft in tested:
        low, high = log_region(region(draft.hypothesis))
        assert draft.estimate is not None
        p_values.append(min(draft.estimate.p_inside(low, high), draft.estimate.p_outside(low, high)))
    levels = statistics.holm_levels(p_values, [1 - draft.hypothesis.level for draft in tested])
    alpha = {draft.hypothesis.id: level for draft, level in zip(tested, levels, strict=True)}
    return tuple(_decide(draft, alpha.get(draft.hypothesis.id)) for draft in drafts)


@dataclass(frozen=True)
class _Draft:
    """A hypothesis with its values, before Holm's level is known."""

    hypothesis: Hypothesis
    circumstances: Circumstances
    evidence: Evidence
    estimate: statistics.Estimate | None
    notes: tuple[Sentence, ...] = field(default=())

    @classmethod
    def make(cls, hypothesis: Hypothesis, runs: Mapping[str, Sequence[LoadedRun]], around: Circumstances) -> _Draft:
        if hypothesis.metric == "speed" and around.trial is not None:
            return cls(hypothesis, around, Evidence(at_end=True), around.trial)
        evidence = gather(hypothesis, runs, may_pair=around.may_pair)
        if evidence.missing or hypothesis.metric in COUNT_METRICS or around.undecidable or around.void:
            return cls(hypothesis, around, evidence, None)
        a, b = [v.log for v in evidence.group], [v.log for v in evidence.against]
        if min(len(a), len(b)) < 2 or not all(map(math.isfinite, a + b)):
            return cls(hypothesis, around, evidence, None)
        estimate = (
            statistics.paired([x - y for x, y in zip(a, b, strict=True)])
            if evidence.is_paired
            else statistics.welch(a, b)
        )
        if estimate.sd < 1e-12:  # copies of one run, however many folders there are
            note = _(
                "{count} seeds gave the same result to the last digit: copies, or a seed without effect; "
                "taken as one seed",
                estimate.count,
            )
            return cls(hypothesis, around, evidence, None, (note,))
        return cls(hypothesis, around, evidence, estimate)


def _decide(draft: _Draft, alpha: float | None) -> Verdict:
    hypothesis, around, evidence = draft.hypothesis, draft.circumstances, draft.evidence
    inside = region(hypothesis)
    base = Verdict(
        hypothesis=hypothesis,
        outcome=NO_DATA,
        region=inside,
        group=evidence.group,
        against=evidence.against,
        step=evidence.step,
        alarms=around.alarms,
        notes=(*around.notes, *evidence.notes, *draft.notes),
    )
    if evidence.missing:
        if around.void:
            return replace(base, outcome=VOID, reason=around.void)
        return replace(base, reason=evidence.missing)
    if around.trial is not None and draft.estimate is around.trial:
        base = replace(base, method=TRIAL)
    else:
        base = replace(base, ratio=_ratio(evidence), count=min(len(evidence.group), len(evidence.against)))
    if around.void:
        return replace(base, outcome=VOID, method=POINT, reason=around.void)
    if around.undecidable:
        return replace(base, outcome=UNDECIDABLE, method=POINT, reason=around.undecidable)
    if hypothesis.metric in COUNT_METRICS:
        return _exact(base)
    if draft.estimate is None or alpha is None:
        return _point(base, evidence)
    return _tested(base, draft.estimate, alpha)


def _exact(base: Verdict) -> Verdict:
    assert base.ratio is not None
    low, high = base.region
    holds = (
        low <= base.ratio <= high
        or math.isclose(base.ratio, low, rel_tol=1e-12)
        or math.isclose(base.ratio, high, rel_tol=1e-12)
    )
    return replace(
        base,
        outcome=SUPPORTED if holds else REFUTED,
        method=EXACT,
        count=0,
        reason=_("an exact count, decided without statistics"),
    )


def _point(base: Verdict, evidence: Evidence) -> Verdict:
    """Decide without a spread: one seed, or a diverged seed (which makes the mean infinite)."""
    low, high = base.region
    failed = [v.run for v in evidence.group if math.isinf(v.raw)]
    failed_against = [v.run for v in evidence.against if math.isinf(v.raw)]
    if failed_against:
        return replace(
            base,
            outcome=INCONCLUSIVE,
            ratio=None,
            method=POINT,
            reason=_(
                "{runs}, of the arm compared with, diverged: nothing is shown for or against the claim",
                tuple(failed_against),
            ),
            notes=(*base.notes, *(_("{run} diverged and counts as a failure of its arm", run) for run in failed)),
        )
    assert base.ratio is not None
    met = low <= base.ratio <= high
    if failed:
        outcome = REFUTED if len(evidence.group) > 1 else NOT_MET
        return replace(
            base,
            outcome=outcome,
            ratio=math.inf,
            method=POINT,
            reason=_("{runs} diverged, which counts as a failure of the arm", tuple(failed)),
        )
    base = replace(
        base,
        outcome=MET if met else NOT_MET,
        method=POINT,
        count=1,
        reason=_("by the point estimate: one seed, seed variance unknown"),
    )
    return _improved(base) if not met else base


def _tested(base: Verdict, estimate: statistics.Estimate, alpha: float) -> Verdict:
    low, high = log_region(base.region)
    lower, upper = estimate.interval(alpha)
    inside = lower > low and upper < high
    if not inside:  # either bound alone refutes, so each gets half of the error
        alpha /= max(statistics.outside_tests(low, high), 1)
        lower, upper = estimate.interval(alpha)
    outside = upper < low or lower > high
    outcome = SUPPORTED if inside else REFUTED if outside else INCONCLUSIVE
    verdict = replace(
        base,
        outcome=outcome,
        method=base.method or (PAIRED if estimate.method == "paired" else WELCH),
        ratio=math.exp(estimate.mean),
        interval=(math.exp(lower), math.exp(upper)),
        level=1 - alpha,
        sd=estimate.sd,
        count=estimate.count,
        p_supported=estimate.p_inside(low, high),
        p_refuted=estimate.p_outside(low, high),
        reason=_reason(outcome, base.method),
    )
    return _improved(verdict) if outcome == REFUTED else verdict


def _reason(outcome: str, method: str) -> Sentence:
    if outcome == INCONCLUSIVE and method == TRIAL:
        return _("the interval holds the rule's margin: a longer trial is needed")
    return {
        SUPPORTED: _("the interval lies inside the rule"),
        REFUTED: _("the interval lies outside the rule"),
        INCONCLUSIVE: _("the interval holds the rule's margin: more seeds are needed"),
    }[outcome]


def _improved(verdict: Verdict) -> Verdict:
    """Note where a two-sided rule is broken by an improvement, with the one-sided result."""
    h = verdict.hypothesis
    if (
        h.relation != "equivalent_within"
        or h.metric == "speed"
        or verdict.ratio is None
        or verdict.ratio >= verdict.region[0]
    ):
        return verdict
    bound = verdict.interval[1] if verdict.interval else verdict.ratio
    note = _(
        "the two-sided rule is broken by an improvement; the one-sided claim (at most {above} above) {one_sided}",
        _percent(h.bounds[0]),
        _("holds") if bound < verdict.region[1] else _("is open"),
    )
    return replace(verdict, notes=(*verdict.notes, note))


def _ratio(evidence: Evidence) -> float | None:
    """Return the ratio of geometric means; for pairs that is the geometric mean of the pairs' ratios."""
    if not evidence.group or not evidence.against:
        return None
    a = math.fsum(v.log for v in evidence.group) / len(evidence.group)
    b = math.fsum(v.log for v in evidence.against) / len(evidence.against)
    if math.isinf(b):
        return None
    return math.exp(a - b) if a - b < 700 else math.inf


def log_region(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the logarithms of a region's margins."""
    low, high = bounds
    return math.log(low) if low > 0 else -math.inf, math.log(high) if math.isfinite(high) else math.inf


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
