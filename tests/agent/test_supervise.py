"""One run on its host, from the claim to the end record: real processes, killed for real."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from oelm_jobs.agent import processes, rundir, supervise
from oelm_jobs.agent.host import cancel, launch, ports
from oelm_jobs.agent.run import failure
from oelm_jobs.agent.transfer import inventory
from tests.support import (
    kill,
    launch_runs,
    make_run,
    outcome_of,
    random_moment,
    read,
    script_of,
    sleeping,
    state,
    wait_for_state,
    wait_until,
)


def supervisor_of(run) -> processes.Identity:
    claim = Path(rundir.control(run.run_dir, rundir.CLAIM))
    wait_until(claim.read_text, "the claim to name its holder, who writes it after it has begun")
    identity = processes.Identity.from_json(read(claim))
    assert identity is not None
    return identity


def test_a_run_that_completes_leaves_end_record_result_and_manifest(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("completed"))])
    wait_for_state(run, "DONE")
    folder = Path(run.run_dir)
    result, manifest, end = (
        read(folder / rundir.RESULT),
        read(folder / rundir.MANIFEST),
        read(folder / ".oelm/end.json"),
    )
    assert result["status"] == end["state"] == "DONE"
    assert [attempt["number"] for attempt in result["attempts"]] == [1]
    assert result["attempts"][0]["wall_s"] > 0
    listed = {file["name"]: (file["size"], file["sha256"]) for file in manifest["files"]}
    contents = {name: (folder / name).read_bytes() for name in (rundir.LOG, rundir.RESULT)}
    assert listed == {name: (len(held), hashlib.sha256(held).hexdigest()) for name, held in contents.items()}


def test_exit_code_zero_without_an_outcome_record_is_not_done(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, [sys.executable, "-c", "print('looks fine')"])])
    row = wait_for_state(run, "DONE", "FAILED")
    assert row["state"] == "FAILED"
    assert "no outcome" in row["reason"] and "looks fine" in row["reason"]


@pytest.mark.slow
def test_a_completed_outcome_counts_whatever_the_exit_code_says(root: Path) -> None:
    run = make_run(root, "a")
    command = outcome_of("completed")
    launch_runs(root, [(run, [*command[:-1], command[-1] + "; raise SystemExit(1)"])])
    assert wait_for_state(run, "DONE", "FAILED")["state"] == "DONE"


@pytest.mark.slow
def test_an_extension_that_dies_early_is_not_done_by_what_the_run_before_it_left(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("completed"))])
    wait_for_state(run, "DONE")
    (Path(run.run_dir) / "checkpoint_1.pt").touch()
    longer = make_run(root, "a", fingerprint="0" * 64)
    dies = [sys.executable, "-S", "-c", "raise SystemExit(1)"]
    launch_runs(root, [(longer, dies)], token="t2", extended_from={"fingerprint": run.fingerprint})

    def end() -> tuple[str, str]:
        row = state(run)
        return (row["state"], row["reason"]) if row["token"] == "t2" and row.get("ended_at") else ("", "")

    wait_until(lambda: end()[0], "the extension's end")
    assert end() == ("FAILED", "exit code 1, no outcome")
    assert read(rundir.control(run.run_dir, rundir.OUTCOME)) == {"attempt": "t1:1", "status": "completed", "reason": ""}


@pytest.mark.slow
def test_a_crash_is_failed_with_the_last_error_and_retried_within_the_budget(root: Path) -> None:
    run = make_run(root, "a", max_retries=1)
    launch_runs(root, [(run, [sys.executable, "-c", "raise ValueError('on purpose')"])])
    row = wait_for_state(run, "FAILED")
    assert "ValueError: on purpose" in row["reason"]
    attempts = read(Path(run.run_dir) / rundir.RESULT)["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2]
    assert all("on purpose" in attempt["reason"] for attempt in attempts)


@pytest.mark.parametrize(
    ("status", "reason"), [("diverged", "loss is nan at step 7"), ("oom", "batch size 4 would fit")]
)
def test_the_trainers_own_reason_is_kept(root: Path, status: str, reason: str) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of(status, reason))])
    assert wait_for_state(run, "FAILED")["reason"] == f"{status}: {reason}"


@pytest.mark.slow
def test_sequential_runs_start_one_after_the_other_and_go_on_after_a_failure(root: Path) -> None:
    runs = [make_run(root, name) for name in "abc"]
    commands = [outcome_of("completed"), outcome_of("error", "x"), outcome_of("completed")]
    launch_runs(root, list(zip(runs, commands, strict=True)), sequential=True)
    assert [wait_for_state(run, "DONE", "FAILED")["state"] for run in runs] == ["DONE", "FAILED", "DONE"]
    results = [read(Path(run.run_dir) / rundir.RESULT) for run in runs]
    for earlier, later in itertools.pairwise(results):
        assert earlier["attempts"][0]["ended_at"] <= later["attempts"][0]["started_at"]


@pytest.mark.slow
def test_stop_on_failure_cancels_the_runs_behind(root: Path) -> None:
    runs = [make_run(root, name) for name in "ab"]
    launch_runs(
        root,
        [(runs[0], outcome_of("error", "x")), (runs[1], outcome_of("completed"))],
        sequential=True,
        stop_on_failure=True,
    )
    assert wait_for_state(runs[1], "CANCELLED", "DONE")["state"] == "CANCELLED"
    assert not (Path(runs[1].run_dir) / rundir.LOG).exists()


@pytest.mark.slow
def test_a_run_survives_the_end_of_the_process_that_launched_it(root: Path) -> None:
    run = make_run(root, "a")
    request = {"root": str(root), "token": "t", "runs": [
        {"run_dir": run.run_dir, "token": "t", "script": script_of(root, run, sleeping(), "t")}]}  # fmt: skip
    program = f"from oelm_jobs.agent.host import launch; launch.launch({request!r})"
    launcher = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    launcher.wait(300)
    os.killpg(launcher.pid, signal.SIGHUP) if _group_exists(launcher.pid) else None
    row = wait_for_state(run, "RUNNING")
    assert row["devices"] == ["cpu:0"]
    assert supervisor_of(run).is_alive()


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_launch_that_is_sent_twice_starts_nothing_twice(root: Path) -> None:
    run = make_run(root, "a")
    command = [sys.executable, "-c", "import os; print('start', os.getpid(), flush=True); import time; time.sleep(600)"]
    assert launch_runs(root, [(run, command)], token="t")["answer"] == "accepted"
    assert launch_runs(root, [(run, command)], token="t")["answer"] == "repeated"
    assert launch_runs(root, [(run, command)], token="another")["runs"][run.run_dir] == "busy"
    log = Path(run.run_dir) / rundir.LOG
    wait_until(lambda: log.exists() and log.read_text(), "a start")
    time.sleep(0.5)
    assert log.read_text().count("start") == 1


def test_a_settled_submission_never_starts(root: Path) -> None:
    run = make_run(root, "a")
    assert launch.settle({"root": str(root), "token": "t"})["answer"] == "settled"
    assert launch_runs(root, [(run, outcome_of("completed"))], token="t")["answer"] == "settled"
    assert not Path(run.run_dir).exists()


def test_an_accepted_submission_is_found_by_its_token(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("completed"))], token="t")
    assert launch.settle({"root": str(root), "token": "t"}) == {"answer": "accepted", "runs": [run.run_dir]}


@pytest.mark.slow
def test_the_script_runs_by_hand_and_again(root: Path) -> None:
    run = make_run(root, "a")
    script = root / "by-hand.sh"
    script.write_text(script_of(root, run, outcome_of("completed"), "by-hand"))
    for _ in range(2):
        assert subprocess.run(["bash", str(script)], capture_output=True, timeout=300).returncode == 0
    assert len(read(Path(run.run_dir) / rundir.RESULT)["attempts"]) == 1


@pytest.mark.slow
def test_another_configuration_never_enters_a_run_directory(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("error", "x"))])
    wait_for_state(run, "FAILED")
    script = root / "by-hand.sh"
    script.write_text(script_of(root, make_run(root, "a", fingerprint="0" * 64), outcome_of("completed"), "by-hand"))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 78 and "another configuration" in done.stderr
    assert state(run)["state"] == "FAILED"


@pytest.mark.slow
def test_another_study_never_enters_a_run_directory_and_takes_no_result_from_it(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("completed"))])
    wait_for_state(run, "DONE")
    script = root / "by-hand.sh"
    script.write_text(script_of(root, make_run(root, "a", study="another"), outcome_of("completed"), "by-hand"))
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and f"holds run a of study {run.study}" in done.stderr
    assert read(rundir.control(run.run_dir, rundir.END))["token"] != "by-hand"


@pytest.mark.slow
def test_cancel_ends_grandchildren_in_foreign_sessions_and_frees_the_lease(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import subprocess, sys, time, os\n"
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time, signal;"
        " signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'], start_new_session=True)\n"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    run = make_run(root, "a")
    launch_runs(root, [(run, [sys.executable, "-S", "-c", program])])
    log = Path(run.run_dir) / rundir.LOG
    grandchild = int(wait_until(lambda: log.exists() and log.read_text().strip(), "the grandchild"))
    random_moment()
    monkeypatch.setattr(cancel, "PATIENCE_S", 240.0)  # it comes to an end by itself, however busy the machine
    monkeypatch.setattr(cancel, "_kill_supervised", lambda run_dir: pytest.fail("it had to be ended by force"))
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    assert processes.start_time_of(grandchild) == ""
    assert state(run)["state"] == "CANCELLED"
    other = make_run(root, "b")
    launch_runs(root, [(other, outcome_of("completed"))], token="t2")
    wait_for_state(other, "DONE")


@pytest.mark.slow
def test_cancel_ends_descendants_that_dropped_their_environment(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, ["bash", "-c", "env -i setsid sleep 600 & echo $!; sleep 600"])])
    log = Path(run.run_dir) / rundir.LOG
    hidden = int(wait_until(lambda: log.exists() and log.read_text().strip(), "the descendant"))
    wait_until(lambda: b"OELM" not in Path(f"/proc/{hidden}/environ").read_bytes(), "it to have dropped it")
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    assert processes.start_time_of(hidden) == ""


@pytest.mark.slow
def test_a_supervisor_that_hangs_is_ended_with_all_it_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "PATIENCE_S", 1.0)
    run = make_run(root, "a")
    launch_runs(root, [(run, ["bash", "-c", "env -i setsid sleep 600 & echo $!; sleep 600"])])
    log = Path(run.run_dir) / rundir.LOG
    hidden = int(wait_until(lambda: log.exists() and log.read_text().strip(), "the descendant"))
    os.kill(supervisor_of(run).pid, signal.SIGSTOP)
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    assert processes.start_time_of(hidden) == "" and not processes.of_run(run.run_dir)
    assert state(run)["state"] == "CANCELLED"


@pytest.mark.slow
def test_a_cancel_between_claim_and_start_is_not_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, claimed = launch._start, threading.Event()

    def late(*arguments: object) -> None:
        claimed.set()
        time.sleep(1.0)
        start(*arguments)

    monkeypatch.setattr(launch, "_start", late)
    run = make_run(root, "a")
    launching = threading.Thread(target=launch_runs, args=(root, [(run, sleeping())]))
    launching.start()
    claimed.wait()
    assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
    launching.join()
    assert state(run)["state"] == "CANCELLED" and not processes.of_run(run.run_dir)


@pytest.mark.parametrize("step", ["watch_for_stalls", "history", "judge_stop"])
def test_a_stop_that_comes_while_a_run_is_prepared_or_stopped_is_not_lost(root: Path, step: str) -> None:
    run = make_run(root, "a")
    rundir.control(run.run_dir, "").mkdir(parents=True)
    record = {"run": "a", "run_dir": run.run_dir, "token": "t1", "gpus": 1, "max_retries": 0}
    program = f"""
