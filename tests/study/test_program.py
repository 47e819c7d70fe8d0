"""Studies of a program of one's own: reading, commands, fingerprints, comparison."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from oelm_jobs import tomlfile
from oelm_jobs.agent import records
from oelm_jobs.agent.run.words import fill
from oelm_jobs.errors import ConfigurationError, UnfairError, UsageError
from oelm_jobs.programs import script, words
from oelm_jobs.programs.words import text_of
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.study import Run, Study
from oelm_jobs.spec.target import Target
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import Mode, make_plan
from oelm_jobs.study.resolve import data_paths, plan_runs, with_settings
from oelm_jobs.targets import sbatch
from oelm_jobs.targets.files import LOCAL
from tests.support import REPOSITORY

NANOGPT = """
question = "Which learning rate does nanoGPT want on characters?"
factors = ["learning_rate"]
seeds = [1337]

[program]
command = "python train.py config/train_shakespeare_char.py {settings} --out_dir={run_dir} {resume}"
settings = "--key=value"
booleans = "True"
resume = "--init_from=resume"
checkpoint = "ckpt.pt"
best = "ckpt.pt"
length = "max_iters"
data = ["data/shakespeare_char"]
execution = ["compile"]
stop_s = 60

[settings]
max_iters = 2000
compile = false

[metrics]
lines = ["step {step}: train loss {train_loss}, val loss {val_loss}", "iter {step}: loss {loss}"]
goal = { val_loss = "minimize" }

[groups]
low  = { learning_rate = 3e-4 }
high = { learning_rate = 1e-3 }

[hypotheses]
H1 = { metric = "val_loss", group = "high", against = "low", at_most_above = 0.1 }
"""

TRANSFORMERS = """
factors = ["learning_rate"]
seeds = [1, 2]
[program]
command = "python run_clm.py {settings} --output_dir {run_dir} --do_train --do_eval {resume}"
settings = "--key value"
resume = "--resume_from_checkpoint {checkpoint}"
checkpoint = "checkpoint-*"
length = "max_steps"
seed = "seed"
execution = ["report_to"]
[settings]
model_name_or_path = "sshleifer/tiny-gpt2"
max_steps = 100
report_to = "none"
bf16 = true
[metrics]
files = ["checkpoint-*/trainer_state.json"]
goal = { eval_loss = "minimize" }
[groups]
low  = { learning_rate = 3e-4 }
high = { learning_rate = 1e-3 }
"""

HYDRA = """
factors = ["optim.lr", "model.layers"]
seeds = [1, 2]
[program]
command = "python main.py +experiment=base {settings} hydra.run.dir={run_dir}"
settings = "key=value"
seed = "training.seed"
[settings]
"training.steps" = 50
"data.mirror" = false
[groups]
low  = { "optim.lr" = 1e-5, "model.layers" = [4, 8] }
high = { "optim.lr" = 1e-4, "model.layers" = [4, 8] }
"""

LIGHTNING = """
factors = ["model.init_args.lr"]
seeds = [1, 2]
[program]
command = "python main.py fit --config {settings_file} --trainer.default_root_dir {run_dir} {resume}"
settings = "yaml"
seed = "seed_everything"
resume = ["--ckpt_path", "{checkpoint}"]
checkpoint = "**/last.ckpt"
length = "trainer.max_steps"
[settings]
"trainer.max_steps" = 100
"trainer.logger" = false
[metrics]
files = ["lightning_logs/version_*/metrics.csv"]
goal = { val_acc = "maximize" }
[groups]
low  = { "model.init_args.lr" = 1e-5 }
high = { "model.init_args.lr" = 1.0 }
"""

ARGPARSE = """
factors = ["lr"]
seeds = [1, 2]
[program]
command = "python my_train.py --lr {lr} --seed {seed} {settings}"
settings = "--key value"
booleans = "flag"
[settings]
name = "it's {a} $HOME; name"
widths = [32, 64]
rate = 0.5
amsgrad = true
nesterov = false
[groups]
low  = { lr = 1e-5 }
high = { lr = 1e-4 }
"""

ACCELERATE = """
factors = ["mixed_precision"]
seeds = [1, 2]
[program]
command = '''accelerate launch --num_processes {gpus} --main_process_port {port} --num_machines {nodes}
    --machine_rank {node_rank} --main_process_ip {host} train.py --seed={seed} {settings}'''
