"""Fixtures of the Slurm tests: a real cluster for the session, and a project whose target it is."""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.slurm import profile as slurm_profile
from oelm_jobs.folders import config_folder
from oelm_jobs.runs import observe
from oelm_jobs.store import Store
from tests.objects import check_printed
from tests.slurm import testbed
from tests.slurm.login import Login
from tests.slurm.testbed import Testbed
from tests.ssh.testbed import COMMANDS as SSH_COMMANDS
from tests.ssh.testbed import Client, Network
from tests.support import needs, stand_in_for_python, wait_until

ROOMS = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a test that failed what the cluster knows: once the test is over, its jobs are gone."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.when == "call" and report.failed and isinstance(cluster, Testbed):
        report.sections.append(("What Slurm knows", cluster.told()))
    return report


@pytest.fixture(scope="session")
def installed() -> None:
    """Slurm, and root for daemons with device files."""
    needs(*testbed.COMMANDS, root=True, linux=True)


@pytest.fixture(scope="session")
def session_cluster(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A cluster with accounting, which this process's Slurm tests share."""
    with Testbed(tmp_path_factory.mktemp("slurm") / "bed") as made:
        yield made


@pytest.fixture
def new_cluster(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Testbed]]:
    """Start a cluster of a test's own: ``new_cluster(accounting=False)``; it becomes the current one."""
    made: list[Testbed] = []

    def start(**values: Any) -> Testbed:
        cluster = Testbed(tmp_path / f"bed{len(made)}", **values)
        made.append(cluster)
        cluster.start()
        use(cluster, monkeypatch, tmp_path)
        return cluster

    yield start
    for cluster in made:
        cluster.stop()


@pytest.fixture
def cluster(session_cluster: Testbed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Testbed]:
    """The shared cluster, empty before and after a test."""
    use(session_cluster, monkeypatch, tmp_path)
    yield session_cluster
    session_cluster.end_jobs()


def use(cluster: Testbed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this process and its children see the cluster."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OELM_ROOM_POLL_S", "1")


