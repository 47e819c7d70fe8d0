"""Order statistics that bound a median, whatever the distribution of the values. Standard library only."""

from __future__ import annotations

import math
from typing import Callable, Optional, Sequence, Tuple


def bounds(ordered: Sequence[float], alpha: float, tail: Callable[[int], float]) -> Optional[Tuple[float, float]]:
    """Return the innermost pair that misses the median with probability ``alpha`` at most on each side; None where even
    the extremes miss it more often (Conover, "Practical Nonparametric Statistics", section 3.2).

    Args:
        ordered: The values, rising.
        tail: Probability that so many of the values or more lie on one side of the median.
    """
    n, k = len(ordered), 0
    while k < n // 2 and tail(n - k) <= alpha:
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else None


def sign_tail(n: int, count: int) -> float:
    """Return the probability of ``count`` heads or more of ``n`` fair coins."""
    return sum(math.comb(n, heads) for heads in range(count, n + 1)) / (1 << n)
