"""Arrays, several nodes, dead nodes, limits of the site."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from oelm_jobs.agent.slurm import submit as slurm_submit
from oelm_jobs.agent.transfer import clean
from tests.slurm.testbed import Testbed
from tests.support import after_each_step, read, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def submit(oelm, project: Path, target, stand_in: str, cluster: Testbed) -> Any:
    """Submit runs of the stand-in trainer: ``submit("--num-seeds", "4", steps=100, step_s=0.1, sbatch={…})``."""

    def run(*arguments: str, steps: int = 12, step_s: float = 0.0, check: bool = True, **keys: Any) -> Any:
        study = project / "jobs" / "tiny.toml"
        study.write_text(study.read_text().replace("max_steps = 12", f"max_steps = {steps}"))
        sbatch = keys.pop("sbatch", None)
        target(sbatch, **{"python": stand_in, "setup": [f"export TRAINER_STEP_S={step_s}"], **keys})
        return oelm("submit", "--study", "tiny", "--target", "cluster", "--mode", "parallel", *arguments, check=check)

    return run


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def start_of(project: Path, name: str = "gpt_base") -> dict[str, Any]:
    path = run_dir(project, name) / ".oelm" / "start.json"
    wait_until(path.exists, "the start")
    return read(path)


GROUPS = ("gpt_base", "oelm_no_freeze", "oelm_freeze")


def held(project: Path, *names: str) -> Path:
    """Make the folder whose files keep runs of these names from going on after their first checkpoint; return it."""
    folder = project / "hold"
    folder.mkdir()
    for name in names:
        (folder / f"exp_{name}").touch()
    return folder


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_seeds_and_groups_are_one_array_with_a_limit_on_how_many_run(
    submit, project: Path, cluster: Testbed, wait_for, states, oelm
) -> None:
    hold = held(project, *(f"{group}{seed}" for group in GROUPS for seed in ("", "-s43", "-s44")))
    submit("--num-seeds", "3", max_parallel=2, setup=[f"export TRAINER_HOLD={hold}"])
    wait_until(lambda: sum(row["state"] == "RUNNING" for row in states().values()) == 2, "two of them to run")
    rows = states()
    assert len(rows) == 9 and len({row["job"].partition("_")[0] for row in rows.values()}) == 1, "one sbatch"
    queued = [name for name, row in rows.items() if row["state"] == "QUEUED"]
    assert len(queued) == 7 and "JobArrayTaskLimit" in rows[queued[0]]["reason"]
    running = [name for name, row in rows.items() if row["state"] == "RUNNING"]
    cancelled = [running[0], queued[-1]]
    said = oelm("cancel", "--yes", *(f"tiny/{name}" for name in cancelled)).stdout
    assert said == "".join(f"{name}: cancelled\n" for name in cancelled)
    rows = states()
    assert {rows[name]["state"] for name in cancelled} == {"CANCELLED"}
    assert not [name for name, row in rows.items() if row["state"] == "CANCELLED" and name not in cancelled]
    others = [name for name in rows if name not in cancelled]
    shutil.rmtree(hold)
    wait_until(lambda: all(states()[name]["state"] == "DONE" for name in others), "the others")
    for name in others:
        result = read(run_dir(project, name) / "experiment_result.json")
        assert result["run"] == name and result["train"]["seed"] == result["seed"]


def test_one_task_of_an_array_is_requeued_and_goes_on(submit, project: Path, cluster: Testbed, wait_for) -> None:
    hold = held(project, "oelm_freeze")
    submit("--groups", "gpt_base,oelm_freeze", setup=[f"export TRAINER_HOLD={hold}"])
    wait_for("oelm_freeze", "RUNNING")
    wait_until((run_dir(project, "oelm_freeze") / "heartbeat.json").exists, "a step")
    job = start_of(project, "oelm_freeze")["job"]
    cluster.run("scontrol", "requeue", job)
    wait_for("oelm_freeze", "QUEUED")
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "it to be pending")
    shutil.rmtree(hold)
    cluster.release(job)
    for name, number in (("oelm_freeze", 2), ("gpt_base", 1)):
        wait_for(name, "DONE")
        assert len(read(run_dir(project, name) / "experiment_result.json")["attempts"]) == number


WITHIN_A_JOB = {
    "SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "6", "SLURM_ARRAY_TASK_ID": "3", "SLURM_RESTART_COUNT": "2",
    "SLURM_MEM_PER_CPU": "100", "SLURM_MEM_PER_NODE": "200", "SLURMD_NODENAME": "n9",
}  # fmt: skip
"""What a task of an array, requeued twice, has in its environment."""
SETTINGS = {"SBATCH_PARTITION": "high", "SBATCH_TIMELIMIT": "3", "SBATCH_OUTPUT": "mine.out", "SBATCH_GPUS": "4"}
"""A user's own, of what the target or the toolkit states."""


