"""Study and target files: what is right resolves into runs, what is off is named with file, key, value, choices and
nearest spelling.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.train import config as trainer
from oelm_jobs.train.limits import validate

from oelm_jobs import folders
from oelm_jobs.agent.sentences import Sentence
from oelm_jobs.errors import ConfigurationError, LocalError, UnfairError, UsageError
from oelm_jobs.language import translated
from oelm_jobs.programs import built_in
from oelm_jobs.programs.built_in import command
from oelm_jobs.study import files as study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.study.resolve import plan_runs, target_path, with_settings
from oelm_jobs.targets import files as targets
from oelm_jobs.tomllines import line_of
from tests.support import REPOSITORY, TINY_STUDY

AT_R = replace(targets.LOCAL, root="/r")


def written(tmp_path: Path, text: str, name: str = "tiny") -> Path:
    path = tmp_path / "jobs" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("d_model = 16", "d_modl = 16", ["[train] d_modl = 16", "unknown key", "did you mean 'd_model'?"]),
        ("d_model = 16", 'd_model = "wide"', ["[train] d_model = 'wide'", "whole number"]),
        ("num_heads = 2", "num_heads = 3", ["num_heads = 3", "must divide d_model = 16"]),
        ("seeds = [42]", "seeds = [42, 42]", ["seeds = [42, 42]", "each once"]),
        ("seeds = [42]", "seed = [42]", ["seed = [42]", "unknown key", "did you mean 'seeds'?"]),
        ('model_type = "gpt" }', 'model_type = "gtp" }', ["groups.gpt_base", "model_type = 'gtp'", "gpt, oelm"]),
        ('model_type = "gpt" }', 'model_type = "gpt", dropout = 0.5 }', ["dropout", "factors (model_type, freeze_qk)"]),
        ('model_type = "gpt" }', 'model_type = "gpt", gpus = 3 }', ["gpus = 3", "global_batch = 4", "1, 2, 4"]),
        ('model_type = "gpt" }', 'model_type = "gpt", gpus = [0, 0] }', ["gpus = [0, 0]", "each once"]),
        ('model_type = "gpt" }', 'model_type = "gpt", lable = "x" }', ["lable = 'x'", "did you mean 'label'?"]),
        ('model_type = "gpt" }', 'model_type = "gpt", vocab_size = 5 }', ["vocab_size", "the same for all groups"]),
        ("global_batch = 4", "global_batch = 4\nbatch_size = 2", ["batch_size", "derived"]),
        ("global_batch = 4", "", ["global_batch", "is missing"]),
        ('against = "gpt_base"', 'against = "gpt_bse"', ["against = 'gpt_bse'", "did you mean 'gpt_base'?"]),
        ('metric = "speed"', 'metric = "sped"', ["metric = 'sped'", "did you mean 'speed'?"]),
        ("at_most_above = 0.10", "margin = 0.1", ["exactly one of"]),
        ("reduction = [0.10, 0.20]", "reduction = [0.20, 0.10]", ["reduction = [0.2, 0.1]", "low below high"]),
        ("[groups]", '[unequal]\nworld_sise = "x"\n[groups]', ["world_sise = 'x'", "did you mean 'world_size'?"]),
        ("[groups]", "[groups", ["not valid TOML", "line"]),
    ],
)  # fmt: skip
def test_what_is_off_in_a_study_is_named(tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in TINY_STUDY
    path = written(tmp_path, TINY_STUDY.replace(old, new, 1))
    with pytest.raises(ConfigurationError) as raised:
        study.read_study(path)
    for part in [str(path), *expected]:
        assert part in str(raised.value)


def test_all_that_is_wrong_in_a_study_is_said_at_once_with_its_lines(tmp_path: Path) -> None:
    text = TINY_STUDY
    for old, new in (
        ("max_retries = 0", "max_retries = -1"),
        ("d_model = 16", "d_modl = 16"),
        ("max_steps = 12", 'max_steps = "x"'),
        ('label = "Group A: GPT-Base",', 'lable = "x", gpus = "a",'),
        ('metric = "speed"', 'metric = "sped"'),
        ("equivalent_within", "equivalent_withn"),
    ):
        text = text.replace(old, new, 1)
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as raised:
        study.read_study(path)
    first, *rest = str(raised.value).splitlines()
    assert first == f"{path}: 7 errors"
    assert [line.split(":")[:2] for line in rest] == [
        ["line 5", " max_retries = -1"],
        ["line 10", " [train] d_modl = 16"],
        ["line 16", " [train] max_steps = 'x'"],
        ["line 23", " [groups.gpt_base] gpus = 'a'"],
        ["line 23", " [groups.gpt_base] lable = 'x'"],
        ["line 28", " [hypotheses.H2] equivalent_withn = 0.05"],
        ["line 29", " [hypotheses.H3] metric = 'sped'"],
    ]
    assert [error.line for error in raised.value.errors] == [5, 10, 16, 23, 23, 28, 29]
    assert raised.value.errors[1].place == ("train", "d_modl")
    assert "第 10 行" in translated(str(raised.value), "zh") and "7 处错误" in translated(str(raised.value), "zh")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[groups]", "[gruops]", ":22: gruops: unknown key; did you mean 'groups'?"),
        ("[train]", "[trian]", ":6: trian: unknown key; did you mean 'train'?"),
        ("factors =", "factor =", ":3: factor = ['model_type', 'freeze_qk']: unknown key; did you mean 'factors'?"),
        ("global_batch", "global_bach", ":9: [train] global_bach = 4: unknown key; did you mean 'global_batch'?"),
        ("equivalent_within", "equivalent_withn", "did you mean 'equivalent_within'?"),
    ],
)
def test_what_is_misspelt_is_not_said_to_be_missing_too(tmp_path: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        study.read_study(written(tmp_path, TINY_STUDY.replace(old, new, 1)))
    assert expected in str(raised.value) and "missing" not in str(raised.value)
    assert raised.value.errors == () and "\n" not in str(raised.value)


def test_a_misspelt_key_is_likened_to_factors_too(tmp_path: Path) -> None:
    for old, new in (("dropout = 0.0", "freez_qk = true"), ('model_type = "gpt" }', 'modl_type = "gpt" }')):
        with pytest.raises(ConfigurationError, match="did you mean '(freeze_qk|model_type)'"):
            study.read_study(written(tmp_path, TINY_STUDY.replace(old, new, 1)))
    tiny = study.read_study(written(tmp_path, TINY_STUDY))
    with pytest.raises(UsageError, match="did you mean 'freeze_qk'"):
        with_settings(tiny, {"freez_qk": "true"})


def test_all_that_is_wrong_in_a_targets_file_is_said_at_once(tmp_path: Path) -> None:
    written(
        tmp_path,
        '[a]\nkind = "shh"\nport = 99999999\n["b.c"]\nkind = "slurm"\nhost = "-x"\nsbach = {}\n'
        '[z]\nkind = "slurm"\n[z.sbatch]\nJ = 1\nwrap = "s"\n',
        "targets",
    )
    with pytest.raises(ConfigurationError) as raised:
        targets.load_targets(tmp_path)
    said = [error.place for error in raised.value.errors]
    assert said == [
        ("a", "kind"),
        ("a", "port"),
        ("b.c", "host"),
        ("b.c", "sbach"),
        ("z", "sbatch", "J"),
        ("z", "sbatch", "wrap"),
    ]
    assert [error.line for error in raised.value.errors] == [2, 3, 6, 7, 11, 12]


def test_the_line_of_a_key_is_not_that_of_a_text_which_looks_like_it() -> None:
    text = (
        'a = """\nkey = 1\n"""\n[t] # "x"\nkey = 2\n[t."u.v"]\n"k e" = 3\n[[many]]\nn = 1\n[[many]]\nn = 2\nx.y = 4\n'
    )
    places = [("key",), ("t", "key"), ("t", "u.v", "k e"), ("many", "n"), ("many", "x", "y"), ("t", "absent")]
    assert [line_of(text, place) for place in places] == [0, 5, 7, 0, 12, 4]


def test_what_the_trainer_refuses_is_said_in_other_languages_too() -> None:
    with pytest.raises(trainer.ConfigError) as raised:
        validate(trainer.from_dict({"d_model": 16, "num_heads": 3}))
    assert translated(built_in.said(raised.value), "zh") == "必须整除 d_model = 16；可选：1、2、4、8、16"


def test_an_error_about_a_file_keeps_what_can_be_translated_apart_from_what_the_user_wrote(tmp_path: Path) -> None:
    path = written(tmp_path, TINY_STUDY.replace("d_model = 16", "d_modl = 16", 1))
    with pytest.raises(ConfigurationError) as raised:
        study.read_study(path)
    error = str(raised.value)
    assert isinstance(error, Sentence)
    assert (error.values["path"], error.values["key"]) == (str(path), "d_modl")
    why = error.values["why"]
    assert isinstance(why, Sentence) and why.template == "unknown key; {choices}"
    assert isinstance(why.values["choices"], Sentence)


@pytest.mark.parametrize("name", ["a;b", "$(x)", "exp_x", "a b"])
def test_names_that_a_shell_or_a_path_would_misread_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="letters, digits"):
        study.read_study(written(tmp_path, TINY_STUDY, name))


def test_the_reference_study_is_the_default_and_resolves_as_documented() -> None:
    reference = study.load_study(REPOSITORY)
    assert reference.name == "qk_freeze" and reference.is_default
    runs = plan_runs(reference, replace(targets.LOCAL, root="/root/of/target"))
    assert [(run.name, run.gpus, run.port, run.settings["batch_size"]) for run in runs] == [
        ("speed_trial", (0, 1, 2, 3), 29502, 4),
        ("gpt_base", (0, 1), 29500, 8),
        ("oelm_no_freeze", (2, 3), 29501, 8),
        ("oelm_freeze", (0, 1, 2, 3), 29502, 4),
    ]
    assert runs[1].run_dir == "/root/of/target/models/checkpoints/exp_gpt_base"


def test_later_seeds_take_any_gpus_and_names_of_their_own() -> None:
    reference = study.load_study(REPOSITORY)
    runs = plan_runs(reference, AT_R, groups=["oelm_freeze"], seeds=[42, 43], tag="lr")
    assert [(run.name, run.gpus) for run in runs] == [("oelm_freeze-lr", (0, 1, 2, 3)), ("oelm_freeze-s43-lr", 4)]
    demo = study.load_study(REPOSITORY, "demo")
    for root, before in (("/r", "/r"), ("/", "")):
        run = plan_runs(demo, replace(targets.LOCAL, root=root))[1]
        assert run.run_dir == f"{before}/models/checkpoints/demo/exp_gpt_base"


def test_the_fingerprint_depends_on_science_alone() -> None:
    reference = study.load_study(REPOSITORY)

    def prints(root: str = "/r", **options: object) -> list[str]:
        options, target = {"data_hash": "d", **options}, replace(targets.LOCAL, root=root)
        return [run.fingerprint for run in plan_runs(reference, target, **options)]

    assert len(set(prints())) == 4
    assert prints() == prints(root="/elsewhere") == prints(tag="t", overrides={"log_interval": "7"})
    assert prints() != prints(data_hash="other")
    assert prints() != prints(tag="t", overrides={"max_lr": "1e-3"})
    assert prints() != prints(seeds=[43])


def test_a_setting_may_be_a_number_too() -> None:
    reference = study.load_study(REPOSITORY)
    told = with_settings(reference, {"global_batch": "64", "max_steps": "10"})
    assert with_settings(reference, {"global_batch": 64, "max_steps": 10}) == told != reference
    with pytest.raises(UsageError, match="global_batch=True: must be a whole number"):
        with_settings(reference, {"global_batch": True})


def test_set_needs_a_tag_and_a_key_that_exists() -> None:
    reference = study.load_study(REPOSITORY)
    with pytest.raises(UsageError, match="other runs than the study's own"):
        plan_runs(reference, AT_R, overrides={"max_steps": "10"})
    with pytest.raises(UsageError, match="did you mean 'max_steps'"):
        plan_runs(reference, AT_R, tag="t", overrides={"max_stps": "10"})
    with pytest.raises(UsageError, match="whole number"):
        plan_runs(reference, AT_R, tag="t", overrides={"max_steps": "ten"})
    with pytest.raises(UsageError, match="no group 'oelm_freez'.*did you mean 'oelm_freeze'"):
        plan_runs(reference, AT_R, groups=["oelm_freez"])


def test_what_is_set_is_judged_together_and_all_that_is_wrong_is_told_at_once() -> None:
    reference = study.load_study(REPOSITORY)
    with pytest.raises(UsageError, match=r"--set num_heads=5: .*512"):
        plan_runs(reference, AT_R, tag="t", overrides={"num_heads": "5"})
    runs = plan_runs(reference, AT_R, tag="t", overrides={"num_heads": "5", "d_model": "320"})
    assert {(run.settings["num_heads"], run.settings["d_model"]) for run in runs} == {(5, 320)}
    wrong = {"max_stps": "1", "max_lr": "-1", "global_batch": "0", "warmup_steps": "few", "num_layers": "2"}
    with pytest.raises(UsageError) as caught:
        plan_runs(reference, AT_R, tag="t", overrides=wrong)
    said = str(caught.value)
    assert [f"--set {key}={value}: " in said for key, value in wrong.items()] == [True] * 4 + [False], said


def test_a_setting_needs_to_suit_the_groups_that_run_and_no_others() -> None:
    reference = study.load_study(REPOSITORY)
    assert "freeze_qk" in reference.factors and "freeze_from_step" not in reference.factors
    late = {"freeze_from_step": "2000", "freeze_layers": "0-2"}
    runs = plan_runs(reference, AT_R, groups=["oelm_freeze"], tag="late", overrides=late)
    assert {(run.settings["freeze_from_step"], run.settings["freeze_layers"]) for run in runs} == {(2000, "0-2")}
    with pytest.raises(UsageError, match="group .*: freeze_from_step = 2000: nothing is frozen") as caught:
        plan_runs(reference, AT_R, tag="late", overrides={"freeze_from_step": "2000"})
    assert "--group" in caught.value.hint
    for value, why in (("-1", "must not be negative"), ("200000", "must be below max_steps"), ("soon", "whole number")):
        with pytest.raises(UsageError, match=f"^--set .*{value}: .*{why}"):
            plan_runs(reference, AT_R, groups=["oelm_freeze"], tag="late", overrides={"freeze_from_step": value})


DECLARING = TINY_STUDY.replace(
    "[train]", 'tuned = ["max_lr"]\n[unequal]\nweight_decay = "as published"\n[train]', 1
).replace('model_type = "gpt" }', 'model_type = "gpt", max_lr = 1e-3, weight_decay = 0.2 }')
"""Groups that set what is tuned, and what is declared unequal."""


def test_groups_set_what_is_tuned_or_declared_unequal(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, study.read_study(written(tmp_path, DECLARING)), targets.LOCAL)
    runs = {run.group: run for run in plan.runs}
    assert (runs["gpt_base"].settings["max_lr"], runs["gpt_base"].settings["weight_decay"]) == (1e-3, 0.2)
    assert runs["oelm_freeze"].settings["max_lr"] == 3e-4, "the study's own"
    assert runs["gpt_base"].factors == {"model_type": "gpt"}
    reasons = {difference.key: difference.reason for difference in plan.differences if not difference.is_unfair}
    assert reasons["weight_decay"] == "as published" and "equal budgets" in reasons["max_lr"]
    with pytest.raises(UsageError, match="groups set it themselves \\(gpt_base\\)"):
        plan_runs(plan.study, AT_R, tag="t", overrides={"max_lr": "1"})


def test_the_arms_of_a_speed_trial_keep_what_their_groups_set(tmp_path: Path) -> None:
    arm = "freeze_qk = true"
    text = TINY_STUDY.replace("[train]", '[unequal]\ndropout = "x"\n[train]', 1).replace(
        arm, arm + ", dropout = 0.5", 1
    )
    text = text.replace("seeds = [42]", "seeds = [42]\nspeed_trial = { rounds = 15, seconds = 0.3 }")
    trial = plan_runs(study.read_study(written(tmp_path, text)), AT_R)[0]
    assert "dropout" not in trial.settings
    assert sorted(values["dropout"] for values in trial.arms.values()) == [0.0, 0.5]


def test_seed_zero_is_a_seed_and_world_sizes_differ_only_by_declaration(tmp_path: Path) -> None:
    unequal = TINY_STUDY.replace('model_type = "gpt" }', 'model_type = "gpt", gpus = 2 }')
    path = written(tmp_path, unequal.replace("seeds = [42]", "seeds = [0]"))
    plan = make_plan(tmp_path, study.read_study(path), targets.LOCAL)
    assert [run.seed for run in plan.runs] == [0, 0, 0]
    assert {difference.key: difference.kind for difference in plan.differences}["world_size"] == "execution"


def test_a_scientific_difference_blocks_unless_it_is_declared() -> None:
    from oelm_jobs.study.fairness import Arm, check

    arms = [Arm(group=g, run=g, keys={"max_lr": lr}) for g, lr in (("a", 1e-3), ("b", 3e-4))]
    with pytest.raises(UnfairError, match="max_lr"):
        check(arms, factors=(), unequal={})
    assert [d.reason for d in check(arms, factors=(), unequal={"max_lr": "tuned"})] == ["tuned"]


def test_groups_that_differ_in_more_than_the_factors_make_no_plan(tmp_path: Path) -> None:
    fair = study.read_study(written(tmp_path, TINY_STUDY))
    assert make_plan(tmp_path, fair, targets.LOCAL).runs
    with pytest.raises(UnfairError, match=r"\(model_type\): freeze_qk"):
        make_plan(tmp_path, replace(fair, factors=("model_type",)), targets.LOCAL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[box]\nkind = "lokal"', ["[box] kind = 'lokal'", "did you mean 'local'?"]),
        ('[box]\nkind = "local"\nrooot = "/x"', ["rooot", "did you mean 'root'?"]),
        ('[box]\nkind = "local"\npassword = "x"', ["no password belongs in a file"]),
        ('[box]\nkind = "local"\nsetup = "x"', ["setup = 'x'", "must be a list"]),
        ('[box]\nkind = "local"\nenv = ["A=1"]', ["env = 'A=1'", "names of environment variables"]),
    ],
)
def test_what_is_off_in_a_targets_file_is_named(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = written(tmp_path, text, "targets")
    with pytest.raises(ConfigurationError) as raised:
        targets.load_targets(tmp_path)
    for part in [str(path), *expected]:
        assert part in str(raised.value)


def test_the_users_targets_are_known_in_every_project_and_the_projects_own_win(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    user = tmp_path / "config" / "oelm-jobs" / "targets.toml"
    user.parent.mkdir(parents=True)
    user.write_text('[a]\nkind = "local"\nroot = "/user/a"\n[b]\nkind = "local"\nroot = "/user/b"\n')
    written(tmp_path, '[b]\nkind = "local"\nroot = "/project/b"\n', "targets")
    known = targets.load_targets(tmp_path)
    assert {name: target.root for name, target in known.items()} == {"local": "", "a": "/user/a", "b": "/project/b"}


def test_a_folder_without_studies_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no project here"):
        folders.find_project(tmp_path)


def test_data_paths_follow_the_targets_mapping() -> None:
    target = targets.Target(name="t", kind="local", root="/r", python="", data={"data/tiny_stories": "/shared/ts"})
    assert target_path(target, "data/tiny_stories/train.bin") == "/shared/ts/train.bin"
    assert target_path(target, "data/other/train.bin") == "/r/data/other/train.bin"
    assert target_path(target, "/abs/train.bin") == "/abs/train.bin"
    assert target_path(replace(target, root="/"), "data/other/train.bin") == "/data/other/train.bin"


def test_one_process_is_started_without_torchrun() -> None:
    runs = plan_runs(study.load_study(REPOSITORY, "demo"), AT_R)
    assert {(run.world_size, *command(run, "python")[:2]) for run in runs} == {(1, "python", "-m")}
    assert {command(run, "python")[2] for run in runs} == {"train", "train.speed_trial"}


def test_the_speed_trial_times_both_arms_of_its_hypothesis_at_the_real_world_size() -> None:
    reference = study.load_study(REPOSITORY)
    trial = plan_runs(reference, AT_R)[0]
    words = " ".join(command(trial, "python"))
    assert "--nproc_per_node 4" in words and "-m train.speed_trial --rounds 21 --seconds 1" in words
    assert "--arm oelm_freeze:model_type=oelm,freeze_qk=true" in words
    assert "--arm oelm_no_freeze:model_type=oelm,freeze_qk=false" in words
    assert trial.run_dir == "/r/models/checkpoints/exp_speed_trial"
    alone = plan_runs(reference, AT_R, groups=["oelm_freeze"])
    assert [run.name for run in alone] == ["oelm_freeze"], "one arm alone can't be compared"
    assert "speed_trial" not in [run.name for run in plan_runs(reference, AT_R, seeds=[43])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("speed_trial = { rounds = 3 }", "at least 15"), ("speed_trial = { round = 15 }", "did you mean 'rounds'")],
)
def test_a_trial_that_decides_nothing_is_refused(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        study.read_study(written(tmp_path, line + "\n" + TINY_STUDY))


def test_the_initialisation_study_crosses_every_init_with_freezing_and_has_a_control_of_the_same_scale() -> None:
    crossed = study.load_study(REPOSITORY, "qk_init")
    assert not crossed.is_default and crossed.factors == ("qk_init", "freeze_qk")
    arms = {(group.factors["qk_init"], group.factors["freeze_qk"]) for group in crossed.groups.values()}
    inits = trainer.FIELDS["qk_init"].metadata["choices"]
    assert arms == {(init, frozen) for init in inits for frozen in (False, True)} and len(crossed.groups) == 8
    question = crossed.hypotheses[0]
    compared = [crossed.groups[name].factors for name in (question.group, question.against)]
    assert compared == [
        {"qk_init": "orthogonal_head", "freeze_qk": True},
        {"qk_init": "normal_scaled", "freeze_qk": True},
    ]
    runs = plan_runs(crossed, AT_R, data_hash="d")
    assert len(runs) == len({run.fingerprint for run in runs}) == 8 * len(crossed.seeds)
    reference = study.load_study(REPOSITORY).settings
    differing = {key for key in reference if key in crossed.settings and crossed.settings[key] != reference[key]}
    assert differing == {"max_steps"}, "the reference model on the reference data, trained for less long"


def test_the_initialisation_study_plans_without_data_or_gpu(oelm, project: Path) -> None:
    shutil.copy(REPOSITORY / "jobs" / "qk_init.toml", project / "jobs")
    done = oelm("submit", "--study", "qk_init", "--dry-run", "--group", "scaled_frozen", "--seeds", "42")
    assert "--model_type oelm --freeze_qk true --qk_init normal_scaled" in done.stdout


@pytest.mark.parametrize(("name", "last_layer"), [("qk_generality", 5), ("qk_generality_demo", 3)])
def test_the_generality_study_asks_of_every_younger_key_and_each_pair_differs_in_freezing_alone(
    name: str, last_layer: int
) -> None:
    asked = study.load_study(REPOSITORY, name)
    assert set(asked.factors) == {"freeze_qk", *trainer.LATER} - {"init_from"}, "which names another run"
    used = {key for group in asked.groups.values() for key in group.factors}
    assert used == set(asked.factors), "each is varied"
    for question in asked.hypotheses[:4]:
        frozen, trained = (asked.groups[name].factors for name in (question.group, question.against))
        assert {**frozen, "freeze_qk": False} == trained and frozen["freeze_qk"] is True
    halves = [asked.groups[name].factors["freeze_layers"] for name in ("lower_frozen", "upper_frozen")]
    assert halves == [f"0-{last_layer // 2}", f"{last_layer // 2 + 1}-{last_layer}"]
    runs = plan_runs(asked, AT_R, data_hash="d")
    assert len(runs) == len({run.fingerprint for run in runs}) == 13 * len(asked.seeds)
    for run in runs:
        told = {key for key in trainer.LATER if key in run.settings}
        assert told == set(run.factors) - {"freeze_qk"}, "a younger key at its default is not recorded"


def test_a_contradiction_in_a_group_names_file_group_and_key(tmp_path: Path) -> None:
    text = TINY_STUDY.replace(
        'factors = ["model_type", "freeze_qk"]', 'factors = ["model_type", "freeze_qk", "freeze_k"]'
    )
    text = text.replace("freeze_qk = true", "freeze_qk = true, freeze_k = true")
    with pytest.raises(ConfigurationError, match=r"groups\.oelm_freeze.*freeze_k.*freezes both already"):
        study.read_study(written(tmp_path, text))


def test_a_byte_order_mark_in_front_of_a_study_or_targets_file_is_no_part_of_it(project: Path) -> None:
    path = project / "jobs" / "tiny.toml"
    plain = study.load_study(project, "tiny")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert study.load_study(project, "tiny") == plain
    (project / "jobs" / "targets.toml").write_bytes(b'\xef\xbb\xbf[box]\r\nkind = "ssh"\r\nhost = "h"\r\n')
    assert "box" in targets.load_targets(project)


@pytest.mark.parametrize(("encoding", "named"), [("utf-16", "UTF-16"), ("gb18030", "GB18030"), ("utf-16-le", "")])
def test_a_study_file_in_another_encoding_is_named_with_its_conversion(
    project: Path, encoding: str, named: str
) -> None:
    path = project / "jobs" / "tiny.toml"
    path.write_text("# \u6b63\u4ea4\u521d\u59cb\u5316\n" + path.read_text(), encoding=encoding)
    with pytest.raises(ConfigurationError, match=r"tiny\.toml: ") as caught:
        study.load_study(project, "tiny")
    if named:
        assert f"is {named} text, and TOML is UTF-8" in str(caught.value)
        assert f"iconv -f {named} -t UTF-8 " in caught.value.hint


@pytest.mark.usefixtures("quick")
def test_a_study_file_that_is_off_stops_only_those_who_name_it(oelm, project: Path) -> None:
    tiny = project / "jobs" / "tiny.toml"
    tiny.write_text("default = true\n" + tiny.read_text())
    (project / "jobs" / "broken.toml").write_text("question = \n")
    word = f"{project / 'jobs' / 'broken.toml'}: not valid TOML"
    for words in (("submit", "--wait", "--group", "gpt_base"), ("report",), ("status", "--rebuild")):
        done = oelm(*words)
        said = [line for line in done.stderr.splitlines() if "broken.toml" in line]
        assert len(said) == 1 and word in said[0] and said[0].endswith("; passed over"), done.stderr
    assert "DONE" in oelm("status").stdout and "broken.toml" not in oelm("status").stderr
    examined = oelm("doctor", check=False)
    assert "disk for tiny" in examined.stdout and "study broken" in examined.stdout
    refused = oelm("submit", "--study", "broken", check=False)
    assert refused.returncode == 2 and word in refused.stderr and "passed over" not in refused.stderr
    tiny.write_text(tiny.read_text().replace("default = true\n", ""))
    nowhere = oelm("submit", check=False)
    assert nowhere.returncode == 2 and "no study that can be read in" in nowhere.stderr and word in nowhere.stderr


def test_what_is_no_file_in_the_folder_of_studies_is_named_and_never_waited_for(project: Path) -> None:
    (project / "jobs" / "dir.toml").mkdir()
    (project / "jobs" / "gone.toml").symlink_to(project / "nowhere")
    (project / "jobs" / "loop.toml").symlink_to("loop.toml")
    os.mkfifo(project / "jobs" / "pipe.toml")
    said: list[str] = []
    assert [found.name for found in study.read_studies(project, said.append)] == ["tiny"]
    assert len(said) == 4 and all("can't be read" in words for words in said)


def test_a_folder_of_studies_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    with pytest.raises(UsageError, match="no project here"):
        folders.find_project(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read all
    with pytest.raises(LocalError, match=r"jobs: can't be read: Permission denied"):
        folders.find_project(tmp_path)