import json, os, signal
from oelm_jobs.agent.host import host; from oelm_jobs.agent import run_record, supervise
from oelm_jobs.agent.notify import in_job

def stopping(does):
    def wrapped(*arguments):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        return does(*arguments)
    return wrapped

if {step!r} == "watch_for_stalls":
    in_job.JobTeller.watch_for_stalls = stopping(in_job.JobTeller.watch_for_stalls)
else:
    supervise.Supervisor.history = stopping(supervise.Supervisor.history)
if {step!r} == "judge_stop":
    host.Host.judge_stop = stopping(host.Host.judge_stop)
record = run_record.RunRecord.of(json.loads({json.dumps(record)!r}))
print(supervise.Supervisor(record, ["true"]).run())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.stdout == f"{supervise.EXIT_FAILED}\n", done.stderr
    assert "Traceback" not in done.stderr
    end = read(rundir.control(run.run_dir, rundir.END))
    assert (end["state"], end["reason"]) == ("CANCELLED", "stopped by SIGTERM while waiting")


@pytest.mark.slow
@pytest.mark.parametrize("differs", ["start_time", "boot_id"])
def test_a_process_that_has_the_number_of_the_recorded_one_is_not_ended(differs: str) -> None:
    with subprocess.Popen(sleeping()) as stranger:
        try:
            before = processes.Identity(**{**processes.identify(stranger.pid).to_json(), differs: "another"})
            processes.send([before], signal.SIGKILL)
            assert not before.is_alive()
            with pytest.raises(subprocess.TimeoutExpired):
                stranger.wait(0.5)
        finally:
            stranger.kill()


