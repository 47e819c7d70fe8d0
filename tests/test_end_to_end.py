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

from tests.support import REPOSITORY, held, pause_after_each_step, read, wait_until

pytestmark = pytest.mark.slow

GROUPS = ["gpt_base", "oelm_no_freeze", "oelm_freeze"]
GPT = ("submit", "--study", "tiny", "--group", "gpt_base")


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def edit(project: Path, old: str, new: str) -> None:
    path = project / "jobs" / "tiny.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


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
    there = run_dir(project, "oelm_freeze")
    treatment = read(there / "treatment.json")
    assert treatment["groups"]["qk"]["sha256_start"] == treatment["groups"]["qk"]["sha256_end"]
    listed = {file["name"] for file in read(there / "MANIFEST.json")["files"]}
    assert {
        "training.log",
        "metrics.jsonl",
        "best_model.pt",
        "checkpoint_12.pt",
        "treatment.json",
        "experiment_result.json",
    } <= listed


def test_runs_go_on_when_the_terminal_is_closed(oelm, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = held(quick)
    monkeypatch.setenv("TRAINER_HOLD", str(hold.parent))
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(quick)
        program = "from oelm_jobs.cli.submit import main; main(['--study', 'tiny', '--wait'])"
        os.execv(sys.executable, [sys.executable, "-c", program])
    try:
        wait_until(lambda: _states(oelm).count("RUNNING"), "the first run")
    finally:
        os.close(terminal)  # the kernel hangs up: SIGHUP to the session
        os.waitpid(child, 0)
    assert "QUEUED" in _states(oelm), "most of the study was still to come"
    hold.unlink()
    wait_until(lambda: _states(oelm) == ["DONE"] * 3, "all runs, without any client", 180)


def _states(oelm) -> list[str]:
    return [run["state"] for run in json.loads(oelm("status", "--json").stdout)["runs"]]


def test_a_cancelled_run_is_resumed_from_its_checkpoint_by_submitting_it_again(
    oelm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_after_each_step(project)
    monkeypatch.setenv("TEST_STEP_S", "1")
    edit(project, "max_steps = 12", "max_steps = 200")
    edit(project, "save_interval = 6", "save_interval = 2")
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze")
    there = run_dir(project, "oelm_freeze")
    wait_until(lambda: list(there.glob("checkpoint_*.pt")), "a checkpoint")
    assert oelm("cancel", "oelm_freeze").stdout == "oelm_freeze: cancelled\n"
    assert _states(oelm) == ["CANCELLED"]
    assert read(there / ".oelm" / "outcome.json")["status"] == "resumable"
    monkeypatch.delenv("TEST_STEP_S")
    assert oelm("cancel", "oelm_freeze").stdout == "oelm_freeze: is CANCELLED already\n"
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze", "--wait")
    outcome = read(there / "experiment_result.json")["outcome"]
    assert outcome["status"] == "completed" and outcome["resumed_from"] > 0 and outcome["step"] == 200


def test_a_finished_run_is_left_alone_extended_or_started_over_as_asked(oelm, project: Path) -> None:
    oelm(*GPT, "--wait")
    assert "left alone, is done" in oelm(*GPT).stdout
    edit(project, "max_steps = 12", "max_steps = 20")
    refused = oelm(*GPT, check=False)
    assert refused.returncode == 2
    assert "max_steps was 12, is 20" in refused.stderr and "--extend" in refused.stderr and "--tag" in refused.stderr
    oelm(*GPT, "--extend", "--wait")
    result = read(run_dir(project) / "experiment_result.json")
    assert result["outcome"]["step"] == 20 and result["outcome"]["resumed_from"] == 12
    assert result["extended_from"]["max_steps"] == 12 and len(result["extended_from"]["fingerprint"]) == 64
    edit(project, "d_ff = 32", "d_ff = 64")
    assert "d_ff was 32, is 64" in oelm(*GPT, "--extend", check=False).stderr
    unasked = oelm(*GPT, "--rerun", check=False)
    assert unasked.returncode == 2 and "--yes" in unasked.stderr
    oelm(*GPT, "--rerun", "--yes", "--wait")
    assert read(run_dir(project) / "experiment_result.json")["train"]["d_ff"] == 64
    archived = list((run_dir(project).parent / ".archive").iterdir())
    assert len(archived) == 1 and read(archived[0] / "experiment_result.json")["train"]["d_ff"] == 32
    assert [run["state"] for run in json.loads(oelm("status", "--json").stdout)["runs"]] == ["DONE"]


def test_the_printed_script_runs_all_its_runs_and_never_enters_another_configuration(oelm, project: Path) -> None:
    script = oelm("submit", "--study", "tiny", "--groups", "gpt_base,oelm_freeze", "--dry-run", "--script").stdout
    assert subprocess.run(["bash"], input=script, text=True, cwd=project, timeout=120).returncode == 0
    for name in ("gpt_base", "oelm_freeze"):
        assert read(run_dir(project, name) / "experiment_result.json")["status"] == "DONE"
    oelm("status", "--rebuild")
    edit(project, "d_ff = 32", "d_ff = 64")
    other = oelm(*GPT, "--dry-run", "--script").stdout
    done = subprocess.run(["bash"], input=other, text=True, cwd=project, timeout=120, capture_output=True)
    assert done.returncode == 78 and "another configuration (differs in d_ff)" in done.stderr
    assert read(run_dir(project) / "experiment_result.json")["status"] == "DONE"


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


def test_a_submission_whose_client_was_killed_is_settled_and_can_be_repeated(oelm, quick: Path) -> None:
    program = (
        "import os, signal\n"
        "from oelm_jobs.schedulers import leases\n"
        "def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "leases.LeaseScheduler.submit = die\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=quick, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    row = json.loads(oelm("status", "--json").stdout)["runs"][0]
    assert row["state"] == "FAILED" and "client ended before it was sent" in row["reason"]
    assert "submitted to local" in oelm("submit", "--study", "tiny", "--group", "gpt_base").stdout


def test_a_submission_whose_client_was_killed_after_the_launch_runs_once(oelm, quick: Path) -> None:
    program = (
        "import os, signal\n"
        "from oelm_jobs.store import Store\n"
        "def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store.answer = die\n"
        "from oelm_jobs.cli.submit import main\nmain(['--study', 'tiny', '--group', 'gpt_base'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=quick, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert "left alone" in oelm("submit", "--study", "tiny", "--group", "gpt_base").stdout
    wait_until(lambda: _states(oelm) == ["DONE"], "the run")
    result = read(run_dir(quick) / "experiment_result.json")
    assert len(result["attempts"]) == 1
