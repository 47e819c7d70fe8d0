"""Sending what a script reads to a host behind SSH: over a line that breaks, from two commands at once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from oelm_jobs.targets.files import config_folder
from tests.cli.test_run import argv_of
from tests.ssh.conftest import add_target
from tests.ssh.testbed import Client, Host, Proxy

pytestmark = pytest.mark.slow
SIZE = 16 << 20
COUNT = """
import os
found = [os.path.join(place, name) for place, _, names in os.walk("rows", followlinks=True) for name in names]
print(len(found), "files of", sum(map(os.path.getsize, found)), "bytes")
"""
Oelm = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = ("run", "--target", "far", "--gpus", "0", "--data", "rows")
PYTHON = ("--", "python", "count.py")


@pytest.fixture
def far(box: Host, client: Client) -> Iterator[Proxy]:
    """A line to a host that the user's own targets file knows as ``far``."""
    proxy = Proxy(box)
    client.knows(box, alias="far", HostName="127.0.0.1", Port=str(proxy.port))
    config_folder().mkdir(parents=True)
    add_target(config_folder() / "targets.toml", "far")
    yield proxy
    proxy.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain folder with a script and what it reads: a large file that is a link, and a hundred small ones."""
    rows = tmp_path / "mine" / "rows"
    (rows / "small").mkdir(parents=True)
    (tmp_path / "large.bin").write_bytes(os.urandom(SIZE))
    (rows / "large.bin").symlink_to(tmp_path / "large.bin")
    for number in range(100):
        (rows / "small" / f"{number}.txt").write_text(f"{number:03}")
    (tmp_path / "mine" / "count.py").write_text(COUNT)
    return tmp_path / "mine"


@pytest.fixture
def oelm(folder: Path) -> Oelm:
    """Run a command of the toolkit there."""

    def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            argv_of(*words), cwd=folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    return run


def test_data_that_a_host_lacks_are_named_sent_over_a_line_that_breaks_and_read(
    far: Proxy, box: Host, folder: Path, oelm: Oelm
) -> None:
    there = box.home() / "oelm" / "rows"
    refused = oelm(*COMMAND, *PYTHON, check=False)
    assert refused.returncode == 2 and f"far: {there}: no such file; nothing was queued" in refused.stderr
    assert "the same command with --send-data sends it" in refused.stderr
    before, far.up_limit = far.sent, SIZE * 3 // 4
    done = oelm(*COMMAND, "--send-data", *PYTHON)
    assert "going on where it broke off" in done.stderr and f"sent to far: {there}" in done.stderr, done.stderr
    assert f"101 files of {SIZE + 300} bytes" in done.stdout
    assert far.sent - before < 1.3 * SIZE, "what had arrived was not sent again"
    assert (there / "large.bin").read_bytes() == (folder / "rows" / "large.bin").read_bytes()
    assert not (there / "large.bin").is_symlink()
    before = far.sent
    again = oelm(*COMMAND, "--send-data", "--rerun", "--yes", *PYTHON)
    assert "far has the data already" in again.stderr and far.sent - before < SIZE // 4
    assert not [path for path in (*box.home().iterdir(), *there.iterdir()) if "incoming" in path.name]


def test_other_data_on_the_host_are_named_and_left_alone(far: Proxy, box: Host, oelm: Oelm) -> None:
    there = box.home() / "oelm" / "rows" / "small"
    there.mkdir(parents=True)
    (there / "7.txt").write_text("seven")
    refused = oelm(*COMMAND, "--send-data", *PYTHON, check=False)
    assert refused.returncode == 2 and f"far: {there}/7.txt holds other data than" in refused.stderr
    assert [path.name for path in there.parent.rglob("*")] == ["small", "7.txt"] and far.sent < SIZE


def test_of_two_commands_at_once_one_sends(far: Proxy, folder: Path) -> None:
    both = [
        subprocess.Popen(
            argv_of(*COMMAND, "--send-data", "--detach", "--tag", tag, *PYTHON),
            cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for tag in ("one", "two")
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("sent to far" in text for text in said) == [False, True], said
    assert sum("far has the data already" in text for text in said) == 1 and far.sent < 1.5 * SIZE
