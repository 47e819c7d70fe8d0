"""The everyday commands on a real Slurm, from submit to report."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from tests.slurm.testbed import Testbed
from tests.support import read, wait_until

pytestmark = pytest.mark.slow

GROUPS = ["gpt_base", "oelm_no_freeze", "oelm_freeze"]


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def test_three_groups_are_trained_watched_and_compared(oelm, project: Path, target, cluster: Testbed) -> None:
    done = oelm("submit", "--study", "tiny", "--target", "cluster", "--wait")
    assert "submitted to cluster" in done.stdout and "DONE" in done.stdout
    status = json.loads(oelm("status", "--json").stdout)
    assert [(run["name"], run["state"], run["progress"]["step"]) for run in status["runs"]] == [
        (group, "DONE", 12) for group in GROUPS
    ]
    results = [read(run_dir(project, group) / "experiment_result.json") for group in GROUPS]
    assert all(result["attempts"][0]["devices"][0].startswith("n") for result in results)
    for earlier, later in itertools.pairwise(results):
        assert earlier["ended_at"] <= later["started_at"], "one after the other"
    assert "Validation | Loss" in oelm("logs", "oelm_freeze").stdout
    assert "H1" in oelm("report", "--study", "tiny").stdout


LONG = [
    ("max_steps = 12", "max_steps = 100000"),
    ("log_interval = 2", "log_interval = 100"),
    ("save_interval = 6", "save_interval = 100"),
]


def lengthen(project: Path, *more: tuple[str, str]) -> None:
    path = project / "jobs" / "tiny.toml"
    for old, new in (*LONG, *more):
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


def test_cancel_ends_pending_and_running_runs_and_submitting_again_resumes(
    oelm, project: Path, target, cluster: Testbed, wait_for, states
) -> None:
    lengthen(project)
    oelm("submit", "--study", "tiny", "--target", "cluster")
    wait_for("gpt_base", "RUNNING")
    assert states()["oelm_freeze"]["state"] == "QUEUED"
    assert "waits for the run before it" in states()["oelm_freeze"]["reason"]
    assert oelm("cancel", "oelm_freeze").stdout == "oelm_freeze: cancelled\n"
    assert states()["oelm_freeze"]["state"] == "CANCELLED"

    wait_until(lambda: list(run_dir(project).glob("checkpoint_*.pt")), "a checkpoint", 120)
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    row = states()["gpt_base"]
    assert (row["state"], row["reason"]) == ("CANCELLED", "cancelled")
    outcome = read(run_dir(project) / ".oelm" / "outcome.json")
    assert outcome["status"] == "resumable"
    wait_for("oelm_no_freeze", "RUNNING")
    assert oelm("cancel", "oelm_no_freeze").stdout == "oelm_no_freeze: cancelled\n"
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: is CANCELLED already\n"
    oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
    wait_until(lambda: "Resum" in (run_dir(project) / "training.log").read_text(), "it to resume", 120)
    assert states()["gpt_base"]["attempt"] == 2


def test_the_doctor_knows_the_cluster(oelm, project: Path, target, cluster: Testbed) -> None:
    target({"partition": "short", "account": "lab", "gres": "gpu:a5000:1", "time": 5})
    healthy = oelm("doctor", "cluster").stdout
    for words in ("short: 2 nodes, at most 10:00", "gpu:a5000:4 a node in short", "lab"):
        assert words in healthy
    for options, words, mend in (
        ({"partition": "shorts"}, "there is no partition 'shorts'", "did you mean 'short'?"),
        ({"gres": "gpu:a500:1"}, "has no GPU called 'a500'", "did you mean 'a5000'?"),
        ({"partition": "short", "time": "1:00:00"}, "1:00:00 is above the limit (short 10:00)", "lower time"),
        ({"account": "labs"}, "'labs' is not yours to use", "did you mean 'lab'?"),
        ({"constraint": "gpu_48g"}, "no node has the feature 'gpu_48g'", "change constraint"),
    ):
        target(options)
        done = oelm("submit", "--study", "tiny", "--target", "cluster", check=False)
        assert done.returncode == 2 and f"{words}; nothing was queued" in done.stderr and mend in done.stderr
    done = oelm("doctor", "cluster", check=False)
    assert done.returncode == 1 and words in done.stdout and mend in done.stdout
    assert not cluster.run("squeue", "-h")


def test_a_finished_run_is_archived_and_starts_over(
    oelm, project: Path, target, cluster: Testbed, stand_in: str, wait_for
) -> None:
    target(python=stand_in)
    words = ("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    for _ in range(2):
        oelm(*words, "--rerun", "--yes")
        wait_for("gpt_base", "DONE")
        assert len(read(run_dir(project) / "experiment_result.json")["attempts"]) == 1
    assert len(list(run_dir(project).parent.glob(".archive/exp_gpt_base-*"))) == 1
    # The supervisor tidies up last, after the records that say DONE.
    outputs = project / ".oelm" / "slurm"
    wait_until(lambda: not list(outputs.glob("*.log")), "the outputs in which Slurm said nothing to be gone")
