"""``oelm init --from``: a W&B sweep becomes a study that runs; what it can't say is named by its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from oelm_jobs.cli import init
from oelm_jobs.errors import UsageError
from oelm_jobs.scaffold import wandb_sweep
from oelm_jobs.spec.study import Study
from oelm_jobs.study import sweep
from oelm_jobs.study.files import read_study

SWEEP = """\
program: train.py
method: bayes
description: which rate?
metric:
  name: val_loss
  goal: minimize
  target: 0.1
parameters:
  lr:
    distribution: log_uniform_values
    min: 1e-5
    max: 1e-2
  batch: {values: [16, 32, 32]}
  layers: {min: 1, max: 4}
  dropout: {distribution: q_uniform, min: 0.0, max: 0.5, q: 0.1}
  optimizer:
    parameters:
      name: {values: [adam, sgd], probabilities: [0.3, 0.7]}
      momentum: {value: 0.9}
  noise: {distribution: normal, mu: 0.5, sigma: 1}
  nesterov: {values: [true, false]}
  strange: 3
  seed: {values: [1, 2]}
run_cap: 7
early_terminate:
  type: hyperband
"""


def made(folder: Path, text: str) -> tuple[Study, list[str]]:
    (folder / "jobs").mkdir(exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_text(text)
    found = wandb_sweep.study(path, folder)
    (folder / "jobs" / "s.toml").write_text(found.study.text)
    return read_study(folder / "jobs" / "s.toml"), list(map(str, found.remarks))


def test_a_sweep_becomes_a_study(tmp_path: Path) -> None:
    study, _remarks = made(tmp_path, SWEEP)
    swept = study.sweep
    assert swept is not None and (swept.method, swept.run_cap, study.seeds) == ("random", 7, (1, 2))
    assert {key: (one.distribution, one.min, one.max) for key, one in swept.parameters.items() if one.distribution} == {
        "lr": ("log_uniform_values", 1e-5, 1e-2), "layers": ("int_uniform", 1, 4), "dropout": ("uniform", 0.0, 0.5),
    }  # fmt: skip
    assert {key: one.values for key, one in swept.parameters.items() if one.values} == {
        "batch": (16, 32), "optimizer.name": ("adam", "sgd"), "nesterov": (True, False)
    }  # fmt: skip
    assert study.settings["optimizer.momentum"] == 0.9 and study.settings["noise"] == 0.5
    assert study.program is not None and study.program.metrics.goal == {"val_loss": "minimize"}
    assert (study.program.seed, study.program.booleans, study.question) == ("seed", "True", "which rate?")
    assert len(sweep.settings(swept)) == 7


def test_what_a_study_cannot_say_is_named_by_its_line(tmp_path: Path) -> None:
    _study, remarks = made(tmp_path, SWEEP)
    assert sorted(remarks) == sorted([
        "line 2: method: bayes isn't supported: combinations are drawn at random",
        "line 7: metric.target: isn't supported: every run goes to its end",
        "line 15: parameters.dropout.distribution: q_uniform isn't supported: uniform is drawn",
        "line 16: parameters.optimizer: its parameters are given as optimizer.…",
        "line 18: parameters.optimizer.parameters.name.probabilities: categorical_w_probabilities isn't supported: "
        "categorical is drawn",
        "line 20: parameters.noise: normal isn't supported: its mean is taken",
        "line 22: parameters.strange: isn't supported and left out",
        "line 23: parameters.seed: these are the study's seeds, with each of which all combinations are run",
        "line 25: early_terminate: isn't supported: every run goes to its end",
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("command", "words", "spelling"),
    [
        ("", "python train.py {settings}", "--key=value"),
        (
            'command: ["${env}", "python3", "${program}", "${args_no_hyphens}"]',
            "python3 train.py {settings}",
            "key=value",
        ),
        (
            'command: ["${interpreter}", "${program}", "--c", "${args_json_file}"]',
            "python train.py --c {settings_file}",
            "json",
        ),
        ("command: torchrun ${program}", "torchrun train.py {settings}", "--key=value"),
    ],
)
def test_the_command_is_that_of_the_sweep(tmp_path: Path, command: str, words: str, spelling: str) -> None:
    study, _remarks = made(
        tmp_path, f"program: train.py\nmethod: grid\nparameters:\n  lr: {{values: [1e-3, 2]}}\n{command}\n"
    )
    assert study.program is not None and study.program.spelling == spelling
    assert f"command = {words.split()}".replace("'", '"') in (tmp_path / "jobs" / "s.toml").read_text()
    assert study.sweep is not None and study.sweep.parameters["lr"].values == (1e-3, 2)


def test_a_grid_has_values(tmp_path: Path) -> None:
    text = "program: t.py\nmethod: grid\nparameters:\n  a: {min: 1, max: 3}\n"
    text += "  b: {distribution: log_uniform_values, min: 0.01, max: 1.0}\n"
    study, remarks = made(tmp_path, text)
    assert study.sweep is not None
    assert {key: one.values for key, one in study.sweep.parameters.items()} == {"a": (1, 2, 3), "b": (0.01, 0.1, 1.0)}
    assert remarks == ["line 5: parameters.b: a grid needs values: its ends and its middle are taken"]


def test_words_that_only_begin_like_numbers_are_words(tmp_path: Path) -> None:
    text = "program: t.py\nmethod: grid\nparameters:\n  commit: {values: [7e3fab, 2e4-run, .5x, run]}\n"
    study, _remarks = made(tmp_path, text)
    assert study.sweep is not None and study.sweep.parameters["commit"].values == ("7e3fab", "2e4-run", ".5x", "run")


def test_a_parameter_that_nobody_can_draw_is_left_out(tmp_path: Path) -> None:
    text = "program: t.py\nparameters:\n  a: {min: 1, max: 3}\n  b: {distribution: constant}\n"
    study, remarks = made(tmp_path, text + "  c: {distribution: log_uniform, min: 1, max: 1000}\n")
    assert study.sweep is not None and [*study.sweep.parameters] == ["a"]
    assert {
        "line 4: parameters.b: isn't supported and left out",
        "line 5: parameters.c: isn't supported and left out",
    } <= {*remarks}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "no YAML"),
        ("- 1", "no sweep"),
        ("parameters: {a: {value: 1}}\nprogram: t.py", "nothing is swept"),
        ("parameters: {a: {values: [1, 2]}}", "names no program"),
        ("x: !!python/object/apply:os.system ['touch PWNED']\nparameters: {}", "no YAML"),
        ("a: &a [1]\nb: [*a, *a]\nparameters: {}", "names with"),
        ("[" * 1000, "no YAML"),
        ("x: '" + "y" * 2_000_000 + "'", "too large"),
        ("parameters: {a: {values: [1, 2]}}\ncommand: python 't.py", "No closing quotation"),
    ],
    ids=["broken", "no table", "one value each", "no program", "an object", "references", "deep", "large", "a quote"],
)
def test_what_is_no_sweep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=why):
        made(tmp_path, text)
    assert not (tmp_path / "PWNED").exists()


def test_the_command_makes_a_project_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    monkeypatch.chdir(tmp_path / "p")
    done = CliRunner().invoke(init.main, ["--from", "../sweep.yaml"], standalone_mode=False)
    assert done.exception is None, done.exception
    assert "made   jobs/train.toml" in done.stdout and "line 25: early_terminate" in done.stderr
    assert read_study(tmp_path / "p" / "jobs" / "train.toml").sweep is not None
    done = CliRunner().invoke(init.main, ["--from", "../sweep.yaml", "--example", "spirals"], standalone_mode=False)
    assert "exclude each other" in str(done.exception)
    done = CliRunner().invoke(init.main, ["--from", "../sweep.yaml"], standalone_mode=False)
    assert done.exception is None and "kept   jobs/train.toml" in done.stdout
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("run_cap: 7", "run_cap: 8"))
    done = CliRunner().invoke(init.main, ["--from", "../sweep.yaml"], standalone_mode=False)
    assert isinstance(done.exception, UsageError) and "jobs/train.toml" in str(done.exception)
