"""What a job needs when it begins, and when Slurm starts it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from oelm_jobs.agent import inside, rundir
from oelm_jobs.agent.host import launch, needs
from oelm_jobs.agent.run.inputs import Unmet
from oelm_jobs.agent.run_record import RunRecord
from oelm_jobs.agent.states import State
from tests.support import make_run

NEED = {"study": "s", "run": "a", "when": "success"}
TAKEN = {"input": "init", "artifact": "best"}


def judged(folder: Path, need: dict[str, str], *, token: str = "t1", goes_on: bool = False) -> bool:
    """Tell whether a run doesn't begin, on a host or a cluster, since one that it needs was archived."""
    content = {"run_dir": str(folder / "exp_b"), "run": "b", "token": token}
    record = RunRecord.of({**content, "needs": [{**NEED, **need, "run_dir": str(folder / "exp_a")}]})
    answers = set()
    for look in (
        lambda: needs.wait(record, print, goes_on=goes_on), lambda: needs.of_ended_jobs(record, 0.0, goes_on=goes_on)
    ):  # fmt: skip
        try:
            look()
        except Unmet as error:
            assert error.state is State.CANCELLED
            answers.add(True)
        else:
            answers.add(False)
    (answer,) = answers
    return answer


def test_what_was_over_when_a_run_was_submitted_is_not_judged_again(tmp_path: Path) -> None:
    assert not judged(tmp_path, {})
    assert judged(tmp_path, {"token": "t0"}), "it was waited for"
    assert judged(tmp_path, {}, token=rundir.BY_HAND), "nobody submitted it"


def test_what_a_run_takes_is_judged_until_its_content_is_on_record(tmp_path: Path) -> None:
    assert judged(tmp_path, TAKEN) and judged(tmp_path, {**TAKEN, "token": "t0"})
    row = {"input": "init", "study": "s", "run": "a", "artifact": "best", "path": "/x", "sha256": "0" * 64, "size": 7}
    rundir.control(tmp_path / "exp_b", "").mkdir(parents=True)
    rundir.write_json(rundir.control(tmp_path / "exp_b", rundir.INPUTS), {"version": 1, "inputs": [row]})
    assert not judged(tmp_path, TAKEN), "the file is looked at"
    assert not judged(tmp_path, {**TAKEN, "token": "t0"}, goes_on=True), "it needs that no more"
    assert judged(tmp_path, {**TAKEN, "token": "t0"}), "it was submitted to wait for that"


def test_a_job_that_slurm_starts_again_does_not_look_for_what_it_began_with(tmp_path: Path) -> None:
    content = {"run_dir": str(tmp_path / "exp_b"), "run": "b", "token": "t1"}
    record = RunRecord.of({**content, "needs": [{**NEED, "token": "t1", "run_dir": str(tmp_path / "exp_a")}]})
    rundir.control(record.run_dir, rundir.START).parent.mkdir(parents=True)
    start = {"number": 1, "devices": [], "started_at": 1.0}
    for token, is_met in (("t0", False), ("t1", True)):
        rundir.write_json(rundir.control(record.run_dir, rundir.START), {**start, "token": token})
        if is_met:
            needs.of_ended_jobs(record, 0.0, goes_on=False)
        else:
            with pytest.raises(Unmet, match="a, which it needs, is not done"):
                needs.of_ended_jobs(record, 0.0, goes_on=False)


def test_a_launch_that_names_no_run_as_needed_starts_none_of_its_runs(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, "a"), make_run(tmp_path, "b")
    script = f"touch {tmp_path}/started\n"
    runs = [{"run_dir": run.run_dir, "token": "t1", "script": script, "gpus": 0} for run in (first, second)]
    request = {"root": str(tmp_path), "token": "t1", "runs": [runs[0], {**runs[1], "needs": ["/etc"]}]}
    with pytest.raises(inside.Outside, match="'/etc' is no run directory"):
        launch.launch(request)
    assert not launch.submission_file(tmp_path, "t1").exists()
    assert not rundir.control(first.run_dir, rundir.CLAIM).exists()
