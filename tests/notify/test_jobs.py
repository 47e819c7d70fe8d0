"""What is told from within a job of Slurm's, and from the login node: each tells its part, and neither another's."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir, watch
from oelm_jobs.agent.notify import asked, declared, forms, in_job, outbox, polled, ways
from oelm_jobs.agent.notify.outbox import Outbox
from oelm_jobs.agent.notify.telling import GONE_S, Row, Teller, by_records
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from tests.support import make_run

SETTINGS = {"on": ["end"], "stalled_after_s": 0.0, "command": ["true"]}
HOUR_AGO = 3600.0


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float | None]]:
    """What is sent, and how long that may take; it fails."""
    found: list[tuple[str, float | None]] = []

    def fails(way: str, how: Any, message: forms.Message, patience_s: float | None = None) -> ways.Said:
        found.append((message.title, patience_s))
        return ways.Said(False, "no route")

    monkeypatch.setattr(ways, "send", fails)
    return found


@pytest.fixture
def study(root: Path) -> tuple[Path, list[str]]:
    """Return the folder of a study whose runs were declared an hour ago, and their run directories."""
    runs = [make_run(root, name).run_dir for name in "abc"]
    request: Any = {
        "root": str(root), "study": "s", "project": "/p", "target": "c", "slurm": True, "notify": SETTINGS,
        "runs": dict.fromkeys(runs, "t1"),
    }  # fmt: skip
    folder = Path(asked.notify(request)["folder"])
    content = rundir.read_json(folder / declared.SETTINGS) or {}
    content["runs"] = {run_dir: (token, since - HOUR_AGO) for run_dir, (token, since) in content["runs"].items()}
    rundir.write_text(folder / declared.SETTINGS, json.dumps(content), mode=0o600)
    return folder, runs


def end(run_dir: str, state: State = State.DONE) -> None:
    row = {"version": 1, "token": "t1", "state": str(state), "reason": "", "ended_at": time.time(), "attempts": []}
    path = rundir.control(run_dir, rundir.END)
    path.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_json(path, row)


def messages(folder: Path) -> list[str]:
    """Return what is noted, by event."""
    return sorted(path.stem.partition("-")[0] for path in folder.glob("*-*.json") if "." not in path.stem)


def test_runs_that_nobody_has_asked_about_are_neither_over_nor_gone(study: tuple[Path, list[str]]) -> None:
    folder, (first, *_others) = study
    found = declared.read(folder)
    assert found is not None and HOUR_AGO > GONE_S
    end(first)
    assert not Teller(Outbox(folder)).look(found, by_records)
    assert messages(folder) == ["end"], "the study is not complete"

    def known(run_dir: str, token: str) -> Row:
        return by_records(run_dir, token) or {"state": "UNKNOWN", "absent": True}

    assert Teller(Outbox(folder)).look(found, known), "a run that was looked for and is not there is not waited for"
    assert messages(folder) == ["complete", "end"]


def test_a_job_tries_what_is_its_own_runs_once_and_in_its_time(
    study: tuple[Path, list[str]], tried: list[tuple[str, float | None]]
) -> None:
    folder, (first, second, third) = study
    end(second)
    watch.in_job(folder, second, time.monotonic() + 60, 3.0)
    watch.in_job(folder, second, time.monotonic() + 60, 3.0)
    assert tried == [("oelm-jobs: b DONE", 3.0)]
    end(first)
    watch.in_job(folder, first, time.monotonic() + 0.5, 3.0)
    assert len(tried) == 1, "no try is begun that its end would cut short"
    end(third)
    watch.in_job(folder, third, time.monotonic() + 60, 3.0)
    assert [title for title, _patience_s in tried[1:]] == [
        "oelm-jobs: c DONE",
        "oelm-jobs: study s is complete: 3 DONE",
    ]
    found = declared.read(folder)
    assert found is not None
    assert len(list(folder.glob("*.command.1.json"))) == 0
    # The login node makes up for what was not tried, and has tries left of what failed.
    box = Outbox(folder)
    assert box.send(found.notify) is not None and tried[3][0] == "oelm-jobs: a DONE"


def test_a_job_looks_at_no_more_records_than_it_needs(
    study: tuple[Path, list[str]], tried: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (first, _second, third) = study
    looked: list[str] = []

    def counted(run_dir: str, token: str) -> Any:
        looked.append(run_dir)
        return by_records(run_dir, token)

    monkeypatch.setattr(watch, "by_records", counted)
    end(first)
    watch.in_job(folder, first, time.monotonic() + 60, 3.0)
    assert looked == [first, third], "its own, and one that is not over"


def test_a_login_node_has_one_sender_for_a_study_and_closes_only_what_is_over(
    study: tuple[Path, list[str]], tried: list[tuple[str, float | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runs = study
    root, started = folder.parents[2], []
    monkeypatch.setattr(polled, "leave", lambda *words: started.append(words))
    monkeypatch.setattr(outbox, "PAUSES_S", (0.0,) * (outbox.TRIES - 1))
    rows = {run_dir: {"token": "t1", "state": "FAILED", "reason": "node failed"} for run_dir in runs}
    polled.note(str(root), [(run_dir, "t1") for run_dir in runs[:1]], rows)
    ((what, where, *more),) = started
    assert (what, where) == ("polled", folder) and [known[:2] for known in more[1]] == [[runs[0], "t1"]]
    lock = rundir.lock(folder / declared.LOCK)
    polled.note(str(root), [], {})
    watch.polled(folder, *more)
    assert len(started) == 1 and not tried and not messages(folder), "another one is at it"
    os.close(lock)
    from oelm_jobs.agent.slurm import state

    asked_for: list[Any] = []

    def rows_of(root: str, wanted: list[tuple[str, str]]) -> dict[str, Any]:
        asked_for.extend(wanted)
        return {run_dir: {"token": "t1", "state": "QUEUED"} for run_dir, _token in wanted}

    monkeypatch.setattr(state, "rows_of", rows_of)
    watch.polled(folder, *more)
    assert tried == [("oelm-jobs: a FAILED: node failed", None)]
    assert asked_for == [(run_dir, "t1") for run_dir in runs[1:]], "what the poll didn't ask about is asked"
    for _again in range(outbox.TRIES):
        watch.polled(folder, *more)
    assert not (folder / declared.CLOSED).exists() and messages(folder) == ["fail"], "two runs still wait"
    assert len(tried) == outbox.TRIES
    watch.polled(folder, str(root), [[run_dir, "t1", rows[run_dir]] for run_dir in runs])
    assert messages(folder) == ["complete", "fail", "fail", "fail"]


# Who does it ----------------------------------------------------------------------------------------------------------


def ask(root: Path, **more: Any) -> Any:
    """Declare a run of a plain host, an hour ago by what is kept; return the answer."""
    run = make_run(root, "h")
    request: Any = {
        "root": str(root), "study": "s", "project": "/p", "target": "c", "slurm": False, "notify": SETTINGS,
        "runs": {run.run_dir: "t1"}, **more,
    }  # fmt: skip
    return asked.notify(request)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Whose runs a process is started to watch over; none is."""
    found: list[Path] = []
    monkeypatch.setattr(declared, "leave", lambda what, folder: found.append(folder))
    return found


