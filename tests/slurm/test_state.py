"""What is said of a run agrees with Slurm and with the run's own records, whatever of the two can be asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from oelm_jobs.agent.slurm import accounts as slurm_accounts
from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.slurm import state as slurm_state
from oelm_jobs.agent.slurm import tasks as slurm_tasks
from oelm_jobs.agent.slurm import waiting as slurm_waiting
from oelm_jobs.runs import control, observe
from oelm_jobs.store import Store
from tests.slurm.testbed import Testbed
from tests.support import kill, read, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def submit(oelm, project: Path, target, stand_in: str) -> Any:
    """Submit runs of the stand-in trainer: ``submit("gpt_base", steps=100, step_s=0.1)``."""

    def run(groups: str = "gpt_base", *arguments: str, steps: int = 12, step_s: float = 0.0, **keys: Any) -> Any:
        study = project / "jobs" / "tiny.toml"
        study.write_text(study.read_text().replace("max_steps = 12", f"max_steps = {steps}"))
        sbatch = keys.pop("sbatch", None)
        target(sbatch, python=stand_in, setup=[f"export TRAINER_STEP_S={step_s}"], **keys)
        words = ("--study", "tiny", "--groups", groups, "--target", "cluster", "--mode", "parallel")
        return oelm("submit", *words, *arguments)

    return run


def run_dir(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}"


def job_of(project: Path, name: str = "gpt_base") -> str:
    start = run_dir(project, name) / ".oelm" / "start.json"
    wait_until(start.exists, "the start")
    return str(read(start)["job"])


def end_without_a_word(project: Path, cluster: Testbed, name: str) -> None:
    """Kill a run's supervisor and everything else of it, as nobody does who would leave a record."""
    wait_until((run_dir(project, name) / "heartbeat.json").exists, "a step")
    os.kill(int(read(run_dir(project, name) / ".oelm" / "start.json")["pid"]), signal.SIGKILL)
    kill(processes.of_run(run_dir(project, name)))
    job = str(read(run_dir(project, name) / ".oelm" / "start.json")["job"])
    wait_until(lambda: cluster.job(job).get("JobState") == "FAILED", "Slurm to notice")


def nothing_in_the_queue(instead: Any) -> None:
    """What squeue says once MinJobAge has passed."""
    instead("squeue", "exit 0")


def check_a_done_a_killed_and_a_cancelled_run(
    submit: Any, project: Path, cluster: Testbed, wait_for: Any, look: Any
) -> None:
    """Let a run of each kind leave the queue; ``look`` says where they stand then."""
    submit("gpt_base")
    wait_for("gpt_base", "DONE")
    for name in ("oelm_no_freeze", "oelm_freeze"):  # each alone: a task's id is none that another job can have
        submit(name, steps=1000, step_s=1.0)
    wait_until((run_dir(project, "oelm_freeze") / "heartbeat.json").exists, "a step")
    # From here on nobody looks before the queue has forgotten them: an end that was seen is not asked for again.
    end_without_a_word(project, cluster, "oelm_no_freeze")
    cluster.run("scancel", job_of(project, "oelm_freeze"))
    wait_until(lambda: not cluster.run("squeue", "-h"), "both to end")

    def said() -> Any:  # accounting hears of an end a little later than the queue
        rows = look()
        return rows if rows["oelm_no_freeze"]["state"] not in ("UNKNOWN", "RUNNING") else None

    rows = wait_until(said, "accounting to know")
    assert rows["gpt_base"]["state"] == "DONE"
    assert rows["oelm_no_freeze"]["state"] == "FAILED"
    # Accounting alone knows how the job ended.
    code = " (exit code 0:9)" if cluster.accounting else ""
    assert rows["oelm_no_freeze"]["reason"] == f"its job ended without an end record{code}: submit again to resume"
    assert (rows["oelm_freeze"]["state"], rows["oelm_freeze"]["reason"]) == ("CANCELLED", "cancelled by scancel")


# What left the queue --------------------------------------------------------------------------------------------------


