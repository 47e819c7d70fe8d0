"""Runs on a host that are forgotten: there, at home, on a second laptop, and while the host is away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from oelm_jobs import ledger
from tests.ssh.conftest import Rig
from tests.ssh.test_fetch import train
from tests.support import held, read


def states(rig: Rig, *words: str) -> dict[str, str]:
    rows = json.loads(rig.oelm("status", "--json", *words).stdout)["runs"]
    return {row["name"]: row["state"] for row in rows}


def test_a_run_on_a_host_is_forgotten_with_its_copy_and_on_every_laptop_that_has_the_ledger(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hold = held(tmp_path)
    rig.host.environment["TRAINER_HOLD"] = str(hold.parent)
    train(rig, "gpt_base", "oelm_freeze")
    alive = rig.oelm("forget", "gpt_base", "--yes", check=False)
    assert alive.returncode == 2 and "end it first: oelm-cancel tiny/gpt_base" in alive.stderr
    hold.unlink()
    rig.wait_for("gpt_base", "DONE")
    rig.wait_for("oelm_freeze", "DONE")
    rig.oelm("fetch")
    rig.oelm("forget", "gpt_base", "--yes", "--why", "wrong tokens")
    (entry,) = ledger.read(rig.project, "tiny")
    assert not rig.run_dir().exists() and not rig.home_dir().exists()
    assert (Path(entry.place) / "experiment_result.json").exists() and entry.files == ledger.ARCHIVED
    assert (Path(entry.copy) / "experiment_result.json").exists() and entry.target == "box"
    removed = rig.oelm("forget", "oelm_freeze", "--delete", "--yes")
    assert "its files on box are removed; what was fetched is in" in removed.stdout
    there = rig.run_dir().parent
    assert not list(there.glob("exp_*")) and len(list((there / ".archive").iterdir())) == 1
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "second laptop"))
    shutil.move(entry.place, rig.run_dir())  # as if it could not have been moved
    assert "holds" not in rig.oelm("status").stderr and states(rig, "--rebuild") == {}
    ledger.path_of(rig.project, "tiny").unlink()
    assert states(rig, "--rebuild") == {"gpt_base": "DONE"}, "what nobody has forgotten is found"


def test_while_a_host_is_away_only_what_is_known_to_be_over_is_forgotten(rig: Rig) -> None:
    train(rig, "gpt_base")
    rig.wait_for("gpt_base", "DONE")
    rig.submit("--group", "oelm_freeze")
    rig.host.stop()
    for words in (("tiny",), ("oelm_freeze",), ("gpt_base", "--delete")):
        refused = rig.oelm("forget", *words, "--yes", check=False)
        assert refused.returncode == 3 and "target box can't be" in refused.stderr
    assert len(json.loads(rig.oelm("status", "--json").stdout)["runs"]) == 2
    said = rig.oelm("forget", "gpt_base", "--yes")
    assert "forgotten; its files stay on box, which could not be asked" in said.stdout
    rig.host.start(rig.client.public_key)
    assert (rig.run_dir() / ".oelm" / "run.json").exists() and "gpt_base" not in states(rig, "--rebuild")
    before = rig.run_dir().stat().st_ino
    rig.submit("--group", "gpt_base", "--wait")
    assert rig.run_dir().stat().st_ino != before, "it is a new run"
    assert read(rig.run_dir() / "experiment_result.json")["attempts"][0]["number"] == 1
    assert len(list((rig.run_dir().parent / ".archive").iterdir())) == 1
