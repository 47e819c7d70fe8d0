"""A conference's checklist: what the records hold is filled in, what they can't know is marked, nothing is made up."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis.output import checklist
from oelm_jobs.analysis.report import build

from oelm_jobs.spec.sweep import Parameter, Sweep
from oelm_jobs.study import sweep

from ..synthetic import load, make_arms, make_run, study

LOSSES = {"gpt_base": [3.88, 3.885], "oelm_no_freeze": [3.85, 3.856], "oelm_freeze": [3.95, 3.957]}
SWEPT = Sweep(
    method="random", seed=3, run_cap=2,
    parameters={"max_lr": Parameter(distribution="log_uniform_values", min=1e-4, max=1e-2)},
)  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> checklist.Known:
    root = tmp_path_factory.mktemp("runs")
    runs = make_arms(root, LOSSES)
    for setting in sweep.settings(SWEPT):
        runs.append(load(make_run(root, "gpt_base", 42, tag=sweep.name(setting), train=setting, final_loss=3.9)))
    runs.append(load(make_run(root, "gpt_base", 44, status="FAILED", reason="oom")))
    asked = replace(study(seeds=(42, 43)), sweep=SWEPT, question="Does `it` keep | PPL?")
    return checklist.Known(report=build(asked, runs), runs=runs, lost=[("forgotten", 2.5), ("rerun", None)])


def items(text: str) -> dict[str, str]:
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.partition(".")[0]: part for part in parts}


def test_the_neurips_items_are_filled_from_the_records(known: checklist.Known) -> None:
    found = items(checklist.as_markdown(known, "neurips", 0.0))
    assert [*found] == ["4", "5", "6", "7", "8"]
    assert "revision `abc1234`" in found["4"] and "H2:" in found["4"] and "not locked" in found["4"]
    assert "Does \\`it\\` keep \\| PPL?" in found["4"]  # means nothing in Markdown
    assert "Search: random, seed 3, at most 2 combinations" in found["6"]
    assert "`max_lr` log_uniform_values from 0.0001 to 0.01" in found["6"]
    assert re.search(r"Best of Group A: GPT-Base: `max_lr=\S+`, of 2 combinations \(0 runs", found["6"])
    assert "% interval" in found["7"] and "standard deviation over seeds, not the standard error" in found["7"]
    assert "Seeds of Group C: OELM-Freeze: 42, 43" in found["7"]
    assert "9 runs on 1 × RTX A5000" in found["8"] and "Runs: 9 (8 DONE, 1 FAILED)" in found["8"]
    assert "besides, in the ledger: 1 forgotten" in found["8"].lower()
    hours = sum(run.gpu_hours or 0 for run in known.runs)
    assert f"Together: {hours + 2.5:.4g} GPU-hours" in found["8"]
    assert "[TODO: compute of 1 runs" in found["8"]  # the one that was started over


def test_a_claim_has_its_verdict_and_what_must_be_told_with_it(tmp_path: Path) -> None:
    make_arms(tmp_path, {name: losses for name, losses in LOSSES.items() if name != "oelm_freeze"})
    for seed, loss in zip((42, 43), LOSSES["oelm_freeze"], strict=True):
        make_run(tmp_path, "oelm_freeze", seed, final_loss=loss, train={"d_ff": 1024})
    runs = [load(path) for path in sorted(tmp_path.iterdir())]
    known = checklist.Known(report=build(study(seeds=(42, 43)), runs), runs=runs, lost=[])
    verdict = next(one for one in known.report.verdicts if one.alarms)
    item = items(checklist.as_markdown(known, "neurips", 0.0))["4"]
    assert f"{verdict.outcome}. " in item
    assert f"{verdict.hypothesis.id}, to be told with it: UNFAIR PAIR: the arms differ in d\\_ff" in item


def test_the_arr_items_are_filled_from_the_records(known: checklist.Known) -> None:
    found = items(checklist.as_markdown(known, "arr", 0.0))
    assert [*found] == ["B6", "C1", "C2", "C3", "C4"]
    assert "879,616 parameters, of which 748,544 are trained" in found["C1"]
    assert "torch 2.13.0" in found["C4"] and "log_uniform_values" in found["C2"]


def test_data_in_an_order_of_their_own_are_nothing_that_the_seed_changes(known: checklist.Known) -> None:
    assert "dropout and data order" in items(checklist.as_markdown(known, "neurips", 0.0))["7"]
    whole = known.report.study
    fixed = replace(known.report, study=replace(whole, settings={**whole.settings, "data_seed": 1}))
    found = items(checklist.as_markdown(replace(known, report=fixed), "neurips", 0.0))["7"]
    assert "weights and dropout; data_seed fixes" in found and "dropout and data order" not in found


@pytest.mark.parametrize("which", checklist.CHECKLISTS)
def test_what_no_record_knows_is_marked(which: str, tmp_path: Path) -> None:
    nothing = checklist.Known(report=build(study(), []), runs=[], lost=[])
    text = checklist.as_markdown(nothing, which, 0.0)
    assert all("[TODO: yes, no or n/a" in item for item in items(text).values())
    assert text.count("[TODO:") > len(items(text)) + 5 and "None" not in text and "nan" not in text
