"""Every statistic against scipy and statsmodels, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oelm_jobs.analysis import statistics
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

VALUES = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3)
MARGIN = math.log(1.05)
settings.register_profile("report", max_examples=40, deadline=None)
settings.load_profile("report")


@given(VALUES)
def test_the_paired_interval_is_that_of_scipy(differences: list[float]) -> None:
    estimate = statistics.paired(differences)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.9)
    assert estimate.interval(0.05) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    assert estimate.sd == pytest.approx(np.std(differences, ddof=1))


@given(VALUES, VALUES)
def test_the_welch_interval_and_its_degrees_of_freedom_are_those_of_scipy(a: list[float], b: list[float]) -> None:
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


@given(VALUES, VALUES)
def test_two_one_sided_welch_tests_agree_with_statsmodels(a: list[float], b: list[float]) -> None:
    expected, _, _ = ttost_ind(np.array(a), np.array(b), -MARGIN, MARGIN, usevar="unequal")
    assert statistics.welch(a, b).p_inside(-MARGIN, MARGIN) == pytest.approx(float(expected), rel=1e-7, abs=1e-12)


@given(VALUES)
def test_one_sided_p_values_agree_with_scipy(differences: list[float]) -> None:
    estimate = statistics.paired(differences)
    assert estimate.p_below(0.1) == pytest.approx(stats.ttest_1samp(differences, 0.1, alternative="less").pvalue)
    assert estimate.p_above(0.1) == pytest.approx(stats.ttest_1samp(differences, 0.1, alternative="greater").pvalue)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=8))
def test_holm_rejects_what_statsmodels_rejects(p_values: list[float]) -> None:
    levels = statistics.holm_levels(p_values, [0.05] * len(p_values))
    rejected, _, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    assert [p <= level for p, level in zip(p_values, levels, strict=True)] == list(rejected)


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
    found = statistics.median(values)
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
