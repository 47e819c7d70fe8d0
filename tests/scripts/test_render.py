"""Launch scripts: valid shell whatever is in them, and complete."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from oelm_jobs.errors import ConfigurationError
from oelm_jobs.spec.target import Target
from tests.support import REPOSITORY, launch_script, make_run, needs, outcome_of, script_of

HOSTILE = ["it's", 'say "x"', "$(touch pwned)", "a;b", "line\nbreak", "%j", "ü 变", "`x`", "back\\slash", "-n"]


@pytest.mark.parametrize("word", HOSTILE)
def test_every_word_survives_the_shell_as_it_is(tmp_path: Path, word: str) -> None:
    target = Target(name="local", kind="local", root="", python="", setup=("export A=1", "# a comment at the end"))
    run = make_run(tmp_path, "a", run_dir=str(tmp_path / word))
    script = launch_script(
        REPOSITORY,
        target,
        run,
        {"word": word},
        command=["printf", "%s", word],
        python="python3",
        supervisor=[
            "python3",
            "-c",
            "import sys, json; r = json.load(sys.stdin); print(repr((sys.argv[1:], r['word'])))",
        ],
        code=str(tmp_path),
    )
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, timeout=300)
    assert eval(done.stdout) == (["supervise", "--", "printf", "%s", word], word), done.stderr
    assert not list(tmp_path.glob("**/pwned"))
    needs("shellcheck")
    checked = subprocess.run(["shellcheck", "--severity=warning", "-"], input=script, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_a_template_of_the_project_overrides_a_block(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "launch.sh.j2").write_text("no such {{ thing }}")
    with pytest.raises(ConfigurationError, match=r"launch\.sh\.j2.*'thing' is undefined"):
        launch_script(tmp_path, Target(name="l", kind="local", root="", python=""), make_run(tmp_path, "a"), {},
                      command=[], python="p", supervisor=[], code="/")  # fmt: skip
    (tmp_path / "templates" / "launch.sh.j2").write_text("{% broken")
    with pytest.raises(ConfigurationError, match="line 1"):
        launch_script(tmp_path, Target(name="l", kind="local", root="", python=""), make_run(tmp_path, "a"), {},
                      command=[], python="p", supervisor=[], code="/")  # fmt: skip


def test_a_script_names_the_run_and_how_to_use_it(tmp_path: Path) -> None:
    script = script_of(tmp_path, make_run(tmp_path, "a"), outcome_of("completed"), "t")
    assert script.startswith("#!/usr/bin/env bash\n# oelm-jobs: run a of study s on local.\n# Runs by hand")
