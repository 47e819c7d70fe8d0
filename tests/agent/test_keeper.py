"""What waits on a plain host: one process holds the claims of a submission's runs and starts them in turn."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes, rundir
from oelm_jobs.agent.host import cancel, keeper, launch, lease
from oelm_jobs.spec.study import Run
from tests.support import (
    REPOSITORY,
    launch_runs,
    make_run,
    outcome_of,
    random_moment,
    read,
    script_of,
    sleeping,
    stand_in_for_nvidia_smi,
    state,
    wait_for_state,
    wait_until,
)


@pytest.fixture(autouse=True)
def one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host have one device."""
    stand_in_for_nvidia_smi(tmp_path, monkeypatch, "echo '0, GPU-uuid-0, NVIDIA RTX A5000, 24564, 12, 0'")


def runs_of(root: Path, count: int, **changes: Any) -> list[Run]:
    return [make_run(root, f"r{number:03d}", **changes) for number in range(count)]


def noting(root: Path, run: Run) -> list[str]:
    """Return a command that notes its start in a journal and completes."""
    *python, program = outcome_of("completed")
    note = f"import os; fd = os.open({str(root / 'journal')!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT);"
    return [*python, f"{note} os.write(fd, b'{run.name}\\n'); {program}"]


def journal(root: Path) -> list[str]:
    path = root / "journal"
    return path.read_text().split() if path.exists() else []


def claim_of(run: Run) -> dict[str, Any]:
    return read(rundir.control(run.run_dir, rundir.CLAIM))


