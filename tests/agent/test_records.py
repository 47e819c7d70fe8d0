"""What a run's records say of its past: when it was submitted, what lost attempts cost, which submission began it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import processes, record_types, records, rundir
from oelm_jobs.agent.host import cancel
from oelm_jobs.agent.run import result
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from oelm_jobs.spec.study import Run
from tests.support import kill, launch_runs, make_run, outcome_of, read, script_of, sleeping, wait_for_state, wait_until


def lose(run: Run) -> None:
    """Kill a run's supervisor and all its processes, as a power cut would."""
    survivors = wait_until(lambda: processes.of_run(run.run_dir), "its process")
    supervisor = processes.Identity.from_json(read(rundir.control(run.run_dir, rundir.CLAIM)))
    assert supervisor is not None
    kill((supervisor, *survivors))
    wait_for_state(run, "FAILED")


def result_of(run: Run) -> dict[str, Any]:
    wait_for_state(run, "DONE")
    return read(Path(run.run_dir) / rundir.RESULT)


@pytest.mark.slow
def test_queued_at_is_the_submission_however_long_the_lane_was(root: Path) -> None:
    before, run = make_run(root, "a"), make_run(root, "b")
    launch_runs(root, [(before, sleeping(3.0)), (run, outcome_of("completed"))], sequential=True)
    submitted_at = read(root / ".oelm" / "submissions" / "t1.json")["time"]
    known = result_of(run)
    assert abs(known["queued_at"] - submitted_at) < 0.01
    assert known["started_at"] - known["queued_at"] >= 3.0


@pytest.mark.slow
def test_queued_at_stays_the_first_submissions_when_a_run_goes_on(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, sleeping())])
    lose(run)
    launch_runs(root, [(run, outcome_of("completed"))], token="t2")
    known = result_of(run)
    assert abs(known["queued_at"] - read(root / ".oelm" / "submissions" / "t1.json")["time"]) < 0.01
    assert known["queued_at"] <= known["started_at"]


@pytest.mark.slow
def test_attempts_whose_supervisors_were_lost_count_until_their_last_sign_of_life(root: Path) -> None:
    run = make_run(root, "a")
    log = Path(run.run_dir) / rundir.LOG
    spent = 0.0
    for number, token in enumerate(("t1", "t2"), start=1):
        launch_runs(root, [(run, [sys.executable, "-S", "-c", "print(1, flush=True); import time; time.sleep(600)"])],
                    token=token)  # fmt: skip
        wait_until(lambda least=number: log.exists() and log.read_text().count("1") == least, "a sign of life")
        lose(run)
        began_at = read(rundir.control(run.run_dir, rundir.START))["started_at"]
        start = rundir.control(run.run_dir, rundir.START)
        start.write_text(json.dumps({**read(start), "started_at": began_at - 7200}))
        os.utime(log, (began_at, began_at - 7200 + 900.0 * number))
        spent += 900.0 * number
    launch_runs(root, [(run, outcome_of("completed"))], token="t3")
    known = result_of(run)
    first, second, third = known["attempts"]
    assert [round(a["wall_s"]) for a in (first, second)] == [900, 1800], "no loss hides the one before it"
    assert first["ended_at"] == pytest.approx(first["started_at"] + 900.0)
    assert known["elapsed_hours"] == pytest.approx((spent + third["wall_s"]) / 3600, abs=1e-4)
    assert known["gpu_hours"] == 0.0, "a slot of a processor is none"


@pytest.mark.slow
def test_a_crash_before_a_loss_is_not_forgotten_with_it(root: Path, tmp_path: Path) -> None:
    run, mark = make_run(root, "a", max_retries=1), tmp_path / "crashed"
    program = f"import os, time; os.path.exists({str(mark)!r}) and time.sleep(600); open({str(mark)!r}, 'w'); 1 / 0"
    launch_runs(root, [(run, [sys.executable, "-S", "-c", program])])
    start = rundir.control(run.run_dir, rundir.START)
    wait_until(lambda: start.exists() and read(start)["number"] == 2, "the second attempt")
    lose(run)
    launch_runs(root, [(run, outcome_of("completed"))], token="t2")
    attempts = result_of(run)["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2, 3]
    assert "ZeroDivisionError" in attempts[0]["reason"] and attempts[1]["reason"] == "supervisor lost"


@pytest.mark.slow
@pytest.mark.parametrize("lives", [True, False])
def test_a_lost_attempt_that_is_cancelled_counts_while_its_processes_lived(root: Path, lives: bool) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, sleeping())])
    wait_until(lambda: processes.of_run(run.run_dir), "its process")
    start = rundir.control(run.run_dir, rundir.START)
    if lives:
        supervisor = processes.Identity.from_json(read(rundir.control(run.run_dir, rundir.CLAIM)))
        assert supervisor is not None
        os.kill(supervisor.pid, signal.SIGKILL)
        wait_for_state(run, "UNKNOWN")
    else:
        lose(run)
    start.write_text(json.dumps({**read(start), "started_at": time.time() - 3600}))
    os.utime(Path(run.run_dir) / rundir.LOG, (time.time(), time.time() - 1800))
    cancel.cancel({"run_dirs": [run.run_dir]})
    launch_runs(root, [(run, outcome_of("completed"))], token="t2")
    known = result_of(run)
    assert known["attempts"][0]["wall_s"] == pytest.approx(3600 if lives else 1800, abs=60)
    assert abs(known["queued_at"] - read(root / ".oelm" / "submissions" / "t1.json")["time"]) < 0.01


