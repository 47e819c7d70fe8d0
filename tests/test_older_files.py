"""Files that older versions left in a user's repository: studies, locks, a ledger (tests/fixtures/older/make.sh)."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import lock

from oelm_jobs import ledger
from oelm_jobs.study.files import read_study
from tests.support import REPOSITORY

OLDER = REPOSITORY / "tests" / "fixtures" / "older"


@pytest.mark.parametrize("name", ["trained", "script"])
def test_a_lock_of_an_older_version_finds_nothing_changed_in_its_study(name: str) -> None:
    study = read_study(OLDER / "jobs" / f"{name}.toml")
    found = lock.read(ledger.lock_path(OLDER, study))
    assert found is not None and found.study == name and found.seeds == study.seeds
    assert lock.deviations(found, study, []) == []


@pytest.mark.parametrize("name", ["trained", "script"])
def test_a_lock_of_an_older_version_finds_a_rule_that_was_changed(name: str) -> None:
    study = read_study(OLDER / "jobs" / f"{name}.toml")
    found = lock.read(ledger.lock_path(OLDER, study))
    first, *others = study.hypotheses
    changed = replace(study, hypotheses=(replace(first, bounds=(0.3, 1.0)), *others))
    assert found is not None and list(lock.rule_deviations(found, changed)) == ["H1"]
    (words,) = map(str, lock.deviations(found, changed, []))
    assert words.startswith("hypotheses.H1.bounds was ")


def test_the_first_ledgers_lines_are_read_whole() -> None:
    (entry,) = ledger.read(OLDER, "script")
    assert (entry.run, entry.group, entry.seed, entry.state) == ("low", "low", 1, "DONE")
    assert (entry.metric, entry.value, entry.step, entry.why) == ("loss", 3.375, 5, "wrong data")
    assert entry.token.startswith("oelm-") and entry.files == ledger.ARCHIVED and "/.archive/exp_low-" in entry.place


@pytest.mark.slow
def test_a_report_takes_study_lock_and_ledger_as_they_are(oelm, tmp_path: Path) -> None:
    project = shutil.copytree(OLDER, tmp_path / "older")
    shown = " ".join(oelm("report", "--study", "script", cwd=project).stdout.split())
    assert "The rules were locked on" in shown and "DEVIATION" not in shown
    assert "low: seed 1 was forgotten (wrong data); the first result was loss 3.375 and decides, since the" in shown
