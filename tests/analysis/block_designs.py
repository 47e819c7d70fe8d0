"""Studies over several blocks, drawn from known truths and judged as a report judges them (designs.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from oelm_jobs.analysis.judging.blocks import Within, judge
from oelm_jobs.analysis.judging.verdicts import REFUTED, SUPPORTED, Circumstances, Verdict
from oelm_jobs.analysis.reading.loaded_run import LoadedRun

from oelm_jobs.spec.block import EACH, MEAN
from oelm_jobs.spec.study import Hypothesis

from .designs import BASE, SPREAD, Design, rule, run

MARGIN = 0.03
CLAIM = rule("at_most_above", MARGIN, scale="difference")
WITHIN = rule("equivalent_within", 0.0005, scale="difference")
"""Narrow beside the spread, so that either side may be missed."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """How the losses of two arms come about in several blocks."""

    count: int
    seeds: int
    spreads: Sequence[float] = (1.0,)
    """Standard deviation in each block, in SPREAD; of the last one in further ones."""
    correlation: float = 0.0
    """Between the blocks, of what one seed gives in an arm."""
    is_paired: bool = True
    first_seeds: Sequence[int] = (0,)
    """First seed of each block, so that blocks may have none in common; of the last one in further ones."""

    def draw(self, rng: np.random.Generator, group: str, gaps: Sequence[float]) -> list[list[LoadedRun]]:
        """Return the runs of a group in each block, whose losses are higher by the block's gap."""
        common, found = rng.standard_normal(self.seeds), []
        for i in range(self.count):
            spread, first = (several[min(i, len(several) - 1)] for several in (self.spreads, self.first_seeds))
            own = math.sqrt(1 - self.correlation) * rng.standard_normal(self.seeds)
            losses = BASE + i + gaps[i] + SPREAD * spread * (math.sqrt(self.correlation) * common + own)
            found.append([run(group, int(first) + n, loss) for n, loss in enumerate(losses.tolist())])
        return found


def over(name: str, hypotheses: Sequence[Hypothesis], blocks: Blocks, gaps: Sequence[float]) -> Design:
    """Return hypotheses over blocks, of which each has its true gap."""

    around = {h.id: Circumstances(may_pair=blocks.is_paired) for h in hypotheses}
    none = [0.0] * blocks.count

    def draw(rng: np.random.Generator) -> Sequence[Verdict]:
        arms = {h.group: blocks.draw(rng, h.group, gaps) for h in hypotheses}
        arms |= {h.against: blocks.draw(rng, h.against, none) for h in hypotheses}
        runs = [{name: found[i] for name, found in arms.items()} for i in range(blocks.count)]
        return judge(hypotheses, {str(i): Within(runs=each, around=around) for i, each in enumerate(runs)})

    truth = {h.id: math.fsum(gaps) / len(gaps) for h in hypotheses}
    return Design(name=name, draw=draw, wrong={h.id: (SUPPORTED, REFUTED) for h in hypotheses}, truth=truth)


def each(name: str, blocks: Blocks, gaps: Sequence[float], claim: Hypothesis = CLAIM) -> Design:
    """Return a claim about each block."""
    return over(f"each of {blocks.count} blocks, {name}", [replace(claim, holds="each")], blocks, gaps)


def mean(name: str, blocks: Blocks, gaps: Sequence[float], claim: Hypothesis = CLAIM) -> Design:
    """Return a claim about the mean of the blocks."""
    return over(f"mean of {blocks.count} blocks, {name}", [replace(claim, holds="mean")], blocks, gaps)


def _of_each() -> Iterable[Design]:
    far = -1.0
    yield each("3 pairs, one on the margin", Blocks(count=2, seeds=3), [MARGIN, far])
    yield each("3 pairs, all on the margin", Blocks(count=4, seeds=3), [MARGIN] * 4)
    unequal = Blocks(count=2, seeds=8, spreads=(1.0, 5.0), correlation=0.9)
    yield each("8 pairs, all on the margin, spreads 1 to 5, correlated by 0.9", unequal, [MARGIN] * 2)
    apart = Blocks(count=2, seeds=4, spreads=(1.0, 3.0), is_paired=False)
    yield each("4 and 4 seeds, all on the margin, spreads 1 to 3", apart, [MARGIN] * 2)
    yield each("2 pairs, two sides", Blocks(count=3, seeds=2), [0.0005] * 3, WITHIN)


def _of_mean() -> Iterable[Design]:
    yield mean("2 pairs, spreads 1 to 5", Blocks(count=2, seeds=2, spreads=(1.0, 5.0)), [2 * MARGIN, 0.0])
    alike = Blocks(count=4, seeds=3, correlation=0.9)
    yield mean("3 pairs, correlated by 0.9", alike, [4 * MARGIN, 0.0, 0.0, 0.0])
    alike = Blocks(count=3, seeds=8, correlation=0.9, spreads=(1.0, 3.0), is_paired=False)
    yield mean("8 and 8 seeds, correlated by 0.9, spreads 1 to 3", alike, [MARGIN] * 3)
    for seeds in (2, 3):
        other = Blocks(count=2, seeds=seeds, spreads=(1.0, 5.0), first_seeds=(0, 100))
        yield mean(f"{seeds} pairs, other seeds in each, spreads 1 to 5", other, [MARGIN] * 2)
    other = Blocks(count=2, seeds=3, spreads=(1.0, 5.0), first_seeds=(0, 100), is_paired=False)
    yield mean("3 and 3 seeds, other ones in each, spreads 1 to 5", other, [MARGIN] * 2)


def _families() -> Iterable[Design]:
    claims = [rule("at_most_above", MARGIN, scale="difference", name=f"H{i}") for i in range(4)]
    claims = [replace(claim, holds=(EACH, MEAN)[i % 2]) for i, claim in enumerate(claims)]
    yield over("Holm over 4 claims about 3 blocks, 3 pairs", claims, Blocks(count=3, seeds=3), [MARGIN] * 3)


DESIGNS: tuple[Design, ...] = (*_of_each(), *_of_mean(), *_families())
"""What a report can state of blocks."""
