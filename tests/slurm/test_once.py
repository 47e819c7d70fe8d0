"""At most one execution of each run: sbatch's answer is lost, slurmctld is gone, the client dies, a script is submitted
again by hand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.slurm import submit as slurm_submit
from tests.slurm.testbed import Testbed
from tests.support import read, wait_until

pytestmark = pytest.mark.slow

SBATCH = "/usr/bin/sbatch"


@pytest.fixture
def submit(oelm, project: Path, target, stand_in: str, cluster: Testbed) -> Any:
    """Submit a run of the stand-in trainer."""
    target(python=stand_in)
    return lambda *arguments, **more: oelm(
        "submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster", *arguments, **more
    )


@pytest.fixture
def sbatch(instead: Any) -> Any:
    """Put shell lines in sbatch's place: ``sbatch("exec $real …")``."""
    return lambda lines: instead("sbatch", lines)


def run_dir(project: Path) -> Path:
    return project / "models" / "checkpoints" / "tiny" / "exp_gpt_base"


def starts(project: Path) -> int:
    return (run_dir(project) / "training.log").read_text().count("Started")


def hold(project: Path, line: str = "true") -> Path:
    """Let the run, whose set-up has a line more, go on until the file that is returned is gone."""
    held, targets = project / "holds" / run_dir(project).name, project / "jobs" / "targets.toml"
    held.parent.mkdir()
    held.touch()
    setup = f'poll_s = 0\nsetup = ["export TRAINER_HOLD={held.parent}", "{line}"]'
    targets.write_text(targets.read_text().replace("poll_s = 0", setup))
    return held


def script_of(project: Path) -> Path:
    found = list((project / ".oelm" / "slurm").glob("*.sh"))
    assert len(found) == 1
    return found[0]


def jobs(cluster: Testbed, project: Path) -> list[str]:
    """Return the names of the project's jobs, which hold their submission's token."""
    tokens = {path.name.partition(".")[0] for path in (project / ".oelm" / "slurm").glob("*.sh")}
    names = cluster.run("squeue", "-h", "--states=all", "-o", "%j").split()
    return [name for name in names if name.split(".")[1:2] and name.split(".")[1] in tokens]


def test_a_job_whose_answer_was_lost_is_found_by_its_name(
    submit, sbatch, project: Path, cluster: Testbed, wait_for
) -> None:
    # slurmctld hangs while sbatch talks to it, and takes the request all the same once it goes on.
    stop, go_on = (f"kill -{name} {cluster.pid('slurmctld')}" for name in ("STOP", "CONT"))
    sbatch(f'{stop}\n$real "$@" 2> "$0.err"; code=$?\n{go_on}\ncat "$0.err" >&2; exit $code')
    done = submit()
    assert "submitted to cluster" in done.stdout
    said = next(path for path in os.environ["PATH"].split(":") if Path(path, "sbatch.err").exists())
    assert "Socket timed out" in Path(said, "sbatch.err").read_text()
    wait_for("gpt_base", "DONE")
    assert len(jobs(cluster, project)) == 1 and starts(project) == 1


LOST = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"


def test_a_job_that_does_not_appear_is_given_up_and_does_nothing_should_it_appear_later(
    submit, sbatch, project: Path, cluster: Testbed, monkeypatch: pytest.MonkeyPatch, states, wait_for
) -> None:
    monkeypatch.setenv("OELM_LOOK_FOR_S", "1")
    monkeypatch.setattr(slurm_submit, "PATIENCE_S", 1.0)
    sbatch(LOST)
    done = submit(check=False)
    assert done.returncode == 3 and "not known" in done.stderr and "oelm-status" in done.stderr
    row = states()["gpt_base"]
    assert row["state"] == "FAILED" and row["reason"].startswith("not submitted")
    late = cluster.run(SBATCH, "--parsable", str(script_of(project))).strip()
    wait_until(lambda: cluster.job(late)["JobState"] in ("FAILED", "COMPLETED"), "the late job's end")
    assert "given up" in (run_dir(project) / ".oelm" / "supervisor.log").read_text()
    assert not (run_dir(project) / "training.log").exists()
    sbatch('exec $real "$@"')
    submit()
    wait_for("gpt_base", "DONE")
    assert starts(project) == 1