def test_what_left_the_queue_is_known_by_its_record_and_else_by_accounting(
    submit, project: Path, cluster: Testbed, wait_for, states, instead
) -> None:
    def look() -> Any:
        nothing_in_the_queue(instead)
        return states()

    check_a_done_a_killed_and_a_cancelled_run(submit, project, cluster, wait_for, look)


def test_without_accounting_queue_and_records_are_enough(
    submit, project: Path, new_cluster, wait_for, states, instead
) -> None:
    def look() -> Any:
        nothing_in_the_queue(instead)
        return states()

    check_a_done_a_killed_and_a_cancelled_run(submit, project, new_cluster(accounting=False), wait_for, look)


def test_a_job_that_slurm_has_forgotten_and_whose_id_another_one_has_is_still_told(
    submit, project: Path, new_cluster, wait_for, states
) -> None:
    cluster = new_cluster(max_job_id=5, min_job_age=2)

    others: list[str] = []

    def look() -> Any:
        killed = job_of(project, "oelm_no_freeze")
        if not others:
            forgotten = lambda: "Invalid job id" in cluster.call("scontrol", "show", "job", killed).stderr  # noqa: E731
            wait_until(forgotten, "slurmctld to forget its old jobs")
        while killed not in others:
            assert len(others) < 5, f"job id {killed} is used again"
            others.append(cluster.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600").strip())
        both = ("sacct", "--noheader", "--allocations", "--duplicates", "--starttime=now-1hour", f"--jobs={killed}")
        wait_until(lambda: len(cluster.run(*both).splitlines()) == 2, "accounting to list both jobs of that id")
        return states()

    check_a_done_a_killed_and_a_cancelled_run(submit, project, cluster, wait_for, look)
    with Store() as store:
        answers = control.cancel(store, project, store.runs(project))
    assert set(answers.values()) == {"not running"}
    assert all(cluster.job(job)["JobState"] in ("RUNNING", "PENDING") for job in others), "nobody else's job is hurt"
    submit("oelm_no_freeze", steps=1000)
    wait_for("oelm_no_freeze", "DONE")


def test_a_pending_run_that_somebody_cancelled_is_cancelled(
    submit, project: Path, cluster: Testbed, wait_for, states, instead
) -> None:
    submit("gpt_base", sbatch={"begin": "now+1hour"})
    row = states()["gpt_base"]
    assert row["state"] == "QUEUED" and "start time" in row["reason"] and row["starts_at"] > time.time() + 3000
    cluster.run("scancel", row["job"])
    assert wait_for("gpt_base", "CANCELLED")["reason"] == "cancelled before it started"
    nothing_in_the_queue(instead)
    instead("sacct", "echo 'sacct: error: somebody asked' >&2; exit 1")
    row = states()["gpt_base"]
    assert (row["state"], row["reason"]) == ("CANCELLED", "cancelled before it started"), "what is known is not asked"
    with Store() as store:
        row = observe.refresh(store, project, store.runs(project), scope=observe.Scope.ALL).runs[0]
    assert (row.state, row.reason) == ("CANCELLED", "cancelled before it started")


def test_a_hung_slurmdbd_leaves_what_it_alone_would_know_unknown_and_keeps_nobody_waiting(
    submit, project: Path, cluster: Testbed, wait_for, states, instead, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit("gpt_base")
    wait_for("gpt_base", "DONE")
    submit("oelm_freeze", steps=1000, step_s=1.0)
    wait_for("oelm_freeze", "RUNNING")
    end_without_a_word(project, cluster, "oelm_freeze")
    nothing_in_the_queue(instead)
    monkeypatch.setattr(slurm_accounts, "TIMEOUT_S", 2.0)
    calls = project / "calls"
    instead("sacct", f'echo x >> {calls}; exec $real "$@"')
    cluster.signal("slurmdbd", signal.SIGSTOP)
    try:
        for _ in range(2):
            rows = states()
            assert rows["gpt_base"]["state"] == "DONE", "its record says so"
            assert rows["oelm_freeze"]["state"] == "UNKNOWN"
            assert "accounting does not answer" in rows["oelm_freeze"]["reason"]
        assert len(calls.read_text().split()) == 1, "the second look does not wait for it again"
        scripts = set((project / ".oelm" / "slurm").glob("*.sh"))
        assert "is UNKNOWN" in submit("oelm_freeze").stdout
        assert set((project / ".oelm" / "slurm").glob("*.sh")) == scripts, "nothing is sent while nobody knows"
    finally:
        cluster.signal("slurmdbd", signal.SIGCONT)
    monkeypatch.setattr(slurm_accounts, "PAUSE_S", 0.0)
    assert wait_for("oelm_freeze", "FAILED")["reason"].startswith("its job ended without an end record")


# What is in it --------------------------------------------------------------------------------------------------------


def test_a_suspended_job_runs_and_says_so(submit, project: Path, cluster: Testbed, wait_for, states) -> None:
    submit("gpt_base", steps=1000, step_s=0.5)
    wait_for("gpt_base", "RUNNING")
    job = job_of(project)
    cluster.run("scontrol", "suspend", job)
    wait_until(lambda: states()["gpt_base"]["reason"] == "suspended", "it to be suspended")
    assert states()["gpt_base"]["state"] == "RUNNING"
    cluster.run("scontrol", "resume", job)
    wait_until(lambda: states()["gpt_base"]["reason"] == "", "it to go on")


def test_a_set_up_that_fails_ends_the_run_with_its_own_words(
    oelm, submit, project: Path, cluster: Testbed, wait_for, target
) -> None:
    target(setup=["echo 'no such module: torch' >&2; false"])
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    row = wait_for("gpt_base", "FAILED")
    assert row["reason"].startswith("ended before training started: set-up failed")
    assert "no such module: torch" in oelm("logs", "--supervisor", "gpt_base").stdout


def test_what_an_older_job_said_is_not_taken_for_the_newest(
    submit, oelm, target, project: Path, cluster: Testbed, wait_for, states, stand_in: str
) -> None:
    submit("gpt_base", steps=1000, step_s=1.0)
    wait_for("gpt_base", "RUNNING")
    oelm("cancel", "gpt_base")
    gate = project / "gate"
    target(python=stand_in, setup=[f'[ -z "$SLURM_JOB_ID" ] || until [ -e {gate} ]; do sleep 0.1; done'])
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--target", "cluster")
    assert wait_for("gpt_base", "RUNNING")["reason"] == "before training"
    oelm("cancel", "gpt_base")
    assert wait_for("gpt_base", "CANCELLED", "FAILED")["state"] == "CANCELLED"


def test_a_run_that_a_script_by_hand_saw_through_is_done(
    submit, oelm, project: Path, cluster: Testbed, wait_for, states
) -> None:
    submit("gpt_base", sbatch={"begin": "now+1hour"})
    wait_for("gpt_base", "QUEUED")
    words = ("--study", "tiny", "--group", "gpt_base", "--target", "cluster", "--dry-run", "--script")
    text = "#!/bin/bash" + oelm("submit", *words).stdout.partition("#!/bin/bash")[2]
    (project / "by-hand.sh").write_text(text.replace("#SBATCH --begin=now+1hour\n", ""))
    cluster.run("sbatch", str(project / "by-hand.sh"))
    wait_for("gpt_base", "DONE")
    cluster.run("scancel", "--user=root")
    assert states()["gpt_base"]["state"] == "DONE"


def test_commands_that_ask_at_once_or_within_the_targets_interval_share_one_squeue(
    oelm, submit, project: Path, cluster: Testbed, wait_for, instead
) -> None:
    submit("gpt_base", steps=1000, step_s=1.0, poll_s=300)
    calls = project / "calls"
    instead("squeue", f'echo x >> {calls}; exec $real "$@"')
    slurm_commands.forget_queue()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(slurm_commands.my_queue(30.0)[1]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 8
    assert calls.read_text().count("x") == 1
    slurm_commands.forget_queue()
    calls.write_text("")
    for _ in range(3):
        assert "gpt_base" in oelm("status").stdout
    assert calls.read_text().count("x") == 1, "commands of their own, too"


# Reading what Slurm prints --------------------------------------------------------------------------------------------


def test_login_nodes_of_a_cluster_share_its_queue_and_clusters_that_share_a_home_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead
) -> None:
    here = os.uname()

    def file_on(node: str, cluster: str, controller: str = "head", answers: bool = True) -> Path | None:
        monkeypatch.setattr(os, "uname", lambda: os.uname_result((here.sysname, node, *here[2:])))
        monkeypatch.setenv("OELM_BOOT_ID_FILE", str(tmp_path / f"{node}-{cluster}-{controller}"))
        (tmp_path / f"{node}-{cluster}-{controller}").write_text(f"{node}-{cluster}-{controller}")
        lines = f"echo 'ClusterName = {cluster}'; echo 'SlurmctldHost[0] = {controller}'"
        instead("scontrol", lines if answers else "exit 1")
        slurm_commands._cluster.cache_clear()
        return slurm_commands.cache_file("squeue")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert file_on("login1", "c") == file_on("login2", "c")
    assert file_on("login1", "c") != file_on("login1", "d"), "two nodes of one name"
    assert file_on("login1", "c") != file_on("login1", "c", "head2"), "two clusters of one name"
    assert file_on("login1", "c", answers=False) == file_on("login1", "c"), "remembered"
    assert file_on("login8", "c", answers=False) != file_on("login9", "c", answers=False), "told by their nodes"
    slurm_commands._cluster.cache_clear()


def test_squeue_is_read_whatever_a_name_holds() -> None:
    text = (
        "Welcome to the cluster!\n"
        "12|N/A|RUNNING|1795495168|1795495160|n1|low|normal|None|a|b c.oelm-1.0\n"
        "13|4|PENDING|N/A|1795495160||low|normal|Resources|tiny.oelm-2.0\n"
    )
    first, second = slurm_commands.read_queue(text)
    assert (first.id, first.task, first.name, first.reason) == ("12", None, "a|b c.oelm-1.0", "")
    assert (second.id, second.task, second.starts_at) == ("13_4", 4, 0.0)


def test_sacct_is_read_with_steps_left_out_and_ranges_spelled_out() -> None:
    text = (
        "12|CANCELLED by 0|0:15|1795495160|1795495161|1795495190|n1|x.oelm-1.0\n"
        "12.batch|CANCELLED|0:15|1795495160|1795495161|1795495190|n1|batch\n"
        "13_[2-4%2]|PENDING|0:0|1795495160|Unknown|Unknown|None assigned|y.oelm-1.1\n"
    )
    rows = slurm_accounts.read(text)
    assert [(row.id, row.state) for row in rows] == [
        ("12", "CANCELLED"), ("13_2", "PENDING"), ("13_3", "PENDING"), ("13_4", "PENDING"),
    ]  # fmt: skip
    assert slurm_accounts.tasks("[1,3,5-9:2%4]") == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("reason", "may_clear", "never"),
    [
        ("QOSMaxGRESPerUser", False, True),
        ("QOSMaxGRESPerUser", True, False),
        ("QOSMaxGRESPerJob", True, True),
        ("AssocMaxWallDurationPerJobLimit", True, True),
        ("QOSMinGRES", True, True),
        ("PartitionTimeLimit", True, True),
        ("BadConstraints", True, True),
        ("QOSMaxJobsPerUserLimit", True, False),
        ("AssocGrpGRES", False, True),
        ("AssocGrpGRES", True, False),
        ("QOSGrpCpuLimit", False, True),
        ("AssocMaxJobsLimit", False, False),
        ("AssocGrpCPURunMinutesLimit", False, False),
        ("AssocGrpBillingMinutes", False, False),
        ("QOSGrpGRESMinutes", False, False),
        ("AssocGrpWallLimit", False, False),
        ("AssocMaxCpuMinutesPerJobLimit", True, True),
        ("PartitionNodeLimit", True, False),
        ("MaxGRESPerAccount", False, True),
        ("Priority", False, False),
        ("Resources", False, False),
        ("JobArrayTaskLimit", False, False),
    ],
)
def test_reasons_that_no_waiting_clears_are_told_from_the_others(reason: str, may_clear: bool, never: bool) -> None:
    assert bool(slurm_waiting.can_never_start(reason, may_clear)) == never
    assert slurm_waiting.explain(reason, may_clear).startswith("can't start") == never


@pytest.mark.parametrize(
    ("reason", "words", "is_held"),
    [
        ("None", "waits (None)", False),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
         "waits: its nodes are down, drained or reserved for jobs of higher priority", False),
        ("ReqNodeNotAvail, UnavailableNodes:n[3-4]",
         "a node that it asks for is not available (ReqNodeNotAvail, UnavailableNodes:n[3-4])", False),
        ("job requeued in held state",
         "held since it was requeued (job_requeued_in_held_state); scontrol release lets it go", True),
        ("JobHeldUser", "held by you (JobHeldUser); scontrol release lets it go", True),
        ("AssocGrpBillingMinutes", "waits: the minutes of its account or quality of service are used up, or too few for"
         " it (AssocGrpBillingMinutes)", False),
        ("AssocGrpCPURunMinutesLimit", "waits for a limit to clear (AssocGrpCPURunMinutesLimit)", False),
        ("QOSMinGRES", "can't start: it asks for less than one job must have (QOSMinGRES)", False),
        ("PartitionNodeLimit", "nodes are down or drained, or it asks for more of them than the partition allows"
         " (PartitionNodeLimit)", False),
    ],
)  # fmt: skip
def test_reasons_are_told_in_words_with_what_belongs_to_them(reason: str, words: str, is_held: bool) -> None:
    assert slurm_waiting.explain(reason, may_clear=True) == words
    assert slurm_waiting.is_held(reason) == is_held


