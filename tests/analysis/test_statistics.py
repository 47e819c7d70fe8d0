"""Every statistic against scipy and statsmodels, and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oelm_jobs.analysis import statistics
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

VALUES = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3)
PAIRS = st.tuples(VALUES, VALUES).map(lambda two: (two[0][: len(two[1])], two[1][: len(two[0])]))
PAIRS = PAIRS.filter(lambda two: min(map(np.std, two)) > 1e-3)
MARGIN = math.log(1.05)
settings.register_profile("report", max_examples=40, deadline=None)
settings.load_profile("report")


@pytest.mark.slow
@given(VALUES)
def test_the_paired_interval_is_that_of_scipy(differences: list[float]) -> None:
    estimate = statistics.paired(differences)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.9)
    assert estimate.interval(0.05) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert estimate.sd == pytest.approx(np.std(differences, ddof=1))


@given(PAIRS)
def test_the_welch_interval_and_its_degrees_of_freedom_are_those_of_scipy(
    values: tuple[list[float], list[float]],
) -> None:
    a, b = values
    estimate = statistics.welch(a, b)
    reference = stats.ttest_ind(a, b, equal_var=False)
    expected = reference.confidence_interval(0.9)
    assert estimate.df == pytest.approx(reference.df)
    assert estimate.interval(0.05) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@given(VALUES)
def test_two_one_sided_paired_tests_agree_with_statsmodels(differences: list[float]) -> None:
    expected, _, _ = ttost_paired(np.array(differences), np.zeros(len(differences)), -MARGIN, MARGIN)
    assert statistics.paired(differences).p_inside(-MARGIN, MARGIN) == pytest.approx(
        float(expected), rel=1e-7, abs=1e-12
    )


@given(PAIRS)
def test_two_one_sided_welch_tests_agree_with_statsmodels(values: tuple[list[float], list[float]]) -> None:
    a, b = values
    expected, _, _ = ttost_ind(np.array(a), np.array(b), -MARGIN, MARGIN, usevar="unequal")
    assert statistics.welch(a, b).p_inside(-MARGIN, MARGIN) == pytest.approx(float(expected), rel=1e-7, abs=1e-12)


@given(VALUES)
def test_one_sided_p_values_agree_with_scipy(differences: list[float]) -> None:
    estimate = statistics.paired(differences)
    assert estimate.p_below(0.1) == pytest.approx(stats.ttest_1samp(differences, 0.1, alternative="less").pvalue)
    assert estimate.p_above(0.1) == pytest.approx(stats.ttest_1samp(differences, 0.1, alternative="greater").pvalue)


def rejected_by_statsmodels(p_values: list[float]) -> list[bool]:
    with mock.patch("gc.collect"):  # it looks for garbage each time, which takes a second among a whole suite's objects
        return list(multipletests(p_values, alpha=0.05, method="holm")[0])


@pytest.mark.slow
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holm_rejects_what_statsmodels_rejects(p_values: list[float]) -> None:
    levels = statistics.holm_levels(p_values, [0.05] * len(p_values))
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == rejected_by_statsmodels(p_values)


@pytest.mark.slow
@given(st.lists(st.floats(0.005, 0.06), min_size=2, max_size=8))
def test_holm_rejects_what_statsmodels_rejects_where_the_order_of_p_decides(p_values: list[float]) -> None:
    levels = statistics.holm_levels(p_values, [0.05] * len(p_values))
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == rejected_by_statsmodels(p_values)


def test_holm_takes_the_hypotheses_by_their_p_whatever_the_order_in_which_they_stand() -> None:
    assert statistics.holm_levels([0.04, 0.001, 0.02], [0.05] * 3) == pytest.approx([0.05, 0.05 / 3, 0.05 / 2])


def test_holm_tests_the_hypotheses_that_follow_the_first_failure_at_its_level() -> None:
    assert statistics.holm_levels([0.001, 0.04, 0.9], [0.05] * 3) == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2])


@given(VALUES, st.sampled_from([0.05, 0.025, 0.0125]))
def test_an_interval_lies_inside_the_margins_exactly_where_both_one_sided_tests_reject(
    differences: list[float], alpha: float
) -> None:
    estimate = statistics.paired(differences)
    low, high = estimate.interval(alpha)
    p = estimate.p_inside(-1.0, 1.0)
    if abs(p - alpha) > 1e-9:
        assert (low > -1.0 and high < 1.0) == (p < alpha)


@pytest.mark.parametrize("seeds", [3, 5, 8])
def test_paired_t_intervals_cover_what_they_promise_with_few_seeds(seeds: int) -> None:
    rng = np.random.default_rng(7)
    draws = rng.normal(0.02, 0.02, (4000, seeds))
    hits = 0
    for row in draws:
        low, high = statistics.paired(row.tolist()).interval(0.025)
        hits += low <= 0.02 <= high
    assert abs(hits / 4000 - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / 4000)


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_welch_intervals_cover_at_least_nearly_what_they_promise_with_unequal_spreads(spread: float) -> None:
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(4000):
        low, high = statistics.welch(
            rng.normal(0.02, 0.01, 5).tolist(), rng.normal(0, 0.01 * spread, 5).tolist()
        ).interval(0.025)
        hits += low <= 0.02 <= high
    assert 0.94 <= hits / 4000 <= 0.98  # Satterthwaite is slightly conservative with five values


def test_a_bound_at_infinity_is_never_in_the_way() -> None:
    estimate = statistics.paired([0.1, 0.2, 0.3])
    assert estimate.p_inside(-math.inf, 5.0) == estimate.p_below(5.0)
    assert estimate.p_outside(-math.inf, 0.0) == estimate.p_above(0.0)


def test_one_value_has_no_spread() -> None:
    with pytest.raises(ValueError, match="two differences"):
        statistics.paired([0.1])
    with pytest.raises(ValueError, match="two values"):
        statistics.welch([0.1], [0.1, 0.2])


def test_means_of_diverged_runs_are_infinite_and_have_no_spread() -> None:
    assert statistics.mean_sd([1.0, math.inf]) == (math.inf, None)
    assert statistics.mean_sd([]) == (None, None)
    assert statistics.mean_sd([2.0]) == (2.0, None)


@given(st.lists(st.floats(-1, 1), min_size=5, max_size=25, unique=True), st.floats(-1, 1))
def test_the_sign_test_of_a_median_is_that_of_scipy(values: list[float], bound: float) -> None:
    found = replace(statistics.median(values), independent=1.0)
    above = sum(value > bound for value in values)
    expected = stats.binomtest(above, len(values), alternative="greater").pvalue
    assert found.p_above(bound) == pytest.approx(expected)
    assert found.mean == pytest.approx(float(np.median(values)))


@pytest.mark.parametrize("rounds", [7, 15, 16])
def test_order_statistics_bound_the_median_with_at_most_the_promised_error(rounds: int) -> None:
    rng = np.random.default_rng(13)
    misses = 0
    for _ in range(4000):
        low, _ = statistics.median(rng.standard_cauchy(rounds).tolist()).interval(0.05)
        misses += low > 0
    assert misses / 4000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)


def test_a_bound_of_the_median_and_its_sign_test_agree() -> None:
    values = np.random.default_rng(1).normal(0.01, 0.005, 15).tolist()
    found = statistics.median(values)
    low, high = found.interval(0.05)
    assert found.p_above(low - 1e-12) <= 0.05 < found.p_above(sorted(values)[sorted(values).index(low) + 1] - 1e-12)
    assert low < found.mean < high


def test_too_few_rounds_bound_nothing() -> None:
    assert statistics.median([0.1, 0.2, 0.3]).interval(0.05) == (-math.inf, math.inf)


# Error rates ----------------------------------------------------------------------------------------------------------


def most(share: float, draws: int) -> float:
    """Return the most that a share of so many draws may be by chance."""
    return share + 3 * math.sqrt(share * (1 - share) / draws)


@given(VALUES, VALUES, st.floats(1e-6, 0.5))
def test_critical_values_of_unequal_counts_are_the_inverse_of_their_tails(
    a: list[float], b: list[float], alpha: float
) -> None:
    estimate = statistics.welch(a, [*b, 9.0, 8.0] if len(a) == len(b) else b)
    assert isinstance(estimate, statistics.UnequalCounts)
    assert estimate.tail(estimate.critical(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert estimate.tail(-1.0) == pytest.approx(1 - estimate.tail(1.0))
    tails = [float(stats.t.sf(2.0, len(values) - 1)) for values in (a, b)]
    if len(a) != len(b):
        assert min(tails) <= estimate.tail(2.0) <= max(tails)


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "spread"), [((2, 2), 10.0), ((2, 3), 0.3), ((2, 8), 0.5), ((3, 8), 0.5)])
def test_means_of_few_values_with_unequal_spreads_keep_their_error(counts: tuple[int, int], spread: float) -> None:
    rng, draws = np.random.default_rng(17), 4000
    errors = 0
    for _ in range(draws):
        a, b = rng.normal(0, 1, counts[0]).tolist(), rng.normal(0, spread, counts[1]).tolist()
        errors += statistics.welch(a, b).interval(0.05)[0] > 0
    assert errors / draws <= most(0.05, draws)


@pytest.mark.parametrize("beside", [0.1, 1.0, 10.0])
def test_refuting_a_rule_with_two_sides_keeps_its_error_however_wide_the_spread(beside: float) -> None:
    rng, draws, margin = np.random.default_rng(19), 4000, 1.0
    errors = 0
    for _ in range(draws):
        found = statistics.paired(rng.normal(margin, beside * margin, 4).tolist())
        errors += found.p_outside(-margin, margin) <= 0.05
    assert errors / draws <= most(0.05, draws)


@pytest.mark.parametrize("rounds", [9, 15, 21, 41])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5])
def test_a_median_of_correlated_rounds_keeps_its_error(rounds: int, correlation: float) -> None:
    rng, draws = np.random.default_rng(23), 1500
    errors = 0
    for _ in range(draws):
        errors += statistics.median(autoregression(rng, rounds, correlation)).interval(0.05)[0] > 0
    assert errors / draws <= most(0.05, draws)


def autoregression(rng: np.random.Generator, count: int, correlation: float) -> list[float]:
    """Return a series of standard normal values, each correlated with the one before."""
    values = [rng.normal()]
    while len(values) < count:
        values.append(correlation * values[-1] + math.sqrt(1 - correlation**2) * rng.normal())
    return values


def test_the_order_of_rounds_tells_how_many_are_independent() -> None:
    rng = np.random.default_rng(29)
    assert np.mean([statistics.independent_share(rng.normal(0, 1, 41).tolist()) for _ in range(200)]) > 0.85
    calm = rng.normal(0, 1, 41).tolist()
    assert statistics.independent_share(sorted(calm)) < 0.2, "a drift over the whole trial"
    assert statistics.independent_share([1.0, -1.0] * 20) == pytest.approx(1.0, abs=0.1), "never more than all"
    assert statistics.independent_share([0.5] * 9) == 1.0
    burst = [*calm[:20], 1e9, *calm[21:]]
    assert statistics.independent_share(burst) == pytest.approx(statistics.independent_share(calm), abs=0.2)
