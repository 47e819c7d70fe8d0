"""Fixtures of the SSH tests: a client, hosts, and a project's targets that name them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs import connections
from oelm_jobs.cli import view
from oelm_jobs.connections import Connection, sshconfig
from oelm_jobs.connections.openssh import OpenSSHConnection
from oelm_jobs.folders import config_folder
from oelm_jobs.runs import observe
from oelm_jobs.store import Store
from tests.ssh.testbed import COMMANDS, Client, Host, Network
from tests.support import TRAINER, needs, stand_in_for_python, wait_until


@pytest.fixture(scope="session")
def installed() -> None:
    """SSH's programs, and root for namespaces."""
    needs(*COMMANDS, root=True, linux=True)


@pytest.fixture
def client(installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The laptop; its ``ssh`` is first on PATH."""
    made = Client(tmp_path / "laptop")
    monkeypatch.setenv("PATH", f"{made.place / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    sshconfig.resolve.cache_clear()
    yield made
    connections.close_all()
    sshconfig.resolve.cache_clear()


@pytest.fixture
def new_host(tmp_path: Path, client: Client) -> Iterator[Callable[..., Host]]:
    """Make and start hosts: ``new_host("box", gpus=4)``."""
    made: list[Host] = []
    networks: list[Network] = []

    def start(name: str = "box", *, networked: bool = False, inside: Host | None = None, **values: object) -> Host:
        if networked or inside:
            networks.append(Network(inside.network if inside else None))
            values["network"] = networks[-1]
        host = Host(place=tmp_path / f"host-{name}", name=name, **values)
        made.append(host)
        host.start(client.public_key)
        return host

    yield start
    for host in made:
        host.stop()
    for network in networks:
        network.remove()


@pytest.fixture
def box(new_host: Callable[..., Host], client: Client) -> Host:
    """One host on loopback that the client knows as ``box``."""
    host = new_host("box")
    client.knows(host)
    return host


@pytest.fixture
def own_box(box: Host) -> Host:
    """That host, as target ``box`` of the user's own targets file."""
    config_folder().mkdir(parents=True)
    add_target(config_folder() / "targets.toml", "box")
    return box


@contextlib.contextmanager
def ssh_agent(place: Path) -> Iterator[None]:
    """Run an agent without keys that listens at ``place``, whose socket is there before it does."""
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    environment = {**os.environ, "SSH_AUTH_SOCK": str(place)}

    def listens() -> bool:
        return subprocess.run(["ssh-add", "-l"], env=environment, capture_output=True).returncode == 1

    try:
        wait_until(listens, "the agent to say that it has no key")
        yield
    finally:
        agent.kill()
        agent.wait()


def log_out(connection: Connection) -> None:
    """End the master connection that a connection has made or would use."""
    assert isinstance(connection, OpenSSHConnection)
    words = ["ssh", "-F", "/dev/null", "-o", f"ControlPath={connection._own_path()}", "-O", "exit", "--", "box"]
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)


def write_target(project: Path, name: str = "box", **values: object) -> None:
    """Add a target to a project: the suite's own python and root ``oelm`` unless given."""
    add_target(project / "jobs" / "targets.toml", name, **values)


def add_target(path: Path, name: str, **values: object) -> None:
    """Add such a target to a targets file."""
    values = {"kind": "ssh", "host": name, "root": "oelm", "python": sys.executable, **values}
    lines = [f"[{name}]"]
    for key, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{key} = {{ {inner} }}")
        else:
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    with path.open("a") as file:
        file.write("\n".join(lines) + "\n")


def stand_in(host: Host) -> str:
    """Return a ``python`` on a host that trains with tests/ssh/trainer.py and is the suite's own for all else."""
    return stand_in_for_python(host.place / "bin" / "python")


def stand_in_for_accounts(host: Host) -> str:
    """Return such a ``python`` that every account of a host may run: the suite's own may lie where they can't look."""
    trainer = shutil.copyfile(TRAINER, host.place / "bin" / "trainer.py")
    return stand_in_for_python(host.place / "bin" / "python", python="/usr/bin/python3", trainer=trainer)


@dataclass
class Rig:
    """A project on the laptop, and the host that its runs go to."""

    host: Host
    client: Client
    project: Path
    oelm: Callable[..., subprocess.CompletedProcess[str]]
    target: str = "box"

    def run_dir(self, name: str = "gpt_base") -> Path:
        """Where a run lies on the host."""
        return self.host.home() / "oelm" / "models" / "checkpoints" / "tiny" / f"exp_{name}"

    def home_dir(self, name: str = "gpt_base") -> Path:
        """Where it lies at home once it was fetched."""
        return self.project / "models" / "checkpoints" / "tiny" / f"exp_{name}"

    def restart(self, **environment: str) -> None:
        """Have what the host runs from now on find this in its environment."""
        self.host.stop()
        self.host.environment.update(environment)
        self.host.start(self.client.public_key)

    def submit(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Submit runs of the study to the host."""
        return self.oelm("submit", "--study", "tiny", "--target", self.target, *words, **more)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the runs by name as oelm-status --json shows them, asked from this process, which is faster."""
        with Store() as store:
            shown = view.as_json(observe.refresh(store, self.project, store.runs(self.project)))
        return {run["name"]: run for run in shown["runs"]}

    def wait_for(self, name: str, *states: str, patience_s: float = 240.0) -> dict[str, Any]:
        """Return a run's row once it is in one of the states."""
        found: dict[str, Any] = wait_until(
            lambda: row if (row := self.status()[name])["state"] in states else None,
            f"{name} to be {states}",
            patience_s,
        )
        return found

    def edit(self, *changes: tuple[str, str]) -> None:
        """Change the study's text."""
        path = self.project / "jobs" / "tiny.toml"
        for old, new in changes:
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def rig(box: Host, client: Client, project: Path, oelm: Callable[..., Any]) -> Rig:
    """A host with a stand-in for training, and the study's data on it."""
    write_target(project, python=stand_in(box))
    write_target(project, "boxo", host="box", python=stand_in(box), connection="openssh")
    shutil.copytree(project / "data", box.home() / "oelm" / "data")
    return Rig(host=box, client=client, project=project, oelm=oelm)
