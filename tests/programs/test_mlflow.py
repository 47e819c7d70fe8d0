"""Runs that are exported to MLflow's own client and file store."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from oelm_jobs.errors import LocalError
from oelm_jobs.exporting import to_mlflow
from tests.support import REPOSITORY

RUNS = REPOSITORY / "tests" / "fixtures" / "runs"


def test_a_run_is_exported_once_and_then_its_new_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run_dir = tmp_path / "exp_gpt_base"
    shutil.copytree(RUNS / run_dir.name, run_dir)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    for count in (6, len(lines), len(lines)):
        (run_dir / "metrics.jsonl").write_text("".join(lines[:count]))
        assert to_mlflow([run_dir, RUNS / "exp_oelm_freeze"]) == uri
    client = MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name != "Default"]
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["gpt_base", "oelm_freeze"]
    run = runs["gpt_base"]
    assert run.info.status == "FINISHED" and run.data.params["model_type"] == "gpt"
    assert run.data.tags["oelm.group"] == "gpt_base" and run.data.tags["oelm.state"] == "DONE"
    for name in ("loss", "val_loss"):
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
        assert 0 < len(steps) <= len(lines) and steps == sorted(set(steps)) and max(steps) == 120


def test_an_export_that_was_cut_off_is_completed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with monkeypatch.context() as cut_off:
        cut_off.setattr(MlflowClient, "log_batch", lambda *_, **__: (_ for _ in ()).throw(MlflowException("gone")))
        with pytest.raises(LocalError, match="gone"):
            to_mlflow([RUNS / "exp_gpt_base"])
    to_mlflow([RUNS / "exp_gpt_base"])
    client = MlflowClient()
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.data.params["model_type"] == "gpt" and run.data.tags["oelm.state"] == "DONE"
