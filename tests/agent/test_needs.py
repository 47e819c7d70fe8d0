"""What a job needs when it begins, and when Slurm starts it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.host import needs
from oelm_jobs.agent.run.inputs import Unmet
from oelm_jobs.agent.run_record import RunRecord


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