@pytest.mark.slow
def test_cancel_is_idempotent_and_a_cancelled_run_goes_on_when_submitted_again(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, sleeping())])
    random_moment()  # while the script, the supervisor or the command starts
    for expected in ("cancelled", "not running"):
        assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"][run.run_dir] == expected
    launch_runs(root, [(run, outcome_of("completed"))], token="t2")
    wait_for_state(run, "DONE")
    states = [attempt["state"] for attempt in read(Path(run.run_dir) / rundir.RESULT)["attempts"]]
    assert states in (["CANCELLED", "DONE"], ["DONE"]), "it may have been cancelled before its first attempt"


@pytest.mark.slow
def test_a_queued_run_is_cancelled_before_it_starts(root: Path) -> None:
    runs = [make_run(root, name) for name in "ab"]
    launch_runs(root, [(run, sleeping()) for run in runs], sequential=True)
    wait_for_state(runs[0], "RUNNING")
    cancel.cancel({"run_dirs": [runs[1].run_dir]})
    assert state(runs[1])["state"] == "CANCELLED"
    assert state(runs[0])["state"] == "RUNNING"


@pytest.mark.slow
def test_a_killed_supervisor_is_lost_and_its_survivors_are_ended_by_the_next_attempt(root: Path) -> None:
    run = make_run(root, "a")
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    launch_runs(root, [(run, [sys.executable, "-S", "-c", program])])
    log = Path(run.run_dir) / rundir.LOG
    rank = int(wait_until(lambda: log.exists() and log.read_text().strip(), "the rank"))
    random_moment()
    os.kill(supervisor_of(run).pid, signal.SIGKILL)
    row = wait_for_state(run, "UNKNOWN")
    assert "processes live on" in row["reason"]
    launch_runs(root, [(run, outcome_of("completed"))], token="t2")
    wait_for_state(run, "DONE")
    assert processes.start_time_of(rank) == ""
    attempts = read(Path(run.run_dir) / rundir.RESULT)["attempts"]
    assert [(a["state"], a["reason"]) for a in attempts] == [("FAILED", "supervisor lost"), ("DONE", "")]


