"""What Slurm's words about a job, and a run's own records, come to: by recorded rows and stand-ins for Slurm's
commands, without a cluster.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.slurm import accounts as slurm_accounts
from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.slurm import site as slurm_site
from oelm_jobs.agent.slurm import state as slurm_state
from oelm_jobs.agent.slurm import submit as submission
from oelm_jobs.agent.slurm import tasks as slurm_tasks
from oelm_jobs.agent.slurm.commands import Job
from oelm_jobs.checks import site
from oelm_jobs.checks.finding import Finding, Grade
from oelm_jobs.spec.options import Slurm
from oelm_jobs.spec.target import Target
from tests.slurm.recorded import ENDED, LATER, NAME, READ, STARTED, SUBMITTED, TOKEN, account, fails, prints

pytestmark = pytest.mark.usefixtures("no_cluster")

AGAIN = ": submit again to resume"
Put = Callable[[str, str], None]


# Where a run stands ---------------------------------------------------------------------------------------------------


def start(**changes: Any) -> dict[str, Any]:
    """Return the start record of the run's first attempt."""
    return {"token": TOKEN, "number": 1, "job": "7", "started_at": STARTED, "devices": ["n1/gpu:0"], **changes}


def end(state: str, reason: str = "", *, number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return an end record of the run's first attempt."""
    attempt = {"number": number, "job": "7", "devices": ["n1/gpu:0"], "started_at": STARTED}
    return {"token": TOKEN, "state": state, "reason": reason, "ended_at": ENDED, "attempts": [attempt], **changes}


def row(state: str, **changes: Any) -> Job:
    """Return a row of squeue for the run's job."""
    made = Job(id="7", task=None, name=NAME, state=state, submitted_at=SUBMITTED, starts_at=STARTED)
    return made._replace(**changes)


@dataclass
class Bed:
    """A run's directory and its submission, whatever is written there."""

    root: Path
    task: slurm_tasks.Task = field(default_factory=lambda: slurm_tasks.Task(TOKEN, 0, NAME, None, SUBMITTED))
    answer: dict[str, Any] = field(default_factory=lambda: {"id": "7"})

    @property
    def run_dir(self) -> Path:
        return self.root / "exp_a"

    def write(self, name: str, content: Any) -> None:
        (self.run_dir / ".oelm").mkdir(parents=True, exist_ok=True)
        (self.run_dir / ".oelm" / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def say(self, *jobs: Job, read_at: float = READ) -> dict[str, Any]:
        """Return where the run stands, with these rows in the queue."""
        submission.folder(str(self.root))
        rundir.write_json(submission.file_of(str(self.root), TOKEN, 0, ".answer.json"), self.answer)
        run_dir = str(self.run_dir)
        return slurm_state.states(str(self.root), [(run_dir, TOKEN)], {run_dir: self.task}, jobs, read_at)[run_dir]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    made = Bed(tmp_path / "root")
    made.write("run.json", {"token": TOKEN})
    made.write("supervisor.log", "")
    return made


IN_THE_QUEUE = [
    # (squeue's row, start record, end record, state, reason)
    (row("PENDING", reason="Priority", starts_at=0.0), None, None, "QUEUED", "waits for its turn (Priority)"),
    (row("PENDING", reason="BeginTime"), start(), end("QUEUED", "time limit"), "QUEUED",
     "after time limit; waits for its start time (BeginTime)"),
    (row("CONFIGURING"), None, None, "QUEUED", "configuring"),
    (row("REQUEUED"), start(), end("QUEUED", "requeue"), "QUEUED", "after requeue; requeued"),
    (row("REQUEUE_HOLD"), start(), end("QUEUED", "requeue"), "QUEUED", "after requeue; requeue_hold"),
    (row("SPECIAL_EXIT"), None, None, "QUEUED", "special_exit"),
    (row("REQUEUE_HOLD", reason="job_requeued_in_held_state"), start(), end("QUEUED", "requeue"), "QUEUED",
     "after requeue; held since it was requeued (job_requeued_in_held_state); scontrol release lets it go"),
    (row("RUNNING"), None, None, "RUNNING", "before training"),
    (row("RUNNING"), start(), None, "RUNNING", ""),
    (row("RUNNING", starts_at=LATER), start(), end("QUEUED", "preemption"), "RUNNING", "before training"),
    (row("RUNNING"), start(), end("FAILED", "exit code 1"), "FAILED", "exit code 1"),
    (row("RUNNING"), start(number=2), end("QUEUED", "preemption"), "RUNNING", ""),
    (row("RUNNING"), start(job="5", token="oelm-0"), end("DONE", token="oelm-0", ended_at=500.0), "RUNNING",
     "before training"),
    (row("SUSPENDED"), start(), None, "RUNNING", "suspended"),
    (row("COMPLETING"), start(), None, "RUNNING", "completing"),
    (row("COMPLETING"), start(), end("QUEUED", "preemption"), "QUEUED", "after preemption"),
    (row("COMPLETING", starts_at=LATER), start(), end("QUEUED", "requeue"), "QUEUED", "after requeue"),
    (row("COMPLETING"), start(), end("DONE"), "DONE", ""),
    (row("COMPLETING"), start(), end("FAILED", "NaN"), "FAILED", "NaN"),
    (row("COMPLETED"), start(), end("DONE"), "DONE", ""),
    (row("COMPLETED"), None, None, "FAILED", "ended before training started"),
    (row("FAILED"), start(), None, "FAILED", "its job ended without an end record" + AGAIN),
    (row("FAILED"), start(), end("FAILED", "NaN"), "FAILED", "NaN"),
    (row("PREEMPTED"), start(), None, "FAILED", "preempted, and not started again" + AGAIN),
    (row("PREEMPTED"), start(), end("FAILED", "NaN"), "FAILED", "NaN"),
    (row("PREEMPTED"), start(), end("QUEUED", "preemption"), "FAILED",
     "Slurm did not start it again after: preemption" + AGAIN),
    (row("NODE_FAIL"), start(), None, "FAILED", "node failure" + AGAIN),
    (row("NODE_FAIL"), start(), end("QUEUED", "requeue"), "FAILED",
     "Slurm did not start it again after: requeue" + AGAIN),
    (row("TIMEOUT"), start(), None, "FAILED", "time limit, without the time for a checkpoint" + AGAIN),
    (row("TIMEOUT"), start(), end("CANCELLED", "stopped by SIGTERM"), "FAILED",
     "time limit, without the time for a checkpoint" + AGAIN),
    (row("OUT_OF_MEMORY"), start(), None, "FAILED", "out of memory: Slurm killed the job" + AGAIN),
    (row("CANCELLED"), None, None, "CANCELLED", "cancelled before it started"),
    (row("CANCELLED"), start(token="oelm-0"), end("CANCELLED", token="oelm-0"), "CANCELLED",
     "cancelled before it started again"),
    (row("CANCELLED"), start(), None, "CANCELLED", "cancelled"),
    (row("CANCELLED"), start(), end("CANCELLED", "cancelled by scancel"), "CANCELLED", "cancelled by scancel"),
]  # fmt: skip


def test_progress_stays_where_a_later_submission_was_cancelled_before_it_started(bed: Bed) -> None:
    bed.write("start.json", start(token="oelm-0"))
    (bed.run_dir / "heartbeat.json").write_text(json.dumps({"step": 20, "max_steps": 3000, "attempt": "oelm-0:1"}))
    assert bed.say(row("CANCELLED"))["step"] == 20
    bed.write("outcome.json", {"step": 23, "attempt": "oelm-0:1"})
    assert bed.say(row("CANCELLED"))["step"] == 23, "it went on after its last heartbeat"
    bed.write("outcome.json", {"step": 7, "attempt": "oelm-0:0"})
    assert bed.say(row("CANCELLED"))["step"] == 20, "an older attempt's"


def test_a_job_that_slurmctld_refused_and_keeps_is_one_that_was_not_submitted(bed: Bed) -> None:
    bed.answer = {"refused": "Memory specification can not be satisfied", "time": SUBMITTED}
    bed.task = bed.task._replace(refused="Memory specification can not be satisfied")
    said = bed.say(row("FAILED", reason="BadConstraints"))
    assert (said["state"], said["reason"]) == ("FAILED", "not submitted: Memory specification can not be satisfied")


@pytest.mark.parametrize(("job", "begun", "ended", "state", "reason"), IN_THE_QUEUE)
def test_where_a_run_stands_that_squeue_lists(
    bed: Bed, instead: Put, job: Job, begun: Any, ended: Any, state: str, reason: str
) -> None:
    instead("sacct", fails("sacct: error: nobody should ask"))
    if begun:
        bed.write("start.json", begun)
    if ended:
        bed.write("end.json", ended)
    said = bed.say(job)
    assert (said["state"], said["reason"]) == (state, reason)
    assert said["token"] == TOKEN
    if state == "RUNNING":
        assert said.get("attempt") == (None if reason == "before training" else begun["number"])


@pytest.mark.parametrize(
    ("other", "state"),
    [
        (row("RUNNING", id="9", name="by-hand"), "RUNNING"),
        (row("COMPLETING", id="9", name="by-hand"), "CANCELLED"),
        (row("RUNNING", id="9", name="b.other.0"), "CANCELLED"),
        (row("RUNNING", id="8", name="by-hand"), "CANCELLED"),
    ],
)
def test_a_run_whose_job_is_over_runs_in_another_one_that_has_its_claim(bed: Bed, other: Job, state: str) -> None:
    owner = {"job": "9", "restart": 0, "name": "by-hand", "token": "t", "identity": {}, "time": 1.0, "released": False}
    bed.write("slurm-claim.2", owner)
    said = bed.say(row("CANCELLED"), other)
    assert (said["state"], said["job"]) == (state, "9" if state == "RUNNING" else "7")


@pytest.mark.parametrize(
    ("written_at", "reason"),
    [(STARTED - 1, "before training"), (STARTED + 1, "before training: CANCELLED cancelled")],
)
def test_what_the_supervisors_log_says_is_quoted_once_this_start_has_written_to_it(
    bed: Bed, written_at: float, reason: str
) -> None:
    bed.write("supervisor.log", rundir.log_line("CANCELLED cancelled"))
    os.utime(bed.run_dir / ".oelm" / "supervisor.log", (written_at, written_at))
    assert bed.say(row("RUNNING"))["reason"] == reason


def test_a_pending_job_says_when_slurm_expects_to_start_it_unless_it_is_held(bed: Bed) -> None:
    assert bed.say(row("PENDING", reason="Resources", starts_at=LATER))["starts_at"] == LATER
    assert bed.say(row("PENDING", reason="Resources", starts_at=STARTED))["starts_at"] is None, "that is over"
    assert bed.say(row("PENDING", reason="JobHeldUser", starts_at=LATER))["starts_at"] is None


def test_a_start_since_squeue_was_read_counts_more_than_what_it_said(bed: Bed) -> None:
    bed.write("start.json", start(started_at=LATER))
    assert bed.say(row("PENDING", reason="Priority"))["state"] == "RUNNING"
    bed.write("start.json", start(started_at=STARTED))
    assert bed.say(row("PENDING", reason="Priority"))["state"] == "QUEUED"


GONE = [
    # (sacct's line, start record, state, reason)
    (account("RUNNING"), start(), "UNKNOWN", "accounting says RUNNING, but squeue does not list it"),
    (account("PENDING"), None, "UNKNOWN", "accounting says PENDING, but squeue does not list it"),
    (account("TIMEOUT", "0:15"), start(), "FAILED", "time limit, without the time for a checkpoint" + AGAIN),
    (account("OUT_OF_MEMORY", "0:125"), start(), "FAILED", "out of memory: Slurm killed the job" + AGAIN),
    (account("NODE_FAIL", "1:0"), start(), "FAILED", "node failure" + AGAIN),
    (account("CANCELLED by 0", "0:15"), start(), "CANCELLED", "cancelled"),
    (account("CANCELLED by 0", "0:15"), None, "CANCELLED", "cancelled before it started"),
    (account("FAILED", "0:9"), start(), "FAILED", "its job ended without an end record (exit code 0:9)" + AGAIN),
    (account("COMPLETED"), start(), "FAILED", "its job ended without an end record" + AGAIN),
    # The id is somebody else's: by itself it says nothing.
    (account("CANCELLED by 0", name="b.other.0"), start(), "FAILED", "its job ended without an end record" + AGAIN),
    (account("TIMEOUT") + "\n" + account("RUNNING", name="b.other.0"), start(), "FAILED",
     "time limit, without the time for a checkpoint" + AGAIN),
    (account("TIMEOUT") + "\n" + account("CANCELLED", name="b.other.0", job="8"), start(), "FAILED",
     "time limit, without the time for a checkpoint" + AGAIN),
]  # fmt: skip


@pytest.mark.parametrize(("text", "begun", "state", "reason"), GONE)
@pytest.mark.parametrize("reused", [False, True], ids=["gone", "a-stranger-has-its-id"])
def test_where_a_run_stands_that_left_the_queue_without_a_word(
    bed: Bed, instead: Put, tmp_path: Path, text: str, begun: Any, state: str, reason: str, reused: bool
) -> None:
    instead("sacct", prints(text, tmp_path / "calls"))
    if begun:
        bed.write("start.json", begun)
    said = bed.say(*([row("RUNNING", name="b.other.0"), row("RUNNING", id="8", name="c")] if reused else []))
    assert (said["state"], said["reason"], said["job"]) == (state, reason, "7")
    words = (tmp_path / "calls").read_text().split()
    assert "--jobs=7" in words and "--duplicates" in words
    since = next(word.partition("=")[2] for word in words if word.startswith("--starttime="))
    assert time.mktime(time.strptime(since, "%Y-%m-%dT%H:%M:%S")) == SUBMITTED - 3600, "sacct begins at midnight else"


@pytest.mark.parametrize(
    ("begun", "age_s", "state", "reason"),
    [
        (None, 5.0, "QUEUED", "accepted"),
        (start(), 5.0, "UNKNOWN", "left the queue; accounting does not list it yet"),
        (None, 100.0, "FAILED", "ended before training started"),
        (start(), 100.0, "FAILED", "its job ended without an end record" + AGAIN),
    ],
)
def test_accounting_has_a_minute_to_hear_of_a_job(
    bed: Bed, instead: Put, begun: Any, age_s: float, state: str, reason: str
) -> None:
    instead("sacct", prints(""))
    if begun:
        bed.write("start.json", begun)
    bed.task = bed.task._replace(submitted_at=time.time() - age_s)
    said = bed.say()
    assert (said["state"], said["reason"]) == (state, reason)


def test_a_run_that_left_nothing_where_it_belongs_makes_one_ask_what_its_node_sees(bed: Bed, instead: Put) -> None:
    (bed.run_dir / ".oelm" / "supervisor.log").unlink()
    for said in (bed.say(row("FAILED", exit_code="0:53")), bed.say(row("COMPLETED"))):
        assert said["state"] == "FAILED" and "do the compute nodes share that folder?" in said["reason"]
        assert str(bed.run_dir) in said["reason"]
    assert "(exit code 0:53)" in bed.say(row("FAILED", exit_code="0:53"))["reason"]


def test_what_accounting_told_before_it_fell_silent_counts(
    bed: Bed, instead: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_accounts, "CHUNK", 1)
    told = "8|COMPLETED|0:0|1|2|3|n1|other"
    instead(
        "sacct", f"case $* in *--jobs=8) echo '{told}';; *) echo 'sacct: error: slurmdbd is away' >&2; exit 1;; esac"
    )
    with pytest.raises(slurm_accounts.HalfAnswered, match="slurmdbd is away") as error:
        slurm_accounts.jobs(["8", "9"], SUBMITTED)
    assert [job.id for job in error.value.found] == ["8"]


def test_a_run_of_which_accounting_told_before_it_fell_silent_has_its_end(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fall_silent(*_: Any) -> Any:
        raise slurm_accounts.HalfAnswered("sacct gave no answer", slurm_accounts.read(account("TIMEOUT")))

    monkeypatch.setattr(slurm_accounts, "jobs", fall_silent)
    bed.write("start.json", start())
    assert bed.say()["reason"].startswith("time limit")


@pytest.mark.parametrize(
    ("lines", "is_found"),
    [
        ("export SLURM_CONF=/etc/site.conf", True),
        ("squeue_there() { echo a function; }; echo Welcome", True),
        ("set -u", True),
        ("exit 0", False),
        ("exec true", False),
    ],
)
def test_profiles_of_every_kind_are_asked_where_slurms_commands_are(
    monkeypatch: pytest.MonkeyPatch, profile: Callable[[str, str, str], None], lines: str, is_found: bool
) -> None:
    monkeypatch.setenv("SLURM_CONF", "")  # so that it is as it was afterwards
    monkeypatch.delenv("SLURM_CONF")
    profile("squeue_there", 'echo "$SLURM_CONF"', lines)
    if not is_found:
        with pytest.raises(slurm_commands.SlurmError, match="there is none on this host"):
            slurm_commands.call(["squeue_there"], 10.0)
        return
    _, out, _ = slurm_commands.call(["squeue_there"], 10.0)
    assert out.strip() == ("/etc/site.conf" if "SLURM_CONF" in lines else "")


def test_a_limit_that_jobs_used_up_a_moment_ago_may_have_cleared(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(slurm_state, "_is_beyond_limits", lambda job: bool(asked.append(job.id)))
    waiting, over = row("PENDING", reason="QOSMaxJobsPerUserLimit"), row("COMPLETED", id="6", name="other")
    assert "can't start" in bed.say(waiting)["reason"] and not asked
    assert "waits for a limit to clear" in bed.say(waiting, over)["reason"] and asked == ["7"]


def test_many_slow_answers_of_accounting_have_one_deadline(instead: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_accounts, "CHUNK", 1)
    monkeypatch.setattr(slurm_accounts, "PATIENCE_S", 0.0)
    instead("sacct", "sleep 0.01; echo '8|COMPLETED|0:0|1|2|3|n1|other'")
    with pytest.raises(slurm_accounts.HalfAnswered, match="takes more than") as error:
        slurm_accounts.jobs(["8", "9"], SUBMITTED)
    assert len(error.value.found) <= 1


def test_a_cluster_that_the_profile_names_is_the_one_whose_accounts_are_read(
    instead: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CLUSTERS", "second")  # squeue, sbatch and scontrol read it, sacct does not
    instead("sacct", f'echo "$*" > {tmp_path}/said')
    slurm_accounts.jobs(["8"], SUBMITTED)
    assert "--clusters=second" in (tmp_path / "said").read_text()


def test_sacctmgrs_silence_is_not_saccts(instead: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    instead("scontrol", prints(CONFIG.format(size=4, parameters="(null)")))
    instead("sacctmgr", "exit 1")
    instead("sacct", prints(account("COMPLETED")))
    assert slurm_site.accounting(600.0) == {"users": [], "accounts": [], "groups": [], "qualities": []}
    instead("sacctmgr", "echo 'lab||||||||'")
    assert slurm_site.accounting(600.0)["accounts"] == [], "for a while it is left alone"
    monkeypatch.setattr(slurm_accounts, "PAUSE_S", 0.0)
    assert slurm_site.accounting(600.0)["accounts"], "then what was not answered is asked again"
    assert slurm_accounts.jobs(["7"], SUBMITTED), "sacct is asked all the same"


def test_a_job_whose_sending_is_in_the_dark_is_unknown_and_one_that_was_refused_says_why(bed: Bed) -> None:
    bed.answer = {"unknown": "Socket timed out"}
    assert bed.say()["state"] == "UNKNOWN"
    bed.answer = {"refused": "Invalid account"}
    said = bed.say()
    assert (said["state"], said["reason"]) == ("FAILED", "not submitted: Invalid account")


@pytest.mark.parametrize(
    ("output", "others", "state", "reason"),
    [
        (None, "3", "CANCELLED", "cancelled before it started"),
        ("slurmstepd: error: *** JOB 9 ON n1 CANCELLED AT … DUE TO TIME LIMIT ***\n", "3", "FAILED",
         "time limit, without the time for a checkpoint" + AGAIN),
        ("", "3", "FAILED", "ended before training started"),
        (None, None, "FAILED", "ended before training started"),
    ],
)  # fmt: skip
def test_an_arrays_task_without_a_trace_was_cancelled_before_it_started_unless_it_left_an_output(
    bed: Bed, instead: Put, output: str | None, others: str | None, state: str, reason: str
) -> None:
    bed.task = bed.task._replace(task=2)
    instead("sacct", prints(account("COMPLETED", job=f"7_{others}") if others else ""))
    submission.folder(str(bed.root))
    if output is not None:
        submission.file_of(str(bed.root), TOKEN, 0, "_2.log").write_text(output)
    said = bed.say()
    assert (said["state"], said["reason"], said["job"]) == (state, reason, "7_2")


@pytest.mark.parametrize(
    ("note", "state", "reason"),
    [
        ("DUE TO TIME LIMIT ***", "FAILED", "time limit, without the time for a checkpoint" + AGAIN),
        ("DUE TO PREEMPTION ***", "FAILED", "preempted, and not started again" + AGAIN),
        ("DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", "FAILED", "node failure" + AGAIN),
        ("***", "CANCELLED", "cancelled"),
        (None, "FAILED", "its job ended without an end record" + AGAIN),
    ],
)
def test_without_accounts_slurmstepds_last_note_says_how_a_job_ended(
    bed: Bed, instead: Put, note: str | None, state: str, reason: str
) -> None:
    instead("sacct", fails("Slurm accounting storage is disabled"))
    bed.write("start.json", start())
    submission.folder(str(bed.root))
    words = f"slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 {note}\n" if note else ""
    submission.file_of(str(bed.root), TOKEN, 0, ".log").write_text(words)
    said = bed.say()
    assert (said["state"], said["reason"]) == (state, reason)


def test_accounting_is_asked_for_500_jobs_at_once(instead: Put, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    instead("sacct", f'echo "${{@: -1}}" >> {calls}; echo "$(wc -l < {calls})|COMPLETED|0:0|1|2|3|n1|x"')
    ids = {str(number) for number in range(1200)}
    found = slurm_accounts.jobs(sorted(ids), SUBMITTED)
    asked = [line.removeprefix("--jobs=").split(",") for line in calls.read_text().split()]
    assert sorted(len(part) for part in asked) == [200, 500, 500]
    assert {job for part in asked for job in part} == ids
    assert found is not None and [job.id for job in found] == ["1", "2", "3"], "and what each says counts"


# What the cluster is like ---------------------------------------------------------------------------------------------

CONFIG = """\
Configuration data as of 2026-11-25T02:31:07
ClusterName             = oelmtest
MaxArraySize            = {size}
SchedulerParameters     = {parameters}
SLURM_VERSION           = 22.05.8
"""


@pytest.mark.parametrize(
    ("size", "parameters", "array"),
    [
        (1001, "(null)", 1001),
        (4, "(null)", 4),
        (1001, "bf_continue,max_array_tasks=5,sched_interval=1", 5),
        (4, "max_array_tasks=50", 4),
        (1, "(null)", 1),
    ],
)
def test_an_array_is_as_large_as_the_sites_limits_let_it_be(
    instead: Put, size: int, parameters: str, array: int
) -> None:
    config = CONFIG.format(size=size, parameters=parameters)
    shown = "PartitionName=low AllowGroups=ALL QoS=few State=UP"
    instead("scontrol", f"case $* in *partition*) echo '{shown}';; *) {prints(config)}\n;; esac")
    instead("sinfo", prints("low|low*|up|1-00:00:00|1:00:00|2|gpu:a5000:4(S:0-1)|(null)"))
    instead("sacctmgr", "case $* in *user=*account,partition*) echo 'lab||normal||||||';; esac")
    known = slurm_site.site()
    assert known["max_array"] == array
    assert known["partitions"][0] == {
        "name": "low", "is_default": True, "is_up": True, "takes_jobs": True,
        "max_time": "1-00:00:00", "default_time": "1:00:00",
        "nodes": 2, "gres": ["gpu:a5000:4"], "features": [], "qos": "few",
    }  # fmt: skip


def remarks(default_time: str = "1:00:00", **options: str) -> list[Finding]:
    """Return what is said of a cluster with one partition to a target with some options."""
    partition = {
        "name": "low", "is_default": True, "is_up": True, "takes_jobs": True,
        "max_time": "1-00:00:00", "default_time": default_time,
        "nodes": 2, "gres": ["gpu:a5000:4"], "features": [], "qos": "",
    }  # fmt: skip
    known = {
        "version": "22.05.8", "cluster": "c", "partitions": [partition], "users": [], "accounts": [], "groups": [],
        "qualities": [], "max_array": 1001, "is_enforced": True, "is_limited": True,
    }  # fmt: skip
    target = Target(name="c", kind="slurm", root="/r", python="python3", slurm=Slurm(sbatch=dict(options)))
    return list(site.judge(target, known))


def test_a_default_time_that_runs_get_is_named_and_is_odd_where_it_is_short() -> None:
    def of_time(**values: str) -> list[str]:
        return [remark.verdict for remark in remarks(**values) if "runs get" in remark.found]

    assert of_time(default_time="1:00:00") == [Grade.GOOD]
    assert of_time(default_time="30:00") == [Grade.WARNING]
    assert of_time(default_time="30:00", time="2:00:00") == []


def test_amounts_of_resources_are_read_in_slurms_units() -> None:
    assert slurm_site.parse_resources("cpu=8,mem=4000M,node=1,gres/gpu:a5000=2") == {
        "cpu": 8, "mem": 4000, "node": 1, "gres/gpu:a5000": 2,
    }  # fmt: skip
    assert slurm_site.parse_resources("mem=1T")["mem"] == 1024 * slurm_site.parse_resources("mem=1G")["mem"]
    assert slurm_site.parse_resources("") == {}