def kept(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose claims a keeper holds."""
    return [run for run, _ in _kept(runs)]


def keepers_of(runs: Sequence[Run]) -> set[int]:
    """Return the pids of the keepers that hold claims of runs."""
    return {claim["pid"] for _, claim in _kept(runs)}


def _kept(runs: Sequence[Run]) -> list[tuple[Run, dict[str, Any]]]:
    """Return runs with their claims, each read once: it may pass to the run's own supervisor the next moment."""
    claims = [(run, claim_of(run)) for run in runs if rundir.is_locked(rundir.control(run.run_dir, rundir.CLAIM))]
    return [(run, claim) for run, claim in claims if claim.get("keeper")]


def standing(runs: Sequence[Run]) -> list[Run]:
    """Return the runs that wait for devices themselves."""
    return [run for run in runs if rundir.control(run.run_dir, rundir.WAITING).exists()]


FEW = 1 + keeper.STANDING


def settled(runs: Sequence[Run]) -> Run:
    """Wait until one of the first runs, whichever was faster, trains and the others stand in line; return it."""

    def one() -> Run | None:
        (found,) = [run for run in runs[:FEW] if state(run)["state"] == "RUNNING"] or [None]
        return found if found and standing(runs) == [run for run in runs[:FEW] if run is not found] else None

    run: Run = wait_until(one, "one to run and the next ones to stand in line")
    return run


@pytest.mark.slow
def test_what_waits_is_held_by_one_process(root: Path) -> None:
    runs = runs_of(root, 12)
    launch_runs(root, [(run, sleeping()) for run in runs])
    settled(runs)
    assert kept(runs) == runs[FEW:]
    (pid,) = keepers_of(runs)
    assert {identity.pid for identity in processes.descendants_of(pid)} >= {claim_of(run)["pid"] for run in runs[:FEW]}
    row = state(runs[-1])
    assert (row["state"], row["reason"]) == ("QUEUED", "waiting behind other runs of its submission")
    before = cpu_time(pid)
    time.sleep(1.5)
    assert cpu_time(pid) == before, "it sleeps"


def cpu_time(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]


@pytest.mark.slow
def test_all_are_started_in_their_order_and_once(root: Path) -> None:
    runs = runs_of(root, 10)
    launch_runs(root, [(run, noting(root, run)) for run in runs])
    for run in runs:
        wait_for_state(run, "DONE")
    places = [runs.index(run) - journal(root).index(run.name) for run in runs]
    assert len(journal(root)) == len(runs) and max(map(abs, places)) < FEW, "only such as start together may overtake"


@pytest.mark.slow
def test_a_lane_goes_on_past_a_run_that_was_cancelled_while_it_waited(root: Path) -> None:
    runs = runs_of(root, 5)
    commands = [sleeping(), *(noting(root, run) for run in runs[1:])]
    launch_runs(root, list(zip(runs, commands, strict=True)), sequential=True)
    wait_until(lambda: standing(runs) == [runs[1]], "the second one to wait for the first")
    assert [state(run)["reason"] for run in runs[1:]] == [f"waiting for {run.name} to end" for run in runs[:-1]]
    assert cancel.cancel({"run_dirs": [runs[2].run_dir]})["runs"] == {runs[2].run_dir: "cancelled"}
    cancel.cancel({"run_dirs": [runs[0].run_dir]})
    for run in (runs[1], *runs[3:]):
        wait_for_state(run, "DONE")
    assert state(runs[2])["state"] == "CANCELLED"
    assert journal(root) == [runs[1].name, runs[3].name, runs[4].name]


@pytest.mark.slow
def test_what_comes_after_a_run_that_was_cancelled_while_it_waited_stops_where_it_should(root: Path) -> None:
    runs = runs_of(root, 4)
    end = {"version": 1, "token": "t0", "state": "DONE", "reason": "", "attempts": [], "fingerprint": "e" * 64}
    launch_runs(root, [(run, sleeping()) for run in runs], sequential=True, stop_on_failure=True)
    wait_until(lambda: standing(runs) == [runs[1]], "the second one to wait for the first")
    # It was longer once, and what it was before is done.
    rundir.write_json(rundir.control(runs[2].run_dir, rundir.END), end)
    cancel.cancel({"run_dirs": [runs[2].run_dir]})
    rundir.write_json(rundir.control(runs[1].run_dir, rundir.CANCEL), {})
    os.kill(claim_of(runs[1])["pid"], signal.SIGTERM)
    os.kill(claim_of(runs[0])["pid"], signal.SIGTERM)
    assert wait_for_state(runs[3], "CANCELLED", "RUNNING")["state"] == "CANCELLED"


@pytest.mark.slow
def test_a_run_that_waits_is_cancelled_at_once_and_no_other(root: Path) -> None:
    runs = runs_of(root, 9)
    launch_runs(root, [(run, sleeping()) for run in runs])
    settled(runs)
    mine, others = [runs[5], runs[8]], [runs[6], runs[7]]
    answer = cancel.cancel({"run_dirs": [run.run_dir for run in mine]})["runs"]
    assert answer == {run.run_dir: "cancelled" for run in mine}
    assert {(state(run)["state"], state(run)["code"]) for run in mine} == {("CANCELLED", "cancelled_before_start")}
    assert kept(runs) == [runs[4], *others]
    cancel.cancel({"run_dirs": [run.run_dir for run in runs if run not in (*mine, others[0])]})
    wait_for_state(others[0], "RUNNING")
    assert launch_runs(root, [(mine[0], sleeping())], token="t2")["runs"] == {mine[0].run_dir: "started"}
    assert state(mine[0])["state"] == "QUEUED"


@pytest.mark.slow
def test_a_cancel_of_all_starts_none_of_those_that_waited(root: Path) -> None:
    runs = runs_of(root, 8)
    launch_runs(root, [(run, noting(root, run) if run in runs[FEW:] else sleeping()) for run in runs])
    random_moment()
    answer = cancel.cancel({"run_dirs": [run.run_dir for run in runs]})["runs"]
    assert set(answer.values()) == {"cancelled"}
    assert {state(run)["state"] for run in runs} == {"CANCELLED"} and not journal(root)


@pytest.mark.slow
def test_what_a_killed_keeper_had_waiting_is_lost_and_goes_on_when_it_is_submitted_again(root: Path) -> None:
    runs = runs_of(root, 8)
    launch_runs(root, [(run, sleeping()) for run in runs])
    settled(runs)
    waiting = kept(runs)
    os.kill(claim_of(waiting[0])["pid"], signal.SIGKILL)
    for run in waiting:
        assert wait_for_state(run, "FAILED")["reason"] == "supervisor lost while it was waiting: submit again"
    assert sorted(state(run)["state"] for run in runs[:FEW]) == ["QUEUED"] * keeper.STANDING + ["RUNNING"]
    answer = launch_runs(root, [(run, sleeping()) for run in runs], token="t2")["runs"]
    assert answer == {run.run_dir: "started" if run in waiting else "busy" for run in runs}
    assert {state(run)["state"] for run in waiting} == {"QUEUED"}


@pytest.mark.slow
def test_whatever_is_killed_when_no_run_is_started_twice(root: Path) -> None:
    runs = runs_of(root, 12)
    for number in range(4):
        left = [run for run in runs if run.name not in journal(root)]
        launch_runs(root, [(run, noting(root, run)) for run in left], token=f"t{number}")
        random_moment(2.0)
        for pid in keepers_of(runs):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(state(run)["state"] in ("RUNNING", "QUEUED") for run in runs), "what was started")
    launch_runs(root, [(run, noting(root, run)) for run in runs if run.name not in journal(root)], token="last")
    for run in runs:
        wait_for_state(run, "DONE")
    assert sorted(journal(root)) == [run.name for run in runs]