[settings]
epochs = 3
[groups]
full = { mixed_precision = "no", gpus = 2 }
half = { mixed_precision = "bf16", gpus = 2 }
"""

KINDS = ["nanogpt", "hf", "hydra", "lightning", "argparse", "accelerate"]
COMMANDS = [
    (NANOGPT, "python train.py config/train_shakespeare_char.py --max_iters=2000 --compile=False"
              " --learning_rate=0.0003 --out_dir=/r/models/checkpoints/mine/exp_low {resume}"),
    (TRANSFORMERS, "python run_clm.py --model_name_or_path sshleifer/tiny-gpt2 --max_steps 100 --report_to none"
                   " --bf16 true --learning_rate 0.0003 --seed 1 --output_dir /r/models/checkpoints/mine/exp_low"
                   " --do_train --do_eval {resume}"),
    (HYDRA, "python main.py +experiment=base training.steps=50 data.mirror=false optim.lr=1e-05 model.layers=[4,8]"
            " training.seed=1 hydra.run.dir=/r/models/checkpoints/mine/exp_low"),
    (LIGHTNING, "python main.py fit --config {settings_file} --trainer.default_root_dir"
                " /r/models/checkpoints/mine/exp_low {resume}"),
    (ARGPARSE, """python my_train.py --lr 1e-05 --seed 1 --name 'it'"'"'s {a} $HOME; name' --widths 32 64"""
               """ --rate 0.5 --amsgrad"""),
    (ACCELERATE, "accelerate launch --num_processes {gpus} --main_process_port {port} --num_machines {nodes}"
                 " --machine_rank {node_rank} --main_process_ip {host} train.py --seed=1 --epochs=3"
                 " --mixed_precision=no"),
]  # fmt: skip


def study_of(folder: Path, text: str) -> Study:
    (folder / "jobs").mkdir(exist_ok=True)
    path = folder / "jobs" / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def runs_of(folder: Path, text: str, **options: Any) -> list[Run]:
    return plan_runs(study_of(folder, text), replace(LOCAL, root="/r"), **options)


@pytest.mark.parametrize(("text", "expected"), COMMANDS, ids=KINDS)
def test_six_kinds_of_scripts_get_their_settings_word_by_word(tmp_path: Path, text: str, expected: str) -> None:
    run = runs_of(tmp_path, text)[0]
    assert script.commands(run, "python") == [shlex.split(expected)]


@pytest.mark.parametrize("text", [text for text, _ in COMMANDS])
def test_a_record_says_what_an_attempt_needs(tmp_path: Path, text: str) -> None:
    run = runs_of(tmp_path, text)[0]
    record = json.loads(json.dumps(script.record(run)))
    assert records.PROGRAM.wrong(record) is None
    (stage,) = record["stages"]
    values = {name: f"<{name}>" for name in script.BY_AGENT} | {"resume": []}
    assert fill(stage["words"], values) == [
        word.format_map(values) if "{a}" not in word else word
        for word in script.commands(run, "python")[0]
        if word != "{resume}"
    ], "what a value holds is not searched"


def test_a_resumed_attempt_gets_the_words_of_resume(tmp_path: Path) -> None:
    record = script.record(runs_of(tmp_path, TRANSFORMERS)[0])
    assert fill(record["resume"], {"checkpoint": "a b"}) == ["--resume_from_checkpoint", "a b"]
    assert (record["length"], record["max_steps"], record["checkpoint"]) == ("max_steps", 100, "checkpoint-*")


def test_a_setting_called_checkpoint_is_not_what_a_resumed_attempt_goes_on_from(tmp_path: Path) -> None:
    run = runs_of(tmp_path, TRANSFORMERS.replace("bf16 = true", 'checkpoint = "init.pt"'))[0]
    assert fill(script.record(run)["resume"], {"checkpoint": "a b"}) == ["--resume_from_checkpoint", "a b"]
    assert "--checkpoint init.pt" in " ".join(script.commands(run, "")[0])


def test_a_settings_file_holds_a_table_for_each_dot_and_is_read_back_as_it_was_meant(tmp_path: Path) -> None:
    record = script.record(runs_of(tmp_path, LIGHTNING)[0])
    assert record["settings_file"] == "yaml"
    assert yaml.safe_load(record["settings_text"] or "") == {
        "trainer": {"max_steps": 100, "logger": False}, "model": {"init_args": {"lr": 1e-5}}, "seed_everything": 1,
    }  # fmt: skip
    settings = {"a": 1e16, "b.c": 1e-7, "b.d.e": "x: [y]\n\"'", "b.f": [1, 2.5, True, "no"], "z z": -0.0, "on": "on"}
    settings["words"] = ["é \U0001f600 \x7f"]
    expected = {
        "a": 1e16, "b": {"c": 1e-7, "d": {"e": "x: [y]\n\"'"}, "f": [1, 2.5, True, "no"]}, "z z": 0.0, "on": "on",
        "words": ["é \U0001f600 \x7f"],
    }  # fmt: skip
    for kind, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert read(text_of(settings, kind)) == expected, kind
    path = tmp_path / "settings.toml"
    path.write_text(text_of(settings, "toml"), encoding="utf-8")
    assert tomlfile.tables(path) == expected
    path.write_text(f"settings = {tomlfile.as_text(expected)}", encoding="utf-8")
    assert tomlfile.tables(path)["settings"] == expected, "in one line, too"


def test_a_settings_file_of_no_settings_is_one() -> None:
    assert (text_of({}, "json"), text_of({}, "yaml"), text_of({}, "toml")) == ("{}\n", "{}\n", "")


def test_what_is_quoted_is_no_operator_of_a_shell() -> None:
    command = """python "a b.py" '&&' "|" \\; --x='> y' 2\\>&1"""
    assert words.read(command) == ("python", "a b.py", "&&", "|", ";", "--x=> y", "2>&1")
    for text in ("python 'a' && b", 'a "\'" | "\'"', "a 2>&1"):
        with pytest.raises(words.BadWords, match="is a shell's"):
            words.read(text)


def test_booleans_are_spelled_as_the_program_reads_them(tmp_path: Path) -> None:
    for how, expected in (("true", ["--compile=false"]), ("True", ["--compile=False"]), ("flag", [])):
        run = runs_of(tmp_path, NANOGPT.replace('booleans = "True"', f'booleans = "{how}"'))[0]
        assert [word for word in script.commands(run, "")[0] if "compile" in word] == expected


def test_a_list_is_words_and_a_doubled_brace_is_one(tmp_path: Path) -> None:
    text = ARGPARSE.replace(
        '"python my_train.py --lr {lr} --seed {seed} {settings}"',
        """["sh", "-c", 'exec "$@" && echo {{done}}', "--lr={lr}{{}}", "--seed", "{seed}", "{settings}"]""",
    )
    command = script.commands(runs_of(tmp_path, text)[0], "")[0]
    assert command[:6] == ["sh", "-c", 'exec "$@" && echo {done}', "--lr=1e-05{}", "--seed", "1"]


def test_the_study_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "program.md").read_text(encoding="utf-8")
    text = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]
    assert [run.name for run in runs_of(tmp_path, text)] == ["low", "high"]


def test_stages_are_commands_of_one_run(tmp_path: Path) -> None:
    text = (
        ARGPARSE.replace('command = "python my_train.py --lr {lr} --seed {seed} {settings}"\n', "")
        + """
