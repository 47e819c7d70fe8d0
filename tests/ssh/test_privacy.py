"""Who may read and use a root: its owner alone, or with share = "group" the group of its folder; real accounts."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.cli import view
from oelm_jobs.runs import observe
from oelm_jobs.store import Store
from tests.ssh.conftest import stand_in_for_accounts, write_target
from tests.ssh.testbed import FIRST_GROUP, Account, Client, Host
from tests.support import wait_until

UMASKS = {"alice": "022", "bob": "077", "carol": "000"}
"""What each account's shell sets: nothing may depend on it."""


@dataclass
class Lab:
    """A host with three accounts, of which alice and bob share a group, and a project of each on the laptop."""

    host: Host
    folder: Path
    """Group lab's folder there."""
    projects: dict[str, Path]
    oelm: Callable[..., subprocess.CompletedProcess[str]]

    def submit(self, user: str, target: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        words = ("submit", "--study", "tiny", "--group", "gpt_base", "--target", f"{target}-{user}", *words)
        return self.oelm(*words, cwd=self.projects[user], check=check)

    def rows(self, user: str) -> dict[str, dict[str, Any]]:
        with Store() as store:
            project = self.projects[user]
            shown = view.as_json(observe.refresh(store, project, store.runs(project)))
        return {run["name"]: run for run in shown["runs"]}

    def done(self, user: str, name: str) -> Path:
        row = wait_until(
            lambda: row if (row := self.rows(user)[name])["state"] not in ("QUEUED", "RUNNING") else None, name
        )
        assert row["state"] == "DONE", row
        return Path(row["run_dir"])


@pytest.fixture
def lab(client: Client, project: Path, oelm: Callable[..., Any]) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="oelm-lab-", dir="/tmp") as place:
        Path(place).chmod(0o755)
        accounts = [Account(name, uid=21001 + number) for number, name in enumerate(UMASKS)]
        host = Host(place=Path(place) / "host", name="lab", accounts=accounts, groups={"lab": ["alice", "bob"]})
        python = stand_in_for_accounts(host)
        for user, umask in UMASKS.items():
            (host.home(user) / ".bashrc").write_text(f"umask {umask}\n")
        folder = host.place / "lab"
        folder.mkdir()
        os.chown(folder, 0, FIRST_GROUP)
        folder.chmod(0o2775)
        host.start(client.public_key)
        client.knows(host, alias="lab")
        for user in UMASKS:
            common = {"host": "lab", "user": user, "python": python, "root": str(folder / "oelm")}
            write_target(project, f"own-{user}", **common)
            write_target(project, f"shared-{user}", share="group", **common)
            disk = str(host.place / f"disk-{user}")
            write_target(project, f"disk-{user}", share="group", checkpoint_root=disk, **common)
        projects = {"alice": project}
        for user in ("bob", "carol"):
            projects[user] = project.parent / f"project-{user}"
            shutil.copytree(project, projects[user])
        try:
            yield Lab(host=host, folder=folder, projects=projects, oelm=oelm)
        finally:
            host.stop()


def entries(root: Path) -> list[tuple[Path, os.stat_result]]:
    return [(path, path.lstat()) for path in [root, *root.rglob("*")]]


def test_what_is_written_on_a_server_is_its_owners_alone_and_another_user_is_told_whose_it_is(lab: Lab) -> None:
    (lab.host.home("alice") / ".bashrc").write_text("umask 000\n")
    lab.submit("alice", "own", "--send-data")
    run_dir = lab.done("alice", "gpt_base")
    found = entries(lab.folder / "oelm")
    assert {"training.log", "checkpoint_12.pt", "launch.sh", "run.json"} <= {path.name for path, _ in found}
    assert not {path for path, look in found if stat.S_IMODE(look.st_mode) & 0o077}
    for target in ("own", "shared"):
        refused = lab.submit("bob", target, check=False)
        assert refused.returncode != 0 and "Traceback" not in refused.stderr
        assert "is alice's" in refused.stderr and 'share = "group"' in refused.stderr, refused.stderr
    assert run_dir.stat().st_uid == 21001


def test_a_root_that_was_open_before_is_closed_to_others_and_works_on(lab: Lab) -> None:
    old = lab.folder / "oelm" / ".oelm" / "snapshots"
    old.mkdir(parents=True)
    for folder in (old.parent.parent, old.parent, old):
        os.chown(folder, 21001, 21001)
    lab.submit("alice", "own", "--send-data")
    lab.done("alice", "gpt_base")
    assert stat.S_IMODE(old.parent.stat().st_mode) == 0o700


