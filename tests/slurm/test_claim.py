"""Who may execute a run on a cluster: exclusive files, whatever happens to them and to the folder that holds them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes, rundir
from oelm_jobs.agent.run import result
from oelm_jobs.agent.slurm import cancel as slurm_cancel
from oelm_jobs.agent.slurm import claim as slurm_claim
from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.transfer import inventory
from tests.slurm.recorded import NAME, NO_CONTROLLER, fails, prints, queue_line
from tests.support import REPOSITORY, read


def owner(job: str = "1", **changes: Any) -> slurm_claim.Owner:
    made = slurm_claim.Owner(job, 0, "tiny.oelm-1.0", "oelm-1", processes.identify(os.getpid()), 1.0)
    return replace(made, **changes)


def elsewhere(made: slurm_claim.Owner) -> slurm_claim.Owner:
    """Return the owner as a supervisor on another node would be it."""
    return replace(made, identity=replace(made.identity, host="n9", pid=7))


@pytest.fixture
def run_dir(tmp_path: Path) -> str:
    (tmp_path / "exp_a" / ".oelm").mkdir(parents=True)
    return str(tmp_path / "exp_a")


def take(run_dir: str, made: slurm_claim.Owner) -> slurm_claim.Claim:
    return slurm_claim.take(run_dir, made, lambda words: None)


def test_a_claim_of_the_same_number_in_a_new_folder_of_the_same_name_is_another_one(run_dir: str) -> None:
    mine = take(run_dir, owner())
    assert mine.is_held()
    shutil.rmtree(run_dir)
    Path(run_dir, ".oelm").mkdir(parents=True)
    assert not mine.is_held(), "its folder is another one now"
    take(run_dir, elsewhere(owner("2")))
    assert not mine.is_held()


def test_a_folder_that_is_away_for_a_moment_takes_no_claim_and_one_that_stays_away_does(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = take(run_dir, owner())
    os.rename(run_dir, run_dir + ".moved")
    assert mine.is_held()
    os.rename(run_dir + ".moved", run_dir)
    assert mine.is_held()
    os.rename(run_dir, run_dir + ".moved")
    assert mine.is_held()
    monkeypatch.setattr(slurm_claim, "GONE_S", 0.0)
    assert not mine.is_held()


RACER = """
import fcntl, os, sys
from oelm_jobs.agent import processes, rundir; from oelm_jobs.agent.slurm import claim as slurm_claim

newest = slurm_claim.newest

def together(run_dir):
    found = newest(run_dir)
    print("looked", flush=True)
    with open(sys.argv[2]) as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
    return found

slurm_claim.newest = together
owner = slurm_claim.Owner("7", 0, "tiny.oelm-1.0", "oelm-1", processes.identify(os.getpid()), 1.0)
try:
    slurm_claim.take(sys.argv[1], owner, lambda words: None)
    print("has it", flush=True)
