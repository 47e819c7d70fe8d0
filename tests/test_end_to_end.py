"""The everyday commands on real training, from submit to report."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, read, wait_until

pytestmark = pytest.mark.slow

GROUPS = ["gpt_base", "oelm_no_freeze", "oelm_freeze"]


def test_three_groups_are_trained_watched_and_compared(oelm, project: Path) -> None:
    done = oelm("submit", "--study", "tiny", "--mode", "parallel", "--wait")
    assert "submitted to local" in done.stdout and "DONE" in done.stdout
    status = json.loads(oelm("status", "--json").stdout)
    assert status["version"] == 1
    assert [(run["name"], run["state"], run["progress"]["step"]) for run in status["runs"]] == [
        (g, "DONE", 12) for g in GROUPS
    ]
    assert "12/12" in oelm("status").stdout
    again = oelm("submit", "--study", "tiny")
    assert again.stdout.count("left alone, is done") == 3
    assert "Validation | Loss" in oelm("logs", "oelm_freeze").stdout
    report = oelm("report", "--study", "tiny", "--plot")
    folder = project / "experiments" / "tiny" / "analysis"
    for name in ("comparison_table.txt", "hypothesis_validation.txt", "analysis_results.json", "val_ppl_comparison.png",
                 "parameter_distribution.png"):  # fmt: skip
        assert (folder / name).stat().st_size > 100, name
    assert (project / "experiments" / "tiny" / "tiny_summary.json").exists()
    for hypothesis in ("H1", "H2", "H3", "H4"):
        assert hypothesis in report.stdout
    run_dir = project / "models" / "checkpoints" / "tiny" / "exp_oelm_freeze"
    treatment = read(run_dir / "treatment.json")
    assert treatment["groups"]["qk"]["sha256_start"] == treatment["groups"]["qk"]["sha256_end"]
    listed = {file["name"] for file in read(run_dir / "MANIFEST.json")["files"]}
    assert {
        "training.log",
        "metrics.jsonl",
        "best_model.pt",
        "checkpoint_12.pt",
        "treatment.json",
        "experiment_result.json",
    } <= listed


def test_runs_go_on_when_the_terminal_is_closed(oelm, project: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(project)
        program = "from oelm_jobs.cli.submit import main; main(['--study', 'tiny', '--wait'])"
        os.execv(sys.executable, [sys.executable, "-c", program])
    try:
        wait_until(lambda: _states(oelm).count("RUNNING"), "the first run")
    finally:
        os.close(terminal)  # the kernel hangs up: SIGHUP to the session
        os.waitpid(child, 0)
    assert "QUEUED" in _states(oelm), "most of the study was still to come"
    wait_until(lambda: _states(oelm) == ["DONE"] * 3, "all runs, without any client", 180)


def _states(oelm) -> list[str]:
    return [run["state"] for run in json.loads(oelm("status", "--json").stdout)["runs"]]


def test_a_cancelled_run_is_resumed_from_its_checkpoint_by_submitting_it_again(oelm, project: Path) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(
        study.read_text()
        .replace("max_steps = 12", "max_steps = 4000")
        .replace("log_interval = 2", "log_interval = 50")
        .replace("save_interval = 6", "save_interval = 100")
    )
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze")
    run_dir = project / "models" / "checkpoints" / "tiny" / "exp_oelm_freeze"
    wait_until(lambda: list(run_dir.glob("checkpoint_*.pt")), "a checkpoint")
    assert oelm("cancel", "oelm_freeze").stdout == "oelm_freeze: cancelled\n"
    assert _states(oelm) == ["CANCELLED"]
    assert read(run_dir / ".oelm" / "outcome.json")["status"] == "resumable"
    assert oelm("cancel", "oelm_freeze").stdout == "oelm_freeze: is CANCELLED already\n"
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze", "--wait")
    outcome = read(run_dir / "experiment_result.json")["outcome"]
    assert outcome["status"] == "completed" and outcome["resumed_from"] > 0 and outcome["step"] == 4000


def test_the_dry_run_prints_the_reference_study_and_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for name in ("jobs", "templates", "train"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    environment = {**os.environ, "OELM_STATE_DIR": str(tmp_path / "state"), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [sys.executable, "-c", "from oelm_jobs.cli.submit import main; main()", "--dry-run"]

    def run(*more: str) -> str:
        done = subprocess.run([*argv, *more], cwd=root, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    plan, script = run(), run("--script")
    assert "not executed" in plan
    for size, port, model in (
        (2, 29500, "gpt"),
        (2, 29501, "oelm --freeze_qk false"),
        (4, 29502, "oelm --freeze_qk true"),
    ):
        for text in (plan, script):
            assert f"--nproc_per_node {size} --master_port {port} -m train --model_type {model}" in text
    assert "16 sequences per step = 4 per GPU (--batch_size) x 4 processes" in plan
    assert "Group C: OELM-Freeze" in plan and "unequal   world_size" in plan
    assert script.count("#!/usr/bin/env bash") == 4
    assert json.loads(run("--json"))["executed"] is False
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_a_submission_whose_client_was_killed_is_settled_and_can_be_repeated(oelm, project: Path) -> None:
    program = (
        "import os, signal\n"
        "from oelm_jobs.schedulers import leases\n"
        "def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "leases.LeaseScheduler.submit = die\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    row = json.loads(oelm("status", "--json").stdout)["runs"][0]
    assert row["state"] == "FAILED" and "client ended before it was sent" in row["reason"]
    assert "submitted to local" in oelm("submit", "--study", "tiny", "--group", "gpt_base").stdout


def test_a_submission_whose_client_was_killed_after_the_launch_runs_once(oelm, project: Path) -> None:
    program = (
        "import os, signal\n"
        "from oelm_jobs.store import Store\n"
        "def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.answer = die\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert "left alone" in oelm("submit", "--study", "tiny", "--group", "gpt_base").stdout
    wait_until(lambda: _states(oelm) == ["DONE"], "the run")
    result = read(project / "models" / "checkpoints" / "tiny" / "exp_gpt_base" / "experiment_result.json")
    assert len(result["attempts"]) == 1