@pytest.mark.slow
def test_a_cancel_of_a_run_whose_keeper_is_stopped_harms_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "PATIENCE_S", 1.0)
    runs = runs_of(root, 7)
    launch_runs(root, [(run, noting(root, run) if run in runs[FEW:] else sleeping()) for run in runs])
    settled(runs)
    pid = claim_of(runs[5])["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert cancel.cancel({"run_dirs": [runs[5].run_dir]})["runs"] == {runs[5].run_dir: "cancelled"}
    assert kept(runs) == runs[FEW:], "the kernel has not let go of it"
    assert (state(runs[5])["state"], state(runs[5])["code"]) == ("CANCELLED", "cancelled_before_start")
    assert {state(run)["code"] for run in (runs[4], runs[6])} == {"waiting_for_turn"}
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: kept(runs) == [runs[4], runs[6]], "the keeper to let go of it")
    cancel.cancel({"run_dirs": [run.run_dir for run in runs[:FEW]]})
    for run in (runs[4], runs[6]):
        wait_for_state(run, "DONE")
    assert sorted(journal(root)) == [runs[4].name, runs[6].name]


@pytest.mark.slow
def test_a_keeper_that_hangs_is_ended_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancel, "PATIENCE_S", 1.0)
    runs = runs_of(root, 6)
    launch_runs(root, [(run, sleeping()) for run in runs])
    settled(runs)
    os.kill(claim_of(runs[5])["pid"], signal.SIGSTOP)
    for run in runs[FEW:]:
        assert cancel.cancel({"run_dirs": [run.run_dir]})["runs"] == {run.run_dir: "cancelled"}
        assert state(run)["state"] == "CANCELLED"
    assert not kept(runs), "it goes with the last of its runs"
    assert sorted(state(run)["state"] for run in runs[:FEW]) == ["QUEUED"] * keeper.STANDING + ["RUNNING"]


@pytest.mark.slow
def test_a_cancel_that_meets_a_run_as_it_is_handed_on_is_not_lost(root: Path) -> None:
    """The claim still named the keeper when it was looked at, and the run's supervisor has begun since."""
    runs = runs_of(root, 7)
    launch_runs(root, [(run, sleeping()) for run in runs])
    settled(runs)
    run = standing(runs)[0]
    rundir.write_json(rundir.control(run.run_dir, rundir.CANCEL), {})
    os.kill(claim_of(runs[6])["pid"], signal.SIGTERM)
    assert wait_for_state(run, "CANCELLED")["code"] == "while_waiting"


