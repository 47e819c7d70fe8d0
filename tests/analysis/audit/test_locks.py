"""The locks of a study, one after the other: none disappears, and what was changed is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.audit import lock, locks

from oelm_jobs import ledger
from oelm_jobs.errors import ConfigurationError, UsageError

from .. import synthetic

STUDY = synthetic.study(seeds=(42, 43))
CHANGED = replace(STUDY, hypotheses=(STUDY.hypotheses[0], replace(STUDY.hypotheses[1], bounds=(0.15,))))


def path(project: Path) -> Path:
    return ledger.lock_path(project, STUDY)


def write(project: Path, study: Any = STUDY, *, at: float = 1000.0, before: str = "", **known: str) -> str:
    """Lock a study as oelm-report does; return the lock's hash."""
    content = lock.content(study, [], {}, at, before=before, **known)
    ledger.append_lock(project, STUDY.name, json.loads(content))
    path(project).parent.mkdir(parents=True, exist_ok=True)
    path(project).write_bytes(content)
    return str(json.loads(content)["sha256"])


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def remarks(project: Path) -> str:
    found = locks.load(project, STUDY)
    assert found is not None
    return "\n".join(map(str, found.remarks))


def test_a_lock_and_the_one_that_replaced_it_are_both_known(tmp_path: Path) -> None:
    assert locks.load(tmp_path, STUDY) is None
    first = write(tmp_path)
    second = write(tmp_path, CHANGED, at=2000.0, before=first)
    found = locks.load(tmp_path, STUDY)
    assert found is not None and [one.sha256 for one in found.all] == [first, second] and found.remarks == ()
    assert found.newest.plan["hypotheses"]["H2"]["bounds"] == [0.15] and found.newest.before == first
    assert found.by_hash(first) == found.all[0] and found.by_hash("f" * 64) is None
    assert ledger.read(tmp_path, STUDY.name) == [], "no line of a lock is one of a run"


def test_of_an_edited_lock_file_the_report_says_so_and_goes_by_the_ledger(tmp_path: Path) -> None:
    write(tmp_path)
    edit(path(tmp_path), "0.05", "0.5")
    assert "was edited after it was locked" in remarks(tmp_path)
    found = locks.load(tmp_path, STUDY)
    assert found is not None and found.newest.plan["hypotheses"]["H2"]["bounds"] == [0.05]


def test_an_edited_lock_file_that_no_ledger_knows_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    edit(path(tmp_path), '"locked_at": 1000.0', '"locked_at": 900.0')
    ledger.path_of(tmp_path, STUDY.name).unlink()
    with pytest.raises(UsageError, match="edited after it was locked"):
        locks.load(tmp_path, STUDY)


def test_a_ledger_that_was_removed_is_named_while_the_lock_is_there(tmp_path: Path) -> None:
    write(tmp_path, code="c" * 64)
    ledger.path_of(tmp_path, STUDY.name).unlink()
    assert "is gone or was edited: what it said of runs is unknown" in remarks(tmp_path)


def test_an_edited_lock_with_a_hash_to_match_is_in_no_line_of_the_ledger(tmp_path: Path) -> None:
    write(tmp_path)
    path(tmp_path).write_bytes(lock.content(CHANGED, [], {}, 1000.0))
    assert "the ledger has no line of this lock" in remarks(tmp_path)


def test_a_lock_file_that_was_removed_is_named_and_the_ledger_has_its_lock(tmp_path: Path) -> None:
    first = write(tmp_path)
    path(tmp_path).unlink()
    assert "is gone" in remarks(tmp_path)
    found = locks.load(tmp_path, STUDY)
    assert found is not None and found.newest.sha256 == first


def test_an_earlier_lock_that_was_put_back_is_named(tmp_path: Path) -> None:
    first = write(tmp_path)
    kept = path(tmp_path).read_bytes()
    write(tmp_path, CHANGED, at=2000.0, before=first)
    path(tmp_path).write_bytes(kept)
    assert "is an earlier lock than the newest one" in remarks(tmp_path)


def test_a_lock_that_was_edited_in_or_taken_out_of_the_ledger_is_named(tmp_path: Path) -> None:
    first = write(tmp_path)
    write(tmp_path, CHANGED, at=2000.0, before=first)
    file = ledger.path_of(tmp_path, STUDY.name)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[1])
    assert "the lock of before" in remarks(tmp_path) and "is missing" in remarks(tmp_path)
    file.write_text(lines[0].replace("0.05", "0.5") + lines[1])
    assert "a lock in it was edited" in remarks(tmp_path)


def test_a_lock_without_a_ledger_counts_as_those_of_older_versions_do(tmp_path: Path) -> None:
    write(tmp_path)
    ledger.path_of(tmp_path, STUDY.name).unlink()
    assert remarks(tmp_path) == ""


def test_runs_are_queued_under_the_lock_in_force(tmp_path: Path) -> None:
    assert locks.in_force(tmp_path, STUDY) == ""
    assert locks.in_force(tmp_path, STUDY, "d" * 64) == ""
    first = write(tmp_path, data="d" * 64)
    assert locks.in_force(tmp_path, STUDY) == locks.in_force(tmp_path, STUDY, "d" * 64) == first


def test_a_study_that_is_not_as_it_was_locked_is_named_with_file_key_and_what_would_be_right(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(ConfigurationError) as error:
        locks.in_force(tmp_path, replace(CHANGED, unequal={"max_lr": "why not"}))
    said = str(error.value)
    assert said.startswith(f"{STUDY.path} is not as {path(tmp_path)} has it:")
    assert "hypotheses.H2.bounds is [0.15], locked as [0.05]" in said
    assert 'unequal.max_lr = "why not" is not in the lock: leave it out' in said
    assert "hypotheses.H4 is missing, locked as {" in said and "oelm-report --lock" in str(error.value.hint)


def test_other_data_than_were_locked_are_refused(tmp_path: Path) -> None:
    write(tmp_path, data="d" * 64)
    with pytest.raises(ConfigurationError, match="the data are other ones than were locked"):
        locks.in_force(tmp_path, STUDY, "e" * 64)


def test_a_seed_may_be_added_to_a_locked_study_whose_verdicts_rest_on_the_others(tmp_path: Path) -> None:
    first = write(tmp_path)
    assert locks.in_force(tmp_path, synthetic.study(seeds=(42, 43, 44))) == first