@pytest.mark.parametrize("by_hand", [False, True])
def test_neither_a_job_in_which_a_run_is_submitted_nor_a_users_settings_bend_it(
    submit, oelm, project: Path, cluster: Testbed, wait_for, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    for name, value in {**WITHIN_A_JOB, **({} if by_hand else SETTINGS)}.items():
        monkeypatch.setenv(name, value)
    words = ("--group", "gpt_base")
    submit(*words, *(["--dry-run"] if by_hand else []), sbatch={"partition": "low"}, steps=300, step_s=0.1)
    if by_hand:
        monkeypatch.delenv("SLURM_RESTART_COUNT")
        text = oelm("submit", "--study", "tiny", "--target", "cluster", *words, "--dry-run", "--script").stdout
        script = project / "by-hand.sh"
        script.write_text("#!/bin/bash" + text.partition("#!/bin/bash")[2])
        cluster.run("sbatch", str(script))
    job = wait_until(lambda: cluster.run("squeue", "-h", "-t", "running", "-o", "%i"), "the job").strip()
    start = start_of(project)
    assert (start["job"], start["restart"]) == (job, 0)
    shown = cluster.job(job)
    assert (shown["Partition"], shown["TimeLimit"]) == ("low", "00:30:00")
    assert "mine.out" not in shown["StdOut"] and "gres/gpu=1" in shown.get("TRES", shown.get("AllocTRES", ""))
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "it to be pending")
    end = read(run_dir(project) / ".oelm" / "end.json")
    assert end["state"] == "QUEUED" and end["reason"].startswith("requeue")


def test_arrays_are_cut_where_the_cluster_says_so(submit, project: Path, cluster: Testbed, instead, states) -> None:
    instead("scontrol", '"$real" "$@" | sed "s/^MaxArraySize .*/MaxArraySize = 4/"')
    done = submit("--num-seeds", "3", sbatch={"begin": "now+1hour"})
    assert done.stdout.count("submitted to cluster") == 9
    ids = [row["job"].partition("_")[0] for row in states().values()]
    assert sorted(ids.count(job) for job in set(ids)) == [1, 4, 4]


# Limits ---------------------------------------------------------------------------------------------------------------


def test_a_limit_of_submitted_jobs_is_waited_for(submit, room_for, project: Path, cluster: Testbed, states) -> None:
    room_for(4)
    done = submit("--num-seeds", "3", steps=5, step_s=0.1)
    assert "takes no more jobs of yours for now" in done.stderr and "MaxSubmit" in done.stderr
    assert done.stdout.count("submitted to cluster") == 9
    wait_until(lambda: {row["state"] for row in states().values()} == {"DONE"}, "all of them")


def test_arrays_are_no_larger_than_the_limit_of_the_partitions_quality_of_service(
    submit, limited_partition, project: Path, cluster: Testbed, states
) -> None:
    limited_partition("MaxSubmitJobsPerUser=2")
    done = submit("--num-seeds", "2", steps=5, sbatch={"partition": "short", "time": "5"})
    assert done.stdout.count("submitted to cluster") == 6 and "takes no more jobs of yours" in done.stderr
    wait_until(lambda: {row["state"] for row in states().values()} == {"DONE"}, "all of them")
    assert len({row["job"].partition("_")[0] for row in states().values()}) == 3, "two at a time"


