"""The example of a script of 60 lines on a GPU server behind SSH: stopped in the middle, resumed, fetched, judged."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ssh.testbed import Client, Host
from tests.support import REPOSITORY, read, wait_until

pytestmark = pytest.mark.slow
STUDY = "jobs/examples/spirals.toml"


def test_a_script_is_cancelled_there_goes_on_and_is_judged_here(
    new_host: Callable[..., Host], client: Client, project: Path, oelm: Any
) -> None:
    host = new_host("box", gpus=4)
    client.knows(host)
    shutil.copytree(REPOSITORY / "jobs" / "examples", project / "jobs" / "examples")
    where = ("--host", "box", "--root", "oelm", "--setup", f'export PATH="{Path(sys.executable).parent}:$PATH"')
    oelm("submit", "--study", STUDY, "--mode", "parallel", *where)
    there = host.home() / "oelm" / "models" / "checkpoints" / "spirals"
    wait_until(lambda: (there / "exp_wide" / "work" / "last.pt").exists(), "a checkpoint")
    assert "wide: cancelled\n" in oelm("cancel", "wide", "--study", "spirals", "--yes").stdout
    stopped = (there / "exp_wide" / "training.log").read_text()
    oelm("submit", "--study", STUDY, "--mode", "parallel", *where, "--wait")
    names = ["exp_narrow", "exp_narrow-s2", "exp_wide", "exp_wide-s2"]
    fetched = json.loads(oelm("fetch", "--study", "spirals", "--json").stdout)["runs"]
    assert [run["verified"] for run in fetched] == [True] * 4
    home = project / "models" / "checkpoints" / "spirals"
    for name in names:
        assert read(home / name / "experiment_result.json")["status"] == "DONE"
        assert read(home / name / "heartbeat.json")["metrics"]["val_loss"] > 0
    log = (home / "exp_wide" / "training.log").read_text()
    assert log.startswith(stopped) and log.count("step 100:") == 1, "it went on from its checkpoint"
    report = json.loads(oelm("report", "--study", STUDY, "--json").stdout)
    assert [verdict["id"] for verdict in report["verdicts"]] == ["H1", "H2"]
    assert report["verdicts"][0]["ratio"] is not None