SAY_WHETHER_ALIVE = "grep -qs '^State:.[^ZX]' /proc/$(cat {pid})/status && echo alive || echo gone"
"""Shell lines that say whether a process runs on; one that has ended may be there until it is reaped."""
WHETHER_ALIVE = (
    "import os, sys; stat = '/proc/%s/stat' % sys.argv[1];"
    " alive = os.path.exists(stat) and open(stat).read().rpartition(')')[2].split()[0] != 'Z';"
    " print('alive' if alive else 'gone', flush=True); "
)
"""Says whether a process lives, before anything else happens."""


@pytest.mark.slow
@pytest.mark.parametrize("all_devices", [False, True], ids=["a device is free", "it has the only devices"])
def test_survivors_of_a_lost_attempt_are_ended_before_the_next_one_takes_devices(root: Path, all_devices: bool) -> None:
    gpus = len(os.sched_getaffinity(0)) if all_devices else 1
    run = make_run(root, "a", gpus=gpus)
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    launch_runs(root, [(run, [sys.executable, "-S", "-c", program])])
    log = Path(run.run_dir) / rundir.LOG
    rank = int(wait_until(lambda: log.exists() and log.read_text().strip(), "the rank"))
    os.kill(supervisor_of(run).pid, signal.SIGKILL)
    wait_for_state(run, "UNKNOWN")
    completes = outcome_of("completed")[-1]
    launch_runs(root, [(run, [sys.executable, "-S", "-c", WHETHER_ALIVE + completes, str(rank)])], token="t2")

    def said() -> str:
        assert "still used by what is left of" not in (row := state(run)["reason"]), row
        return log.read_text().partition("\n")[2]

    assert wait_until(said, "the next attempt") == "gone\n"
    wait_for_state(run, "DONE")


@pytest.mark.slow
def test_what_is_left_of_an_attempt_is_ended_before_the_next_one_starts(root: Path, tmp_path: Path) -> None:
    run, left = make_run(root, "a", max_retries=1), tmp_path / "left"
    command = f"[ -e {left} ] && {{ {SAY_WHETHER_ALIVE.format(pid=left)}; exit 1; }}"
    command += f"; setsid sh -c 'trap \"\" TERM; echo $$ > {left}; while :; do sleep 0.2; done' &"
    command += f" until [ -s {left} ]; do sleep 0.1; done; exit 1"
    launch_runs(root, [(run, ["bash", "-c", command])])
    wait_for_state(run, "FAILED")
    assert (Path(run.run_dir) / rundir.LOG).read_text().splitlines()[-1] == "gone"


STUBBORN = "trap '' TERM HUP; echo $$ > {pid}; while :; do sleep 0.1; done"
"""Shell lines of a process that has to be killed."""


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a rank", "a process of the set-up"])
def test_devices_are_free_only_when_all_that_may_use_them_has_ended(root: Path, tmp_path: Path, what: str) -> None:
    from oelm_jobs.spec.target import Target

    slots, pid, go = len(os.sched_getaffinity(0)), tmp_path / "pid", tmp_path / "go"
    stubborn = tmp_path / "stubborn.sh"
    stubborn.write_text(STUBBORN.format(pid=pid))
    start = f"setsid bash {stubborn} >/dev/null 2>&1 &"
    is_rank = what == "a rank"
    ends = f"until [ -e {go} ]; do sleep 0.05; done"
    first, second = make_run(root, "a", gpus=slots), make_run(root, "b", gpus=slots)
    target = Target(name="local", kind="local", root="", python="", setup=() if is_rank else (start,))
    command = ["bash", "-c", f"{start if is_rank else ''} {ends}"]
    script = script_of(root, first, command, "t1", target=target)
    runs = [{"run_dir": first.run_dir, "token": "t1", "script": script}]
    launch.launch({"root": str(root), "token": "t1", "runs": runs})
    wait_until(lambda: pid.exists() and pid.read_text(), "the process that has to be killed")
    wait_for_state(first, "RUNNING")
    launch_runs(root, [(second, ["bash", "-c", SAY_WHETHER_ALIVE.format(pid=pid)])], token="t2")
    wait_until(lambda: "waiting" in state(second)["reason"], "the second to wait for the first one's devices")
    go.touch()
    wait_for_state(second, "FAILED")
    assert (Path(second.run_dir) / rundir.LOG).read_text() == "gone\n"


