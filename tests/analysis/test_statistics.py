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


@given(PAIRS, st.floats(1e-6, 0.0249))
def test_at_strict_levels_means_of_equally_many_values_have_the_degrees_of_freedom_of_one(
    values: tuple[list[float], list[float]], alpha: float
) -> None:
    estimate = statistics.welch(*values)
    expected = stats.t.ppf(1 - alpha, len(values[0]) - 1)
    assert estimate.critical(alpha) == pytest.approx(expected)
    assert estimate.tail(expected) == pytest.approx(alpha)
    between = (estimate.critical(statistics.STRICT) + stats.t.ppf(1 - statistics.STRICT, len(values[0]) - 1)) / 2
    assert estimate.tail(between) == pytest.approx(statistics.STRICT), "decided at no stricter level"


def test_two_values_beside_many_decide_at_no_strict_level() -> None:
    few, many = [0.0, 0.1], [1.0, 1.1, 0.9, 1.05]
    assert statistics.welch(many, few).least == statistics.welch(few, many).least == statistics.STRICT
    assert statistics.welch(many, [0.0, 0.1, 0.05]).least == 0.0 == statistics.welch(many[:3], few).least


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
    found = statistics.welch(a, b).p_inside(-MARGIN, MARGIN)
    if expected >= statistics.STRICT:
        assert found == pytest.approx(float(expected), rel=1e-7, abs=1e-12)
    else:
        assert float(expected) <= found <= statistics.STRICT


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


@given(VALUES, VALUES, st.floats(1e-6, 0.5))
def test_critical_values_of_unequal_counts_are_the_inverse_of_their_tails(
    a: list[float], b: list[float], alpha: float
) -> None:
    estimate = statistics.welch(a, [*b, 9.0, 8.0] if len(a) == len(b) else b)
    assert isinstance(estimate, statistics.Welch)
    assert estimate.tail(estimate.critical(alpha)) == pytest.approx(alpha, rel=1e-6)
    assert estimate.tail(-1.0) == pytest.approx(1 - estimate.tail(1.0))
    tails = [float(stats.t.sf(2.0, len(values) - 1)) for values in (a, b)]
    if len(a) != len(b):
        assert min(tails) <= estimate.tail(2.0) <= max(tails)


@pytest.mark.parametrize(("first", "second"), [(3, 4), (6, 8), (10, 12), (31, 40)])
@pytest.mark.parametrize("gap", [1e1, 1e3, 1e6, 1e12])
def test_a_difference_of_unequal_counts_may_be_as_sure_as_can_be(first: int, second: int, gap: float) -> None:
    a, b = ([0.01 * (i % 3) for i in range(count)] for count in (first, second))
    found = statistics.welch([gap + value for value in a], b)
    t = found.mean / found.standard_error
    tails = [float(stats.t.sf(t, count - 1)) for count in (first, second)]
    assert min(tails) * 0.999 <= found.p_above(0.0) <= max(tails) * 1.001


def test_the_order_of_rounds_tells_how_many_are_independent() -> None:
    rng = np.random.default_rng(29)
    assert np.mean([statistics.independent_share(rng.normal(0, 1, 41).tolist()) for _ in range(200)]) > 0.85
    calm = rng.normal(0, 1, 41).tolist()
    assert statistics.independent_share(sorted(calm)) < 0.2, "a drift over the whole trial"
    assert statistics.independent_share([1.0, -1.0] * 20) == pytest.approx(1.0, abs=0.1), "never more than all"
    assert statistics.independent_share([0.5] * 9) == 1.0
    burst = [*calm[:20], 1e9, *calm[21:]]
    assert statistics.independent_share(burst) == pytest.approx(statistics.independent_share(calm), abs=0.2)
