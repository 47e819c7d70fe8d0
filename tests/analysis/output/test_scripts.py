"""Reports on what scripts tell: their own metrics by name, and nothing that only the built-in trainer has."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oelm_jobs.analysis import figures
from oelm_jobs.analysis.output import page, plain_text, results, writing
from oelm_jobs.analysis.reading import run_directory
from oelm_jobs.analysis.reading.loaded_run import Series
from oelm_jobs.analysis.report import Report, build

from oelm_jobs.frames import data_frame
from oelm_jobs.spec.study import Hypothesis

from .. import synthetic
from .test_golden import AT, compare

LOSS = Hypothesis(
    id="H1", metric="val_loss", group="high", against="low", relation="reduction", bounds=(0.01, 0.1), is_told=True
)
ACCURACY = Hypothesis(
    id="H2", metric="accuracy", group="high", against="low", relation="increase", bounds=(0.01, math.inf), is_told=True,
    scale="difference", goal="maximize",
)  # fmt: skip
BEST = Hypothesis(
    id="H3", metric="accuracy", group="high", against="low", relation="equivalent_within", bounds=(0.01,), is_told=True,
    scale="difference", goal="maximize", at="best",
)  # fmt: skip
FORMS = ("text", "markdown", "latex", "json", "html")


def report(root: Path, **options: object) -> Report:
    return build(synthetic.script_study(LOSS, ACCURACY, BEST), synthetic.script_runs(root, **options))


@pytest.mark.parametrize(("form", "language"), [("text", "en"), ("text", "zh"), ("json", "en")])
def test_the_report_of_a_script_is_what_it_was(tmp_path: Path, form: str, language: str) -> None:
    ending = {"text": "txt", "json": "json"}[form]
    compare(
        f"script{'.zh' if language == 'zh' else ''}.{ending}",
        writing.show(report(tmp_path), form, language, AT).replace(str(tmp_path), "RUNS"),
    )


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_said_of_what_only_the_built_in_trainer_has(tmp_path: Path, form: str) -> None:
    made = writing.show(report(tmp_path), form, "en", AT)
    for word in ("PPL", "_ppl", "Total parameters", "total_params", "Tokens", "Peak memory", "Q/K", "validation file"):
        assert word not in made, word
    assert "val_loss" in made or r"val\_loss" in made


def test_tables_have_the_last_and_the_best_value_of_each_metric_by_its_goal(tmp_path: Path) -> None:
    made = report(tmp_path)
    rows = list(csv.DictReader(io.StringIO(plain_text.as_csv(made.tables[0]))))
    assert float(rows[1]["val_loss_last"]) == pytest.approx((1.47 + 1.495 + 1.455) / 3)
    assert float(rows[1]["gap_to_baseline"]) == pytest.approx(-0.05) and rows[0]["gap_to_baseline"] == ""
    assert float(rows[1]["val_loss_best"]) <= float(rows[1]["val_loss_last"])
    assert float(rows[1]["accuracy_best"]) >= float(rows[1]["accuracy_last"])
    runs = list(csv.DictReader(io.StringIO(plain_text.as_csv(made.tables[1]))))
    assert [row["run"] for row in runs] == ["low", "low-s2", "low-s3", "high", "high-s2", "high-s3"]
    assert runs[0]["val_loss_last"] == "1.52" and runs[0]["best_step"] and "train_loss_last" not in runs[0]
    verdicts = list(csv.DictReader(io.StringIO(results.verdicts_csv(made))))
    assert float(verdicts[0]["difference"]) == pytest.approx(-0.05) and float(verdicts[1]["ratio"]) > 0, "both scales"
    assert float(verdicts[1]["difference_low"]) < float(verdicts[1]["difference"]) == pytest.approx(0.061 / 3)


def test_without_goals_all_metrics_are_shown_by_their_last_values(tmp_path: Path) -> None:
    made = build(synthetic.script_study(), synthetic.script_runs(tmp_path, goal={}))
    keys = [column.key for column in made.tables[0].columns]
    assert [key for key in keys if key.endswith(("_last", "_best"))] == [
        "train_loss_last", "val_loss_last", "accuracy_last",
    ]  # fmt: skip


def test_steps_to_a_target_are_counted_by_the_goal_and_censored_where_it_was_not_reached(tmp_path: Path) -> None:
    runs = synthetic.script_runs(tmp_path)
    made = build(synthetic.script_study(), runs, target_loss=1.52).tables[0]
    at = [column.key for column in made.columns].index("steps_to_target")
    assert made.rows[0][at].value == 2000 and made.rows[1][at].value < 2000
    assert any("Target: val_loss 1.5200, as asked" in str(remark) for remark in made.remarks)
    runs = [replace(run, goals={"accuracy": "maximize"}) for run in runs]
    made = build(synthetic.script_study(), runs, target_loss=0.62).tables[0]
    at = [column.key for column in made.columns].index("steps_to_target")
    assert (made.rows[0][at].prefix, made.rows[0][at].value) == ("> ", 2000) and made.rows[1][at].prefix == ""
    assert "steps_to_target" not in [column.key for column in build(synthetic.script_study(), runs).tables[0].columns]


def test_gpus_have_columns_only_where_somebody_has_some(tmp_path: Path) -> None:
    for device, expected in (("cpu:0", set()), ("n1/cpu", set()), ("n1/gpu:a100:0", {"gpus", "gpu_hours"})):
        made = build(synthetic.script_study(), synthetic.script_runs(tmp_path / device, device=device))
        keys = {column.key for column in made.tables[0].columns}
        assert keys & {"gpus", "gpu_hours", "sequences_per_step", "peak_gpu_mem_gb"} == expected, device
        assert "hours" in keys


def test_runs_that_went_on_from_a_checkpoint_are_not_paired_and_the_audit_says_so(tmp_path: Path) -> None:
    exact, inexact = report(tmp_path / "a"), report(tmp_path / "b", inexact=True)
    assert [verdict.method for verdict in exact.verdicts] == ["paired"] * 3 and exact.findings == ()
    assert [verdict.method for verdict in inexact.verdicts] == ["welch"] * 3
    said = [str(finding.text) for finding in inexact.findings]
    assert said[0].startswith("low, low-s2, low-s3 went on from a checkpoint") and "not paired" in said[0]


def test_a_run_without_the_main_metric_and_copies_of_it_are_found(tmp_path: Path) -> None:
    silent = synthetic.make_script_run(tmp_path, "low", 1, 1.5, 0.6)
    (silent / "metrics.csv").write_text("step,lr\n10,0.1\n")
    ends = [synthetic.make_script_run(tmp_path, group, 2, 1.5, 0.6) for group in ("low", "high")]
    (ends[1] / "metrics.csv").write_bytes((ends[0] / "metrics.csv").read_bytes())
    runs = [run_directory.load(path, now=synthetic.START, groups=("low", "high")) for path in (silent, *ends)]
    said = " ".join(str(finding.text) for finding in build(synthetic.script_study(LOSS, seeds=(1, 2)), runs).findings)
    assert "low told no val_loss, the main metric" in said
    assert "low-s2 and high-s2 told the same val_loss to the last digit" in said


@pytest.mark.slow
def test_a_run_whose_main_metric_ends_as_no_number_has_diverged(tmp_path: Path) -> None:
    path = synthetic.make_script_run(tmp_path, "low", 1, math.nan, 0.6)
    run = run_directory.load(path, now=synthetic.START)
    assert run.diverged and math.isfinite(run.series["accuracy"].last.value)
    made = build(synthetic.script_study(LOSS, ACCURACY), [run, *synthetic.script_runs(tmp_path / "others")[1:]])
    assert [verdict.outcome for verdict in made.verdicts] == ["inconclusive", "inconclusive"]
    assert len(figures.draw(made, "en", tmp_path)[0]) == 4


@pytest.mark.slow
def test_names_of_metrics_from_anywhere_harm_no_form_and_no_figure(tmp_path: Path) -> None:
    name = "a_b 5% & c#d $x^2$ {\\cmd} <script>\x1b[31m " + "long" * 30
    names = ["\x1b[31m", "$x", "eval/f1@k", name]
    runs = []
    for group in ("low", "high"):
        path = synthetic.make_script_run(tmp_path, group, 1, 1.5, 0.6, goal=dict.fromkeys(names, "maximize"))
        lines = (json.dumps({"step": step, **dict.fromkeys(names, step)}) for step in (1, 2, 3))
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        runs.append(run_directory.load(path, now=synthetic.START))
    made = build(synthetic.script_study(seeds=(1,)), runs)
    drawn, _remarks = figures.draw(made, "en", tmp_path)
    for form in FORMS:
        shown = writing.show(made, form, "en", AT, drawn)
        assert "\x1b" not in shown and "<script>\x1b" not in shown and (form != "html" or "&lt;script&gt;" in shown)
    files = writing.write(made, tmp_path / "out", drawn, summary=None, made_at=AT)
    assert {path.name for path in files} >= {"metrics.png", "verdicts.png", "comparison.csv"}
    assert "parameters.csv" not in {path.name for path in files}


@pytest.mark.slow
def test_the_page_has_the_curves_of_every_metric_and_no_columns_without_values(tmp_path: Path) -> None:
    made = report(tmp_path)
    drawn, _remarks = figures.draw(made, "en", tmp_path)
    assert [path.name for path, _content in drawn] == ["metrics.png", "metrics.svg", "verdicts.png", "verdicts.svg"]
    assert "Trainer code" not in page.as_html(made, "en", AT, drawn)
    with figures.drawing.style(None):
        figure = figures.OF_SCRIPTS["metrics"](made, figures.drawing.arms(made.groups, made.labels), str)
    assert [axes.get_ylabel() for axes in figure.axes] == ["val_loss", "accuracy", "train_loss"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"Step"}
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == ["High rate  1.4733", "Low rate  1.5233"]


@pytest.mark.slow
def test_a_report_of_scripts_without_any_values_is_made(tmp_path: Path) -> None:
    path = synthetic.make_script_run(tmp_path, "low", 1, 1.5, 0.6, status="RUNNING", goal={})
    (path / "metrics.csv").unlink()
    made = build(synthetic.script_study(LOSS), [run_directory.load(path, now=synthetic.START)])
    drawn, _remarks = figures.draw(made, "en", tmp_path)
    for form in FORMS:
        assert "PPL" not in writing.show(made, form, "en", AT, drawn)


def test_data_frames_have_what_scripts_told(tmp_path: Path) -> None:
    frame = data_frame(report(tmp_path).runs)
    assert frame["val_loss_last"].tolist() == [1.52, 1.55, 1.5, 1.47, 1.495, 1.455]
    assert (frame["accuracy_best"] >= frame["accuracy_last"]).all() and "train_loss_best" not in frame
    verdicts = data_frame(report(tmp_path / "again").verdicts)
    assert verdicts["ratio"].notna().tolist() == verdicts["difference"].isna().tolist() == [True, False, False]


def test_metrics_that_all_runs_tell_alike_are_not_drawn(tmp_path: Path) -> None:
    runs = []
    for group, ends in (("low", 1.5), ("high", 1.4)):
        path = synthetic.make_script_run(tmp_path, group, 1, ends, 0.6)
        rows = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()]
        told = [",".join([*row, "epoch" if i == 0 else str(i // 10)]) for i, row in enumerate(rows)]
        (path / "metrics.csv").write_text("\n".join(told) + "\n")
        runs.append(run_directory.load(path, now=synthetic.START))
    made = build(synthetic.script_study(seeds=(1,)), runs)
    assert all("epoch" in run.series for run in runs)
    with figures.drawing.style(None):
        figure = figures.OF_SCRIPTS["metrics"](made, figures.drawing.arms(made.groups, made.labels), str)
    assert [axes.get_ylabel() for axes in figure.axes] == ["val_loss", "accuracy", "train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "values", [(1.7e308, 1.7e308), (-1.7e308, 1.7e308), (1e200, 0.0), (math.nan, -1e-320)], ids=str
)
def test_no_value_that_a_float_can_hold_stops_a_report(tmp_path: Path, values: tuple[float, float]) -> None:
    runs = []
    for run, value in zip(synthetic.script_runs(tmp_path), [*values, *values, *values], strict=True):
        told = Series(step=np.array([1, 2, 3]), value=np.array([values[0], 1.0, value]))
        runs.append(replace(run, series=dict.fromkeys(run.goals, told)))
    made = build(synthetic.script_study(LOSS, ACCURACY, BEST), runs)
    drawn, _remarks = figures.draw(made, "en", tmp_path)
    for form in FORMS:
        assert " nan" not in writing.show(made, form, "en", AT, drawn)
