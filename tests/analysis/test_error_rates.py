"""How often verdicts and bounds err, over every kind of design that a report states, by simulation through ``judge``.

A design fails where it errs more often than chance allows a rate of LEVEL; a rate of 7 % in place of 5 % fails in 95
of 100 cases. Each draws from its own fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from oelm_jobs.analysis import statistics
from oelm_jobs.analysis.judging import blocks, limits, verdicts
from oelm_jobs.analysis.judging.verdicts import Verdict
from scipy import special, stats

from . import block_designs
from .designs import DESIGNS, DRAWS, HIGH, LEVEL, LOOKS, UNSOUND, Design, errs, few, most

ALL = (*DESIGNS, *block_designs.DESIGNS)
BY_NAME = {design.name: design for design in (*ALL, *UNSOUND)}
Patch = pytest.MonkeyPatch


def fails(rate: float) -> float:
    """Return the probability that a design of this rate is found to err, by its count at each look."""
    chances, drawn = np.ones(1), 0
    for draws in LOOKS:
        added = draws - drawn
        chances = np.convolve(chances, stats.binom.pmf(np.arange(added + 1), added, rate))
        chances[: few(draws) + 1] = 0.0  # done
        drawn = draws
    return float(chances[most(LEVEL, DRAWS) + 1 :].sum())


def test_the_tolerance_tells_seven_per_cent_from_five() -> None:
    assert fails(LEVEL) <= 0.001
    assert fails(HIGH) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("design", ALL, ids=lambda design: design.name)
def test_verdicts_and_bounds_err_as_seldom_as_they_say(design: Design) -> None:
    assert not errs(design)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best of 6 against best of 6, spreads 3 to 1", "best of 6 against one"])
def test_verdicts_on_the_seeds_that_chose_err_and_those_on_fresh_seeds_do_not(name: str) -> None:
    assert errs(BY_NAME[f"{name}, judged on the 3 seeds that chose"])
    assert not errs(BY_NAME[f"{name}, confirmed on 3 fresh seeds"])


def normal(_df: float, alpha: float) -> float:
    """What z has in place of t's quantile."""
    return float(special.ndtri(1 - alpha))


def uncorrected(verdict: Verdict, estimate: statistics.Estimate, alpha: float, _shares: int = 1) -> Verdict:
    """Each block refutes at the whole error."""
    return verdicts.tested(verdict, estimate, alpha)


def no_holm(_p_values: Sequence[float], alphas: Sequence[float]) -> list[float]:
    """Every hypothesis at the whole error."""
    return list(alphas)


BROKEN: dict[str, tuple[str, Callable[[Patch], None]]] = {
    "z in place of t, paired": ("5 pairs, correlation 0", lambda patch: patch.setattr(statistics, "_quantile", normal)),
    "z in place of t, unpaired": (
        "4 and 4 seeds, spreads 1 to 1",
        lambda patch: patch.setattr(statistics, "_quantile", normal),
    ),
    "no Holm": ("Holm over 4, 4 pairs", lambda patch: patch.setattr(statistics, "holm_levels", no_holm)),
    "Satterthwaite at strict levels": (
        "Holm over 12, 3 and 3 seeds, spreads 1 to 5",
        lambda patch: patch.setattr(statistics, "STRICT", 0.0),
    ),
    "a refutation by two bounds at the whole error": (
        "equivalent_within, narrow beside the spread, 5 pairs",
        lambda patch: patch.setattr(statistics, "outside_tests", lambda _low, _high: 1),
    ),
    "rounds taken for independent": (
        "speed trial, 21 rounds, each like the one before by 0.7",
        lambda patch: patch.setattr(statistics, "independent_share", lambda _values: 1.0),
    ),
    "a refutation by each block at the whole error": (
        "each of 4 blocks, 3 pairs, all on the margin",
        lambda patch: patch.setattr(blocks, "tested", uncorrected),
    ),
    "blocks of the same seeds taken for independent": (
        "mean of 4 blocks, 3 pairs, correlated by 0.9",
        lambda patch: patch.setattr(blocks, "_means", lambda _blocks: ([], ())),
    ),
    "ratios of what is near zero": (
        "ratio, 3 pairs, spread 0.6 of the mean",
        lambda patch: patch.setattr(limits, "SPREADS_FROM_ZERO", 0),
    ),
}
"""Statistics that err, with a design that shows it."""


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN)
def test_a_statistic_that_errs_is_seen(broken: str, monkeypatch: Patch) -> None:
    name, breaks = BROKEN[broken]
    breaks(monkeypatch)
    assert errs(BY_NAME[name])
