"""Notifications from a study file to a server: submitted, told, changed, tried by the doctor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent.notify import declared
from tests.notify.server import Receiver, receiving, secret_file
from tests.support import held, read, wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def tell(project: Path, table: str) -> None:
    """Give the project's study a table of what is told, in place of the one before."""
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().partition("[notify]")[0] + f"[notify]\n{table}\n")


def findings(oelm: Callable[..., Any], *words: str) -> dict[str, tuple[str, str]]:
    done = oelm("doctor", *words, "--json", check=False)
    rows = json.loads(done.stdout)["findings"]
    return {row["what"]: (row["verdict"], row["found"]) for row in rows if row["what"].startswith("notify")}


def test_a_study_is_told_as_its_file_says_and_the_secret_stays_in_its_file(
    oelm: Callable[..., Any], quick: Path, receiver: Receiver
) -> None:
    secret = secret_file(quick.parent / "secret", receiver.url, 0o644)
    tell(quick, f'on = ["end"]\nwebhook = {{ form = "json", url_file = "{secret}" }}')
    said = oelm("submit", "--study", "tiny", "--group", "gpt_base", "--wait")
    assert f"notify: webhook: nothing can be sent from local as it is: {secret}: others may read it" in said.stderr
    what = "notify webhook (json)"
    secret.chmod(0o600)
    verdict, found = findings(oelm, "--notify")[what]
    assert verdict == "good" and found.startswith("a test was sent: HTTP 200")
    assert [post.json["event"] for post in receiver.posts].count("test") == 1
    receiver.posts.clear()
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze", "--wait")
    (folder,) = (quick / ".oelm" / "notify").iterdir()
    wait_until((folder / declared.CLOSED).exists, "all to be told")
    assert ("end", "oelm_freeze") in receiver.events()
    kept = [path for top in (quick, Path(os.environ["OELM_STATE_DIR"])) for path in top.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if b"SECRET-7f3a9c" in path.read_bytes()]


def test_changed_settings_start_no_run_again_and_hold_for_those_under_way(
    oelm: Callable[..., Any], quick: Path, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = held(tmp_path)
    monkeypatch.setenv("TRAINER_HOLD", str(hold.parent))
    oelm("submit", "--study", "tiny", "--group", "gpt_base")
    tell(quick, f'webhook = {{ form = "json", url = "{receiver.url}" }}\non = ["end"]')
    said = oelm("submit", "--study", "tiny", "--group", "gpt_base")
    assert "left alone" in said.stdout
    hold.unlink()
    wait_until(lambda: len(receiver.posts) == 2, "it to be told")
    assert receiver.events() == [("end", "gpt_base"), ("complete", "")]
    run = quick / "models" / "checkpoints" / "tiny" / "exp_gpt_base" / ".oelm"
    assert [attempt["number"] for attempt in read(run / "end.json")["attempts"]] == [1]
    tell(quick, 'mail = "me@example.org"')
    assert "is done" in oelm("submit", "--study", "tiny", "--group", "gpt_base").stdout


def test_what_is_wrong_with_the_users_configuration_is_said_before_anything_is_queued(
    oelm: Callable[..., Any], quick: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    path = tmp_path / "configuration" / "oelm-jobs" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[notify]\nmail = "me"\n')
    done = oelm("submit", "--study", "tiny", check=False)
    assert done.returncode == 2 and "config.toml:2: [notify] mail = 'me': give one address" in done.stderr
    assert json.loads(oelm("status", "--json").stdout)["runs"] == []