def test_a_submission_that_is_ended_while_it_waits_for_room_says_so(
    submit, room_for, oelm, project: Path, cluster: Testbed, states, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_submit, "PATIENCE_S", 0.0)
    submit("--group", "gpt_base", "--dry-run", steps=100_000, step_s=0.1)
    room_for(1)
    program = "from oelm_jobs.cli.submit import main; main()"
    words = ["--study", "tiny", "--target", "cluster", "--groups", "gpt_base,oelm_freeze"]
    argv = [sys.executable, "-c", program, *words]
    with subprocess.Popen(argv, cwd=project, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        wait_until(lambda: "takes no more jobs" in waiting.stderr.readline(), "it to wait")
        waiting.send_signal(signal.SIGINT)
    rows = states()
    assert rows["gpt_base"]["state"] in ("QUEUED", "RUNNING", "DONE"), "it was accepted"
    assert rows["oelm_freeze"]["state"] == "FAILED"
    assert "its submission was ended while it waited for room (" in rows["oelm_freeze"]["reason"]


@pytest.mark.parametrize(("share", "others"), [(None, 0o077), ("group", 0o007)])
def test_what_a_job_writes_is_its_owners_alone_or_its_groups(
    submit, project: Path, tmp_path: Path, cluster: Testbed, share: str | None, others: int
) -> None:
    root = tmp_path / "scratch"
    root.mkdir(mode=0o755)
    before = os.umask(0)
    try:
        submit("--group", "gpt_base", "--send-data", "--wait", root=str(root), share=share)
    finally:
        os.umask(before)
    found = [path for path in root.rglob("*") if not path.is_symlink()]
    assert {"training.log", "supervisor.log", "submissions"} <= {path.name for path in found}
    assert not [path for path in found if path.stat().st_mode & others]
    closed = [path for path in found if not path.stat().st_mode & 0o040]
    assert closed if share is None else not closed


def unused(project: Path) -> list[str]:
    """Return the snapshots that the agent says nobody needs."""
    return list(clean.snapshots({"root": str(project)})["unused"])


def test_the_code_of_a_job_that_waits_stays_until_it_was_cancelled(
    submit, oelm, project: Path, cluster: Testbed, wait_for
) -> None:
    submit("--group", "gpt_base", sbatch={"hold": True})
    job = wait_for("gpt_base", "QUEUED")["job"]
    assert unused(project) == []
    cluster.run("scancel", job)
    wait_for("gpt_base", "CANCELLED")
    (left,) = unused(project)
    oelm("clean", "--all", "--yes")
    assert not (project / ".oelm" / "snapshots" / left).exists()


def test_the_code_of_a_submission_that_waits_for_room_stays(submit, room_for, project: Path, cluster: Testbed) -> None:
    submit("--group", "gpt_base", "--dry-run", steps=100_000)
    room_for(0)
    program = "from oelm_jobs.cli.submit import main; main()"
    argv = [sys.executable, "-c", program, "--study", "tiny", "--target", "cluster", "--group", "gpt_base"]
    with subprocess.Popen(argv, cwd=project, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stderr is not None
        wait_until(lambda: "takes no more jobs" in waiting.stderr.readline(), "it to wait")
        assert len(list((project / ".oelm" / "snapshots").iterdir())) == 1 and unused(project) == []
        waiting.send_signal(signal.SIGINT)


ON_QOS, ON_ACCOUNT = ("qos", "normal"), ("account", "root")


@pytest.mark.parametrize(
    ("where", "quota", "reason"),
    [
        (ON_QOS, "MaxTRESPerUser=gres/gpu=1", "you may have (QOSMaxGRESPerUser"),
        (ON_QOS, "MaxTRESPerUser=cpu=1", "you may have (QOSMaxCpuPerUserLimit"),
        (ON_QOS, "GrpTRES=gres/gpu=1", "may have (QOSGrpGRES"),
        (ON_ACCOUNT, "GrpTRES=gres/gpu=1", "may have (AssocGrpGRES"),
    ],
)
def test_a_quota_that_a_run_can_never_meet_is_named_at_once(
    submit, oelm, project: Path, cluster: Testbed, wait_for, where: tuple[str, str], quota: str, reason: str
) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('label = "Group A: GPT-Base", ', 'label = "A", gpus = 2, '))
    # That others of the user's jobs run, within the quota, clears nothing.
    cluster.run("sbatch", "--output=/dev/null", "--wrap=sleep 600")
    submit("--group", "gpt_base", sbatch={"hold": True})
    cluster.run("sacctmgr", "-i", "modify", *where, "set", quota)
    try:
        oelm("doctor", "cluster", check=False)  # which asks for limits anew
        cluster.run("scontrol", "release", wait_for("gpt_base", "QUEUED")["job"])
        wait_until(lambda: "can't start" in wait_for("gpt_base", "QUEUED")["reason"], "the reason")
        assert reason in wait_for("gpt_base", "QUEUED")["reason"]
        if "gpu" in quota:
            named = {"account": "root", "qos": "normal"}
            done = submit("--group", "gpt_base", "--tag", "b", sbatch=named, check=False)
            assert done.returncode == 2 and "set gpus_per_run = 1" in done.stderr
    finally:
        cluster.run("sacctmgr", "-i", "modify", *where, "set", quota.rpartition("=")[0] + "=-1")


def test_a_quota_of_the_partition_that_a_run_can_never_meet_is_named_at_once(
    submit, limited_partition, project: Path, cluster: Testbed, wait_for
) -> None:
    limited_partition("MaxTRESPerUser=cpu=1")
    cluster.run("sbatch", "--partition=short", "--output=/dev/null", "--wrap=sleep 200")
    submit("--group", "gpt_base", sbatch={"partition": "short", "time": "5", "cpus-per-task": 2})
    wait_until(lambda: "can't start" in wait_for("gpt_base", "QUEUED")["reason"], "the reason")


def test_a_partition_that_does_not_exist_is_refused_before_anything_is_queued(
    submit, project: Path, cluster: Testbed, states
) -> None:
    done = submit("--group", "gpt_base", sbatch={"partition": "loww"}, check=False)
    assert done.returncode == 2 and "loww" in done.stderr and "low" in done.stderr
    assert not cluster.run("squeue", "-h")


# Nodes ----------------------------------------------------------------------------------------------------------------


def test_two_nodes_train_together_and_equal_one(oelm, project: Path, cluster: Testbed, target, wait_for) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('label = "Group A: GPT-Base", ', 'label = "A", gpus = 2, '))
    target({"nodes": 2})
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster", "--wait")
    start = start_of(project)
    assert start["nodes"] == ["n1", "n2"] and start["devices"] == ["n1/gpu:0", "n2/gpu:0"]
    outcome = read(run_dir(project) / ".oelm" / "outcome.json")
    assert outcome["world_size"] == 2
    assert (
        read(run_dir(project) / ".oelm" / "slurm-claim.1")["cluster"]
        == cluster.run("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").strip()
    )
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "local", "--tag", "one", "--wait")
    alone = read(run_dir(project, "gpt_base-one") / ".oelm" / "outcome.json")
    assert outcome["final"]["val_loss"] == pytest.approx(alone["final"]["val_loss"], rel=1e-4)


