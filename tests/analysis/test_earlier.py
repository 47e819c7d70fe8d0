"""Runs that started over or were forgotten: which of a ledger's lines are about one, and where it is read from."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis import earlier
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.judging.verdicts import UNDECIDABLE, Verdict
from oelm_jobs.analysis.reading import loading

from oelm_jobs import ledger
from oelm_jobs.reporting import StudyReport, report_on
from oelm_jobs.spec.block import Block

from . import synthetic
from .synthetic import load, make_run, record

LOSSES = {"gpt_base": [3.88, 3.885], "oelm_no_freeze": [3.85, 3.856], "oelm_freeze": [3.95, 3.957]}
STUDY = synthetic.study(seeds=(42, 43))


def made(folder: Path, token: str, **more: Any) -> Path:
    """Return a run of gpt_base that was submitted under a token."""
    place = make_run(folder, "gpt_base", **more)
    known = json.loads((place / ".oelm" / "run.json").read_text())
    record(place, ".oelm/run.json", {**known, "run": "gpt_base", "token": token, "run_dir": str(place)})
    return place


def told(project: Path, **more: Any) -> None:
    ledger.append(project, "demo", [ledger.Entry(**{
        "time": 1.7e9, "study": "demo", "run": "gpt_base", "group": "gpt_base", "seed": 42, "tag": "", "token": "t1",
        "fingerprint": "", "target": "far", "run_dir": "/r/exp_gpt_base", "state": "DONE", "reason": "", "step": 400,
        "metric": "loss", "value": 3.0, "has_result": True, "gpu_hours": 1.0, "why": "", "event": ledger.RERUN, **more,
    })])  # fmt: skip


def test_a_bundle_s_ledger_leads_nowhere_else_on_this_machine(tmp_path: Path) -> None:
    told(tmp_path / "p", files=ledger.ARCHIVED, place=str(made(tmp_path / "elsewhere", "t1")))
    for is_bundled in (False, True):
        (one,) = earlier.load(tmp_path / "p", synthetic.study(), {}, now=1.8e9, is_bundled=is_bundled)
        assert (one.run is None) is is_bundled


@pytest.mark.parametrize(("token", "count"), [("t1", 0), ("t2", 1)])
def test_without_an_index_a_run_s_own_record_says_whether_it_started_over(
    tmp_path: Path, token: str, count: int
) -> None:
    told(tmp_path, files=ledger.MOVING)
    run = load(made(tmp_path / "models" / "checkpoints" / "demo", token))
    assert len(earlier.load(tmp_path, synthetic.study(), {}, [run], now=1.8e9)) == count
    assert len(earlier.load(tmp_path, synthetic.study(), {"gpt_base": "t2"}, [run], now=1.8e9)) == 1


def whole(project: Path, *, is_locked: bool = True) -> None:
    """Make runs of all groups of a study in a project."""
    synthetic.make_arms(project / "models" / "checkpoints" / "demo", LOSSES)
    if is_locked:
        content = lock.content(STUDY, [], {}, 1.0e9)
        ledger.append_lock(project, STUDY.name, json.loads(content))
        ledger.lock_path(project, STUDY).write_bytes(content)


def said(report: StudyReport) -> str:
    return "\n".join(str(finding.text) for finding in report.findings)


def h4(report: StudyReport) -> Verdict:
    (verdict,) = (one for one in report.verdicts if one.hypothesis.id == "H4")
    return verdict


def compute(report: StudyReport) -> dict[str, Any]:
    (table,) = (one for one in report.report.tables if one.key == "compute")
    return {str(row[0].value): row[1].value for row in table.rows}


def test_a_first_result_that_is_gone_leaves_the_verdict_undecidable_also_of_a_selection(tmp_path: Path) -> None:
    whole(tmp_path)
    about = ("oelm_freeze", "gpt_base")
    for only in ((), about):
        assert h4(report_on(tmp_path, STUDY, only=only)).outcome != UNDECIDABLE
    told(tmp_path, files=ledger.REMOVED, event=ledger.FORGOTTEN, run="gpt_base-s43", seed=43)
    shutil.rmtree(tmp_path / "models" / "checkpoints" / "demo" / "exp_gpt_base-s43")
    for only in ((), about):
        verdict = h4(report_on(tmp_path, STUDY, only=only))
        assert verdict.outcome == UNDECIDABLE, only
        assert "the first result of gpt_base-s43 decides, and is not here" in str(verdict.reason)


def test_why_a_result_was_thrown_away_is_told_where_it_decides_and_where_it_is_gone(tmp_path: Path) -> None:
    whole(tmp_path)
    runs, why = tmp_path / "models" / "checkpoints" / "demo", "seed looked off"
    told(tmp_path, files=ledger.REMOVED, event=ledger.FORGOTTEN, run="gpt_base-s43", seed=43, why=why)
    shutil.rmtree(runs / "exp_gpt_base-s43")
    assert f"gpt_base-s43: seed 43 was forgotten ({why}); the first result was" in said(report_on(tmp_path, STUDY))
    there = made(runs / ".archive", "t9")
    there.rename(there.with_name("exp_gpt_base-1"))
    told(tmp_path, files=ledger.ARCHIVED, token="t9", why="crashed, it seemed")
    text = said(report_on(tmp_path, STUDY))
    assert "gpt_base: seed 42 ran twice (crashed, it seemed); the first result was" in text


@pytest.mark.parametrize("queued_at", [1.8e9, 1.6e9])
def test_a_copy_of_the_newest_run_is_no_first_result_whatever_it_is_called(tmp_path: Path, queued_at: float) -> None:
    """Copying it under the name that the ledger has; on a target whose clock is slow its record looks older."""
    whole(tmp_path)
    runs = tmp_path / "models" / "checkpoints" / "demo"
    told(tmp_path, files=ledger.ARCHIVED, place="/r/.archive/exp_gpt_base-1")
    control = runs / "exp_gpt_base" / ".oelm" / "run.json"
    known = json.loads(control.read_text())
    control.write_text(json.dumps({**known, "run": "gpt_base", "token": "t2", "queued_at": queued_at}))
    for name in ("exp_gpt_base-t1", "exp_gpt_base-1"):
        shutil.copytree(runs / "exp_gpt_base", runs / ".archive" / name)
    report = report_on(tmp_path, STUDY)
    assert h4(report).outcome == UNDECIDABLE and "is not here" in str(h4(report).reason)
    assert "and decides, since the study is locked; its files are in /r/.archive" in said(report)


@pytest.mark.parametrize("value", [3.8, 3.7])
def test_a_first_result_whose_files_have_another_value_than_the_ledger_is_named_in_the_verdict_s_line(
    tmp_path: Path, value: float
) -> None:
    whole(tmp_path)
    place = made(tmp_path / "models" / "checkpoints" / "demo" / ".archive", "t1", final_loss=3.8)
    place.rename(place.with_name("exp_gpt_base-1"))
    told(tmp_path, files=ledger.ARCHIVED, place="/r/.archive/exp_gpt_base-1", metric="val_loss", value=value)
    alarms = "\n".join(map(str, h4(report_on(tmp_path, STUDY)).alarms))
    assert ("the ledger has val_loss 3.7 as the first result of gpt_base, which its files" in alarms) is (value != 3.8)


@pytest.mark.parametrize(
    ("files", "where", "reason"),
    [
        (ledger.ARCHIVED, "its files are in /r/.archive/exp_gpt_base-1 on far, and oelm-fetch brings its records",
         "is not here: oelm-fetch brings it"),
        (ledger.MOVING, "its files are in /r/.archive on far, and oelm-fetch brings its records",
         "is not here: oelm-fetch brings it"),
        (ledger.GONE, "its files are gone: there is nothing of them in /r/.archive/exp_gpt_base-1 on far any more",
         "is not here"),
        (ledger.REMOVED, "its files are gone", "is not here"),
    ],
)  # fmt: skip
def test_of_a_first_result_that_is_not_here_whole_the_report_says_what_can_be_done(
    tmp_path: Path, files: str, where: str, reason: str
) -> None:
    whole(tmp_path)
    told(tmp_path, files=files, place="" if files == ledger.MOVING else "/r/.archive/exp_gpt_base-1")
    # It was fetched while it ran.
    half = made(tmp_path / "models" / "checkpoints" / "demo" / ".archive", "t1", stop=100)
    half.rename(half.with_name("exp_gpt_base-1"))
    report = report_on(tmp_path, STUDY)
    (line,) = (line for line in said(report).splitlines() if "decides" in line)
    assert line.endswith("the first result was loss 3 and decides, since the study is locked; " + where)
    assert h4(report).outcome == UNDECIDABLE and str(h4(report).reason).endswith(reason)


def test_of_two_copies_the_one_that_is_whole_counts(tmp_path: Path) -> None:
    whole(tmp_path)
    told(tmp_path, files=ledger.ARCHIVED, place="/r/.archive/exp_gpt_base-1")
    for name, more in (("exp_gpt_base-1", {"stop": 100}), ("exp_gpt_base-2", {"final_loss": 3.7})):
        place = made(tmp_path / "models" / "checkpoints" / "demo" / ".archive", "t1", **more)
        place.rename(place.with_name(name))
    (tmp_path / "models" / "checkpoints" / "demo" / ".archive" / "exp_gpt_base-2" / "MANIFEST.json").write_text("{}")
    report = report_on(tmp_path, STUDY)
    assert "exp_gpt_base-2)" in said(report) and h4(report).outcome != UNDECIDABLE


def test_a_selection_has_what_was_before_its_runs_and_nothing_of_others(tmp_path: Path) -> None:
    whole(tmp_path, is_locked=False)
    told(tmp_path, files=ledger.REMOVED, event=ledger.FORGOTTEN, run="gpt_base-s44", seed=44)
    told(tmp_path, files=ledger.REMOVED, run="gpt_base-s43", seed=43)
    for only, count in (
        ((), 2),
        (("gpt_base",), 2),
        (("gpt_base", "oelm_freeze"), 2),
        (("gpt_base-s43",), 1),
        (("oelm_freeze-s43",), 0),
        (("oelm_freeze",), 0),
    ):
        report = report_on(tmp_path, STUDY, only=only)
        assert len(report.past) == count, only
        assert ("in the ledger" in report.show_checklist("neurips")) is bool(count)


def test_what_was_forgotten_of_a_group_that_the_study_has_no_more_is_counted(tmp_path: Path) -> None:
    whole(tmp_path)
    told(tmp_path, files=ledger.REMOVED, event=ledger.FORGOTTEN, run="old", group="old")
    report = report_on(tmp_path, STUDY)
    assert "1 run of this study was forgotten and counts for nothing here: old (" in said(report)
    assert compute(report)["forgotten"] == 1


def test_of_a_block_that_is_asked_for_there_is_what_was_before_its_runs(tmp_path: Path) -> None:
    study = replace(STUDY, blocks={name: Block(name=name) for name in ("code", "wiki")})
    for group in ("gpt_base", "oelm_freeze"):
        for tag in ("code", "wiki", "wiki-lr1"):
            told(tmp_path, files=ledger.REMOVED, run=f"{group}-{tag}", group=group, tag=tag)
    past = earlier.load(tmp_path, study, {}, now=1.8e9)
    for only, count in ((("wiki",), 4), (("wiki", "gpt_base"), 2), (("wiki", "code"), 6), (("gpt_base",), 3)):
        chosen, runs = loading.selection(study, [], only)
        assert len(earlier.selection(past, chosen, runs, only)) == count, only


def test_a_checklist_has_the_hours_that_the_files_tell_where_the_ledger_has_none(tmp_path: Path) -> None:
    whole(tmp_path, is_locked=False)
    told(tmp_path, files=ledger.STAYS, place=str(made(tmp_path / "elsewhere", "t1")), gpu_hours=None)
    report = report_on(tmp_path, STUDY)
    (one,) = report.past
    assert one.run is not None and one.run.gpu_hours
    assert "of which no record says it" not in report.show_checklist("neurips")
