"""Offline runs of W&B's own client, of two attempts, are sent by its own command as one run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run import variables
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.transfer.trackers import wandb_sync
from tests.programs.wandb_server import serving

PROGRAM = """
import sys, wandb
with wandb.init(project="rates", config={"lr": 1e-3}) as run:
    for step in range(int(sys.argv[1]), int(sys.argv[2])):
        run.log({"val_loss": 1 / (step + 1)}, step=step)
"""


def test_two_attempts_that_were_offline_are_sent_as_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    run_dir = tmp_path / "run"
    (run_dir / rundir.CONTROL).mkdir(parents=True)
    rundir.mark_origin(run_dir, "t1")
    record = RunRecord(study="rates", run="low-s43", group="low", token="t1", run_dir=str(run_dir))
    environment = {**os.environ, **variables.of_program(record, os.environ)}
    for first, last in ((0, 5), (5, 8)):
        words = [sys.executable, "-c", PROGRAM, str(first), str(last)]
        subprocess.run(words, env=environment, cwd=tmp_path, check=True, capture_output=True)
    argv = wandb_sync([run_dir])
    assert [Path(word).name.split("-")[:2] for word in argv[2:]] == [["offline", "run"]] * 2
    with serving() as server:
        known = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        for _time in range(2):  # what was sent is not sent again
            done = subprocess.run(argv, env=known, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        told = server.runs[variables.run_id(record)]
        assert (told["displayName"], told["groupName"], told["project"]) == ("low-s43", "rates/low", "rates")
        rows = server.history[variables.run_id(record)]
        assert [(row["_step"], row["val_loss"]) for row in rows] == [(step, 1 / (step + 1)) for step in range(8)]
