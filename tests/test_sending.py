"""Data that are sent to a target: one command of a project at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import Project
from oelm_jobs.transfer import send
from oelm_jobs.transfer.rsync import Transfer
from tests.support import wait_until


@pytest.fixture
def elsewhere(project: Path) -> Path:
    """The root of a target called ``there``, which lacks the data of the project."""
    root = project.parent / "elsewhere"
    (project / "jobs" / "targets.toml").write_text(f"[there]\nkind = 'local'\nroot = '{root}'\n")
    return root


@pytest.mark.slow
def test_who_sends_data_while_another_command_does_says_so_and_waits(project: Path, elsewhere: Path) -> None:
    said: list[str] = []
    with Project(project, say=said.append) as mine:
        lock = os.open(project, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        sending = threading.Thread(target=mine.send_data, args=("there", "tiny"))
        sending.start()
        try:
            wait_until(lambda: said, "a word about the other command")
            assert said == ["another command sends data of this project; waiting for it"] and not elsewhere.exists()
        finally:
            os.close(lock)
            sending.join()
    assert said[-1].startswith("sent to there: ") and (elsewhere / "data" / "tiny" / "val.bin").is_file()


def test_where_a_project_can_not_be_locked_its_data_are_sent_all_the_same(
    project: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(send.fcntl, "flock", no_locks)
    with Project(project, say=str) as mine:
        assert len(mine.send_data("there", "tiny")) == 2
    assert (elsewhere / "data" / "tiny" / "train.bin").is_file()


@pytest.fixture
def rows(project: Path) -> Path:
    """A folder that the script of a study called ``s`` reads."""
    (project / "train.py").write_text("")
    text = 'factors = ["lr"]\nseeds = [1]\n[program]\ncommand = "python train.py {settings} {seed}"\ndata = ["rows"]\n'
    (project / "jobs" / "s.toml").write_text(f"{text}[groups]\nlow = {{ lr = 0.1 }}\n")
    (project / "rows").mkdir()
    return project / "rows"


def test_a_folder_that_is_empty_is_made_there(project: Path, elsewhere: Path, rows: Path) -> None:
    with Project(project, say=str) as mine:
        assert mine.send_data("there", "s") == [str(elsewhere / "rows")]
        assert list((elsewhere / "rows").iterdir()) == []
        assert mine.send_data("there", "s") == []


@pytest.mark.slow
def test_what_has_arrived_whole_is_not_sent_again_for_a_file_that_has_not(
    project: Path, elsewhere: Path, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (rows / name).write_text(name)
    name = hashlib.sha256(str(elsewhere / "rows").encode()).hexdigest()[:16]
    staging = elsewhere / "rows" / f".oelm-incoming-{name}"
    staging.mkdir(parents=True)
    (staging / "b").write_text("an older file")
    sent: list[list[str]] = []

    def transfer(source: str, destination: str, names: list[str], *more: Any, **how: Any) -> Transfer:
        sent.append(names)
        return Transfer(source, destination, names, *more, **how)

    monkeypatch.setattr(send, "Transfer", transfer)
    with Project(project, say=str) as mine:
        mine.send_data("there", "s")
    assert sent == [["a", "b", "c"], ["b"]]
    assert {path.name: path.read_text() for path in (elsewhere / "rows").iterdir()} == {"a": "a", "b": "b", "c": "c"}
