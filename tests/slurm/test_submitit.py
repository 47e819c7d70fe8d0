"""What the toolkit takes from submitit's private names: the series that is pinned has them, and they do what is
expected.
"""

from __future__ import annotations

import inspect
from importlib import metadata
from pathlib import Path

import pytest
import submitit
from submitit.core import core
from submitit.core.utils import FailedSubmissionError

from oelm_jobs.agent.slurm import commands as slurm_commands
from oelm_jobs.agent.slurm import words as slurm_words
from oelm_jobs.schedulers import submitit_sender
from oelm_jobs.schedulers.submitit_sender import ScriptExecutor
from tests.slurm.testbed import Testbed
from tests.support import REPOSITORY


def test_the_series_is_the_pinned_one() -> None:
    assert metadata.version("submitit").split(".")[:2] == ["1", "5"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_submit_command", ["self", "command"]),
        ("_make_submission_file_text", ["self", "command", "uid"]),
        ("_make_submission_command", ["self", "submission_file_path"]),
        ("_num_tasks", ["self"]),
        ("_get_job_id_from_submission_command", ["string"]),
    ],
)
def test_the_names_that_are_overridden_or_called_are_there(name: str, parameters: list[str]) -> None:
    method = getattr(submitit.SlurmExecutor, name)
    assert list(inspect.signature(method).parameters) == parameters
    if name != "_submit_command":
        assert getattr(ScriptExecutor, name) is not method, "it is overridden"


def test_submitting_runs_the_overridden_text_and_command_and_reads_the_id() -> None:
    source = inspect.getsource(core.PicklingExecutor._submit_command)
    for name in ("_make_submission_file_text", "_make_submission_command", "_get_job_id_from_submission_command"):
        assert f"self.{name}(" in source


def test_no_other_module_knows_submitit() -> None:
    for path in (REPOSITORY / "oelm_jobs").rglob("*.py"):
        if path.name != "submitit_sender.py":
            assert "import submitit" not in path.read_text() and "from submitit" not in path.read_text(), path


def test_an_id_is_read_behind_a_banner_and_nothing_is_made_up() -> None:
    read = ScriptExecutor._get_job_id_from_submission_command
    assert read("Welcome!\n7\nSubmitted batch job 12 on cluster b\n") == "12"
    with pytest.raises(FailedSubmissionError):
        read("Submitted?\n")


def test_a_machine_without_slurm_certainly_submits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\ntrue\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm_commands.NotRun, match="sbatch can't be run: Could not detect"):
        submitit_sender.send(str(script), [])


@pytest.mark.slow
def test_a_script_is_submitted_as_it_is_and_again(tmp_path: Path, cluster: Testbed) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\n#SBATCH --job-name=mine\n#SBATCH --output=/dev/null\ntrue\n")
    for _ in range(2):
        code, out, err = submitit_sender.send(str(script), ["--time=3"])
        assert (code, err) == (0, "")
        number = slurm_words.read_answer(code, out, err)["id"]
        assert cluster.job(number)["JobName"] == "mine" and cluster.job(number)["TimeLimit"] == "00:03:00"
    kept = tmp_path / "submitit" / f"{number}_submission.sh"
    assert kept.read_text() == script.read_text()


@pytest.mark.slow
def test_a_refusal_is_said_in_sbatchs_words(
    tmp_path: Path, cluster: Testbed, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/bash\ntrue\n")
    code, out, err = submitit_sender.send(str(script), ["--partition=none"])
    assert code == 1 and not out and "invalid partition specified: none" in err
    assert capfd.readouterr() == ("", "")
