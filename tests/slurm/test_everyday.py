"""The everyday commands on a real Slurm, from submit to report."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path

import pytest

from tests.slurm.testbed import Testbed
from tests.support import end_all, read, stand_in_for_python, wait_until

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


@pytest.fixture
def long(project: Path, target, stand_in: str) -> None:
    """Runs of the stand-in trainer that don't end by themselves."""
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 100000"))
    target(python=stand_in, setup=["export TRAINER_STEP_S=0.1"])


@pytest.mark.usefixtures("long")
def test_cancel_ends_pending_and_running_runs_and_submitting_again_resumes(
    oelm, project: Path, cluster: Testbed, wait_for, states
) -> None:
    oelm("submit", "--study", "tiny", "--target", "cluster")
    wait_for("gpt_base", "RUNNING")
    assert states()["oelm_freeze"]["state"] == "QUEUED"
    assert "waits for the job before it" in states()["oelm_freeze"]["reason"]
    assert oelm("cancel", "oelm_freeze").stdout == "oelm_freeze: cancelled\n"
    assert states()["oelm_freeze"]["state"] == "CANCELLED"

    wait_until(lambda: list(run_dir(project).glob("checkpoint_*.pt")), "a checkpoint")
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    row = states()["gpt_base"]
    assert (row["state"], row["reason"]) == ("CANCELLED", "cancelled")
    outcome = read(run_dir(project) / ".oelm" / "outcome.json")
    assert outcome["status"] == "resumable"
    wait_for("oelm_no_freeze", "RUNNING")
    assert oelm("cancel", "oelm_no_freeze").stdout == "oelm_no_freeze: cancelled\n"
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: is CANCELLED already\n"
    oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
    wait_until(lambda: "Resum" in (run_dir(project) / "training.log").read_text(), "it to resume")
    assert states()["gpt_base"]["attempt"] == 2


@pytest.mark.usefixtures("long")
def test_a_cancelled_run_whose_script_somebody_starts_by_hand_is_seen_and_can_be_cancelled(
    oelm, project: Path, cluster: Testbed, wait_for
) -> None:
    oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
    wait_until((run_dir(project) / "heartbeat.json").exists, "a step")
    oelm("cancel", "gpt_base")
    [script] = (project / ".oelm" / "slurm").glob("*.sh")
    cluster.run("sbatch", str(script))
    assert wait_for("gpt_base", "QUEUED", "RUNNING")["job"]
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert not cluster.run("squeue", "-h")
    assert wait_for("gpt_base", "CANCELLED")["step"] is not None


def test_the_doctor_knows_the_cluster(oelm, project: Path, target, cluster: Testbed) -> None:
    target({"partition": "short", "account": "lab", "gres": "gpu:a5000:1", "time": 5})
    healthy = oelm("doctor", "cluster").stdout
    for words in ("short: 2 nodes, at most 10:00", "gpu:a5000:4 a node in short", "lab"):
        assert words in healthy
    for options, words, mend in (
        ({"partition": "shorts"}, "there is no partition 'shorts'", "did you mean 'short'?"),
        ({"gres": "gpu:a500:1"}, "has no GPU called 'a500'", "did you mean 'a5000'?"),
        ({"partition": "short", "time": "1:00:00"}, "1:00:00 is above the limit (short 10:00)", "lower time"),
        ({"account": "labs"}, "account 'labs' is not yours to use", "did you mean 'lab'?"),
        ({"constraint": "gpu_48g"}, "no node has the feature 'gpu_48g'", "change constraint"),
    ):
        target(options)
        done = oelm("submit", "--study", "tiny", "--target", "cluster", check=False)
        assert done.returncode == 2 and f"{words}; nothing was queued" in done.stderr and mend in done.stderr
    done = oelm("doctor", "cluster", check=False)
    assert done.returncode == 1 and words in done.stdout and mend in done.stdout
    assert not cluster.run("squeue", "-h")


