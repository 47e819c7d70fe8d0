"""What is the default study today moves no run: who was first in a folder stays there, and the next keeps out of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.folders import index_path
from oelm_jobs.store import Store
from oelm_jobs.transfer.home import home_of
from tests.support import TINY_STUDY, read


def default(project: Path, name: str) -> None:
    for study in ("tiny", "other"):
        head = "default = true\n" if study == name else ""
        (project / "jobs" / f"{study}.toml").write_text(head + TINY_STUDY)


def folders(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [run["run_dir"] for run in json.loads(done.stdout)["runs"]]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_study_that_becomes_the_default_keeps_out_of_what_the_former_one_made(oelm, project: Path) -> None:
    folder = project / "models" / "checkpoints"
    first, second = str(folder / "exp_gpt_base"), str(folder / "other" / "exp_gpt_base")
    default(project, "tiny")
    oelm("submit", "--group", "gpt_base", "--wait")
    default(project, "other")
    tiny = ("submit", "--study", "tiny", "--group", "gpt_base")
    assert folders(oelm(*tiny, "--dry-run", "--json")) == [first] == folders(oelm(*tiny, "--json"))
    planned = oelm("submit", "--group", "gpt_base", "--dry-run", "--json")
    assert folders(planned) == [second] and f"gpt_base lies in {second}" in planned.stderr
    oelm("submit", "--group", "gpt_base", "--wait")
    assert [read(Path(place) / "experiment_result.json")["study"] for place in (first, second)] == ["tiny", "other"]
    index_path().unlink()
    assert folders(oelm(*tiny, "--dry-run", "--json")) == [first], "records tell where runs of this machine lie"
    assert folders(oelm("submit", "--group", "gpt_base", "--dry-run", "--json")) == [second]
    oelm("status", "--rebuild")
    default(project, "tiny")
    assert folders(oelm("submit", "--study", "other", "--group", "gpt_base", "--json")) == [second]
    assert "left alone, is done" in oelm("submit", "--group", "gpt_base").stdout


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_folder_of_another_studys_run_is_taken_with_and_without_a_record_in_the_index(oelm, project: Path) -> None:
    default(project, "tiny")
    oelm("submit", "--group", "gpt_base", "--wait")
    folder = project / "models" / "checkpoints"
    shutil.copytree(folder / "exp_gpt_base", folder / "other" / "exp_gpt_base")
    default(project, "other")
    refused = oelm("submit", "--group", "gpt_base", check=False)
    assert refused.returncode == 2 and f"{folder}/other/exp_gpt_base holds a run of another study" in refused.stderr
    assert "--tag" in refused.stderr


def test_a_run_comes_home_beside_what_another_study_has_there(project: Path) -> None:
    words = {"study": "other", "run": "gpt_base", "group": "gpt_base", "label": "", "seed": 42, "tag": "", "token": "t"}
    bare = project / "models" / "checkpoints" / "exp_gpt_base"
    with Store() as store:
        record = {**words, "run_dir": f"/far/models/checkpoints/{bare.name}", "fingerprint": ""}
        store.replace_runs(project, "box", [RunRecord.of(record)])
        [run] = store.runs(project)
    assert home_of(project, run) == bare
    (bare / ".oelm").mkdir(parents=True)
    (bare / ".oelm" / "run.json").write_text(json.dumps({"study": "tiny", "run": "gpt_base"}))
    assert home_of(project, run) == bare.parent / "other" / bare.name
    (bare / ".oelm" / "run.json").write_text(json.dumps({"study": "other", "run": "gpt_base"}))
    assert home_of(project, run) == bare


def test_of_many_runs_those_whose_folders_hold_anothers_lie_elsewhere(oelm, project: Path) -> None:
    folder = project / "models" / "checkpoints"
    default(project, "other")
    for name, study in (("gpt_base-s43", "tiny"), ("gpt_base-s44", "other"), ("gpt_base-s45", "")):
        (folder / f"exp_{name}" / ".oelm").mkdir(parents=True)
        (folder / f"exp_{name}" / ".oelm" / "run.json").write_text(json.dumps({"study": study} if study else []))
    planned = oelm("submit", "--group", "gpt_base", "--num-seeds", str(2 * rundir.MANY), "--dry-run", "--json")
    elsewhere = [path for path in map(Path, folders(planned)) if path.parent != folder]
    assert elsewhere == [folder / "other" / "exp_gpt_base-s43"]
    assert "gpt_base-s43 lies in" in planned.stderr


def test_run_directories_may_exist_unless_their_folder_says_that_they_do_not(tmp_path: Path) -> None:
    (tmp_path / "exp_A").mkdir()
    (tmp_path / "file").touch()
    many = [f"exp_{number}" for number in range(rundir.MANY)]
    named = [f"{tmp_path}/{name}" for name in (*many, "exp_a", "exp_A")]
    assert rundir.that_may_exist(named) == {f"{tmp_path}/exp_a", f"{tmp_path}/exp_A"}, "macOS takes both for one"
    assert rundir.that_may_exist([f"{tmp_path}/none/{name}" for name in many]) == set()
    few, unlisted = named[:3], [f"{tmp_path}/file/{name}" for name in many]
    assert rundir.that_may_exist(few) == set(few), "a look at each is quicker than at a large folder"
    assert rundir.that_may_exist(unlisted) == set(unlisted)
