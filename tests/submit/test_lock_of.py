"""Which lock the runs of a plan are queued under."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import locks

from oelm_jobs import ledger
from oelm_jobs.study import tuning
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import make_plan
from oelm_jobs.submit.submission import lock_of
from oelm_jobs.targets.files import LOCAL
from tests.study.test_tuning import JUDGED, written


def test_runs_that_confirm_read_a_test_file_that_the_lock_of_the_trials_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(locks, "in_force", lambda project, study, data_hash="": asked.append(data_hash) or "lock")
    tuned = read_study(written(tmp_path, JUDGED))
    there = replace(LOCAL, root=str(tmp_path))
    path = ledger.lock_path(tmp_path, tuned)
    path.parent.mkdir(parents=True)
    path.touch()
    confirming = tuning.confirming(tuned, {name: {"max_lr": 1e-3} for name in tuned.groups})
    for study, more in ((tuned, {}), (confirming, {"seeds": tuned.confirm_seeds, "tag": "confirm"})):
        assert lock_of(make_plan(tmp_path, study, there, data_hash="d", **more)) == "lock"
    assert asked == ["d", ""]