def test_the_doctor_lets_sbatch_judge_what_jobs_ask_for(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed
) -> None:
    target = functools.partial(target, python=stand_in_for_python(tmp_path / "python", "-S"))  # which imports no torch

    def findings() -> dict[str, list[dict[str, str]]]:
        found: dict[str, list[dict[str, str]]] = {}
        for finding in json.loads(oelm("doctor", "cluster", "--json", check=False).stdout)["findings"]:
            found.setdefault(finding["what"], []).append(finding)
        return found

    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('model_type = "gpt"', 'model_type = "gpt", gpus = 2'))
    target()
    [both] = findings()["sbatch"]
    assert (both["verdict"], both["found"]) == ("good", "a job of 1, 2 processes: would start now")

    for options, words, mend in (
        ({"partiton": "low"}, "unrecognized option '--partiton=low'", "did you mean 'partition'?"),
        ({"qqq": "low"}, "unrecognized option '--qqq=low'", "sbatch --help lists the options"),
        ({"gres": "gpus:1"}, "Invalid generic resource (gres) specification", "change gres = 'gpus:1' in sbatch"),
        ({"mem": "500G"}, "Requested node configuration is not available", "change sbatch"),
        ({"mem": "32 G"}, "Invalid --mem specification", "change mem = '32 G' in sbatch of target cluster"),
        ({"nodelist": "n7"}, "Invalid node name specified", "change nodelist = 'n7' in sbatch"),
        ({"reservation": "foo"}, "Requested reservation is invalid", "change reservation = 'foo'"),
        ({"exclude": "n[1-2]"}, "Requested node configuration is not available", "change sbatch"),
    ):
        target(options)
        [sbatch] = findings()["sbatch"]
        assert sbatch["verdict"] == "bad" and words in sbatch["found"] and mend in sbatch["mend"], sbatch

    target({"gres": "gpu:2"})
    found = findings()
    assert found["script"][0]["verdict"] == "bad" and "asks for 2 GPUs" in found["script"][0]["found"]
    assert found["sbatch"][0]["found"] == "a job of 2 processes: would start now", "what does fit is tried"
    target({"nodes": 2})
    assert "1 processes of group oelm_no_freeze can't be divided" in findings()["script"][0]["found"]
    target(template="nope.j2")
    [script] = findings()["script"]
    assert script["verdict"] == "bad" and script["mend"] and "template 'nope.j2' is neither in" in script["found"]
    assert not cluster.run("squeue", "-h"), "nothing was submitted"


def test_what_sbatch_refuses_names_the_option_and_stays_not_submitted(
    oelm, project: Path, target, cluster: Testbed, states
) -> None:
    target({"mem": "900G"})
    done = oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base", check=False)
    assert done.returncode == 2, "there is nothing to try again"
    assert "Memory specification can not be satisfied" in done.stderr and "change mem = '900G'" in done.stderr
    reason = states()["gpt_base"]["reason"]
    assert reason.startswith("not submitted: ") and "Memory specification" in reason


