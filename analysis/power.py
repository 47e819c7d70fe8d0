"""How many seeds a hypothesis needs: exact power of the decision rules, from the spread seen so far."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

from . import tables, wording
from .judging.evidence import COUNT_METRICS, Evidence
from .judging.limits import no_ratio, not_kept
from .judging.scales import RATIO, scale_of
from .judging.verdicts import EACH, MEANS_WELCH, OUTCOMES, TRIAL, UNDECIDABLE, WELCH, Verdict
from .report import Report, may_pair
from .statistics import Estimate, Welch, outside_tests, satterthwaite
from .tables import EMPTY, Cell, Column, Table, column

ASSUMED_SD = 0.02
"""Standard deviation of a pair's log ratio where no spread has been seen: 2 %, usual for small language models."""
SEEDS = (3, 5, 8)
"""Numbers of seeds that the table shows the power of."""
MOST_SEEDS = 200
"""Where the search ends."""
WANTED = 0.8


@dataclass(frozen=True, kw_only=True)
class Design:
    """What the power of a hypothesis depends on, on the log scale (of a difference: in the metric's units)."""

    low: float
    """Lower margin of the rule's region; minus infinity where it has none."""
    high: float
    """Upper margin; infinity where it has none."""
    alpha: float
    """Error of each one-sided bound that supports; those that refute a rule with two sides have half of it each."""
    sd: float
    """Standard deviation of a pair's difference (Welch: of a difference of independent runs)."""
    is_paired: bool
    """Whether both arms have a value of each seed that belong together."""
    beside: int = 0
    """Of unpaired arms with unequal numbers of seeds: how many the larger one has, which stay."""
    shares: int = 1
    """How many tests can refute the claim, each of which gets its share of the error: one for each block."""

    def estimate(self, seeds: int) -> Estimate:
        """Return what would be judged with so many seeds, two at least, of the smaller arm: its spread is the true one
        and both arms have as much of it.
        """
        if self.is_paired:
            return Estimate(mean=0.0, standard_error=self.sd / math.sqrt(seeds), df=seeds - 1, sd=self.sd, count=seeds,
                            method="paired")  # fmt: skip
        parts = tuple((self.sd**2 / 2 / count, count - 1) for count in (seeds, max(seeds, self.beside)))
        error2, df = satterthwaite(parts)
        return Welch(mean=0.0, standard_error=math.sqrt(error2), df=df, sd=self.sd, count=seeds, method="welch",
                     parts=parts)  # fmt: skip

    def error(self, *, is_inside: bool) -> float:
        """Return the error at which a claim is supported, or refuted."""
        return self.alpha if is_inside else self.alpha / max(outside_tests(self.low, self.high), 1) / self.shares

    def is_decidable(self, true: float, seeds: int) -> bool:
        """Tell whether the right verdict can come of so many seeds: whether the report holds its error with them."""
        return seeds > 1 and self.error(is_inside=self.low < true < self.high) >= self.estimate(seeds).least

    @property
    def refused(self) -> tuple[int, int, Sentence] | None:
        """The largest number of seeds with which the report would decide nothing, that from which on it would, and why;
        None where every number will do.
        """
        error = self.error(is_inside=False)
        counts = [seeds for seeds in range(2, max(self.beside, 2) + 1) if error < self.estimate(seeds).least]
        return (counts[-1], counts[-1] + 1, not_kept(self.estimate(counts[-1]), error)) if counts else None


