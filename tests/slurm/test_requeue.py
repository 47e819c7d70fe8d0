"""Runs that Slurm stops and starts again: time limits, preemption, requeues, dead nodes; the result is the same bit for
bit as without any of it.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from tests.slurm.testbed import Testbed
from tests.support import kill, pause_after_each_step, read, wait_until

pytestmark = pytest.mark.slow

STEPS = 600
CHANGES = [
    ("max_steps = 12", f"max_steps = {STEPS}"),
    ("log_interval = 2", "log_interval = 20"),
    ("val_interval = 6", "val_interval = 200"),
    ("save_interval = 6", "save_interval = 50"),
]


def slow_down(project: Path) -> None:
    """Let the study's trainer take its time for many steps."""
    pause_after_each_step(project)
    study = project / "jobs" / "tiny.toml"
    for old, new in CHANGES:
        assert old in study.read_text()
        study.write_text(study.read_text().replace(old, new))


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def job_of(project: Path, name: str = "gpt_base") -> str:
    return str(read(run_dir(project, name) / ".oelm" / "start.json")["job"])


def steps_made(project: Path) -> int:
    try:
        return int(read(run_dir(project) / "heartbeat.json")["step"])
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def wait_for_steps(project: Path, least: int) -> None:
    wait_until(lambda: steps_made(project) >= least, f"step {least}")


def release_when_requeued(cluster: Testbed, job: str) -> None:
    """Wait until a job is pending again, and let it start at once."""
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "the job to be pending again")
    cluster.release(job)


