"""The same cluster behind SSH: the laptop is in another network namespace and has neither Slurm nor its files."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.login import Login, write_target
from tests.slurm.testbed import Testbed
from tests.ssh.testbed import Host
from tests.support import read, wait_until

pytestmark = pytest.mark.slow

GROUPS = ["gpt_base", "oelm_no_freeze", "oelm_freeze"]


def run_dir(login: Host, name: str = "gpt_base") -> Path:
    return login.home() / "oelm" / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def states(laptop: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    return {run["name"]: run for run in json.loads(laptop("status", "--json").stdout)["runs"]}


def submit_a_long_one(laptop: Callable[..., Any], login: Host, project: Path, stand_in: str, *, pace_s: float) -> None:
    write_target(project, login, python=stand_in, setup=[f"export TRAINER_STEP_S={pace_s}"])
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 2000"))
    laptop("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base", "--send-data")


def test_the_study_from_submit_to_report(laptop, login: Host, project: Path, stand_in: str) -> None:
    write_target(project, login, python=stand_in)
    done = laptop("submit", "--study", "tiny", "--target", "cluster", "--send-data", "--wait")
    assert "submitted to cluster" in done.stdout and "DONE" in done.stdout
    commands = login.commands()
    assert [row["state"] for row in states(laptop).values()] == ["DONE"] * 3
    assert login.commands() == commands, "what is over is not asked for again"
    laptop("status", "--rebuild")
    assert [row["state"] for row in states(laptop).values()] == ["DONE"] * 3
    assert "Step     12 | Loss" in laptop("logs", "oelm_freeze").stdout
    laptop("fetch", "tiny")
    result = read(project / "models" / "checkpoints" / "tiny" / "exp_oelm_freeze" / "experiment_result.json")
    assert result["status"] == "DONE" and "/gpu:" in result["attempts"][0]["devices"][0]
    there = run_dir(login, "oelm_freeze")
    assert list(there.glob("*.pt"))
    assert "freed" in laptop("clean", "tiny", "--yes").stdout
    assert not list(there.glob("best_model.pt")), "what is at home and verified need not be there, too"
    assert (there / "training.log").exists()
    report = laptop("report", "--study", "tiny").stdout
    assert all(name in report for name in ("H1", "H2", "H3", "H4"))


def test_a_moved_project_takes_over_a_job_that_runs_and_one_that_waits(
    laptop, login: Host, project: Path, stand_in: str, tmp_path: Path
) -> None:
    submit_a_long_one(laptop, login, project, stand_in, pace_s=0.1)
    wait_until(lambda: states(laptop)["gpt_base"]["state"] == "RUNNING", "the job to run")
    study = project / "jobs" / "targets.toml"
    study.write_text(study.read_text().replace("time = 30", 'time = 30, begin = "now+1hour"'))
    laptop("submit", "--study", "tiny", "--target", "cluster", "--group", "oelm_freeze")
    moved = tmp_path / "moved"
    project.rename(moved)  # with its index: the laptop's is empty now
    looked = laptop("status", cwd=moved).stderr
    assert f"cluster holds 2 runs of project {project}: " in looked
    assert "tiny/gpt_base RUNNING" in looked and "tiny/oelm_freeze QUEUED" in looked
    laptop("status", "--adopt", cwd=moved)
    laptop("cancel", "--all", "--yes", cwd=moved)
    shown = json.loads(laptop("status", "--json", cwd=moved).stdout)["runs"]
    assert {run["name"]: run["state"] for run in shown} == {"gpt_base": "CANCELLED", "oelm_freeze": "CANCELLED"}


def test_a_look_is_one_round_trip_and_cancel_resume_and_doctor_work(
    laptop, login: Host, project: Path, stand_in: str
) -> None:
    write_target(project, login, python=stand_in, setup=["export TRAINER_STEP_S=0.1"])
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 2000"))
    words = ("submit", "--study", "tiny", "--target", "cluster", "--mode", "parallel", "--send-data")
    laptop(*words)
    wait_until(lambda: [r["state"] for r in states(laptop).values()] == ["RUNNING"] * 3, "all to run")
    before = login.commands()
    states(laptop)
    assert login.commands() == before + 1
    assert laptop("cancel", "oelm_freeze").stdout == "oelm_freeze: cancelled\n"
    assert states(laptop)["oelm_freeze"]["state"] == "CANCELLED"
    assert read(run_dir(login, "oelm_freeze") / ".oelm" / "outcome.json")["status"] == "resumable"
    laptop("submit", "--study", "tiny", "--target", "cluster", "--group", "oelm_freeze")
    log = run_dir(login, "oelm_freeze") / "training.log"
    wait_until(lambda: "Resumed" in log.read_text(), "it to resume")
    assert laptop("cancel", "--all", "--yes").stdout.count("cancelled") == 3
    healthy = laptop("doctor", "cluster", check=False).stdout
    assert "low: 2 nodes" in healthy and "gpu:a5000:4" in healthy


def test_a_cancelled_run_that_somebody_starts_by_hand_there_is_seen_by_who_names_it(
    laptop, login: Host, project: Path, cluster: Testbed, stand_in: str
) -> None:
    submit_a_long_one(laptop, login, project, stand_in, pace_s=0.1)
    laptop("cancel", "gpt_base")
    [script] = (login.home() / "oelm" / ".oelm" / "slurm").glob("*.sh")
    cluster.run("sbatch", str(script))
    assert json.loads(laptop("status", "gpt_base", "--json").stdout)["runs"][0]["state"] in ("QUEUED", "RUNNING")
    write_target(project, login, python=stand_in, setup=["export TRAINER_STEP_S=0.1"], poll_s=300)
    assert laptop("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    cluster.run("sbatch", str(script))
    assert laptop("cancel", "gpt_base").stdout == "gpt_base: cancelled\n", "what the index calls over is asked anew"
    assert not cluster.run("squeue", "-h")
    login.stop()
    assert laptop("cancel", "gpt_base").stdout == "gpt_base: was CANCELLED when cluster last answered\n"


def test_a_run_that_was_cancelled_while_it_waited_to_start_again_is_fetched_and_freed(
    laptop, login: Host, project: Path, cluster: Testbed, stand_in: str
) -> None:
    submit_a_long_one(laptop, login, project, stand_in, pace_s=0.05)
    wait_until(lambda: len(list(run_dir(login).glob("checkpoint_*.pt"))) > 1, "checkpoints")
    job = states(laptop)["gpt_base"]["progress"]["job"]
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: states(laptop)["gpt_base"]["state"] == "QUEUED", "it to wait again")
    assert laptop("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert "is CANCELLED" in laptop("fetch", "gpt_base", "--checkpoints", "all").stdout
    there = {path.name for path in run_dir(login).glob("*.pt")}
    assert "freed" in laptop("clean", "gpt_base", "--yes").stdout
    left = {path.name for path in run_dir(login).glob("*.pt")}
    assert len(left) == 1 and left < there, "the newest checkpoint stays: the run resumes from it"


def test_what_a_profile_defines_is_there_for_the_doctor_as_it_is_for_runs(
    laptop, login: Host, project: Path, stand_in: str
) -> None:
    (login.home() / ".bash_profile").write_text('echo "welcome to the cluster"\nmodule() { export LOADED="$*"; }\n')
    setup = ["module load torch", '[ "$LOADED" = "load torch" ]']

    def findings() -> dict[str, dict[str, str]]:
        found = json.loads(laptop("doctor", "cluster", "--json", check=False).stdout)["findings"]
        return {finding["what"]: finding for finding in found}

    write_target(project, login, python=stand_in, setup=setup)
    before = login.commands()
    healthy = findings()
    assert login.commands() == before + 1
    assert healthy["set-up"]["found"] == "2 lines, in a login shell" and healthy["torch"]["verdict"] == "good"
    assert healthy["sbatch"]["found"] == "a job of 1 process: would start now"
    laptop("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base", "--send-data", "--wait")

    write_target(project, login, python=stand_in, setup=setup, login_shell=False)
    broken = findings()["set-up"]
    assert broken["found"] == "line 1, module load torch: bash: module: command not found"
    assert broken["mend"] == "set login_shell = true in target cluster"


def test_a_submission_that_waits_for_room_outlives_a_lost_connection(
    laptop, login: Login, project: Path, stand_in: str, room_for
) -> None:
    write_target(project, login, python=stand_in)
    laptop("submit", "--study", "tiny", "--target", "cluster", "--group", "oelm_no_freeze", "--send-data", "--wait")
    room_for(1)
    words = ("--study", "tiny", "--target", "cluster", "--groups", "gpt_base,oelm_freeze")
    client = laptop("submit", *words, start=True)
    said = b""

    def says(what: str) -> bool:
        nonlocal said
        said += client.stderr.readline()
        return what.encode() in said

    wait_until(lambda: says("takes no more jobs of yours for now"), "it to wait for room")
    login.far.cut()
    wait_until(lambda: says("tried again until it answers"), "it to miss its host", 240)
    login.far.mend()
    room_for(-1)
    out, rest = client.communicate(timeout=240)
    assert client.returncode == 0, (said + rest).decode()
    assert out.decode().count("submitted to cluster") == 2
    wait_until(lambda: {row["state"] for row in states(laptop).values()} == {"DONE"}, "all of them")
    for name in ("gpt_base", "oelm_freeze"):
        assert len(read(run_dir(login, name) / "experiment_result.json")["attempts"]) == 1
        assert (run_dir(login, name) / "training.log").read_text().count("Started") == 1
    sent = list((login.home() / "oelm" / ".oelm" / "slurm").glob("*.sent.*"))
    assert len(sent) <= 5, "a night of waiting leaves no night of files"


def test_the_cluster_that_a_target_names_is_asked_there(laptop, login: Login, project: Path, stand_in: str) -> None:
    write_target(project, login, python=stand_in)
    targets = project / "jobs" / "targets.toml"
    targets.write_text(targets.read_text().replace("time = 30", 'time = 30, clusters = "oelmtest"'))
    own = login.place / "bin" / "scontrol"
    own.write_text(
        '#!/bin/sh\ncase "$SLURM_CLUSTERS$SLURM_JOB_ID$*" in "show config") echo "ClusterName = head"; exit;; esac\n'
        'exec /usr/bin/scontrol "$@"\n'
    )
    own.chmod(0o755)
    for command in ("sbatch", "squeue"):
        asked = login.place / "bin" / command
        asked.write_text(f'#!/bin/sh\necho "$SLURM_CLUSTERS" >> {login.place}/asked\nexec /usr/bin/{command} "$@"\n')
        asked.chmod(0o755)
    laptop("submit", "--study", "tiny", "--target", "cluster", "--group", "gpt_base", "--send-data", "--wait")
    assert states(laptop)["gpt_base"]["state"] == "DONE"
    assert set((login.place / "asked").read_text().split("\n")) == {"oelmtest", ""}


def test_a_client_that_dies_while_sbatch_works_doubles_nothing(
    laptop, login: Host, project: Path, stand_in: str, cluster: Testbed
) -> None:
    write_target(project, login, python=stand_in)
    slow = login.place / "bin" / "sbatch"
    slow.write_text(
        f"#!/bin/sh\ntouch {login.place}/begun; until [ -e {login.place}/go-on ]; do sleep 0.1; done\n"
        'exec /usr/bin/sbatch "$@"\n'
    )
    slow.chmod(0o755)
    words = ("--study", "tiny", "--target", "cluster", "--group", "gpt_base", "--send-data")
    client = laptop("submit", *words, start=True)
    wait_until((login.place / "begun").exists, "sbatch to begin")
    client.send_signal(signal.SIGKILL)
    client.communicate()
    for _ in range(2):
        assert laptop("submit", *words).stdout == "gpt_base: left alone, is being submitted by another command\n"
    shown = laptop("status")
    assert "is being sent" in shown.stdout + shown.stderr
    (login.place / "go-on").touch()
    wait_until(lambda: states(laptop)["gpt_base"]["state"] == "DONE", "the run")
    tokens = {path.name.partition(".")[0] for path in (login.home() / "oelm" / ".oelm" / "slurm").glob("*.sh")}
    names = cluster.run("squeue", "-h", "--states=all", "-o", "%j").split()
    assert len([name for name in names if set(name.split(".")) & tokens]) == 1
    assert len(read(run_dir(login) / "experiment_result.json")["attempts"]) == 1


def test_what_a_script_reads_is_sent_to_a_cluster(laptop, login: Host, project: Path) -> None:
    write_target(project, login)
    (project / "rows" / "deep").mkdir(parents=True)
    (project / "rows" / "deep" / "a.csv").write_text("1,2\n")
    (project / "look.py").write_text("print('holds', open('rows/deep/a.csv').read())\n")
    words = ("run", "--target", "cluster", "--gpus", "0", "--data", "rows")
    refused = laptop(*words, "--", "python", "look.py", check=False)
    assert refused.returncode == 2 and f"cluster: {login.home()}/oelm/rows: no such file" in refused.stderr
    assert "the same command with --send-data sends it" in refused.stderr
    done = laptop(*words, "--send-data", "--", "python", "look.py")
    assert f"sent to cluster: {login.home()}/oelm/rows" in done.stderr and "holds 1,2" in done.stdout