def ended_while_it_hashes(run, tmp_path: Path, command: list[str]) -> None:
    """Submit a run again that was cancelled once, stop it, and kill its supervisor once the result is written."""
    launch_runs(tmp_path, [(run, command)], token="t2")
    wait_until(lambda: (Path(run.run_dir) / "is_ready").exists(), "its command")
    with open(Path(run.run_dir) / "large.pt", "wb") as file:  # it takes minutes to hash, and no room on the disk
        file.truncate(1 << 38)
    os.kill(supervisor_of(run).pid, signal.SIGTERM)

    def is_written() -> bool:
        attempts = read(Path(run.run_dir) / rundir.RESULT)["attempts"]
        return [attempt["number"] for attempt in attempts] == [1, 2]

    wait_until(is_written, "the result")
    os.kill(supervisor_of(run).pid, signal.SIGKILL)
    wait_until(lambda: not rundir.is_locked(rundir.control(run.run_dir, rundir.CLAIM)), "its end")


def cancelled_once(root: Path):
    """Return a run whose first attempt was cancelled, with all its records."""
    run = make_run(root, "a")
    launch_runs(root, [(run, sleeping())])
    wait_for_state(run, "RUNNING")
    cancel.cancel({"run_dirs": [run.run_dir]})
    assert (Path(run.run_dir) / rundir.MANIFEST).exists()
    return run


READY = "import os, pathlib, signal, sys, time; out = pathlib.Path(os.environ['OELM_RUN_DIR']);"


@pytest.mark.slow
def test_a_second_cancel_is_not_taken_for_whole_by_the_manifest_of_the_first(root: Path) -> None:
    run = cancelled_once(root)
    waits = READY + " (out / 'is_ready').touch(); time.sleep(600)"
    ended_while_it_hashes(run, root, [sys.executable, "-S", "-c", waits])
    assert (state(run)["state"], state(run)["reason"]) == ("CANCELLED", "stopped by SIGTERM, without a checkpoint")
    asked = {"runs": [{"run_dir": run.run_dir, "have": {}}], "checkpoints": "none"}
    answer = inventory.inventory(asked)["runs"][run.run_dir]
    assert not answer["final"] and rundir.MANIFEST not in [file["name"] for file in answer["files"]]
    assert rundir.RESULT in [file["name"] for file in answer["files"]], "what is there comes home all the same"


@pytest.mark.slow
def test_a_run_that_completes_as_it_is_stopped_is_done_only_with_result_and_manifest(root: Path) -> None:
    run = cancelled_once(root)
    completes = outcome_of("completed")[-1].replace("import json, os, pathlib;", "import json;")
    ends = f"\ndef ends(*_): exec({completes!r}); os._exit(0)\nsignal.signal(signal.SIGTERM, ends);"
    program = READY + ends + " (out / 'is_ready').touch(); time.sleep(600)"
    ended_while_it_hashes(run, root, [sys.executable, "-S", "-c", program])
    assert read(Path(run.run_dir) / rundir.RESULT)["status"] == "DONE"
    assert state(run)["state"] == "FAILED", "without a manifest nobody may take it for done"
    (Path(run.run_dir) / "large.pt").unlink()
    launch_runs(root, [(run, outcome_of("completed"))], token="t3")
    wait_for_state(run, "DONE")
    assert (Path(run.run_dir) / rundir.MANIFEST).exists()


@pytest.mark.slow
def test_a_reboot_is_told_from_a_lost_supervisor(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, sleeping())])
    survivors = wait_until(lambda: processes.of_run(run.run_dir), "its process")
    os.kill(supervisor_of(run).pid, signal.SIGKILL)
    kill(survivors)
    wait_for_state(run, "FAILED")
    assert "supervisor lost" in state(run)["reason"]
    (tmp_path / "boot").write_text("another-boot\n")
    monkeypatch.setenv("OELM_BOOT_ID_FILE", str(tmp_path / "boot"))
    assert state(run)["state"] == "FAILED" and "reboot" in state(run)["reason"]
    launch_runs(root, [(run, outcome_of("completed"))], token="t2")
    wait_for_state(run, "DONE")
    assert [a["reason"] for a in read(Path(run.run_dir) / rundir.RESULT)["attempts"]] == ["reboot", ""]


def test_a_failing_set_up_ends_the_run_with_its_own_words(root: Path) -> None:
    from oelm_jobs.spec.target import Target

    target = Target(name="local", kind="local", root="", python="", setup=("source /nowhere/bin/activate",))
    run = make_run(root, "a")
    script = script_of(root, run, outcome_of("completed"), "t", target=target)
    launch.launch({"root": str(root), "token": "t", "runs": [{"run_dir": run.run_dir, "token": "t", "script": script}]})
    row = wait_for_state(run, "FAILED")
    assert "set-up failed" in row["reason"]


@pytest.mark.slow
def test_a_process_left_behind_by_the_set_up_serves_all_attempts_and_ends_with_the_run(root: Path) -> None:
    from oelm_jobs.spec.target import Target

    pid_file = root / "pid"
    daemon = f"setsid sleep 600 >/dev/null 2>&1 & echo $! > {pid_file}"
    target = Target(name="local", kind="local", root="", python="", setup=(daemon,))
    run = make_run(root, "a", max_retries=1)
    command = ["bash", "-c", f'kill -0 $(cat {pid_file}) && echo "attempt $OELM_ATTEMPT is served"; exit 1']
    script = script_of(root, run, command, "t", target=target)
    launch.launch({"root": str(root), "token": "t", "runs": [{"run_dir": run.run_dir, "token": "t", "script": script}]})
    wait_for_state(run, "FAILED")
    assert (Path(run.run_dir) / rundir.LOG).read_text().splitlines() == [
        f"attempt t:{number} is served" for number in (1, 2)
    ]
    assert processes.start_time_of(int(pid_file.read_text())) == ""


