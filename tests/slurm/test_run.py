"""``oelm run`` in a plain folder, with a cluster that the user's own targets file knows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_run import TRAIN, argv_of, write_script
from tests.slurm.testbed import Testbed

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cluster")]


def test_a_command_runs_on_a_cluster_once_for_each_value(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_script(folder)
    words = ("--target", "cluster", "--set", "lr=1,2", "--num-seeds", "2")
    argv = argv_of("run", *words, "--", *TRAIN, "--lr", "{lr}", "--seed", "{seed}")
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr + done.stdout
    runs = folder / "models" / "checkpoints" / "train"
    for name, seed in (("lr_1", 42), ("lr_2", 42), ("lr_1-s43", 43), ("lr_2-s43", 43)):
        assert f"seed {seed}" in (runs / f"exp_{name}" / "training.log").read_text()
        assert (runs / f"exp_{name}" / "work" / "attempts.txt").read_text() == "attempt\n"


def test_a_command_without_gpus_gets_cores_and_sees_no_gpu(cluster: Testbed, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    write_script(folder)
    show = "echo gpus {gpus} visible [$CUDA_VISIBLE_DEVICES] threads $OMP_NUM_THREADS granted [$SLURM_JOB_GPUS]"
    words = ("--target", "cluster", "--gpus", "0", "--", "bash", "-c", show)
    done = subprocess.run(argv_of("run", *words), cwd=folder, capture_output=True, text=True, timeout=500,
                          stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    (log,) = (folder / "models" / "checkpoints").glob("*/*/training.log")
    assert log.read_text() == "gpus 0 visible [] threads 1 granted []\n"
    told = subprocess.run(argv_of("status", "--json"), cwd=folder, capture_output=True, text=True, timeout=100).stdout
    (row,) = json.loads(told)["runs"]
    assert (row["state"], row["progress"]["devices"]) == ("DONE", ["n1/cpu:0"])
    assert "gres/gpu" not in cluster.job(row["progress"]["job"]).get("TRES", "")
