"""What a job depends on, by what became of the job of a run that it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import rundir
from oelm_jobs.agent.host import launch
from oelm_jobs.agent.slurm import needed


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"id": "7"}, needed.Dependency(words="afterok:7")),
        ({"limit": "no room"}, needed.Dependency(limit="waits for the ones before it")),
        ({"refused": "no"}, needed.Dependency(refused="not sent: a, which it needs, was not accepted")),
        ({"unknown": "?"}, needed.Dependency(refused="not sent: what became of a, which it needs, is not known")),
        (None, needed.Dependency(refused="not sent: what became of a, which it needs, is not known")),
    ],
)
def test_only_what_slurm_refused_is_told_as_refused(tmp_path: Path, answer: Any, expected: needed.Dependency) -> None:
    run_dir, path = str(tmp_path / "exp_a"), launch.submission_file(str(tmp_path), "t1")
    path.parent.mkdir(parents=True)
    rundir.write_json(path, {"jobs": [{"position": 0, "name": "a", "run_dirs": [run_dir]}]})
    given = needed.dependency(str(tmp_path), {"run_dir": run_dir, "token": "t1"}, lambda *which: answer)
    assert given == expected
