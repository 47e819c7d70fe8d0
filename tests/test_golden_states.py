"""Runs in every state, as the store and the run directories of an earlier version hold them, and what is said of them.

``tests/golden/states`` holds records that real runs left: ``host.json`` and ``slurm.json`` (run
directories of this machine and of a cluster, by path), and ``store.sql`` (the client's index, with runs of a host
behind SSH besides), with names in the place of paths, hosts and the boot.
These are never written anew: later versions are to read them, and to show a reason that has no code word for word.
What is said of them may get keys called ``code`` and ``values``; ``UPDATE_GOLDEN=1 pytest tests/test_golden_states.py``
writes that anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oelm_jobs.cli.report import main as report
from oelm_jobs.cli.status import main as status
from tests.golden import HERE, ask_agent, compare, compare_json, replaced
from tests.golden.slurm import stand_in_for_slurm
from tests.support import REPOSITORY

STATES = HERE / "states"
NOW = 1795960000.0
"""When it is looked at: somewhat more than an hour after the runs."""
TARGETS = """
[here]
kind = "local"
[bad]
kind = "local"
"""
CLUSTER = """
[cluster]
kind = "slurm"
poll_s = 0
"""


@pytest.fixture
def places(tmp_path: Path) -> list[tuple[str, str]]:
    """What stands in the recorded files, and what it is here."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [("PROJECT", str(tmp_path / "project")), ("PLACE", str(tmp_path)), ("PYTHON", sys.executable),
            ("BOOT_ID", boot), ('"HOST"', f'"{os.uname().nodename}"'), ("TOOLKIT", str(REPOSITORY))]  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path, places: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with the store and the run directories; one run's claim is held, and of another a process lives."""
    root = tmp_path / "project"
    (root / "jobs").mkdir(parents=True)
    for name in ("tiny.toml", "batch.toml"):
        (root / "jobs" / name).write_text((STATES / name).read_text())
    for name in ("host.json", "slurm.json"):
        for path, text in json.loads((STATES / name).read_text()).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(replaced(text, places))
            os.utime(root / path, (NOW - 4500, NOW - 4500))
    index = Path(os.environ["OELM_STATE_DIR"]) / "runs.sqlite3"
    index.parent.mkdir(mode=0o700)
    with sqlite3.connect(index) as store:
        store.executescript(replaced((STATES / "store.sql").read_text(), places) + "PRAGMA user_version = 2;")
    store.close()
    monkeypatch.chdir(root)
    monkeypatch.setattr(time, "time", lambda: NOW)
    runs = root / "models" / "checkpoints" / "tiny"
    held = [os.open(runs / f"exp_{name}" / ".oelm" / "claim", os.O_RDWR) for name in ("running", "waiting", "behind")]
    for claim in held:
        fcntl.flock(claim, fcntl.LOCK_EX)
    alone = {**os.environ, "OELM_RUN_DIR": str(runs / "exp_alone")}
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], env=alone, stdin=subprocess.PIPE) as left:
        yield root
        left.kill()
    for claim in held:
        os.close(claim)


def told(text: str, places: Sequence[tuple[str, str]]) -> str:
    """Return what was printed with names in the place of what they stand for."""
    return replaced(text, [(path, name) for name, path in places])


def say(command: Any, *arguments: str) -> str:
    """Return what a command prints on stdout."""
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def answering(recorded: Path) -> Path:
    """The project with the targets of this machine."""
    (recorded / "jobs" / "targets.toml").write_text(TARGETS)
    return recorded