def test_a_controller_that_is_down_is_a_certain_no(
    submit, sbatch, project: Path, cluster: Testbed, states, wait_for
) -> None:
    # It answers what is asked before a submission, and is gone once sbatch is called.
    pid = cluster.pid("slurmctld")
    gone = f"until grep -q '^State:.Z' /proc/{pid}/status; do sleep 0.1; done; sleep 0.5"  # its sockets, too
    sbatch(f'kill -KILL {pid}; {gone}; exec $real "$@"')
    try:
        done = submit(check=False)
    finally:
        cluster.kill("slurmctld")
        cluster.start_daemon("slurmctld", ["slurmctld", "-D"])
    wait_until(lambda: not cluster.call("squeue").returncode, "the controller")
    assert done.returncode == 3 and "Unable to contact slurm controller (connect failure)" in done.stderr
    assert "not known" not in done.stderr
    row = states()["gpt_base"]
    assert row["state"] == "FAILED" and row["reason"].startswith("not submitted: ")
    sbatch('exec $real "$@"')
    assert "submitted" in submit().stdout
    wait_for("gpt_base", "DONE")
    assert starts(project) == 1


def test_status_says_that_the_controller_is_down_and_keeps_what_was_known(
    oelm, submit, project: Path, cluster: Testbed, wait_for
) -> None:
    held = hold(project)
    submit()
    wait_for("gpt_base", "RUNNING")
    cluster.kill("slurmctld", signal.SIGTERM)
    try:
        shown = oelm("status").stdout
        assert "RUNNING" in shown and "can't be asked" in shown and "connect failure" in shown
        assert json.loads(oelm("status", "--json").stdout)["runs"][0]["state"] == "RUNNING"
    finally:
        cluster.start_daemon("slurmctld", ["slurmctld", "-D"])
    wait_until(lambda: not cluster.call("squeue").returncode, "the controller")
    held.unlink()
    wait_for("gpt_base", "DONE")
    assert starts(project) == 1


KILLED_AT = {
    "before the code is sent": "oelm_jobs.connections.local.LocalConnection.keep_tree",
    "before anything is sent": "oelm_jobs.schedulers.slurm.SlurmScheduler.submit",
    "before sbatch": "oelm_jobs.schedulers.submitit_sender.ScriptExecutor.submit_script",
    "before the answer is kept": "oelm_jobs.agent.slurm.submit._remember",
    "before the answer is stored": "oelm_jobs.store.Store.answer",
}


@pytest.mark.parametrize("point", KILLED_AT)
def test_a_client_killed_at_any_point_neither_loses_nor_doubles_a_run(
    submit, project: Path, cluster: Testbed, point: str, wait_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OELM_LOOK_FOR_S", "1")
    owner, _, name = KILLED_AT[point].rpartition(".")
    program = (
        "import os, signal, pkgutil\n"
        "def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"setattr(pkgutil.resolve_name({owner!r}), {name!r}, die)\n"
        "from oelm_jobs.cli.submit import main\n"
        "main(['--study', 'tiny', '--group', 'gpt_base', '--target', 'cluster'])"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    submit()
    wait_for("gpt_base", "DONE")
    assert starts(project) == 1
    assert len(read(run_dir(project) / "experiment_result.json")["attempts"]) == 1
    assert len(jobs(cluster, project)) == 1


@pytest.mark.parametrize("line", ["true", "export SLURM_JOB_NAME=bash"])  # what some trainers ask for
def test_the_script_runs_by_hand_and_again_and_one_execution_gets_the_run(
    submit, project: Path, cluster: Testbed, wait_for, states, line: str
) -> None:
    held = hold(project, line)
    submit()
    wait_for("gpt_base", "RUNNING")
    wait_until(lambda: (run_dir(project) / "training.log").exists(), "training")
    again = cluster.run(SBATCH, "--parsable", str(script_of(project))).strip()
    wait_until(lambda: cluster.job(again)["JobState"] == "FAILED", "the second execution to give way")
    assert cluster.job(again)["ExitCode"] == "75:0"
    assert states()["gpt_base"]["state"] == "RUNNING"
    held.unlink()
    wait_for("gpt_base", "DONE")
    done = cluster.run(SBATCH, "--parsable", str(script_of(project))).strip()
    wait_until(lambda: cluster.job(done)["JobState"] == "COMPLETED", "a third one to find it done")
    assert states()["gpt_base"]["state"] == "DONE"
    assert starts(project) == 1
    refused = subprocess.run(["bash", str(script_of(project))], capture_output=True, timeout=300)
    assert refused.returncode == 78, "only sbatch starts it"
