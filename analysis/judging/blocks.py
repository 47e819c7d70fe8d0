"""Decide hypotheses over the blocks of a study: over each of them, or over their mean.

A claim about *each* block is supported where every block's own test at the full level supports it: for a wrong verdict
the test of the block that lacks it would have to err, so nothing is corrected (intersection-union test: Berger 1982).
One block that breaks the rule refutes it; since each of them could do so by chance, each gets its share of the error
(Bonferroni). A claim about the *mean* is tested once: on the means over blocks that each seed has where the seeds are
the same ones, which is right however blocks are correlated, else on the blocks' estimates as independent ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.block import MEAN
from oelm_jobs.spec.study import Hypothesis

from .. import statistics
from ..reading.loaded_run import LoadedRun
from .evidence import COUNT_METRICS, Value
from .scales import Scale, region, scale_of
from .verdicts import (
    COMBINED,
    EACH,
    INCONCLUSIVE,
    MEANS_PAIRED,
    MEANS_WELCH,
    MET,
    NO_DATA,
    NOT_MET,
    PAIRED,
    POINT,
    REFUTED,
    SUPPORTED,
    UNDECIDABLE,
    VOID,
    Circumstances,
    Verdict,
    draft,
    estimated,
    exact,
    has_spread,
    point,
    tested,
    to_test,
)  # fmt: skip

DECIDES = (REFUTED, VOID, UNDECIDABLE, NO_DATA, NOT_MET, INCONCLUSIVE, MET, SUPPORTED)
"""Outcomes within blocks, of which the first one that any has is that of a claim about each."""
NOTHING = (VOID, UNDECIDABLE, NO_DATA)
"""Outcomes that leave no value to a mean."""


@dataclass(frozen=True, kw_only=True)
class Within:
    """What there is of one block."""

    runs: Mapping[str, Sequence[LoadedRun]]
    """By group."""
    around: Mapping[str, Circumstances]
    """By the hypothesis's id."""


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A hypothesis before its level is known."""

    over_all: Verdict
    estimate: statistics.Estimate | None
    """Of the mean, where that is tested."""
    blocks: Sequence[tuple[Verdict, statistics.Estimate | None]]
    p_values: tuple[float, float] | None
    """Of the claim and of its opposite; None where nothing is tested."""

    def decided(self, alpha: float) -> Verdict:
        """Return the verdict at a level."""
        is_of_mean = self.over_all.hypothesis.holds == MEAN
        shares = 1 if is_of_mean else len(self.blocks)
        blocks = [one if of_it is None else tested(one, of_it, alpha, shares) for one, of_it in self.blocks]
        if is_of_mean:
            verdict = self.over_all if self.estimate is None else tested(self.over_all, self.estimate, alpha)
        else:
            verdict = _of_each(self.over_all, blocks)
            if self.p_values is not None:
                verdict = replace(verdict, level=1 - alpha, p_supported=self.p_values[0], p_refuted=self.p_values[1])
        return replace(verdict, blocks=tuple(_apart(one, verdict) for one in blocks))


def judge(hypotheses: Sequence[Hypothesis], blocks: Mapping[str, Within]) -> tuple[Verdict, ...]:
    """Return one verdict a hypothesis, in their order, with what each block alone shows."""
    drafts = [_draft(h, blocks) for h in hypotheses]
    tests = [(one, min(one.p_values)) for one in drafts if one.p_values is not None]
    levels = statistics.holm_levels([p for _one, p in tests], [1 - one.over_all.hypothesis.level for one, _p in tests])
    by_test = {id(one): level for (one, _p), level in zip(tests, levels, strict=True)}
    return tuple(one.decided(by_test.get(id(one), 1 - one.over_all.hypothesis.level)) for one in drafts)


def _draft(h: Hypothesis, blocks: Mapping[str, Within]) -> _Draft:
    parts = []
    for name, within in blocks.items():
        verdict, estimate = draft(h, within.runs, within.around.get(h.id, Circumstances()))
        parts.append((replace(verdict, block=name), estimate))
    verdicts = [verdict for verdict, _estimate in parts]
    base = Verdict(
        hypothesis=h,
        outcome=NO_DATA,
        region=region(h),
        group=tuple(value for verdict in verdicts for value in verdict.group),
        against=tuple(value for verdict in verdicts for value in verdict.against),
        count=min((verdict.count for verdict in verdicts), default=0),
        alarms=_shared([verdict.alarms for verdict in verdicts]),
        notes=_shared([verdict.notes for verdict in verdicts]),
    )
    if h.holds == MEAN:
        over_all, estimate = _of_mean(base, parts)
        errors = _errors(over_all) if estimate is not None else None
        return _Draft(over_all=over_all, estimate=estimate, blocks=parts, p_values=errors)
    errors_within = [_errors(verdict) for verdict, estimate in parts if estimate is not None]
    p_values = None
    if errors_within:
        may_hold = all(estimate is not None or verdict.outcome == SUPPORTED for verdict, estimate in parts)
        p_supported = max(supported for supported, _refuted in errors_within) if may_hold else 1.0
        p_refuted = min(1.0, len(parts) * min(refuted for _supported, refuted in errors_within))
        p_values = p_supported, p_refuted
    return _Draft(over_all=replace(base, method=EACH), estimate=None, blocks=parts, p_values=p_values)


def _errors(verdict: Verdict) -> tuple[float, float]:
    """Return the p values of what is to be tested: of the claim and of its opposite."""
    return verdict.p_supported or 0.0, verdict.p_refuted or 0.0


def _shared(several: Sequence[Sequence[Sentence]]) -> tuple[Sentence, ...]:
    """Return what is said of all blocks alike."""
    return tuple(one for one in (several[0] if several else ()) if all(one in others for others in several))


def _apart(verdict: Verdict, over_all: Verdict) -> Verdict:
    """Return a block's verdict without the remarks that the one over all has."""
    alarms = tuple(one for one in verdict.alarms if one not in over_all.alarms)
    return replace(verdict, alarms=alarms, notes=tuple(one for one in verdict.notes if one not in over_all.notes))


