"""Studies of a program of one's own, submitted to this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.errors import ConfigurationError, PreflightError
from oelm_jobs.project import Project
from tests.cli.test_run import argv_of

STUDY = """
default = true
factors = ["lr"]
seeds = [1, 2]
[program]
command = "python my_train.py {settings} --seed={seed} {resume}"
resume = "--resume"
checkpoint = "state.json"
length = "steps"
data = ["data/numbers.txt"]
[settings]
steps = 3
[metrics]
lines = ["step {step} loss {loss}"]
goal = { loss = "minimize" }
[groups]
low = { lr = 0.5, gpus = 0 }
"""

SCRIPT = """
import helper, json, os, sys
given = dict(word[2:].split("=") for word in sys.argv[1:] if "=" in word)
first = json.load(open("state.json")) if "--resume" in sys.argv else 0
if os.path.exists(helper.TROUBLE) and first == 0:
    json.dump(1, open("state.json", "w"))
    sys.exit("trouble")
for step in range(first + 1, int(given["steps"]) + 1):
    print("step", step, "loss", float(given["lr"]) / step, open("data/numbers.txt").read().strip(), flush=True)
    json.dump(step, open("state.json", "w"))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "mine"
    for name in ("jobs", "data"):
        (folder / name).mkdir(parents=True)
    (folder / "jobs" / "mine.toml").write_text(STUDY)
    (folder / "my_train.py").write_text(SCRIPT)
    (folder / "helper.py").write_text(f"TROUBLE = {str(tmp_path / 'trouble')!r}\n")
    (folder / "data" / "numbers.txt").write_text("1 2 3\n")
    return Project(folder)


def submitted(project: Project, **options: Any) -> dict[str, str]:
    found = {each.run.name: each.note for each in project.submit(project.plan(mode="parallel"), **options)}
    project.wait(timeout_s=120)
    return found


def states(project: Project) -> dict[str, str]:
    return {run.name: str(run.state) for run in project.runs()}


@pytest.mark.slow
def test_a_script_of_ones_own_is_a_study_as_any(mine: Project) -> None:
    assert submitted(mine) == {"low": "", "low-s2": ""}
    assert states(mine) == {"low": "DONE", "low-s2": "DONE"}
    assert "step 3 loss 0.16" in mine.logs("low") and "1 2 3" in mine.logs("low")
    run = mine.run("low")
    assert (run.max_steps, run.spec["program"]["settings"], "train" in run.spec) == (3, {"steps": 3, "lr": 0.5}, False)
    record = json.loads((Path(run.run_dir) / ".oelm" / "run.json").read_text())
    assert record["fingerprint"] == run.fingerprint and record["program"]["data"][0][0] == "data/numbers.txt"


@pytest.mark.slow
def test_a_script_trains_further_and_another_configuration_is_refused(mine: Project) -> None:
    submitted(mine)
    path = mine.folder / "jobs" / "mine.toml"
    path.write_text(STUDY.replace("steps = 3", "steps = 5"))
    with pytest.raises(ConfigurationError, match="steps was 3, is 5") as raised:
        submitted(mine)
    assert "--extend" in str(raised.value.hint)
    assert submitted(mine, again="extend") == {"low": "", "low-s2": ""}
    assert states(mine) == {"low": "DONE", "low-s2": "DONE"}
    assert mine.logs("low").count("step 1 ") == 1 and "step 5 " in mine.logs("low")
    path.write_text(STUDY.replace("steps = 3", "steps = 5").replace("python my", "python -u my"))
    with pytest.raises(ConfigurationError, match="another command"):
        submitted(mine, again="extend")


@pytest.mark.slow
def test_other_data_are_other_runs_and_missing_ones_are_named(mine: Project) -> None:
    submitted(mine)
    (mine.folder / "data" / "numbers.txt").write_text("4 5 6\n")
    with pytest.raises(ConfigurationError, match="other data"):
        submitted(mine)
    (mine.folder / "data" / "numbers.txt").unlink()
    with pytest.raises(PreflightError, match=r"numbers\.txt: no such file; nothing was queued"):
        submitted(mine)


@pytest.mark.slow
def test_what_changed_of_the_code_is_said_of_runs_that_are_done_and_of_those_that_go_on(mine: Project) -> None:
    said: list[str] = []
    project = Project(mine.folder, say=said.append)
    trouble = mine.folder.parent / "trouble"
    trouble.touch()
    submitted(project)
    assert set(states(project).values()) == {"FAILED"}
    trouble.unlink()
    (mine.folder / "helper.py").write_text((mine.folder / "helper.py").read_text() + "# mended\n")
    assert submitted(project) == {"low": "", "low-s2": ""}
    assert [text for text in said if "code than before" in text] == [
        "low, low-s2: other code than before; changed: helper.py"
    ]
    assert set(states(project).values()) == {"DONE"}
    (mine.folder / "jobs" / "mine.toml").write_text("# why\n" + STUDY)
    assert set(submitted(project).values()) == {"is done"}, "a study's file is no code of a run"
    (mine.folder / "my_train.py").write_text(SCRIPT + "# later\n")
    assert set(submitted(project).values()) == {
        "is done; these files changed: my_train.py (--rerun starts it over, --tag NAME makes another run)"
    }


@pytest.mark.slow
def test_an_index_made_anew_knows_scripts(mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(mine)
    before = mine.run("low")
    monkeypatch.setenv("OELM_STATE_DIR", str(tmp_path / "other"))
    again = Project(mine.folder)
    again.rebuild()
    assert (again.run("low").spec, again.run("low").fingerprint) == (before.spec, before.fingerprint)


@pytest.mark.slow
def test_arms_whose_code_differs_are_unfair_unless_that_is_declared(mine: Project) -> None:
    path = mine.folder / "jobs" / "mine.toml"
    path.write_text(STUDY + "high = { lr = 0.6, gpus = 0 }\n")
    for group in ("low", "high"):
        mine.submit(mine.plan(groups=[group], mode="parallel"))
        mine.wait(timeout_s=120)
        (mine.folder / "helper.py").write_text((mine.folder / "helper.py").read_text() + "# later\n")

    def differences() -> dict[str, bool]:
        return {each.key: each.is_unfair for each in mine.report().report.differences}

    assert differences() == {"train_code": True}
    path.write_text(path.read_text() + '[unequal]\ntrain_code = "comments alone"\n')
    assert differences() == {"train_code": False}


@pytest.mark.slow
def test_a_study_that_was_named_by_its_path_is_fetched_and_reported_on(
    mine: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mine.folder / "studies" / "elsewhere.toml"
    path.parent.mkdir()
    path.write_text(STUDY.replace("default = true", ""))
    mine.submit(mine.plan(str(path), mode="parallel"))
    mine.wait(timeout_s=120)
    report, argv = mine.folder / "experiments" / "elsewhere" / "analysis" / "report.html", argv_of("fetch", "--report")
    for state in ("", str(tmp_path / "another")):
        if state:  # the index is lost, and made again from the run directories
            report.unlink()
            monkeypatch.setenv("OELM_STATE_DIR", state)
            Project(mine.folder).rebuild()
        done = subprocess.run(
            argv, cwd=mine.folder, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stderr
        assert report.exists()