def power(design: Design, true: float, seeds: int) -> float:
    """Return the probability of the right verdict (supported where ``true`` lies inside the region, refuted where
    outside).

    The bound's half-width is random with the standard deviation: the probability is integrated over the chi
    distribution of s (the approach of Owen 1965 for two one-sided t tests), by 400-point Gauss-Legendre quadrature on
    its central 1 − 2e-9.
    """
    import numpy as np
    from scipy import stats

    if not design.sd:
        return float(seeds > 1)
    if not design.is_decidable(true, seeds):
        return 0.0
    estimate = design.estimate(seeds)
    df, error = estimate.df, estimate.standard_error
    nodes, weights = np.polynomial.legendre.leggauss(400)
    first, last = stats.chi.ppf([1e-9, 1 - 1e-9], df)
    chi = first + (last - first) * (nodes + 1) / 2
    density = stats.chi.pdf(chi, df) * weights * (last - first) / 2
    is_inside = design.low < true < design.high
    half = estimate.critical(design.error(is_inside=is_inside)) * error * chi / math.sqrt(df)
    if is_inside:
        top, bottom = ((margin - true) / error for margin in (design.high - half, design.low + half))
        right = stats.norm.cdf(top) - stats.norm.cdf(bottom)
    else:
        above, below = ((margin - true) / error for margin in (design.high + half, design.low - half))
        right = stats.norm.sf(above) + stats.norm.cdf(below)
    return float(min(1.0, density @ np.clip(right, 0.0, 1.0)))


def seeds_needed(design: Design, true: float) -> int | None:
    """Return the smallest number of seeds with at least the wanted power; None beyond MOST_SEEDS (a true value on a
    margin).
    """
    counts = range(1, MOST_SEEDS + 1)
    found = bisect_left(counts, WANTED, key=lambda seeds: power(design, true, seeds))
    return counts[found] if found < len(counts) else None


def sd_bound(sd: float, df: float) -> float:
    """Return the one-sided upper 80 % bound of a standard deviation: a spread seen on few seeds may be too small by
    chance.
    """
    from scipy import stats

    return sd * math.sqrt(df / float(stats.chi2.ppf(1 - 0.8, df)))


def table(report: Report) -> Table:
    """Return the plan: for each hypothesis that is a matter of chance, power and seeds at its own level and at Holm's
    strictest one.

    The true value is taken once as seen (or, before there is any, as the middle of a two-sided rule and as no
    difference otherwise).
    """
    columns = (
        *map(column, ("hypothesis", "spread", "spread_source", "assumed_gap")),
        *(Column(f"power_{n}", tables.PERCENT, _("Power with {seeds} seeds", n)) for n in SEEDS),
        *map(column, ("seeds_needed", "seeds_needed_cautious", "seeds_needed_holm")),
    )
    chance = [
        (v, len(verdict.blocks) if verdict.method == EACH else 1)
        for verdict in report.verdicts
        for v in (verdict.blocks if verdict.method == EACH else (verdict,))
        if (v.hypothesis.metric not in COUNT_METRICS or v.hypothesis.is_told) and v.method != TRIAL
    ]
    verdicts = [verdict for verdict, _shares in chance]
    rows: list[tuple[Cell, ...]] = []
    refused: list[Sentence] = []
    for verdict, shares in chance:
        h, scale = verdict.hypothesis, scale_of(verdict.hypothesis)
        low, high = scale.margins(verdict.region)
        sd, source, df = _spread(verdict, verdicts)
        name = _("{hypothesis}, {block}", h.id, verdict.block) if verdict.block else h.id
        truths = [(true, Cell(wording.in_rule_units(h, scale.told(true)))) for true in _truths(verdict)]
        if why := _no_ratio(verdict):
            refused.append(_("{hypothesis}: undecidable: {why}", name, why))
            rows.append((Cell(name), EMPTY, EMPTY, EMPTY, *(UNDECIDED for _seeds in SEEDS), EMPTY, EMPTY, EMPTY))
            continue
        if sd is None:
            unknown = (EMPTY,) * (len(columns) - 4)
            rows += [(Cell(name), EMPTY, Cell(source), assumed, *unknown) for _true, assumed in truths]
            continue
        runs = report.parts[verdict.block].groups if verdict.block else report.groups
        a, b = (runs.get(group, ()) for group in (h.group, h.against))
        # Future runs will share their data order; existing ones may not (old logs).
        paired = verdict.method not in (WELCH, MEANS_WELCH) and (not (a and b) or may_pair(a, b))
        design = Design(
            low=low, high=high, alpha=1 - h.level, sd=sd, is_paired=paired, beside=_beside(verdict), shares=shares
        )
        wide = replace(design, sd=sd_bound(sd, df)) if df else None
        strict = replace(design, alpha=design.alpha / len({v.hypothesis.id for v in verdicts}))
        if found := strict.refused:
            count, needed, why = found
            said = _("{hypothesis}: undecidable with {count} seeds; from {needed} on there is a verdict ({why})",
                     name, count, needed, why)  # fmt: skip
            refused.append(said)
        elif verdict.outcome == UNDECIDABLE and verdict.sd and verdict.reason:  # seeds that no two blocks share
            refused.append(_("{hypothesis}: undecidable: {why}", name, verdict.reason))
        for true, assumed in truths:
            rows.append(
                (
                    Cell(name),
                    Cell(sd if scale is RATIO else tables.number(sd, digits=3)),
                    Cell(source),
                    assumed,
                    *(Cell(power(design, true, n)) if design.is_decidable(true, n) else UNDECIDED for n in SEEDS),
                    *(_seeds(one, true) for one in (design, wide, strict)),
                )
            )
    remark = _(
        "Power: the chance of the right verdict if the true value is the assumed one. A larger spread: the "
        "upper 80 % bound of what was seen. Fix the number of seeds before training (oelm-report --lock); "
        "adding seeds until a verdict appears inflates the error."
    )
    together = _(
        "Over several blocks: each row is about one block's own test. All of them support a claim about each block no "
        "more often than the one with the least power does."
    )
    remarks = (remark, together) if any(verdict.block for verdict in verdicts) else (remark,)
    remarks = (*remarks, *refused)
    return Table("power", columns, tuple(rows), remarks=remarks)


