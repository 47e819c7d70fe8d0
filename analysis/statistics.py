"""Owns estimates, intervals, tests and Holm's procedure on a few values; leaves what they mean for a hypothesis to
``verdicts``.

Everything works on a log scale where ratios are meant; intervals come from the t distribution, because percentile and
BCa bootstrap intervals cover 74–91 % instead of 95 % with 3–8 seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean difference with what its uncertainty is made of."""

    mean: float
    """The estimate."""
    standard_error: float
    """Zero where the values don't vary."""
    df: float
    """Degrees of freedom of the t distribution."""
    sd: float
    """Standard deviation of the differences (paired), or of one difference of independent values (Welch)."""
    count: int
    """Pairs, or the smaller number of values of the two arms."""
    method: str
    """``paired``, ``welch`` or ``median``."""

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return the two one-sided bounds at error ``alpha`` each: a confidence interval of level 1 − 2·alpha."""
        from scipy import stats

        half = float(stats.t.ppf(1 - alpha, self.df)) * self.standard_error if self.standard_error else 0.0
        return self.mean - half, self.mean + half

    def p_above(self, bound: float) -> float:
        """Return the one-sided p value against ``true value <= bound``."""
        if math.isinf(bound):
            return 0.0 if bound < 0 else 1.0
        if not self.standard_error:
            return 0.0 if self.mean > bound else 1.0
        from scipy import stats

        return float(stats.t.sf((self.mean - bound) / self.standard_error, self.df))

    def p_below(self, bound: float) -> float:
        """Return the one-sided p value against ``true value >= bound``."""
        if math.isinf(bound):
            return 0.0 if bound > 0 else 1.0
        if not self.standard_error:
            return 0.0 if self.mean < bound else 1.0
        from scipy import stats

        return float(stats.t.cdf((self.mean - bound) / self.standard_error, self.df))

    def p_inside(self, low: float, high: float) -> float:
        """Return the p value of the claim that the value lies between: two one-sided tests (Schuirmann 1987)."""
        return max(self.p_above(low), self.p_below(high))

    def p_outside(self, low: float, high: float) -> float:
        """Return the p value of the claim that the value lies outside: the better of the two one-sided tests."""
        return min(self.p_below(low), self.p_above(high))


@dataclass(frozen=True, kw_only=True)
class Median(Estimate):
    """The median of the differences of many pairs, without any assumption about the noise (Conover, "Practical
    Nonparametric Statistics", sections 3.1 and 3.2): a disturbed round counts no more than another.
    """

    values: tuple[float, ...]
    """The differences, rising."""

    def interval(self, alpha: float) -> tuple[float, float]:
        """Return the order statistics that bound the median with error ``alpha`` at most on each side."""
        n, k, tail = len(self.values), 0, 0.0
        while k < n // 2 and tail + math.comb(n, k) / 2.0**n <= alpha:
            tail += math.comb(n, k) / 2.0**n
            k += 1
        return (self.values[k - 1], self.values[n - k]) if k else (-math.inf, math.inf)

    def p_above(self, bound: float) -> float:
        """Return the p value of the sign test against ``median <= bound``."""
        return self._sign(sum(value > bound for value in self.values))

    def p_below(self, bound: float) -> float:
        """Return the p value of the sign test against ``median >= bound``."""
        return self._sign(sum(value < bound for value in self.values))

    def _sign(self, count: int) -> float:
        n = len(self.values)
        return sum(math.comb(n, k) for k in range(count, n + 1)) / 2.0**n


def median(differences: Sequence[float]) -> Median:
    """Return the median of the differences of pairs.

    Raises:
        ValueError: Fewer than two differences.
    """
    base = paired(differences)
    values = sorted(differences)
    n = len(values)
    middle = values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2
    return Median(
        mean=middle,
        standard_error=base.standard_error,
        df=base.df,
        sd=base.sd,
        count=n,
        method="median",
        values=tuple(values),
    )


def paired(differences: Sequence[float]) -> Estimate:
    """Return the mean of the differences of pairs.

    Raises:
        ValueError: Fewer than two differences: their spread is unknown.
    """
    n = len(differences)
    if n < 2:
        raise ValueError("a spread needs two differences at least")
    mean = math.fsum(differences) / n
    sd = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    return Estimate(mean=mean, standard_error=sd / math.sqrt(n), df=n - 1, sd=sd, count=n, method="paired")


def welch(group: Sequence[float], against: Sequence[float]) -> Estimate:
    """Return the difference of two means with unequal variances (Welch 1947, degrees of freedom by Satterthwaite).

    Raises:
        ValueError: An arm has fewer than two values.
    """
    if len(group) < 2 or len(against) < 2:
        raise ValueError("a spread needs two values per arm at least")
    means, parts, spreads = [], [], []
    for values in (group, against):
        n = len(values)
        mean = math.fsum(values) / n
        variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
        means.append(mean)
        spreads.append(variance)
        parts.append(variance / n)
    error2 = sum(parts)
    df = (
        error2**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (group, against), strict=True))
        if error2 > 0
        else len(group) + len(against) - 2
    )
    return Estimate(
        mean=means[0] - means[1],
        standard_error=math.sqrt(error2),
        df=df,
        sd=math.sqrt(sum(spreads)),
        count=min(len(group), len(against)),
        method="welch",
    )


def holm_levels(p_values: Sequence[float], alphas: Sequence[float]) -> list[float]:
    """Return for each hypothesis the error at which Holm's step-down procedure (1979) tests it.

    The hypotheses are taken by rising p / alpha; the k-th of m is tested at alpha / (m − k + 1) until the first isn't
    rejected, and all that follow keep the level of that one: so intervals at these levels agree with the procedure's
    decisions.
    """
    m = len(p_values)
    levels = [0.0] * m
    share = m
    stopped = False
    for i in sorted(range(m), key=lambda i: (p_values[i] / alphas[i], i)):
        levels[i] = alphas[i] / share
        stopped = stopped or not p_values[i] <= levels[i]
        if not stopped:
            share -= 1
    return levels


def mean_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation (None with fewer than two values); not finite values make both not finite."""
    n = len(values)
    if not n:
        return None, None
    if not all(map(math.isfinite, values)):
        return math.inf, None
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)) if n > 1 else None