[[stages]]
name = "prepare"
command = "python prepare.py"
[[stages]]
name = "train"
command = "python my_train.py --lr {lr} --seed {seed} {settings}"
"""
    )
    run = runs_of(tmp_path, text)[0]
    assert [stage["name"] for stage in script.record(run)["stages"]] == ["prepare", "train"]
    assert script.commands(run, "")[0] == ["python", "prepare.py"]


# Fingerprints ---------------------------------------------------------------------------------------------------------


def fingerprint(folder: Path, text: str, target: Target = LOCAL, root: str = "/r", data: str = "d", **more: Any) -> str:
    return plan_runs(study_of(folder, text), replace(target, root=root), data_hash=data, **more)[0].fingerprint


def test_the_fingerprint_knows_words_settings_seed_data_and_gpus_and_nothing_else(tmp_path: Path) -> None:
    before = fingerprint(tmp_path, ARGPARSE)
    for other in (
        ARGPARSE.replace("python my", "python -u my"),
        ARGPARSE.replace("[32, 64]", "[32, 65]"),
        ARGPARSE.replace("lr = 1e-5", "lr = 2e-5"),
        ARGPARSE.replace("lr = 1e-5", "lr = 1e-5, gpus = 2"),
        ARGPARSE.replace("[1, 2]", "[3, 2]"),
    ):
        assert other != ARGPARSE and fingerprint(tmp_path, other) != before
    assert fingerprint(tmp_path, ARGPARSE, data="e") != before
    same = ARGPARSE.replace("[program]", 'question = "?"\nmax_retries = 3\n[program]\nstop_s = 5')
    assert fingerprint(tmp_path, same, root="/elsewhere", tag="x") == before
    quick = ARGPARSE.replace("[program]", '[program]\nexecution = ["amsgrad"]')
    assert fingerprint(tmp_path, quick) == fingerprint(tmp_path, quick.replace("amsgrad = true", "amsgrad = false"))


def test_data_lie_where_the_target_has_them_and_are_found_where_the_program_looks(tmp_path: Path) -> None:
    target = replace(LOCAL, root="/r", data={"data": "/scratch/data"})
    run = plan_runs(study_of(tmp_path, NANOGPT), target)[0]
    assert run.data == (("data/shakespeare_char", "/scratch/data/shakespeare_char"),)
    absolute = study_of(tmp_path, NANOGPT.replace('["data/', '["/data/'))
    target = replace(LOCAL, root="/r", data={"/data": "/scratch/data"})
    assert data_paths(target, absolute) == ["/data/shakespeare_char"], "a program looks nowhere else"
    assert plan_runs(absolute, target)[0].data == ()


# Comparison -----------------------------------------------------------------------------------------------------------


def plan(folder: Path, text: str, names: Sequence[str] = ("my_train.py",), **options: Any) -> Any:
    for name in names:
        (folder / name).touch()
    return make_plan(folder, study_of(folder, text), replace(LOCAL, root="/r"), mode=Mode.PARALLEL, **options)


def test_groups_differ_in_factors_and_in_what_is_declared_alone(tmp_path: Path) -> None:
    assert plan(tmp_path, ARGPARSE).differences == ()
    wider = ARGPARSE.replace("low  = { lr = 1e-5 }", "low  = { lr = 1e-5, gpus = 2 }")
    with pytest.raises(UnfairError, match="world_size"):
        plan(tmp_path, wider)
    (found,) = plan(tmp_path, wider + '[unequal]\nworld_size = "memory"\n').differences
    assert (found.key, found.kind, found.voids) == ("world_size", "scientific", ("speed", "gpu_hours"))
    # Named like keys of the trainer's, of which the first would void speed there and the second would not.
    quick = ARGPARSE.replace("[program]", 'tuned = ["num_workers"]\n[program]\nexecution = ["log_interval"]')
    quick = quick.replace("lr = 1e-5 }", "lr = 1e-5, log_interval = 1, num_workers = 1 }")
    quick = quick.replace("lr = 1e-4 }", "lr = 1e-4, log_interval = 2, num_workers = 2 }")
    quick += '[unequal]\nlog_interval = "speed"\n'
    kinds = {each.key: (each.kind, bool(each.voids)) for each in plan(tmp_path, quick).differences}
    assert kinds == {"num_workers": ("scientific", False), "log_interval": ("execution", True)}


def test_runs_without_gpus_ask_for_cpu_slots(tmp_path: Path) -> None:
    run = runs_of(tmp_path, ARGPARSE.replace("lr = 1e-5 }", "lr = 1e-5, gpus = 0, cpus = 3 }"))[0]
    assert (run.gpus, run.world_size, script.record(run)["cpus"]) == (0, 0, 3)
    several: list[dict[str, str | None]] = [{}, {"gres": "gpu:a100:{gpus}"}]
    for given in several:
        lines = sbatch.header(replace(LOCAL, slurm=Slurm(sbatch=given)), [run], name="n", folder="/r", stem="s")
        assert "--cpus-per-task=3" in lines and not any("gpu" in line for line in lines)


def test_a_missing_script_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"my_train\.py: no such file"):
        plan(tmp_path, ARGPARSE, names=())


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("rate", "1", 1.0),
        ("widths", "[1]", [1]),
        ("amsgrad", "false", False),
        ("name", "5", "5"),
        ("name", "a=b", "a=b"),
    ],
)
def test_set_reads_a_value_of_the_settings_own_kind(tmp_path: Path, key: str, value: str, found: object) -> None:
    assert with_settings(study_of(tmp_path, ARGPARSE), {key: value}).settings[key] == found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": "1"}, "is a factor"),
        ({"widht": "1"}, "widths"),
        ({"amsgrad": "1"}, "kind"),
        ({"amsgrad": "[true]"}, "kind"),
        ({"widths": "no"}, "kind"),
        ({"widths": "true"}, "kind"),
        ({"rate": "fast"}, "kind"),
    ],
)
def test_set_refuses_what_the_study_does_not_have(tmp_path: Path, settings: Mapping[str, str], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        with_settings(study_of(tmp_path, ARGPARSE), settings)


@pytest.mark.parametrize(("value", "expected"), [("0", "above zero"), ("-5", "above zero"), ("x", "kind")])
def test_set_refuses_a_length_that_is_none(tmp_path: Path, value: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        with_settings(study_of(tmp_path, NANOGPT), {"max_iters": value})


def test_another_seed_is_refused_where_the_program_takes_none(tmp_path: Path) -> None:
    assert runs_of(tmp_path, NANOGPT, seeds=[1337])
    with pytest.raises(ConfigurationError, match="takes no seed"):
        runs_of(tmp_path, NANOGPT, seeds=[1])


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "old", "new", "expected"),
    [
        (NANOGPT, "[settings]", "[train]\nmax_steps = 1\n[settings]", ["train", "[program]", "one of both"]),
        (NANOGPT, "seeds = [1337]", "seeds = [1, 2]", ["seeds", "takes no seed", "{seed}"]),
        (NANOGPT, "{settings}", "{setings}", ["unknown placeholder {setings}", "settings"]),
        (NANOGPT, " {resume}", "", ["resume", "no command has a place"]),
        (NANOGPT, 'resume = "--init_from=resume"\n', "", ["resume", "is missing"]),
        (NANOGPT, 'checkpoint = "ckpt.pt"\n', "", ["checkpoint", "is missing"]),
        (NANOGPT, 'length = "max_iters"', 'length = "max_iter"', ["length", "'max_iter'", "max_iters"]),
        (NANOGPT, "max_iters = 2000", "max_iters = true", ["length", "above zero"]),
        (NANOGPT, '["compile"]', '["complie"]', ["execution", "compile"]),
        (NANOGPT, 'settings = "--key=value"', 'settings = "--key:value"', ["settings", "--key=value"]),
        (NANOGPT, 'settings = "--key=value"', 'settings = "json"', ["settings", "{settings_file}"]),
        (NANOGPT, 'booleans = "True"', 'booleans = "yes"', ["booleans", "True"]),
        (NANOGPT, 'checkpoint = "ckpt.pt"', 'checkpoint = "../ckpt.pt"', ["checkpoint", "below"]),
        (NANOGPT, "stop_s = 60", "stop_s = -1", ["stop_s", "86400"]),
        (NANOGPT, "stop_s", "stops_s", ["[program] stops_s", "stop_s"]),
        (NANOGPT, 'goal = { val_loss', 'goal = { vall_loss', ["goal", "vall_loss", "val_loss"]),
        (NANOGPT, '"minimize"', '"min"', ["goal", "minimize"]),
        (NANOGPT, "goal = {", 'sampled = ["vall_loss"]\ngoal = {', ["[metrics] sampled", "vall_loss", "val_loss"]),
        (NANOGPT, "goal = {", 'sampled = ["loss"]\nfull = ["loss"]\ngoal = {', ["[metrics] full", "sampled, too"]),
        (NANOGPT, "loss {loss}\"", "loss {loss\"", ["[metrics] lines", "brace"]),
        (NANOGPT, 'metric = "val_loss"', 'metric = "final_val_loss"', ["metric", "val_loss"]),
        (NANOGPT, "low  = { learning_rate = 3e-4 }", "low  = { lerning_rate = 3e-4 }", ["lerning_rate", "factors"]),
        (NANOGPT, "compile = false", "learning_rate = 1.0", ["[settings] learning_rate", "is a factor"]),
        (NANOGPT, 'data = ["data', 'data = ["../data', ["data", "in the project"]),
        (NANOGPT, "{settings}", "{settings} && rm x", ["&&", "[[stages]]"]),
        (NANOGPT, "python train", "A=1 python train", ["A=1", "env"]),
        (NANOGPT, "python train", "python 'train", ["can't be split"]),
        (NANOGPT, "{settings}", "--args={settings}", ["{settings}", "a word of its own"]),
        (NANOGPT, "{settings}", "{settings} {", ["brace"]),
        (LIGHTNING, "[metrics]", "[metric]", ["metric", "metrics"]),
        (LIGHTNING, '"trainer.logger"', '"model"', ["settings", "model can't be both", "model.init_args.lr"]),
        (LIGHTNING, '"trainer.logger"', '"seed_everything.b"', ["seed_everything can't be both"]),
        (HYDRA, '"training.steps" = 50', "training.steps = 50", ["training", '"training.steps"', "quotes"]),
        (HYDRA, '"training.steps"', '"training.seed"', ["training.seed", "takes the seed"]),
        (HYDRA, '"training.steps"', '"training steps"', ["training steps", "name"]),
        (HYDRA, "= 50", "= 1979-05-27", ["training.steps", "must be text"]),
        (HYDRA, "= 50", "= nan", ["training.steps", "finite"]),
        (ARGPARSE, " {settings}", "", ["setting name is nowhere", "{name}"]),
        (ARGPARSE, "high = { lr = 1e-4 }", "high = {}", ["[groups.high] lr", "is missing"]),
        (NANOGPT, '"--init_from=resume"', '"--init_from={resum}"', ["[program] resume", "unknown placeholder {resum}"]),
        (
            NANOGPT.replace("high = {", "high = { x = 1,") + "[unequal]\nx = 'why'\n",
            '"--init_from=resume"', '"--init_from={x}"', ["[groups.low] x", "is missing"],
        ),
        (ARGPARSE, "[groups]", "[unequal]\nwidht = 'x'\n[groups]", ["widht", "widths"]),
        (ARGPARSE, "lr = 1e-4 }", "lr = 1e-4, cpus = 3 }", ["[groups.high] cpus", "gpus = 0"]),
        (ARGPARSE, "[program]", 'tuned = ["lr"]\n[program]', ["tuned = 'lr'", "is a factor"]),
        (ARGPARSE, "widths =", "seed =", ["a setting has the name", "{seed}"]),
        (NANOGPT, "high = { learning_rate = 1e-3 }", "high = {}", ["[groups.high] learning_rate", "it is a factor"]),
        (ARGPARSE, "[program]", "[programm]", ["programm: unknown key", "did you mean 'program'?"]),
        (ARGPARSE, "command =", "comand =", ["command", "is missing"]),
        (ARGPARSE, "[program]", "[speed_trial]\n[program]", ["speed_trial"]),
        (ARGPARSE, "[program]", "[[stages]]\nname = 'a'\ncommand = 'b'\n[program]", ["command", "[[stages]]"]),
    ],
)  # fmt: skip
def test_what_a_study_of_a_script_gets_wrong_is_said_where_it_stands(
    tmp_path: Path, text: str, old: str, new: str, expected: Sequence[str]
) -> None:
    assert old in text
    with pytest.raises(ConfigurationError) as raised:
        study_of(tmp_path, text.replace(old, new, 1))
    for part in (str(tmp_path / "jobs" / "mine.toml"), *expected):
        assert part in str(raised.value)
