"""Runs on a cluster that start over, or start again: what is at home of the old one, and what the records say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from tests.slurm.login import Login, write_target
from tests.slurm.testbed import Testbed
from tests.support import end_all, kill, read, wait_until

pytestmark = pytest.mark.slow

SUBMIT = ("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")


def home_dir(project: Path) -> Path:
    return project / "models" / "checkpoints" / "tiny" / "exp_gpt_base"


def set_steps(project: Path, steps: int) -> None:
    study = project / "jobs" / "tiny.toml"
    line = next(line for line in study.read_text().splitlines() if line.startswith("max_steps"))
    study.write_text(study.read_text().replace(line, f"max_steps = {steps}"))


def old_copies(project: Path) -> list[Path]:
    return sorted((home_dir(project).parent / ".archive").glob("exp_gpt_base-*"))


def start_over_and_fetch(run: Callable[..., Any], project: Path) -> None:
    """Train, fetch, start over with other settings, and fetch again, while it waits and when it is done."""
    run(*SUBMIT, "--send-data", "--wait")
    run("fetch", "--checkpoints", "all")
    before = {path.name: path.read_bytes() for path in home_dir(project).glob("[!.]*.*")}
    set_steps(project, 10)
    run(*SUBMIT, "--rerun", "--yes", "--wait")
    done = run("fetch", "--checkpoints", "all")
    assert "DAMAGED" not in done.stdout and "verified" in done.stdout
    assert "gpt_base was started over; what was here of it before is in" in done.stderr
    [aside] = old_copies(project)
    assert str(aside) in done.stderr
    assert {path.name: path.read_bytes() for path in aside.glob("[!.]*.*")} == before, "nothing of it is overwritten"
    assert read(home_dir(project) / "experiment_result.json")["train"]["max_steps"] == 10
    assert "new" not in run("fetch", "--checkpoints", "all", "--verify").stdout and len(old_copies(project)) == 1
    # A run that goes on is the same run.
    set_steps(project, 14)
    run(*SUBMIT, "--extend", "--wait")
    assert "started over" not in run("fetch").stderr and len(old_copies(project)) == 1


def test_a_run_that_starts_over_leaves_the_copy_at_home_whole_beside_the_new_one(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed, stand_in: str
) -> None:
    target(python=stand_in, root=str(tmp_path / "scratch"))
    start_over_and_fetch(oelm, project)
    end_all(tmp_path / "scratch")


def test_a_run_that_starts_over_behind_ssh_leaves_the_copy_at_home_whole_beside_the_new_one(
    laptop: Callable[..., Any],
    login: Login,
    project: Path,
    stand_in: str,
) -> None:
    write_target(project, login, python=stand_in)
    start_over_and_fetch(laptop, project)


def test_the_first_result_of_a_locked_study_comes_home_from_a_cluster_and_decides(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed, stand_in: str
) -> None:
    root = tmp_path / "scratch"
    oelm("report", "--study", "tiny", "--lock")
    for loss, words in (("4.0", ()), ("3.0", ("--rerun", "--yes"))):
        target(python=stand_in, root=str(root), setup=[f"export TRAINER_LOSS={loss}"])
        oelm(*SUBMIT, "--send-data", "--wait", *words)
    said = oelm("fetch").stdout
    [home] = old_copies(project)
    assert "tiny/gpt_base, before it was started over: " in said and f"verified, in {home}" in said
    root.rename(tmp_path / "another machine's")
    shown = json.loads(oelm("report", "--study", "tiny", "--json").stdout)
    assert [run["final"]["val_loss"] for run in shown["runs"] if run["group"] == "gpt_base"] == [4.0]
    end_all(tmp_path / "another machine's")


def test_a_rerun_that_waits_or_is_cancelled_before_it_starts_keeps_what_is_at_home(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed, stand_in: str, states
) -> None:
    target(python=stand_in, root=str(tmp_path / "scratch"))
    oelm(*SUBMIT, "--send-data", "--wait")
    oelm("fetch")
    target({"begin": "now+1hour"}, python=stand_in, root=str(tmp_path / "scratch"))
    oelm(*SUBMIT, "--rerun", "--yes")
    assert states()["gpt_base"]["state"] == "QUEUED"
    for _ in range(2):
        oelm("fetch")
        assert (home_dir(project) / "experiment_result.json").exists() and not old_copies(project)
        oelm("cancel", "gpt_base")
    target(python=stand_in, root=str(tmp_path / "scratch"))
    oelm(*SUBMIT, "--wait")
    assert "was started over" in oelm("fetch").stderr and len(old_copies(project)) == 1
    end_all(tmp_path / "scratch")


def test_requeues_and_lost_supervisors_keep_the_submissions_time_and_count_their_hours(
    oelm, project: Path, target, cluster: Testbed, stand_in: str, wait_for
) -> None:
    target(python=stand_in, setup=["export TRAINER_STEP_S=0.05"])
    set_steps(project, 4000)
    oelm(*SUBMIT)
    token = wait_for("gpt_base", "RUNNING")["token"]
    control = home_dir(project) / ".oelm"

    def steps() -> int:
        try:
            return int(read(home_dir(project) / "heartbeat.json")["step"])
        except (OSError, ValueError):
            return 0

    def started(number: int) -> bool:
        return (control / "start.json").exists() and read(control / "start.json")["number"] == number

    wait_until(lambda: steps() >= 40, "steps")
    cluster.run("scontrol", "requeue", read(control / "start.json")["job"])
    wait_until(lambda: cluster.job(read(control / "start.json")["job"]).get("JobState") == "PENDING", "it to wait")
    cluster.release(read(control / "start.json")["job"])
    wait_until(lambda: started(2), "the second start")
    before = steps()
    wait_until(lambda: steps() >= before + 40, "more steps")
    # No end record is left: all of the run goes at once, as with its node.
    start = read(control / "start.json")
    supervisor = processes.Identity.from_json(start)
    assert supervisor is not None
    kill((supervisor, *processes.of_run(str(home_dir(project)))))
    wait_for("gpt_base", "FAILED")
    last = read(home_dir(project) / "heartbeat.json")["time"]
    set_steps(project, 4000)
    target(python=stand_in)
    oelm(*SUBMIT, "--wait")
    known = read(home_dir(project) / "experiment_result.json")
    submission = json.loads((project / ".oelm" / "submissions" / f"{token}.json").read_text())
    assert abs(known["queued_at"] - submission["time"]) < 0.01
    assert known["queued_at"] < known["attempts"][0]["started_at"] == known["started_at"]
    lost = known["attempts"][1]
    assert lost["wall_s"] >= last - lost["started_at"] - 0.01 > 0
    assert known["elapsed_hours"] == pytest.approx(sum(a["wall_s"] for a in known["attempts"]) / 3600, abs=1e-5)
    hours = known["elapsed_hours"] if "gpu" in known["attempts"][0]["devices"][0] else 0.0
    assert known["gpu_hours"] == pytest.approx(hours, abs=1e-5)


def test_a_run_is_forgotten_once_its_job_is_over_also_one_that_never_began(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed, stand_in: str, states
) -> None:
    root = tmp_path / "scratch"
    target({"begin": "now+1hour"}, python=stand_in, root=str(root))
    oelm(*SUBMIT, "--send-data")
    refused = oelm("forget", "gpt_base", "--delete", "--yes", check=False)
    assert refused.returncode == 2 and "tiny/gpt_base is QUEUED" in refused.stderr
    assert "end it first: oelm-cancel tiny/gpt_base" in refused.stderr
    oelm("cancel", "gpt_base")
    assert "gpt_base: forgotten" in oelm("forget", "gpt_base", "--yes").stdout
    oelm("status", "--rebuild")
    assert states() == {}, "the script of a job that never began brings nothing back"
    target(python=stand_in, root=str(root))
    oelm(*SUBMIT, "--wait")
    oelm("fetch")
    assert "its files on cluster are removed" in oelm("forget", "gpt_base", "--delete", "--yes").stdout
    there = root / "models" / "checkpoints" / "tiny"
    assert not list(there.glob("exp_*")) and len(old_copies(project)) == 1, "the copy at home stays"
    oelm("status", "--rebuild")
    assert states() == {}
    end_all(root)
