"""A run that goes to another target than before says that it starts over, keeps what was fetched, and remembers what
lies where; two targets that are one place are no move.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oelm_jobs.targets.files import load_target
from tests.ssh.conftest import Rig, write_target
from tests.ssh.test_fetch import train
from tests.support import wait_until

SUBMIT = ("submit", "--study", "tiny", "--group", "gpt_base", "--target")
STEPS = 2000


def stop_in_the_middle(rig: Rig) -> None:
    """Train on the host, and cancel between two checkpoints and the end; what comes later trains at once."""
    train(rig, pace="0.02", steps=STEPS)
    wait_until((rig.run_dir() / "heartbeat.json").exists, "a step", 120)
    assert "cancelled" in rig.oelm("cancel", "gpt_base").stdout
    rig.wait_for("gpt_base", "CANCELLED")
    assert list(rig.run_dir().glob("checkpoint_*.pt"))
    rig.restart(TRAINER_STEP_S="0")


def python_of(rig: Rig) -> str:
    """Return the host's stand-in for training."""
    return load_target(rig.project, "box").python


def write_here(rig: Rig) -> None:
    """Add this machine as a target."""
    with (rig.project / "jobs" / "targets.toml").open("a") as file:
        file.write(f'[here]\nkind = "local"\npython = {json.dumps(python_of(rig))}\n')


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(rig: Rig, *words: str) -> list[tuple[str, str]]:
    rows = json.loads(rig.oelm("status", "--json", *words).stdout).get("left", [])
    return [(row["target"], row["run_dir"]) for row in rows]


def test_a_run_that_goes_to_another_target_starts_over_there_and_nothing_of_it_is_lost_sight_of(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_here(rig)
    stop_in_the_middle(rig)
    rig.oelm("fetch", "--checkpoints", "all")
    before, there = content(rig.home_dir()), content(rig.run_dir())
    rig.edit((f"max_steps = {STEPS}", f"max_steps = {STEPS + 1}"))
    refused = rig.oelm(*SUBMIT, "here", check=False)
    assert refused.returncode == 2 and f"{rig.run_dir()} holds run gpt_base of another" in refused.stderr
    rig.edit((f"max_steps = {STEPS + 1}", f"max_steps = {STEPS}"))
    moved = rig.oelm(*SUBMIT, "here")
    assert "gpt_base was CANCELLED on target box and starts over on here" in moved.stderr
    assert f"what it left there is in {rig.run_dir()}" in moved.stderr
    [aside] = (rig.home_dir().parent / ".archive").glob("exp_gpt_base-*")
    assert f"what was fetched of it before is in {aside}" in moved.stderr
    assert content(aside) == before and content(rig.run_dir()) == there
    rig.wait_for("gpt_base", "DONE")
    assert "Resumed" not in (rig.home_dir() / "training.log").read_text()
    # What lies on the host is in sight, also of an index that is made again.
    told = f"box still holds what 1 run left there when it started over elsewhere: tiny/gpt_base in {rig.run_dir()}"
    assert told in rig.oelm("status").stderr
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "another index"))
    assert left(rig, "--rebuild") == [("box", str(rig.run_dir()))]
    assert rig.status()["gpt_base"]["target"] == "here" and rig.status()["gpt_base"]["state"] == "DONE"
    assert "is done on target here" in rig.oelm(*SUBMIT, "box").stdout

    # And back: what lies there from before is moved aside, and what was trained here is not overwritten.
    here = content(rig.home_dir())
    back = rig.oelm(*SUBMIT, "box", "--rerun", "--yes")
    assert "gpt_base was DONE on target here and starts over on box" in back.stderr
    assert left(rig) == [("here", str(rig.home_dir()))]
    rig.wait_for("gpt_base", "DONE")
    assert "Resumed" not in (rig.run_dir() / "training.log").read_text()
    [old] = (rig.run_dir().parent / ".archive").glob("exp_gpt_base-*")
    assert content(old).items() >= {name: there[name] for name in there if name.endswith(".pt")}.items()
    fetched = rig.oelm("fetch", "--checkpoints", "all")
    assert "verified" in fetched.stdout and "what was here of it before is in" in fetched.stderr
    asides = [content(place) for place in (rig.home_dir().parent / ".archive").glob("exp_gpt_base-*")]
    assert here in asides and before in asides
    assert left(rig) == [], "what was moved away here is not there any more"


@pytest.mark.parametrize("root", ["oelm", "elsewhere"])
def test_two_targets_that_are_one_place_are_no_move(rig: Rig, root: str) -> None:
    write_target(rig.project, "other", host="box", root=root, python=python_of(rig))
    stop_in_the_middle(rig)
    done = rig.oelm(*SUBMIT, "other", *(["--send-data"] if root == "elsewhere" else []))
    log = rig.host.home() / root / "models" / "checkpoints" / "tiny" / "exp_gpt_base" / "training.log"
    starts = 2 if root == "oelm" else 1
    wait_until(lambda: log.exists() and log.read_text().count("devices") == starts, "it to train there", 120)
    assert ("starts over" in done.stderr) == (root == "elsewhere")
    assert ("Resumed from step" in log.read_text()) == (root == "oelm")
    assert left(rig) == ([("box", str(rig.run_dir()))] if root == "elsewhere" else [])
    rig.oelm("cancel", "gpt_base")


def test_a_run_that_lives_on_another_target_is_left_alone_there(rig: Rig) -> None:
    write_here(rig)
    train(rig, pace="0.05", steps=100000)
    rig.wait_for("gpt_base", "RUNNING")
    assert "gpt_base: left alone, is RUNNING on target box" in rig.oelm(*SUBMIT, "here").stdout
    rig.oelm("cancel", "gpt_base")
