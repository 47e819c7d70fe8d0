"""What a supervisor makes of its Slurm job: the claim's owner before, torchrun over nodes, why it is stopped, budgets;
by recorded words, without a cluster.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes
from oelm_jobs.agent.host import lease
from oelm_jobs.agent.run import place
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.slurm import cancel as slurm_cancel
from oelm_jobs.agent.slurm import claim as slurm_claim
from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.slurm import job as slurm_job
from oelm_jobs.agent.slurm import step as slurm_step
from oelm_jobs.agent.slurm.commands import SlurmError
from tests.slurm.recorded import NAME, TOKEN, fails, prints
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_cluster")

AGAIN = ": submit again to resume"
Put = Callable[[str, str], None]


def slurm_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **record: Any) -> slurm_job.SlurmJob:
    """Return the job of a run, as its batch process sees it on node n1."""
    monkeypatch.setenv("SLURM_JOB_ID", os.environ.get("SLURM_JOB_ID", "7"))
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    (tmp_path / "exp_a" / ".oelm").mkdir(parents=True, exist_ok=True)
    values = {"run_dir": str(tmp_path / "exp_a"), "token": TOKEN, "world_size": 1, **record}
    return slurm_job.SlurmJob(RunRecord(**values), lambda words: None)


# The node before, and this one ----------------------------------------------------------------------------------------


def owner(**changes: Any) -> slurm_claim.Owner:
    """Return a supervisor on another node."""
    made = slurm_claim.Owner("7", 0, NAME, TOKEN, processes.Identity(7, "1", "x", "n9"), 1.0)
    return slurm_claim.Owner(**{**made.__dict__, **changes})


@pytest.mark.parametrize(
    ("before", "waits"),
    [
        (owner(), True),
        (owner(released=True), False),
        (owner(identity=processes.identify(os.getpid())), False),
        (None, False),
    ],
)
def test_a_successor_of_a_node_that_may_be_cut_off_waits_until_it_must_have_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: slurm_claim.Owner | None, waits: bool
) -> None:
    slept: list[float] = []
    job = slurm_run(tmp_path, monkeypatch)
    job._claim = slurm_claim.Claim(job._run_dir, 2, owner(), before)
    monkeypatch.setattr(time, "sleep", slept.append)
    job.acquire(0.0)
    assert slept == ([2 * slurm_claim.FENCE_S] if waits else [])


@pytest.mark.slow
def test_who_lost_its_claim_while_it_waited_leaves_what_its_successor_waits_for(tmp_path: Path) -> None:
    folder = tmp_path / "exp_a"
    control = folder / ".oelm"
    control.mkdir(parents=True)
    claimed = {**dataclasses.asdict(owner(name="a", token="t")), "identity": {"pid": 7, "host": "n9"}}
    (control / "slurm-claim.1").write_text(json.dumps(claimed))
    record = {"scheduler": "slurm", "token": "t", "run": "a", "run_dir": str(folder), "world_size": 1}
    program = (
        "import sys\nfrom oelm_jobs.agent.slurm import job as slurm_job\nslurm_job.SlurmJob.look_s = 1.0\n"
        "from oelm_jobs.agent.supervise import main\n"
        "sys.exit(main(['--', sys.executable, '-c', 'import time; time.sleep(600)']))"
    )
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "a", "SLURMD_NODENAME": "n1", "SLURM_RESTART_COUNT": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **job}
    ) as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps(record).encode())
        child.stdin.close()
        try:
            wait_until((control / "waiting.json").exists, "it to wait until the node before must have noticed")
            (control / "slurm-claim.3").write_text(json.dumps({**claimed, "restart": 2}))
            (control / "waiting.json").write_text("the successor's")
            assert child.wait(300) == 75
        finally:
            child.kill()
    assert (control / "waiting.json").read_text() == "the successor's"


# Torchrun over nodes --------------------------------------------------------------------------------------------------

COMMAND = ["python", "-m", "torch.distributed.run", "--nproc_per_node", "4", "--master_port", "29500", "-m", "train"]


def words_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, job: int = 7, restart: int = 0, attempt: int = 1, nodes: int = 1
) -> tuple[list[str], int | None]:
    """Return what an attempt is started with on nodes n1, n2, …."""
    monkeypatch.setenv("SLURM_JOB_ID", str(job))
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
    made = slurm_run(tmp_path, monkeypatch, world_size=4)
    made._hosts = [f"n{number + 1}" for number in range(nodes)]
    return made.argv(COMMAND, attempt)


def value_of(words: Sequence[str], option: str) -> str:
    """Return the value of ``--option=value``."""
    return next(word.partition("=")[2] for word in words if word.startswith(option + "="))


def test_on_one_node_the_ranks_meet_at_a_port_that_they_find_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, port = words_of(tmp_path, monkeypatch)
    assert port is None and words[0] == "python" and "srun" not in words
    assert value_of(words, "--rdzv-endpoint") == "localhost:0" and "--rdzv-backend=c10d" in words
    assert "--master_port" not in words and words[words.index("--nproc_per_node") + 1] == "4"


def test_each_attempt_of_each_start_of_each_job_has_a_rendezvous_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = itertools.product((7, 71), (0, 1), (1, 2, 11), (1, 2))
    made = [
        words_of(tmp_path, monkeypatch, job=job, restart=restart, attempt=attempt, nodes=nodes)[0]
        for job, restart, attempt, nodes in several
    ]
    assert len({value_of(words, "--rdzv-id") for words in made}) == 12, "the same on all nodes, else another one"


def test_over_nodes_each_gets_one_task_with_its_share_of_the_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "16(x1),8")
    words, port = words_of(tmp_path, monkeypatch, nodes=2)
    step, command = words[: words.index("python")], words[words.index("python") :]
    assert step[0] == "srun" and "--kill-on-bad-exit=1" in step, "a rank that fails must end those on other nodes"
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=8"} <= set(step)
    assert command[command.index("--nnodes") + 1] == "2" and command[command.index("--nproc_per_node") + 1] == "2"
    assert value_of(command, "--rdzv-endpoint") == f"n1:{port}"


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("SLURM_GPUS_PER_TASK", "1", "--gpus-per-node=2"),
        ("SLURM_GPUS_PER_TASK", "a100:1", "--gpus-per-node=a100:2"),
        ("SLURM_GPUS_PER_TASK", "a100", "--gpus-per-node=a100:2"),
        ("SLURM_TRES_PER_TASK", "cpu=4,gres/gpu", "--gpus-per-node=2"),
        ("SLURM_NTASKS_PER_GPU", "1", ""),
        ("SLURM_TRES_PER_TASK", "cpu=4,gres/gpu:a100=1", "--gpus-per-node=a100:2"),
        ("SLURM_TRES_PER_TASK", "cpu:4,gres/gpu:1", "--gpus-per-node=2"),
        ("SLURM_TRES_PER_TASK", "cpu=4", ""),
    ],
)
def test_gpus_of_each_task_become_those_of_a_nodes_one_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, option: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    words, _ = words_of(tmp_path, monkeypatch, nodes=2)
    assert [word for word in words if word.startswith("--gpus")] == ([option] if option else [])
    assert words[:3] == ["env", f"--unset={variable}", "srun"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert words_of(tmp_path, monkeypatch, nodes=2)[0][0] == "srun", "a job without GPUs"


def test_jobs_over_nodes_meet_at_ports_that_follow_from_their_ids_and_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def port(job: int) -> int:
        found = words_of(tmp_path, monkeypatch, job=job, nodes=2)[1]
        assert found is not None
        return found

    first, last = slurm_step.FIRST_PORT, slurm_step.FIRST_PORT + slurm_step.PORTS
    with monkeypatch.context() as free:
        free.setattr(slurm_step.ports, "port_is_free", lambda number: True)
        assert [port(7), port(8), port(slurm_step.PORTS + 9)] == [first + 7, first + 8, first + 9]
        assert first <= port(67108863) < last
    with socket.socket() as busy:
        for number in range(4000, 4100):
            try:
                busy.bind(("", first + number))
                break
            except OSError:
                continue
        busy.listen()
        assert first + number < port(number) < first + number + 100


def test_a_job_that_was_granted_less_than_the_run_needs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with pytest.raises(lease.ImpossibleRequest, match="got 1 GPUs on n1 for 2 processes"):
        slurm_run(tmp_path, monkeypatch, world_size=2).acquire(0.0)
    job = slurm_run(tmp_path, monkeypatch)
    job.acquire(0.0)
    assert job.devices() == ["n1/gpu:2"]


# Why a job was stopped ------------------------------------------------------------------------------------------------


def shows(monkeypatch: pytest.MonkeyPatch, shown: dict[str, str] | None) -> None:
    """Let scontrol show a job so, or give no answer."""

    def show(job: str, timeout_s: float = 15.0) -> dict[str, str]:
        if shown is None:
            raise SlurmError("scontrol gave no answer within 5 s")
        return {"JobState": "RUNNING", "Restarts": "0", "Reason": "None", **shown}

    monkeypatch.setattr(slurm_commands, "show_job", show)


SOON, FAR = str(int(time.time()) + 100), str(int(time.time()) + 1_000_000)
"""When the job's time is over: within a warning's reach, and far beyond it."""
USR1, TERM = signal.SIGUSR1, signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "shown", "cause"),
    [
        (TERM, {"Reason": "TimeLimit", "JobState": "COMPLETING"}, place.TIMEOUT),
        (TERM, {"Reason": "TimeLimit"}, place.TIMEOUT),
        (TERM, {"PreemptTime": "1795495160", "JobState": "COMPLETING"}, place.PREEMPTION),
        (USR1, {"PreemptTime": "1795495160", "EndTime": SOON}, place.PREEMPTION),
        (TERM, {"PreemptTime": "None", "JobState": "CANCELLED"}, place.CANCEL),
        (TERM, {"JobState": "COMPLETING"}, place.CANCEL),
        (TERM, {"JobState": "NODE_FAIL"}, place.NODE_FAILURE),
        (TERM, {"JobState": "COMPLETING", "Reason": "NodeDown"}, place.NODE_FAILURE),
        (TERM, {"JobState": "COMPLETING", "Reason": "DeadLine"}, ""),
        (TERM, {"JobState": "OUT_OF_MEMORY"}, ""),
        (TERM, {}, ""),
        (TERM, {"EndTime": SOON}, ""),
        (USR1, {"EndTime": SOON}, place.TIMEOUT),
        (USR1, {"EndTime": "Unknown"}, place.TIMEOUT),
        (USR1, {"EndTime": FAR}, place.REQUEUE),
        (USR1, None, place.TIMEOUT),
        (TERM, None, ""),
        (TERM, {"Restarts": "1", "JobState": "PENDING"}, place.REQUEUE),
        (TERM, {"Restarts": "1", "JobState": "PENDING", "PreemptTime": "1795495160"}, place.REQUEUE),
    ],
)
def test_scontrol_tells_why_a_signal_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, shown: Any, cause: str
) -> None:
    shows(monkeypatch, shown)
    job = slurm_run(tmp_path, monkeypatch, warning_s=120)
    assert job._cause(number) == cause
    assert job._requeued == bool(shown and shown.get("Restarts") == "1"), "whether Slurm itself starts it again"


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        ("PREEMPTION", place.PREEMPTION),
        ("NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS", place.NODE_FAILURE),
        ("JOB REQUEUE", place.REQUEUE),
    ],
)
def test_a_restarts_cause_is_what_slurmstepd_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str, cause: str
) -> None:
    output = tmp_path / "7.log"
    output.write_text(f"slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO {why} ***\n")
    shows(monkeypatch, {"Restarts": "3", "StdOut": str(output), "JobState": "COMPLETING"})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert slurm_run(tmp_path, monkeypatch)._cause(TERM) == cause
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    assert slurm_run(tmp_path, monkeypatch)._cause(TERM) == place.CANCEL, "this start is the one that is counted"


SAVED = {"status": "resumable", "step": 20, "resumed_from": 10}
WARNED = {"EndTime": SOON}
REQUEUED = {"Restarts": "1", "JobState": "PENDING"}


@pytest.mark.parametrize(
    ("number", "shown", "requeue", "outcome", "state", "reason"),
    [
        (USR1, WARNED, True, SAVED, "QUEUED", "time limit"),
        (USR1, WARNED, True, {}, "QUEUED", "time limit, without a checkpoint"),
        (USR1, WARNED, False, SAVED, "FAILED", "time limit" + AGAIN),
        (USR1, {"EndTime": FAR}, False, {}, "FAILED", "requeue, without a checkpoint" + AGAIN),
        (TERM, {"PreemptTime": "1"}, False, SAVED, "FAILED", "preemption" + AGAIN),
        (TERM, {"JobState": "NODE_FAIL"}, False, SAVED, "FAILED", "node failure" + AGAIN),
        (TERM, REQUEUED, False, SAVED, "QUEUED", "requeue"),
        (TERM, {"JobState": "COMPLETING"}, True, SAVED, "CANCELLED", "cancelled by scancel"),
        (TERM, {}, True, SAVED, "CANCELLED", "stopped by SIGTERM"),
    ],
)
def test_a_target_without_requeue_leaves_resuming_to_its_user(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    shown: Any,
    requeue: bool,
    outcome: Any,
    state: str,
    reason: str,
) -> None:
    shows(monkeypatch, shown)
    job = slurm_run(tmp_path, monkeypatch, warning_s=120, requeue=requeue, max_timeouts=9)
    verdict = job.judge_stop(number, [], outcome)
    assert (verdict.state, verdict.reason) == (state, reason)


def attempt(cause: str, *, job: str = "7", steps: int = 5) -> dict[str, Any]:
    """Return the record of an earlier attempt."""
    return {"job": job, "cause": cause, "steps": steps}


@pytest.mark.parametrize(
    ("before", "outcome", "refusal"),
    [
        ([], SAVED, ""),
        ([attempt("timeout")], SAVED, ""),
        ([attempt("timeout"), attempt("timeout")], SAVED, "time limit reached 3 times (max_timeouts = 2)" + AGAIN),
        ([attempt("timeout"), attempt("preemption"), attempt("crash"), attempt("requeue")], SAVED, ""),
        ([attempt("timeout", job="5"), attempt("timeout", job="5"), attempt("timeout")], SAVED, ""),
        ([attempt("timeout", steps=0)], {}, "the time limit is too short: two starts in a row made no step"),
        ([attempt("timeout", steps=0)], SAVED, ""),
        ([attempt("timeout")], {}, ""),
        ([attempt("timeout", steps=0, job="5")], {}, ""),
        ([attempt("preemption", steps=0)], {}, ""),
        ([attempt("timeout", steps=0)], {"step": 10, "resumed_from": 10},
         "the time limit is too short: two starts in a row made no step"),
    ],
)  # fmt: skip
def test_the_budget_of_time_outs_is_one_of_this_jobs_time_outs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Any, outcome: Any, refusal: str
) -> None:
    shows(monkeypatch, WARNED)
    job = slurm_run(tmp_path, monkeypatch, max_timeouts=2, warning_s=120)
    assert job._no_more_timeouts(before, outcome) == refusal
    verdict = job.judge_stop(USR1, before, outcome)
    assert (verdict.state, verdict.cause) == ("FAILED" if refusal else "QUEUED", place.TIMEOUT)


def test_the_budget_of_retries_counts_this_jobs_crashes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    causes = ("crash", "timeout", "preemption", "requeue", "cancel", "")
    before = [attempt(cause) for cause in causes] + [attempt("crash", job="5"), attempt("crash")]
    assert slurm_run(tmp_path, monkeypatch).retries_used(before) == 2
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert slurm_run(tmp_path, monkeypatch).retries_used([attempt("crash"), attempt("crash", job="7_1")]) == 1


@pytest.mark.parametrize(
    ("number", "shown", "grace_s", "passed"),
    [
        (TERM, {}, 20.0, True),
        (TERM, None, 20.0, True),
        (TERM, {"JobState": "COMPLETING"}, 20.0, False),
        (TERM, {"Restarts": "1", "JobState": "PENDING"}, 20.0, False),
        (TERM, {"Restarts": "1"}, 20.0, False),
        (USR1, {"JobState": "RUNNING"}, 110.0, True),
        (USR1, {"JobState": "COMPLETING"}, 110.0, True),
    ],
)
@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_that_slurms_own_sigterm_has_reached_get_no_second_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    instead: Put,
    number: int,
    shown: Any,
    grace_s: float,
    passed: bool,
    nodes: int,
) -> None:
    calls, killed = tmp_path / "calls", list[tuple[int, int]]()
    instead("scancel", prints("", calls))
    monkeypatch.setattr(os, "kill", lambda pid, signum: killed.append((pid, signum)))
    shows(monkeypatch, shown)
    job = slurm_run(tmp_path, monkeypatch, warning_s=120)
    job._hosts = ["n1", "n2"][:nodes]
    assert job.pass_stop(4711, number) == grace_s
    assert killed == ([(4711, TERM)] if passed and nodes == 1 else [])
    assert (calls.read_text() if calls.exists() else "") == ("--signal=TERM 7\n" if passed and nodes == 2 else "")


@pytest.mark.parametrize(("shown", "grace_s"), [("120 sec", 110.0), ("30 sec", 20.0), ("15 sec", 20.0)])
def test_a_checkpoint_has_the_time_that_the_cluster_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Put, shown: str, grace_s: float
) -> None:
    instead("scontrol", prints(f"KillWait                = {shown}\n"))
    monkeypatch.setattr(os, "kill", lambda pid, signum: None)
    assert slurm_run(tmp_path, monkeypatch).pass_stop(4711, TERM) == grace_s


@pytest.mark.parametrize(("shown", "grace_s"), [("RUNNING", 300.0), ("COMPLETING", 110.0), (None, 110.0)])
def test_a_program_has_the_time_that_it_asks_for_unless_slurm_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str | None, grace_s: float
) -> None:
    monkeypatch.setattr(slurm_commands, "kill_wait", lambda: 120.0)
    monkeypatch.setattr(os, "kill", lambda pid, signum: None)
    shows(monkeypatch, {"JobState": shown} if shown else None)
    assert slurm_run(tmp_path, monkeypatch, program={"stop_s": 300.0}).pass_stop(4711, TERM) == grace_s


@pytest.mark.parametrize(("stop_s", "asked"), [(0.0, 0), (20.0, 0), (60.0, 3)])
def test_however_many_runs_are_cancelled_slurm_is_asked_once_how_long_it_waits_and_only_where_programs_need_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Put, stop_s: float, asked: int
) -> None:
    calls, cancels = tmp_path / "calls", tmp_path / "cancels"
    instead("scontrol", prints("KillWait                = 30 sec\n", calls))
    instead("scancel", prints("", cancels))
    monkeypatch.setattr(place, "stop_grace", lambda record, seconds: stop_s)
    living = {f"/exp_{number}": [slurm_commands.Job(str(number), None, NAME, "RUNNING")] for number in range(3)}
    assert len(slurm_cancel._ask_supervisors(living)) == asked
    assert (calls.read_text() if calls.exists() else "") == ("show config\n" if stop_s else "")
    assert (cancels.read_text() if cancels.exists() else "") == ("--batch --signal=TERM 0 1 2\n" if asked else "")


@pytest.mark.parametrize(
    ("shown", "state"),
    [
        ({"JobState": "RUNNING", "PreemptTime": "1795495160"}, "QUEUED"),
        ({"JobState": "RUNNING", "PreemptTime": "None"}, ""),
        ({"JobState": "PENDING", "Restarts": "1"}, "QUEUED"),
    ],
)
def test_ranks_that_stop_before_their_supervisor_are_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: dict[str, str], state: str
) -> None:
    shows(monkeypatch, shown)
    verdict = slurm_run(tmp_path, monkeypatch).judge_end([], {"status": "resumable"})
    assert (verdict.state if verdict else "") == state


def test_ranks_on_this_node_are_asked_where_scancel_can_not_ask_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Put
) -> None:
    killed = list[tuple[int, int]]()
    instead("scancel", fails("scancel: error: Unable to contact slurm controller (connect failure)"))
    monkeypatch.setattr(os, "kill", lambda pid, signum: killed.append((pid, signum)))
    shows(monkeypatch, {})
    job = slurm_run(tmp_path, monkeypatch)
    job._hosts = ["n1", "n2"]
    job.pass_stop(4711, TERM)
    assert killed == [(4711, TERM)]


def test_a_requeue_by_a_command_that_is_not_there_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []

    def call(argv: list[str], timeout_s: float) -> None:
        tried.append(argv)
        raise slurm_commands.NotThere("scontrol")

    monkeypatch.setattr(slurm_commands, "call", call)
    monkeypatch.setattr(slurm_job, "REQUEUE_PAUSE_S", 0.0)
    assert "can't be run" in slurm_run(tmp_path, monkeypatch).go_on_later()
    assert [argv[1] for argv in tried].count("requeue") == slurm_job.REQUEUE_TRIES


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_program_of_ones_own_is_told_its_nodes_and_a_port_and_is_started_on_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    job = slurm_run(tmp_path, monkeypatch, world_size=4)
    job._hosts = [f"n{number + 1}" for number in range(nodes)]
    job._devices = [f"n{number % nodes + 1}/gpu:{number // nodes}" for number in range(4)]
    ground = job.ground(2)
    taken = job.ground(3, avoided=(ground.port,))
    assert (ground.gpus, ground.nodes, ground.host) == ((4, 1, "localhost") if nodes == 1 else (2, 2, "n1"))
    assert ground.rendezvous == "7.0.2" and ground.port != taken.port
    argv = job.spread(["bash", "x.sh"])
    assert argv[-2:] == ["bash", "x.sh"] and ("srun" in argv) is (nodes == 2)


@pytest.mark.parametrize(("shown", "asked"), [({"JobState": "CANCELLED"}, True), ({"JobState": "RUNNING"}, False)])
def test_whether_slurm_has_asked_all_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: dict[str, str], asked: bool
) -> None:
    monkeypatch.setattr(os, "kill", lambda pid, signum: None)
    shows(monkeypatch, shown)
    job = slurm_run(tmp_path, monkeypatch)
    job.pass_stop(4711, TERM)
    assert job.has_asked_all() is asked