# Each -----------------------------------------------------------------------------------------------------------------


def _of_each(base: Verdict, blocks: Sequence[Verdict]) -> Verdict:
    """Decide a claim about each block by what they show."""
    if not blocks:
        return base
    outcome = min((verdict.outcome for verdict in blocks), key=DECIDES.index)
    names = [verdict.block for verdict in blocks if verdict.outcome == outcome]
    said = {
        REFUTED: _("refuted in {blocks}, and one block is enough", names),
        INCONCLUSIVE: _("open in {blocks}", names),
        NOT_MET: _("not met in {blocks}, by the point estimate of one seed", names),
        MET: _("met in each block, in {blocks} by the point estimate of one seed alone", names),
        SUPPORTED: _("each block's own test supports it"),
    }
    reason = said.get(outcome)
    if reason is None:
        first = next(verdict for verdict in blocks if verdict.outcome == outcome)
        reason = _("block {block}: {why}", first.block, first.reason or "")
    return replace(base, outcome=outcome, reason=reason)


# The mean -------------------------------------------------------------------------------------------------------------


def _of_mean(
    base: Verdict, parts: Sequence[tuple[Verdict, statistics.Estimate | None]]
) -> tuple[Verdict, statistics.Estimate | None]:
    """Return the verdict on the mean where no test is needed for it, else what is known before one, and what is to be
    tested.
    """
    final = [verdict for verdict, estimate in parts if estimate is None and verdict.outcome in NOTHING]
    if final or not parts:
        first = min(final, key=lambda verdict: DECIDES.index(verdict.outcome), default=base)
        reason = _("block {block}: {why}", first.block, first.reason or "")
        return replace(base, outcome=first.outcome, method=POINT, reason=reason), None
    h, scale = base.hypothesis, scale_of(base.hypothesis)
    if all(verdict.estimate is not None for verdict, _estimate in parts):
        mean = math.fsum(scale.linear(verdict.estimate or 0.0) for verdict, _estimate in parts) / len(parts)
        base = estimated(base, scale.told(mean))
    if h.metric in COUNT_METRICS and not h.is_told:
        return exact(base), None
    note = _("the mean over the blocks, each with the same weight, is a claim about these data sets alone")
    base = replace(base, notes=(*base.notes, note))
    if not all(math.isfinite(scale.linear(value.raw)) for value in (*base.group, *base.against)):
        found, is_refuted = point(base), any(verdict.outcome == REFUTED for verdict, _estimate in parts)
        # What diverged in a block of one seed refutes nothing there, and nothing over all.
        return replace(found, outcome=NOT_MET) if found.outcome == REFUTED and not is_refuted else found, None
    method, estimate, left_out = _sample(parts, scale)
    if left_out:
        note = _("seeds {seeds} are not in every block, and left out of the mean", left_out)
        base = replace(base, notes=(*base.notes, note))
    if estimate is None or not has_spread(estimate, scale, (*base.group, *base.against)):
        return point(base), None
    return to_test(replace(estimated(base, scale.told(estimate.mean)), method=method), estimate), estimate


def _sample(
    parts: Sequence[tuple[Verdict, statistics.Estimate | None]], scale: Scale
) -> tuple[str, statistics.Estimate | None, tuple[str, ...]]:
    """Return how a mean is estimated, the estimate, and the seeds that it leaves out; no estimate where the spread of
    one seed is unknown.
    """
    by_seed = [(_by_seed(verdict.group, scale), _by_seed(verdict.against, scale)) for verdict, _estimate in parts]
    arms = [[of_block[side] for of_block in by_seed] for side in (0, 1)]
    if all(verdict.method == PAIRED for verdict, _estimate in parts):
        pairs = [{seed: a[seed] - b[seed] for seed in a} for a, b in by_seed]
        means, left_out = _means(pairs)
        if len(means) > 1:
            return MEANS_PAIRED, statistics.paired(means), left_out
    else:
        (group, left_out), (against, others) = map(_means, arms)
        if min(len(group), len(against)) > 1:
            return MEANS_WELCH, statistics.welch(group, against), tuple(dict.fromkeys((*left_out, *others)))
    estimates = [estimate for _verdict, estimate in parts if estimate is not None]
    if len(estimates) < len(parts):
        return POINT, None, ()
    return COMBINED, statistics.mean_of(estimates), ()


def _by_seed(values: Sequence[Value], scale: Scale) -> dict[int, float]:
    return {value.seed: scale.linear(value.raw) for value in values if value.seed is not None}


def _means(blocks: Sequence[Mapping[int, float]]) -> tuple[list[float], tuple[str, ...]]:
    """Return the mean over blocks of each seed that all of them have, and the others."""
    common = sorted(set.intersection(*map(set, blocks)))
    others = sorted({seed for block in blocks for seed in block} - {*common})
    return [math.fsum(block[seed] for block in blocks) / len(blocks) for seed in common], tuple(map(str, others))
