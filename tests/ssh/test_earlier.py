"""Runs of a locked study that were started over or forgotten on a host: their first results come home and decide."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from oelm_jobs import ledger
from tests.ssh.conftest import Rig
from tests.support import held, wait_until

GPT = ("--group", "gpt_base")


def train(rig: Rig, loss: float, *words: str) -> None:
    """Run gpt_base on the host to a loss."""
    rig.restart(TRAINER_LOSS=str(loss))
    rig.submit(*GPT, *words, "--yes", "--wait")


def report(rig: Rig) -> dict[str, Any]:
    """Return the report as it is where the host's disk can't be seen."""
    root = rig.host.home() / "oelm"
    away = root.rename(root.with_name("away"))
    shown: dict[str, Any] = json.loads(rig.oelm("report", "--study", "tiny", "--json").stdout)
    away.rename(root)
    return shown


def told(shown: dict[str, Any]) -> str:
    return "\n".join(finding["text"] for finding in shown["findings"])


def losses(shown: dict[str, Any]) -> list[float]:
    """Return those of gpt_base that count."""
    return [run["final"]["val_loss"] for run in shown["runs"] if run["group"] == "gpt_base"]


def fetch(rig: Rig, *words: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(rig.oelm("fetch", "--json", *words).stdout)
    return shown


def kept(rig: Rig) -> list[Path]:
    """Return what is at home of gpt_base as it was before."""
    return sorted(rig.home_dir().parent.glob(".archive/exp_gpt_base-*"))


def looks(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_first_result_of_a_run_that_ran_again_comes_home_and_decides(rig: Rig) -> None:
    rig.oelm("report", "--study", "tiny", "--lock")
    train(rig, 4.0)
    train(rig, 3.0, "--rerun")
    (entry,) = ledger.read(rig.project, "tiny")
    there = looks(Path(entry.place))
    rig.oelm("clean", "--all", "--yes")
    assert there and looks(Path(entry.place)) == there, "nothing that was archived is removed"
    shown = report(rig)
    assert f"its files are in {entry.place} on box, and oelm-fetch brings its records" in told(shown)
    said = rig.oelm("fetch").stdout
    (home,) = kept(rig)
    assert "tiny/gpt_base, before it was started over: " in said and f"verified, in {home}" in said
    shown = report(rig)
    text = "gpt_base: seed 42 ran twice; the first result was val_loss 4 and decides, since the study is locked"
    assert f"{text} ({home})" in told(shown) and losses(shown) == [4.0]
    assert not list(home.rglob("*.pt")) and list(Path(entry.place).rglob("*.pt")), "its checkpoints stay there"
    for name in ("metrics.jsonl", "experiment_result.json", "MANIFEST.json", ".oelm/run.json", ".oelm/end.json"):
        assert (home / name).read_bytes() == (Path(entry.place) / name).read_bytes()
    before = looks(home)
    again = fetch(rig)
    assert again["earlier"] == [] and [run["new_files"] for run in again["runs"]] == [0] and looks(home) == before
    bundle = rig.project.parent / "tiny.tar.gz"
    rig.oelm("report", "--study", "tiny", "--bundle", str(bundle))
    assert losses(json.loads(rig.oelm("report", "--from", str(bundle), "--json").stdout)) == [4.0]
    (home / "metrics.jsonl").write_text("")
    (one,) = fetch(rig, "gpt_base")["earlier"]
    assert (one["new_files"], one["verified"], one["event"], one["target"]) == (1, True, "rerun", "box")
    rig.oelm("clean", "--all", "--yes")
    assert looks(Path(entry.place)) == there


def test_what_was_fetched_of_a_run_before_it_was_over_is_completed_and_what_is_gone_is_told(rig: Rig) -> None:
    """Fetching a run while it trains, so that another one can hide its end; and removing it."""
    hold = held(rig.project.parent)
    rig.restart(TRAINER_HOLD=str(hold.parent), TRAINER_LOSS="4.0")
    rig.submit(*GPT)
    rig.oelm("report", "--study", "tiny", "--lock")
    wait_until((rig.run_dir() / "best_model.pt").exists, "its first checkpoint")
    rig.oelm("fetch")
    hold.unlink()
    rig.wait_for("gpt_base", "DONE")
    rig.oelm("forget", "gpt_base", "--yes")
    (home,) = kept(rig)
    assert (home / "metrics.jsonl").exists() and not (home / "experiment_result.json").exists()
    shown = report(rig)
    assert "seed 42 was forgotten; the first result was val_loss 4 and decides" in told(shown)
    assert "oelm-fetch brings its records" in told(shown) and losses(shown) == []
    (entry,) = ledger.read(rig.project, "tiny")
    aside = Path(entry.place).rename(rig.project.parent / "aside")
    train(rig, 3.0)
    said = rig.oelm("fetch").stdout
    assert f"tiny/gpt_base, before it was forgotten: is not on box any more ({entry.place})" in said
    assert "gpt_base: " in said.splitlines()[0] and "verified" in said.splitlines()[0], "all else is fetched"
    gone = "the first result was val_loss 4 and decides, since the study is locked; its files are gone"
    assert gone in told(report(rig))
    shutil.move(aside, entry.place)
    assert "before it was forgotten: " in rig.oelm("fetch", "--verify").stdout and kept(rig) == [home]
    shown = report(rig)
    assert losses(shown) == [4.0] and f"decides, since the study is locked ({home})" in told(shown)


def test_what_stayed_on_a_host_that_was_away_is_found_where_a_new_run_has_put_it(rig: Rig) -> None:
    rig.oelm("report", "--study", "tiny", "--lock")
    train(rig, 4.0)
    rig.status()
    rig.host.stop()
    rig.oelm("forget", "gpt_base", "--yes")
    away = rig.oelm("fetch")
    assert "tiny/gpt_base, before it was forgotten: could not be fetched: " in away.stdout and away.returncode == 0
    assert ledger.read(rig.project, "tiny")[0].files == ledger.STAYS
    train(rig, 3.0)
    (one,) = fetch(rig)["earlier"]
    assert one["verified"] and one["event"] == "forgotten" and [Path(one["run_dir"])] == kept(rig)
    assert losses(report(rig)) == [4.0] and fetch(rig)["earlier"] == []
