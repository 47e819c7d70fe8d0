"""Studies drawn from known truths and judged as a report judges them: how often verdicts err, how often bounds miss.

A design is a study whose truth is a margin, where a verdict errs most easily. ``rates`` draws it many times and counts.
``DESIGNS`` are all kinds that a report can state; tests/analysis/test_error_rates.py holds each to its level, and
benchmarks/error_rates.py measures them longer for docs/statistics.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from oelm_jobs.analysis import statistics
from oelm_jobs.analysis.judging.scales import region, scale_of
from oelm_jobs.analysis.judging.verdicts import REFUTED, SUPPORTED, Circumstances, Verdict, judge
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Point
from scipy import stats

from oelm_jobs.spec.study import Hypothesis

LEVEL = 0.05
"""The error that each study claims at most: that any of its verdicts is wrong, or that a bound misses."""
DRAWS = 3200
"""Of a design in the suite, at most."""
LOOKS = (600, 1200, 1800, 2400, DRAWS)
"""Numbers of draws at which a design that errs so seldom is done; one of the rate LEVEL needs half of DRAWS by that."""
HIGH = 0.07
"""A rate that is to be noticed, in 95 cases of 100."""
DOUBT = 0.001
"""Of so many designs that hold LEVEL exactly one would be told apart by chance."""
HASTE = 0.005
"""The share of designs of the rate HIGH that are done at a look, at most."""
PATH = Path("run")

Values = Mapping[str, Sequence[float]]
"""Losses by group, seeds in order."""
Draw = Callable[[np.random.Generator], Sequence[Verdict]]
"""One study, drawn and judged."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A kind of study with its truth."""

    name: str
    """What docs/statistics.md calls it."""
    draw: Draw
    """Draws its runs and judges them."""
    wrong: Mapping[str, Sequence[str]]
    """Outcomes that are false, by the hypothesis' id. Of a truth on the margin both are: each is the limit of truths
    for which it is, and counted apart.
    """
    truth: Mapping[str, float]
    """True ratio or difference, by the hypothesis' id."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often a design erred."""

    draws: int
    """How many studies were drawn."""
    wrong: int
    """In how many a verdict was false: of the outcomes that are, the one that came more often."""
    missed: int | None
    """In how many a bound lay beyond the truth: of all of a study's bounds the one that did most often. Each holds at
    its own level; only verdicts hold together. None where no interval is told.
    """
    decided: int
    """In how many any verdict was supported or refuted."""


def most(share: float, draws: int, doubt: float = DOUBT) -> int:
    """Return how many of so many draws may err where each does with probability ``share``: the binomial quantile that
    is exceeded with probability ``doubt`` at most.
    """
    return int(stats.binom.isf(doubt, draws, share))


def few(draws: int) -> int:
    """Return how many of so many draws may err for a design to be done: with the rate HIGH that many or fewer do with
    probability HASTE at most.
    """
    return int(stats.binom.ppf(HASTE, draws, HIGH)) - 1


def errs(design: Design) -> bool:
    """Tell whether verdicts or bounds of a design err more often than a rate of LEVEL does by chance."""
    for found in looked(design, LOOKS, seed=1):
        erred = max(found.wrong, found.missed or 0)
        if erred <= few(found.draws):
            return False
    return erred > most(LEVEL, DRAWS)


def rates(design: Design, draws: int, seed: int) -> Rates:
    """Draw a design's study so often, and count."""
    return next(looked(design, [draws], seed))


def looked(design: Design, looks: Sequence[int], seed: int) -> Iterator[Rates]:
    """Draw a design's study and count; yield the counts at each of these numbers of draws, the largest last."""
    rng = np.random.default_rng([seed, *design.name.encode()])
    wrong, missed, decided = Counter[str](), Counter[tuple[str, int]](), 0
    for drawn in range(1, looks[-1] + 1):
        verdicts = design.draw(rng)
        wrong.update({v.outcome for v in verdicts if v.outcome in design.wrong.get(v.hypothesis.id, ())})
        for name, interval in ((v.hypothesis.id, v.interval) for v in verdicts):
            if interval is not None and name in design.truth:
                missed[name, 0] += interval[0] > design.truth[name]
                missed[name, 1] += interval[1] < design.truth[name]
        decided += any(v.outcome in (SUPPORTED, REFUTED) for v in verdicts)
        if drawn in looks:
            worst, furthest = max(wrong.values(), default=0), max(missed.values(), default=None)
            yield Rates(draws=drawn, wrong=worst, missed=furthest, decided=decided)