LAUNCH = """
import json, resource, sys
from tests.support import launch_runs, make_run, sleeping
from pathlib import Path
root, hard, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (230, hard))
runs = [make_run(root, f"r{number:03d}") for number in range(count)]
command = [sys.executable, "-S", "-c", "import resource, time; "
           "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], flush=True); time.sleep(600)"]
print(json.dumps(launch_runs(root, [(run, command) for run in runs])["runs"]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("hard", "keepers"), [(1024, 1), (280, 2)])
def test_of_more_runs_than_descriptors_several_processes_hold_the_claims(root: Path, hard: int, keepers: int) -> None:
    runs = runs_of(root, 150)
    argv = [sys.executable, "-c", LAUNCH, str(root), str(hard), str(len(runs))]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert json.loads(done.stdout) == {run.run_dir: "started" for run in runs}, done.stderr
    assert all(rundir.is_locked(rundir.control(run.run_dir, rundir.CLAIM)) for run in runs)
    trained = wait_until(lambda: [run for run in runs if state(run)["state"] == "RUNNING"], "one to run")[0]
    wait_until(lambda: len(standing(runs)) == keeper.STANDING * keepers, "the next ones to stand in line")
    assert len(keepers_of(runs)) == keepers
    log = Path(trained.run_dir) / rundir.LOG
    assert wait_until(lambda: log.exists() and log.read_text(), "the command's limit") == "230\n"


def test_a_keeper_that_is_not_told_everything_starts_nothing(root: Path) -> None:
    run = make_run(root, "a")
    control = rundir.control(run.run_dir, "")
    control.mkdir(parents=True)
    (control / rundir.SCRIPT).write_text(script_of(root, run, noting(root, run), "t"))
    handle = rundir.lock(control / rundir.CLAIM)
    told = json.dumps([1024, [[run.run_dir, "t", handle, time.time(), "1", None]]])
    argv = [sys.executable, "-I", "-S", "-c", keeper.PROGRAM % keeper.__name__, str(REPOSITORY)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, pass_fds=[handle]) as process:
        os.close(handle)
        process.communicate(told[:-1].encode())
    assert process.returncode and not rundir.is_locked(control / rundir.CLAIM) and not journal(root)
    assert not (control / rundir.SUPERVISOR_LOG).exists()


# Runs that need others ------------------------------------------------------------------------------------------------


def needing(root: Path, runs: Sequence[Run], met: Run, needed: Sequence[Run]) -> None:
    """Submit runs that need others, which were submitted before, and one that was over then; each notes that it ran."""
    need = {"study": "s", "when": "success"}
    needs = [{**need, "run": met.name, "run_dir": met.run_dir}]
    needs += [{**need, "run": run.name, "run_dir": run.run_dir, "token": "t"} for run in needed]
    requests = [
        {"run_dir": run.run_dir, "token": "t1", "script": script_of(root, run, noting(root, run), "t1", needs=needs),
         "gpus": run.gpus, "needs": [each.run_dir for each in needed]}
        for run in runs
    ]  # fmt: skip
    launch.launch({"root": str(root), "token": "t1", "runs": requests})


def over(root: Path, name: str) -> Run:
    """Return a run that is done."""
    run = make_run(root, name)
    rundir.control(run.run_dir, "").mkdir(parents=True)
    rundir.control(run.run_dir, rundir.CLAIM).touch()
    end = {"version": 1, "token": "t", "state": "DONE", "reason": "", "attempts": []}
    rundir.write_json(rundir.control(run.run_dir, rundir.END), end)
    return run


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 200])
def test_a_claim_takes_no_more_than_a_page_however_many_runs_are_needed(root: Path, count: int) -> None:
    needed, runs = [over(root, f"n{number:03d}") for number in range(count)], runs_of(root, 2)
    last, met = rundir.lock(rundir.control(needed[-1].run_dir, rundir.CLAIM)), over(root, "met")
    again = rundir.lock(rundir.control(met.run_dir, rundir.CLAIM))  # somebody runs it again, which nobody waits for
    needing(root, runs, met, needed)
    assert len(kept(runs)) == 2
    for run in runs:
        claim = rundir.control(run.run_dir, rundir.CLAIM).read_bytes()
        assert len(claim) <= rundir.CLAIM_BYTES and (b"n000" in claim) == (count == 2)
        row = state(run)
        assert (row["state"], row["reason"]) == ("QUEUED", f"waiting for {needed[-1].name}, which it needs")
    os.close(last)
    for run in runs:
        wait_for_state(run, "DONE")
    os.close(again)
    assert sorted(journal(root)) == [run.name for run in runs], "each once"


def test_what_thousands_need_is_looked_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = over(root, "needed")
    runs = [keeper.Held(f"/exp_{place}", "t1", -1, 0.0, "1", None, (needed.run_dir,)) for place in range(1000)]
    handle, looked, is_locked = rundir.lock(rundir.control(needed.run_dir, rundir.CLAIM)), [], rundir.is_locked
    monkeypatch.setattr(rundir, "is_locked", lambda path: bool(looked.append(str(path))) or is_locked(path))
    waiting = keeper.Keeper(runs, {}, -1, -1)
    assert waiting._start_what_is_due({}) == keeper.NEEDED_S
    assert looked == [str(rundir.control(needed.run_dir, rundir.CLAIM))] and waiting.waiting() == runs
    os.close(handle)


# Submissions of one run each ------------------------------------------------------------------------------------------


def one_by_one(root: Path, runs: Sequence[Run]) -> None:
    """Submit runs by themselves: the first trains until it is cancelled, and the others note that they ran."""
    for number, run in enumerate(runs):
        launch_runs(root, [(run, noting(root, run) if number else sleeping())], token=f"t{number}")
        wait_until(lambda run=run: state(run)["state"] == "RUNNING" or standing([run]), "it to run or stand in line")


def program_of(run: Run) -> str:
    """Return the name of the program that holds a run's claim."""
    return Path(f"/proc/{claim_of(run)['pid']}/comm").read_text().strip()