@pytest.mark.parametrize(
    "options", [{"ntasks": 4, "gpus-per-task": 1}, {"ntasks": 4, "gpus-per-task": "a5000:1"}, {"gpus": "a5000:4"}]
)
def test_every_process_of_two_nodes_sees_the_gpus_of_its_node(
    oelm, project: Path, cluster: Testbed, target, wait_for, options: dict[str, Any]
) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('label = "Group A: GPT-Base", ', 'label = "A", gpus = 4, '))
    seen = f"open(r'{project}/seen.' + os.environ['RANK'], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    # Processes that end before they import torch: that two nodes train together is tried above.
    (project / "train" / "__main__.py").write_text(f"import os\n{seen}\n")
    target({"nodes": 2, **options})
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster", "--wait", check=False)
    assert [(project / f"seen.{rank}").read_text() for rank in range(4)] == ["0,1"] * 4


RAISES = "raise ValueError('bad luck')"
DIES = "(print('CUDA Error: illegal access', flush=True), __import__('os').kill(__import__('os').getpid(), 11))"


@pytest.mark.parametrize(
    ("fails", "reason"),
    [(RAISES, "ValueError: bad luck"), (DIES, ": killed by SIGSEGV: CUDA Error: illegal access")],
)
def test_a_rank_that_fails_on_the_other_node_ends_the_job_with_its_reason(
    oelm, project: Path, cluster: Testbed, target, wait_for, fails: str, reason: str
) -> None:
    study = project / "jobs" / "tiny.toml"
    study.write_text(
        study.read_text()
        .replace('label = "Group A: GPT-Base", ', 'label = "A", gpus = 2, ')
        .replace("max_steps = 12", "max_steps = 100000")
    )
    after_each_step(project, f"if progress.step == 5 and __import__('os').environ['RANK'] == '1': {fails}")
    target({"nodes": 2})
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    row = wait_for("gpt_base", "FAILED")
    assert reason in row["reason"]
    wait_until(lambda: not cluster.run("squeue", "-h"), "the job's end")