@pytest.fixture
def cluster(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cluster where some of the recorded jobs are in the queue, others in the accounts."""
    folder = stand_in_for_slurm(tmp_path, monkeypatch)
    (recorded / "jobs" / "targets.toml").write_text(TARGETS + CLUSTER)
    jobs = {}
    for path in (recorded / ".oelm" / "submissions").glob("*.json"):
        for job in json.loads(path.read_text()).get("jobs", ()):
            answer = recorded / ".oelm" / "slurm" / f"{path.stem}.{job['position']}.answer.json"
            said = json.loads(answer.read_text())
            for task, run_dir in enumerate(job["run_dirs"]):
                index = f"_{task}" if len(job["run_dirs"]) > 1 else ""
                jobs[Path(run_dir).name[4:]] = (said["id"], index, said["time"], job["name"])

    def queued(run: str, state: str, reason: str) -> str:
        number, index, at, name = jobs[run]
        return (
            f"{number}|{index[1:] or 'N/A'}|{state}|{at + 1:.0f}|{at:.0f}|n1|low|normal|{reason}|(null)|oelm|{name}\n"
        )

    def ended(run: str, state: str, code: str) -> str:
        number, index, at, name = jobs[run]
        return f"{number}{index}|{state}|{code}|{at:.0f}|{at + 1:.0f}|{at + 9:.0f}|n1|{name}\n"

    (folder / "squeue.says").write_text(
        queued("running", "RUNNING", "None") + queued("pending", "PENDING", "BeginTime")
    )
    (folder / "sacct.says").write_text(ended("lost", "NODE_FAIL", "0:0") + ended("late", "TIMEOUT", "0:0"))
    return folder


def test_what_a_store_says_of_targets_that_are_gone_stays(recorded: Path, places: list[tuple[str, str]]) -> None:
    compare("states/kept.txt", told(say(status), places))
    compare_json("states/kept.json", json.loads(told(say(status, "--json"), places)))


def test_what_run_directories_say_of_themselves_stays(recorded: Path, places: list[tuple[str, str]]) -> None:
    run_dirs = [str(path) for path in sorted((recorded / "models" / "checkpoints" / "tiny").glob("exp_*"))]
    done = ask_agent("probe", {"run_dirs": run_dirs})
    assert done.returncode == 0, done.stderr
    compare_json("states/probed.json", json.loads(told(done.stdout, places))["runs"])


def test_what_is_said_of_runs_whose_targets_answer_stays(answering: Path, places: list[tuple[str, str]]) -> None:
    compare("states/asked.txt", told(say(status, "--study", "tiny"), places))
    compare_json("states/asked.json", json.loads(told(say(status, "--study", "tiny", "--json"), places)))


def test_what_is_said_of_jobs_whose_cluster_answers_stays(cluster: Path, places: list[tuple[str, str]]) -> None:
    compare("states/asked_slurm.txt", told(say(status, "--study", "batch"), places))
    compare_json("states/asked_slurm.json", json.loads(told(say(status, "--study", "batch", "--json"), places)))


@pytest.mark.slow
def test_what_a_store_that_is_made_again_says_stays(cluster: Path, places: list[tuple[str, str]]) -> None:
    (Path(os.environ["OELM_STATE_DIR"]) / "runs.sqlite3").unlink()
    said = json.loads(told(say(status, "--rebuild", "--json"), places))
    said["runs"].sort(key=lambda run: (run["study"], run["name"]))
    compare_json("states/rebuilt.json", said)


@pytest.mark.slow
def test_what_another_project_finds_and_takes_over_stays(
    recorded: Path, cluster: Path, tmp_path: Path, places: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    (other / "jobs").mkdir(parents=True)
    (other / "jobs" / "tiny.toml").write_text((STATES / "tiny.toml").read_text())
    (other / "jobs" / "targets.toml").write_text(f'[there]\nkind = "local"\nroot = "{recorded}"\n')
    monkeypatch.chdir(other)
    found = json.loads(told(say(status, "--json"), places))
    for holding in found["elsewhere"]:
        holding["runs"].sort(key=lambda run: (run["study"], run["name"]))
    taken = json.loads(told(say(status, "--adopt", str(recorded), "--json"), places))
    runs = sorted([run["study"], run["name"], run["target"], run["state"], run["reason"]] for run in taken["runs"])
    compare_json("states/adopted.json", {"found": found, "taken": runs})


@pytest.mark.parametrize("study", ["tiny", "batch"])
def test_what_a_report_reads_in_run_directories_stays(
    recorded: Path, places: list[tuple[str, str]], study: str
) -> None:
    said = json.loads(told(say(report, "--study", study, "--json"), places))
    keys = ("run", "status", "reason", "last_step", "max_steps", "attempts", "elapsed_hours", "final", "notes")
    runs = [{key: run[key] for key in keys} for run in said["runs"]]
    kept = {"runs": runs, "findings": said["findings"], "table": said["tables"]["runs"]}
    compare_json(f"states/reported_{study}.json", kept)
