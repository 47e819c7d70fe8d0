"""Verdicts on metrics that a script tells: at the last or the best step, as a ratio or in the metric's own units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oelm_jobs.analysis import power, wording
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.figures import FIGURES
from oelm_jobs.analysis.judging.scales import region
from oelm_jobs.analysis.judging.verdicts import Circumstances, Verdict, judge
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Series
from oelm_jobs.analysis.report import build

from oelm_jobs.spec.study import Hypothesis

from .. import synthetic

LABELS = {"a": "Low", "b": "High"}


def claim(
    relation: str, *bounds: float, goal: str = "minimize", scale: str = "difference", at: str = "last"
) -> Hypothesis:
    return Hypothesis(
        id="H", metric="score", group="b", against="a", relation=relation, bounds=bounds, is_told=True, goal=goal,
        scale=scale, at=at,
    )  # fmt: skip


def series(values: Sequence[float], steps: Sequence[int] | None = None) -> Series:
    return Series(step=np.array(steps or range(10, 10 * len(values) + 1, 10)), value=np.array(values, dtype=float))


def run(group: str, seed: int, told: Series | None, goal: str = "minimize", **more: Any) -> LoadedRun:
    facts: dict[str, Any] = {"status": "DONE", "last_step": 10, "goals": {"score": goal}, **more}
    facts.setdefault("series", {} if told is None else {"score": told})
    return LoadedRun(name=f"{group}-s{seed}", group=group, label=group, seed=seed, path=Path(group), **facts)


def judged(h: Hypothesis, b: Sequence[Series], a: Sequence[Series], *, may_pair: bool = True) -> Verdict:
    runs = {
        name: [run(name, seed, told, h.goal) for seed, told in enumerate(arm)] for name, arm in (("a", a), ("b", b))
    }
    return judge([h], runs, {"H": Circumstances(may_pair=may_pair)})[0]


def ends(*values: float) -> list[Series]:
    return [series([5.0, value]) for value in values]


def said(verdict: Verdict) -> str:
    return " ".join([str(wording.sentence(verdict, LABELS)), str(verdict.reason), *map(str, verdict.notes)])


@pytest.mark.parametrize(
    ("relation", "bounds", "scale", "expected"),
    [
        ("reduction", (0.1, 0.2), "ratio", (0.8, 0.9)),
        ("reduction", (0.1, 0.2), "difference", (-0.2, -0.1)),
        ("reduction", (0.1, math.inf), "difference", (-math.inf, -0.1)),
        ("increase", (0.1, 0.2), "ratio", (1.1, 1.2)),
        ("increase", (0.1, 0.2), "difference", (0.1, 0.2)),
        ("equivalent_within", (0.25,), "ratio", (0.8, 1.25)),
        ("equivalent_within", (0.25,), "difference", (-0.25, 0.25)),
        ("at_most_above", (0.1,), "ratio", (0.0, 1.1)),
        ("at_most_above", (0.1,), "difference", (-math.inf, 0.1)),
        ("at_most_below", (0.1,), "ratio", (0.9, math.inf)),
        ("at_most_below", (0.1,), "difference", (-0.1, math.inf)),
    ],
)
def test_a_rule_is_a_region_of_ratios_or_of_differences(
    relation: str, bounds: tuple[float, ...], scale: str, expected: tuple[float, float]
) -> None:
    assert region(claim(relation, *bounds, scale=scale)) == pytest.approx(expected)


def test_a_difference_is_judged_in_the_metrics_own_units_whatever_its_size() -> None:
    for shift in (0.0, -1000.0):
        found = judged(claim("equivalent_within", 0.05), ends(*(shift + x for x in (0.11, 0.21, 0.305))),
                       ends(*(shift + x for x in (0.1, 0.2, 0.3))))  # fmt: skip
        assert (found.outcome, found.method, found.ratio) == ("supported", "paired", None)
        assert found.estimate == pytest.approx(0.025 / 3, rel=1e-6)
        assert found.interval is not None and found.interval[0] < found.estimate < found.interval[1] < 0.05


def test_a_difference_is_said_in_the_metrics_own_units_without_percent() -> None:
    found = judged(claim("at_most_below", 0.02, goal="maximize"), ends(0.91, 0.92, 0.93), ends(0.915, 0.93, 0.93))
    text = said(found)
    assert "The last score of High is 0.00500 below that of Low (0.92000 against 0.92500)." in text and "%" not in text
    assert str(wording.rule(found.hypothesis)) == "at most 0.02 below"
    assert wording.in_rule_units(found.hypothesis, found.estimate or 0) == "−0.00500"


def test_ratios_of_a_metric_that_is_zero_or_negative_are_undecidable_and_say_what_to_do() -> None:
    for b, a in (((0.0, 0.2), (0.1, 0.2)), ((0.1, 0.2), (-0.1, 0.2)), ((-1.0, 1.0), (math.nan, 0.0))):
        found = judged(claim("equivalent_within", 0.05, scale="ratio"), ends(*b), ends(*a))
        assert (found.outcome, found.estimate, found.interval) == ("undecidable", None, None)
        assert 'scale = "difference"' in str(found.reason) and "can't be compared" in said(found)


def test_the_best_value_is_the_lowest_or_the_highest_by_the_goal() -> None:
    curves = [series([3.0, 1.0, 7.0, 2.0])]
    for goal, expected in (("minimize", 1.0), ("maximize", 7.0)):
        found = judged(claim("equivalent_within", 0.5, goal=goal, at="best"), curves, curves)
        assert found.group[0].raw == expected
        assert "secondary end point" in said(found) and "best score" in said(found)
    assert judged(claim("equivalent_within", 0.5), curves, curves).group[0].raw == 2.0


@pytest.mark.parametrize(("b", "a"), [(1.1, 1.0), (0.8, 0.7), (0.3, 0.2)])
def test_one_seed_whose_difference_is_the_margin_but_for_rounding_meets_the_rule(b: float, a: float) -> None:
    assert judged(claim("at_most_above", 0.1), ends(b), ends(a)).outcome == "met (one seed)"
    assert judged(claim("at_most_above", 0.1), ends(b + 1e-6), ends(a)).outcome == "not met (one seed)"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ("sampled", "score was measured on a part of the validation data, as the study says"),
        ("full", "score was measured on all of the validation data, as the study says"),
        ("", "on which validation data, and on all or a part of them, is not known"),
    ],
)
def test_a_verdict_says_on_how_much_of_the_validation_data_the_metric_was_measured(
    measured: str, expected: str
) -> None:
    found = judged(replace(claim("equivalent_within", 0.5), measured=measured), ends(1.0, 1.1), ends(1.0, 1.1))
    assert len([note for note in found.notes if "validation data" in note]) == 1 and expected in said(found)


def test_runs_of_unequal_length_are_compared_at_the_last_step_that_all_told() -> None:
    long, short = series([4.0, 3.0, 1.0], [10, 20, 30]), series([4.0, 2.5], [10, 20])
    last = judged(claim("equivalent_within", 0.1), [long], [short])
    assert (last.step, last.group[0].raw, last.against[0].raw) == (20, 3.0, 2.5)
    assert "compared at step 20, the last that all told score at (ends: b-s0 30, a-s0 20)" in said(last)
    best = judged(claim("equivalent_within", 0.1, at="best"), [long], [short])
    assert best.group[0].raw == 3.0 and "the best until step 20" in said(best)
    apart = judged(claim("equivalent_within", 0.1), [series([1.0, 2.0], [1, 3])], [series([1.0, 2.0], [2, 4])])
    assert apart.outcome == "no data" and "never told score at the same step" in str(apart.reason)


def test_what_each_run_tells_once_is_compared_though_the_steps_are_unequal() -> None:
    found = judged(claim("at_most_above", 0.5), [series([0.4], [900])], [series([0.3], [1000])])
    assert (found.outcome, found.estimate) == ("met (one seed)", pytest.approx(0.1))
    assert "each run told score once, at different steps (b-s0 900, a-s0 1,000)" in said(found)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize(("goal", "estimate"), [("minimize", math.inf), ("maximize", None), ("", math.inf)])
def test_a_value_that_is_not_finite_is_a_failure_of_its_arm(value: float, goal: str, estimate: float | None) -> None:
    for scale in ("ratio", "difference"):
        h = claim("at_most_above", 0.1, goal=goal, scale=scale)
        found = judged(h, ends(1.0, value, 1.1), ends(1.0, 1.1, 1.2))
        assert (found.outcome, found.estimate) == ("refuted", estimate), scale
        assert "b-s1 diverged or ended without a finite score" in str(found.reason) and "nan" not in said(found)
        other = judged(h, ends(1.0, 1.1, 1.2), ends(1.0, value, 1.1))
        assert (other.outcome, other.estimate) == ("inconclusive", None)


def test_an_improvement_that_breaks_a_rule_with_two_sides_goes_by_the_goal() -> None:
    better, worse = ends(2.0, 2.01, 1.99), ends(1.0, 1.01, 1.02)
    for scale in ("ratio", "difference"):
        up = judged(claim("equivalent_within", 0.1, goal="maximize", scale=scale), better, worse)
        assert up.outcome == "refuted" and "below) holds" in said(up)
        assert "improvement" not in said(judged(claim("equivalent_within", 0.1, scale=scale), better, worse))
        assert "above) holds" in said(judged(claim("equivalent_within", 0.1, scale=scale), worse, better))
        assert "improvement" not in said(judged(claim("equivalent_within", 0.1, goal="", scale=scale), worse, better))


def test_a_run_that_told_nothing_is_left_out_with_its_pair_and_named() -> None:
    runs = {
        "a": [run("a", seed, told) for seed, told in enumerate(ends(1.0, 1.1, 1.2))],
        "b": [run("b", 0, None), *(run("b", 1 + i, told) for i, told in enumerate(ends(1.1, 1.21)))],
    }
    found = judge([claim("at_most_above", 0.1)], runs, {"H": Circumstances(may_pair=True)})[0]
    assert [value.seed for value in found.group] == [value.seed for value in found.against] == [1, 2]
    assert "b-s0 left out: no record of it" in said(found)
    nothing = judge([claim("at_most_above", 0.1)], {"a": runs["a"], "b": [run("b", 0, None)]}, {})[0]
    assert nothing.outcome == "no data"


def test_unfinished_runs_are_compared_only_where_no_other_is_there() -> None:
    a = [run("a", 0, series([1.0])), run("a", 1, series([9.0]), status="RUNNING")]
    b = [run("b", 0, series([1.05]), status="RUNNING")]
    found = judge([claim("at_most_above", 0.1)], {"a": a, "b": b}, {})[0]
    assert "unfinished runs are compared" in said(found) and found.count == 1
    b = [run("b", 0, None, status="RUNNING")]
    found = judge([claim("at_most_above", 0.1)], {"a": a, "b": b}, {})[0]
    assert str(found.reason) == "group b has told no score yet"


def test_equal_values_in_any_unit_count_as_one_seed() -> None:
    for factor in (1e-9, 1.0, 1e9):
        same = ends(*(factor * x for x in (0.1, 0.1, 0.1)))
        apart = ends(*(factor * x for x in (0.1, 0.2, 0.3)))
        h = claim("equivalent_within", factor)
        assert judged(h, same, same).outcome == "met (one seed)"
        assert judged(h, apart, same).interval is not None


def test_a_metric_named_as_one_of_the_built_in_trainers_is_still_the_scripts_own() -> None:
    for name in ("speed", "gpu_hours", "total_params", "final_val_loss"):
        h = Hypothesis(
            id="H", metric=name, group="b", against="a", relation="at_most_above", bounds=(0.5,), is_told=True
        )
        runs = [
            run(arm, 0, None, series={name: series([value])}, goals={name: "minimize"})
            for arm, value in (("a", 1.0), ("b", 1.2))
        ]
        study = synthetic.study(groups={"a": {}, "b": {}}, hypotheses=(h,), seeds=(0,))
        found = build(study, runs).verdicts[0]
        assert (found.outcome, found.estimate) == ("met (one seed)", pytest.approx(1.2)), found


@pytest.mark.slow
def test_the_power_of_a_difference_is_told_once_a_spread_is_seen() -> None:
    h = claim("equivalent_within", 0.05)
    groups: dict[str, dict[str, object]] = {"a": {}, "b": {}}
    study = synthetic.study(groups=groups, hypotheses=(h,), seeds=(0, 1, 2))
    before = power.table(build(study, []))
    assert [cell.value for cell in before.rows[0]][:4] == ["H", None, "no spread seen yet", "0"]
    runs = [run("a", i, told) for i, told in enumerate(ends(0.1, 0.2, 0.3))]
    runs += [run("b", i, told) for i, told in enumerate(ends(0.11, 0.2, 0.33))]
    after = power.table(build(study, runs))
    assert [row[3].value for row in after.rows] == ["+0.0133", "0"]
    assert all(isinstance(row[4].value, float) and 0 < row[4].value <= 1 for row in after.rows)


def test_a_lock_from_before_scales_could_be_said_finds_no_other_rule() -> None:
    plan = lock.plan_of(synthetic.study())["hypotheses"]["H1"]
    assert set(plan) == {"metric", "group", "against", "relation", "bounds", "margin", "level"}
    told = lock.plan_of(synthetic.study(hypotheses=(claim("at_most_above", 0.1, goal="maximize", at="best"),)))
    assert {"scale", "is_told", "goal", "at"} <= set(told["hypotheses"]["H"])


def test_the_forest_of_differences_is_drawn() -> None:
    runs = [run(arm, i, told) for arm in "ab" for i, told in enumerate(ends(0.1, 0.2, 0.3 if arm == "a" else 0.31))]
    rules = [claim("equivalent_within", 0.05), claim("reduction", 0.0, math.inf), claim("at_most_below", 0.1)]
    groups: dict[str, dict[str, object]] = {"a": {}, "b": {}}
    study = synthetic.study(groups=groups, hypotheses=tuple(rules), seeds=(0, 1, 2))
    figure = FIGURES["verdicts"](build(study, runs), [], str)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "+0.00333" in words and "−0.00333" in words and "last score" in words