def test_a_run_whose_node_slurm_gives_up_was_not_cancelled_by_anybody(
    submit, project: Path, cluster: Testbed, wait_for
) -> None:
    submit("--group", "gpt_base", steps=100000, step_s=0.1, sbatch={"nodelist": "n2"}, requeue=False)
    wait_for("gpt_base", "RUNNING")
    wait_until((run_dir(project) / "heartbeat.json").exists, "a step")
    cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    try:
        assert wait_for("gpt_base", "FAILED")["reason"] == "node failure: submit again to resume"
        end = run_dir(project) / ".oelm" / "end.json"
        wait_until(end.exists, "its record")
        assert (read(end)["state"], read(end)["reason"]) == ("FAILED", "node failure: submit again to resume")
    finally:
        wait_until(lambda: "idle" in cluster.run("sinfo", "-h", "-n", "n2", "-o", "%T"), "the node to be back")


def test_a_dead_node_gives_its_run_to_another_one(submit, project: Path, cluster: Testbed, wait_for) -> None:
    submit("--group", "gpt_base", steps=100000, step_s=0.1, sbatch={"nodelist": "n2"})
    wait_for("gpt_base", "RUNNING")
    wait_until((run_dir(project) / "heartbeat.json").exists, "a step")
    start = start_of(project)
    cluster.kill("n2")
    try:
        cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
        wait_until(lambda: cluster.job(start["job"]).get("JobState") == "PENDING", "Slurm to give the node up")
        row = wait_for("gpt_base", "QUEUED")
        assert row["reason"].startswith(("waits", "a node that it asks for")) and row["job"] == start["job"]
        cluster.run("scontrol", "update", f"JobId={start['job']}", "ReqNodeList=n1")
        cluster.release(start["job"])
        wait_until(lambda: start_of(project).get("number") == 2, "the second attempt")
        wait_for("gpt_base", "RUNNING")
        assert start_of(project)["nodes"] == ["n1"]
        old = processes.Identity.from_json(start)
        assert old is not None
        wait_until(lambda: not old.is_alive(), "the supervisor on the dead node to see that it lost its claim")
        kept = run_dir(project) / ".oelm" / "end.json"
        assert not kept.exists(), "it wrote nothing any more"
    finally:
        cluster.start_node("n2")
        cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)
        wait_until(lambda: cluster.run("sinfo", "-h", "-n", "n2", "-o", "%T").split()[0] in ("idle", "mixed"), "n2")


def test_a_supervisor_that_lost_its_claim_ends_its_processes_and_writes_nothing(
    project: Path, cluster: Testbed, tmp_path: Path
) -> None:
    """As on a node that was cut off: the file system is all that it shares with its successor."""
    import json

    folder = tmp_path / "exp_a"
    record = {
        "scheduler": "slurm",
        "token": "t",
        "run": "a",
        "run_dir": str(folder),
        "world_size": 1,
        "fingerprint": "f",
    }
    program = (
        "import sys\nfrom oelm_jobs.agent.slurm import job as slurm_job\nslurm_job.SlurmJob.look_s = 0.2\n"
        "from oelm_jobs.agent.supervise import main\n"
        "sys.exit(main(['--', sys.executable, '-c', 'import time; time.sleep(600)']))"
    )
    environment = {**os.environ, "SLURM_JOB_ID": "999", "SLURM_JOB_NAME": "a", "SLURMD_NODENAME": "n1"}
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, env=environment, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    child.stdin.write(json.dumps(record).encode())
    child.stdin.close()
    try:
        wait_until((folder / ".oelm" / "start.json").exists, "the start")
        mine = read(folder / ".oelm" / "slurm-claim.1")
        (folder / ".oelm" / "slurm-claim.2").write_text(json.dumps({**mine, "restart": 1}))
        assert child.wait(300) == 75
        wait_until(lambda: not processes.of_run(folder), "its processes to be gone")
        assert not (folder / ".oelm" / "end.json").exists()
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
