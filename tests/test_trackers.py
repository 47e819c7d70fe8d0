"""What runs have kept for Weights & Biases is sent by its own command, which is stood in for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from oelm_jobs.transfer.trackers import wandb_folders

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which the command ``wandb`` writes its words."""
    program, said = tmp_path / "bin" / "wandb", tmp_path / "words"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {said}\necho sent\nexit "${{EXIT:-0}}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return said


def offline_run(folder: Path, when: str) -> str:
    """Make what W&B keeps of an attempt; return its folder."""
    made = folder / "wandb" / f"offline-run-{when}-low-1234"
    (made / "files").mkdir(parents=True)
    (made / "run-low-1234.wandb").write_bytes(b":W&B")
    return str(made)


@pytest.mark.usefixtures("quick")
def test_what_finished_runs_have_kept_is_sent_attempt_by_attempt(
    oelm: Command, project: Path, wandb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    done = oelm("fetch", "--sync", "wandb")
    assert "There is nothing to send to W&B." in done.stderr and not wandb.exists()
    run_dir = project / "models" / "checkpoints" / "tiny" / "exp_gpt_base"
    second, first = offline_run(run_dir, "20260102_000000"), offline_run(run_dir / "work", "20260101_000000")
    done = oelm("fetch", "--sync", "wandb", "--json")
    assert wandb.read_text().splitlines() == ["sync", first, second]
    assert "sent" not in done.stdout and "sent" in done.stderr
    monkeypatch.setenv("EXIT", "3")
    done = oelm("fetch", "--sync", "wandb", check=False)
    assert done.returncode == 1 and "wandb sync ended with exit code 3" in done.stderr


@pytest.mark.usefixtures("quick")
def test_without_the_command_its_installation_is_named(
    oelm: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    offline_run(project / "models" / "checkpoints" / "tiny" / "exp_gpt_base", "20260101_000000")
    done = oelm("fetch", "--sync", "wandb", check=False)
    assert done.returncode == 74 and "pip install wandb" in done.stderr


def test_folders_that_are_linked_to_are_not_searched(tmp_path: Path) -> None:
    offline_run(tmp_path / "data", "20260101_000000")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "data").symlink_to(tmp_path / "data")
    assert wandb_folders(tmp_path / "run") == []