UNDECIDED = Cell(OUTCOMES[UNDECIDABLE])


def _no_ratio(verdict: Verdict) -> Sentence | None:
    """Return why the values that were seen have no ratio, whatever the number of seeds."""
    several = verdict.blocks or (verdict,)
    found = (no_ratio(one.hypothesis, Evidence(group=one.group, against=one.against)) for one in several)
    return next((why for why in found if why), None)


def _beside(verdict: Verdict) -> int:
    """Return how many seeds the larger of two unequal arms has; 0 where both have as many."""
    blocks = max(len(verdict.blocks), 1)
    fewer, more = sorted(len(arm) // blocks for arm in (verdict.group, verdict.against))
    return more if fewer != more else 0


def _seeds(design: Design | None, true: float) -> Cell:
    if design is None:
        return EMPTY
    needed = seeds_needed(design, true)
    return Cell(MOST_SEEDS, prefix="> ") if needed is None else Cell(needed)


def _spread(verdict: Verdict, others: list[Verdict]) -> tuple[float | None, str, float | None]:
    """Return the spread of a pair, where it comes from, and its degrees of freedom; a hypothesis without one borrows
    the largest of its kind. None where nothing can be assumed: in a metric's own units before any spread is seen.
    """
    if verdict.sd:
        return verdict.sd, _("{count} seeds", verdict.count), max(verdict.count - 1, 1)
    kind = _kind(verdict.hypothesis)
    known = [v for v in others if v.sd and _kind(v.hypothesis) == kind]
    if known:
        lender = max(known, key=lambda v: v.sd or 0.0)
        return lender.sd, lender.hypothesis.id, max(lender.count - 1, 1)
    if scale_of(verdict.hypothesis) is not RATIO:
        return None, _("no spread seen yet"), None
    return ASSUMED_SD, _("assumed"), None


def _kind(h: Hypothesis) -> tuple[str, str | bool]:
    """Return what hypotheses share whose spreads are of a size."""
    is_of_one = h.is_told or scale_of(h) is not RATIO
    return h.scale, h.metric if is_of_one else h.metric.endswith(("ppl", "loss"))


def _truths(verdict: Verdict) -> list[float]:
    """Return the true values that the plan assumes, as logarithms of ratios or as differences."""
    scale = scale_of(verdict.hypothesis)
    low, high = scale.margins(verdict.region)
    found = [(low + high) / 2 if math.isfinite(low) and math.isfinite(high) else 0.0]
    seen = scale.linear(verdict.estimate) if verdict.estimate is not None else math.nan
    if math.isfinite(seen) and abs(seen - found[0]) > 1e-6 * (1 if scale is RATIO else abs(seen)):
        found.insert(0, seen)
    return found