except rundir.Busy:
    print("busy", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_of_many_that_saw_the_same_claim_released_one_gets_the_run(run_dir: str, tmp_path: Path) -> None:
    take(run_dir, elsewhere(owner())).release()
    racers: list[subprocess.Popen[str]] = []
    try:
        with open(tmp_path / "gate", "w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            for _ in range(8):
                argv = [sys.executable, "-S", "-c", RACER, run_dir, gate.name]
                pipe = subprocess.PIPE
                racers.append(subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY))
            for racer in racers:
                assert racer.stdout is not None and racer.stdout.readline() == "looked\n"
        said = [next(line for line in racer.stdout or () if line != "looked\n") for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert sorted(said) == ["busy\n"] * 7 + ["has it\n"]


def test_an_exclusive_file_whose_making_lost_its_answer_is_known_as_ones_own(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def made_and_lost(source: str, place: str) -> None:
        link(source, place)
        raise FileExistsError(place)  # what a retransmitted request is answered (open(2), O_EXCL)

    monkeypatch.setattr(os, "link", made_and_lost)
    assert rundir.create(Path(run_dir, "x"), {"mine": True})
    monkeypatch.setattr(os, "link", link)
    assert not rundir.create(Path(run_dir, "x"), {"mine": False})
    assert read(Path(run_dir, "x")) == {"mine": True}


def test_moving_aside_needs_no_flock_and_gives_way_to_who_may_live(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(rundir.fcntl, "flock", no_flock)
    said = {"answer": slurm_claim.Ended(False, "job 1 executes this run")}
    monkeypatch.setattr(slurm_claim, "job_has_ended", lambda owner: said["answer"])
    mine = take(run_dir, elsewhere(owner()))
    busy = {"moved": {}, "busy": [run_dir], "gpu_hours": {}}
    assert slurm_cancel.slurm_archive({"run_dirs": [run_dir]}) == busy
    said["answer"] = slurm_claim.Ended(None, "squeue: no", is_untold=True)
    with pytest.raises(slurm_commands.SlurmError, match="squeue: no"):
        slurm_cancel.slurm_archive({"run_dirs": [run_dir]})
    mine.release()
    Path(run_dir, ".oelm", "slurm-claim.2").write_text("half of a cl")
    assert slurm_cancel.slurm_archive({"run_dirs": [run_dir]})["busy"] == [run_dir], "an owner that can't be read"
    Path(run_dir, ".oelm", "slurm-claim.2").unlink()
    moved = slurm_cancel.slurm_archive({"run_dirs": [run_dir, run_dir + "-none"]})["moved"]
    assert list(moved) == [run_dir] and os.path.isdir(moved[run_dir]) and not os.path.exists(run_dir)


def test_a_job_that_starts_while_a_folder_is_moved_aside_waits_for_it(
    run_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm_claim.take_for_archive(run_dir) is not None
    assert slurm_claim.take_for_archive(run_dir) is None, "one at a time"
    heard: list[str] = []
    monkeypatch.setattr(slurm_claim, "LOOK_S", 0.01)
    monkeypatch.setattr(slurm_claim, "PATIENCE_S", 0.1)
    with pytest.raises(slurm_claim.Unanswered, match="being archived"):
        slurm_claim.take(run_dir, owner(), heard.append)
    assert heard == ["waiting: its directory is being archived"]
    monkeypatch.setattr(slurm_claim, "ARCHIVING_S", 0.0)  # who archived was killed in it
    assert take(run_dir, owner()).is_held()


@pytest.mark.parametrize(
    ("lines", "ended"),
    [
        (prints(queue_line("RUNNING")), False),
        (prints(queue_line("SUSPENDED")), False),
        (prints(queue_line("CONFIGURING")), False),
        (prints(queue_line("COMPLETING")), None),
        (prints(queue_line("COMPLETED")), True),
        (prints(queue_line("PENDING")), True),
        (prints(queue_line("REQUEUE_HOLD")), True),
        (prints(queue_line("RUNNING", name="b.other.0")), True),
        (prints(queue_line("COMPLETING", name="b.other.0")), True),
        (prints(queue_line("RUNNING", task="1")), True),
        (prints(""), True),
        (fails("slurm_load_jobs error: Invalid job id specified"), True),
        (NO_CONTROLLER, None),
    ],
)
def test_whether_a_claims_owner_has_ended_is_slurms_word_on_its_id_and_name(
    instead: Callable[[str, str], None], no_cluster: None, lines: str, ended: bool | None
) -> None:
    instead("squeue", lines)
    assert slurm_claim.job_has_ended(owner("7", name=NAME))[0] is ended


def test_a_job_of_another_cluster_on_the_same_disk_is_not_taken_for_ended(
    run_dir: str, instead: Callable[[str, str], None], no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead("squeue", fails("slurm_load_jobs error: Invalid job id specified"))
    take(run_dir, elsewhere(owner("7", cluster="big")))
    monkeypatch.setattr(slurm_claim, "PATIENCE_S", 0.0)
    monkeypatch.setattr(slurm_claim, "LOOK_S", 0.0)
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "small")
    words = "job 7 of cluster big lives can't be found out on cluster small"
    with pytest.raises(slurm_claim.Unanswered, match=words):
        take(run_dir, owner("7"))
    monkeypatch.delenv("SLURM_CLUSTER_NAME")  # a login node asks
    instead("scontrol", prints("ClusterName             = small"))
    with pytest.raises(slurm_commands.SlurmError, match=words):
        slurm_claim.take_for_archive(run_dir)
    instead("scontrol", prints("ClusterName             = big"))
    assert take(run_dir, owner("8")).is_held()


def test_a_run_whose_node_was_lost_is_free_once_slurm_says_so(
    run_dir: str, instead: Callable[[str, str], None], no_cluster: None
) -> None:
    lost = take(run_dir, elsewhere(owner("7", name=NAME)))
    instead("squeue", prints(queue_line("RUNNING")))
    assert not slurm_claim.is_free(run_dir)
    instead("squeue", NO_CONTROLLER)
    assert not slurm_claim.is_free(run_dir), "nobody knows"
    instead("squeue", prints(queue_line("NODE_FAIL")))
    assert slurm_claim.is_free(run_dir)
    assert take(run_dir, owner("8")).is_held() and not lost.is_held(), "should its node come back, it ends itself"


def test_only_what_the_client_has_is_removed_whatever_manifest_an_older_attempt_left(
    run_dir: str, no_cluster: None
) -> None:
    best = Path(run_dir, "best_model.pt")

    def remove_new() -> list[str]:
        best.write_bytes(b"new weights")
        entry = [11, result.sha256(best)]
        answer = inventory.remove(
            {"root": str(Path(run_dir).parent), "runs": [{"run_dir": run_dir, "files": {best.name: entry}}]}
        )
        removed: list[str] = answer["runs"][run_dir]["removed"]
        return removed

    def write(state: str, attempts: int) -> None:
        record = {"state": state, "token": "oelm-1", "attempts": [{"number": n + 1} for n in range(attempts)]}
        rundir.write_json(rundir.control(run_dir, rundir.END), record)

    assert remove_new() == [best.name], "no manifest: its own hash"
    best.write_bytes(b"old weights")
    old = {"name": best.name, "size": 11, "sha256": result.sha256(best)}
    files = {
        "root": str(Path(run_dir).parent),
        "runs": [{"run_dir": run_dir, "files": {best.name: [old["size"], old["sha256"]]}}],
    }
    rundir.write_json(rundir.control(run_dir, rundir.START), {"number": 1})
    write("CANCELLED", 1)
    rundir.write_json(Path(run_dir, rundir.MANIFEST), {"files": [old]})
    rundir.write_json(rundir.control(run_dir, rundir.START), {"number": 2})
    best.write_bytes(b"new weights")  # of an attempt whose node was lost: it left no manifest of its own
    assert inventory.remove(files)["runs"][run_dir]["kept"] == {best.name: "is not what was fetched"}
    os.utime(best, (1, 1))
    assert inventory.remove(files)["runs"][run_dir]["removed"] == [], "a clock that went back makes no difference"
    assert remove_new() == [best.name], "nor does that manifest keep what was fetched since"
    best.write_bytes(b"old weights")
    assert inventory.remove(files)["runs"][run_dir]["removed"] == [best.name]
