"""The size of an effect on both scales: what a verdict rests on, and the same values on the other scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import statistics
from . import limits
from .evidence import Evidence
from .scales import RATIO, Scale, scale_of
from .verdicts import PAIRED, TRIAL, WELCH, Verdict


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A ratio or a difference of two groups; None is what isn't known."""

    estimate: float | None = None
    interval: tuple[float, float] | None = None
    """Two one-sided bounds at the verdict's level."""
    sd: float | None = None
    """Standard deviation of the logarithm of a pair's ratio, or of its difference (unpaired: of independent runs)."""


def effect(verdict: Verdict, scale: Scale) -> Effect:
    """Return what a verdict's values show on a scale: its own, or another at the same level."""
    if scale is scale_of(verdict.hypothesis):
        return Effect(estimate=verdict.estimate, interval=verdict.interval, sd=verdict.sd)
    arms = [[value.raw for value in arm] for arm in (verdict.group, verdict.against)]
    if verdict.method == TRIAL or verdict.blocks or not all(arms):
        return Effect()
    if not all(math.isfinite(raw) for arm in arms for raw in arm) or (scale is RATIO and min(map(min, arms)) <= 0):
        return Effect()
    a, b = ([scale.linear(raw) for raw in arm] for arm in arms)
    seen = scale.told(math.fsum(a) / len(a) - math.fsum(b) / len(b))
    if verdict.method not in (PAIRED, WELCH) or verdict.interval is None or verdict.level is None:
        return Effect(estimate=seen)
    if scale is RATIO and limits.near_zero(verdict.hypothesis, Evidence(group=verdict.group, against=verdict.against)):
        return Effect(estimate=seen)
    is_paired = verdict.method == PAIRED
    found = statistics.paired([x - y for x, y in zip(a, b, strict=True)]) if is_paired else statistics.welch(a, b)
    low, high = found.interval(1 - verdict.level)
    return Effect(estimate=seen, interval=(scale.told(low), scale.told(high)), sd=found.sd)
