"""Fit a learning-rate schedule to the learning rates of a log."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..reading.loaded_run import Floats, Ints

POINTS = 1000
"""Points that are fitted; a schedule has four parameters."""
GOOD_FIT = 0.02
"""Root mean square of the residuals, relative to the peak, up to which a shape is named."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A schedule as fitted: linear warm-up to a peak, then a decay."""

    shape: str
    """``cosine``, ``linear``, ``constant``, ``inverse_sqrt`` or ``unknown``."""
    peak: float
    """Highest learning rate."""
    warmup: float | None
    """Steps of linear warm-up; None where the log begins after it."""
    end: float | None
    """Step at which the decay ends; None where the log doesn't show enough of it."""
    minimum: float | None
    """Learning rate at the end of the decay; None where unknown."""
    final: float
    """Last learning rate seen."""


def fit(step: Ints, lr: Floats) -> Schedule | None:
    """Return the schedule that explains the learning rates best, by least squares; None with fewer than five positive
    rates.
    """
    known = np.isfinite(lr) & (lr > 0)
    x, y = step[known].astype(float), lr[known]
    if len(x) < 5:
        return None
    if len(x) > POINTS:
        kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(int))
        x, y = x[kept], y[kept]
    peak = float(y.max())
    found = Schedule(shape="unknown", peak=peak, warmup=None, end=None, minimum=None, final=float(y[-1]))
    if float(y.min()) >= 0.999 * peak:
        return replace(found, shape="constant")
    warmup = _warmup(x, y, peak)
    found = replace(found, warmup=warmup)
    start = warmup if warmup is not None else 0.0
    after = x >= max(start, x[int(np.argmax(y))])
    u, v = x[after], y[after]
    if len(u) < 4:  # the log ends in or right after the warm-up
        return found
    fits = [
        (_rms(v - peak, peak), "constant", None, None),
        *(_decaying(shape, u, v, peak, start) for shape in ("cosine", "linear")),
    ]
    if start > 0:
        fits.append((_rms(v - peak * np.sqrt(start / u), peak), "inverse_sqrt", None, None))
    error, shape, end, minimum = min(fits, key=lambda fitted: fitted[0])
    return found if error > GOOD_FIT else replace(found, shape=shape, end=end, minimum=minimum)


def _warmup(x: Floats, y: Floats, peak: float) -> float | None:
    """Return where the rising line reaches the peak; None where no rise is seen."""
    top = int(np.argmax(y >= 0.98 * peak))
    rising = (np.arange(len(y)) < top) & (x > 0)
    if not rising.any():
        return None
    u, v = x[rising], y[rising]
    if len(u) > 1 and float(u[-1]) > float(u[0]):
        slope, offset = (float(c) for c in np.polyfit(u, v, 1))
        if slope > 0 and abs(offset) > 0.02 * peak:  # a warm-up that doesn't begin at zero
            return (peak - offset) / slope
    return peak / float(np.median(v / u))


def _decaying(
    shape: str, u: Floats, v: Floats, peak: float, start: float
) -> tuple[float, str, float | None, float | None]:
    """Fit the end of the decay by a scan and a golden-section refinement; the minimum follows linearly for each end."""
    last = float(u[-1])
    span = last - start
    if span <= 0:
        return math.inf, shape, None, None

    def at(end: float) -> tuple[float, float]:
        done = np.clip((u - start) / (end - start), 0.0, 1.0)
        weight: Any = 0.5 * (1 + np.cos(np.pi * done)) if shape == "cosine" else 1 - done
        rest = 1 - weight
        norm = float(rest @ rest)
        minimum = max(0.0, float(rest @ (v - peak * weight)) / norm) if norm > 0 else 0.0
        return _rms(v - peak * weight - minimum * rest, peak), minimum

    # 400 candidate ends from 0.2 to 5 times the steps seen, evenly in the logarithm
    ends = start + span * np.geomspace(0.2, 5.0, 400)
    errors = [at(float(end))[0] for end in ends]
    i = int(np.argmin(errors))
    low, high = float(ends[max(i - 1, 0)]), float(ends[min(i + 1, len(ends) - 1)])
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if at(a)[0] <= at(b)[0] else (a, high)
    end = (low + high) / 2
    error, minimum = at(end)
    # A line that is still falling shows where it would reach zero, not where it ends.
    is_seen = span >= 0.5 * (end - start) and (shape == "cosine" or end < last * 0.999)
    return error, shape, end if is_seen else None, minimum if is_seen else None


def _rms(residuals: Floats, peak: float) -> float:
    return float(np.sqrt(np.mean(residuals**2))) / peak
