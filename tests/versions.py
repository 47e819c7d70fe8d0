"""What another version of the toolkit submitted, in the hands of this one: how that version is had and run, and what
must hold on every kind of target.
"""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import REPOSITORY, read, wait_until

PREVIOUS = os.environ.get("OELM_PREVIOUS") or "ee62c148cdcf02ca748c82c2cf3f393cac54e341"
"""The other version, as git names commits: the last one before the packages were laid out anew."""
GROUPS = ("gpt_base", "oelm_no_freeze", "oelm_freeze")
HELD_AT = 6
"""The step after which the trainer waits: its first checkpoint (save_interval of the tiny study)."""


# The other version ----------------------------------------------------------------------------------------------------


def git(*words: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in the checkout, whoever owns it."""
    return subprocess.run(["git", "-c", f"safe.directory={REPOSITORY}", *words], cwd=REPOSITORY, capture_output=True)


def previous_version(place: Path) -> Path:
    """Take the other version out of git into a folder below ``place``; return what to put into sys.path.

    It is laid out as an installed one: what lies beside the package in a checkout is inside it.

    Where the history is cut off, tests are skipped, in CI too: no package that could be installed brings the commit. A
    whole clone has it, being one that this version was made from; a version that was asked for has to be there.
    """
    if not (REPOSITORY / ".git").exists():
        pytest.skip(f"no git history here (not a clone): version {PREVIOUS} can't be had")
    if git("rev-parse", "--verify", "--quiet", f"{PREVIOUS}^{{commit}}").returncode:
        is_named = "OELM_PREVIOUS" in os.environ
        assert not is_named, f"OELM_PREVIOUS: git knows no commit {PREVIOUS}"
        pytest.skip(f"the git history here does not reach back to {PREVIOUS}: fetch it (git fetch --unshallow)")
    packed = git("archive", "--format=tar", PREVIOUS)
    assert packed.returncode == 0, packed.stderr.decode()
    folder = place / "previous"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder)
    options = configparser.ConfigParser()
    options.read(folder / "setup.cfg")
    for line in options.get("options", "package_dir", fallback="").split("\n"):
        package, _, where = (word.strip() for word in line.partition("="))
        inside = folder.joinpath(*package.split("."))
        if where and not inside.exists():
            inside.symlink_to(folder / where)
    return folder


def sources(package: Path) -> dict[str, bytes]:
    """Return a package's Python files, by path within it."""
    return {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*.py")}


# Both versions in one project -----------------------------------------------------------------------------------------


@dataclass
class Bench:
    """A project, a target of it whose runs train with tests/ssh/trainer.py, and both versions of the commands."""

    previous: Path
    """What leads to the other version in sys.path."""
    project: Path
    target: str
    root: Path
    """The target's root, as this process sees it."""
    holds: Path
    """The folder that TRAINER_HOLD names on the target."""
    leases: Path | None = None
    """A plain host's folder of leases."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the next commands."""

    def __post_init__(self) -> None:
        self.holds.mkdir()

    def _argv(self, name: str, words: tuple[str, ...], folder: Path | None) -> list[str]:
        path = f"import sys; sys.path.insert(0, {str(folder)!r}); " if folder else ""
        return [sys.executable, "-c", f"{path}from oelm_jobs.cli.{name} import main; main()", *words]

    def _run(self, name: str, words: tuple[str, ...], folder: Path | None, check: bool) -> Any:
        done = subprocess.run(
            self._argv(name, words, folder),
            cwd=self.project,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{name} {words}: {done.stderr}{done.stdout}"
        return done

    def start(self, version: Path | None, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in the project: of the version in a folder, or (None) of this one."""
        null = subprocess.DEVNULL
        argv = self._argv(name, words, version)
        return subprocess.Popen(argv, cwd=self.project, stdin=null, stdout=null, stderr=null)

    def old(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the other version in the project."""
        done: subprocess.CompletedProcess[str] = self._run(name, words, self.previous, check)
        return done

    def new(self, name: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of this version in the project."""
        done: subprocess.CompletedProcess[str] = self._run(name, words, None, check)
        return done

    def submit(self, version: Callable[..., Any], *names: str, mode: str = "sequential", check: bool = True) -> str:
        """Have one of the versions submit groups of the study; return all that it said."""
        only = ("--groups", ",".join(names)) if names else ()
        done = version("submit", "--study", "tiny", "--target", self.target, "--mode", mode, *only, check=check)
        return str(done.stdout + done.stderr)

    def rows(self, version: Callable[..., Any] | None = None, *words: str) -> dict[str, dict[str, Any]]:
        """Return what the status of a version (this one) says of each run."""
        shown = json.loads((version or self.new)("status", "--json", *words).stdout)
        return {row["name"]: row for row in shown["runs"]}

    def states(self, *words: str) -> dict[str, str]:
        """Return where each run stands, as this version says."""
        return {name: row["state"] for name, row in self.rows(None, *words).items()}

    def wait_for(self, **wanted: str) -> None:
        """Wait until this version says of runs what is wanted, by name; fail with what it said last."""
        last: dict[str, str] = {}

        def is_so() -> bool:
            last.update(self.states())
            return all(last.get(name) == state for name, state in wanted.items())

        try:
            wait_until(is_so, str(wanted))
        except AssertionError as error:
            raise AssertionError(f"{error}; last {last}: {self.new('status').stdout}") from None

    def at_home(self, name: str) -> Path:
        """Where a run lies once it was fetched."""
        return self.project / "models" / "checkpoints" / "tiny" / f"exp_{name}"

    def run_dir(self, name: str) -> Path:
        """Where a run lies on its target."""
        return self.root / "models" / "checkpoints" / "tiny" / f"exp_{name}"

    def log(self, name: str) -> str:
        """Return a run's training log as it lies on its target."""
        return (self.run_dir(name) / "training.log").read_text()

    def attempts(self, name: str) -> list[dict[str, Any]]:
        """Return a run's attempts as its result has them."""
        found: list[dict[str, Any]] = read(self.run_dir(name) / "experiment_result.json")["attempts"]
        return found

    # Trainers ---------------------------------------------------------------------------------------------------------

    def hold(self, *names: str) -> None:
        """Have the trainers of runs wait after their first checkpoint."""
        for name in names:
            (self.holds / f"exp_{name}").touch()

    def release(self, *names: str) -> None:
        """Let them go on."""
        for name in names:
            (self.holds / f"exp_{name}").unlink()

    def wait_until_held(self, name: str) -> None:
        """Wait until a run's trainer has made its first checkpoint."""
        wait_until((self.run_dir(name) / f"checkpoint_{HELD_AT}.pt").exists, f"{name} to reach step {HELD_AT}")
        wait_until(lambda: read(self.run_dir(name) / "heartbeat.json")["step"] == HELD_AT, f"the heartbeat of {name}")

    def trainers(self, name: str) -> list[int]:
        """Return the processes that train a run; a host in namespaces of its own is part of this machine, too."""
        run_dir = str(self.run_dir(name))
        return [pid for pid, argv in processes() if run_dir in argv and argv[2:3] and argv[2].endswith("trainer.py")]

    def lose_supervisor(self, name: str) -> None:
        """Kill the supervisor of a run on a plain host."""
        run_dir = str(self.run_dir(name))
        [pid] = [pid for pid, argv in processes() if argv[2:3] == ["supervise"] and run_dir in argv]
        os.kill(pid, signal.SIGKILL)

    def crash(self, name: str) -> None:
        """Kill a run's trainer."""
        [pid] = self.trainers(name)
        os.kill(pid, signal.SIGKILL)

    # Agents -----------------------------------------------------------------------------------------------------------

    def assert_supervised_by(self, name: str, version: Path) -> None:
        """Fail unless the agent that the newest launch script of a run starts is a version's, to the byte."""
        control = self.run_dir(name) / ".oelm"
        scripts, token = [control / "launch.sh"], read(control / "start.json")["token"]
        if not scripts[0].exists():  # Slurm's serve several runs, and several make a submission
            scripts = list((self.root / ".oelm" / "slurm").glob(f"{token}*.sh"))
        [folder] = {name for script in scripts for name in re.findall(r"\.oelm/agent/([0-9a-f]+)", script.read_text())}
        there = sources(self.root / ".oelm" / "agent" / folder / "agent")
        assert there == sources(version / "oelm_jobs" / "agent"), f"{name} is not supervised by {version}"


def processes() -> list[tuple[int, list[str]]]:
    """Return the command lines of all processes of this machine, by process id."""
    return [(process.pid, process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]


def facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two versions say alike of a run that stands still."""
    progress = {key: row["progress"].get(key) for key in ("step", "attempt", "devices", "loss", "val_loss")}
    return {key: row[key] for key in ("name", "study", "target", "state", "reason", "run_dir")} | progress


# What must hold -------------------------------------------------------------------------------------------------------


def runs_that_wait_and_train_are_shown_followed_and_not_started_again(bench: Bench) -> None:
    bench.hold("gpt_base")
    bench.submit(bench.old)
    bench.wait_until_held("gpt_base")
    bench.assert_supervised_by("gpt_base", bench.previous)
    bench.wait_for(gpt_base="RUNNING", oelm_no_freeze="QUEUED", oelm_freeze="QUEUED")
    old, new = bench.rows(bench.old), bench.rows()
    assert {name: facts(row) for name, row in new.items()} == {name: facts(row) for name, row in old.items()}
    assert (new["gpt_base"]["progress"]["step"], new["gpt_base"]["progress"]["attempt"]) == (HELD_AT, 1)
    assert f"Step {HELD_AT:6}" in bench.new("logs", "gpt_base", "--lines", "99").stdout
    [trainer] = bench.trainers("gpt_base")

    again = bench.submit(bench.new)
    assert "gpt_base: left alone, is RUNNING" in again and again.count("left alone, is QUEUED") == 2, again
    bench.environment["OELM_STATE_DIR"] = str(bench.project.parent / "another laptop")
    bench.submit(bench.new, "gpt_base", check=False)  # whose index has nothing of it
    assert bench.trainers("gpt_base") == [trainer], "it trains once"
    bench.environment.clear()

    bench.release("gpt_base")
    bench.wait_for(**dict.fromkeys(GROUPS, "DONE"))
    for name in GROUPS:
        assert len(bench.attempts(name)) == 1 and bench.log(name).count("Started") == 1, name


def a_waiting_and_a_training_run_are_cancelled_and_go_on_from_their_checkpoints(bench: Bench) -> None:
    bench.hold("gpt_base", "oelm_no_freeze")
    bench.submit(bench.old)
    bench.wait_until_held("gpt_base")
    assert bench.new("cancel", "oelm_freeze").stdout == "oelm_freeze: cancelled\n"
    assert bench.new("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert not bench.trainers("gpt_base"), "its processes are gone"
    assert read(bench.run_dir("gpt_base") / ".oelm" / "outcome.json")["status"] == "resumable"
    bench.wait_until_held("oelm_no_freeze")  # whose supervisor saw that the one before it is over
    bench.wait_for(gpt_base="CANCELLED", oelm_no_freeze="RUNNING", oelm_freeze="CANCELLED")
    assert bench.rows()["gpt_base"]["reason"] == "cancelled", "its supervisor was told who ended it"
    assert not bench.trainers("oelm_freeze") and not (bench.run_dir("oelm_freeze") / "training.log").exists()
    assert {name: facts(row) for name, row in bench.rows().items()} == {
        name: facts(row) for name, row in bench.rows(bench.old).items()
    }

    words = bench.submit(bench.new, "gpt_base", "oelm_freeze", mode="parallel")
    assert words.count("submitted to") == 2, words
    bench.release("oelm_no_freeze")  # which may have the only device
    bench.wait_for(**dict.fromkeys(GROUPS, "DONE"))
    bench.assert_supervised_by("gpt_base", REPOSITORY)
    result = read(bench.run_dir("gpt_base") / "experiment_result.json")
    assert [attempt["state"] for attempt in result["attempts"]] == ["CANCELLED", "DONE"]
    assert result["outcome"]["resumed_from"] > HELD_AT - 1 and "Resumed from step" in bench.log("gpt_base")
    assert bench.log("oelm_freeze").count("Started") == 1


def finished_and_failed_runs_are_shown_fetched_freed_and_reported(bench: Bench) -> None:
    bench.hold("oelm_freeze")
    bench.submit(bench.old, "gpt_base", "oelm_no_freeze", "oelm_freeze")
    bench.wait_until_held("oelm_freeze")
    bench.crash("oelm_freeze")
    bench.wait_for(gpt_base="DONE", oelm_no_freeze="DONE", oelm_freeze="FAILED")
    rows = bench.rows()
    end = read(bench.run_dir("oelm_freeze") / ".oelm" / "end.json")
    assert rows["oelm_freeze"]["reason"] == end["reason"] and end["reason"], "in the words of its record"
    assert {name: facts(row) for name, row in rows.items()} == {
        name: facts(row) for name, row in bench.rows(bench.old).items()
    }

    done = fetched(bench)
    assert {run["run"] for run in done} == set(GROUPS) and all(run["verified"] for run in done), done
    for name in GROUPS:
        assert_same_files(bench, name)
    assert [run["new_files"] for run in fetched(bench)] == [0, 0, 0], "all of it is at home"
    report = bench.new("report", "--study", "tiny").stdout
    assert all(words in report for words in ("H1", "H2", "Group A: GPT-Base", "Group B: OELM-NoFreeze")), report

    assert "freed" in bench.new("clean", "tiny", "--yes").stdout
    assert not list(bench.run_dir("gpt_base").glob("*.pt")) and list(bench.run_dir("oelm_freeze").glob("*.pt"))
    bench.release("oelm_freeze")
    words = bench.submit(bench.new)
    assert words.count("left alone, is done") == 2 and "oelm_freeze: submitted" in words, words
    bench.wait_for(**dict.fromkeys(GROUPS, "DONE"))
    assert f"Resumed from step {HELD_AT}" in bench.log("oelm_freeze"), "what it goes on from was not freed"
    assert [attempt["state"] for attempt in bench.attempts("oelm_freeze")] == ["FAILED", "DONE"]


def fetched(bench: Bench) -> list[dict[str, Any]]:
    """Fetch all there is with this version; return what it said of each run."""
    done = bench.new("fetch", "tiny", "--json", "--checkpoints", "all")
    found: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return found


def assert_same_files(bench: Bench, name: str) -> None:
    """Fail unless a run that is over is at home as it lies on its target, but for who holds it there."""
    home, there = bench.at_home(name), bench.run_dir(name)
    names = {path.relative_to(home) for path in home.rglob("*") if path.is_file() and path.name != "fetched.json"}
    assert {path.name for path in names} >= {"training.log", "metrics.jsonl", "run.json", "checkpoint_6.pt"}, names
    for path in names:
        assert (home / path).read_bytes() == (there / path).read_bytes(), path


def an_index_made_again_and_a_moved_project_have_its_runs(bench: Bench) -> None:
    bench.hold("oelm_no_freeze")
    bench.submit(bench.old)
    bench.wait_until_held("oelm_no_freeze")
    wanted = {"gpt_base": "DONE", "oelm_no_freeze": "RUNNING", "oelm_freeze": "QUEUED"}
    bench.wait_for(**wanted)
    known = bench.rows()
    bench.environment["OELM_STATE_DIR"] = str(bench.project.parent / "another laptop")
    assert bench.states() == {}
    assert bench.states("--rebuild") == wanted
    assert {name: facts(row) for name, row in bench.rows().items()} == {name: facts(row) for name, row in known.items()}
    assert "left alone, is RUNNING" in bench.submit(bench.new, "oelm_no_freeze")

    bench.project = bench.project.rename(bench.project.with_name("moved"))
    assert "took over 3 runs" in bench.new("status", "--adopt").stderr
    assert bench.states() == wanted
    assert bench.new("cancel", "--all", "--yes").stdout.count("cancelled") == 2
    over = {"gpt_base": "DONE", "oelm_no_freeze": "CANCELLED", "oelm_freeze": "CANCELLED"}
    assert bench.states() == over
    verified = {run["run"] for run in fetched(bench) if run["verified"]}
    assert verified >= {"gpt_base", "oelm_no_freeze"}, "the third never began and may have no folder"
    bench.release("oelm_no_freeze")
    bench.submit(bench.new)
    bench.wait_for(**dict.fromkeys(GROUPS, "DONE"))
    assert "Resumed from step" in bench.log("oelm_no_freeze") and bench.log("gpt_base").count("Started") == 1


def a_run_of_this_version_is_not_started_again_by_a_client_of_the_other(bench: Bench) -> None:
    bench.hold("gpt_base")
    bench.submit(bench.new, "gpt_base")
    bench.wait_until_held("gpt_base")
    bench.assert_supervised_by("gpt_base", REPOSITORY)
    [trainer] = bench.trainers("gpt_base")
    for state in ("", str(bench.project.parent / "another laptop")):
        bench.environment = {"OELM_STATE_DIR": state} if state else {}
        bench.submit(bench.old, "gpt_base", check=False)
        assert bench.trainers("gpt_base") == [trainer], "it trains once"
    bench.environment.clear()
    bench.release("gpt_base")
    bench.wait_for(gpt_base="DONE")
    assert len(bench.attempts("gpt_base")) == 1 and bench.log("gpt_base").count("Started") == 1


SCENARIOS = (
    runs_that_wait_and_train_are_shown_followed_and_not_started_again,
    a_waiting_and_a_training_run_are_cancelled_and_go_on_from_their_checkpoints,
    finished_and_failed_runs_are_shown_fetched_freed_and_reported,
    an_index_made_again_and_a_moved_project_have_its_runs,
    a_run_of_this_version_is_not_started_again_by_a_client_of_the_other,
)
"""Each for every kind of target."""


def one_device_serves_runs_of_both_versions_in_turn(bench: Bench) -> None:
    """For a host with one device."""
    bench.hold(*GROUPS)
    bench.submit(bench.old, "gpt_base")
    bench.wait_until_held("gpt_base")
    bench.submit(bench.new, "oelm_freeze")
    wait_until(lambda: bench.rows()["oelm_freeze"]["progress"].get("place") == 1, "the newer run to be first in line")
    bench.submit(bench.old, "oelm_no_freeze")
    wait_until(lambda: bench.rows()["oelm_no_freeze"]["progress"].get("place") == 2, "the older run to be second")
    bench.wait_for(gpt_base="RUNNING", oelm_freeze="QUEUED", oelm_no_freeze="QUEUED")
    assert "(gpt_base)" in bench.new("status", "--gpus").stdout
    bench.release("gpt_base")
    bench.wait_until_held("oelm_freeze")
    bench.wait_for(gpt_base="DONE", oelm_freeze="RUNNING", oelm_no_freeze="QUEUED")
    assert not bench.trainers("oelm_no_freeze"), "the device is the newer version's"
    assert "(oelm_freeze)" in bench.old("status", "--gpus").stdout
    bench.release("oelm_freeze")
    bench.wait_until_held("oelm_no_freeze")
    bench.release("oelm_no_freeze")
    bench.wait_for(**dict.fromkeys(GROUPS, "DONE"))
    for name in ("gpt_base", "oelm_no_freeze"):
        bench.assert_supervised_by(name, bench.previous)
    [[first], [second], [third]] = (bench.attempts(name) for name in ("gpt_base", "oelm_freeze", "oelm_no_freeze"))
    assert first["ended_at"] <= second["started_at"] and second["ended_at"] <= third["started_at"]
    assert first["devices"] == second["devices"] == third["devices"]
    assert bench.leases is not None
    locks = sorted(path.name for path in bench.leases.glob("gpu-*"))
    assert len(locks) == 1, f"both versions lock the device by one file: {locks}"


def what_a_lost_supervisor_leaves_keeps_its_device_until_it_is_ended(bench: Bench) -> None:
    """For a host with one device."""
    bench.hold("gpt_base")
    bench.submit(bench.old, "gpt_base")
    bench.wait_until_held("gpt_base")
    bench.lose_supervisor("gpt_base")
    bench.wait_for(gpt_base="UNKNOWN")
    assert "UNKNOWN" in bench.submit(bench.new, "gpt_base") and len(bench.trainers("gpt_base")) == 1
    bench.submit(bench.new, "oelm_freeze")
    log = bench.run_dir("oelm_freeze") / ".oelm" / "supervisor.log"
    wait_until(lambda: log.exists() and "gpt_base" in log.read_text(), "the newer run to see whose device it is")
    assert not bench.trainers("oelm_freeze")
    assert bench.new("cancel", "gpt_base").stdout == "gpt_base: cancelled\n"
    assert not bench.trainers("gpt_base")
    bench.wait_for(oelm_freeze="DONE")
    bench.release("gpt_base")
    assert "gpt_base: submitted" in bench.submit(bench.new, "gpt_base")
    bench.wait_for(gpt_base="DONE")
    assert len(bench.attempts("gpt_base")) == 2 and "Resumed from step" in bench.log("gpt_base")


ON_ONE_DEVICE = (
    one_device_serves_runs_of_both_versions_in_turn,
    what_a_lost_supervisor_leaves_keeps_its_device_until_it_is_ended,
)
"""Each for every plain host."""
