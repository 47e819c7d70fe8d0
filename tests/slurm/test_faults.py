"""Faults in the middle of something: a client that dies while it waits for room, a cancel that meets a requeue, answers
and controllers that get lost, accounts that nobody may read.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes, rundir
from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.slurm import job as slurm_job
from oelm_jobs.agent.slurm import site as slurm_site
from oelm_jobs.agent.slurm import submit as slurm_submit
from oelm_jobs.agent.states import State
from oelm_jobs.runs import observe
from oelm_jobs.runs.control import cancel
from oelm_jobs.store import Store
from tests.slurm.testbed import Testbed
from tests.support import kill, read, wait_until

pytestmark = pytest.mark.slow

LONG = 100_000
"""Steps of a run that does not end by itself."""


@pytest.fixture
def configure(project: Path, target, stand_in: str) -> Callable[..., None]:
    """Let the study's runs be the stand-in trainer's: ``configure(sbatch={…}, steps=100, step_s=0.1, …)`` with keys of
    the target.
    """

    def write(*, steps: int = LONG, step_s: float = 0.1, sbatch: Any = None, **keys: Any) -> None:
        study = project / "jobs" / "tiny.toml"
        study.write_text(study.read_text().replace("max_steps = 12", f"max_steps = {steps}"))
        target(sbatch, **{"python": stand_in, "setup": [f"export TRAINER_STEP_S={step_s}"], **keys})

    return write


@pytest.fixture
def submit(oelm: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Submit groups that don't wait for each other: ``submit("gpt_base,oelm_freeze")``."""
    return lambda groups="gpt_base", *more, **options: oelm("submit", *words(groups, *more), **options)


def words(groups: str, *more: str) -> list[str]:
    return ["--study", "tiny", "--groups", groups, "--target", "cluster", "--mode", "parallel", *more]


