"""What a lock shows: which parts of the plan were fixed before which runs were queued, and how cheating comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.audit import lock, locks
from oelm_jobs.analysis.audit.locked import Account, account
from oelm_jobs.analysis.output import plain_text, results
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import build

from oelm_jobs.spec.study import Study
from oelm_jobs.spec.sweep import Parameter, Sweep

from .. import synthetic

STUDY = synthetic.study(seeds=(42, 43))
SWEPT = replace(STUDY, sweep=Sweep(parameters={"max_lr": Parameter(values=(1e-3, 3e-4))}), tuned=("max_lr",))
WIDER = replace(SWEPT, sweep=Sweep(parameters={"max_lr": Parameter(values=(1e-3, 3e-4, 1e-4))}))
EASIER = replace(STUDY, hypotheses=(STUDY.hypotheses[0], replace(STUDY.hypotheses[1], bounds=(0.15,))))
BEFORE = synthetic.START - 3600


def locked(*studies: Study, **more: str) -> locks.Locks:
    """Return the locks of a study as it was locked one time after the other, an hour each."""
    found: list[lock.Lock] = []
    for number, study in enumerate(studies):
        before = found[-1].sha256 if found else ""
        content = lock.content(study, [], {}, BEFORE + 3600 * number, before=before, **more)
        found.append(lock.of(json.loads(content)))
    return locks.Locks(all=tuple(found))


@pytest.fixture
def runs(tmp_path: Path) -> list[LoadedRun]:
    return synthetic.make_arms(tmp_path, {"oelm_no_freeze": [3.85, 3.86], "oelm_freeze": [3.86, 3.88]})


def under(runs: list[LoadedRun], sha256: str, **more: Any) -> list[LoadedRun]:
    return [replace(run, lock=sha256, queued_at=synthetic.START - 60, **more) for run in runs]


def said(found: Account) -> tuple[str, str]:
    """Return what a lock shows, and what is wrong."""
    return " ".join(map(str, found.lines)), " ".join(map(str, found.faults))


def test_a_study_that_was_locked_before_its_runs_were_queued_shows_it(runs: list[LoadedRun]) -> None:
    known = locked(STUDY)
    found = account(known, STUDY, under(runs, known.newest.sha256))
    shows, wrong = said(found)
    assert known.newest.sha256[:12] in shows and wrong == ""
    assert "All of it was locked before the first run that counts here was queued (2023-11-14 22:12:20 UTC)." in shows
    assert (found.search_first, found.rest_first) == (None, True)


def test_a_tagged_run_of_the_same_study_that_began_before_the_lock_is_a_deviation(runs: list[LoadedRun]) -> None:
    """Somebody looks at what the seeds give, and locks then."""
    known = locked(STUDY)
    early = replace(runs[0], name="peeked", tag="peek", queued_at=BEFORE - 600, started_at=BEFORE - 590)
    counting = under(runs, known.newest.sha256)
    made = build(STUDY, [*counting, early], locks=known)
    assert "the plan was locked after peeked had begun" in " ".join(map(str, made.deviations))
    assert made.locked is not None
    assert "All of it was locked before the first run that counts here was queued" in said(made.locked)[0]
    later = replace(early, started_at=synthetic.START, lock=known.newest.sha256)
    assert build(STUDY, [*counting, later], locks=known).deviations == ()


def test_search_space_and_rest_are_told_apart(runs: list[LoadedRun]) -> None:
    """Locked by confirming alone: too late for what was tried."""
    known = locked(SWEPT)
    trials = [replace(run, tag="max_lr0.001") for run in runs]
    confirming = under(runs, known.newest.sha256, tag="confirm")
    found = account(known, SWEPT, [*trials, *confirming])
    shows, wrong = said(found)
    assert (found.search_first, found.rest_first) == (False, True)
    assert "search space, budget and selection rule were not locked" in wrong and "hypotheses" not in wrong
    assert "The rest was locked before the first run that confirms was queued" in shows
    found = account(known, SWEPT, [*under(trials, known.newest.sha256), *confirming])
    assert (found.search_first, found.rest_first) == (True, True)
    assert "selection rule were locked before the first trial was queued" in said(found)[0]
    assert "No run that confirms has begun since" in said(account(known, SWEPT, under(trials, known.newest.sha256)))[0]


def test_a_search_space_that_changed_after_the_first_trial_is_named(runs: list[LoadedRun]) -> None:
    known = locked(SWEPT, WIDER)
    trials = under([replace(run, tag="max_lr0.001") for run in runs], known.all[0].sha256)
    confirming = under(runs, known.all[1].sha256, tag="confirm")
    found = account(known, WIDER, [*trials, *confirming])
    wrong = said(found)[1]
    assert found.search_first is False and found.rest_first is True
    assert "search space, budget and selection rule were not locked, or others were, when" in wrong
    assert "locked anew on" in wrong and "budget.combinations was 2 and is 3" in wrong


def test_verdicts_are_held_to_the_lock_of_the_first_run_that_they_rest_on(runs: list[LoadedRun]) -> None:
    """Locked anew, with an easier rule, after the results were seen."""
    known = locked(STUDY, EASIER)
    made = build(EASIER, under(runs, known.all[0].sha256), locks=known)
    assert made.locked is not None and made.locked.binding == known.all[0]
    (h2,) = [verdict for verdict in made.verdicts if verdict.hypothesis.id == "H2"]
    assert any(
        "DEVIATION: the rule is not the locked one: bounds was [0.05] and is [0.15]" in note for note in h2.alarms
    )
    deviations = " ".join(map(str, made.deviations))
    assert "after oelm_no_freeze, " in deviations and "hypotheses.H2.bounds was [0.05] and is [0.15]" in deviations
    shown = plain_text.as_text(made, "en", 0.0)
    assert "The rules were locked on" in shown and "Deviations from the locked plan" in shown


def test_verdicts_of_a_study_whose_sweep_tunes_nothing_rest_on_the_runs_beside_it(runs: list[LoadedRun]) -> None:
    asked = replace(STUDY, sweep=SWEPT.sweep)
    known = locked(asked)
    swept = under([replace(run, tag="max_lr0.001") for run in runs], known.newest.sha256)
    shows = said(account(known, asked, swept))[0]
    assert "before the first trial was queued" in shows
    assert "No run that decides has begun since: those of the sweep decide nothing." in shows
    shows = said(account(known, asked, [*swept, *under(runs, known.newest.sha256)]))[0]
    assert "The rest was locked before the first run that decides was queued (2023-11-14 22:12:20 UTC)." in shows
    found = account(known, asked, [*runs, *swept])
    assert (found.search_first, found.rest_first) == (True, False)
    assert "hypotheses, seeds and configuration were not locked" in said(found)[1]
    for there in (swept, [*swept, *under(runs, known.newest.sha256)]):
        shows, wrong = said(account(known, asked, there))
        assert "confirm" not in shows and "No run has begun" not in shows and wrong == ""


def test_a_lock_that_was_changed_before_anything_ran_binds_as_it_is(runs: list[LoadedRun]) -> None:
    known = locked(STUDY, EASIER)
    made = build(EASIER, under(runs, known.newest.sha256), locks=known)
    assert made.locked is not None and made.locked.binding == known.newest
    assert "locked anew on" in " ".join(map(str, made.deviations)) and "queued" not in " ".join(
        map(str, made.deviations)
    )
    assert not any("DEVIATION" in str(note) for verdict in made.verdicts for note in verdict.alarms)


def test_a_run_that_was_queued_under_a_lock_that_nobody_knows_is_named(runs: list[LoadedRun]) -> None:
    """The lock was made anew with the clock set back, and the ledger with it."""
    found = account(locked(STUDY), STUDY, under(runs, "f" * 64))
    assert found.rest_first is False
    assert "queued under a lock that is not known here (ffffffffffff)" in said(found)[1]


def test_a_run_that_was_queued_without_the_lock_is_named_beside_those_under_it(runs: list[LoadedRun]) -> None:
    known = locked(STUDY)
    found = account(known, STUDY, [*under(runs[:-1], known.newest.sha256), runs[-1]])
    assert found.rest_first is False and f"when {runs[-1].name} were queued" in said(found)[1]


def test_other_data_and_other_code_than_were_locked_are_named(runs: list[LoadedRun]) -> None:
    known = locked(STUDY, data="d" * 64, code="c" * 16)
    stamped = under(runs, known.newest.sha256)
    changed = [replace(run, provenance={**run.provenance, "train_code": "e" * 16}) for run in stamped]
    made = build(STUDY, changed, locks=known)
    deviations = " ".join(map(str, made.deviations))
    assert "oelm_freeze was run on other data than locked" in deviations
    assert "other code than was locked" in deviations


def test_runs_of_older_versions_record_no_lock_which_is_said(runs: list[LoadedRun]) -> None:
    found = account(locked(STUDY), STUDY, runs)
    assert found.rest_first is None and "No run records the lock that it was queued under" in said(found)[0]
    assert said(found)[1] == ""


def test_json_has_the_lock_and_what_it_shows(runs: list[LoadedRun]) -> None:
    known = locked(STUDY)
    made = results.results(build(STUDY, under(runs, known.newest.sha256), locks=known), "en", 0.0)
    assert made["lock"]["sha256"] == known.newest.sha256 and made["lock"]["rest_locked_first"] is True
    assert made["lock"]["search_locked_first"] is None and len(made["lock"]["said"]) == 2
    assert results.results(build(STUDY, runs), "en", 0.0)["lock"] is None
