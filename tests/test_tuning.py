"""Tuning from the first trial to the verdict, with a program that takes no time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from oelm_jobs import Project
from oelm_jobs.errors import UsageError
from tests.study.test_tuning import TUNED_PROGRAM

Command = Callable[..., "CompletedProcess[str]"]
TRAIN = """
import argparse, math, sys
parser = argparse.ArgumentParser()
parser.add_argument("--optimizer")
parser.add_argument("--lr", type=float)
parser.add_argument("--seed", type=int)
a = parser.parse_args()
if (a.optimizer, a.lr) == ("sgd", 1.0):
    sys.exit("too large")
best = {"adam": 1e-3, "sgd": 1e-2}[a.optimizer]
loss = 1 + abs(math.log10(a.lr / best)) + a.seed % 7 / 1000 + (a.optimizer == "sgd") / 5
print(f"step 1: loss {loss} test {loss + 0.1}", flush=True)
"""
"""Each optimizer has its own best rate, and sgd fails at the largest."""


@pytest.fixture
def tuning(project: Path) -> Path:
    """A project whose study tunes a program."""
    text = TUNED_PROGRAM.replace("values = [1e-3, 1e-2]", "values = [1e-3, 1e-2, 1.0]")
    text = text.replace('{ optimizer = "adam" }', '{ optimizer = "adam", gpus = 0 }')
    text = text.replace('{ optimizer = "sgd" }', '{ optimizer = "sgd", gpus = 0 }')
    for path in (project / "jobs").glob("*.toml"):
        path.unlink()
    (project / "jobs" / "tune.toml").write_text(text)
    (project / "train.py").write_text(TRAIN)
    return project


@pytest.mark.slow
def test_what_is_tuned_is_chosen_by_all_trials_recorded_locked_and_confirmed(tuning: Path, oelm: Command) -> None:
    early = oelm("submit", "--confirm", check=False)
    assert early.returncode == 2 and "not every trial is over" in early.stderr
    assert "oelm-submit --study tune" in early.stderr, "the command that runs them"
    for refused, why in (
        (("--tag", "confirm"), "is what runs are called that confirm"),
        (("--seeds", "101"), "by which nothing may be chosen"),
        (("--confirm", "--seeds", "7"), "exclude each other"),
    ):
        done = oelm("submit", *refused, check=False)
        assert done.returncode == 2 and why in " ".join(done.stderr.split())
    trials = oelm("submit", "--mode", "parallel", "--wait", check=False)
    assert trials.returncode == 1, "two trials fail, which were tried all the same"
    shown = oelm("submit", "--confirm", "--dry-run").stdout
    assert "adam: lr = 0.001  (6 trials, 0 failed)" in shown and "sgd: lr = 0.01  (6 trials, 2 failed)" in shown
    study = tuning / "jobs" / "tune.toml"
    as_tried = study.read_text()
    study.write_text(
        as_tried.replace('optimizer = "sgd"', 'optimizer = "adam"').replace(
            'optimizer = "adam"', 'optimizer = "sgd"', 1
        )
    )
    other = oelm("submit", "--confirm", "--dry-run", check=False)
    assert other.returncode == 2 and "another configuration" in " ".join(other.stderr.split())
    study.write_text(as_tried)
    place = tuning / "experiments" / "tune"
    assert not place.exists(), "a dry run leaves nothing behind"
    planned = json.loads(oelm("submit", "--confirm", "--dry-run", "--json").stdout)
    assert planned["chosen"] == {"adam": {"lr": 1e-3}, "sgd": {"lr": 1e-2}}
    oelm("submit", "--confirm", "--mode", "parallel", "--wait", "--json")
    assert (place / "tune_lock.json").exists() and (place / "tune_choice.json").exists()
    names = {run.name for run in Project(tuning).runs() if run.tag == "confirm"}
    assert names == {f"{group}-s{seed}-confirm" for group in ("adam", "sgd") for seed in (101, 102)}
    (verdict,) = Project(tuning).report().verdicts
    assert (verdict.outcome, verdict.count, verdict.alarms) == ("supported", 2, ())
    assert {value.run for value in verdict.group} == {"adam-s101-confirm", "adam-s102-confirm"}

    # A trial that is run again with another result doesn't change what was chosen, and is told.
    recorded = json.loads((place / "tune_choice.json").read_text())
    train = tuning / "train.py"
    train.write_text(TRAIN.replace("loss = 1 +", "loss = 9 - "))
    oelm("submit", "--rerun", "--yes", "--group", "adam", "--mode", "parallel", "--wait")
    again = oelm("submit", "--confirm", "--dry-run")
    assert "adam: lr = 0.001" in again.stdout
    assert "tried and thrown away: adam 6, sgd 0" in " ".join(again.stderr.split()), "the first results count"
    assert json.loads((place / "tune_choice.json").read_text()) == recorded
    (verdict,) = Project(tuning).report().verdicts
    assert any("thrown away: adam 6, sgd 0" in alarm for alarm in verdict.alarms)

    # Nor does one arm get more trials by forgetting what they gave.
    oelm("submit", "--set", "lr=5e-3", "--tag", "more", "--group", "sgd", "--wait")
    oelm("forget", "sgd-more", "sgd-s2-more", "--yes")
    (verdict,) = Project(tuning).report().verdicts
    assert any("thrown away" in alarm and "sgd-s2-more" in alarm for alarm in verdict.alarms)


@pytest.mark.slow
def test_a_study_that_tunes_nothing_confirms_nothing_and_needs_its_seeds(tuning: Path) -> None:
    path, project = tuning / "jobs" / "tune.toml", Project(tuning)
    text = path.read_text()
    path.write_text(text.replace("confirm_seeds = [101, 102]\n", ""))
    with pytest.raises(UsageError, match="confirm_seeds is missing"):
        project.choose()
    path.write_text(text.replace("confirm_seeds = [101, 102]\n", "").replace('tuned = ["lr"]\n', ""))
    with pytest.raises(UsageError, match="tunes nothing"):
        project.choose()
