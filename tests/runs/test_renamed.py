"""A study whose file is renamed: its runs are never lost unasked, and never another study's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.errors import ConfigurationError, UsageError
from oelm_jobs.study.files import load_study
from tests.support import TINY_STUDY

GPT = ("submit", "--group", "gpt_base", "--study")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_renamed_study_keeps_its_runs_by_its_name(oelm: Callable[..., Any], project: Path) -> None:
    oelm(*GPT, "tiny", "--wait")
    old, new = project / "jobs" / "tiny.toml", project / "jobs" / "small.toml"
    old.rename(new)
    refused = oelm(*GPT, "small", check=False)
    assert refused.returncode == 2 and "give --yes to confirm" in refused.stderr
    assert f'If {new} is study tiny renamed, write name = "tiny" into it' in refused.stderr
    assert "1 of 1 runs were run as study tiny, which has no file any more" in refused.stderr
    assert 'write name = "tiny" into it' in oelm("report", "--study", "small", check=False).stderr
    new.write_text(f'name = "tiny"\n{TINY_STUDY}')
    for called in ("small", "tiny", "jobs/small.toml"):
        assert "gpt_base: left alone, is done" in oelm(*GPT, called).stdout
    report = json.loads(oelm("report", "--study", "small", "--json").stdout)
    assert [run["status"] for run in report["runs"]] == ["DONE"]
    rebuilt = json.loads(oelm("status", "--study", "tiny", "--rebuild", "--json").stdout)["runs"]
    assert [run["name"] for run in rebuilt] == ["gpt_base"]


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_copy_of_a_study_is_another_and_a_renamed_one_may_be(oelm: Callable[..., Any], project: Path) -> None:
    oelm(*GPT, "tiny", "--wait")
    (project / "jobs" / "copy.toml").write_text(TINY_STUDY)
    assert "gpt_base: submitted" in oelm(*GPT, "copy", "--wait").stdout, "that study has its file"
    (project / "jobs" / "tiny.toml").rename(project / "jobs" / "small.toml")
    assert "gpt_base: submitted" in oelm(*GPT, "small", "--yes", "--wait").stdout
    runs = json.loads(oelm("status", "--json").stdout)["runs"]
    assert [(run["study"], run["state"]) for run in runs] == [(name, "DONE") for name in ("tiny", "copy", "small")]


def test_a_study_is_found_by_its_name_and_by_its_file(project: Path) -> None:
    jobs = project / "jobs"
    (jobs / "b.toml").write_text(f'name = "a"\n{TINY_STUDY}')
    assert [load_study(project, name).name for name in ("a", "b", "tiny")] == ["a", "a", "tiny"]
    (jobs / "c.toml").write_text(f'name = "b"\n{TINY_STUDY}')
    assert load_study(project, "b").path == jobs / "c.toml", "what is called so comes first"
    with pytest.raises(UsageError, match="did you mean 'tiny'. valid: a, b, tiny"):
        load_study(project, "tinny")


def test_two_files_of_one_study_are_refused(project: Path) -> None:
    (project / "jobs" / "b.toml").write_text(f'name = "tiny"\n{TINY_STUDY}')
    for name in ("b", "tiny"):
        with pytest.raises(ConfigurationError, match=r"name = 'tiny': is also the study in .*\.toml"):
            load_study(project, name)


@pytest.mark.parametrize("value", ["7", '"../x"', '"exp_a"', '""'])
def test_a_name_that_cant_be_one_is_refused(project: Path, value: str) -> None:
    (project / "jobs" / "b.toml").write_text(f"name = {value}\n{TINY_STUDY}")
    with pytest.raises(ConfigurationError, match=r"b\.toml.*name"):
        load_study(project, "b")
