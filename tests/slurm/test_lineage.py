"""Runs that need others, on Slurm: jobs depend on those of the same seed, and what can't start says why."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.reasons import codes
from tests.slurm.testbed import Testbed
from tests.submit.test_lineage import SCRIPT, study
from tests.support import read, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def hold(project: Path) -> Path:
    """The folder of files that let runs wait or fail."""
    (project / "hold").mkdir()
    return project / "hold"


@pytest.fixture
def submit(oelm: Any, project: Path, target: Any, hold: Path, cluster: Testbed) -> Any:
    (project / "step.py").write_text(SCRIPT)
    study(project, "pre", hold, "none", "base = { lr = 0.5, gpus = 0 }")
    taken = 'inputs = { init = "pre/base:best" }'
    study(project, "tune", hold, "{init}", f"tuned = {{ lr = 0.25, gpus = 0, {taken} }}")
    target(None, python=sys.executable)

    def run(name: str, *arguments: str, check: bool = True) -> Any:
        return oelm("submit", "--study", name, "--target", "cluster", "--mode", "parallel", *arguments, check=check)

    return run


def run_dir(project: Path, study: str, name: str) -> Path:
    return project / "models" / "checkpoints" / study / f"exp_{name}"


def test_a_job_depends_on_that_of_its_own_seed_and_takes_what_it_made(
    submit: Any, project: Path, hold: Path, cluster: Testbed, states: Any, wait_for: Any
) -> None:
    for name in ("base", "base-s2"):
        (hold / f"hold-{name}").touch()
    submit("pre")
    submit("tune")
    rows = states()
    array = rows["base"]["job"].partition("_")[0]
    shown = {name: cluster.job(rows[name]["job"])["Dependency"] for name in ("tuned", "tuned-s2")}
    assert shown["tuned"].startswith(f"afterok:{array}_0") and shown["tuned-s2"].startswith(f"afterok:{array}_1")
    assert rows["tuned"]["state"] == "QUEUED" and "waiting_for_needed" in codes(rows["tuned"]["reason"])
    (hold / "hold-base-s2").unlink()
    wait_for("tuned-s2", "DONE")
    assert states()["tuned"]["state"] == "QUEUED" and not (hold / "began-tuned").exists()
    (hold / "hold-base").unlink()
    wait_for("tuned", "DONE")
    assert json.loads((run_dir(project, "tune", "tuned") / "work" / "model.json").read_text()) == [0.5, 1, 0.25, 1]
    row = read(run_dir(project, "tune", "tuned") / ".oelm" / "inputs.json")["inputs"][0]
    assert row["path"] == str(run_dir(project, "pre", "base") / "work" / "model.json")


def test_what_needs_a_run_that_fails_is_cancelled_with_the_reason_and_what_comes_always_goes_on(
    submit: Any, project: Path, hold: Path, wait_for: Any
) -> None:
    (hold / "hold-base").touch()
    (hold / "fail-base").touch()
    groups = (
        'a = { lr = 1.0, gpus = 0, needs = ["pre/base-s1"] }',
        'b = { lr = 2.0, gpus = 0, needs = ["a"] }',
        'c = { lr = 3.0, gpus = 0, needs = ["a", "pre/base"], when = "always" }',
    )
    study(project, "tune", hold, "none", "\n".join(groups))
    submit("pre")
    submit("tune", "--seeds", "1")
    wait_until(lambda: (hold / "began-base").exists(), "the start of what is needed")
    (hold / "hold-base").unlink()
    reason = wait_for("a", "CANCELLED")["reason"]
    assert "needed_failed" in codes(reason), reason
    assert wait_for("b", "CANCELLED", "FAILED")["state"] == "CANCELLED"
    wait_for("c", "DONE")
    assert not (hold / "began-a").exists() and not (hold / "began-b").exists()
    refused = submit("tune", "--seeds", "1", check=False)
    assert refused.returncode and "a needs pre/base: it is FAILED" in refused.stderr


def test_a_waiting_job_is_cancelled_alone(submit: Any, hold: Path, oelm: Any, states: Any, wait_for: Any) -> None:
    (hold / "hold-base").touch()
    submit("pre", "--seeds", "1")
    submit("tune", "--seeds", "1")
    assert oelm("cancel", "--yes", "tune/tuned").stdout == "tuned: cancelled\n"
    assert states()["tuned"]["state"] == "CANCELLED"
    wait_for("base", "RUNNING")
    (hold / "hold-base").unlink()
    wait_for("base", "DONE")
