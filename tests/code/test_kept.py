"""Code that was submitted is found again under its hash, and nothing else is taken for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import bundling
from oelm_jobs.code import kept, snapshot
from tests.support import read


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A project of a script, a program that can be run, and a secret."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "step.py").write_text("print(1)\n")
    (tmp_path / "bin" / "go").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "go").chmod(0o755)
    (tmp_path / ".env").write_text("TOKEN=abc\n")
    return tmp_path


def find(project: Path, name: str) -> snapshot.Tree | None:
    return dict(kept.find(project, [name]))[name]


def test_what_was_kept_is_found_though_the_project_has_other_files_by_now(code: Path) -> None:
    sent = snapshot.take(code, is_script=True)
    kept.keep(code, sent)
    (code / "step.py").write_text("print(2)\n")
    found = find(code, sent.hash)
    assert found is not None and (found.rows, found.hash) == (sent.rows, sent.hash)
    assert [found.read(number) for number in range(2)] == [b"#!/bin/sh\n", b"print(1)\n"]
    place = code / ".oelm" / "code" / sent.hash
    assert not (place / ".env").exists() and place.stat().st_mode & 0o77 == 0


def test_kept_code_that_was_changed_is_not_found(code: Path) -> None:
    sent = snapshot.take(code, is_script=True)
    kept.keep(code, sent)
    (code / "step.py").write_text("print(2)\n")
    place = code / ".oelm" / "code" / sent.hash / "step.py"
    place.chmod(0o644)
    place.write_text("print(3)\n")
    assert find(code, sent.hash) is None
    assert find(code, "../../jobs") is None


def test_the_projects_own_files_are_found_while_they_are_the_same(code: Path) -> None:
    for is_script in (False, True):
        assert find(code, snapshot.take(code, is_script=is_script).hash) is not None
    sent = snapshot.take(code, is_script=True).hash
    (code / "step.py").write_text("print(2)\n")
    assert find(code, sent) is None


def test_the_projects_own_files_are_looked_at_once_for_all_that_is_not_kept(
    code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [snapshot.take(code, is_script=is_script) for is_script in (True, False)]
    takes: list[bool] = []
    take = snapshot.take

    def counted(project: Path, *, is_script: bool) -> snapshot.Snapshot:
        takes.append(is_script)
        return take(project, is_script=is_script)

    monkeypatch.setattr(snapshot, "take", counted)
    names = ["0" * 16, sent[0].hash, "1" * 16, sent[1].hash]
    assert [tree is not None for _name, tree in kept.find(code, names)] == [False, True, False, True]
    assert len(takes) == 2


def test_a_file_of_the_project_that_cant_be_read_hides_no_code_that_is_kept(code: Path) -> None:
    sent = snapshot.take(code, is_script=True)
    kept.keep(code, sent)
    (code / "again").symlink_to("again")
    assert [tree is not None for _name, tree in kept.find(code, ["0" * 16, sent.hash])] == [False, True]


@pytest.mark.parametrize("modes", [(0o755, 0o755), (0o644, 0o644)])
def test_a_disk_that_keeps_no_modes_hides_no_code(code: Path, modes: tuple[int, int]) -> None:
    sent = snapshot.take(code, is_script=True)
    kept.keep(code, sent)
    (code / "step.py").write_text("print(2)\n")
    for name, mode in zip(("step.py", "bin/go"), modes, strict=True):
        place = code / ".oelm" / "code" / sent.hash / name
        place.chmod(mode)
        os.utime(place)
    found = find(code, sent.hash)
    assert found is not None and found.rows == sent.rows


def test_code_that_cant_be_kept_stops_no_run_and_its_bundle_says_how_it_gets_there(
    quick: Path, oelm: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (quick / ".oelm").mkdir()
    (quick / ".oelm" / "code").write_text("")
    said = oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait").stderr
    assert "can't be kept in the project" in said
    shutil.rmtree(quick / ".oelm" / "snapshots")
    (quick / "train" / "version.py").write_text("VERSION = 2\n")
    sent: Any = read(quick / "models" / "checkpoints" / "tiny" / "exp_gpt_base" / ".oelm" / "run.json")["snapshot"]
    made = bundling.make(quick, "tiny", tmp_path / "b.tar.gz")
    assert made.left_out.keys() == {f"code/{sent}"}
    assert "was sent to local, is not kept in this project" in made.left_out[f"code/{sent}"]
    with bundling.reproduce(made.path) as found:
        assert found.differs == ()