@pytest.mark.parametrize("state", ["RUNNING", "STAGE_OUT", "POWER_UP_NODE", "A_STATE_OF_2030"])
def test_a_state_that_nobody_knows_is_not_taken_for_an_end(tmp_path: Path, state: str) -> None:
    job = slurm_commands.Job(id="1", task=None, name="n", state=state)
    assert job.is_alive and not job.is_over
    task = slurm_tasks.Task("t", 0, "n", None, 1.0)
    rows = slurm_state.states(str(tmp_path), [(str(tmp_path), "t")], {str(tmp_path): task}, [job], 2.0)
    assert rows[str(tmp_path)]["state"] == "RUNNING"


def test_commands_that_a_profile_alone_puts_on_the_path_are_found(profile) -> None:
    profile("squirrel", "echo found", "echo Welcome")
    assert slurm_commands.call(["squirrel"], 10.0) == (0, "found\n", "")
    with pytest.raises(slurm_commands.SlurmError, match="weasel can't be run: there is none on this host"):
        slurm_commands.call(["weasel"], 10.0)


def test_a_lost_index_is_made_again_with_the_runs_that_wait(
    oelm, submit, project: Path, cluster: Testbed, wait_for, states
) -> None:
    submit("gpt_base,oelm_freeze", steps=1000, step_s=0.5, sbatch={"exclusive": True, "nodelist": "n1"})
    wait_until(lambda: sorted(row["state"] for row in states().values()) == ["QUEUED", "RUNNING"], "one to run")
    before = {name: (row["state"], row["job"]) for name, row in states().items()}
    (Path(os.environ["OELM_STATE_DIR"]) / "runs.sqlite3").unlink()
    oelm("status", "--rebuild")
    assert {name: (row["state"], row["job"]) for name, row in states().items()} == before
    assert oelm("cancel", "--all", "--yes").stdout.count("cancelled") == 2


def test_what_is_fetched_of_a_running_run_is_not_taken_for_its_end(
    oelm, submit, project: Path, cluster: Testbed, wait_for
) -> None:
    from oelm_jobs.agent import probe

    submit("gpt_base", steps=1000, step_s=0.2)
    wait_for("gpt_base", "RUNNING")
    job_of(project)
    row = probe.state(str(run_dir(project)))
    assert (row["state"], row["job"]) == ("RUNNING", job_of(project))