@pytest.mark.slow
def test_who_waits_far_behind_takes_next_to_no_memory_and_goes_on_as_the_same_process(root: Path) -> None:
    runs = runs_of(root, 9)
    one_by_one(root, runs)
    far = runs[1 + lease.FAR :]
    wait_until(lambda: {program_of(run) for run in far} == {"flock"}, "those behind to wait in a small program")
    assert "flock" not in {program_of(run) for run in runs[: 1 + lease.FAR]}, "the next ones are ready"
    assert {(state(run)["state"], state(run)["code"]) for run in far} == {("QUEUED", "waiting_behind")}
    memory = Path(f"/proc/{claim_of(far[0])['pid']}/smaps_rollup").read_text()
    assert int(memory.partition("Pss:")[2].split()[0]) < 2000, memory
    pids = [claim_of(run)["pid"] for run in runs]
    cancelled, killed = far[1], far[2]
    assert cancel.cancel({"run_dirs": [cancelled.run_dir]})["runs"] == {cancelled.run_dir: "cancelled"}
    assert (state(cancelled)["state"], state(cancelled)["code"]) == ("CANCELLED", "cancelled_before_start")
    os.kill(claim_of(killed)["pid"], signal.SIGKILL)
    assert wait_for_state(killed, "FAILED")["code"] == "lost_waiting"
    cancel.cancel({"run_dirs": [runs[0].run_dir]})
    done = [run for run in runs[1:] if run not in (cancelled, killed)]
    for run in done:
        wait_for_state(run, "DONE")
    assert journal(root) == [run.name for run in done], "each once, in their order"
    assert [claim_of(run)["pid"] for run in runs] == pids
    assert read(rundir.control(done[-1].run_dir, rundir.END))["token"] == f"t{len(runs) - 1}"


