"""Designs that can't hold the error of a verdict: why, and what would."""

from __future__ import annotations

import math
from statistics import fmean, stdev

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

from .. import statistics
from .evidence import LOSS_METRICS, TEST_METRICS, Evidence
from .scales import RATIO, scale_of

SPREADS_FROM_ZERO = 5
"""Of a mean that lies fewer standard deviations above zero no ratio is made: its logarithm is no longer nearly normal,
and intervals of 3 seeds err in 7 % of cases where 5 % are claimed.
"""

FEWEST_SEEDS = 3
"""Of each of two unpaired arms, which hold every level whatever the other has."""


def no_ratio(hypothesis: Hypothesis, evidence: Evidence) -> Sentence | None:
    """Return why no ratio can be made of values, whatever the number of seeds; None where it can, or none is asked."""
    if scale_of(hypothesis) is not RATIO:
        return None
    if runs_below := not_positive(evidence):
        return _(
            "{metric} is zero or negative in {runs}, of which no ratio means anything: compare it with scale = "
            '"difference"',
            hypothesis.metric,
            runs_below,
        )
    return near_zero(hypothesis, evidence)


def not_positive(evidence: Evidence) -> tuple[str, ...]:
    """Return the runs whose value is zero or negative."""
    return tuple(value.run for value in (*evidence.group, *evidence.against) if -math.inf < value.raw <= 0)


def near_zero(hypothesis: Hypothesis, evidence: Evidence) -> Sentence | None:
    """Return why no ratio can be made of values that are near zero beside their spread; None where it can.

    PPL, speeds and hours are no matter: their logarithms are what is nearly normal.
    """
    losses = [metric for metric in (*LOSS_METRICS, *TEST_METRICS) if metric.endswith("loss")]
    if not hypothesis.is_told and hypothesis.metric not in losses:
        return None
    for name, arm in ((hypothesis.group, evidence.group), (hypothesis.against, evidence.against)):
        raw = [value.raw for value in arm]
        if len(raw) > 1 and all(map(math.isfinite, raw)) and fmean(raw) < SPREADS_FROM_ZERO * stdev(raw):
            return _(
                "the {metric} of {group} is only {count} standard deviations above zero, and no number of seeds makes "
                'its ratio sure: compare it with scale = "difference"',
                hypothesis.metric,
                name,
                f"{fmean(raw) / stdev(raw):.1f}",
            )
    return None


def not_kept(estimate: statistics.Estimate, alpha: float) -> Sentence:
    """Return why nothing is decided at an error that the estimate's bounds don't keep, and how many would do."""
    if isinstance(estimate, statistics.Median):
        effective = estimate.independent * estimate.count
        needed = math.ceil((1.5 if alpha < statistics.STRICT else 1) * statistics.FEWEST_ROUNDS / estimate.independent)
        return _(
            "the {count} rounds are so correlated that they count as {effective}, which hold no error of {error}: about"
            " {needed} rounds would",
            estimate.count,
            f"{effective:.0f}",
            f"{100 * alpha:.3g} %",
            needed,
        )
    assert isinstance(estimate, statistics.Welch)  # what else keeps every level
    counts = [df + 1 for _part, df in estimate.parts]
    if estimate.method == "combined":
        return _(
            "{fewer} seeds beside {more}, with no two in common over the blocks, hold no error of {error}: {needed} "
            "seeds of each group in each block would",
            min(counts),
            max(counts),
            f"{100 * alpha:.3g} %",
            FEWEST_SEEDS,
        )
    return _(
        "{fewer} seeds in one group and {more} in the other, unpaired, hold no error of {error}: {needed} seeds in each"
        " group would",
        min(counts),
        max(counts),
        f"{100 * alpha:.3g} %",
        FEWEST_SEEDS,
    )
