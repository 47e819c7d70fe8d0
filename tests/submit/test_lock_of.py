"""Which lock the runs of a plan are queued under, and which data they may read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from oelm_jobs import ledger
from oelm_jobs.connections import connect
from oelm_jobs.errors import ConfigurationError
from oelm_jobs.project import Project
from oelm_jobs.spec.study import Study
from oelm_jobs.study import tuning
from oelm_jobs.study.files import read_study
from oelm_jobs.study.plan import Plan
from oelm_jobs.submit.submission import lock_of
from oelm_jobs.targets.files import LOCAL
from tests.study.test_tuning import JUDGED
from tests.support import write_tokens


@pytest.fixture
def locked(project: Path) -> Path:
    """A project whose study tunes, is judged on a test file, and was locked."""
    (project / "jobs" / "tiny.toml").write_text(JUDGED)
    write_tokens(project / "data" / "tiny" / "test.bin", 700, 64)
    Project(project).lock()
    return project


def confirming(project: Path) -> Plan:
    """Return the plan of the runs that confirm a choice."""
    study = read_study(project / "jobs" / "tiny.toml")
    chosen = tuning.confirming(study, {name: {"max_lr": 1e-3} for name in study.groups})
    return Project(project).plan(chosen, seeds=study.confirm_seeds, tag="confirm")


def test_runs_that_confirm_read_a_test_file_of_which_the_lock_of_the_trials_knows_nothing(locked: Path) -> None:
    study: Study = read_study(locked / "jobs" / "tiny.toml")
    plan = confirming(locked)
    assert all(run.settings["test_data_path"].endswith("/data/tiny/test.bin") for run in plan.runs)
    connection = connect(LOCAL, locked)
    by_trials, by_confirming = (lock_of(each, connection) for each in (Project(locked).plan(), plan))
    assert by_trials == by_confirming and len(by_trials) == 64
    assert ledger.locks(locked, study.name)[0]["data"] != plan.data_hash, "what they record has the test file"
    write_tokens(locked / "data" / "tiny" / "test.bin", 720, 64)
    assert lock_of(confirming(locked), connection) == by_trials


@pytest.mark.parametrize("name", ["train.bin", "val.bin"])
def test_data_that_were_swapped_after_the_lock_confirm_nothing(locked: Path, name: str) -> None:
    write_tokens(locked / "data" / "tiny" / name, 5000, 64)
    with pytest.raises(ConfigurationError, match=f"the data are other ones than were locked.*data/tiny/{name}"):
        Project(locked).submit(confirming(locked))
    assert Project(locked).runs() == []


@pytest.mark.parametrize("judged", [False, True], ids=["val", "test"])
@pytest.mark.parametrize("swapped", ["train.bin", "val.bin", "test.bin"])
def test_swapped_data_are_refused_by_the_names_of_all_that_are_read(project: Path, swapped: str, judged: bool) -> None:
    """Of a study that tunes nothing; what it is validated on lies beside what it trains on, and has no key."""
    path, names = project / "jobs" / "tiny.toml", ["train.bin", "val.bin", "test.bin"][: 2 + judged]
    if judged:
        text = path.read_text().replace("final_val_", "final_test_")
        path.write_text(text.replace("seeds = [42]", 'seeds = [42]\njudge_on = "test"', 1))
    write_tokens(project / "data" / "tiny" / "test.bin", 700, 64)
    mine = Project(project)
    mine.lock()
    write_tokens(project / "data" / "tiny" / swapped, 5000, 64)
    if swapped not in names:
        assert mine.plan().data_hash
        return
    with pytest.raises(ConfigurationError) as refused:
        mine.submit(mine.plan())
    assert sorted(re.findall(r"data/tiny/(\w+\.bin)", str(refused.value))) == sorted(names)