@pytest.mark.slow
def test_what_a_run_needed_and_had_before_it_stood_in_line_is_not_asked_for_again(root: Path) -> None:
    needed, runs = over(root, "needed"), runs_of(root, 3 + lease.FAR)
    one_by_one(root, runs[:-1])
    last, need = runs[-1], {"study": "s", "run": "needed", "run_dir": needed.run_dir, "token": "t", "when": "success"}
    launch_runs(root, [(last, noting(root, last))], token="its", needs=[need])
    wait_until(lambda: standing([last]) and program_of(last) == "flock", "it to wait in a small program")
    end = rundir.control(needed.run_dir, rundir.END)
    rundir.write_json(end, {**read(end), "state": "FAILED"})  # somebody ran it again
    cancel.cancel({"run_dirs": [runs[0].run_dir]})
    assert wait_for_state(last, "DONE", "CANCELLED")["state"] == "DONE"


@pytest.mark.slow
def test_however_often_its_wait_begins_anew_it_holds_no_more_than_at_first(root: Path) -> None:
    runs = runs_of(root, 8)
    one_by_one(root, runs)
    last, counts = runs[-1], []
    for ahead in range(len(runs) - 1 - lease.FAR, 1, -1):
        # It waits for the third one ahead of it; with that cancelled, for another.
        # The program opens the ticket itself, too, a moment after it has begun.
        of_it = f"-t{ahead}-"
        wait_until(lambda word=of_it: sum(word in path for path in files_of(last)) == 2, f"it to wait for r{ahead:03d}")
        counts.append(len(files_of(last)))
        cancel.cancel({"run_dirs": [runs[ahead].run_dir]})
    assert len(counts) == 3 and len(set(counts)) == 1, counts


def files_of(run: Run) -> list[str]:
    """Return what the descriptors lead to of the program in which a run waits far behind; none while it is another."""
    folder = Path(f"/proc/{claim_of(run)['pid']}/fd")
    with contextlib.suppress(FileNotFoundError):  # a descriptor that was there
        found = [os.readlink(path) for path in folder.iterdir()]
        return found if program_of(run) == "flock" else []
    return []


@pytest.mark.slow
def test_who_waits_far_behind_for_another_submission_still_makes_room_for_its_own(root: Path) -> None:
    runs = runs_of(root, 13)
    launch_runs(root, [(runs[0], sleeping())])
    wait_for_state(runs[0], "RUNNING")
    for number, theirs in enumerate((runs[1:7], runs[7:])):
        launch_runs(root, [(run, noting(root, run)) for run in theirs], token=f"of{number}")
        wait_until(lambda theirs=theirs: len(standing(theirs)) == keeper.STANDING, "some of them to stand in line")
    wait_until(lambda: "flock" in {program_of(run) for run in standing(runs[7:])}, "one to wait in a small program")
    cancel.cancel({"run_dirs": [runs[0].run_dir]})
    for run in runs[1:]:
        wait_for_state(run, "DONE")
    assert sorted(journal(root)) == [run.name for run in runs[1:]]


@pytest.mark.slow
def test_where_there_is_no_such_program_all_wait_themselves(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "flock").write_text('#!/bin/sh\necho "unrecognized option: no-fork" >&2; exit 1\n')
    (tmp_path / "other" / "flock").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'other'}:{os.environ['PATH']}")
    runs = runs_of(root, 6)
    one_by_one(root, runs)
    assert "flock" not in {program_of(run) for run in runs}
    cancel.cancel({"run_dirs": [runs[-1].run_dir]})
    assert state(runs[-1])["code"] == "while_waiting", "its supervisor is there"
    cancel.cancel({"run_dirs": [runs[0].run_dir]})
    for run in runs[1:-1]:
        wait_for_state(run, "DONE")
