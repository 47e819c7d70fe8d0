"""What a hypothesis' verdict is, from values to words, and how often it errs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import statistics, wording
from oelm_jobs.analysis.judging import effects, scales
from oelm_jobs.analysis.judging.scales import region
from oelm_jobs.analysis.judging.verdicts import Circumstances, Verdict, judge
from oelm_jobs.analysis.output import plain_text, writing
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Parameters, Point
from oelm_jobs.analysis.report import Report, build

from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.spec.study import Hypothesis

from .. import synthetic

H2 = Hypothesis(id="H2", metric="final_val_ppl", group="b", against="a", relation="equivalent_within", bounds=(0.05,))
H4 = Hypothesis(id="H4", metric="final_val_ppl", group="b", against="a", relation="at_most_above", bounds=(0.10,))
H1 = Hypothesis(id="H1", metric="trainable_params", group="b", against="a", relation="reduction", bounds=(0.10, 0.20))
H3 = Hypothesis(id="H3", metric="speed", group="b", against="a", relation="ratio_at_least", bounds=(1.0,), margin=0.02)


def run(group: str, seed: int, loss: float, **more: object) -> LoadedRun:
    facts: dict[str, object] = {
        "status": "DONE",
        "final": Point(step=100, loss=loss, full=True),
        "last_step": 100,
        **more,
    }
    return LoadedRun(name=f"{group}-s{seed}", group=group, label=group, seed=seed, path=Path(group), **facts)


def verdict(h: Hypothesis, b: list[float], a: list[float], *, may_pair: bool = True, **around: object) -> Verdict:
    runs = {"a": [run("a", i, x) for i, x in enumerate(a)], "b": [run("b", i, x) for i, x in enumerate(b)]}
    return judge([h], runs, {h.id: Circumstances(may_pair=may_pair, **around)})[0]


def test_within_five_percent_means_the_margin_ln_1_05_both_ways() -> None:
    low, high = region(H2)
    assert (math.log(low), math.log(high)) == pytest.approx((-0.04879, 0.04879), abs=1e-5)


def test_a_reduction_between_ten_and_twenty_percent_is_a_ratio_between_four_fifths_and_nine_tenths() -> None:
    assert region(H1) == pytest.approx((0.8, 0.9))


def test_a_ratio_of_at_least_one_concedes_its_margin() -> None:
    assert region(H3) == (0.98, math.inf)


def test_equal_arms_with_little_spread_support_equivalence() -> None:
    found = verdict(H2, [2.01, 2.00, 1.995], [2.0, 2.0, 2.0])
    assert (found.outcome, found.method, found.count) == ("supported", "paired", 3)
    assert found.ratio == pytest.approx(math.exp(0.005 / 3))


def test_a_large_gap_refutes_equivalence() -> None:
    assert verdict(H2, [2.10, 2.11, 2.09], [2.0, 2.0, 2.0]).outcome == "refuted"


def test_a_gap_on_the_margin_is_inconclusive() -> None:
    assert verdict(H2, [2.03, 2.05, 2.07], [2.0, 2.0, 2.0]).outcome == "inconclusive"


def test_one_seed_is_met_or_not_met_by_the_point_estimate_and_says_so() -> None:
    met, missed = verdict(H2, [2.01], [2.0]), verdict(H2, [2.06], [2.0])
    assert (met.outcome, missed.outcome) == ("met (one seed)", "not met (one seed)")
    assert str(met.reason) == "by the point estimate: one seed, seed variance unknown"
    assert met.interval is None and met.p_supported is None


def test_without_a_shared_data_order_the_arms_are_compared_by_welch() -> None:
    found = verdict(H2, [2.01, 2.0, 1.99], [2.0, 2.01, 1.99], may_pair=False)
    assert found.method == "welch"


def test_two_seeds_beside_many_decide_nothing_at_a_strict_level_and_say_how_many_would() -> None:
    few, many = [2.0, 2.001], [2.2, 2.201, 2.199, 2.202]
    alone = verdict(H4, few, many, may_pair=False)
    assert alone.outcome == "supported"
    family = [replace(H4, id=f"H{i}") for i in range(3)]
    runs = {"a": [run("a", i, x) for i, x in enumerate(many)], "b": [run("b", i, x) for i, x in enumerate(few)]}
    found = judge(family, runs, {})
    assert [(v.outcome, v.interval, v.p_supported) for v in found] == [("undecidable", None, None)] * 3
    assert "2 seeds in one group and 4 in the other, unpaired, hold no error of 1.67 %" in str(found[0].reason)
    assert "3 seeds in each group would" in str(found[0].reason) and found[0].ratio is not None


def test_values_near_zero_beside_their_spread_have_no_ratio_and_the_verdict_says_what_to_do() -> None:
    h = replace(H4, metric="final_val_loss")
    found = verdict(h, [0.2, 0.3, 0.4], [0.3, 0.31, 0.29])
    assert found.outcome == "undecidable" and "3.0 standard deviations above zero" in str(found.reason)
    assert 'compare it with scale = "difference"' in str(found.reason)
    tested = {name: [replace(run(name, i, x), test=Point(step=400, loss=x, full=True)) for i, x in enumerate(losses)]
              for name, losses in (("b", [0.2, 0.3, 0.4]), ("a", [0.3, 0.31, 0.29]))}  # fmt: skip
    assert judge([replace(h, metric="final_test_loss")], tested, {})[0].outcome == "undecidable"
    assert verdict(replace(h, scale="difference"), [0.2, 0.3, 0.4], [0.3, 0.31, 0.29]).outcome == "inconclusive"
    assert verdict(H4, [0.2, 0.3, 0.4], [0.3, 0.31, 0.29]).outcome == "inconclusive", "PPL is compared by its logarithm"


@pytest.mark.parametrize(
    ("metric", "scale", "amount", "expected"),
    [
        ("final_val_loss", "ratio", 0.1, (0.0, 0.9)),
        ("final_val_loss", "difference", 0.1, (-math.inf, -0.1)),
        ("speed", "ratio", 0.1, (1.1, math.inf)),
        ("final_val_ppl", "ratio", 0.0, (0.0, 1.0)),
    ],
)
def test_better_by_is_a_region_in_the_metric_s_direction(
    metric: str, scale: str, amount: float, expected: tuple[float, float]
) -> None:
    h = replace(H4, relation="better_by", metric=metric, scale=scale, bounds=(amount,))
    assert region(h) == pytest.approx(expected)
    told = replace(h, is_told=True, goal="maximize")
    assert region(told)[0] == pytest.approx((1 if scale == "ratio" else 0) + amount)


def test_better_at_all_is_strict() -> None:
    h = replace(H4, relation="better_by", bounds=(0.0,))
    assert [verdict(h, [x], [2.0]).outcome for x in (1.9, 2.0, 2.1)] == [
        "met (one seed)", "not met (one seed)", "not met (one seed)",
    ]  # fmt: skip
    by = replace(h, bounds=(0.1,))
    assert verdict(by, [2.0 + math.log(0.9)], [2.0]).outcome == "met (one seed)", "by at least so much"
    assert verdict(h, [1.9, 1.91, 1.89], [2.0, 2.0, 2.0]).outcome == "supported"
    assert str(wording.rule(h)) == "lower" and str(wording.rule(by)) == "lower by at least 10 %"
    assert str(wording.rule(replace(by, metric="speed"))) == "higher by at least 10 %"


def test_an_effect_has_both_scales_at_one_level() -> None:
    found = verdict(H4, [2.01, 2.03, 2.02], [2.0, 2.0, 2.01])
    ratio, difference = effects.effect(found, scales.RATIO), effects.effect(found, scales.DIFFERENCE)
    assert (ratio.estimate, ratio.interval, ratio.sd) == (found.ratio, found.interval, found.sd)
    gaps = [math.exp(b) - math.exp(a) for b, a in ((2.01, 2.0), (2.03, 2.0), (2.02, 2.01))]
    expected = statistics.paired(gaps)
    assert difference.estimate == pytest.approx(expected.mean) and difference.sd == pytest.approx(expected.sd)
    assert difference.interval == pytest.approx(expected.interval(1 - (found.level or 0)))
    apart = verdict(H4, [2.01, 2.03, 2.02], [2.0, 2.0, 2.01], may_pair=False)
    wider = effects.effect(apart, scales.DIFFERENCE)
    assert wider.interval is not None and wider.estimate == pytest.approx(difference.estimate)
    one = effects.effect(verdict(H4, [2.01], [2.0]), scales.DIFFERENCE)
    assert one.estimate == pytest.approx(math.exp(2.01) - math.exp(2.0)) and one.interval is None
    diverged = effects.effect(verdict(H4, [2.0, math.inf], [2.0, 2.0]), scales.DIFFERENCE)
    assert diverged == effects.Effect()
    below = replace(H4, metric="final_val_loss", scale="difference")
    assert effects.effect(verdict(below, [-1.0, -2.0], [1.0, 2.0]), scales.RATIO) == effects.Effect()
    near = verdict(below, [0.2, 0.3, 0.4], [0.3, 0.31, 0.29])
    assert near.interval is not None and near.level is not None
    ratio = effects.effect(near, scales.RATIO)
    assert ratio.estimate is not None and (ratio.interval, ratio.sd) == (None, None), "no level holds for it"


def test_pairing_takes_out_what_seeds_have_in_common() -> None:
    a = [2.0, 2.2, 2.4]
    b = [2.01, 2.205, 2.412]
    assert verdict(H2, b, a).outcome == "supported"
    assert verdict(H2, b, a, may_pair=False).outcome == "inconclusive"


def test_non_inferiority_is_one_sided() -> None:
    assert verdict(H4, [1.5, 1.51, 1.49], [2.0, 2.0, 2.0]).outcome == "supported"
    assert verdict(H4, [2.2, 2.21, 2.19], [2.0, 2.0, 2.0]).outcome == "refuted"


def test_an_improvement_that_breaks_a_two_sided_rule_says_so_with_the_one_sided_result() -> None:
    found = verdict(H2, [1.9, 1.91, 1.89], [2.0, 2.0, 2.0])
    assert found.outcome == "refuted"
    assert any("broken by an improvement" in str(note) and "holds" in str(note) for note in found.notes)


def test_a_diverged_seed_is_a_failure_of_its_arm_and_not_dropped() -> None:
    found = verdict(H4, [2.0, math.inf, 2.01], [2.0, 2.0, 2.0])
    assert (found.outcome, found.ratio) == ("refuted", math.inf)
    assert "b-s1 diverged" in str(found.reason)
    assert len(found.group) == 3


def test_a_diverged_baseline_shows_nothing_for_the_claim() -> None:
    found = verdict(H4, [2.0, 2.0, 2.01], [2.0, math.inf, 2.0])
    assert (found.outcome, found.ratio) == ("inconclusive", None)
    assert "a-s1" in str(found.reason) and found.notes == ()
    both = verdict(H4, [2.0, 2.0, math.inf], [2.0, math.inf, 2.0])
    assert both.outcome == "inconclusive" and [str(note) for note in both.notes] == [
        "b-s2 diverged and counts as a failure of its arm"
    ]


def test_seeds_with_identical_values_count_as_one() -> None:
    found = verdict(H2, [2.01, 2.01, 2.01], [2.0, 2.0, 2.0])
    assert found.outcome == "met (one seed)"
    assert any("taken as one seed" in str(note) for note in found.notes)


def test_a_seed_without_a_partner_is_left_out_and_named() -> None:
    runs = {"a": [run("a", 1, 2.0), run("a", 2, 2.01)], "b": [run("b", 1, 2.0), run("b", 2, 2.02), run("b", 3, 9.0)]}
    found = judge([H2], runs, {"H2": Circumstances(may_pair=True)})[0]
    assert [v.seed for v in found.group] == [1, 2]
    assert any("b-s3 left out: seed 3 has no partner" in str(note) for note in found.notes)


def counts(group: str, trainable: int | None) -> LoadedRun:
    return run(
        group, 1, 2.0, parameters=Parameters(total=44_896_768, trainable=trainable, frozen=0, embedding=25_993_728)
    )


def test_pairs_are_made_by_seed_in_whatever_order_runs_come() -> None:
    a = [run("a", 1, 2.0), run("a", 2, 2.2), run("a", 3, 2.4)]
    b = [run("b", 3, 2.412), run("b", 1, 2.01), run("b", 2, 2.205)]
    found = judge([H2], {"a": a, "b": b}, {"H2": Circumstances(may_pair=True)})[0]
    assert found.outcome == "supported", "the spread of the seeds is taken out"
    assert [value.seed for value in found.group] == [value.seed for value in found.against] == [1, 2, 3]


def test_exact_counts_are_decided_without_statistics() -> None:
    found = judge([H1], {"a": [counts("a", 44_896_768)], "b": [counts("b", 41_751_040)]}, {})[0]
    assert (found.outcome, found.method, found.interval) == ("refuted", "exact", None)
    assert wording.in_rule_units(H1, found.ratio or 0) == "7.01 %"


@pytest.mark.parametrize(
    ("trainable", "outcome"), [(900, "supported"), (800, "supported"), (901, "refuted"), (799, "refuted")]
)
def test_the_ends_of_a_reduction_belong_to_it(trainable: int, outcome: str) -> None:
    assert judge([H1], {"a": [counts("a", 1000)], "b": [counts("b", trainable)]}, {})[0].outcome == outcome


def test_runs_of_a_group_that_disagree_on_a_count_give_no_verdict() -> None:
    found = judge([H1], {"a": [counts("a", 1000)], "b": [counts("b", 900), counts("b", 800)]}, {})[0]
    assert found.outcome == "no data" and "disagree" in str(found.reason)


@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_group_without_runs_gives_no_verdict_and_names_it(missing: str) -> None:
    runs = {"a": [run("a", 1, 2.0)], "b": [run("b", 1, 2.0)], missing: []}
    found = judge([H2], runs, {})[0]
    assert found.outcome == "no data" and f"group {missing} has no runs" in str(found.reason)


def test_exact_counts_take_no_part_in_holm() -> None:
    runs = {name: [run(name, i, x, parameters=Parameters(total=1000, trainable=t)) for i, x in enumerate(losses)]
            for name, losses, t in (("a", [2.0, 2.0, 2.0], 1000), ("b", [2.001, 2.0, 2.002], 850))}  # fmt: skip
    alone = judge([H2], runs, {"H2": Circumstances(may_pair=True)})[0]
    beside = judge([H1, H2], runs, {"H2": Circumstances(may_pair=True)})[1]
    assert alone.level == beside.level == pytest.approx(0.95)


def test_a_void_comparison_takes_no_part_in_holm() -> None:
    runs = {"a": [run("a", i, 2.0) for i in range(3)], "b": [run("b", i, 2.0 + i / 1000) for i in range(3)]}
    trial = statistics.median([0.01, 0.012, 0.011])
    void = Circumstances(void=Sentence("the factor was never varied"), trial=trial)
    found = judge([H2, H3], runs, {"H2": Circumstances(may_pair=True), "H3": void})
    assert [verdict.outcome for verdict in found] == ["supported", "void"]
    assert found[0].level == pytest.approx(0.95)


def test_interval_and_verdict_come_from_the_same_adjusted_level() -> None:
    runs = {name: [run(name, i, x) for i, x in enumerate(losses)]
            for name, losses in (("a", [2.0, 2.0, 2.0]), ("b", [2.02, 2.035, 2.028]))}  # fmt: skip
    around = {h.id: Circumstances(may_pair=True) for h in (H2, H4)}
    both = judge([H2, H4], runs, around)
    assert sorted(v.level or 0 for v in both) == pytest.approx([0.95, 0.975])
    for found in both:
        assert found.interval is not None
        low, high = found.region
        inside = low < found.interval[0] and found.interval[1] < high
        assert inside == (found.outcome == "supported")


def report(tmp_path: Path, losses: Mapping[str, list[float]], **options: object) -> Report:
    seeds = tuple(42 + i for i in range(max(map(len, losses.values()))))
    return build(synthetic.study(seeds=seeds), synthetic.make_arms(tmp_path, losses, **options))


ARMS = {"gpt_base": [3.88, 3.885, 3.89], "oelm_no_freeze": [3.85, 3.854, 3.86], "oelm_freeze": [3.95, 3.957, 3.96]}


def test_the_reference_hypotheses_of_a_clean_study_are_all_decided(tmp_path: Path) -> None:
    found = report(tmp_path, ARMS)
    assert {v.hypothesis.id: v.outcome for v in found.verdicts} == {
        "H1": "supported", "H2": "refuted", "H3": "met (one seed)", "H4": "supported",
    }  # fmt: skip
    assert not [f for f in found.findings if f.severity != "note"]


def test_margins_without_a_reason_are_named_and_reasons_told(tmp_path: Path) -> None:
    study = synthetic.study(seeds=(42, 43, 44))
    reasoned = [replace(h, because="a tenth of the baseline") if h.id == "H4" else h for h in study.hypotheses]
    better = replace(H2, id="H5", group="oelm_freeze", against="gpt_base", relation="better_by", bounds=(0.0,))
    found = build(replace(study, hypotheses=(*reasoned, better)), synthetic.make_arms(tmp_path, ARMS))
    text = " ".join(plain_text.verdicts(found, "en").split())
    assert 'No reason is given for the margin of H1, H2, H3 (because = "…").' in text
    assert "the margin, because a tenth of the baseline" in text
    for form in ("markdown", "html", "json"):
        assert "a tenth of the baseline" in writing.show(found, form, "en", 0.0), form


def test_effect_sizes_stand_in_every_form_with_interval_spread_and_number_of_seeds(tmp_path: Path) -> None:
    found = report(tmp_path, ARMS)
    made = json.loads(writing.show(found, "json", "en", 0.0))
    rows = {row["id"]: row for row in made["verdicts"]}
    bounds = made["tables"]["effects"][1]["difference_interval"]
    for form in ("text", "markdown", "latex", "html"):
        shown = writing.show(found, form, "en", 0.0)
        assert "Effect sizes" in shown and bounds in shown, form
    h2, h1 = rows["H2"], rows["H1"]
    assert h2["ratio_low"] < h2["ratio"] < h2["ratio_high"] and h2["sd_log_ratio"] > 0
    assert h2["difference_low"] < h2["difference"] < h2["difference_high"] and h2["sd_difference"] > 0
    assert (h1["difference"], h1["difference_low"]) == (-131_072, None) and h2["count"] == 3


def test_a_verdict_is_told_with_estimate_interval_rule_and_number_of_pairs(tmp_path: Path) -> None:
    text = plain_text.verdicts(report(tmp_path, ARMS), "en")
    assert "H2  REFUTED  (differs by less than 5 %)" in text
    assert "is 10.6 % above that of Group B: OELM-NoFreeze (52.23 against 47.21)" in " ".join(text.split())
    assert "3 pairs, paired t" in text and "95 % interval" in text
    assert "14.9 % of all parameters are frozen, 17.7 % of those outside the embeddings" in " ".join(text.split())


@pytest.mark.slow
def test_unequal_levels_of_intervals_are_explained_in_every_form_for_readers(tmp_path: Path) -> None:
    losses = {"gpt_base": [3.88, 3.885], "oelm_no_freeze": [3.85, 3.856], "oelm_freeze": [3.95, 3.957]}
    report = build(synthetic.study(seeds=(42, 43)), synthetic.make_arms(tmp_path, losses))
    count = sum(verdict.interval is not None for verdict in report.verdicts)
    assert count >= 2
    for form in ("text", "markdown", "latex", "html"):
        shown = " ".join(writing.show(report, form, "en", 0.0).replace("&#39;", "'").split())
        assert f"Holm's procedure over the {count} hypotheses with one" in shown, form
    alone = build(synthetic.study(), synthetic.make_arms(tmp_path / "one", {"gpt_base": [3.8], "oelm_freeze": [3.9]}))
    assert "Holm" not in writing.show(alone, "text", "en", 0.0)


def test_a_run_that_was_not_trained_as_its_group_says_voids_the_verdicts_resting_on_it(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, {"gpt_base": [3.88], "oelm_no_freeze": [3.85]})
    runs.append(synthetic.load(synthetic.make_run(tmp_path, "oelm_freeze", final_loss=3.95, frozen=False)))
    found = build(synthetic.study(), runs)
    outcomes = {v.hypothesis.id: v.outcome for v in found.verdicts}
    assert outcomes == dict.fromkeys(("H1", "H2", "H3", "H4"), "void")
    assert next(v for v in found.verdicts if v.hypothesis.id == "H2").ratio == pytest.approx(math.exp(0.1))
    assert found.findings[0].severity == "void"


def test_values_of_a_metric_are_on_the_log_scale() -> None:
    assert scales.RATIO.linear(math.e) == pytest.approx(1.0) and scales.RATIO.told(1.0) == pytest.approx(math.e)


@pytest.mark.parametrize("losses", [[650.0, 10.0], [720.0, 720.0], [1e300, 2.0]], ids=str)
@pytest.mark.parametrize("is_baseline", [False, True])
def test_a_loss_whose_perplexity_no_float_holds_stops_no_report(
    tmp_path: Path, losses: list[float], is_baseline: bool
) -> None:
    arms = {"gpt_base": losses, "oelm_freeze": [3.7, 3.8]}
    if not is_baseline:
        arms = {"gpt_base": [3.7, 3.8], "oelm_freeze": losses}
    report = build(synthetic.study(seeds=(42, 43)), synthetic.make_arms(tmp_path, arms))
    for form in ("text", "json", "html"):
        assert writing.show(report, form, "en", synthetic.START)
    said = plain_text.verdicts(report, "en")
    assert "nan" not in said and report.verdicts[3].outcome in ("inconclusive", "refuted"), said