@pytest.mark.slow
def test_a_preferred_port_that_is_taken_is_replaced(root: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = make_run(root, "a", port=port)
        launch_runs(root, [(run, [sys.executable, "-c", "import sys; print(sys.argv[2])", "--master_port", str(port)])])
        wait_for_state(run, "FAILED")
    used = int((Path(run.run_dir) / rundir.LOG).read_text())
    assert used != port
    assert f"port {port} is taken; using {used}" in rundir.control(run.run_dir, rundir.SUPERVISOR_LOG).read_text()


@pytest.mark.slow
def test_a_set_up_that_fails_later_is_not_hidden_by_an_older_end(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("error", "x"))])
    wait_for_state(run, "FAILED")
    script = "#!/bin/bash\necho 'no such module'; exit 1\n"
    launch.launch(
        {"root": str(root), "token": "t2", "runs": [{"run_dir": run.run_dir, "token": "t2", "script": script}]}
    )
    wait_until(lambda: state(run)["reason"] == "ended before training started: no such module", "the newer failure")
    assert state(run)["state"] == "FAILED"


@pytest.mark.slow
def test_what_an_older_launch_said_is_not_taken_for_the_newest(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("error", "x"))])
    wait_for_state(run, "FAILED")
    script = "#!/bin/bash\nread -r < go; exec true\n"
    os.mkfifo(Path(run.run_dir) / "go")
    launch.launch(
        {"root": str(root), "token": "t2", "runs": [{"run_dir": run.run_dir, "token": "t2", "script": script}]}
    )
    assert (state(run)["state"], state(run)["reason"]) == ("QUEUED", "")
    with open(Path(run.run_dir) / "go", "w") as go:
        go.write("\n")
    wait_until(lambda: state(run)["reason"] == "ended before training started", "its end without a word")


@pytest.mark.slow
def test_a_launch_closes_no_descriptor_of_the_process_that_it_is_called_in(root: Path) -> None:
    run = make_run(root, "a")
    receiver, sender = os.pipe()
    try:
        taken = [os.dup(sender) for _ in range(rundir.CLAIM_FD)]  # the claim's own number is among them
        launch_runs(root, [(run, outcome_of("completed"))])
        assert [os.write(handle, b".") for handle in taken] == [1] * len(taken)
    finally:
        for handle in (*taken, receiver, sender):
            os.close(handle)
    wait_for_state(run, "DONE")