def test_hosts_and_targets_of_one_root_have_each_their_own_and_watch_over_no_others(
    root: Path, started: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(ask(root)["folder"])
    other_target = Path(ask(root, target="d")["folder"])
    name = os.uname()
    monkeypatch.setattr(os, "uname", lambda: type(name)(["Linux", "elsewhere", *name[2:]]))
    there = Path(ask(root)["folder"])
    assert len({here, other_target, there}) == 3
    started.clear()
    declared.see_to(str(root))
    assert started == [there]


def test_settings_that_can_not_be_believed_are_said_to_be_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chmod = os.chmod
    monkeypatch.setattr(os, "chmod", lambda path, mode: chmod(path, 0o777))
    answer = ask(root)
    assert "others may write it, or it can't be read" in answer["wrong"]["command"]


def test_one_that_watches_sends_in_parts_so_that_it_leaves_to_the_next_one(
    root: Path, started: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, parts = Path(ask(root)["folder"]), []

    def send(box: Outbox, settings: Any, *, patience_s: float = float("inf")) -> None:
        parts.append(patience_s)
        (folder / declared.SETTINGS).unlink()

    monkeypatch.setattr(Outbox, "send", send)
    monkeypatch.setattr(watch, "FIRST_S", 0.0)
    watch.watch(folder)
    assert parts == [watch.PERIOD_S] and 2 * (watch.PERIOD_S + ways.PATIENCE_S) <= 2 * watch.LEAVES_S


def test_only_what_slurm_sends_its_signals_to_is_deaf_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: dict[str, Any] = {}
    before = {number: signal.getsignal(number) for number in watch.DEAF_TO}
    for what, name in (("watch", "watch"), ("job", "in_job"), ("polled", "polled")):
        order = io.StringIO(json.dumps([what, "/f"]) + "\n")
        monkeypatch.setattr(sys, "stdin", order)
        monkeypatch.setattr(
            watch, name, lambda *_given, what=what: heard.update({what: signal.getsignal(signal.SIGTERM)})
        )
        try:
            watch.main()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    assert heard == {"watch": before[signal.SIGTERM], "job": signal.SIG_IGN, "polled": before[signal.SIGTERM]}


def test_one_that_has_not_become_nobodys_child_in_time_is_done_without(
    study: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (run_dir, *_others) = study
    content = rundir.read_json(folder / declared.SETTINGS) or {}
    content["notify"] = {**SETTINGS, "on": ["stalled"], "stalled_after_s": 60.0}
    rundir.write_text(folder / declared.SETTINGS, json.dumps(content), mode=0o600)
    made: list[subprocess.Popen[bytes]] = []

    def hangs(*_given: object) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["sleep", "600"]))
        return made[0]

    monkeypatch.setattr(declared, "begin", hangs)
    monkeypatch.setattr(in_job, "FORK_S", 0.01)
    record = RunRecord.of({"run": "a", "run_dir": run_dir, "token": "t1", "notify": str(folder)})
    in_job.JobTeller(record).watch_for_stalls()
    assert made[0].returncode == -signal.SIGKILL


def test_forgetting_lists_the_folder_no_more_often_for_many_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Outbox(tmp_path)
    for number in range(5):
        token = "kept" if number == 3 else "old"
        box.put("end", [number], lambda token=token: forms.Message("end", "it", "", {"token": token}))  # type: ignore[misc]
    for path in list(tmp_path.glob("end-*.json")):
        path.with_name(path.stem + ".mail.0.json").touch()
    listed: list[object] = []
    list_folder = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or list_folder(path))
    monkeypatch.setattr(Path, "glob", lambda *_given: pytest.fail("another listing"))
    box.forget({"kept"})
    assert len(listed) == 2 and len(list_folder(tmp_path)) == 2