@pytest.fixture
def client(project: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a submission as a process of its own, after some lines of Python."""
    started: list[subprocess.Popen[str]] = []

    def start(groups: str, *more: str, lines: str = "") -> subprocess.Popen[str]:
        program = f"{lines}\nfrom oelm_jobs.cli.submit import main\nmain({words(groups, *more)!r})"
        argv = [sys.executable, "-c", program]
        started.append(subprocess.Popen(argv, cwd=project, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for each in started:
        if each.poll() is None:
            each.kill()
        each.communicate()


def wait_for_no_room(submission: subprocess.Popen[str]) -> None:
    assert submission.stderr is not None
    wait_until(lambda: "takes no more jobs" in submission.stderr.readline(), "it to wait for room")


def control(project: Path, name: str = "gpt_base") -> Path:
    return project / "models" / "checkpoints" / "tiny" / f"exp_{name}" / ".oelm"


def log_of(project: Path, name: str = "gpt_base") -> str:
    path = control(project, name).parent / "training.log"
    return path.read_text() if path.exists() else ""


def wait_for_step(project: Path, name: str = "gpt_base") -> str:
    """Wait until a run trains; return its job."""
    wait_until((control(project, name).parent / "heartbeat.json").exists, "a step")
    return str(read(control(project, name) / "start.json")["job"])


def stored(project: Path) -> dict[str, tuple[State, str]]:
    """Return what the index says, with nobody asked."""
    with Store() as store:
        return {run.name: (run.state, run.reason) for run in store.runs(project)}


def goes_on(project: Path, cluster: Testbed, job: str) -> None:
    """Wait until a job is requeued, and until its run goes on from its checkpoint after that."""
    wait_until(lambda: cluster.job(job).get("JobState") == "PENDING", "the job to be pending again")
    end = read(control(project) / "end.json")
    assert end["state"] == "QUEUED", end["reason"]
    cluster.release(job)
    wait_until(lambda: "Resumed" in log_of(project), "it to go on")


# A client that waits for room -----------------------------------------------------------------------------------------


def test_what_was_accepted_while_the_rest_waits_is_known_and_stays_so_when_the_rest_fails(
    configure, client, submit, room_for, oelm, project: Path, cluster: Testbed, states,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    gate, folder = project / "gate", project / ".oelm" / "submissions"
    monkeypatch.setattr(slurm_submit, "PATIENCE_S", 0.0)
    # In jobs alone: a submission tries the set-up before, and would wait for it in vain.
    configure(steps=5, step_s=0, setup=[f'[ -z "$SLURM_JOB_ID" ] || until [ -e {gate} ]; do sleep 0.1; done'])
    room_for(2)
    groups = "gpt_base,oelm_no_freeze,oelm_freeze"
    waiting = client(groups, "--num-seeds", "2")
    wait_for_no_room(waiting)
    rows = states()
    accepted = [name for name, row in rows.items() if row["state"] in ("QUEUED", "RUNNING")]
    others = [name for name, row in rows.items() if row["state"] == "PLANNED"]
    assert (len(accepted), len(others)) == (2, 4), rows
    assert oelm("cancel", f"tiny/{accepted[0]}").stdout == f"{accepted[0]}: cancelled\n"
    assert waiting.poll() is None, "the others still wait"

    folder.rename(f"{folder}.away")  # the file system fails under its next round
    folder.write_text("")
    assert waiting.wait(300) == 3
    folder.unlink()
    Path(f"{folder}.away").rename(folder)
    rows = states()
    assert rows[accepted[0]]["state"] == "CANCELLED"
    assert rows[accepted[1]]["state"] in ("QUEUED", "RUNNING")
    assert {rows[name]["state"] for name in others} == {"FAILED"}
    assert all(rows[name]["reason"].startswith("not submitted: ") for name in others), rows
    assert not any("sbatch gave no answer" in rows[name]["reason"] for name in others), rows

    room_for(-1)
    said = submit(groups, "--num-seeds", "2").stdout
    assert said.count("submitted to cluster") == 5 and f"{accepted[1]}: left alone" in said
    gate.touch()
    wait_until(lambda: {row["state"] for row in states().values()} == {"DONE"}, "all of them")
    for name in rows:
        assert log_of(project, name).count("Started") == 1
        assert len(read(control(project, name).parent / "experiment_result.json")["attempts"]) == 1


def test_a_job_whose_answer_was_lost_is_not_forgotten_when_the_client_fails_while_it_waits_for_room(
    configure, client, submit, instead, project: Path, cluster: Testbed, states, wait_for,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    late, folder = project / "late", project / ".oelm" / "submissions"
    monkeypatch.setenv("OELM_LOOK_FOR_S", "0")
    monkeypatch.setattr(slurm_submit, "PATIENCE_S", 0.0)
    failed = "echo 'sbatch: error: Batch job submission failed"
    instead(
        "sbatch",
        f"if mkdir {late}.asked 2>/dev/null; then\n"
        f'  (until [ -e {late} ]; do sleep 0.1; done; $real "$@") < /dev/null > {late}.id 2>&1 &\n'
        f"  {failed}: Socket timed out on send/recv operation' >&2\n"
        f"else\n  {failed}: AssocMaxSubmitJobLimit' >&2\nfi\nexit 1",
    )
    study = project / "jobs" / "tiny.toml"  # jobs of their own
    study.write_text(study.read_text().replace('label = "Group C: OELM-Freeze"', 'label = "C", gpus = 2'))
    configure(steps=5, step_s=0)
    waiting = client("gpt_base,oelm_freeze")
    wait_for_no_room(waiting)
    folder.rename(f"{folder}.away")
    folder.write_text("")
    assert waiting.wait(300) == 3
    folder.unlink()
    Path(f"{folder}.away").rename(folder)
    rows = states()
    assert {row["state"] for row in rows.values()} == {"FAILED"}
    assert all(row["reason"].startswith("not submitted: ") for row in rows.values())
    late.touch()
    job = wait_until(lambda: Path(f"{late}.id").read_text().split()[-1:], "the late job")[0]
    wait_until(lambda: cluster.job(job)["JobState"] in ("FAILED", "COMPLETED"), "its end")
    assert "given up" in (control(project) / "supervisor.log").read_text()
    assert not log_of(project)
    instead("sbatch", 'exec $real "$@"')
    submit("gpt_base,oelm_freeze")
    for name in rows:
        wait_for(name, "DONE")
        assert log_of(project, name).count("Started") == 1


OTHER_NODE = """
import os
here = os.uname()
os.uname = lambda: os.uname_result((here.sysname, "login2", *here[2:]))
"""


def test_a_submission_that_another_login_node_is_making_is_left_alone_until_it_is_silent(
    configure, client, room_for, project: Path, cluster: Testbed, states, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sign_of_life(at: float | None = None) -> float:
        with sqlite3.connect(Path(os.environ["OELM_STATE_DIR"]) / "runs.sqlite3", timeout=300) as index:
            if at is not None:
                index.execute("UPDATE submission SET made_at = ?", (at,))
            return float(index.execute("SELECT made_at FROM submission").fetchone()[0])

    monkeypatch.setattr(slurm_submit, "PATIENCE_S", 0.0)
    configure()
    room_for(1)
    waiting = client("gpt_base,oelm_freeze", lines=OTHER_NODE)
    wait_for_no_room(waiting)
    assert states()["gpt_base"]["state"] in ("QUEUED", "RUNNING")
    assert states()["oelm_freeze"]["state"] == "PLANNED"
    long_ago = time.time() - 2 * observe.ELSEWHERE_S
    sign_of_life(long_ago)
    wait_until(lambda: sign_of_life() > long_ago + observe.ELSEWHERE_S, "its next round")
    assert states()["oelm_freeze"]["state"] == "PLANNED"
    waiting.kill()
    waiting.wait()
    assert states()["oelm_freeze"]["state"] == "PLANNED", "that it was killed can't be seen from here"
    sign_of_life(long_ago)
    row = states()["oelm_freeze"]
    assert row["state"] == "FAILED" and row["reason"].startswith("not submitted: ")
    assert states()["gpt_base"]["state"] in ("QUEUED", "RUNNING")


DIE = """
import os, pkgutil, signal
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
setattr(pkgutil.resolve_name({owner!r}), {name!r}, die)
"""


@pytest.mark.parametrize(
    ("owner", "name", "state"),
    [
        ("oelm_jobs.store.Store", "answer", State.QUEUED),
        ("oelm_jobs.schedulers.slurm.SlurmScheduler", "submit", State.FAILED),
    ],
)
def test_a_status_of_one_run_settles_a_dead_clients_submission_for_all_its_runs(
    configure, client, submit, oelm, project: Path, cluster: Testbed, wait_for, owner: str, name: str, state: State
) -> None:
    configure(steps=5, step_s=0)
    groups = "gpt_base,oelm_no_freeze,oelm_freeze"
    killed = client(groups, lines=DIE.format(owner=owner, name=name))
    assert killed.wait(300) == -signal.SIGKILL
    assert {known for known, _ in stored(project).values()} == {State.PLANNED}
    oelm("status", "gpt_base")
    others = [stored(project)[run] for run in ("oelm_no_freeze", "oelm_freeze")]
    assert {known for known, _ in others} == {state}, others
    if state is State.FAILED:
        assert {reason for _, reason in others} == {"not submitted: the client ended before it was sent"}
    submit(groups)
    for run in groups.split(","):
        wait_for(run, "DONE")
        assert log_of(project, run).count("Started") == 1


# Cancels --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["taken", "passed over"])
def test_a_run_that_is_just_being_requeued_is_cancelled_for_good(
    configure, submit, oelm, instead, project: Path, cluster: Testbed, wait_for, first: str
) -> None:
    if first == "passed over":  # scancel says nothing of a job that is "already completing" and ends with 0
        instead("scancel", f'mkdir {project}/asked 2>/dev/null && exit 0; exec $real "$@"')
    configure(step_s=6)  # so long its checkpoint takes: until then the job is COMPLETING
    submit()
    job = wait_for_step(project)
    cluster.run("scontrol", "requeue", job)
    wait_until(lambda: cluster.job(job)["JobState"] == "COMPLETING", "it to be ending")
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert cluster.job(job)["JobState"] == "CANCELLED", "it will not start again"
    assert wait_for("gpt_base", "CANCELLED")["reason"] == "cancelled"
    assert "Resumed" not in log_of(project)


def test_a_run_that_is_done_is_not_called_cancelled_because_its_job_is_still_ending(
    configure, submit, instead, project: Path, cluster: Testbed, states, wait_for
) -> None:
    configure(steps=5, step_s=0)
    submit()
    with Store() as store:
        wait_until((control(project) / "end.json").exists, "its end")
        wait_until(lambda: not cluster.run("squeue", "-h"), "its job's end")
        instead("squeue", '$real "$@" | sed "s/|COMPLETED|/|COMPLETING|/"')
        before = store.runs(project)
        assert [run.state for run in before] == [State.QUEUED], "nobody has looked since"
        answers = cancel(store, project, before)
    assert set(answers.values()) == {"not running"}
    assert not (control(project) / rundir.CANCEL).exists()
    assert wait_for("gpt_base", "DONE")


def test_what_the_environment_says_to_scancel_leaves_nothing_uncancelled(
    configure, submit, oelm, project: Path, cluster: Testbed, wait_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure()
    submit()
    job = wait_for_step(project)
    with monkeypatch.context() as changed:
        changed.setenv("SCANCEL_STATE", "PENDING")
        changed.setenv("SCANCEL_NAME", "foo")
        assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert wait_for("gpt_base", "CANCELLED")["reason"] == "cancelled"
    assert cluster.job(job)["JobState"] == "CANCELLED"


# Requeues -------------------------------------------------------------------------------------------------------------

LOST = {
    "its answer is lost": 'trap "" TERM; $real "$@"; echo "Socket timed out on send/recv operation" >&2; exit 1',
    "the SIGTERM that follows it ends scontrol": '$real "$@"; sleep 20',
}


@pytest.mark.parametrize("how", LOST)
def test_a_requeue_that_was_made_and_not_answered_is_known_as_made(
    configure, submit, instead, project: Path, cluster: Testbed, wait_for, how: str
) -> None:
    once = project / "asked"
    # Outside of jobs nobody requeues through it: the testbed's own commands don't look here.
    instead("scontrol", f'if [ "$1" = requeue ] && mkdir {once} 2>/dev/null; then {LOST[how]}; fi\nexec $real "$@"')
    configure()
    submit()
    job = wait_for_step(project)
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    goes_on(project, cluster, job)
    assert once.exists()
    assert "can't be started again" not in (control(project) / "supervisor.log").read_text()


@pytest.mark.parametrize("how", ["gone", "hung"])
def test_a_requeue_waits_for_a_controller_that_is_away(
    configure, submit, project: Path, new_cluster: Any, wait_for, how: str
) -> None:
    cluster = new_cluster(accounting=False)  # what a controller forgets is no other test's trouble
    impatient = project / "slurm.conf"  # the job's own commands find out in a second that nobody answers
    settings = Path(cluster.environment["SLURM_CONF"]).read_text()
    for name in ("MessageTimeout", "SlurmctldTimeout"):
        assert f"{name}=5" in settings
        settings = settings.replace(f"{name}=5", f"{name}=1")
    impatient.write_text(settings)
    configure(setup=["export TRAINER_STEP_S=0.1", f"export SLURM_CONF={impatient}"])
    submit()
    job = wait_for_step(project)
    log = control(project) / "supervisor.log"
    if how == "gone":
        cluster.kill("slurmctld", signal.SIGTERM)
    else:
        cluster.signal("slurmctld", signal.SIGSTOP)
    try:
        # What Slurm's warning is, sent as it can be without a controller.
        os.kill(int(read(control(project) / "start.json")["pid"]), signal.SIGUSR1)
        tried = lambda: log.read_text().count("scontrol requeue: ") > slurm_job.REQUEUE_TRIES  # noqa: E731
        wait_until(lambda: tried() or "FAILED" in log.read_text(), "more tries than a refusal gets")
    finally:
        if how == "gone":
            cluster.start_daemon("slurmctld", ["slurmctld", "-D"])
        else:
            cluster.signal("slurmctld", signal.SIGCONT)
    assert "FAILED" not in log.read_text()
    wait_until(lambda: not cluster.call("squeue").returncode, "the controller")
    goes_on(project, cluster, job)
    wait_for("gpt_base", "RUNNING")


def test_a_run_that_is_preempted_and_may_not_be_requeued_fails_at_once_and_goes_on_when_submitted_again(
    configure, submit, project: Path, cluster: Testbed, wait_for
) -> None:
    configure(sbatch={"nodelist": "n1", "partition": "low"}, requeue=False)
    submit()
    job = wait_for_step(project)
    urgent = ["sbatch", "--parsable", "-p", "high", "-w", "n1", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"]
    cluster.run(*urgent)
    wait_until(lambda: cluster.job(job)["JobState"] == "PREEMPTED", "its end")
    row = wait_for("gpt_base", "FAILED")
    assert row["reason"] == "preemption: submit again to resume"
    submit()
    wait_until(lambda: "Resumed" in log_of(project), "it to go on")
    wait_for("gpt_base", "RUNNING")


# What squeue and sacct don't say --------------------------------------------------------------------------------------

DENIED = 'echo "sacct: error: Problem talking to the database: Access/permission denied" >&2; exit 1'


def hide(instead: Any, *rows: str) -> None:
    """Let jobs be gone from squeue, as they are after MinJobAge: ``12``, or ``12|3`` for a task of an array."""
    pattern = "|".join(row.replace("|", "[|]") for row in rows)
    instead("squeue", f'$real "$@" | grep -vE "^({pattern})[|]"; exit 0')


def without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    """Let a command be nowhere on PATH, in a login shell neither."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for place in ("/usr/bin", "/usr/sbin"):
        for name in os.listdir(place):
            if name != command and not (folder / name).is_symlink():
                (folder / name).symlink_to(Path(place, name))
    (tmp_path / ".bash_profile").write_text(f"PATH={folder}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(folder))
    assert shutil.which(command) is None


@pytest.mark.parametrize("how", ["not for users", "not there"])
def test_where_sacct_is_no_help_the_ends_of_runs_are_known_all_the_same(
    configure, submit, oelm, instead, project: Path, cluster: Testbed, states, wait_for, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, how: str,
) -> None:  # fmt: skip
    if how == "not there":
        without(monkeypatch, tmp_path, "sacct")
    else:
        instead("sacct", DENIED)
    configure(sbatch={"begin": "now+1hour"})
    submit("gpt_base")
    submit("oelm_no_freeze")
    cancelled, scancelled = (wait_for(name, "QUEUED")["job"] for name in ("gpt_base", "oelm_no_freeze"))
    cluster.run("scancel", scancelled)
    before_it_started = ("CANCELLED", "cancelled before it started")
    wait_for("oelm_no_freeze", "CANCELLED")
    configure()
    submit("oelm_freeze")
    killed = wait_for_step(project, "oelm_freeze")
    assert oelm("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    start = read(control(project, "oelm_freeze") / "start.json")
    os.kill(int(start["pid"]), signal.SIGKILL)
    kill(processes.of_run(control(project, "oelm_freeze").parent))
    wait_until(lambda: cluster.job(killed).get("JobState") == "FAILED", "Slurm to notice")
    hide(instead, cancelled, scancelled, killed)
    rows = states()
    for name in ("gpt_base", "oelm_no_freeze"):
        assert (rows[name]["state"], rows[name]["reason"]) == before_it_started
    assert rows["oelm_freeze"]["state"] == "FAILED"
    assert rows["oelm_freeze"]["reason"].startswith("its job ended without an end record")
    said = submit("gpt_base,oelm_no_freeze,oelm_freeze").stdout
    assert said.count("submitted to cluster") == 3
    for name in rows:
        wait_for_step(project, name)
        wait_for(name, "RUNNING")


def test_a_task_whose_set_up_failed_is_not_called_cancelled_where_nobody_keeps_accounts(
    configure, submit, instead, project: Path, new_cluster, states, wait_for
) -> None:
    new_cluster(accounting=False)
    fails = 'if [ "$SLURM_ARRAY_TASK_ID" = 1 ]; then echo "no such module: torch" >&2; false; fi'
    configure(setup=[fails, "export TRAINER_STEP_S=0.1"])
    submit("gpt_base,oelm_freeze")
    failed = wait_for("oelm_freeze", "FAILED")
    assert failed["reason"].startswith("ended before training started: set-up failed")
    wait_for("gpt_base", "RUNNING")
    hide(instead, failed["job"].replace("_", "|"))
    slurm_commands.forget_queue()
    row = states()["oelm_freeze"]
    assert (row["state"], row["reason"]) == ("FAILED", failed["reason"])


def test_a_queue_that_was_read_before_a_job_was_accepted_says_nothing_of_it(
    configure, client, submit, instead, project: Path, cluster: Testbed, states, wait_for, tmp_path: Path
) -> None:
    sending, send, asked, answer = (tmp_path / name for name in ("sending", "send", "asked", "answer"))
    instead("sacct", DENIED)
    configure(poll_s=30)
    submit("oelm_freeze")
    wait_for_step(project, "oelm_freeze")
    instead("sbatch", f'touch {sending}; until [ -e {send} ]; do sleep 0.1; done; exec $real "$@"')
    submitting = client("gpt_base")
    wait_until(sending.exists, "it to be sent")
    held = f'said=$($real "$@"); touch {asked}; until [ -e {answer} ]; do sleep 0.1; done; echo "$said"'
    instead("squeue", held)
    slurm_commands.forget_queue()
    found: list[Any] = []
    look = threading.Thread(target=lambda: found.append(states()))
    look.start()  # another command, whose squeue is slow
    try:
        wait_until(asked.exists, "it to ask")
        send.touch()
        assert submitting.wait(300) == 0
    finally:
        send.touch()
        answer.touch()
        look.join()
    assert found[0]["oelm_freeze"]["state"] == "RUNNING"
    instead("squeue", 'exec $real "$@"')
    row = states()["gpt_base"]
    assert row["state"] in ("QUEUED", "RUNNING"), row


def test_hidden_partitions_are_asked_for(configure, submit, instead, project: Path, cluster: Testbed, states) -> None:
    calls = project / "calls"
    for command in ("squeue", "sinfo"):
        instead(command, f'echo "{command} $*" >> {calls}; exec $real "$@"')
    configure()
    submit()
    states()
    slurm_site.partitions()
    said = calls.read_text().splitlines()
    assert {line.split()[0] for line in said} == {"squeue", "sinfo"}
    assert all("--all" in line.split() for line in said), said
