"""What a job needs when it begins, and when Slurm starts it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from oelm_jobs.agent import inside, rundir
from oelm_jobs.agent.host import launch, needs
from oelm_jobs.agent.run.inputs import Unmet
from oelm_jobs.agent.run_record import RunRecord
from tests.support import make_run


def test_a_job_that_slurm_starts_again_does_not_look_for_what_it_began_with(tmp_path: Path) -> None:
    content = {"run_dir": str(tmp_path / "exp_b"), "run": "b", "token": "t1"}
    record = RunRecord.of({**content, "needs": [{"study": "s", "run": "a", "run_dir": str(tmp_path / "exp_a")}]})
    rundir.control(record.run_dir, rundir.START).parent.mkdir(parents=True)
    start = {"number": 1, "devices": [], "started_at": 1.0}
    for token, is_met in (("t0", False), ("t1", True)):
        rundir.write_json(rundir.control(record.run_dir, rundir.START), {**start, "token": token})
        if is_met:
            needs.of_ended_jobs(record, 0.0)
        else:
            with pytest.raises(Unmet, match="a, which it needs, is not done"):
                needs.of_ended_jobs(record, 0.0)


def test_a_launch_that_names_no_run_as_needed_starts_none_of_its_runs(tmp_path: Path) -> None:
    first, second = make_run(tmp_path, "a"), make_run(tmp_path, "b")
    script = f"touch {tmp_path}/started\n"
    runs = [{"run_dir": run.run_dir, "token": "t1", "script": script, "gpus": 0} for run in (first, second)]
    request = {"root": str(tmp_path), "token": "t1", "runs": [runs[0], {**runs[1], "needs": ["/etc"]}]}
    with pytest.raises(inside.Outside, match="'/etc' is no run directory"):
        launch.launch(request)
    assert not launch.submission_file(tmp_path, "t1").exists()
    assert not rundir.control(first.run_dir, rundir.CLAIM).exists()
