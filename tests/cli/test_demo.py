"""``oelm demo``: a process is killed, the run goes on, and what it tells twice is compared."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oelm_jobs.agent import processes
from oelm_jobs.demo import Interruption
from tests.support import TINY_STUDY, wait_until

STUDY = TINY_STUDY.partition("[hypotheses]")[0].replace("max_retries = 0", "max_retries = 1")
STUDY = STUDY.replace("max_steps = 12", "max_steps = 60").replace("save_interval = 6", "save_interval = 20")
KEPT = ("[groups]", "gpt_base", "oelm_freeze")


@pytest.mark.slow
def test_the_demo_kills_a_process_and_shows_that_its_run_went_on_to_the_same(
    oelm, quick: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, _, groups = STUDY.partition("[groups]")
    lines = [line for line in groups.splitlines() if line.startswith(KEPT)]
    (quick / "jobs" / "demo.toml").write_text("\n".join([head, "[groups]", *lines]) + "\n")
    monkeypatch.setenv("TRAINER_STEP_S", "0.3")
    done = oelm("demo", ".")
    assert "kill -9" in done.stderr and "trains gpt_base" in done.stderr
    assert "gpt_base went on by itself from its checkpoint of step" in done.stdout
    assert "loss       before 4.0" in done.stdout and "The same to the last bit" in done.stdout
    attempts = json.loads((quick / "models/checkpoints/demo/exp_gpt_base/.oelm/end.json").read_text())["attempts"]
    assert len(attempts) == 2
    assert (quick / "experiments" / "demo" / "analysis" / "report.html").is_file()
    again = oelm("demo", ".")
    assert "left alone" in again.stdout and "kill -9" not in again.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run directory whose record names a process that waits for its child."""
    run_dir = tmp_path / "exp_a"
    (run_dir / ".oelm").mkdir(parents=True)
    child = "import time; time.sleep(600)"
    parent = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {child!r}]))"
    process = subprocess.Popen([sys.executable, "-c", parent])
    (run_dir / ".oelm" / "start.json").write_text(json.dumps({"number": 1, "pid": process.pid}))
    wait_until(lambda: processes.descendants_of(process.pid), "the child")
    yield process, run_dir
    processes.send(processes.descendants_of(process.pid), signal.SIGKILL)
    process.kill()
    process.wait()


def tell(run_dir: Path, *rows: dict[str, object]) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_nothing_is_killed_before_there_is_a_checkpoint_with_steps_behind_it(
    tree: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, run_dir = tree
    fault = Interruption(run_dir=run_dir)
    assert not fault.look()
    tell(run_dir, *({"step": step, "loss": 1.0} for step in (10, 20, 30)))
    assert not fault.look()
    (run_dir / "checkpoint_20.pt").touch()
    assert not fault.look(), "one step behind it is not much"
    tell(run_dir, {"step": 40, "loss": 0.5})
    (rank,) = processes.descendants_of(process.pid)
    assert fault.look() and fault.killed is not None
    assert (fault.killed.pid, fault.killed.step, fault.killed.checkpoint) == (rank.pid, 40, 20)
    assert process.wait() == 256 - signal.SIGKILL or process.returncode != 0
    assert not fault.look(), "once"


def test_a_run_that_went_on_from_a_checkpoint_before_is_left_alone(
    tree: tuple[subprocess.Popen[bytes], Path],
) -> None:
    _process, run_dir = tree
    tell(run_dir, *({"step": step} for step in (10, 20, 30, 20, 30, 40)))
    (run_dir / "checkpoint_10.pt").touch()
    assert not Interruption(run_dir=run_dir).look()


def test_steps_that_were_trained_twice_are_the_same_only_to_the_last_bit(tmp_path: Path) -> None:
    tell(tmp_path, {"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.3, "val_loss": 1.5}, {"step": 3, "loss": 0.2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo\n')
    tell(tmp_path, {"step": 2, "loss": 0.3, "val_loss": 1.5}, {"step": 3, "loss": 0.2 + 2**-54})
    same, other = Interruption(run_dir=tmp_path).repeated()
    assert same.step == 2 and same.is_same and same.before == {"loss": 0.3, "val_loss": 1.5}
    assert other.step == 3 and not other.is_same


def test_the_demo_stays_out_of_the_home_folder(oelm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    done = oelm("demo", str(tmp_path), check=False)
    assert done.returncode == 2 and "is no program's folder" in done.stderr