def test_a_shared_root_is_the_groups_and_runs_of_two_users_go_on_beside_each_other(lab: Lab) -> None:
    lab.submit("alice", "own", "--send-data", "--tag", "first")  # private at first: what lies there is opened, too
    lab.done("alice", "gpt_base-first")
    lab.submit("alice", "shared")
    lab.done("alice", "gpt_base")
    lab.submit("bob", "shared", "--tag", "b")
    of_bob = lab.done("bob", "gpt_base-b")
    lab.submit("bob", "shared", "--tag", "b", "--rerun", "--yes")
    assert lab.done("bob", "gpt_base-b").stat().st_uid == of_bob.stat().st_uid == 21002
    found = entries(lab.folder / "oelm")
    assert {look.st_uid for _, look in found} == {21001, 21002}
    assert {look.st_gid for _, look in found} == {FIRST_GROUP}
    for path, look in found:
        mode = stat.S_IMODE(look.st_mode)
        assert mode & 0o007 == 0 or path == lab.folder / "oelm", f"{path} is open to all: {mode:o}"
        owners = mode >> 6 & (0o5 if path.suffix == ".pyc" else 0o7)  # Python replaces those, and never writes into one
        assert mode >> 3 & owners == owners, f"the group may not do with {path} what its owner may: {mode:o}"
        assert not path.is_dir() or mode & stat.S_ISGID, path
    assert len(list((lab.folder / "oelm" / ".oelm" / "snapshots").iterdir())) == 1, "one serves both users"


def test_runs_on_another_disk_are_the_groups_too_whoever_made_the_root(lab: Lab) -> None:
    lab.submit("alice", "shared", "--send-data")
    lab.done("alice", "gpt_base")
    for user, uid in (("alice", 21001), ("bob", 21002)):
        disk = lab.host.place / f"disk-{user}"
        disk.mkdir(mode=0o755)
        os.chown(disk, uid, uid)
        lab.submit(user, "disk", "--tag", user)
        assert lab.done(user, f"gpt_base-{user}").is_relative_to(disk)
        for path, look in entries(disk):
            assert look.st_gid == FIRST_GROUP and stat.S_IMODE(look.st_mode) & 0o060 == 0o060, path


def test_a_run_of_the_same_name_is_refused_for_certain_and_says_whose_it_is(lab: Lab) -> None:
    lab.submit("alice", "shared", "--send-data")
    run_dir = lab.done("alice", "gpt_base")
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    for words in ((), ("--rerun", "--yes")):
        refused = lab.submit("bob", "shared", *words, check=False)
        assert refused.returncode == 3 and "holds a run of alice" in refused.stderr and "--tag" in refused.stderr
        row = lab.rows("bob")["gpt_base"]
        assert row["state"] == "FAILED" and "holds a run of alice" in row["reason"]
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before


def test_the_code_of_another_users_run_is_removed_by_nobody(lab: Lab) -> None:
    (lab.host.home("bob") / ".bashrc").write_text("export TRAINER_STEP_S=30\n")
    lab.submit("alice", "shared", "--send-data")
    lab.done("alice", "gpt_base")
    lab.submit("bob", "shared", "--tag", "b")  # with the same code, which is alice's
    wait_until(lambda: lab.rows("bob")["gpt_base-b"]["state"] == "RUNNING", "bob's run")
    (lab.projects["alice"] / "new.py").write_text("x = 1\n")
    lab.submit("alice", "shared", "--tag", "c")
    lab.done("alice", "gpt_base-c")
    code = lab.folder / "oelm" / ".oelm" / "snapshots"
    assert {path.stat().st_uid for path in code.iterdir()} == {21001} and len(list(code.iterdir())) == 2
    lab.oelm("clean", "--all", "--yes", cwd=lab.projects["alice"])
    (kept,) = code.iterdir()
    assert not (kept / "new.py").exists(), "bob's run needs the first"
    lab.oelm("cancel", "gpt_base", "--yes", cwd=lab.projects["bob"])
    lab.oelm("clean", "--all", "--yes", cwd=lab.projects["bob"])
    assert list(code.iterdir()) == [kept], "it is alice's to remove"
    lab.oelm("clean", "--all", "--yes", cwd=lab.projects["alice"])
    assert list(code.iterdir()) == []


def test_who_is_not_in_the_group_of_a_shared_root_is_told_so(lab: Lab) -> None:
    lab.submit("alice", "shared", "--send-data")
    refused = lab.submit("carol", "shared", check=False)
    assert refused.returncode == 3 and "group lab, of which you are no member" in refused.stderr, refused.stderr
