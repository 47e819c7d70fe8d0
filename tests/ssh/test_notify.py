"""Runs on a host behind SSH are told of from there, with nobody at the laptop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.notify.server import Receiver, receiving, secret_file, stand_in_for_sendmail
from tests.ssh.conftest import Rig
from tests.support import holding, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def test_a_host_tells_of_its_runs_itself(rig: Rig, receiver: Receiver) -> None:
    home = rig.host.home()
    secret_file(home / "hook", receiver.url)
    letters = stand_in_for_sendmail(home / "bin")
    study = rig.project / "jobs" / "tiny.toml"
    study.write_text(
        study.read_text()
        + '[notify]\non = ["end"]\nwebhook = { form = "json", url_file = "~/hook" }\n'
        + f'command = ["{home / "bin" / "sendmail"}", "-t"]\n'
    )
    before = rig.host.commands()
    said = rig.submit("--group", "gpt_base")
    assert "notify" not in said.stderr
    asked = rig.host.commands()
    wait_until(lambda: len(receiver.posts) == 2, "the host to tell of it")
    assert receiver.events() == [("end", "gpt_base"), ("complete", "")]
    assert receiver.posts[0].json["target"] == "box" and receiver.posts[0].json["state"] == "DONE"
    wait_until(lambda: letters.exists() and letters.read_text().count('"event"') == 2, "the command to have run")
    assert rig.host.commands() == asked > before, "no command of the laptop's was needed"
    assert holding(home, b"SECRET-7f3a9c") == [home / "hook"]
    assert rig.submit("--group", "gpt_base").stdout == "gpt_base: left alone, is done\n"