@pytest.fixture
def room_for(cluster: Testbed) -> Iterator[Callable[[int], None]]:
    """Limit how many jobs the cluster takes of this user; -1 for as many as come.

    The limit is one of an account of the test's own, which is the default one meanwhile: in the others slurmctld may
    still count jobs of earlier tests that are long over, and would have no room for an array as large as the limit.
    """
    account = f"room{next(ROOMS)}"
    before = cluster.run("sacctmgr", "-nP", "show", "user", "root", "format=DefaultAccount").strip()

    def heard() -> str:
        return cluster.run("scontrol", "show", "assoc_mgr", f"accounts={account}", "users=root", "flags=assoc")

    def limit(jobs: int) -> None:
        cluster.run("sacctmgr", "-i", "modify", "user", "root", f"account={account}", "set", f"MaxSubmitJobs={jobs}")
        shown = rf"MaxSubmitJobs={jobs}\b" if jobs >= 0 else r"MaxSubmitJobs=(?!\d)"
        wait_until(lambda: re.search(shown, heard()), "slurmctld to hear of the limit")

    cluster.run("sacctmgr", "-i", "add", "account", account)
    cluster.run("sacctmgr", "-i", "add", "user", "root", f"account={account}")
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", f"DefaultAccount={account}")
    wait_until(lambda: "MaxSubmitJobs=" in heard(), "slurmctld to hear of the account")
    yield limit
    cluster.end_jobs()
    cluster.run("sacctmgr", "-i", "modify", "user", "root", "set", f"DefaultAccount={before}")
    # Accounting hears of ends later than the queue does.
    wait_until(lambda: cluster.call("sacctmgr", "-i", "delete", "account", account).returncode == 0, "it to be let go")


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Give the user a login profile that alone puts a command on PATH: ``profile("squeue_there", "echo it", "exit")``,
    the last being what else it does.
    """

    def write(command: str, lines: str, more: str) -> None:
        folder = tmp_path / "opt" / "slurm"
        folder.mkdir(parents=True)
        (folder / command).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / command).chmod(0o755)
        (tmp_path / ".bash_profile").write_text(f"PATH=$PATH:{folder}\n{more}\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("PATH", os.environ["PATH"])  # which the look adds to
        slurm_profile.find.cache_clear()

    return write


@pytest.fixture
def limited_partition(cluster: Testbed) -> Iterator[Callable[[str], None]]:
    """Give the partition ``short`` a quality of service with a limit: ``limited_partition("MaxTRESPerUser=cpu=1")``."""

    def limit(words: str) -> None:
        cluster.run("sacctmgr", "-i", "add", "qos", "few", "set", words)
        wait_until(lambda: "few" in cluster.run("scontrol", "show", "assoc_mgr", "flags=qos"), "slurmctld to know it")
        cluster.run("scontrol", "update", "PartitionName=short", "QOS=few")

    yield limit
    cluster.run("scontrol", "update", "PartitionName=short", "QOS=")
    cluster.end_jobs()
    cluster.run("sacctmgr", "-i", "delete", "qos", "few", check=False)


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of words: no cluster, no job around them, and no cache of another test."""
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write_target(path: Path, sbatch: dict[str, Any] | None = None, **keys: Any) -> None:
    """Write a targets file with the target ``cluster``; ``sbatch`` holds options, other keys are the target's (None for
    none).
    """
    values = {"kind": "slurm", "python": sys.executable, "poll_s": 0, **keys}
    lines = ["[cluster]", *(f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None)]
    lines += ["[cluster.sbatch]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in {"time": 30, **(sbatch or {})}.items()]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def target(project: Path) -> Callable[..., None]:
    """Write the project's target ``cluster``, and write it anew: ``target({"time": 1}, poll_s=5)``."""
    write = functools.partial(write_target, project / "jobs" / "targets.toml")
    write()
    return write


@pytest.fixture
def own_cluster(cluster: Testbed) -> None:
    """The shared cluster, as target ``cluster`` of the user's own targets file."""
    config_folder().mkdir(parents=True)
    write_target(config_folder() / "targets.toml")


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put shell lines in the place of a command of Slurm: ``instead("sacct", "exec $real …")``."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def write(command: str, lines: str) -> None:
        real = shutil.which(command, path=os.environ["PATH"].replace(f"{folder}:", ""))
        (folder / command).write_text(f"#!/bin/bash\nreal={real}\n{lines}\n")
        (folder / command).chmod(0o755)
        if str(folder) not in os.environ["PATH"]:
            monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return write


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """Return a ``python`` that trains with tests/ssh/trainer.py and is the suite's own for all else."""
    return stand_in_for_python(tmp_path / "python")


@pytest.fixture
def states(project: Path) -> Callable[[], dict[str, dict[str, Any]]]:
    """Ask where runs stand: name to state, reason and progress, as ``oelm-status`` finds them out."""

    def ask() -> dict[str, dict[str, Any]]:
        with Store() as store:
            view = observe.refresh(store, project, store.runs(project))
        assert not view.unreachable, view.unreachable
        return {r.name: {"state": str(r.state), "reason": r.reason, **r.progress} for r in view.runs}

    return ask


@pytest.fixture
def wait_for(states: Callable[[], dict[str, dict[str, Any]]]) -> Callable[..., dict[str, Any]]:
    """Wait until a run is in one of some states; return what is said of it."""

    def wait(run: str, *wanted: str, patience_s: float = 240) -> dict[str, Any]:
        last: dict[str, Any] = {}

        def look() -> dict[str, Any] | None:
            last.update(states()[run])
            return dict(last) if last["state"] in wanted else None

        try:
            return wait_until(look, f"{run} to be {' or '.join(wanted)}", patience_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last.get('state')}: {last.get('reason')}") from None

    return wait


@pytest.fixture
def login(tmp_path: Path, cluster: Testbed) -> Iterator[Login]:
    """The cluster's login node, reached over a cable."""
    needs(*SSH_COMMANDS)
    network = Network()
    host = Login(place=tmp_path / "login", name="login", environment={"SLURM_CONF": cluster.environment["SLURM_CONF"]})
    host.address, host.far = network.gateway, network
    client = Client(tmp_path / "laptop")
    client.knows(host)
    host.laptop = client
    host.start(client.public_key)
    yield host
    host.stop()
    network.remove()


@pytest.fixture
def laptop(login: Login, project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command of the toolkit on the laptop: ``laptop("status", "--json")``; ``start=True`` leaves it running."""
    client, network = login.laptop, login.far
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    environment.update(
        PATH=f"{client.place / 'bin'}:/usr/bin:/bin", XDG_RUNTIME_DIR="", OELM_STATE_DIR=str(project / "s")
    )
    environment.pop("SSH_AUTH_SOCK", None)

    def run(name: str, *arguments: str, check: bool = True, start: bool = False, cwd: Path = project) -> Any:
        program = f"from oelm_jobs.cli.{name} import main; main()"
        argv = ["/usr/sbin/ip" if Path("/usr/sbin/ip").exists() else "/sbin/ip", "netns", "exec", network.name]
        argv += [sys.executable, "-c", program, *arguments]
        if start:
            return subprocess.Popen(argv, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
        assert not check or done.returncode == 0, done.stderr + done.stdout
        check_printed(name, arguments, done.stdout)
        return done

    return run
