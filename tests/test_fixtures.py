"""The committed run directories are real, whole, and enough for status, fetch and report."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from oelm_jobs.transfer.sync import verify
from tests.support import REPOSITORY, read

FIXTURES = REPOSITORY / "tests" / "fixtures"
RUNS = sorted((FIXTURES / "runs").iterdir())


def test_three_groups_with_two_seeds_are_there() -> None:
    records = [read(run / ".oelm" / "run.json") for run in RUNS]
    assert {(record["group"], record["seed"]) for record in records} == {
        (group, seed) for group in ("gpt_base", "oelm_no_freeze", "oelm_freeze") for seed in (42, 43)
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_a_run_directory_agrees_with_its_manifest(run: Path) -> None:
    checked = verify(run)
    assert checked.has_manifest and not checked.damaged and checked.files >= 7


@pytest.mark.slow
def test_status_and_report_read_them_in_a_project_that_never_submitted_anything(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    shutil.copy(FIXTURES / "study.toml", tmp_path / "jobs" / "fixture.toml")
    shutil.copytree(FIXTURES / "runs", tmp_path / "models" / "checkpoints")

    def run(name: str, *arguments: str) -> str:
        argv = [sys.executable, "-c", f"from oelm_jobs.cli.{name} import main; main()", *arguments]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rows = json.loads(run("status", "--rebuild", "--json"))["runs"]
    assert len(rows) == 6 and {row["state"] for row in rows} == {"DONE"}
    assert all(row["progress"]["step"] == 120 for row in rows)
    text = run("report")
    for hypothesis in ("H1", "H2", "H3", "H4"):
        assert hypothesis in text
    assert (tmp_path / "experiments" / "fixture_summary.json").exists()


def test_what_starts_commands_is_marked_slow_by_itself(oelm, request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("slow")
