"""What a study says of tuning, and what is wrong in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from oelm_jobs.errors import ConfigurationError
from oelm_jobs.study import tuning
from oelm_jobs.study.files import read_study
from oelm_jobs.study.resolve import plan_runs, token_files
from oelm_jobs.targets.files import LOCAL
from tests.support import TINY_STUDY

TUNED = TINY_STUDY.replace("seeds = [42]", 'seeds = [42]\nconfirm_seeds = [101, 102]\ntuned = ["max_lr"]', 1) + (
    "\n[sweep]\nparameters.max_lr = { values = [1e-3, 3e-4] }\n"
)
"""A study of the built-in trainer whose groups are tuned."""
TUNED_PROGRAM = """
factors = ["optimizer"]
seeds = [1, 2]
confirm_seeds = [101, 102]
tuned = ["lr"]
judge_on = "test_loss"
[program]
command = "python train.py {settings}"
seed = "seed"
[metrics]
lines = ["step {step}: loss {loss} test {test_loss}"]
goal = { loss = "minimize", test_loss = "minimize" }
[settings]
lr = 1e-3
[sweep]
parameters.lr = { values = [1e-3, 1e-2] }
[groups]
adam = { optimizer = "adam" }
sgd = { optimizer = "sgd" }
[hypotheses.H1]
metric = "test_loss"
group = "adam"
against = "sgd"
reduction = [0.0, inf]
"""
"""A study of a program whose groups are tuned, and judged by another metric than the one that chooses."""
OF_ONE_SEED = TUNED_PROGRAM.replace("seeds = [1, 2]", "seeds = [1]")


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text)
    return path


def test_a_study_that_tunes_names_what_confirms_and_what_judges(tmp_path: Path) -> None:
    for text in (TUNED, TUNED_PROGRAM):
        study = read_study(written(tmp_path, text))
        assert (study.is_tuning, study.confirm_seeds) == (True, (101, 102))
    assert study.judge_on == "test_loss"


JUDGED = TUNED.replace("seeds = [42]", 'seeds = [42]\njudge_on = "test"', 1).replace("final_val_", "final_test_")


def test_trials_know_nothing_of_the_test_file_that_runs_which_decide_are_measured_on(tmp_path: Path) -> None:
    tuned = read_study(written(tmp_path, JUDGED))
    at_r = replace(LOCAL, root="/r")
    assert all("test_data_path" not in run.settings for run in plan_runs(tuned, at_r))
    assert all("test_data_path" not in run.settings for run in
               plan_runs(tuned, at_r, tag="low", overrides={"max_lr": "1e-4"}))  # fmt: skip
    assert len(token_files(at_r, tuned)) == 2
    confirming = tuning.confirming(tuned, {name: {"max_lr": 1e-3} for name in tuned.groups})
    runs = plan_runs(confirming, at_r, seeds=tuned.confirm_seeds, tag="confirm")
    folder = str(Path(runs[0].settings["data_path"]).parent)
    assert {run.settings["test_data_path"] for run in runs} == {f"{folder}/test.bin"}
    assert token_files(at_r, confirming)[2] == f"{folder}/test.bin"
    assert {(run.settings["max_lr"], run.name.endswith("-confirm")) for run in runs} == {(1e-3, True)}


def test_without_a_sweep_what_is_tuned_stays_a_declaration(tmp_path: Path) -> None:
    text = TINY_STUDY.replace("seeds = [42]", 'seeds = [42]\ntuned = ["max_lr"]', 1)
    text = text.replace('model_type = "gpt" }', 'model_type = "gpt", max_lr = 1e-3 }')
    study = read_study(written(tmp_path, text))
    assert not study.is_tuning and study.groups["gpt_base"].declared == {"max_lr": 1e-3}


@pytest.mark.parametrize(
    ("text", "before", "after", "said"),
    [
        (TUNED, "[101, 102]", "[101, 42]", ["confirm_seeds = 42", "among seeds", "not confirmed by it"]),
        (TUNED, "[101, 102]", "[101, 101]", ["confirm_seeds", "each once"]),
        (TUNED, "[101, 102]", "[-1]", ["confirm_seeds", "from 0"]),
        (TUNED, 'tuned = ["max_lr"]', "", ["confirm_seeds", "no such sweep"]),
        (TUNED, 'tuned = ["max_lr"]', 'tuned = ["max_lr", "dropout"]', ["tuned = 'dropout'", "is not swept"]),
        (TUNED, "[sweep]", "[sweep]\nparameters.dropout = { values = [0.0, 0.1] }", ["dropout", "name it in tuned"]),
        (TUNED, 'model_type = "gpt" }', 'model_type = "gpt", max_lr = 1e-3 }', ["gpt_base", "max_lr", "leave it out"]),
        (TUNED, "seeds = [42]", 'seeds = [42]\njudge_on = "train"', ["judge_on = 'train'", "test"]),
        (TUNED_PROGRAM, 'judge_on = "test_loss"', 'judge_on = "loss"', ["judge_on", "main metric", "test_loss"]),
        (TUNED_PROGRAM, 'judge_on = "test_loss"', 'judge_on = "acc"', ["judge_on = 'acc'", "test_loss"]),
        (TUNED_PROGRAM, 'metric = "test_loss"', 'metric = "loss"', ["metric = 'loss'", "judge_on", "test_loss"]),
        (TUNED_PROGRAM, "goal = {", "sampled = [] # {", ["tuned", "goal ="]),
        (OF_ONE_SEED, 'seed = "seed"\n', "", ["confirm_seeds", "its program takes no seed"]),
        (TUNED_PROGRAM, '["lr"]', '["lrr"]', [":5: tuned = 'lrr': no such setting; did you mean 'lr'?"]),
    ],
)  # fmt: skip
def test_what_is_wrong_in_tuning_is_said_with_what_would_do(
    tmp_path: Path, text: str, before: str, after: str, said: list[str]
) -> None:
    assert before in text
    with pytest.raises(ConfigurationError) as caught:
        read_study(written(tmp_path, text.replace(before, after, 1)))
    for word in said:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("text", "metric", "said"),
    [
        (JUDGED, "final_val_ppl", ["final_val_ppl", "judge_on", "final_test_ppl"]),
        (JUDGED, "best_val_loss", ["best_val_loss", "judge_on", "final_test_loss"]),
        (TUNED, "final_test_loss", ["final_test_loss", 'needs judge_on = "test"']),
    ],
)
def test_a_hypothesis_is_about_the_data_that_judge_on_names(
    tmp_path: Path, text: str, metric: str, said: list[str]
) -> None:
    right = "final_test_ppl" if text == JUDGED else "final_val_ppl"
    assert right in [hypothesis.metric for hypothesis in read_study(written(tmp_path, text)).hypotheses]
    with pytest.raises(ConfigurationError) as caught:
        read_study(written(tmp_path, text.replace(right, metric)))
    for word in said:
        assert word in str(caught.value)