def test_what_looks_for_stalls_reads_and_sends_of_its_own_run_alone_and_seldom(
    study: tuple[Path, list[str]], tried: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, (run_dir, *_others) = study
    content = rundir.read_json(folder / declared.SETTINGS) or {}
    content["notify"] = {**SETTINGS, "on": ["end", "stalled"], "stalled_after_s": 7200.0}
    rundir.write_text(folder / declared.SETTINGS, json.dumps(content), mode=0o600)
    Outbox(folder).put("end", ["another"], lambda: forms.Message("end", "another's", "", {"token": "t1"}))
    looked, pauses = [], []
    monkeypatch.setattr(watch, "_in_job", lambda of, token: looked.append(of))
    monkeypatch.setattr(Outbox, "send", lambda *_given, **_named: pytest.fail("all that is due is sent"))

    def waits(_files: object, _1: object, _2: object, pause_s: float) -> tuple[list[int], list[int], list[int]]:
        pauses.append(pause_s)
        return [0] * (len(pauses) == 3), [], []

    monkeypatch.setattr(watch.select, "select", waits)
    watch.for_stalls(folder, run_dir, 8.0)
    assert looked == [run_dir] * 3 and not tried
    assert min(pauses) >= watch.STALLS_S


def test_what_is_left_by_a_client_that_lives_on_is_reaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[subprocess.Popen[bytes]] = []

    def start(module: str, *, stdin: Any) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["true"], stdin=stdin))
        return made[-1]

    monkeypatch.setattr(ways, "start", start)
    for _each in range(2):
        declared.leave("watch", tmp_path)
        os.waitid(os.P_PID, made[-1].pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ChildProcessError):
        os.waitpid(made[0].pid, os.WNOHANG)
