"""The study of a script from its file to the report: audit, lock and tables know what the study says of its program."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import power
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.output import writing
from oelm_jobs.analysis.reading import loading, reference, run_directory
from oelm_jobs.analysis.report import build

from oelm_jobs.spec.study import Study
from oelm_jobs.study import files

from . import synthetic

STUDY = """
question = "Which learning rate does it want?"
factors = ["lr"]
seeds = [1, 2, 3]

[program]
command = "python train.py {settings} --seed={seed}"
length = "max_iters"
execution = ["compile"]

[settings]
max_iters = 2000
compile = false

[metrics]
lines = ["step {step}: loss {train_loss}"]
files = ["metrics.csv"]
goal = { val_loss = "minimize", accuracy = "maximize" }

[groups]
low  = { lr = 3e-4 }
high = { lr = 1e-3 }

[hypotheses]
H1 = { metric = "val_loss", group = "high", against = "low", reduction = [0.01, inf] }
H2 = { metric = "accuracy", group = "high", against = "low", scale = "difference", at_most_below = 0.01, at = "best" }
H3 = { metric = "train_loss", group = "high", against = "low", at_most_above = 0.05 }
H4 = { metric = "gpu_hours", group = "high", against = "low", at_most_above = 0.05 }
"""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "jobs" / "rates.toml"
    path.parent.mkdir()
    path.write_text(STUDY)
    return files.read_study(path)


def changed(path: Path, **settings: object) -> None:
    """Change settings in the records of a run."""
    for name in (".oelm/run.json", "experiment_result.json"):
        content = json.loads((path / name).read_text())
        content["program"]["settings"].update(settings)
        (path / name).write_text(json.dumps(content))


def test_hypotheses_of_a_study_file_are_judged_by_what_its_runs_told(study: Study, tmp_path: Path) -> None:
    found = build(study, synthetic.script_runs(tmp_path / "runs"))
    assert [verdict.outcome for verdict in found.verdicts] == ["supported", "supported", "supported", "undecidable"]
    assert found.findings == () and found.goals == {**synthetic.SCORES, "train_loss": ""}
    assert [verdict.hypothesis.goal for verdict in found.verdicts] == ["minimize", "maximize", "", "minimize"]


def test_what_a_study_says_of_its_validation_data_stands_in_its_verdicts_and_its_lock(
    study: Study, tmp_path: Path
) -> None:
    said = STUDY.replace("goal = {", 'sampled = ["val_loss", "train_loss"]\nfull = ["accuracy"]\ngoal = {')
    study.path.write_text(said)
    declared = files.read_study(study.path)
    assert [h.measured for h in declared.hypotheses] == ["sampled", "full", "sampled", ""]
    found = build(declared, synthetic.script_runs(tmp_path / "runs"))
    notes = [" ".join(verdict.notes) for verdict in found.verdicts]
    assert "val_loss was measured on a part of" in notes[0] and "accuracy was measured on all of" in notes[1]
    locked = lock.Lock(version=1, study="rates", locked_at=0.0, plan=lock.plan_of(declared), plan_sha256="")
    study.path.write_text(said.replace('sampled = ["val_loss", "train_loss"]', 'sampled = ["train_loss"]'))
    later = [str(each) for each in lock.deviations(locked, files.read_study(study.path), [])]
    assert later == ['program.metrics.measured.val_loss = "sampled" was removed']
    study.path.write_text(said.replace('"val_loss", "train_loss"]\nfull = [', '"train_loss"]\nfull = ["val_loss", '))
    later = [str(each) for each in lock.deviations(locked, files.read_study(study.path), [])]
    assert later == ['program.metrics.measured.val_loss was "sampled" and is "full"']
    del locked.plan["program"]["metrics"]["measured"]
    assert lock.deviations(locked, declared, []) == [], "a lock from before this was locked"


def test_metrics_that_a_study_names_only_after_its_runs_are_said_to_be_read_by_no_rule_of_theirs(
    study: Study, tmp_path: Path
) -> None:
    study.path.write_text(STUDY.replace('files = ["metrics.csv"]', 'files = ["metrics.csv", "more.csv"]'))
    found = build(files.read_study(study.path), synthetic.script_runs(tmp_path / "runs"))
    (said,) = (str(finding.text) for finding in found.findings)
    assert said.startswith("[metrics] of the study came to name more since ") and "--rerun starts them over" in said


@pytest.mark.slow
def test_before_any_run_the_report_is_that_of_a_script(study: Study) -> None:
    found = build(study, [])
    made = writing.show(found, "text", "en", 0.0) + writing.show_table(power.table(found), "text", "en")
    assert "PPL" not in made and "interim" in made
    assert [row[2].value for row in power.table(found).rows] == ["assumed", "no spread seen yet", "assumed", "assumed"]


def test_settings_that_differ_are_unfair_unless_they_are_declared_or_of_execution(study: Study, tmp_path: Path) -> None:
    for seed, (loss, accuracy) in enumerate(((1.52, 0.6), (1.55, 0.61), (1.5, 0.62)), start=1):
        synthetic.make_script_run(tmp_path, "low", seed, loss, accuracy)
        changed(synthetic.make_script_run(tmp_path, "high", seed, loss - 0.05, accuracy + 0.02), wd=0.1, compile=True)
        changed(tmp_path / ("exp_low" if seed == 1 else f"exp_low-s{seed}"), wd=0.2, compile=False)
    paths = sorted(tmp_path.glob("exp_*"))
    runs = [run_directory.load(path, now=synthetic.START, groups=("low", "high")) for path in paths]
    found = build(study, runs)
    unfair = [finding.key for finding in found.findings if finding.severity == "unfair"]
    assert unfair == ["wd"] and "UNFAIR PAIR" in str(found.verdicts[0].alarms[0])
    assert [d.key for d in found.differences] == ["wd", "compile"]
    declared = build(replace(study, unequal={"wd": "it is tuned"}), runs)
    assert [finding.severity for finding in declared.findings if finding.key == "wd"] == ["declared"]


def test_where_only_folders_are_named_a_setting_with_the_seed_in_it_is_no_difference(tmp_path: Path) -> None:
    for seed in (1, 2):
        for group, loss in (("low", 1.5), ("high", 1.45)):
            path = synthetic.make_script_run(tmp_path, group, seed, loss + seed / 100, 0.6)
            changed(path, **{"training.seed": seed})
    made_up, runs = loading.load_folders([tmp_path], [], None, at=synthetic.START)
    assert reference.is_made_up(made_up)
    found = build(made_up, runs)
    assert not [finding for finding in found.findings if finding.key == "training.seed"]
    assert "val_loss_last" in [column.key for column in found.tables[0].columns]


def test_a_lock_with_an_infinite_bound_can_be_read_again(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "rates_lock.json"
    path.write_bytes(lock.content(study, [], {}, 0.0))
    locked = lock.read(path)
    assert locked is not None and locked.plan["hypotheses"]["H1"]["bounds"] == [0.01, "inf"]
    assert lock.deviations(locked, study, []) == [] and lock.rule_deviations(locked, study) == {}


def test_a_lock_holds_commands_and_metrics_of_a_script(study: Study) -> None:
    assert study.program is not None
    locked = lock.Lock(
        version=1, study=study.name, locked_at=0.0, plan=lock.plan_of(study), plan_sha256="", fingerprints={}
    )
    assert lock.deviations(locked, study, []) == []
    longer = replace(study, program=replace(study.program, stop_s=90.0))
    assert lock.deviations(locked, longer, []) == []
    goal = replace(study.program, metrics=replace(study.program.metrics, goal={"val_loss": "maximize"}))
    said = [str(each) for each in lock.deviations(locked, replace(study, program=goal), [])]
    assert any("program.metrics.goal.val_loss" in each for each in said), said
    assert "program" not in lock.plan_of(synthetic.study())
