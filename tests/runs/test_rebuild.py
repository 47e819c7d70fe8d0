"""Making the index again, and taking runs over, where names and places are less simple than usual."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import end_all, stand_in_for_python, wait_until

GPT = ("submit", "--study", "tiny", "--group", "gpt_base")


@pytest.fixture
def roots(project: Path, tmp_path: Path) -> Iterator[Path]:
    """Targets ``first`` and ``second`` of this machine; return the folder of their roots."""
    python, folder = stand_in_for_python(tmp_path / "python"), tmp_path / "roots"
    lines = [
        f'[{name}]\nkind = "local"\nroot = "{folder}/{name}"\npython = "{python}"\n' for name in ("first", "second")
    ]
    (project / "jobs" / "targets.toml").write_text("".join(lines))
    for name in ("first", "second"):
        shutil.copytree(project / "data", folder / name / "data")
    yield folder
    end_all(folder)


def rows(oelm: Any, *words: str) -> list[tuple[str, str, str]]:
    return [
        (run["name"], run["target"], run["state"])
        for run in json.loads(oelm("status", "--json", *words).stdout)["runs"]
    ]


@pytest.mark.parametrize("alive", ["first", "second"])
def test_of_a_run_on_two_targets_a_rebuild_finds_the_one_that_lives_and_names_the_other(
    oelm: Any, project: Path, roots: Path, alive: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    over = {"first": "second", "second": "first"}[alive]
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "laptop 1"))
    oelm(*GPT, "--target", over, "--wait")
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "laptop 2"))
    monkeypatch.setenv("TRAINER_STEP_S", "0.05")
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 100000"))
    oelm(*GPT, "--target", alive)
    wait_until(lambda: rows(oelm)[0][2] == "RUNNING", "it trains")
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "laptop 3"))
    rebuilt = oelm("status", "--rebuild")
    assert f"{over} holds tiny/gpt_base, too; the index has what lies on {alive}" in rebuilt.stderr
    assert rows(oelm) == [("gpt_base", alive, "RUNNING")]
    assert "cancelled" in oelm("cancel", "gpt_base").stdout
    assert rows(oelm, "--rebuild") == [("gpt_base", alive, "CANCELLED")], "what the index has stays"


def test_of_a_moved_projects_run_on_two_targets_the_one_that_lives_is_taken_over(
    oelm: Any, project: Path, roots: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    oelm(*GPT, "--target", "first", "--wait")
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "laptop 2"))
    monkeypatch.setenv("TRAINER_STEP_S", "0.05")
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 100000"))
    oelm(*GPT, "--target", "second")
    wait_until(lambda: rows(oelm)[0][2] == "RUNNING", "its supervisor to have entered it")
    moved = project.rename(project.with_name("moved"))
    adopted = oelm("status", "--adopt", cwd=moved)
    assert "not taken over from first" in adopted.stderr
    (run,) = json.loads(oelm("status", "--json", cwd=moved).stdout)["runs"]
    assert (run["target"], run["state"] in ("QUEUED", "RUNNING")) == ("second", True)
    oelm("cancel", "gpt_base", cwd=moved)


def test_what_is_said_of_a_projects_path_can_be_typed_as_it_stands(oelm: Any, project: Path, roots: Path) -> None:
    """A record's words are a server's: a path in them may be meant to be run by who copies the line."""
    trap = "/old; touch trapped #"
    oelm(*GPT, "--target", "first", "--wait")
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze", "--target", "first", "--wait")
    for name, changes in (("gpt_base", {"project": trap}), ("oelm_freeze", {"project": None})):
        path = roots / "first" / "models" / "checkpoints" / "tiny" / f"exp_{name}" / ".oelm" / "run.json"
        record = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    with_index = project.rename(project.with_name("elsewhere"))
    shutil.copytree(with_index, project)
    other = project.rename(project.with_name("other"))
    said = oelm("status", cwd=other).stderr + oelm("status", "--adopt", cwd=other, check=False).stderr
    lines = [line for line in said.splitlines() if "oelm-status --adopt " in line]
    offered = [shlex.split(line.partition("oelm-status --adopt ")[2]) for line in lines]
    assert len(offered) == 3 and all(len(words) == 1 for words in offered), said
    assert {words[0] for words in offered} == {trap, "unnamed"}
    for (owner,) in offered[:2]:
        assert "took over 1 run" in oelm("status", "--adopt", owner, cwd=other).stderr
    assert len(json.loads(oelm("status", "--json", cwd=other).stdout)["runs"]) == 2


def test_the_runs_of_a_target_that_was_renamed_are_found_there(
    oelm: Any, project: Path, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oelm(*GPT, "--target", "first", "--wait")
    oelm("fetch", "gpt_base")
    monkeypatch.setenv("TRAINER_STEP_S", "0.05")
    study = project / "jobs" / "tiny.toml"
    study.write_text(study.read_text().replace("max_steps = 12", "max_steps = 100000"))
    oelm("submit", "--study", "tiny", "--group", "oelm_freeze", "--target", "first")
    wait_until(lambda: ("oelm_freeze", "first", "RUNNING") in rows(oelm), "its supervisor to have entered it")
    files = project / "jobs" / "targets.toml"
    files.write_text(files.read_text().replace("[first]", "[renamed]"))
    lost = oelm("cancel", "oelm_freeze", check=False)
    assert lost.returncode != 0 and "oelm-status --rebuild" in lost.stderr
    found = {name: (target, state) for name, target, state in rows(oelm, "--rebuild")}
    assert found["gpt_base"] == ("renamed", "DONE") and found["oelm_freeze"][0] == "renamed"
    assert "cancelled" in oelm("cancel", "oelm_freeze").stdout
    assert json.loads(oelm("fetch", "gpt_base", "--json").stdout)["runs"][0]["verified"]
    files.write_text(files.read_text().replace("[renamed]", "[again]").replace(str(roots), str(roots / "gone")))
    assert dict.fromkeys(target for _, target, _ in rows(oelm, "--rebuild")) == {"renamed": None}, "not the copy here"