def limit_soon(cluster: Testbed, job: str, warning_s: int) -> None:
    """Give a job that runs the next whole minute as its time limit at which Slurm, which looks every 30 s, still warns
    in time: at most 90 s after the warning that it is asked for.
    """
    days, _, clock = cluster.job(job)["RunTime"].rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    made = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    limit = -(-(made + warning_s + 30) // 60)
    cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")


@pytest.fixture
def uninterrupted(oelm, project: Path) -> Any:
    """Return what the same run makes without any interruption, after the test: it needs the project's final files."""

    def make() -> Path:
        oelm("submit", "--study", "tiny", "--group", "gpt_base", "--tag", "whole", "--target", "local", "--wait")
        return run_dir(project, "gpt_base-whole")

    return make


def assert_same_training(one: Path, other: Path) -> None:
    """Compare weights, optimizer state and recorded losses of two runs bit by bit."""
    import torch

    contents = [torch.load(path / f"checkpoint_{STEPS}.pt", weights_only=True) for path in (one, other)]
    assert contents[0]["model"].keys() == contents[1]["model"].keys()
    for name, tensor in contents[0]["model"].items():
        assert torch.equal(tensor, contents[1]["model"][name]), name
    assert _losses(one) == _losses(other)


def _losses(folder: Path) -> dict[int, Any]:
    """Return losses by step; the last record of a step wins, and a stop adds records at steps of its own."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: (r["loss"], r.get("val_loss")) for r in records if r["step"] % 200 == 0}


def attempts(project: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(run_dir(project) / "experiment_result.json")["attempts"]
    return found


def test_time_limit_preemption_and_requeue_leave_no_mark_on_the_result(
    oelm, project: Path, target, cluster: Testbed, wait_for, uninterrupted
) -> None:
    slow_down(project)
    pace = project / "pace"
    pace.write_text("0.1")
    target({"nodelist": "n1", "partition": "low"}, warning_s=45, setup=[f"export TEST_STEP_S=$(cat {pace})"])
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    following = subprocess.Popen(
        [sys.executable, "-c", "from oelm_jobs.cli.logs import main; main()", "gpt_base", "-f", "-n", "1000"],
        cwd=project,
        stdout=(project / "followed").open("wb"),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(project, 10)
    job = job_of(project)
    cluster.run("scontrol", "requeue", job)
    assert "after requeue" in wait_for("gpt_base", "QUEUED")["reason"]
    pace.write_text("1")  # however late a busy machine makes room for the urgent job
    release_when_requeued(cluster, job)
    wait_for_steps(project, steps_made(project) + 3)
    urgent = ["sbatch", "--parsable", "-p", "high", "-w", "n1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"]
    cluster.run(*urgent)
    assert "after preemption" in wait_for("gpt_base", "QUEUED")["reason"]
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "the job to be pending again")
    pace.write_text("0.5")  # its 600 steps outlast any warning
    cluster.release(job)
    wait_for("gpt_base", "RUNNING")
    wait_for_steps(project, steps_made(project) + 3)
    limit_soon(cluster, job, warning_s=45)
    assert "after time limit" in wait_for("gpt_base", "QUEUED")["reason"]
    pace.write_text("0")
    cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=30")  # a slow machine would come to the limit again
    release_when_requeued(cluster, job)
    row = wait_for("gpt_base", "DONE", "FAILED")
    assert row["state"] == "DONE", row["reason"]
    made = attempts(project)
    assert [a["cause"] for a in made] == ["requeue", "preemption", "timeout", ""]
    assert [(a["job"], a["restart"]) for a in made] == [(job, 0), (job, 1), (job, 2), (job, 3)]
    assert all(a["steps"] > 0 for a in made), "each attempt wrote a checkpoint before it was ended"
    log = oelm("logs", "gpt_base", "--lines", "1000").stdout
    assert log.count("Total parameters") == len(made), "one log over all starts"
    assert sum(a["steps"] for a in made) == STEPS, "none was made twice"
    ends = list(itertools.accumulate(a["steps"] for a in made))[:-1]
    assert re.findall(r"Resumed from step (\d+)", log) == [str(step) for step in ends]
    _, said = following.communicate(timeout=300)
    assert following.returncode == 0, said
    assert (project / "followed").read_text() == log, "and it was followed through all of them"
    assert_same_training(run_dir(project), uninterrupted())


def test_a_preemption_whose_notice_goes_to_the_ranks_alone_is_no_crash(
    oelm, project: Path, target, cluster: Testbed, wait_for
) -> None:
    """With a GraceTime, the steps of a job on several nodes have SIGTERM long before the batch process."""
    slow_down(project)
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('label = "Group A: GPT-Base", ', 'label = "A", gpus = 2, '))
    pace = project / "pace"
    pace.write_text("0.5")  # however late a busy machine makes room for the urgent job
    target({"nodes": 2, "partition": "low"}, setup=[f"export TEST_STEP_S=$(cat {pace})"])
    cluster.run("scontrol", "update", "PartitionName=low", "GraceTime=60")
    try:
        oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
        wait_for_steps(project, 10)
        job = job_of(project)
        urgent = ["-p", "high", "-N", "2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"]
        cluster.run("sbatch", "--parsable", *urgent)
        assert "after preemption" in wait_for("gpt_base", "QUEUED", "FAILED")["reason"]
    finally:
        cluster.run("scontrol", "update", "PartitionName=low", "GraceTime=0")
    pace.write_text("0")
    release_when_requeued(cluster, job)
    row = wait_for("gpt_base", "DONE", "FAILED")
    assert row["state"] == "DONE", row["reason"]
    made = attempts(project)
    assert [a["cause"] for a in made] == ["preemption", ""] and sum(a["steps"] for a in made) == STEPS


# With a stand-in for training -----------------------------------------------------------------------------------------


@pytest.fixture
def submit(oelm, project: Path, target, stand_in: str, cluster: Testbed) -> Any:
    """Submit a run of the stand-in trainer: ``submit(sbatch={...}, step_s=0.1, ...)`` with keys of the target."""

    def run(*arguments: str, sbatch: Any = None, step_s: float = 0.1, steps: int = 100000, **keys: Any) -> None:
        study = project / "jobs" / "tiny.toml"
        study.write_text(study.read_text().replace("max_steps = 12", f"max_steps = {steps}"))
        target(sbatch, python=stand_in, setup=[f"export TRAINER_STEP_S={step_s}"], **keys)
        oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster", *arguments)

    return run


def test_a_run_whose_budget_of_time_outs_is_used_up_fails_and_can_be_resumed(
    submit, project: Path, cluster: Testbed, wait_for
) -> None:
    submit(sbatch={"time": 30}, warning_s=60, max_timeouts=0)
    wait_for_steps(project, 1)
    limit_soon(cluster, job_of(project), warning_s=60)
    row = wait_for("gpt_base", "FAILED")
    assert row["reason"] == "time limit reached 1 times (max_timeouts = 0): submit again to resume"
    assert attempts(project)[0]["steps"] > 0


def test_two_starts_in_a_row_without_a_step_end_the_run_instead_of_going_on_for_ever(
    oelm, project: Path, target, cluster: Testbed, wait_for
) -> None:
    python = project / "python"
    python.write_text(f'#!/bin/sh\n[ "$2" != train ] || exec sleep 600\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    target({"time": 3}, python=str(python))
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    job = wait_for("gpt_base", "RUNNING")["job"]
    start = run_dir(project) / ".oelm" / "start.json"
    for number in (1, 2):
        wait_until(lambda n=number: start.exists() and read(start)["number"] == n, "the start")
        cluster.run("scancel", "--signal=USR1", "--batch", job)  # what Slurm sends before the time limit
        if wait_for("gpt_base", "QUEUED", "FAILED")["state"] == "QUEUED":
            release_when_requeued(cluster, job)
            wait_for("gpt_base", "RUNNING")
    row = wait_for("gpt_base", "FAILED")
    assert row["reason"] == "the time limit is too short: two starts in a row made no step"


def test_crashes_and_requeues_have_budgets_of_their_own(submit, project: Path, cluster: Testbed, wait_for) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_retries = 0", "max_retries = 2"))
    submit(step_s=0.05)
    job = wait_for("gpt_base", "RUNNING")["job"]
    wait_until((run_dir(project) / "heartbeat.json").exists, "a step")

    def crash() -> None:
        def trainers() -> tuple[int, list[processes.Identity]] | None:
            start = read(run_dir(project) / ".oelm" / "start.json")
            found = processes.of_run(run_dir(project), attempt=f"{start['token']}:{start['number']}")
            return (start["number"], found) if found else None

        number, found = wait_until(trainers, "the trainer of the newest attempt")
        kill(found)
        wait_until(
            lambda: (
                read(run_dir(project) / ".oelm" / "start.json")["number"] > number
                or wait_for("gpt_base", "RUNNING", "FAILED")["state"] == "FAILED"
            ),
            "what follows",
        )

    crash()
    for _ in range(2):
        wait_until(lambda: processes.of_run(run_dir(project)), "the trainer")
        cluster.run("scontrol", "requeue", job)
        wait_for("gpt_base", "QUEUED")
        release_when_requeued(cluster, job)
        wait_for("gpt_base", "RUNNING")
    crash()
    crash()
    assert wait_for("gpt_base", "FAILED")["reason"].startswith("killed by SIGKILL")
    assert [a["cause"] for a in attempts(project)] == ["crash", "requeue", "requeue", "crash", "crash"]


def test_a_run_that_waits_for_its_next_start_is_cancelled_for_good(
    oelm, submit, project: Path, cluster: Testbed, wait_for
) -> None:
    submit()
    job = wait_for("gpt_base", "RUNNING")["job"]
    wait_until((run_dir(project) / "heartbeat.json").exists, "a step")
    cluster.run("scontrol", "requeue", job)
    wait_for("gpt_base", "QUEUED")
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "it to be pending")
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert wait_for("gpt_base", "CANCELLED")["reason"] == "cancelled"
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    wait_until(lambda: "Resumed" in (run_dir(project) / "training.log").read_text(), "it to go on")
