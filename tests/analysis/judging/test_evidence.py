"""Which values decide a hypothesis: end points, common steps, costs, and what a report says that it left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import summaries
from oelm_jobs.analysis.judging.evidence import (
    COUNT_METRICS,
    LOSS_METRICS,
    RATE_METRICS,
    TEST_METRICS,
    common_step,
    gather,
    loss_at,
)
from oelm_jobs.analysis.output import writing
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Point
from oelm_jobs.analysis.report import build

from oelm_jobs.spec.study import METRICS, Hypothesis

from .. import synthetic
from ..synthetic import load, make_run


def hypothesis(metric: str) -> Hypothesis:
    return Hypothesis(
        id="H", metric=metric, group="oelm_freeze", against="gpt_base", relation="at_most_above", bounds=(0.1,)
    )


def arms(tmp_path: Path, **options: object) -> dict[str, list[LoadedRun]]:
    return {
        "gpt_base": [load(make_run(tmp_path, "gpt_base", final_loss=3.8))],
        "oelm_freeze": [load(make_run(tmp_path, "oelm_freeze", final_loss=3.9, **options))],
    }


def test_the_primary_end_point_is_the_final_step_on_the_whole_file(tmp_path: Path) -> None:
    found = gather(hypothesis("final_val_ppl"), arms(tmp_path), may_pair=True)
    assert (found.step, found.is_paired) == (400, True)
    assert found.group[0].raw == pytest.approx(math.exp(3.9)) and found.notes == ()


def test_what_is_judged_on_a_test_file_is_that_of_the_last_step_and_a_run_without_it_is_left_out(
    tmp_path: Path,
) -> None:
    runs = {name: [replace(run, test=Point(step=400, loss=3.5, full=True)) for run in members]
            for name, members in arms(tmp_path).items()}  # fmt: skip
    found = gather(hypothesis("final_test_loss"), runs, may_pair=True)
    assert (found.group[0].raw, found.step, found.is_paired, found.notes) == (3.5, 400, True, ())
    assert gather(hypothesis("final_test_ppl"), runs, may_pair=True).group[0].raw == pytest.approx(math.exp(3.5))
    untested = {**runs, "gpt_base": [replace(runs["gpt_base"][0], test=None)]}
    found = gather(hypothesis("final_test_loss"), untested, may_pair=True)
    assert found.missing and "gpt_base left out: it was not measured on test data" in map(str, found.notes)
    lost = {**runs, "gpt_base": [replace(runs["gpt_base"][0], test=None, status="FAILED", reason="diverged")]}
    assert gather(hypothesis("final_test_loss"), lost, may_pair=True).against[0].raw == math.inf


def test_the_best_is_a_secondary_end_point_and_says_so(tmp_path: Path) -> None:
    found = gather(hypothesis("best_val_loss"), arms(tmp_path), may_pair=True)
    assert found.group[0].raw == pytest.approx(3.9) and "secondary" in str(found.notes[0])


def test_the_best_of_a_run_that_only_states_its_end_is_its_end(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    runs["gpt_base"] = [replace(runs["gpt_base"][0], validations=None, best=None)]
    found = gather(hypothesis("best_val_loss"), runs, may_pair=True)
    assert (found.against[0].raw, found.step) == (pytest.approx(3.8), 400)


def test_runs_of_different_lengths_are_compared_at_the_last_common_step(tmp_path: Path) -> None:
    found = gather(hypothesis("final_val_loss"), arms(tmp_path, steps=800, val_interval=200), may_pair=True)
    assert found.step == 400
    assert "ends: oelm_freeze 800, gpt_base 400" in str(found.notes[0])


def test_step_grids_without_a_common_step_give_no_comparison(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    table = runs["gpt_base"][0].validations
    assert table is not None and runs["gpt_base"][0].final is not None
    odd = replace(
        runs["gpt_base"][0],
        validations=replace(table, step=table.step + 1),
        final=replace(runs["gpt_base"][0].final, step=401),
    )
    found = gather(hypothesis("final_val_ppl"), {**runs, "gpt_base": [odd]}, may_pair=True)
    assert str(found.missing) == "the arms were never validated at the same step"


def test_a_diverged_run_counts_as_such_also_at_a_step_where_it_was_still_finite(tmp_path: Path) -> None:
    runs = arms(tmp_path, stop=200)
    group = next(iter(runs))
    lost = replace(load(make_run(tmp_path / "lost", group)), status="FAILED", reason="diverged")
    assert lost.diverged and lost.validations is not None and 200 in lost.validations.step
    found = gather(hypothesis("final_val_ppl"), {**runs, group: [lost]}, may_pair=False)
    values = found.group if group == "oelm_freeze" else found.against
    assert found.step == 200 and [value.raw for value in values] == [math.inf]


def test_whole_and_partial_validations_side_by_side_are_said(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    final = runs["gpt_base"][0].final
    assert final is not None
    runs["gpt_base"] = [replace(runs["gpt_base"][0], final=replace(final, full=False))]
    found = gather(hypothesis("final_val_ppl"), runs, may_pair=True)
    assert "some losses are on the whole validation file" in str(found.notes[0])


def test_an_unfinished_seed_is_left_out_and_named_where_others_have_finished(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    runs["oelm_freeze"].append(load(make_run(tmp_path, "oelm_freeze", 43, stop=200)))
    found = gather(hypothesis("final_val_ppl"), runs, may_pair=True)
    assert [v.run for v in found.group] == ["oelm_freeze"]
    assert "oelm_freeze-s43 left out: RUNNING" in str(found.notes[0])


def test_arms_with_hardly_a_seed_in_common_are_compared_as_independent(tmp_path: Path) -> None:
    def arm(group: str, seeds: tuple[int, ...]) -> list[LoadedRun]:
        return [load(make_run(tmp_path, group, seed)) for seed in seeds]

    runs = {"gpt_base": arm("gpt_base", (42, 43, 44)), "oelm_freeze": arm("oelm_freeze", (44, 45, 46))}
    found = gather(hypothesis("final_val_ppl"), runs, may_pair=True)
    assert not found.is_paired and len(found.group) == len(found.against) == 3 and found.notes == ()
    runs["oelm_freeze"] = runs["oelm_freeze"][:1]
    found = gather(hypothesis("final_val_ppl"), runs, may_pair=True)
    assert found.is_paired and [value.seed for value in found.group] == [44] and len(found.notes) == 2


def test_gpu_hours_are_compared_as_ratios(tmp_path: Path) -> None:
    runs = arms(tmp_path, speed=20_000.0)
    found = gather(hypothesis("gpu_hours"), runs, may_pair=True)
    assert found.group[0].raw / found.against[0].raw == pytest.approx(2.0)


def test_every_metric_that_a_hypothesis_can_be_about_is_read_off_something(tmp_path: Path) -> None:
    assert sorted([*LOSS_METRICS, *TEST_METRICS, *COUNT_METRICS, *RATE_METRICS]) == sorted(METRICS)
    with pytest.raises(KeyError):
        gather(hypothesis("watts"), arms(tmp_path), may_pair=True)


def test_a_run_without_a_rate_is_left_out_and_named(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    runs["gpt_base"].append(replace(runs["gpt_base"][0], name="other", seed=43, gpu_hours=None))
    found = gather(hypothesis("gpu_hours"), runs, may_pair=False)
    assert len(found.against) == 1 and "other left out" in str(found.notes[0])


def test_a_loss_at_a_step_that_was_not_validated_is_unknown(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, "gpt_base"))
    assert loss_at(run, 250) is None and loss_at(run, 300) is not None
    assert common_step([run]) == (400, True)


def test_time_and_tokens_to_a_target_are_censored_where_it_was_not_reached(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    target = 3.805
    (steps, tokens, hours), reached = summaries.reach(runs["gpt_base"][0], target)
    assert reached and steps == 400 and tokens == 400 * 16 * 64 and hours is not None and hours > 0
    assert not summaries.reach(runs["oelm_freeze"][0], target)[1]
    table = summaries.efficiency({k: tuple(v) for k, v in runs.items()}, {}, target)
    assert [row[2].prefix for row in table.rows] == ["", "> "]


def test_the_time_that_a_run_waited_between_attempts_is_no_gpu_time(tmp_path: Path) -> None:
    import numpy as np

    run = load(make_run(tmp_path, "gpt_base"))
    assert run.validations is not None and run.gpu_hours is not None
    waited = np.where(run.validations.step > 200, 36_000.0, 0.0)
    resumed = replace(run, attempts=2, validations=replace(run.validations, time=run.validations.time + waited))
    assert resumed.validations is not None
    (_, _, hours), reached = summaries.reach(resumed, float(resumed.validations.loss[2]))
    assert reached and hours == pytest.approx(0.75 * run.gpu_hours)


def test_the_area_under_a_curve_is_its_mean_over_log_tokens(tmp_path: Path) -> None:
    import numpy as np

    run = load(make_run(tmp_path, "gpt_base"))
    table = run.validations
    assert table is not None
    straight = replace(
        run,
        validations=replace(
            table, tokens=np.exp(np.arange(4.0)), loss=np.array([4.0, 3.0, 2.0, 1.0]), full=np.zeros(4, dtype=bool)
        ),
    )
    assert summaries.area(straight, 1.0, math.exp(3)) == pytest.approx(2.5)
    assert summaries.area(straight, math.exp(0.5), math.exp(1.5)) == pytest.approx(3.0)
    assert summaries.area(straight, 0.5, math.exp(3)) is None


def test_a_curve_does_not_mix_validations_on_a_part_and_on_the_whole_of_the_file(tmp_path: Path) -> None:
    import numpy as np

    run = load(make_run(tmp_path, "gpt_base"))
    assert run.validations is not None and list(run.validations.full) == [False, False, False, True]
    worse = replace(run, validations=replace(run.validations, loss=np.array([4.0, 3.0, 2.0, 9.0])))
    assert worse.validations is not None and list(worse.validations.curve.loss) == [4.0, 3.0, 2.0]
    low, high = (float(worse.validations.tokens[i]) for i in (0, 2))
    mean = summaries.area(worse, low, high)
    assert mean is not None and 2 < mean < 4
    table = summaries.efficiency({"gpt_base": (worse,)}, {}, None)
    assert "validation loss 2.0000" in str(table.remarks[0]) and table.rows[0][2].value == 300
    whole = replace(run.validations, full=np.ones(4, dtype=bool))
    assert whole.curve is whole


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "markdown", "html"])
def test_one_group_alone_makes_a_report(tmp_path: Path, form: str) -> None:
    study = synthetic.study(groups={"gpt_base": {"model_type": "gpt"}}, hypotheses=())
    shown = writing.show(build(study, [load(make_run(tmp_path, "gpt_base"))]), form, "en", 0.0)
    assert "The study declares no hypotheses." in shown and "Group A: GPT-Base" in shown


def test_seeds_that_the_study_does_not_plan_are_named(tmp_path: Path) -> None:
    runs = [load(make_run(tmp_path, "gpt_base", seed)) for seed in (42, 99)]
    said = [str(f.text) for f in build(synthetic.study(), runs).findings]
    assert "group gpt_base has runs of seeds that the study does not plan (99)" in said


@pytest.mark.parametrize("form", ["text", "markdown", "json", "latex"])
def test_words_from_files_cannot_steer_a_terminal(tmp_path: Path, form: str) -> None:
    hostile = "\x1b[2J\x07\x9b31mred\nH9  SUPPORTED"
    run = replace(
        load(make_run(tmp_path, "gpt_base", status="FAILED", reason="error")),
        label=hostile,
        reason=hostile,
        study=hostile,
    )
    study = synthetic.study(groups={"gpt_base": {"model_type": "gpt"}}, hypotheses=(), unequal={"max_lr": hostile})
    shown = writing.show(build(study, [run]), form, "en", 0.0)
    assert not any(ord(character) < 32 and character != "\n" for character in shown) and "\x9b" not in shown
    assert "\nH9" not in shown
