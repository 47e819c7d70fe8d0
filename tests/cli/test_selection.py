"""Commands about some of the runs: by seed, tag, state and pattern, the same in all, and said before they act."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from oelm_jobs import Project
from oelm_jobs.agent.states import State
from tests.cli.test_view import remember

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("argv", [["fetch"], ["cancel", "--yes"], ["forget", "--yes"]], ids=lambda argv: argv[0])
@pytest.mark.parametrize("chosen", [["tiny"], ["--study", "tiny"]])
def test_a_name_of_several_runs_is_told_before_anything_is_done(
    project: Path, argv: list[str], chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    remember(project, ["gpt_base", "gpt_base-s43", "oelm_freeze"], State.DONE)
    main = importlib.import_module(f"oelm_jobs.cli.{argv[0]}").main
    with monkeypatch.context() as patch:
        patch.setattr(Project, argv[0], lambda *arguments, **settings: click.get_current_context().exit(0))
        said = CliRunner().invoke(main, [*argv[1:], *chosen])
        single = CliRunner().invoke(main, [*argv[1:], "oelm_freeze"])
    assert (said.exit_code, said.output) == (0, "3 of 3 runs: gpt_base, gpt_base-s43, oelm_freeze\n")
    assert (single.exit_code, single.output) == (0, "")


def test_commands_take_the_runs_that_options_choose_and_say_which(oelm, project: Path) -> None:
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--num-seeds", "2", "--mode", "parallel", "--wait")
    oelm("submit", "--study", "tiny", "--group", "gpt_base", "--tag", "lr1", "--wait")
    fetched = oelm("fetch", "--seed", "43-50", "--json")
    assert [run["run"] for run in json.loads(fetched.stdout)["runs"]] == ["gpt_base-s43"]
    assert "1 of 3 runs: gpt_base-s43" in fetched.stderr
    shown = json.loads(oelm("status", "gpt_base", "--tag", "lr*", "--json").stdout)
    assert [run["name"] for run in shown["runs"]] == ["gpt_base-lr1"]
    assert "2 of 3 runs: gpt_base-s43, gpt_base-lr1" in oelm("clean", "gpt_base-*", "--dry-run").stderr
    nothing = oelm("cancel", "gpt_base*", "--state", "RUNNING,QUEUED")
    assert "None of 3 runs is meant." in nothing.stderr and nothing.stdout == ""
    assert oelm("fetch", "--state", "FAILED").stdout == "", "none is not all"
    unknown = oelm("forget", "tiny", "--tag", "lr2", "--yes", check=False)
    assert unknown.returncode == 2 and "--tag lr2: no such run; did you mean 'lr1'?" in unknown.stderr
    forgotten = oelm("forget", "--tag", "lr1", "--yes")
    assert (
        "gpt_base-lr1: forgotten" in forgotten.stdout and len(json.loads(oelm("status", "--json").stdout)["runs"]) == 2
    )
