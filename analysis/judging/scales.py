"""The scales that two arms are compared on: the ratio of a metric, averaged as its logarithm, or the difference in the
metric's own units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oelm_jobs.spec.study import Hypothesis

from ..reading.loaded_run import perplexity


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How values, rules and results of one scale are turned into what has a mean and a spread, and back."""

    linear: Callable[[float], float]
    """From a value, or a comparison of two, to what is averaged."""
    told: Callable[[float], float]
    """Back."""
    equal: float
    """What the comparison of equal values is."""

    def mean(self, values: Sequence[float]) -> float:
        """Return the mean of values: the geometric one where their ratio is compared."""
        return self.told(math.fsum(map(self.linear, values)) / len(values))

    def compare(self, group: float, against: float) -> float:
        """Return the ratio, or the difference, of two values."""
        return self.told(self.linear(group) - self.linear(against))

    def margins(self, region: tuple[float, float]) -> tuple[float, float]:
        """Return a region's margins as they bound a mean."""
        low, high = map(self.linear, region)
        return low, high


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


RATIO = Scale(linear=_log, told=perplexity, equal=1.0)
DIFFERENCE = Scale(linear=float, told=float, equal=0.0)


def scale_of(hypothesis: Hypothesis) -> Scale:
    """Return the scale that a hypothesis is about."""
    return DIFFERENCE if hypothesis.scale == "difference" else RATIO


def region(hypothesis: Hypothesis) -> tuple[float, float]:
    """Return the ratios or differences that satisfy the rule; "within 5 %" is 1/1.05 to 1.05 (ln 1.05 = 0.0488 both
    ways).
    """
    first, last = hypothesis.bounds[0], hypothesis.bounds[-1]
    if hypothesis.relation == "ratio_at_least":
        return first - hypothesis.margin, math.inf
    equal = scale_of(hypothesis).equal
    lowest = 0.0 if equal else -math.inf
    if hypothesis.relation == "better_by":
        return (equal + first, math.inf) if hypothesis.is_higher_better else (lowest, equal - first)
    if hypothesis.relation == "reduction":
        return equal - last, equal - first
    if hypothesis.relation == "increase":
        return equal + first, equal + last
    if hypothesis.relation == "equivalent_within":
        return 1 / (1 + first) if equal else -first, equal + first
    if hypothesis.relation == "at_most_above":
        return lowest, equal + first
    if hypothesis.relation == "at_most_below":
        return equal - first, math.inf
    raise ValueError(f"{hypothesis.id}: relation {hypothesis.relation!r} has no rule")