@pytest.mark.slow
def test_a_launch_script_is_the_one_shell_of_a_start_that_reads_bash_env(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(root, "a")
    read_by = tmp_path / "read_by"
    (tmp_path / "env").write_text(f'echo "$0" >> {read_by}\n')
    monkeypatch.setenv("BASH_ENV", str(tmp_path / "env"))
    launch_runs(root, [(run, outcome_of("completed"))])
    wait_for_state(run, "DONE")
    assert read_by.read_text().split() == [str(rundir.control(run.run_dir, rundir.SCRIPT))]


@pytest.mark.slow
def test_a_submission_may_have_more_runs_than_low_descriptors(root: Path) -> None:
    runs = [make_run(root, f"r{i}") for i in range(130)]
    script = "#!/bin/bash\nexec sleep 600\n"
    requests = [{"run_dir": run.run_dir, "token": "t", "script": script} for run in runs]
    answer = launch.launch({"root": str(root), "token": "t", "runs": requests})
    assert set(answer["runs"].values()) == {"started"}
    assert all(rundir.is_locked(rundir.control(run.run_dir, rundir.CLAIM)) for run in runs)
    assert all(supervisor_of(run).is_alive() for run in runs)


@pytest.mark.slow
def test_durations_are_measured_by_a_clock_that_nobody_sets_back(root: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        f"import os, time\nreal, flag = time.time, {str(tmp_path / 'back')!r}\n"
        "time.time = lambda: real() - (3600 if os.path.exists(flag) else 0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    run = make_run(root, "a")
    command = outcome_of("completed")
    launch_runs(
        root,
        [(run, [*command[:-1], f"open({str(tmp_path / 'back')!r}, 'w'); import time; time.sleep(2); " + command[-1]])],
    )
    wait_for_state(run, "DONE")
    result = read(Path(run.run_dir) / rundir.RESULT)
    assert result["ended_at"] < result["attempts"][0]["started_at"], "the clock was set back while it ran"
    assert 2 <= result["attempts"][0]["wall_s"] < 600 and result["elapsed_hours"] > 0


@pytest.mark.slow
def test_a_supervisor_is_small_and_sleeps(root: Path) -> None:
    waiting, running = make_run(root, "w"), make_run(root, "r")
    launch_runs(root, [(running, sleeping()), (waiting, sleeping())], sequential=True)
    wait_for_state(running, "RUNNING")
    wait_until(lambda: "waiting" in state(waiting)["reason"], "the second to wait")
    wait_until(lambda: processes.of_run(running.run_dir), "its command to have been started")
    pids = [supervisor_of(run).pid for run in (running, waiting)]

    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    wait_until(lambda: _settled(pids), "them to go to sleep")
    before = [ticks(pid) for pid in pids]
    switches = [_switches(pid) for pid in pids]
    time.sleep(5)
    assert [ticks(pid) for pid in pids] == before, "not one clock tick of work in five seconds"
    assert [_switches(pid) for pid in pids] == switches, "it is not even woken up"
    for pid in pids:
        size = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
        assert int(size.split()[1]) < 25 * 1024, size


def _settled(pids: list[int]) -> bool:
    before = [_switches(pid) for pid in pids]
    time.sleep(1)
    return before == [_switches(pid) for pid in pids]


def _switches(pid: int) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "ctxt_switches" in line]


REPORT = """Step      4 | Loss: 4.1577
RuntimeError: CUDA error: an illegal memory access was encountered
train: process 0: Error: another process of the run has ended
E1126 14:51:29 1 torch/distributed/elastic/multiprocessing/api.py:1] failed (exitcode: -11) local_rank: 0 (pid: 3)
    raise RendezvousConnectionError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Failures:
[1]:
  time      : 2026-11-26_14:51:29
  host      : n1
  rank      : 0 (local_rank: 0)
  exitcode  : 1 (pid: 2)
  error_file: <N/A>
Root Cause (first observed failure):
[0]:
  time      : 2026-11-26_14:51:29
  host      : n2
  rank      : 1 (local_rank: 0)
  exitcode  : -11 (pid: 3)  (SIGSEGV)
  error_file: <N/A>
"""
SAID = ": RuntimeError: CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (REPORT, "process 1 on n2: killed by SIGSEGV" + SAID),
        (REPORT.replace("-11 (pid: 3)", "77 (pid: 3)"), "process 1 on n2: exit code 77" + SAID),
        (REPORT.replace("-11 (pid: 3)", "-40 (pid: 3)"), "process 1 on n2: killed by signal 40" + SAID),
        (REPORT.replace("CUDA error", "CUDA"), "process 1 on n2: killed by SIGSEGV: RuntimeError: CUDA: an illegal"),
        (REPORT.replace("RuntimeError: CUDA error", "oh"), "process 1 on n2: killed by SIGSEGV"),
        (REPORT.replace("-11 (pid: 3)", "1 (pid: 3)"), ""),
        # What failed by itself first counts, not what torchrun killed half a minute later.
        (REPORT.replace("-11 (pid: 3)", "-9 (pid: 3)").replace("29\n  host      : n2", "59\n  host      : n2"), ""),
        (
            REPORT.replace("1 (pid: 2)", "-6 (pid: 2)").replace("29\n  host      : n1", "31\n  host      : n1"),
            "process 1 on n2: killed by SIGSEGV",
        ),
        ("Step      4 | Loss: 4.1577", ""),
    ],
)
def test_the_process_that_failed_first_is_named_from_torchruns_report(report: str, words: str) -> None:
    found = failure.first_failure(report.splitlines())
    assert found.startswith(words) and bool(found) == bool(words)


def test_the_trainers_word_for_a_lost_process_is_the_one_that_the_supervisor_knows() -> None:
    from train.errors import PeerLost

    assert str(PeerLost()) == failure.PEER_LOST


# What an environment brings along -------------------------------------------------------------------------------------


def by_torchrun(project: Path) -> None:
    """Let the study's first group train with two processes."""
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace('model_type = "gpt" }', 'model_type = "gpt", gpus = 2 }'))


@pytest.mark.parametrize(
    ("processes", "leftovers"),
    [
        (2, {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "10.255.0.9"}),  # a pod's, in all its shells
        (1, {"PYTHONSAFEPATH": "1"}),  # Python would not find train/ in the folder that it runs in
        (2, {"PYTHON_EXEC": "/nowhere/python"}),
        (1, {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}),  # a pod's, of several processes
    ],
    ids=lambda given: str(given) if isinstance(given, int) else next(iter(given)),
)
def test_what_is_left_of_another_launcher_does_not_reach_a_run(
    oelm, project: Path, monkeypatch: pytest.MonkeyPatch, processes: int, leftovers: dict[str, str]
) -> None:
    if processes > 1:
        by_torchrun(project)
    for name, value in leftovers.items():
        monkeypatch.setenv(name, value)
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    run_dir = project / "models" / "checkpoints" / "tiny" / "exp_gpt_base"
    assert read(run_dir / rundir.RESULT)["status"] == "DONE"


TAKEN = """
import os, pathlib, socket, sys
port, number = int(sys.argv[2]), int(os.environ["OELM_ATTEMPT"].rpartition(":")[2])
stranger = socket.socket()
if number < int(sys.argv[3]):
    print("torch.distributed.DistNetworkError: The server socket has failed to bind. port:", port, "EADDRINUSE")
    raise SystemExit(1)
"""
"""A launcher that finds its port taken until the attempt of its last argument."""


