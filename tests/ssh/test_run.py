"""``oelm run`` in a plain folder, with a host that the user's own targets file knows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_run import TRAIN, argv_of, write_script
from tests.ssh.testbed import Host

pytestmark = pytest.mark.slow


def test_a_command_runs_on_a_host_and_its_log_and_files_come_home(own_box: Host, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_script(folder)

    def oelm(*words: str) -> str:
        argv = argv_of(*words)
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    assert "step 5: loss 0.1000 seed 0" in oelm("run", "--target", "box", "--", *TRAIN, "--lr", "0.5")
    oelm("run", "--target", "box", "--set", "lr=1,2", "--", *TRAIN, "--lr", "{lr}")
    assert {run["state"] for run in json.loads(oelm("status", "--json"))["runs"]} == {"DONE"}
    oelm("fetch")
    home, there = (place / "models" / "checkpoints" for place in (folder, own_box.home() / "oelm"))
    for name in ("train/exp_train", "train-2/exp_lr_1", "train-2/exp_lr_2"):
        assert (home / name / "training.log").read_text() == (there / name / "training.log").read_text()
        assert (home / name / "work" / "attempts.txt").read_text() == "attempt\n"