def test_the_doctor_says_all_that_is_wrong_at_once_and_what_waiting_clears(
    oelm, project: Path, target, cluster: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    target({"partition": "shorts", "account": "labs", "constraint": "gpu_48g", "time": "9-00:00:00"})
    shown = oelm("doctor", "cluster", check=False).stdout
    for words in (
        "there is no partition 'shorts'",
        "account 'labs' is not yours to use",
        "no node has the feature 'gpu_48g'",
        "9-00:00:00 is above the limit (low 1-00:00:00, high 1-00:00:00, short 10:00)",
    ):
        assert words in shown
    target({"time": 20})
    monkeypatch.setenv("SBATCH_TIMELIMIT", "9-00:00:00")  # a user's settings don't bend what the script states
    monkeypatch.setenv("SBATCH_TEST_ONLY", "1")
    assert "would start now" in oelm("doctor", "cluster").stdout
    user = cluster.run("id", "-un").strip()
    cluster.run("sacctmgr", "-i", "modify", "user", user, "set", "maxsubmitjobs=0")
    try:
        limited = oelm("doctor", "cluster").stdout
        assert "AssocMaxSubmitJobLimit" in limited and "runs are submitted as it comes" in limited
        assert "may have no jobs in the queue" in limited, "so that here none comes"
    finally:
        cluster.run("sacctmgr", "-i", "modify", "user", user, "set", "maxsubmitjobs=-1")


def test_every_command_is_about_the_cluster_that_the_target_names(
    oelm, project: Path, target, cluster: Testbed, stand_in: str, instead, wait_for
) -> None:
    """As sites with several clusters ask for it: their commands are about another one otherwise."""
    said = project / "said"
    for command in ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo"):
        # In a job, its node's own cluster is the one.
        own = 'case "$SLURM_CLUSTERS$SLURM_JOB_ID$*" in "show config") echo "ClusterName = head"; exit;; esac'
        told = f'[ "$SLURM_JOB_ID" ] || echo "{command} $SLURM_CLUSTERS $*" >> {said}'
        instead(command, f'{own}\n{told}\nexec $real "$@"')
    target({"clusters": "oelmtest"}, python=stand_in, setup=["export TRAINER_STEP_S=0.1"])
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 2000"))
    assert "would start now" in oelm("doctor", "cluster").stdout
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    wait_for("gpt_base", "RUNNING")
    wait_until((run_dir(project) / "heartbeat.json").exists, "a step")
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert wait_for("gpt_base", "CANCELLED")["reason"].startswith("cancelled")
    lines = said.read_text().splitlines()
    assert {line.split()[0] for line in lines} >= {"sbatch", "squeue", "scontrol", "scancel", "sinfo"}
    others = [line for line in lines if line.split()[1:2] != ["oelmtest"] and "--help" not in line]
    assert not others, others


def test_the_status_shows_the_partitions(oelm, project: Path, target, cluster: Testbed, stand_in: str) -> None:
    target(python=stand_in)
    oelm("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base")
    lines = [" ".join(line.split()) for line in oelm("status", "--gpus").stdout.splitlines()]
    assert "low 2 4 x a5000 1-00:00:00 default" in lines and "short 2 4 x a5000 10:00" in lines
    hosts = json.loads(oelm("status", "--gpus", "--json").stdout)["hosts"]
    assert [row["name"] for row in hosts["cluster"]["partitions"]] == ["low", "high", "short"]


def test_a_finished_run_is_archived_and_starts_over(
    oelm, project: Path, target, cluster: Testbed, stand_in: str, wait_for
) -> None:
    target(python=stand_in)
    words = ("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    for _ in range(2):
        oelm(*words, "--rerun", "--yes")
        wait_for("gpt_base", "DONE")
        claim = run_dir(project) / ".oelm" / "slurm-claim.1"
        wait_until(lambda path=claim: read(path)["released"], "the supervisor to be through")
        assert len(read(run_dir(project) / "experiment_result.json")["attempts"]) == 1
    assert len(list(run_dir(project).parent.glob(".archive/exp_gpt_base-*"))) == 1
    # The supervisor tidies up last, after the records that say DONE.
    outputs = project / ".oelm" / "slurm"
    wait_until(lambda: not list(outputs.glob("*.log")), "the outputs in which Slurm said nothing to be gone")


GPT = ("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")


def test_a_root_elsewhere_on_this_machine_is_sent_the_data_fetched_from_and_freed(
    oelm, project: Path, tmp_path: Path, target, cluster: Testbed, stand_in: str
) -> None:
    """docs/slurm.md's example without ``host``: the project lies on one disk, the runs on another."""
    root = tmp_path / "scratch" / "me"
    there = root / "models" / "checkpoints" / "tiny" / "exp_gpt_base"
    target(python=stand_in, root=str(root))
    findings = json.loads(oelm("doctor", "cluster", "--json", check=False).stdout)["findings"]
    (data,) = [finding for finding in findings if finding["what"] == "data of tiny"]
    assert data["verdict"] == "bad" and "oelm-submit --study tiny --target cluster --send-data" in data["mend"]
    refused = oelm(*GPT, check=False)
    assert refused.returncode == 2 and "the same command with --send-data" in refused.stderr
    assert "sent to cluster" in oelm(*GPT, "--send-data", "--wait").stderr
    assert (root / "data" / "tiny" / "train.bin").read_bytes() == (project / "data/tiny/train.bin").read_bytes()
    assert not run_dir(project).exists()
    oelm("fetch", "--checkpoints", "all")
    ours = sorted(path.name for path in run_dir(project).glob("*.pt"))
    assert "freed" in oelm("clean", "--all", "--yes").stdout
    assert not list(there.glob("*.pt")) and (there / "training.log").exists()
    assert sorted(path.name for path in run_dir(project).glob("*.pt")) == ours != []
    end_all(root)


@pytest.fixture
def module(tmp_path: Path) -> str:
    """Return a set-up line that brings a ``python`` which can't import the toolkit and trains with a stand-in."""
    python = stand_in_for_python(tmp_path / "module" / "bin" / "python", "-S")
    return f"export PATH='{Path(python).parent}':$PATH"


def test_a_set_up_brings_the_interpreter_as_it_does_behind_ssh(
    oelm, project: Path, target, cluster: Testbed, module: str
) -> None:
    target(python=None, setup=[module])
    assert "command   python -m train " in oelm(*GPT, "--dry-run").stdout
    oelm(*GPT, "--wait")
    assert read(run_dir(project) / "experiment_result.json")["status"] == "DONE"
    assert (run_dir(project) / "training.log").read_text().startswith("Started"), "the stand-in trained"
    doctor = oelm("doctor", "cluster", check=False).stdout
    assert "No module named 'torch'" in doctor, "the doctor asks the same interpreter"


def test_a_printed_script_trains_with_the_set_ups_interpreter_and_is_supervised_by_the_toolkits(
    oelm, project: Path, target, cluster: Testbed, module: str, tmp_path: Path
) -> None:
    target(python=None, setup=[module])
    path = tmp_path / "job.sh"
    path.write_text(oelm(*GPT, "--dry-run", "--script").stdout)
    cluster.run("sbatch", str(path))
    result = run_dir(project) / "experiment_result.json"
    wait_until(lambda: result.exists() and read(result)["status"] == "DONE", "the run to be done")
    assert (run_dir(project) / "training.log").read_text().startswith("Started"), "the stand-in trained"


def test_without_set_up_the_toolkits_own_interpreter_is_used_and_shown(oelm, project: Path, target) -> None:
    target(python=None)
    plan = oelm(*GPT, "--dry-run").stdout
    assert f"command   {sys.executable} -m train " in plan
    row = json.loads(oelm(*GPT, "--dry-run", "--json").stdout)["runs"][0]
    assert row["command"][:2] == [sys.executable, "-m"]
    target(python="~/venv/bin/python", setup=["module load torch"])
    assert f"command   {Path.home()}/venv/bin/python -m" in oelm(*GPT, "--dry-run").stdout


def test_what_cannot_be_printed_leaves_no_run_behind(oelm, project: Path, target, cluster: Testbed) -> None:
    (project / "templates").mkdir()
    (project / "templates" / "array.sh.j2").write_text(
        '{% extends "slurm.sh.j2" %}{% block setup %}{% if runs | length > 1 %}{{ nonsense }}{% endif %}{% endblock %}'
    )
    cases = (
        ({"nodes": 2}, {}, "1 processes of group gpt_base can't be divided over nodes = 2"),
        ({"gres": "gpu:a5000:2"}, {}, "asks for 2 GPUs"),
        ({}, {"template": "none.sh.j2"}, "template 'none.sh.j2' is neither in"),
        ({}, {"template": "array.sh.j2", "setup": ["true"]}, "'nonsense' is undefined"),
    )
    for options, keys, words in cases:
        target(options, **keys)
        done = oelm("submit", "--study", "tiny", "--target", "cluster", "--mode", "parallel", check=False)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert json.loads(oelm("status", "--json").stdout)["runs"] == [], "as if it had never been tried"
    assert not cluster.run("squeue", "-h")
