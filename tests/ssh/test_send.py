"""Sending token files to a target: on request, with progress, whole and verified, never twice."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from oelm_jobs import connections
from oelm_jobs.targets import files as targets
from oelm_jobs.transfer import rsync, send
from tests.ssh.conftest import Rig, stand_in, write_target
from tests.ssh.test_hosts import on_a_terminal
from tests.ssh.testbed import Proxy
from tests.support import wait_until, write_tokens

SIZE = 16 << 20
SUBMIT = ["--study", "tiny", "--group", "gpt_base", "--target", "far", "--send-data"]


@pytest.fixture
def far(rig: Rig) -> Proxy:
    """A line to the host, which lacks the study's data; the project has 16 MB of it."""
    content = (rig.project / "data" / "tiny" / "train.bin").read_bytes()
    (rig.project / "data" / "tiny" / "train.bin").write_bytes((content * (SIZE // len(content) + 1))[:SIZE])
    proxy = Proxy(rig.host)
    rig.client.knows(rig.host, alias="far", HostName="127.0.0.1", Port=str(proxy.port))
    write_target(rig.project, "far", python=stand_in(rig.host), data={"data/tiny": "there"})
    yield proxy
    proxy.close()


def arrived(rig: Rig, name: str = "train.bin") -> bool:
    """Tell whether a token file is on the host as it is in the project."""
    there = rig.host.home() / "there" / name
    return there.is_file() and there.read_bytes() == (rig.project / "data" / "tiny" / name).read_bytes()


def program(project: Path) -> list[str]:
    """Return the words of a submission that sends the data along."""
    code = f"import os; os.chdir({str(project)!r}); from oelm_jobs.cli.submit import main; main()"
    return [sys.executable, "-c", code, *SUBMIT]


def test_what_was_cut_goes_on_where_it_was(rig: Rig, far: Proxy) -> None:
    far.up_limit = SIZE * 3 // 4
    screen = on_a_terminal(program(rig.project), {})
    assert "going on where it broke off" in screen and "submitted to far" in screen, screen
    assert arrived(rig) and arrived(rig, "val.bin")
    assert far.sent < 1.2 * SIZE, "what had arrived was not sent again"
    assert re.search(r"sending 2 files: .* of 17 MB", screen), screen


class Told:
    """Remembers the furthest that a meter ever showed."""

    def __init__(self) -> None:
        self.done = self.most = 0
        self.said: list[str] = []

    def begin(self, files: int, size: int) -> None:
        self.done = 0

    def advance(self, size: int) -> None:
        self.done += size
        self.most = max(self.most, self.done)

    def say(self, text: str) -> None:
        self.said.append(text)


def test_the_meter_keeps_to_the_truth_over_tries_and_a_transfer_that_stands_still_is_begun_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rsync tells how far a file is, what had arrived before included."""
    tries = [([400, 400], 12), ([800, 0, 0, 0, 0], -15), ([900, 100], 0)]

    class Transfer(rsync.Transfer):
        def __init__(self, *words: object, **more: object) -> None:
            self._left, self._code = tries.pop(0)

        def is_over(self) -> bool:
            return not self._left

        def moved(self) -> int:
            return self._left.pop(0)

        def end(self) -> tuple[int, str]:
            return self._code, ""

    monkeypatch.setattr(send, "Transfer", Transfer)
    monkeypatch.setattr(rsync, "IDLE_S", 0.15)
    monkeypatch.setattr(rsync, "LOOK_S", 0.1)
    connection = connections.connect_for_transfer(targets.load_target(rig.project, "box"), rig.project)
    told = Told()
    send._transfer(connection, rig.project, {"train.bin": 1000}, {"link": "x", "rsync": ""}, told)
    assert told.most == 1000 and not tries
    assert len(told.said) == 2 and "nothing moved" in told.said[1]


def test_a_client_that_was_killed_leaves_what_it_sent_to_the_next_and_nothing_is_sent_twice(
    rig: Rig, far: Proxy
) -> None:
    far.up_limit = SIZE // 2
    killed = subprocess.Popen(program(rig.project), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: far.sent > SIZE // 4, "half of it to arrive")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not arrived(rig), "nothing has its name before it is whole"
    rig.oelm("submit", *SUBMIT)
    assert arrived(rig) and arrived(rig, "val.bin")
    place, sent = (rig.host.home() / "there" / "train.bin").stat(), far.sent
    assert sent < 1.5 * SIZE
    again = rig.oelm("submit", *SUBMIT)
    assert "far has the data already" in again.stderr
    assert (rig.host.home() / "there" / "train.bin").stat() == place and far.sent - sent < SIZE // 10
    assert not [path for path in rig.host.home().iterdir() if "incoming" in path.name]


def test_other_data_under_the_same_name_are_named_and_left_alone(rig: Rig, far: Proxy) -> None:
    write_tokens(rig.host.home() / "there" / "train.bin", 999, 64)
    before = (rig.host.home() / "there" / "train.bin").read_bytes()
    refused = rig.oelm("submit", *SUBMIT, check=False)
    assert refused.returncode == 2 and "holds other data than" in refused.stderr
    assert (rig.host.home() / "there" / "train.bin").read_bytes() == before
    assert rig.status() == {}


def test_a_folder_that_takes_nothing_is_named_with_the_mend(rig: Rig, far: Proxy) -> None:
    (rig.host.home() / "there").write_text("not a folder")
    refused = rig.oelm("submit", *SUBMIT, check=False)
    assert refused.returncode == 2 and f"nothing can be written at {rig.host.home()}/there" in refused.stderr
    assert "nothing was sent" in refused.stderr and "in data of the target" in refused.stderr


def test_what_set_names_is_what_is_sent(rig: Rig, far: Proxy) -> None:
    shutil.copytree(rig.project / "data" / "tiny", rig.project / "data" / "other")
    write_tokens(rig.project / "data" / "other" / "train.bin", 5000, 64)
    done = rig.oelm("submit", *SUBMIT, "--set", "data_path=data/other/train.bin", "--tag", "other", "--wait")
    assert "gpt_base-other" in done.stdout
    there = rig.host.home() / "oelm" / "data" / "other" / "train.bin"
    assert there.read_bytes() == (rig.project / "data" / "other" / "train.bin").read_bytes()
    assert not (rig.host.home() / "there").exists(), "the study's own data were not asked for"


def test_the_hint_about_missing_data_works_as_it_stands(rig: Rig) -> None:
    """For a host that no file knows yet, and for a study that is not the default."""
    shutil.rmtree(rig.host.home() / "oelm" / "data")
    words = ["submit", "--study", "tiny", "--host", "box", "--group", "gpt_base", "--setup", "PATH=/nowhere:$PATH"]
    refused = rig.oelm(*words, check=False)
    assert refused.returncode == 2 and "the same command with --send-data" in refused.stderr
    doctor = rig.oelm("doctor", "box", check=False).stdout
    assert "oelm-submit --study tiny --target box --send-data" in doctor


def test_what_is_wrong_with_the_data_of_a_host_is_found_there(rig: Rig) -> None:
    """By the rules of `oelm-data check`, whatever the project itself holds."""
    there = rig.host.home() / "oelm" / "data" / "tiny"
    whole = (there / "val.bin").read_bytes()
    for content, found in (
        (whole[: 2 * 17], "val.bin: holds 17 tokens, and study tiny needs at least 18 (seq_len = 16)"),
        (b"".join(whole[at : at + 2] + b"\0\0" for at in range(0, len(whole), 2)), "val.bin: holds 32-bit numbers"),
        (b"Once upon a time.\n" * 100, "val.bin: holds plain text, not uint16 token ids"),
    ):
        (there / "val.bin").write_bytes(content)
        for target in ("box", "boxo"):
            refused = rig.oelm("submit", "--study", "tiny", "--target", target, check=False)
            assert refused.returncode == 2 and f"{target}: {there}/{found}" in refused.stderr, refused.stderr
            assert "nothing was queued" in refused.stderr
        doctor = rig.oelm("doctor", "box", check=False)
        assert doctor.returncode == 1 and found in doctor.stdout
    assert rig.status() == {}


def test_a_home_folder_in_the_study_is_the_host_s_there(rig: Rig) -> None:
    shutil.move(rig.host.home() / "oelm" / "data", rig.host.home() / "corpora")
    rig.edit(('"data/tiny/train.bin"', '"~/corpora/tiny/train.bin"'))
    assert "corpora/tiny has no manifest" in rig.oelm("doctor", "box", check=False).stdout
    rig.submit("--group", "gpt_base", "--wait")
    assert rig.status()["gpt_base"]["state"] == "DONE"