@pytest.mark.parametrize(
    ("signs", "seconds"),
    [
        ({}, 0.0),  # nothing was heard of it
        ({"beat": 50.0}, 50.0),
        ({"beat": 50.0, "log": 80.0}, 80.0),
        ({"beat": 50.0, "checkpoint_5.pt": 60.0}, 60.0),
        ({"beat": 50.0, "attempt": "t0:4"}, 0.0),  # another attempt's
        ({"log": -500.0}, 0.0),  # written by an earlier attempt
        ({"log": 90000.0}, 1000.0),  # the file server's clock is a day ahead
    ],
)
def test_the_last_sign_of_life_is_the_attempts_own_and_no_clock_makes_days_of_it(
    tmp_path: Path, signs: dict[str, Any], seconds: float
) -> None:
    began_at = time.time() - 1000.0
    if "beat" in signs:
        beat = {"attempt": signs.get("attempt", "t1:2"), "time": began_at + signs["beat"]}
        (tmp_path / rundir.HEARTBEAT).write_text(json.dumps(beat))
    for name in ("log", "checkpoint_5.pt"):
        if name in signs:
            path = tmp_path / (rundir.LOG if name == "log" else name)
            path.touch()
            os.utime(path, (began_at, began_at + signs[name]))
    start = {"token": "t1", "number": 2, "started_at": began_at, "devices": ["gpu:0"]}
    lost = result.lost_attempt(tmp_path, start, "reboot")
    assert lost["wall_s"] == pytest.approx(seconds, abs=5.0)
    assert lost["ended_at"] == pytest.approx(began_at + seconds, abs=5.0)


def test_there_is_no_end_record_where_the_manifest_could_not_be_written(root: Path) -> None:
    run = make_run(root, "a")
    folder = Path(run.run_dir)
    (folder / rundir.CONTROL).mkdir(parents=True)
    (folder / rundir.MANIFEST).mkdir()  # no file takes the place of a folder
    with pytest.raises(OSError):
        result.write(folder, RunRecord(token="t1"), State.DONE, "", [{"number": 1}], time.time())
    assert (folder / rundir.RESULT).exists() and not rundir.control(folder, rundir.END).exists()


def origin_of(run: Run) -> str:
    return rundir.control(run.run_dir, rundir.ORIGIN).read_text()


@pytest.mark.slow
def test_a_run_directory_names_the_submission_that_began_it_whoever_starts_its_script(root: Path) -> None:
    launched, by_hand, older = (make_run(root, name) for name in "abc")
    launch_runs(root, [(launched, sleeping())])
    lose(launched)
    launch_runs(root, [(launched, outcome_of("completed"))], token="t2")
    wait_for_state(launched, "DONE")
    assert origin_of(launched) == "t1\n"

    for token in ("t1", "t2"):
        script = script_of(root, by_hand, outcome_of("error"), token)
        subprocess.run(["bash"], input=script, text=True, timeout=300)
    assert origin_of(by_hand) == "t1\n"

    control = rundir.control(older.run_dir, "")
    control.mkdir(parents=True)
    (control / rundir.RUN).write_text(json.dumps({"run_dir": older.run_dir, "fingerprint": older.fingerprint}))
    launch_runs(root, [(older, outcome_of("completed"))], token="t3")
    wait_for_state(older, "DONE")
    assert not (control / rundir.ORIGIN).exists(), "the same run as before is not taken for another one"


def test_a_new_record_of_a_run_says_all_but_what_does_not_apply() -> None:
    record = RunRecord(token="t1", run="a", run_dir="/r/exp_a", train={"lr": 0.1})
    content = record.to_json()
    assert list(content)[:4] == ["version", "token", "study", "run"]
    assert (content["port"], content["after"], content["extended_from"]) == (None, None, None)
    assert not {"left", "share", "scheduler", "fate", "command", "queued_at", "as_read"} & content.keys()
    read = RunRecord.of(json.loads(json.dumps(content)))
    assert read._replace(as_read={}) == record and read.to_json() == content


