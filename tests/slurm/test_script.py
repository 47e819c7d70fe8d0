"""Programs of the user's own in Slurm jobs: on several nodes, and started again after a stop."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.slurm import cancel as slurm_cancel
from oelm_jobs.agent.slurm import commands
from tests.agent.test_script import COUNTING, counting, log, program
from tests.slurm.testbed import Testbed
from tests.support import make_run, read, wait_until

pytestmark = pytest.mark.slow


def submit(cluster: Testbed, root: Path, name: str, program: dict[str, Any], *header: str, **record: Any) -> str:
    """Submit a run's script as the toolkit's are; return the job's number."""
    (root / "code").mkdir(exist_ok=True)
    shutil.copy(COUNTING, root / "code" / "counting.py")
    run = make_run(root, name)
    content = {
        "token": "t1", "run": name, "run_dir": run.run_dir, "study": "s", "fingerprint": run.fingerprint,
        "scheduler": "slurm", "program": program, "world_size": 1, "gpus": 1, "max_timeouts": 3, **record,
    }  # fmt: skip
    lines = ["#!/bin/bash", "#SBATCH -o /dev/null", *(f"#SBATCH {line}" for line in header)]
    lines += [f"mkdir -p {run.run_dir}/.oelm", f"exec 2>>{run.run_dir}/.oelm/supervisor.log", f"cd {root}/code"]
    lines += [f"exec {sys.executable} -m oelm_jobs.agent supervise <<'E'", json.dumps(content), "E"]
    script = root / f"{name}.sh"
    script.write_text("\n".join(lines) + "\n")
    return cluster.run("sbatch", "--parsable", str(script)).strip()


def end(root: Path, name: str) -> dict[str, Any]:
    """Return a run's end record once it is over."""

    def over() -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            record = read(rundir.control(root / f"exp_{name}", rundir.END))
            return record if record["state"] != "QUEUED" else None
        return None

    return wait_until(over, "its end")


def test_a_command_with_the_nodes_number_is_started_on_each_node_and_others_once(
    cluster: Testbed, tmp_path: Path
) -> None:
    said = "echo $SLURM_NODEID $@ $MASTER_ADDR $PWD > node-$1.txt"
    values: list[Any] = [["", "node_rank", ""], ["", "nodes", ""], ["", "gpus", ""], ["", "host", ""]]
    program = {
        "stages": [
            {"name": "prepare", "words": ["bash", "-c", "echo once >> prepared.txt"]},
            {"name": "train", "words": ["bash", "-c", said, "x", *values]},
        ]
    }
    submit(cluster, tmp_path, "a", program, "--nodes=2", "--ntasks-per-node=1", world_size=4)
    assert end(tmp_path, "a")["state"] == "DONE"
    work = tmp_path / "exp_a" / "work"
    assert (work / "prepared.txt").read_text() == "once\n"
    told = {node: (work / f"node-{node}.txt").read_text() for node in (0, 1)}
    assert told == {node: f"{node} {node} 2 2 n1 n1 {work}\n" for node in (0, 1)}


def test_a_program_goes_on_from_its_checkpoint_when_slurm_starts_its_job_again(
    cluster: Testbed, tmp_path: Path
) -> None:
    job = submit(cluster, tmp_path, "a", counting("--pause=0.2", "--steps=60"), "--requeue")
    run = make_run(tmp_path, "a")
    wait_until(lambda: "iter 7:" in log(run), "a step behind a checkpoint")
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "the job to be pending again")
    cluster.release(job)
    record = end(tmp_path, "a")
    assert (record["state"], [a["state"] for a in record["attempts"]]) == ("DONE", ["QUEUED", "DONE"])
    assert record["attempts"][1]["inexact_resume"] is True
    assert log(run).count("SIGTERM 1 times") == 1 and "iter 60:" in log(run)
    steps = [int(line.split()[1].rstrip(":")) for line in log(run).splitlines() if line.startswith("iter")]
    assert steps == list(range(1, 61)), "no step is lost or made twice"


def test_a_program_that_is_cancelled_has_its_time_to_stop_also_where_slurm_leaves_less(
    cluster: Testbed, tmp_path: Path
) -> None:
    assert commands.kill_wait() == 15.0
    program = counting("--pause=0.2", "--steps=1000", "--slow-stop=25", stop_s=60.0)
    job = submit(cluster, tmp_path, "a", program)
    run = make_run(tmp_path, "a")
    wait_until(lambda: "iter 7:" in log(run), "a step behind a checkpoint")
    answer = slurm_cancel.slurm_cancel({"root": str(tmp_path), "runs": [[run.run_dir, "t1"]]})
    assert answer == {"runs": {run.run_dir: "cancelled"}} and cluster.job(job)["JobState"] != "RUNNING"
    record = end(tmp_path, "a")
    assert (record["state"], record["reason"]) == ("CANCELLED", "cancelled")
    assert log(run).count("SIGTERM 1 times") == 1, "it came to its checkpoint"


def test_a_program_that_never_stops_is_ended_when_its_time_is_over(cluster: Testbed, tmp_path: Path) -> None:
    ignoring = program("bash", "-c", "trap '' TERM; echo begun; while :; do sleep 1; done", stop_s=10.0)
    submit(cluster, tmp_path, "a", ignoring)
    run = make_run(tmp_path, "a")
    wait_until(lambda: "begun" in log(run), "the program")
    answer = slurm_cancel.slurm_cancel({"root": str(tmp_path), "runs": [[run.run_dir, "t1"]]})
    assert answer == {"runs": {run.run_dir: "cancelled"}} and end(tmp_path, "a")["state"] == "CANCELLED"


def test_a_program_that_was_preempted_goes_on_and_its_end_is_no_second_preemption(
    cluster: Testbed, tmp_path: Path
) -> None:
    program = counting("--pause=0.5", "--steps=100", "--die-at=80", "--always")
    job = submit(cluster, tmp_path, "a", program, "--requeue", "-p low", "-w n1")
    run = make_run(tmp_path, "a")
    wait_until(lambda: "iter 7:" in log(run), "a step behind a checkpoint")
    urgent = ["-p", "high", "-w", "n1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"]
    cluster.run("sbatch", *urgent)
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "the job to be pending again")
    cluster.release(job)
    record = end(tmp_path, "a")
    assert [attempt["state"] for attempt in record["attempts"]] == ["QUEUED", "FAILED"]
    assert record["attempts"][1]["cause"] == "crash"
    assert record["reason"] == "exit code 1: ValueError: on purpose at 80"
