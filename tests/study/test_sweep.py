"""Sweeps: which runs a study makes of them, what these are called, and what is wrong in one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oelm_jobs.errors import ConfigurationError, UsageError
from oelm_jobs.spec.sweep import Parameter, Sweep
from oelm_jobs.study import sweep
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.study.resolve import plan_runs
from oelm_jobs.targets.files import LOCAL
from tests.support import TINY_STUDY

AT_R = replace(LOCAL, root="/r")
GRID = """
[sweep]
parameters.max_lr = { values = [1e-3, 3e-4] }
parameters.warmup_steps = { values = [0, 1] }
"""
RANDOM = """
[sweep]
method = "random"
seed = 1
run_cap = 3
zip = [["d_model", "num_heads"]]
skip = [{ d_model = 16, num_layers = 2 }]
parameters.max_lr = { distribution = "log_uniform_values", min = 1e-4, max = 3e-3 }
parameters.d_model = { values = [16, 32] }
parameters.num_heads = { values = [2, 4] }
parameters.num_layers = { distribution = "int_uniform", min = 1, max = 2 }
"""
SCRIPT = """
factors = ["optimizer"]
seeds = [1, 2]
[program]
command = "python train.py {settings}"
seed = "seed"
[settings]
lr = 1e-3
schedule = "cosine"
[sweep]
parameters.lr = { values = [1e-3, 0.5, 2.0] }
parameters.schedule = { values = ["cosine", "one cycle"] }
[groups]
adam = { optimizer = "adam" }
sgd = { optimizer = "sgd" }
"""


def study_of(folder: Path, text: str):
    path = folder / "s.toml"
    path.write_text(text)
    return read_study(path)


def test_each_group_is_run_with_each_combination_and_each_seed(tmp_path: Path) -> None:
    study = study_of(tmp_path, TINY_STUDY.replace("[speed_trial]", "[x]").split("[hypotheses")[0] + GRID)
    runs = plan_runs(study, AT_R, seeds=[42, 43], data_hash="d")
    assert len(runs) == 4 * 2 * len(study.groups) == len({run.fingerprint for run in runs})
    assert [run.name for run in runs][: len(study.groups) + 1] == [
        *(f"{group}-max_lr_1e-3-warmup_steps_0" for group in study.groups),
        f"{next(iter(study.groups))}-s43-max_lr_1e-3-warmup_steps_0",
    ]
    assert {(run.settings["max_lr"], run.settings["warmup_steps"]) for run in runs} == {
        (1e-3, 0), (1e-3, 1), (3e-4, 0), (3e-4, 1)
    }  # fmt: skip
    assert make_plan(tmp_path, study, AT_R).runs


def test_a_value_that_is_added_makes_only_runs_that_are_missing(tmp_path: Path) -> None:
    text = TINY_STUDY.split("[hypotheses")[0]
    before = plan_runs(study_of(tmp_path, text + GRID), AT_R, data_hash="d")
    after = plan_runs(study_of(tmp_path, text + GRID.replace("[0, 1]", "[2, 0, 1]")), AT_R, data_hash="d")
    known = {run.name: run.fingerprint for run in after}
    assert len(after) == len(before) * 3 // 2
    assert {run.name: known[run.name] for run in before} == {run.name: run.fingerprint for run in before}


def test_what_is_drawn_is_the_same_each_time_and_with_a_higher_cap_first(tmp_path: Path) -> None:
    text = TINY_STUDY.split("[hypotheses")[0]
    chosen = sweep.settings(study_of(tmp_path, text + RANDOM).sweep)
    assert chosen == sweep.settings(study_of(tmp_path, text + RANDOM.replace("cap = 3", "cap = 9")).sweep)[:3]
    assert chosen != sweep.settings(study_of(tmp_path, text + RANDOM.replace("seed = 1", "seed = 2")).sweep)
    more = sweep.settings(study_of(tmp_path, text + RANDOM.replace("cap = 3", "cap = 200")).sweep)
    assert {(each["d_model"], each["num_heads"]) for each in more} == {(16, 2), (32, 4)}
    assert {(each["d_model"], each["num_layers"]) for each in more} == {(16, 1), (32, 1), (32, 2)}
    low = sum(each["max_lr"] < (1e-4 * 3e-3) ** 0.5 for each in more)
    assert 70 < low < 130 and all(1e-4 <= each["max_lr"] <= 3e-3 for each in more)
    assert all(each["max_lr"] == float(f"{each['max_lr']:.4g}") for each in more)


def test_a_space_that_is_smaller_than_the_cap_is_drawn_whole() -> None:
    few = Sweep(method="random", run_cap=50, parameters={"a": Parameter(values=(1, 2)), "b": Parameter(values=(1, 2))})
    assert sorted(tuple(each.values()) for each in sweep.settings(few)) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_of_what_can_be_counted_none_is_left_to_chance() -> None:
    numbers = Parameter(distribution="int_uniform", min=1, max=40)
    parameters = {"a": numbers, "b": Parameter(values=tuple(range(50)))}
    few = Sweep(method="random", run_cap=2000, parameters=parameters, skip=({"a": 3},))
    chosen = [tuple(each.values()) for each in sweep.settings(few)]
    assert sorted(chosen) == [(a, b) for a in range(1, 41) if a != 3 for b in range(50)]
    assert chosen[:9] == [tuple(each.values()) for each in sweep.settings(replace(few, run_cap=9))]


def test_one_cause_is_told_once(tmp_path: Path) -> None:
    text = TINY_STUDY.split("[hypotheses")[0] + "[sweep]\n"
    drawn = "{ distribution = 'uniform', min = 0.1, max = 0.2 }"
    for parameters in (
        f"parameters.max_lr = {drawn}\nparameters.min_lr = {drawn}",
        "parameters.max_lr = { values = [1e-5] }\nparameters.min_lr = { values = [1e-4] }",
    ):
        with pytest.raises(ConfigurationError) as caught:
            study_of(tmp_path, text + parameters)
        assert "errors" not in str(caught.value)


def test_runs_that_would_be_the_same_are_made_once(tmp_path: Path) -> None:
    study = study_of(tmp_path, TINY_STUDY)
    for data_hash in ("d", ""):
        runs = plan_runs(study, AT_R, overrides={"max_lr": ["1e-3", "0.001", "3e-4"]}, data_hash=data_hash)
        assert [run.tag for run in runs] == [tag for tag in ("max_lr_1e-3", "max_lr_3e-4") for _ in study.groups]


def test_what_changes_no_result_is_not_swept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--set log_interval=1: it changes no result"):
        plan_runs(study_of(tmp_path, TINY_STUDY), AT_R, overrides={"log_interval": ["1", "2"]})
    with pytest.raises(ConfigurationError, match=r"\[sweep.parameters\] log_interval: 1: it changes no result"):
        study_of(
            tmp_path, TINY_STUDY.split("[hypotheses")[0] + "[sweep]\nparameters.log_interval = { values = [1, 2] }\n"
        )


def test_a_swept_setting_can_be_fixed_by_a_command(tmp_path: Path) -> None:
    text = TINY_STUDY.split("[hypotheses")[0]
    study = study_of(tmp_path, text + GRID.replace("[sweep]", "[sweep]\nskip = [{ max_lr = 3e-4, warmup_steps = 1 }]"))
    with pytest.raises(UsageError, match="other runs"):
        plan_runs(study, AT_R, overrides={"max_lr": "3e-4"})
    runs = plan_runs(study, AT_R, overrides={"max_lr": "3e-4"}, tag="low")
    assert {(run.tag, run.settings["max_lr"]) for run in runs} == {("low-warmup_steps_0", 3e-4)}
    runs = plan_runs(study, AT_R, overrides={"max_lr": "3e-4", "warmup_steps": "1"}, tag="best")
    assert {(run.tag, run.settings["warmup_steps"]) for run in runs} == {("best", 1)}
    with pytest.raises(UsageError, match="--set num_heads=2: it is swept together with d_model"):
        plan_runs(study_of(tmp_path, text + RANDOM), AT_R, overrides={"num_heads": "2"}, tag="t")


def test_a_grid_is_not_gone_through_where_it_is_skipped(tmp_path: Path) -> None:
    wide = {f"k{number}": Parameter(values=tuple(range(10))) for number in range(12)}
    skip = tuple({"k0": value} for value in range(9))
    assert sweep.settings(Sweep(parameters=wide, run_cap=2, skip=skip)) == [
        {**dict.fromkeys(wide, 0), "k0": 9, "k11": last} for last in (0, 1)
    ]


def test_names_do_not_depend_on_the_order_of_settings() -> None:
    assert sweep.name({"a": 1, "b": -0.5}) == sweep.name({"b": -0.5, "a": 1}) == "a_1-b_m5e-1"


def test_a_script_is_swept_too(tmp_path: Path) -> None:
    runs = plan_runs(study_of(tmp_path, SCRIPT), AT_R)
    assert len(runs) == 3 * 2 * 2 * 2
    tags = list(dict.fromkeys(run.tag for run in runs))
    assert tags[::2] == [f"lr_{number}-schedule_cosine" for number in ("1e-3", "5e-1", "2e0")]
    assert tags[1].startswith("lr_1e-3-schedule-") and len(set(tags)) == 6
    assert {(run.settings["lr"], run.settings["schedule"]) for run in runs if run.tag == tags[1]} == {
        (1e-3, "one cycle")
    }


KINDS = (
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text("ab01_-. é", max_size=80),
    st.lists(st.integers(), max_size=3),
)  # fmt: skip
"""Values of one setting are of one kind."""
SETTINGS = st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)).flatmap(
    lambda kinds: st.lists(st.fixed_dictionaries({"max_lr": kinds[0], "optim.kind": kinds[1]}), max_size=20)
)


@given(SETTINGS, st.just("t") | st.just(""))
def test_each_combination_has_a_name_that_no_other_one_has(settings: list[dict[str, object]], tag: str) -> None:
    named = {json.dumps(each, sort_keys=True): sweep.name(each, tag) for each in settings}
    assert len(set(named.values())) == len(named)
    assert all(sweep.names.why_not(name) == "" for name in named.values())


def test_lists_on_the_command_line_need_no_tag_and_take_one(tmp_path: Path) -> None:
    study = study_of(tmp_path, TINY_STUDY)
    lists = {"max_lr": ["1e-3", "3e-4"], "max_steps": "2"}
    runs = plan_runs(study, AT_R, overrides=lists)
    assert {run.tag for run in runs} == {"max_lr_1e-3-max_steps_2", "max_lr_3e-4-max_steps_2"} and {
        run.settings["max_steps"] for run in runs
    } == {2}
    assert {run.tag for run in plan_runs(study, AT_R, overrides=lists, tag="t")} == {
        f"t-max_lr_{rate}-max_steps_2" for rate in ("1e-3", "3e-4")
    }
    with pytest.raises(UsageError, match="did you mean 'max_lr'"):
        plan_runs(study, AT_R, overrides={"max_lrr": ["1", "2"]})
    with pytest.raises(UsageError, match="--set max_lr=-1: "):
        plan_runs(study, AT_R, overrides={"max_lr": ["1e-3", "-1"]})
    with pytest.raises(UsageError, match="name data"):
        plan_runs(study, AT_R, overrides={"data_path": ["a", "b"]})
    swept = study_of(tmp_path, TINY_STUDY.split("[hypotheses")[0] + GRID)
    with pytest.raises(UsageError, match=r"the study has a \[sweep\] of max_lr, warmup_steps"):
        plan_runs(swept, AT_R, overrides={"min_lr": ["1e-5", "0"]})
    many = {"max_lr": [str(number) for number in range(1, 201)], "warmup_steps": [str(number) for number in range(200)]}
    with pytest.raises(UsageError, match="the lists make 40000 combinations"):
        plan_runs(study, AT_R, overrides=many)
    with pytest.raises(UsageError, match="the lists make 0 combinations"):
        plan_runs(study, AT_R, overrides={"max_lr": []})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("min = 1e-4, max = 3e-3", "min = 0, max = 3e-3", ["[sweep.parameters.max_lr] min = 0.0", "above zero"]),
        ("min = 1e-4, max = 3e-3", "min = 1, max = 1e-3", ["max = 0.001", "above min, which is 1"]),
        ('"random"', '"randm"', ["method = 'randm'", "did you mean 'random'?"]),
        ("run_cap = 3", "", ["run_cap", "is missing"]),
        ("run_cap = 3", "run_cap = 0", ["run_cap = 0", "1 to 10000"]),
        (
            "log_uniform_values",
            "log_normal",
            ["distribution = 'log_normal'", "int_uniform, log_uniform_values, uniform"],
        ),
        ("[16, 32]", "[16, 16]", ["[sweep.parameters.d_model] values = [16, 16]", "each once"]),
        ("[16, 32]", "[]", ["values = []", "at least one"]),
        ("[16, 32]", "[16, 2024-01-01]", ["values = datetime.date(2024, 1, 1)", "no number"]),
        ('["d_model", "num_heads"]', '[["d_model"], "num_heads"]', ["zip", "every item must be text"]),
        ("[16, 32]", "[16, 33]", ["d_model", "33"]),
        ("[2, 4]", "[2]", ["zip = ['d_model', 'num_heads']", "d_model 2, num_heads 1"]),
        (
            '"d_model", "num_heads"',
            '"d_model", "heads"',
            ["zip = 'heads'", "is not swept", "did you mean 'num_heads'?"],
        ),
        ('"d_model", "num_heads"', '"d_model", "max_lr"', ["zip", "is drawn"]),
        ("{ d_model = 16, num_layers", "{ d_model = 17, num_layers", ["skip", "d_model is never 17; valid: 16, 32"]),
        ("{ d_model = 16, num_layers", "{ width = 16, num_layers", ["skip", "width is not swept"]),
        ("{ d_model = 16, num_layers = 2 }", "{}", ["skip", "empty condition"]),
        ("min = 1, max = 2", "min = 1, max = 2.5", ["num_layers", "whole numbers"]),
        ("parameters.max_lr", "parameters.max_rl", ["max_rl", "did you mean 'max_lr'?"]),
        ("parameters.max_lr", "parameters.freeze_qk", ["freeze_qk", "is a factor"]),
        (
            "{ values = [16, 32] }",
            "{ value = 16 }",
            ["[sweep.parameters.d_model] value = 16", "did you mean 'values'?"],
        ),
        ("{ values = [16, 32] }", "{ vlues = [16, 32] }", ["vlues", "did you mean 'values'?"]),
        ("seed = 1", "sed = 1", ["[sweep] sed = 1", "did you mean 'seed'?"]),
    ],
)
def test_what_is_wrong_in_a_sweep_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, expected: list[str]
) -> None:
    text = TINY_STUDY.split("[hypotheses")[0] + RANDOM
    assert old in text
    with pytest.raises(ConfigurationError) as caught:
        study_of(tmp_path, text.replace(old, new))
    for words in expected:
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("sweep_of", "expected"),
    [
        ("", "parameters: is missing"),
        ("parameters.max_lr = { values = [1e-3] }\nskip = [{ max_lr = 1e-3 }]", "leaves no combination"),
        ("parameters.max_lr = { distribution = 'uniform', min = 0, max = 1 }", "max_lr are drawn, which needs"),
        ("parameters.data_path = { values = ['a', 'b'] }", "name data"),
        (f"parameters.max_steps = {{ values = {list(range(1, 201))} }}\nparameters.min_lr = {{ values = "
         f"{[number / 1e9 for number in range(100)]} }}", "make 20000 combinations: give a run_cap"),
        ("parameters.max_lr = { values = [1e-3, 3e-4] }\nparameters.warmup_steps = { values = [0, 1] }\n"
         "zip = [['max_lr', 'warmup_steps']]\nskip = [{ max_lr = 1e-3, warmup_steps = 1 }]", "no combination has"),
    ],
)  # fmt: skip
def test_a_sweep_that_makes_no_sense_is_refused(tmp_path: Path, sweep_of: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        study_of(tmp_path, TINY_STUDY.split("[hypotheses")[0] + "[sweep]\n" + sweep_of)
