"""What the audit finds: factors that weren't varied, unfair arms by configuration and by logs, implausible values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oelm_jobs.analysis.audit import schedule, treatment
from oelm_jobs.analysis.reading import loading
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Parameters
from oelm_jobs.analysis.report import Report, build

from .. import synthetic
from ..synthetic import load, make_run, old_log

CLEAN = {"gpt_base": [3.88], "oelm_no_freeze": [3.85], "oelm_freeze": [3.95]}


def found(report: Report, severity: str) -> list[str]:
    return [str(f.text) for f in report.findings if f.severity == severity]


def outcomes(report: Report) -> dict[str, str]:
    return {v.hypothesis.id: v.outcome for v in report.verdicts}


def notes_of(report: Report, hypothesis: str) -> str:
    return " | ".join(str(n) for v in report.verdicts if v.hypothesis.id == hypothesis for n in (*v.alarms, *v.notes))


def arms(tmp_path: Path, **options: Mapping[str, Any]) -> list[LoadedRun]:
    return [
        load(make_run(tmp_path, group, final_loss=losses[0], **options.get(group, {})))
        for group, losses in CLEAN.items()
    ]


def test_a_clean_study_has_no_findings(tmp_path: Path) -> None:
    assert build(synthetic.study(), arms(tmp_path)).findings == ()


# The factor -----------------------------------------------------------------------------------------------------------


def edit(folder: Path, name: str, **changes: Any) -> LoadedRun:
    content = json.loads((folder / name).read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / name).write_text(json.dumps(content))
    return load(folder)


@pytest.mark.parametrize(
    ("group", "changes", "said"),
    [
        ("oelm_freeze", {"groups__qk__sha256_end": "other"}, "they changed between start and end"),
        ("oelm_freeze", {"groups__qk__in_optimizer": True}, "the optimizer holds them"),
        ("oelm_no_freeze", {"groups__qk__in_optimizer": False}, "the optimizer doesn't hold them"),
        ("oelm_no_freeze", {"groups__qk__sha256_end": synthetic.sha("qk 42")}, "the same at start and end"),
        ("gpt_base", {"groups__qk__sha256_end": synthetic.sha("qk 42")}, "the same at start and end"),
        ("oelm_freeze", {"groups__other__sha256_end": synthetic.sha("other 42")}, "trained nothing"),
        ("oelm_freeze", {"model_type": "gpt"}, "ran with model_type = gpt, the group says oelm"),
    ],
)
def test_a_treatment_record_that_contradicts_the_group_voids(
    tmp_path: Path, group: str, changes: dict[str, Any], said: str
) -> None:
    run = edit(make_run(tmp_path, group), "treatment.json", **changes)
    factors = synthetic.GROUPS[group]
    assert any(said in str(text) for text in treatment.contradictions(run, factors))


def test_counts_that_contradict_the_group_void_without_a_treatment_record(tmp_path: Path) -> None:
    frozen = load(make_run(tmp_path, "oelm_freeze", treatment=False, frozen=False))
    trained = load(make_run(tmp_path, "oelm_no_freeze", treatment=False, frozen=True))
    assert "no parameter is frozen" in str(
        treatment.contradictions(frozen, {"model_type": "oelm", "freeze_qk": True})[0]
    )
    assert "parameters are frozen" in str(
        treatment.contradictions(trained, {"model_type": "oelm", "freeze_qk": False})[0]
    )


def test_a_run_of_a_configuration_other_than_its_groups_voids(tmp_path: Path) -> None:
    run = load(make_run(tmp_path, "oelm_freeze", train={"freeze_qk": False}))
    report = build(synthetic.study(), [run])
    assert "ran with freeze_qk = False, the group says True" in found(report, "void")[0]


def test_an_unproven_treatment_is_a_warning(tmp_path: Path) -> None:
    report = build(synthetic.study(), arms(tmp_path, oelm_freeze={"treatment": False}))
    assert any("not proven for oelm_freeze" in text for text in found(report, "warning"))
    assert outcomes(report)["H2"] == "not met (one seed)"


def test_arms_that_began_with_other_weights_are_void(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    runs[2] = edit(tmp_path / "exp_oelm_freeze", "treatment.json", groups__other__sha256_start="something else")
    report = build(synthetic.study(), runs)
    assert outcomes(report)["H2"] == outcomes(report)["H4"] == "void"
    assert outcomes(report)["H1"] == "supported"


def logged(tmp_path: Path, group: str, **options: Any) -> LoadedRun:
    folder = tmp_path / group
    folder.mkdir(exist_ok=True)
    (folder / "training.log").write_text(old_log(**options))
    _, runs = loading.load_folders([folder], [f"{group}={folder}"], None, at=0.0)
    return runs[0]


def report_on(runs: list[LoadedRun], **options: Any) -> Report:
    from oelm_jobs.analysis.reading import reference

    return build(replace(reference.study_of(runs), **options), runs)


def test_arms_with_the_same_counts_never_varied_the_factor(tmp_path: Path) -> None:
    """Q/K kept as buffers are parameters in neither arm: both logs then say the same counts."""
    runs = [
        logged(tmp_path, "oelm_no_freeze", total=41_751_040, frozen=0, seed=1),
        logged(tmp_path, "oelm_freeze", total=41_751_040, frozen=0, seed=2, final_loss=1.6),
    ]
    report = report_on(runs)
    assert outcomes(report)["H1"] == outcomes(report)["H2"] == "void"


@pytest.mark.parametrize("other", ["gpt_base", "oelm_no_freeze"])
def test_an_arm_that_lacks_what_another_freezes_did_not_train_it(tmp_path: Path, other: str) -> None:
    """Q/K as buffers: the arm says that it trains everything, which is true of what it counts."""
    runs = [
        logged(tmp_path, other, total=41_751_040, frozen=0, seed=1),
        logged(tmp_path, "oelm_freeze", total=44_896_768, frozen=3_145_728, seed=2, final_loss=1.6),
    ]
    report = report_on(runs)
    assert any("lack exactly the 3,145,728 that oelm_freeze freezes" in said for said in found(report, "void"))
    of_arm = {v.hypothesis.id for v in report.verdicts if other in (v.hypothesis.group, v.hypothesis.against)}
    assert {outcomes(report)[name] for name in of_arm} <= {"void"} and of_arm
    sound = [logged(tmp_path, other, total=44_896_768, frozen=0, seed=1), runs[1]]
    assert not found(report_on(sound), "void")


def test_a_learning_rate_that_is_a_factor_is_declared(tmp_path: Path) -> None:
    runs = arms(tmp_path, oelm_freeze={"train": {"max_lr": 1e-3}})
    as_is = build(synthetic.study(), runs)
    assert any("learning rates" in said for said in found(as_is, "unfair"))
    asked = replace(synthetic.study(), factors=("model_type", "freeze_qk", "max_lr"))
    report = build(asked, runs)
    assert not found(report, "unfair")
    assert any("learning rates" in said and "a factor of the study" in said for said in found(report, "declared"))
    seeds = [*runs, load(make_run(tmp_path, "oelm_freeze", 43, train={"max_lr": 5e-4}))]
    assert any("learning rates" in said for said in found(build(asked, seeds), "unfair")), "within a group"


def test_unequal_lengths_and_shapes_that_are_asked_about_are_no_findings(tmp_path: Path) -> None:
    runs = [
        logged(tmp_path, "oelm_no_freeze", total=41_751_040, frozen=0, seed=1),
        logged(tmp_path, "oelm_freeze", total=50_000_000, frozen=3_145_728, seed=2, final_loss=1.6),
    ]
    assert any("numbers of parameters" in said for said in found(report_on(runs), "warning"))
    asked = report_on(runs, factors=("model_type", "freeze_qk", "d_model"))
    assert not any("numbers of parameters" in said for said in found(asked, "warning"))


def test_equal_trainable_counts_alone_show_a_factor_that_was_never_varied() -> None:
    base = LoadedRun(
        name="a", group="oelm_no_freeze", label="", seed=1, path=Path("a"), parameters=Parameters(total=10, trainable=9)
    )
    said = treatment.never_varied([base], [replace(base, name="b", group="oelm_freeze")], (False, True))
    assert "both arms have 10 parameters, 9 of them trainable" in str(said)
    fewer = replace(base, name="b", group="oelm_freeze", parameters=Parameters(total=10, trainable=8))
    assert treatment.never_varied([base], [fewer], (False, True)) is None


def test_arms_with_checkpoints_of_the_same_size_never_varied_the_factor() -> None:
    base = LoadedRun(name="a", group="oelm_no_freeze", label="", seed=1, path=Path("a"), checkpoint_bytes=539_000_000)
    other = replace(base, name="b", checkpoint_bytes=539_000_512)
    frozen = replace(base, name="b", checkpoint_bytes=514_000_000)
    assert "same size (539 MB)" in str(treatment.never_varied([base], [other], (False, True)))
    assert treatment.never_varied([base], [frozen], (False, True)) is None
    assert treatment.never_varied([base], [other], (True, True)) is None


def test_losses_equal_to_the_last_digit_void_the_comparison_of_the_two_groups_alone(tmp_path: Path) -> None:
    runs = [
        load(make_run(tmp_path, "gpt_base", final_loss=3.88)),
        load(make_run(tmp_path, "oelm_no_freeze", final_loss=3.85)),
        load(make_run(tmp_path, "oelm_freeze", final_loss=3.85)),
    ]  # fmt: skip
    report = build(synthetic.study(), runs)
    assert outcomes(report)["H2"] == "void" and outcomes(report)["H4"] == "met (one seed)"
    assert "to the last digit" in found(report, "void")[0]


# Configurations -------------------------------------------------------------------------------------------------------


def test_an_undeclared_scientific_difference_is_unfair_and_stands_in_the_verdicts_line(tmp_path: Path) -> None:
    report = build(
        synthetic.study(),
        arms(
            tmp_path,
            oelm_freeze={"train": {"weight_decay": 0.0}},
            gpt_base={"train": {"weight_decay": 0.1}},
            oelm_no_freeze={"train": {"weight_decay": 0.1}},
        ),
    )
    assert found(report, "unfair") == ["weight_decay is not the same: gpt_base 0.1, oelm_no_freeze 0.1, oelm_freeze 0"]
    assert "UNFAIR PAIR: the arms differ in weight_decay" in notes_of(report, "H2")
    assert "UNFAIR PAIR" not in notes_of(report, "H1")


def test_a_difference_to_a_third_arm_does_not_touch_the_other_two(tmp_path: Path) -> None:
    same = {"train": {"weight_decay": 0.1}}
    report = build(
        synthetic.study(),
        arms(tmp_path, gpt_base={"train": {"weight_decay": 0.0}}, oelm_no_freeze=same, oelm_freeze=same),
    )
    assert "UNFAIR PAIR" not in notes_of(report, "H2") and "UNFAIR PAIR" in notes_of(report, "H4")


def test_a_declared_difference_is_printed_with_its_reason(tmp_path: Path) -> None:
    study = synthetic.study(unequal={"weight_decay": "frozen weights need none"})
    report = build(
        study,
        arms(
            tmp_path,
            oelm_freeze={"train": {"weight_decay": 0.0}},
            gpt_base={"train": {"weight_decay": 0.1}},
            oelm_no_freeze={"train": {"weight_decay": 0.1}},
        ),
    )
    assert not found(report, "unfair")
    assert "as declared: frozen weights need none" in found(report, "declared")[0]


def test_twice_the_tokens_a_step_is_unfair(tmp_path: Path) -> None:
    report = build(synthetic.study(), arms(tmp_path, oelm_freeze={"world_size": 4, "global_batch": 32}))
    assert any("global_batch is not the same" in text for text in found(report, "unfair"))


def test_speed_on_another_number_of_gpus_is_undecidable(tmp_path: Path) -> None:
    report = build(synthetic.study(), arms(tmp_path, oelm_freeze={"world_size": 2}))
    assert outcomes(report)["H3"] == "undecidable"
    why = next(str(v.reason) for v in report.verdicts if v.hypothesis.id == "H3")
    assert why.startswith("not on equal hardware: number of GPUs is 2 against 1")
    assert any("world_size is not the same" in text for text in found(report, "warning"))
    assert outcomes(report)["H2"] == "not met (one seed)"


@pytest.mark.parametrize("groups", [("oelm_freeze",), tuple(CLEAN)])
def test_speed_on_gpus_that_several_runs_could_have_is_undecidable(tmp_path: Path, groups: tuple[str, ...]) -> None:
    runs = {run.group: run for run in arms(tmp_path)}
    for group in groups:
        attempts = json.loads((runs[group].path / "experiment_result.json").read_text())["attempts"]
        shared = [{**attempt, "per_gpu": 2} for attempt in attempts]
        runs[group] = edit(runs[group].path, "experiment_result.json", attempts=shared)
    report = build(synthetic.study(), [*runs.values()])
    assert outcomes(report)["H3"] == "undecidable"
    why = next(str(v.reason) for v in report.verdicts if v.hypothesis.id == "H3")
    assert why.startswith("several runs could have each GPU at a time")
    assert outcomes(report)["H2"] == "not met (one seed)"


@pytest.mark.parametrize("hardware", [{"name": "RTX 4090"}, {"host": "other"}])
def test_speed_on_other_hardware_is_undecidable(tmp_path: Path, hardware: dict[str, str]) -> None:
    assert outcomes(build(synthetic.study(), arms(tmp_path, oelm_freeze={"hardware": hardware})))["H3"] == "undecidable"


def test_the_speed_of_compiled_and_of_eager_runs_is_undecidable(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    for run in tuple(runs):
        is_compiled = run.group != "oelm_freeze"
        runs[runs.index(run)] = edit(run.path, "experiment_result.json", outcome__compiled=is_compiled)
    report = build(synthetic.study(), runs)
    why = next(str(v.reason) for v in report.verdicts if v.hypothesis.id == "H3")
    assert (outcomes(report)["H3"], why) == ("undecidable", "some of the runs were compiled and some could not be")
    assert any("compiled is not the same" in text for text in found(report, "warning"))
    assert not found(report, "unfair") and outcomes(report)["H2"] == "not met (one seed)"


def test_other_data_are_unfair(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    runs[0] = edit(
        tmp_path / "exp_gpt_base", "experiment_result.json", outcome__data={"train_sha256": "x", "val_sha256": "y"}
    )
    assert any(text.startswith("data is not the same") for text in found(build(synthetic.study(), runs), "unfair"))


def test_other_trainer_code_is_unfair(tmp_path: Path) -> None:
    runs = arms(tmp_path)
    runs[0] = edit(tmp_path / "exp_gpt_base", "experiment_result.json", train_code="0" * 16)
    assert any(
        text.startswith("train_code is not the same") for text in found(build(synthetic.study(), runs), "unfair")
    )


def test_seeds_paths_and_logging_are_no_differences(tmp_path: Path) -> None:
    report = build(
        synthetic.study(seeds=(42, 43)),
        synthetic.make_arms(
            tmp_path, {"gpt_base": [3.8, 3.91], "oelm_no_freeze": [3.81, 3.9], "oelm_freeze": [3.92, 3.99]}
        ),
    )
    assert report.differences == () and report.findings == ()


def test_missing_groups_seeds_and_unfinished_runs_make_the_report_interim(tmp_path: Path) -> None:
    runs = [load(make_run(tmp_path, "gpt_base")), load(make_run(tmp_path, "oelm_freeze", stop=200, final_loss=3.9))]
    report = build(synthetic.study(seeds=(42, 43)), runs)
    assert report.is_interim
    said = " ".join(found(report, "warning"))
    assert "group oelm_no_freeze has no runs" in said and "group gpt_base has no run of seed 43" in said
    assert "oelm_freeze RUNNING 200/400" in said
    assert "interim" in notes_of(report, "H4") and "compared at step 200" in notes_of(report, "H4")


def test_a_run_of_another_study_is_named(tmp_path: Path) -> None:
    report = build(synthetic.study(), arms(tmp_path, gpt_base={"study_name": "qk_init"}))
    assert any("belongs to study qk_init, not demo" in text for text in found(report, "warning"))


def test_folders_without_a_study_may_belong_to_any_but_only_to_one(tmp_path: Path) -> None:
    for name, study in {"gpt_base": "mine", "oelm_no_freeze": "mine", "oelm_freeze": "other"}.items():
        make_run(tmp_path / name, name, study_name=study)
    mine, runs = loading.load_folders([tmp_path / "gpt_base", tmp_path / "oelm_no_freeze"], [], None)
    assert not any("belongs to study" in text for text in found(build(mine, runs), "warning"))
    both, runs = loading.load_folders([tmp_path / name for name in synthetic.GROUPS], [], None)
    said = [text for text in found(build(both, runs), "warning") if "belongs to study" in text]
    assert said == ["oelm_freeze says that it belongs to study other, not mine"]


@pytest.mark.parametrize("content", ["", "\x00\x01\x02" * 1000, "nothing that is a record\n"])
def test_a_run_without_a_validation_is_no_clean_audit(tmp_path: Path, content: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "training.log").write_text(content)
    said = found(build(*loading.load_folders([tmp_path / "mine"], [], None)), "warning")
    assert "mine left no validation and takes part in no comparison" in said
    assert "there is no group but mine: nothing is compared" in said


def test_a_program_whose_metrics_nobody_declared_is_said_to_have_told_none(tmp_path: Path) -> None:
    run = replace(synthetic.script_runs(tmp_path)[0], series={}, goals={})
    said = found(build(synthetic.script_study(), [run]), "warning")
    assert "low told no metric: [metrics] of the study says where the program writes them" in said
    assert not any("validation" in text for text in said)


def test_runs_of_no_group_are_named_with_how_their_files_were_read(tmp_path: Path) -> None:
    stray = make_run(tmp_path, "other_group")
    (stray / "metrics.jsonl").write_text("no record\n")
    runs = [*arms(tmp_path), load(stray), load(make_run(tmp_path, "gpt_base", 43, tag="lr1e-3"))]
    report = build(synthetic.study(), runs)
    assert "other_group belong to no group of the study: shown in the tables, compared in no verdict" in found(
        report, "warning"
    )
    assert any("1 lines of metrics.jsonl were not understood" in note for note in found(report, "note"))
    assert not any("lr1e-3" in warning and "no group" in warning for warning in found(report, "warning"))


def test_what_logs_alone_cannot_show_is_said(tmp_path: Path) -> None:
    for name, header, with_lr in (("gpt_base", "", False), ("oelm_freeze", "World size: 2\nbatch_size: 8", True)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "training.log").write_text(old_log(header=header, with_lr=with_lr))
    both = build(*loading.load_folders([tmp_path / "gpt_base", tmp_path / "oelm_freeze"], [], None))
    unchecked = "logs alone don't tell whether data, sequences per step, learning rates were the same"
    assert f"{unchecked}: gpt_base, oelm_freeze" in found(both, "warning")
    alone = build(*loading.load_folders([tmp_path / "oelm_freeze"], [], None))
    assert not any("logs alone" in text for text in found(alone, "warning"))


def test_implausible_losses_are_flagged(tmp_path: Path) -> None:
    runs = [
        load(make_run(tmp_path, "gpt_base", final_loss=0.03)),
        load(make_run(tmp_path, "oelm_no_freeze", final_loss=0.875)),
        load(make_run(tmp_path, "oelm_freeze", final_loss=7.2)),
    ]  # fmt: skip
    said = " ".join(found(build(synthetic.study(), runs), "warning"))
    assert "gpt_base: a validation PPL of 1.03 is implausible" in said
    assert "oelm_freeze: a validation loss of 7.200 is worse than chance (6.931)" in said


def test_a_verdict_repeats_doubts_about_the_values_that_it_rests_on(tmp_path: Path) -> None:
    runs = synthetic.make_arms(
        tmp_path, {"gpt_base": [3.8, 3.81], "oelm_no_freeze": [0.03, 0.031], "oelm_freeze": [3.85, 3.9]}
    )
    runs[5] = replace(runs[5], validations=runs[4].validations)
    report = build(synthetic.study(seeds=(42, 43)), runs)
    assert "oelm_no_freeze: a validation PPL of 1.03 is implausible" in notes_of(report, "H2")
    for claim in ("H2", "H4"):
        assert "oelm_freeze and oelm_freeze-s43 have the same validation losses" in notes_of(report, claim)
    assert "implausible" not in notes_of(report, "H4") and notes_of(report, "H1") == ""


def test_unequal_tuning_is_named(tmp_path: Path) -> None:
    runs = [
        *arms(tmp_path),
        load(make_run(tmp_path, "oelm_freeze", tag="lr1")),
        load(make_run(tmp_path, "oelm_freeze", tag="lr2")),
    ]
    report = build(synthetic.study(), runs)
    assert any(
        "configurations tried: gpt_base 1, oelm_no_freeze 1, oelm_freeze 3" in text for text in found(report, "warning")
    )
    assert list(report.groups)[3:] == ["oelm_freeze-lr1", "oelm_freeze-lr2"]


# Logs alone -----------------------------------------------------------------------------------------------------------


def test_unequal_schedules_are_recovered_from_the_learning_rate_column(tmp_path: Path) -> None:
    runs = [
        logged(tmp_path, "gpt_base", frozen=0, seed=1),
        logged(tmp_path, "oelm_no_freeze", frozen=0, min_lr=1e-7, seed=2, final_loss=1.45),
        logged(tmp_path, "oelm_freeze", seed=3, final_loss=1.6),
    ]  # fmt: skip
    report = report_on(runs)
    said = next(text for text in found(report, "unfair") if "learning rates" in text)
    assert "gpt_base cosine, peak 0.0003, warm-up 500, decay until 10,000, last 3e-05" in said
    assert "oelm_no_freeze cosine, peak 0.0003, warm-up 500, decay until 10,000, last 1e-07" in said
    assert "learning_rate" in notes_of(report, "H2") and "learning_rate" not in notes_of(report, "H4")


@pytest.mark.parametrize(("factor", "is_found"), [(1.0, False), (1.002, False), (1.1, True), (0.9, True)])
def test_learning_rates_are_unequal_beyond_what_three_digits_hide(
    tmp_path: Path, factor: float, is_found: bool
) -> None:
    runs = [
        logged(tmp_path, "oelm_no_freeze", frozen=0, seed=1),
        logged(tmp_path, "oelm_freeze", max_lr=3e-4 * factor, min_lr=3e-5 * factor, seed=2, final_loss=1.6),
    ]
    said = [text for text in found(report_on(runs), "unfair") if "learning rates were not the same" in text]
    assert bool(said) is is_found


@pytest.mark.parametrize(
    ("change", "method"),
    [
        ({}, "paired"),
        ({"data": {"train_sha256": "x"}}, "welch"),
        ({"global_batch": 32}, "welch"),
        ({"train": {"seq_len": 128}}, "welch"),
        ({"source": "log"}, "welch"),
    ],
)
def test_seeds_make_pairs_only_where_the_data_order_is_the_same(
    tmp_path: Path, change: dict[str, Any], method: str
) -> None:
    losses = {"oelm_no_freeze": [3.85, 3.856, 3.86], "oelm_freeze": [3.95, 3.957, 3.955]}
    runs = [
        replace(run, **change) if run.group == "oelm_freeze" else run for run in synthetic.make_arms(tmp_path, losses)
    ]
    h2 = next(v for v in build(synthetic.study(seeds=(42, 43, 44)), runs).verdicts if v.hypothesis.id == "H2")
    assert h2.method == method


def test_overshoot_and_unequal_steps_show_without_any_configuration(tmp_path: Path) -> None:
    runs = [
        logged(tmp_path, "oelm_no_freeze", frozen=0, seed=1),
        logged(tmp_path, "oelm_freeze", steps=15_000, schedule_end=10_000, seed=2, final_loss=1.6),
    ]
    report = report_on(runs)
    said = " ".join(found(report, "warning"))
    assert "the schedule of oelm_freeze ends near step 10,000, it was trained until 15,000" in said
    assert "ended at different steps (oelm_no_freeze 10,000, oelm_freeze 15,000)" in said
    assert "compared at step 10,000" in notes_of(report, "H2")


def test_world_sizes_and_batches_in_logs_show_unequal_steps(tmp_path: Path) -> None:
    runs = [logged(tmp_path, "oelm_no_freeze", frozen=0, header="World size: 2\nbatch_size: 8", seed=1),
            logged(tmp_path, "oelm_freeze", header="World size: 4\nbatch_size: 8", seed=2, final_loss=1.6)]  # fmt: skip
    assert "global_batch is not the same: oelm_no_freeze 16, oelm_freeze 32" in found(report_on(runs), "unfair")


def test_world_sizes_without_batches_are_a_warning(tmp_path: Path) -> None:
    runs = [
        logged(tmp_path, "oelm_no_freeze", frozen=0, header="World size: 2", seed=1),
        logged(tmp_path, "oelm_freeze", header="World size: 4", seed=2, final_loss=1.6),
    ]
    assert any("nothing says how many sequences a step had" in text for text in found(report_on(runs), "warning"))


def test_unequal_validation_intervals_and_totals_are_named(tmp_path: Path) -> None:
    runs = [
        logged(tmp_path, "oelm_no_freeze", frozen=0, val_interval=500, seed=1),
        logged(tmp_path, "oelm_freeze", total=50_000_000, seed=2, final_loss=1.6),
    ]
    said = " ".join(found(report_on(runs), "warning"))
    assert "oelm_no_freeze 500, oelm_freeze 1,000 steps" in said
    assert "different numbers of parameters in all (oelm_no_freeze 44,896,768, oelm_freeze 50,000,000)" in said


def test_equal_schedules_logged_at_different_steps_are_equal(tmp_path: Path) -> None:
    from oelm_jobs.analysis.audit import observations

    one, other = logged(tmp_path, "oelm_no_freeze", seed=1), logged(tmp_path, "oelm_freeze", seed=2)
    assert other.curve is not None
    kept = slice(1, None, 3)
    sparse = replace(other, curve=replace(other.curve, step=other.curve.step[kept], lr=other.curve.lr[kept]))
    assert not observations.rates_differ([one], [sparse])


def cosine(step: float, warmup: int, end: int, peak: float, low: float) -> float:
    if step < warmup:
        return peak * step / warmup
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (end - warmup))))


@pytest.mark.parametrize(
    ("end", "last", "low"),
    [(100_000, 100_000, 3e-5), (100_000, 150_000, 3e-5), (100_000, 60_000, 3e-5), (50_000, 50_000, 0.0)],
)
def test_a_cosine_schedule_is_recovered_from_rates_with_three_digits(end: int, last: int, low: float) -> None:
    steps = np.arange(100, last + 1, 100)
    rates = np.array([float(f"{cosine(s, 2000, end, 3e-4, low):.2e}") for s in steps])
    fitted = schedule.fit(steps, rates)
    assert fitted is not None and fitted.shape == "cosine"
    assert fitted.peak == pytest.approx(3e-4) and fitted.warmup == pytest.approx(2000, rel=0.01)
    assert fitted.end == pytest.approx(end, rel=0.01) and fitted.minimum == pytest.approx(low, abs=2e-6)


@pytest.mark.parametrize(
    ("shape", "rate"),
    [
        ("constant", lambda s: 3e-4),
        ("linear", lambda s: 3e-4 * (1 - (s - 2000) / 98_000 * 0.9) if s > 2000 else 3e-4 * s / 2000),
        ("inverse_sqrt", lambda s: 3e-4 * min(s / 2000, math.sqrt(2000 / s))),
        ("unknown", lambda s: 3e-4 * (1 + math.sin(s / 3000)) / 2 + 1e-6),
    ],
)
def test_other_schedules_are_told_apart(shape: str, rate: Any) -> None:
    steps = np.arange(100, 100_001, 100)
    fitted = schedule.fit(steps, np.array([rate(s) for s in steps]))
    assert fitted is not None and fitted.shape == shape


def test_an_early_stop_does_not_invent_the_end_of_a_schedule() -> None:
    steps = np.arange(100, 20_001, 100)
    fitted = schedule.fit(steps, np.array([cosine(s, 2000, 100_000, 3e-4, 3e-5) for s in steps]))
    assert fitted is not None and fitted.end is None


def test_a_few_rates_are_no_schedule() -> None:
    assert schedule.fit(np.array([100, 200]), np.array([1e-4, 2e-4])) is None


def test_shares_of_frozen_parameters_at_the_reference() -> None:
    reference = Parameters(total=44_896_768, trainable=41_751_040, frozen=3_145_728, qk=3_145_728, embedding=25_993_728)
    assert f"{reference.frozen_share:.3f} {reference.frozen_share_without_embedding:.3f}" == "0.070 0.166"
