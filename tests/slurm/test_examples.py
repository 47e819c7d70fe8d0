"""The example of a script of 60 lines on a cluster of two nodes: cancelled in the middle, resumed, judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.slurm.testbed import Testbed
from tests.support import REPOSITORY, read, wait_until

pytestmark = pytest.mark.slow
STUDY = "jobs/examples/spirals.toml"


def test_a_script_is_cancelled_goes_on_and_is_judged(oelm, project: Path, target, cluster: Testbed) -> None:
    shutil.copytree(REPOSITORY / "jobs" / "examples", project / "jobs" / "examples")
    words = ("--study", STUDY, "--target", "cluster", "--mode", "parallel")
    oelm("submit", *words)
    folder = project / "models" / "checkpoints" / "spirals"
    wait_until(lambda: (folder / "exp_wide" / "work" / "last.pt").exists(), "a checkpoint")
    oelm("cancel", "wide", "--study", "spirals", "--yes", check=False)
    oelm("submit", *words, "--wait")
    for name in ("exp_narrow", "exp_narrow-s2", "exp_wide", "exp_wide-s2"):
        result = read(folder / name / "experiment_result.json")
        assert result["status"] == "DONE" and result["attempts"][-1]["devices"][0].startswith("n")
    report = json.loads(oelm("report", "--study", STUDY, "--json").stdout)
    assert [verdict["id"] for verdict in report["verdicts"]] == ["H1", "H2"]
    assert report["verdicts"][0]["ratio"] is not None
