"""Locking a plan before training, and what a report says about what came later."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.output import plain_text
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import build

from oelm_jobs.errors import UsageError

from .. import synthetic

BEFORE = synthetic.START - 3600


def locked(
    tmp_path: Path, runs: list[LoadedRun], *, at: float = BEFORE, seeds: tuple[int, ...] = (42, 43), **options: object
) -> lock.Lock:
    path = tmp_path / "demo_lock.json"
    path.write_bytes(
        lock.content(
            synthetic.study(seeds=seeds, **options), runs, {"gpt_base": synthetic.sha("fingerprint gpt_base")}, at
        )
    )
    found = lock.read(path)
    assert found is not None
    return found


def said(found: lock.Lock, study: object, runs: list[LoadedRun]) -> list[str]:
    return list(map(str, lock.deviations(found, study, runs)))


def test_an_unchanged_plan_has_no_deviations(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, {"gpt_base": [3.8, 3.81]})
    assert said(locked(tmp_path, []), synthetic.study(seeds=(42, 43)), runs) == []


def test_a_changed_rule_is_listed_with_both_values(tmp_path: Path) -> None:
    study = synthetic.study(seeds=(42, 43))
    changed = replace(
        study, hypotheses=(*study.hypotheses[:1], replace(study.hypotheses[1], bounds=(0.15,)), *study.hypotheses[2:])
    )
    assert said(locked(tmp_path, []), changed, []) == ["hypotheses.H2.bounds was [0.05] and is [0.15]"]


def test_added_and_removed_hypotheses_are_listed(tmp_path: Path) -> None:
    study = synthetic.study(seeds=(42, 43))
    fewer = replace(study, hypotheses=study.hypotheses[:3])
    assert (
        "hypotheses.H4" in said(locked(tmp_path, []), fewer, [])[0]
        and "was removed" in said(locked(tmp_path, []), fewer, [])[0]
    )
    more = replace(study, hypotheses=(*study.hypotheses, replace(study.hypotheses[1], id="H5")))
    assert "was added" in said(locked(tmp_path, []), more, [])[0]


def test_a_verdict_by_another_rule_than_the_locked_one_says_so_in_its_own_line(tmp_path: Path) -> None:
    study = synthetic.study(seeds=(42, 43))
    runs = synthetic.make_arms(tmp_path, {"gpt_base": [3.8, 3.81], "oelm_freeze": [3.9, 3.91]})
    h2, h4 = study.hypotheses[1], study.hypotheses[3]
    changed = replace(study, hypotheses=(replace(h2, bounds=(0.15,)), h4, replace(h4, id="H5", bounds=(0.2,))))
    report = build(changed, runs, lock=locked(tmp_path, []))
    notes = {v.hypothesis.id: [str(note) for note in v.alarms if "DEVIATION" in str(note)] for v in report.verdicts}
    assert notes == {
        "H2": ["DEVIATION: the rule is not the locked one: bounds was [0.05] and is [0.15]"],
        "H4": [],
        "H5": ["DEVIATION: this hypothesis is not part of the locked plan"],
    }


def test_a_changed_configuration_and_a_new_excuse_are_listed(tmp_path: Path) -> None:
    changed = replace(
        synthetic.study(seeds=(42, 43), unequal={"max_lr": "why not"}), settings={"d_model": 256}, global_batch=32
    )
    found = " ".join(said(locked(tmp_path, []), changed, []))
    assert (
        "train.d_model was 128 and is 256" in found
        and "unequal.max_lr" in found
        and "global_batch was 16 and is 32" in found
    )


def test_seeds_that_came_later_are_labelled_and_do_not_decide(tmp_path: Path) -> None:
    losses = {"gpt_base": [3.88, 3.89, 3.9], "oelm_no_freeze": [3.85, 3.86, 3.95], "oelm_freeze": [3.86, 3.88, 3.90]}
    runs = synthetic.make_arms(tmp_path / "runs", losses)
    study = synthetic.study(seeds=(42, 43, 44))
    report = build(study, runs, lock=locked(tmp_path, []))
    assert any("seeds 44 came after the lock" in str(d) for d in report.deviations)
    h2 = next(v for v in report.verdicts if v.hypothesis.id == "H2")
    assert [v.seed for v in h2.group] == [42, 43]
    assert "Deviations from the locked plan" in plain_text.as_text(report, "en", 0.0)


def test_a_run_of_another_fingerprint_is_listed(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, {"gpt_base": [3.8]})
    other = replace(runs[0], fingerprint="something else")
    assert "gpt_base was run with another configuration or other data than locked" in said(
        locked(tmp_path, []), synthetic.study(seeds=(42, 43)), [other]
    )


def test_a_lock_that_came_after_the_start_says_so(tmp_path: Path) -> None:
    runs = synthetic.make_arms(tmp_path, {"gpt_base": [3.8]})
    study = synthetic.study(seeds=(42, 43))
    late = locked(tmp_path, runs, at=synthetic.START + 9e6)
    assert said(late, study, runs) == ["the plan was locked after gpt_base had begun"]
    hidden = locked(tmp_path, [], at=synthetic.START + 9e6)
    assert said(hidden, study, runs) == ["the plan was locked after gpt_base had begun"]


def test_a_lock_that_was_edited_is_refused(tmp_path: Path) -> None:
    locked(tmp_path, [])
    path = tmp_path / "demo_lock.json"
    record = json.loads(path.read_text())
    record["plan"]["hypotheses"]["H2"]["bounds"] = [0.5]
    path.write_text(json.dumps(record))
    with pytest.raises(UsageError, match="edited after it was locked"):
        lock.read(path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "\x00"])
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "demo_lock.json"
    path.write_text(content)
    with pytest.raises(UsageError, match="not a lock file"):
        lock.read(path)


def test_without_a_lock_there_is_none(tmp_path: Path) -> None:
    assert lock.read(tmp_path / "demo_lock.json") is None
