"""What ``oelm-logs`` says besides the log: where the reason lies, and what it waits for."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import end_all

pytestmark = pytest.mark.slow

GPT = ("submit", "--study", "tiny", "--group", "gpt_base")


def test_a_run_whose_set_up_failed_has_its_reason_in_the_supervisors_log(oelm, project: Path) -> None:
    (project / "jobs" / "targets.toml").write_text(
        f'[bare]\nkind = "local"\npython = "{sys.executable}"\nsetup = ["no-such-module load torch", "exit 3"]\n'
    )
    oelm(*GPT, "--target", "bare", "--wait", check=False)
    said = oelm("logs", "gpt_base").stderr
    assert "FAILED and has written nothing yet" in said
    assert "what was said before its training: oelm-logs gpt_base --supervisor" in said
    named = oelm("logs", "gpt_base", "--study", "tiny").stderr
    assert "oelm-logs gpt_base --study tiny --supervisor" in named
    own = oelm("logs", "gpt_base", "--supervisor")
    assert "no-such-module: command not found" in own.stdout and "--supervisor" not in own.stderr


def test_following_a_run_that_waits_says_at_once_what_for(oelm, project: Path) -> None:
    (project / "jobs" / "targets.toml").write_text(
        f'[bare]\nkind = "local"\npython = "{sys.executable}"\nsetup = ["sleep 600"]\n'
    )
    oelm(*GPT, "--target", "bare")
    program = "from oelm_jobs.runs import logs; logs.WAIT_S = 300.0; from oelm_jobs.cli.logs import main; main()"
    argv = [sys.executable, "-c", program, "gpt_base", "--follow"]
    with subprocess.Popen(argv, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stderr is not None
        spoke = select.select([following.stderr], [], [], 240)[0]
        end_all(project)
        out, said = following.communicate(timeout=300)
    assert spoke, "before a target has been asked to wait for more"
    assert said.startswith("gpt_base is QUEUED (") and "its log follows when it is written" in said
    assert out == "" and following.returncode == 0