# Runs -----------------------------------------------------------------------------------------------------------------

_RUN = LoadedRun(name="", group="", label="", seed=0, path=PATH, status="DONE", last_step=100)


def run(group: str, seed: int, loss: float) -> LoadedRun:
    """Return a finished run; a copy of another's fields, which takes a tenth of the time."""
    made: LoadedRun = object.__new__(LoadedRun)
    final = Point(step=100, loss=loss, full=True)
    made.__dict__.update(_RUN.__dict__, name=f"{group}-s{seed}", group=group, seed=seed, final=final)
    return made


def judged(hypotheses: Sequence[Hypothesis], values: Values, *, may_pair: bool) -> tuple[Verdict, ...]:
    """Return the verdicts of the report on runs with these final losses."""
    runs = {name: [run(name, seed, loss) for seed, loss in enumerate(losses)] for name, losses in values.items()}
    around = Circumstances(may_pair=may_pair)
    return judge(hypotheses, runs, {h.id: around for h in hypotheses})


# Rules ----------------------------------------------------------------------------------------------------------------

BASE = 2.0
"""Mean loss of what is compared with."""
SPREAD = 0.02
"""Standard deviation of the losses of an arm."""


def rule(relation: str, *bounds: float, scale: str = "ratio", margin: float = 0.0, name: str = "H") -> Hypothesis:
    """Return a hypothesis about PPL (whose logarithm is the loss), or about the loss itself."""
    metric = "final_val_ppl" if scale == "ratio" else "final_val_loss"
    return Hypothesis(
        id=name, metric=metric, group=f"{name}b", against=f"{name}a", relation=relation, bounds=bounds, margin=margin,
        scale=scale,
    )  # fmt: skip


RULES = {
    **{f"{name}, {scale}": rule(name, *bounds, scale=scale) for scale in ("ratio", "difference") for name, bounds in (
        ("reduction", (0.02, math.inf)), ("increase", (0.02, math.inf)), ("equivalent_within", (0.03,)),
        ("at_most_above", (0.05,)), ("at_most_below", (0.05,)), ("better_by", (0.02,)),
    )},
    "better_by 0": rule("better_by", 0.0),
    "reduction between, ratio": rule("reduction", 0.01, 0.04),
    "increase between, difference": rule("increase", 0.01, 0.04, scale="difference"),
    "ratio_at_least": rule("ratio_at_least", 1.0, margin=0.02),
}  # fmt: skip
"""Every rule, by what the table calls it."""


def margins(hypothesis: Hypothesis) -> list[float]:
    """Return the finite margins of a rule, as a mean of logarithms or differences has them."""
    return [bound for bound in scale_of(hypothesis).margins(region(hypothesis)) if math.isfinite(bound)]


# Arms -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Arms:
    """How the losses of two arms come about."""

    counts: tuple[int, int]
    """Seeds of each."""
    spreads: tuple[float, float] = (1.0, 1.0)
    """Standard deviation of each, in SPREAD."""
    correlation: float = 0.0
    """Of pairs."""
    is_paired: bool = False

    def draw(self, rng: np.random.Generator, gap: float) -> tuple[list[float], list[float]]:
        """Return the losses of the group, which are higher by the gap, and of what it is compared with."""
        a, b = rng.standard_normal(self.counts[0]), rng.standard_normal(self.counts[1])
        if self.correlation:
            a = self.correlation * b + math.sqrt(1 - self.correlation**2) * a
        group, against = BASE + gap + SPREAD * self.spreads[0] * a, BASE + SPREAD * self.spreads[1] * b
        return group.tolist(), against.tolist()


def paired(seeds: int, correlation: float = 0.5, spreads: tuple[float, float] = (1.0, 1.0)) -> Arms:
    """Return arms that are compared by pairs."""
    return Arms(counts=(seeds, seeds), spreads=spreads, correlation=correlation, is_paired=True)


def apart(first: int, second: int, spread: float = 1.0) -> Arms:
    """Return arms that are compared unpaired, the second with another spread."""
    return Arms(counts=(first, second), spreads=(1.0, spread))