def test_a_record_that_was_read_is_written_as_it_was_but_for_what_was_replaced() -> None:
    content = {"run": "a", "token": "t1", "of a newer version": [1], "command": ["old"], "port": None, "seed": 1}
    record = RunRecord.of(content)
    assert (record.run, record.command, record.port, record.study) == ("a", ["old"], None, "")
    written = record._replace(seed=2, command=["new"], queued_at=5.0).to_json()
    assert list(written.items()) == [
        ("run", "a"), ("token", "t1"), ("of a newer version", [1]), ("port", None), ("seed", 2), ("command", ["new"]),
        ("queued_at", 5.0),
    ]  # fmt: skip


KINDS = [each for each in vars(records).values() if isinstance(each, records.Kind)]
TYPES = {
    records.START: record_types.StartRecord, records.END: record_types.EndRecord,
    records.CLAIM: record_types.ClaimRecord, records.HEARTBEAT: record_types.HeartbeatRecord,
    records.OUTCOME: record_types.OutcomeRecord, records.MANIFEST: record_types.ManifestRecord,
    records.FETCHED: record_types.FetchedRecord, records.WAITING: record_types.WaitingRecord,
    records.INPUTS: record_types.InputsRecord,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_records_type_knows_what_its_shape_checks(kind: records.Kind[Any]) -> None:
    known = RunRecord._fields if kind is records.RUN else TYPES[kind].__annotations__
    assert {*kind.shape.must, *kind.shape.may} <= set(known)
    assert set(records.ATTEMPT.may) <= set(record_types.Attempt.__annotations__)


PROGRAM = {
    "stages": [{"name": "train", "words": ["python", "train.py", ["--out_dir=", "run_dir", ""], ["", "resume", ""]]}],
    "resume": ["--init_from=resume"], "checkpoint": "ckpt.pt", "best": "ckpt.pt", "length": "max_iters",
    "max_steps": 2000, "stop_s": 60.0, "data": [["data/chars", "/data/chars"]], "settings": {"max_iters": 2000},
    "settings_file": None, "settings_text": None, "files": [],
    "metrics": {"lines": ["iter {step}: loss {loss}"], "files": [], "goal": {"loss": "minimize"}},
}  # fmt: skip


def test_a_record_of_a_program_of_ones_own_is_read_as_it_was_written_and_is_absent_elsewhere(tmp_path: Path) -> None:
    rundir.control(tmp_path, "").mkdir()
    for program in (PROGRAM, None):
        record = RunRecord(run="a", run_dir=str(tmp_path), program=program)
        rundir.write_json(rundir.control(tmp_path, rundir.RUN), record.to_json())
        known = records.RUN.read(tmp_path)
        assert known is not None and known.program == program
        assert ("program" in known.to_json()) is (program is not None)


@pytest.mark.parametrize(
    ("key", "value"),
    [("stages", None), ("checkpoint", "/etc/passwd"), ("stop_s", -1), ("data", [["data"]]), ("resume", [{}])],
)
def test_a_record_of_a_program_that_makes_no_sense_is_none(tmp_path: Path, key: str, value: object) -> None:
    rundir.control(tmp_path, "").mkdir()
    content = {"run_dir": str(tmp_path), "program": {**PROGRAM, key: value}}
    rundir.write_json(rundir.control(tmp_path, rundir.RUN), content)
    assert records.RUN.read_if_sound(tmp_path) is None


def stamped(run: Run) -> dict[str, Any] | None:
    stamp: dict[str, Any] | None = read(Path(run.run_dir, ".oelm", "run.json")).get("lock")
    return stamp


def test_a_run_records_the_lock_that_it_was_queued_under_and_when_by_the_clock_of_the_target(root: Path) -> None:
    run = make_run(root, "a")
    launch_runs(root, [(run, outcome_of("completed"))], lock={"hash": "a" * 64})
    wait_for_state(run, "DONE")
    submitted_at = read(root / ".oelm" / "submissions" / "t1.json")["time"]
    stamp = stamped(run)
    assert stamp is not None and stamp["hash"] == "a" * 64 and abs(stamp["queued_at"] - submitted_at) < 0.01


@pytest.mark.slow
def test_a_run_that_goes_on_was_queued_under_the_first_lock_whatever_is_locked_since(root: Path) -> None:
    free, bound = make_run(root, "free"), make_run(root, "bound")
    for run, first in ((free, {}), (bound, {"lock": {"hash": "a" * 64}})):
        launch_runs(root, [(run, outcome_of("error"))], token=f"t1-{run.name}", **first)
        wait_for_state(run, "FAILED")
        before = stamped(run)
        launch_runs(root, [(run, outcome_of("completed"))], token=f"t2-{run.name}", lock={"hash": "b" * 64})
        wait_for_state(run, "DONE")
        assert stamped(run) == before
    assert stamped(free) is None
