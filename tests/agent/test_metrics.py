"""Following the metrics of a program that runs."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run import metrics
from oelm_jobs.agent.run.metrics import MOST_BYTES, Reader, watch
from oelm_jobs.agent.run.progress import add_progress
from oelm_jobs.agent.run.tail import LONGEST_PART, Tail

LINES = ["step {step}: train loss {train_loss}, val loss {val_loss}", "iter {step}: loss {loss}"]


def reader(folder: Path, *files: str, lines: list[str] = LINES, offset: int = 0) -> Reader:
    return Reader({"lines": lines, "files": list(files), "goal": {"val_loss": "minimize"}}, folder, log_offset=offset)


def write(path: Path, text: str | bytes, mode: str = "ab") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as stream:
        stream.write(text if isinstance(text, bytes) else text.encode())


# Growing files --------------------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.sampled_from("ab1\r\n"), max_size=12), max_size=12))
def test_looks_at_a_growing_file_give_the_whole_lines_of_it(tmp_path: Path, pieces: list[str]) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    tail, got = Tail(path), b""
    for piece in pieces:
        write(path, piece)
        got += tail.new(MOST_BYTES)
    whole = "".join(pieces).encode()
    assert got == whole[: 1 + max(whole.rfind(b"\n"), whole.rfind(b"\r"))]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 30), max_size=12), st.integers(8, 40))
def test_what_is_skipped_leaves_whole_lines_alone(tmp_path: Path, counts: list[int], most: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    tail, number = Tail(path), 0
    for count in counts:
        added = [f"<{n}>\n" for n in range(number, number + count)]
        write(path, "".join(added))
        number += count
        got = tail.new(most).decode()
        assert len(got) <= most and got == "".join(added)[len("".join(added)) - len(got) :]
        assert got.endswith(added[-1]) and (not got or got[0] == "<")


def test_a_file_that_is_cut_replaced_or_written_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "other"
    write(path, "one\ntwo\nhal")
    tail = Tail(path)
    assert tail.new(MOST_BYTES) == b"one\ntwo\n"
    write(path, "x\n", "wb")
    assert tail.new(MOST_BYTES) == b"x\n"
    write(path, "much longer than before\n", "wb")
    assert tail.new(MOST_BYTES) == b"much longer than before\n"
    write(other, "much longer than before\nand more\n")
    os.replace(other, path)
    assert tail.new(MOST_BYTES) == b"much longer than before\nand more\n"
    path.unlink()
    assert tail.new(MOST_BYTES) == b""
    os.mkfifo(path)
    assert tail.new(MOST_BYTES) == b""  # reading it would wait for a writer


def test_a_line_without_an_end_is_not_kept_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    tail = Tail(path)
    for _ in range(4):
        write(path, b"x" * LONGEST_PART)
        assert tail.new(MOST_BYTES) == b""
    write(path, "end\nnext\n")
    assert tail.new(MOST_BYTES) == b"next\n"


# What is told ---------------------------------------------------------------------------------------------------------


def test_the_last_line_of_each_pattern_counts_and_the_newest_step(tmp_path: Path) -> None:
    log, at = tmp_path / rundir.LOG, reader(tmp_path)
    assert not at.look()
    write(log, "iter 1: loss 4\nstep 2: train loss 3.5, val loss 3.25\niter 2: loss 3\r iter 3: loss 2.5\riter 4: lo")
    assert at.look()
    assert at.step == 3 and at.metrics == {"loss": 2.5, "train_loss": 3.5, "val_loss": 3.25}
    write(log, "ss nan\n")
    assert at.look() and at.step == 4 and math.isnan(at.metrics["loss"])
    assert not at.look()


def test_an_attempt_s_own_lines_count_alone(tmp_path: Path) -> None:
    write(tmp_path / rundir.LOG, "iter 9: loss 1\nhalf a li")
    write(tmp_path / "m.csv", "step,val_loss\n9,1\n")
    at = reader(tmp_path, "m.csv", offset=(tmp_path / rundir.LOG).stat().st_size)
    assert not at.look()
    write(tmp_path / rundir.LOG, "iter 5: loss 2\n")
    write(tmp_path / "m.csv", "6,1.5\n")
    assert at.look() and at.step == 6 and at.metrics == {"loss": 2.0, "val_loss": 1.5}


def test_what_appears_between_two_looks_is_read_and_at_the_end_the_newest_of_it(tmp_path: Path) -> None:
    at = reader(tmp_path, "checkpoint-*/state.json")
    assert not at.look()
    write(tmp_path / rundir.METRICS, '{"step": 1, "time": 1795990000.5, "loss": 4.0}\n')
    assert at.look() and (at.step, at.metrics) == (1, {"loss": 4.0}), "the time is the line's, no metric"
    for step in (2, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
        write(tmp_path / f"checkpoint-{step}" / "state.json", f'{{"step": {step}, "val_loss": {step}}}')
        os.utime(tmp_path / f"checkpoint-{step}" / "state.json", (step, step))
        at.look(at_end=step == 3)
        assert (at.step, at.metrics["val_loss"]) == (step, step)


STEPS = st.lists(st.tuples(st.integers(0, 99), st.floats(0, 9), st.booleans()), max_size=20)


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.data())
def test_looks_in_between_tell_at_the_end_what_reading_the_whole_tells(
    tmp_path: Path, told: list[tuple[int, float, bool]], data: st.DataObject
) -> None:
    log = tmp_path / rundir.LOG
    log.write_bytes(b"")
    ends = st.sampled_from(["\n", "\r", "\r\n", "\x1b[0m\n", "\nother words\n"])
    lines = [
        (f"step {n}: train loss {loss}, val loss {loss}" if is_val else f"iter {n}: loss {loss}") + data.draw(ends)
        for n, loss, is_val in told
    ]
    whole = "".join(lines).encode()
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    at = reader(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "BLOCK", data.draw(st.sampled_from([10, 60, metrics.BLOCK])))
        for begin, end in zip([0, *places], [*places, len(whole)], strict=True):
            write(log, whole[begin:end])
            at.look()
    write(log, whole, "wb")
    once = reader(tmp_path)
    once.look()
    assert (at.step, at.metrics) == (once.step, once.metrics)
    assert at.step == (told[-1][0] if told else None)


def test_a_csv_with_holes_gives_the_last_value_of_each_metric(tmp_path: Path) -> None:
    path = tmp_path / "work" / "logs" / "v0" / "metrics.csv"
    write(path, "epoch,step,val_loss,loss\n")
    at = reader(tmp_path, "logs/*/metrics.csv")
    write(path, "0,1,,3.5\n0,2,3.0,\n0,3,,3.25\n0,4,,9")
    assert at.look() and at.step == 3 and at.metrics == {"epoch": 0, "val_loss": 3.0, "loss": 3.25}
    assert at.look(at_end=True) and at.step == 4 and at.metrics["loss"] == 9, "the last row counts without an end"


def test_a_file_that_comes_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SEARCH_S", 0.0)
    at = reader(tmp_path, "out/log.jsonl", "/etc/*", "[z-a]*")
    assert not at.look()
    write(tmp_path / "work" / "out" / "log.jsonl", '{"step": 3, "val_loss": "inf", "max_steps": 9}\n{"step": 4, "val_')
    assert at.look() and (at.step, at.max_steps, at.metrics) == (3, 9, {"val_loss": math.inf})


def test_trainer_state_is_read_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SEARCH_S", 0.0)
    at = reader(tmp_path, "checkpoint-*/trainer_state.json")
    for step in (9, 10):
        history = [{"step": step - 1, "loss": 2.0}, {"step": step, "val_loss": 1.0 * step}]
        path = tmp_path / "work" / f"checkpoint-{step}" / "trainer_state.json"
        write(path, json.dumps({"global_step": step, "max_steps": 20, "log_history": history}))
        os.utime(path, ns=(step * 10**9, step * 10**9))
        assert at.look() and not at.look()
        assert (at.step, at.max_steps, at.metrics) == (step, 20, {"loss": 2.0, "val_loss": 1.0 * step})


def test_what_a_program_logs_itself_wins_over_its_lines(tmp_path: Path) -> None:
    write(tmp_path / rundir.LOG, "iter 5: loss 2.13\n")
    write(tmp_path / rundir.METRICS, '{"step": 5, "loss": 2.125}\n')
    at = reader(tmp_path)
    write(tmp_path / rundir.METRICS, '{"step": 6, "loss": 2.0625}\n')
    assert at.look() and (at.step, at.metrics) == (6, {"loss": 2.0625})


@pytest.mark.parametrize("lines", [LINES, []])
def test_a_minute_without_a_value_is_told_where_the_study_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    at = reader(tmp_path, lines=lines)
    monkeypatch.setattr(metrics, "AGAIN_S", 0.0)
    write(tmp_path / rundir.LOG, "it goes well\n")
    at.beat("t:1")
    beat = json.loads((tmp_path / rundir.HEARTBEAT).read_text())
    assert "step" not in beat and beat["attempt"] == "t:1" and beat.get("metrics") == ({} if lines else None)


def test_a_heartbeat_is_written_where_something_is_new(tmp_path: Path) -> None:
    at = reader(tmp_path)
    at.beat("t:1")
    assert not (tmp_path / rundir.HEARTBEAT).exists()
    write(tmp_path / rundir.LOG, "iter 5: loss nan\n")
    at.beat("t:1")
    beat = json.loads((tmp_path / rundir.HEARTBEAT).read_text())
    assert beat.pop("time") <= time.time()
    assert beat == {"step": 5, "attempt": "t:1", "metrics": {"loss": "nan"}}


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_pattern_that_can_take_for_ever_is_given_up_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PATTERN_CPU_S", 0.2)
    said: list[str] = []
    lines = [r"(?P<loss>(?:x+)+)y", "iter {step}: loss {loss}"]
    at = Reader({"lines": lines}, tmp_path, say=said.append)
    write(tmp_path / rundir.LOG, "x" * 200 + "\niter 5: loss 2\n" + "x" * 200 + "\n")
    assert at.look() and at.step == 5
    assert len(said) == 1 and "takes too long" in said[0]


# Waiting --------------------------------------------------------------------------------------------------------------

SLEEPS = [sys.executable, "-c", "import time; time.sleep(0.3)"]


@pytest.mark.slow
def test_waiting_for_a_child_looks_in_between_and_ends_with_it(tmp_path: Path) -> None:
    looks: list[int] = []
    go = tmp_path / "go"
    waits = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    child = subprocess.Popen([sys.executable, "-c", waits])
    watch(child, go.touch, every_s=0.05)  # without a look the child would never end
    assert child.returncode == 0
    child = subprocess.Popen(SLEEPS)
    watch(child, lambda: looks.append(1), every_s=3600)  # it is woken by the child's end
    assert child.returncode == 0


def test_a_signal_s_handler_that_raises_ends_the_wait() -> None:
    program = (
        "import os, signal, subprocess, sys\n"
        "from oelm_jobs.agent.run.metrics import watch\n"
        "def stop(number, frame): raise KeyError(number)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'])\n"
        "try:\n    print('on', flush=True); watch(child, lambda: None, every_s=3600)\n"
        "except KeyError:\n    child.kill(); print('stopped', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopped\n"


def test_a_status_passes_on_those_metrics_that_make_sense(tmp_path: Path) -> None:
    told = {"acc": 0.5, "loss": "nan", "text": "x", "list": [1], "none": None, "flag": True, "n" * 300: 1.0}
    (tmp_path / rundir.HEARTBEAT).write_text(json.dumps({"step": 5, "metrics": told}))
    found = {"state": "RUNNING"}
    add_progress(found, str(tmp_path))
    assert (found["step"], found["metrics"]) == (5, {"acc": 0.5, "loss": "nan"})
    (tmp_path / rundir.HEARTBEAT).write_text(json.dumps({"step": 5}))
    found = {"state": "RUNNING"}
    add_progress(found, str(tmp_path))
    assert "metrics" not in found and "reason" not in found


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("a\n", "a\n"), ("a\nhalf", "a\nhalf\n"), ("bar\r", "bar\r\n")]
)
def test_a_line_that_a_program_was_killed_in_ends_before_the_next_attempt_s_begin(
    tmp_path: Path, before: str, after: str
) -> None:
    path = tmp_path / rundir.LOG
    path.write_text(before, newline="")
    with path.open("ab+") as log:
        rundir.end_line(log)
        assert log.tell() == len(after)
        log.write(b"next\n")
    assert path.read_bytes().decode() == after + "next\n"
