"""How often verdicts are wrong at a nominal 5 %: a textbook method and ours, on the same draws.

Three designs in which the textbook method errs more often than it says: a rule that can be refuted on two sides, means
of few values with unequal counts and spreads, a speed trial whose rounds are correlated. Also what keeping the level
costs: how often a real difference is found.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from oelm_jobs.analysis import statistics
from oelm_jobs.analysis.statistics import Estimate
from scipy import stats

ALPHA, MARGIN = 0.05, 1.0
Draw = tuple[bool, bool]
"""Whether the method of before decided, and today's."""


def refuted(rng: np.random.Generator, seeds: int, spread: float, true: float) -> Draw:
    """Refute "within the margin" by the paired differences of some seeds."""
    found = statistics.paired(rng.normal(true, spread, seeds).tolist())
    before = min(found.p_below(-MARGIN), found.p_above(MARGIN))
    return before <= ALPHA, found.p_outside(-MARGIN, MARGIN) <= ALPHA


def above(rng: np.random.Generator, counts: Sequence[int], spread: float, true: float) -> Draw:
    """Find one mean above another by Satterthwaite's degrees of freedom, and as the report does."""
    a, b = rng.normal(true, 1, counts[0]).tolist(), rng.normal(0, spread, counts[1]).tolist()
    found = statistics.welch(a, b)
    before = Estimate(**{name: getattr(found, name) for name in Estimate.__dataclass_fields__})
    return before.interval(ALPHA)[0] > 0, found.interval(ALPHA)[0] > 0


def faster(rng: np.random.Generator, rounds: int, correlation: float, true: float) -> Draw:
    """Find a median above none by the sign test of independent rounds, and as the report does."""
    values = [rng.normal()]
    while len(values) < rounds:
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * rng.normal())
    found = statistics.median([true + value for value in values])
    return replace(found, independent=1.0).interval(ALPHA)[0] > 0, found.interval(ALPHA)[0] > 0


def rates(draw: Callable[[np.random.Generator], Draw], draws: int) -> str:
    """Return how often both methods decide, in per cent, each with its 95 % interval (Clopper and Pearson)."""
    rng = np.random.default_rng(1)
    counts = np.sum([draw(rng) for _ in range(draws)], axis=0)
    shown = []
    for count in counts:
        bounds = stats.binomtest(int(count), draws).proportion_ci(0.95, method="exact")
        shown.append(f"{100 * count / draws:5.1f} % ({100 * bounds.low:.1f} to {100 * bounds.high:.1f})")
    return "   ".join(shown)


def main(draws: int) -> None:
    """Print the rates."""
    print(f"false verdicts at a nominal {100 * ALPHA:g} %, {draws:,} draws each{'before':>24}{'now':>24}")
    for seeds, spread in ((3, 0.3), (3, 3.0), (8, 10.0), (8, 100.0)):
        line = rates(lambda rng, n=seeds, s=spread: refuted(rng, n, s, MARGIN), draws)
        print(f"refuting 'within x', {seeds} pairs, spread {spread:g} x".ljust(54), line)
    for counts, spread in (((2, 2), 10.0), ((2, 3), 0.3), ((2, 8), 0.5), ((3, 8), 0.5), ((5, 8), 0.3)):
        line = rates(lambda rng, n=counts, s=spread: above(rng, n, s, 0.0), draws)
        print(f"means of {counts[0]} and {counts[1]} seeds, spreads 1 to {spread:g}".ljust(54), line)
    for rounds, correlation in ((15, 0.0), (15, 0.3), (21, 0.0), (21, 0.3), (21, 0.5), (41, 0.3)):
        line = rates(lambda rng, n=rounds, r=correlation: faster(rng, n, r, 0.0), draws)
        print(f"{rounds} rounds, lag-1 correlation {correlation:g}".ljust(54), line)
    print("what is there is found")
    line = rates(lambda rng: refuted(rng, 5, 0.5, 2 * MARGIN), draws)
    print("refuting 'within x', 5 pairs, spread 0.5 x, true 2 x".ljust(54), line)
    for counts in ((3, 5), (5, 8)):
        line = rates(lambda rng, n=counts: above(rng, n, 1.0, 2.0), draws)
        print(f"means of {counts[0]} and {counts[1]} seeds, true 2 spreads".ljust(54), line)
    for rounds in (15, 21):
        line = rates(lambda rng, n=rounds: faster(rng, n, 0.0, 1.0), draws)
        print(f"{rounds} independent rounds, true 1 spread".ljust(54), line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