@pytest.mark.slow
def test_a_port_that_a_stranger_took_costs_another_port_and_none_of_the_retries(root: Path) -> None:
    run = make_run(root, "a", port=29611, max_retries=0)
    completes = outcome_of("completed")[-1]
    launch_runs(root, [(run, [sys.executable, "-c", TAKEN + completes, "--master_port", "29611", "3"])])
    wait_for_state(run, "DONE", "FAILED")
    attempts = read(Path(run.run_dir) / rundir.RESULT)["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["FAILED", "FAILED", "DONE"]
    assert attempts[0]["reason"] == f"port {attempts[0]['port']} was taken by another program"
    assert len({attempt["port"] for attempt in attempts}) == 3, "the one that was lost is not tried again"


@pytest.mark.slow
def test_a_port_that_is_taken_again_and_again_ends_the_run_with_that_reason(root: Path) -> None:
    run = make_run(root, "a", port=29612)
    launch_runs(root, [(run, [sys.executable, "-c", TAKEN, "--master_port", "29612", "99"])])
    row = wait_for_state(run, "FAILED")
    assert row["reason"].endswith("was taken by another program")
    assert len(read(Path(run.run_dir) / rundir.RESULT)["attempts"]) == 1 + supervise.PORT_TRIES


@pytest.mark.slow
def test_words_about_a_port_after_training_began_are_a_crash_like_any_other(root: Path) -> None:
    run = make_run(root, "a")
    program = (
        "import json, os, pathlib; out = pathlib.Path(os.environ['OELM_RUN_DIR']);"
        " (out / 'heartbeat.json').write_text(json.dumps({'attempt': os.environ['OELM_ATTEMPT'], 'step': 5}));"
        " print('OSError: [Errno 98] Address already in use'); raise SystemExit(1)"
    )
    launch_runs(root, [(run, [sys.executable, "-S", "-c", program])])
    wait_for_state(run, "FAILED")
    assert [a["cause"] for a in read(Path(run.run_dir) / rundir.RESULT)["attempts"]] == ["crash"]


def test_a_real_launcher_whose_port_a_stranger_takes_between_look_and_bind_trains_on_another(
    oelm, project: Path
) -> None:
    import socket

    run_dir = project / "models" / "checkpoints" / "tiny" / "exp_gpt_base"
    seen, taken = run_dir / ".oelm" / rundir.START, socket.socket()

    def steal() -> None:
        port = wait_until(lambda: seen.exists() and read(seen)["port"], "the port of the first attempt")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("", port))
        taken.listen()

    by_torchrun(project)
    thief = threading.Thread(target=steal)
    thief.start()
    try:
        oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
        attempts = read(run_dir / rundir.RESULT)["attempts"]
        assert [attempt["state"] for attempt in attempts] == ["FAILED", "DONE"]
        assert "was taken by another program" in attempts[0]["reason"]
    finally:
        thief.join()
        taken.close()


def test_a_port_that_somebody_has_in_the_other_family_alone_is_not_free() -> None:
    import socket

    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        taken.listen()
        assert not ports.port_is_free(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Loading", "/usr/bin/python3: No module named train"], "/usr/bin/python3: No module named train"),
        (["bash: line 1: accelerate: command not found", "bye"], "bash: line 1: accelerate: command not found"),
        (["ValueError: off", "at last"], "ValueError: off"),
        (["it is over"], "it is over"),
        (
            ["no words that are known", "E1129 09:00:00 7 torch/distributed/elastic/multiprocessing/api.py:1] failed"],
            "no words that are known",
        ),
    ],
)
def test_the_telling_line_need_not_hold_the_word_error(lines: list[str], reason: str) -> None:
    assert failure.telling(lines) == reason


@pytest.mark.slow
def test_a_missing_trainer_is_named_as_the_reason(root: Path) -> None:
    run = make_run(root, "a")
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29500"]
    launch_runs(root, [(run, [sys.executable, *launcher, "-m", "no_such_trainer"])])
    assert "No module named no_such_trainer" in wait_for_state(run, "FAILED")["reason"]


@pytest.mark.slow
def test_a_timer_that_fires_while_a_supervisor_ends_does_not_end_it(root: Path) -> None:
    run = make_run(root, "a")
    rundir.control(run.run_dir, "").mkdir(parents=True)
    record = {"run": "a", "run_dir": run.run_dir, "token": "t1", "gpus": 1, "max_retries": 0}
    program = f"""
import atexit, json, signal, sys, time
from oelm_jobs.agent.host import host; from oelm_jobs.agent import run_record, supervise

host.Host.look_s = 0.001
class Slow:  # what an interpreter drops last of all, when it has put the signals' own handlers back
    def __del__(self, sleep=time.sleep):
        sleep(0.5)
sys.modules["kept to the last"] = Slow()
sys.exit(supervise.Supervisor(run_record.RunRecord.of(json.loads({json.dumps(record)!r})), ["true"]).run())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == supervise.EXIT_FAILED, (done.returncode, done.stderr)