def on_a_margin(name: str, hypothesis: Hypothesis, arms: Arms, margin: float) -> Design:
    """Return one hypothesis whose truth is a margin of it."""

    def draw(rng: np.random.Generator) -> Sequence[Verdict]:
        group, against = arms.draw(rng, margin)
        values = {hypothesis.group: group, hypothesis.against: against}
        return judged([hypothesis], values, may_pair=arms.is_paired)

    true = scale_of(hypothesis).told(margin)
    return Design(name=name, draw=draw, wrong={hypothesis.id: (SUPPORTED, REFUTED)}, truth={hypothesis.id: true})


def family(name: str, arms: Sequence[Arms], *, shared: bool = False, held: int = 0) -> Design:
    """Return as many hypotheses as arms, with truths on their margins; the first ``held`` are true by far.

    Args:
        shared: All are compared with one and the same arm.
    """
    hypotheses = [rule("at_most_above", 0.05, scale="difference", name=f"H{i}") for i in range(len(arms))]
    if shared:
        hypotheses = [replace(h, against="a") for h in hypotheses]
    gaps = [-1.0 if i < held else 0.05 for i in range(len(arms))]

    def draw(rng: np.random.Generator) -> Sequence[Verdict]:
        values: dict[str, Sequence[float]] = {}
        for h, one, gap in zip(hypotheses, arms, gaps, strict=True):
            group, against = one.draw(rng, gap)
            if shared and "a" in values:  # seeds in common with the arm that all are compared with
                group = [g - old + new for g, old, new in zip(group, against, values["a"], strict=True)]
            else:
                values[h.against] = against
            values[h.group] = group
        return judged(hypotheses, values, may_pair=arms[0].is_paired)

    return Design(
        name=name,
        draw=draw,
        wrong={h.id: (REFUTED,) if i < held else (SUPPORTED, REFUTED) for i, h in enumerate(hypotheses)},
        truth={h.id: gap for h, gap in zip(hypotheses, gaps, strict=True)},
    )


# Selection ------------------------------------------------------------------------------------------------------------


def selected(
    name: str, candidates: tuple[int, int], seeds: int, *, on_fresh: bool, spreads: tuple[float, float] = (1.0, 1.0)
) -> Design:
    """Return arms of which the best of several equally good candidates is chosen by its mean loss: group against the
    other, without a true difference.

    Args:
        on_fresh: Whether the verdict rests on fresh seeds of what was chosen; else on those that chose.
    """
    hypothesis = rule("at_most_above", 0.0, scale="difference")

    def draw(rng: np.random.Generator) -> Sequence[Verdict]:
        arms = []
        for count, spread in zip(candidates, spreads, strict=True):
            tried = BASE + spread * SPREAD * rng.standard_normal((count, seeds))
            best = tried[int(tried.mean(axis=1).argmin())]
            arms.append((BASE + spread * SPREAD * rng.standard_normal(seeds) if on_fresh else best).tolist())
        return judged([hypothesis], dict(zip((hypothesis.group, hypothesis.against), arms, strict=True)), may_pair=True)

    return Design(name=name, draw=draw, wrong={"H": (SUPPORTED, REFUTED)}, truth={"H": 0.0})


# Speed trials ---------------------------------------------------------------------------------------------------------


def trial(rounds: int, correlation: float) -> Design:
    """Return a speed trial whose rounds are correlated each with the one before, without a true difference."""
    hypothesis = replace(rule("ratio_at_least", 1.0), metric="speed")
    fresh = math.sqrt(1 - correlation**2)

    def draw(rng: np.random.Generator) -> Sequence[Verdict]:
        noise = rng.standard_normal(rounds).tolist()
        values = [noise[0]]
        for one in noise[1:]:
            values.append(correlation * values[-1] + fresh * one)
        estimate = statistics.median([0.01 * value for value in values])
        return judge([hypothesis], {}, {"H": Circumstances(trial=estimate)})

    name = f"speed trial, {rounds} rounds, each like the one before by {correlation:g}"
    return Design(name=name, draw=draw, wrong={"H": (SUPPORTED, REFUTED)}, truth={"H": 1.0})


# Ratios near zero -----------------------------------------------------------------------------------------------------


def near_zero(seeds: int, share: float) -> Design:
    """Return losses of equal means, of which the group's have a standard deviation of a share of the mean."""
    hypothesis = replace(rule("at_most_above", 0.0), metric="final_val_loss")

    def draw(rng: np.random.Generator) -> Sequence[Verdict]:
        group = BASE * (1 + share * rng.standard_normal(seeds))
        against = BASE * (1 + 0.02 * rng.standard_normal(seeds))
        values = {hypothesis.group: group.tolist(), hypothesis.against: against.tolist()}
        return judged([hypothesis], values, may_pair=True)

    name = f"ratio, {seeds} pairs, spread {share:g} of the mean"
    return Design(name=name, draw=draw, wrong={"H": (SUPPORTED, REFUTED)}, truth={"H": 1.0})


# All of them ----------------------------------------------------------------------------------------------------------


def _of_rules() -> Iterable[Design]:
    """Every rule, on the last of its margins, in each way of comparing."""
    ways = {"5 pairs": paired(5), "4 and 4 seeds": apart(4, 4, 3.0), "3 and 6 seeds": apart(3, 6, 0.5)}
    for said, hypothesis in RULES.items():
        for way, arms in ways.items():
            for margin in margins(hypothesis)[-1:]:
                yield on_a_margin(f"{said}, {way}", hypothesis, arms, margin)
    narrow = rule("equivalent_within", 0.0005, scale="difference")
    yield on_a_margin("equivalent_within, narrow beside the spread, 5 pairs", narrow, paired(5), 0.0005)


def _of_arms() -> Iterable[Design]:
    """Every way of comparing, with the rule of two sides: narrow beside the spread, where either may be missed."""
    hypothesis = rule("equivalent_within", 0.03, scale="difference")
    for seeds in range(2, 9):
        for correlation in (0.0, 0.9):
            yield on_a_margin(
                f"{seeds} pairs, correlation {correlation:g}", hypothesis, paired(seeds, correlation), 0.03
            )
        yield on_a_margin(f"{seeds} pairs, spreads 1 to 4", hypothesis, paired(seeds, 0.5, (1.0, 4.0)), 0.03)
        for spread in (1.0, 4.0):
            arms = apart(seeds, seeds, spread)
            yield on_a_margin(f"{seeds} and {seeds} seeds, spreads 1 to {spread:g}", hypothesis, arms, 0.03)
    for counts in ((2, 3), (2, 8), (3, 8), (5, 8)):
        for spread in (0.2, 1.0, 5.0):
            arms = apart(*counts, spread)
            yield on_a_margin(f"{counts[0]} and {counts[1]} seeds, spreads 1 to {spread:g}", hypothesis, arms, 0.03)


def _of_families() -> Iterable[Design]:
    """Holm's procedure over several hypotheses."""
    yield family("Holm over 4, 4 pairs", [paired(4)] * 4)
    yield family("Holm over 4, 3 pairs, one arm in common", [paired(3, 0.7)] * 4, shared=True)
    yield family("Holm over 4 of which 2 hold, 5 pairs", [paired(5)] * 4, held=2)
    yield family("Holm over 4, 3 and 3 seeds, spreads 1 to 5", [apart(3, 3, 5.0)] * 4)
    yield family("Holm over 12, 3 and 3 seeds, spreads 1 to 5", [apart(3, 3, 5.0)] * 12)
    yield family("Holm over 4, 2 and 8 seeds, spreads 1 to 0.2", [apart(2, 8, 0.2)] * 4)


_CHOICES = {
    "best of 6 against best of 6": ((6, 6), (1.0, 1.0)),
    "best of 6 against best of 6, spreads 3 to 1": ((6, 6), (3.0, 1.0)),
    "best of 6 against one": ((6, 1), (1.0, 1.0)),
}


def _of_selections(*, on_fresh: bool) -> Iterable[Design]:
    """Several candidates for each arm, of which one is chosen."""
    how = "confirmed on 3 fresh seeds" if on_fresh else "judged on the 3 seeds that chose"
    for said, (candidates, spreads) in _CHOICES.items():
        yield selected(f"{said}, {how}", candidates, 3, on_fresh=on_fresh, spreads=spreads)


DESIGNS: tuple[Design, ...] = (
    *_of_rules(),
    *_of_arms(),
    *_of_families(),
    *_of_selections(on_fresh=True),
    *(trial(rounds, correlation) for rounds, correlation in ((15, 0.0), (15, 0.5), (21, 0.7), (41, 0.5))),
    *(near_zero(seeds, share) for seeds, share in ((3, 0.2), (3, 0.6), (8, 0.3))),
)
"""All that a report can state."""

UNSOUND: tuple[Design, ...] = tuple(_of_selections(on_fresh=False))
"""What no report states, and why."""
