"""The report of a study with blocks: what is compared with what, what is said of each block and over all."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import figures, power
from oelm_jobs.analysis.audit import lock
from oelm_jobs.analysis.blocks import build
from oelm_jobs.analysis.output import checklist, results, writing
from oelm_jobs.analysis.reading import loading
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import Report

from oelm_jobs.errors import UsageError
from oelm_jobs.spec.block import Block
from oelm_jobs.spec.study import Hypothesis, Study

from . import synthetic

H1 = Hypothesis(
    id="H1", metric="final_val_ppl", group="oelm_freeze", against="gpt_base", relation="at_most_above", bounds=(0.1,),
    holds="each",
)  # fmt: skip
STEPS = {"novels": 400, "stories": 600}


@pytest.fixture
def study() -> Study:
    asked = synthetic.study(seeds=(42, 43, 44), hypotheses=(H1, replace(H1, id="H2", holds="mean", bounds=(0.03,))))
    groups = {name: asked.groups[name] for name in ("gpt_base", "oelm_freeze")}
    blocks = {
        name: Block(name=name, settings={"data_path": f"{name}.bin", "max_steps": n}) for name, n in STEPS.items()
    }
    return replace(asked, groups=groups, blocks=blocks)


@pytest.fixture
def runs(tmp_path: Path) -> list[LoadedRun]:
    losses = {
        "novels": {"gpt_base": [3.80, 3.82, 3.79], "oelm_freeze": [3.83, 3.85, 3.825]},
        "stories": {"gpt_base": [2.10, 2.13, 2.11], "oelm_freeze": [2.14, 2.165, 2.15]},
    }
    return [
        replace(run, data={"train_sha256": synthetic.sha(block), "val_sha256": synthetic.sha(f"{block} val")})
        for block, arms in losses.items()
        for run in synthetic.make_arms(tmp_path, arms, tag=block, steps=STEPS[block])
    ]


def text_of(report: Report) -> str:
    return " ".join(writing.show(report, "text", "en", synthetic.START).split())


def test_each_block_is_judged_alone_and_the_claim_over_all(study: Study, runs: list[LoadedRun]) -> None:
    report = build(study, runs)
    first, second = report.verdicts
    assert (first.outcome, [(each.block, each.outcome) for each in first.blocks]) == (
        "supported",
        [("novels", "supported"), ("stories", "supported")],
    )
    assert [len(each.group) for each in first.blocks] == [3, 3]
    assert (second.outcome, second.method, second.count) == ("refuted", "means_paired", 3)
    said = text_of(report)
    for line in (
        "H1 SUPPORTED (at most 10 % above, in each block)",
        "H2 REFUTED (at most 3 % above, in the mean over the blocks)",
        "Over the blocks: supported in novels, stories.",
        "novels, supported: The final validation PPL of Group C: OELM-Freeze is 3.2",
        "In the mean over novels, stories the final validation PPL of Group C: OELM-Freeze is 3.5",
        "is a claim about these data sets alone",
        "together the verdicts over all blocks hold, and not those of single blocks",
    ):
        assert line in said, line


def test_blocks_may_differ_in_data_and_steps_and_groups_within_one_may_not(study: Study, runs: list[LoadedRun]) -> None:
    assert not [finding for finding in build(study, runs).findings if finding.severity == "unfair"]
    other = [
        replace(run, data={**run.data, "train_sha256": "f" * 64}) if run.name.startswith("oelm_freeze-s43-n") else run
        for run in runs
    ]
    report = build(study, other)
    (unfair,) = (finding for finding in report.findings if finding.severity == "unfair")
    assert "data is not the same" in unfair.text and "oelm_freeze-s43-novels" in unfair.text
    novels, stories = report.verdicts[0].blocks
    assert "UNFAIR PAIR" in str(novels.alarms) and not stories.alarms


def test_two_blocks_with_the_same_data_are_named(study: Study, runs: list[LoadedRun]) -> None:
    same = [replace(run, data=runs[0].data) for run in runs]
    (unfair,) = (finding for finding in build(study, same).findings if finding.severity == "unfair")
    assert str(unfair.text) == "blocks novels and stories were run on the same data: they are no two"
    assert "they are no two" in text_of(build(study, same)).split("Verdicts")[1]


def test_what_a_block_lacks_is_said_with_its_name(study: Study, runs: list[LoadedRun]) -> None:
    few = [run for run in runs if run.name not in ("gpt_base-s44-stories", "oelm_freeze-s44-stories")]
    said = [str(finding.text) for finding in build(study, few).findings]
    assert "block stories: interim: group gpt_base has no run of seed 44" in said and build(study, few).is_interim
    none = build(study, [run for run in runs if run.tag == "novels"])
    assert [verdict.outcome for verdict in none.verdicts] == ["no data", "no data"]
    assert str(none.verdicts[0].reason) == "block stories: group oelm_freeze has no runs"


def test_runs_of_no_block_are_shown_and_named(study: Study, runs: list[LoadedRun], tmp_path: Path) -> None:
    plain = synthetic.make_arms(tmp_path / "more", {"gpt_base": [3.0]})
    report = build(study, [*runs, *plain])
    assert "gpt_base are in no block of the study" in " ".join(str(finding.text) for finding in report.findings)
    assert report.verdicts == build(study, runs).verdicts
    rows = {row[0].value for table in report.tables if table.key == "runs" for row in table.rows}
    assert rows == {run.name for run in (*runs, *plain)}


def test_a_block_can_be_looked_at_alone_which_is_no_verdict_of_the_study(study: Study, runs: list[LoadedRun]) -> None:
    chosen, kept = loading.selection(study, runs, ["novels"])
    report = build(chosen, kept, planned=study)
    assert [*report.parts] == ["novels"] and len(report.runs) == 6
    assert "without stories, which this report leaves out as asked: no verdict of the study" in text_of(report)
    chosen, kept = loading.selection(study, runs, ["novels", "gpt_base"])
    assert {run.name for run in kept} == {f"gpt_base{seed}-novels" for seed in ("", "-s43", "-s44")}
    with pytest.raises(UsageError, match="valid: .*novels"):
        loading.selection(study, runs, ["novel"])


def test_a_block_that_is_dropped_after_the_lock_is_named_with_every_verdict(
    study: Study, runs: list[LoadedRun]
) -> None:
    locked = lock.of(json.loads(lock.content(study, [], {}, synthetic.START - 100)))
    assert not any(verdict.alarms for verdict in build(study, runs, lock=locked).verdicts)
    dropped = replace(study, blocks={"novels": study.blocks["novels"]})
    report = build(dropped, runs, lock=locked)
    assert all("DEVIATION: the blocks are not the locked ones" in str(v.alarms) for v in report.verdicts)
    assert any(said.startswith("blocks.stories = ") and "was removed" in said for said in report.deviations)


def test_tables_and_json_name_the_block_of_each_row(study: Study, runs: list[LoadedRun]) -> None:
    report = build(study, runs)
    found = json.loads(writing.show(report, "json", "en", synthetic.START))
    assert [(row["block"], row["group"]) for row in found["tables"]["comparison"]] == [
        (block, f"{group}, {block}") for block in STEPS for group in ("Group A: GPT-Base", "Group C: OELM-Freeze")
    ]
    assert [row["max_steps"] for row in found["tables"]["blocks"]] == ["400", "600"]
    assert {(run["block"], run["group"], run["tag"]) for run in found["runs"]} == {
        (block, f"{group}-{block}", block) for block in STEPS for group in ("gpt_base", "oelm_freeze")
    }
    first, second = found["verdicts"]
    assert (first["holds"], first["ratio"], second["holds"], second["method"]) == ("each", None, "mean", "means_paired")
    assert [(each["block"], each["verdict"], each["count"]) for each in first["blocks"]] == [
        ("novels", "supported", 3),
        ("stories", "supported", 3),
    ]
    for form in ("markdown", "latex", "html", "csv"):
        assert "novels" in writing.show(report, form, "en", synthetic.START), form


def test_the_summary_has_a_line_for_each_group_and_block_also_where_nothing_tells_them_apart(
    study: Study, runs: list[LoadedRun]
) -> None:
    for there in ([], runs):
        found = results.summary(build(study, there), "en", synthetic.START)
        assert len(found["groups"]) == 4


def test_a_checklist_tells_of_the_runs_intervals_and_settings_of_each_block(
    study: Study, runs: list[LoadedRun]
) -> None:
    known = checklist.Known(report=build(study, runs), runs=runs, lost=[])
    said = checklist.as_markdown(known, "neurips", 0.0) + checklist.as_markdown(known, "arr", 0.0)
    for line in (
        "Of these 12 are what verdicts rest on",
        "Seeds of Group A: GPT-Base: 42, 43, 44",
        "H1, stories: 95 % interval",
        "Block stories: `data_path=stories.bin`, `max_steps=600`",
        "Group C: OELM-Freeze: 879,616 parameters",
    ):
        assert line in said, line
    assert "no interval could be computed" not in said and "no record has them" not in said


@pytest.mark.slow
def test_power_is_that_of_each_blocks_test_and_of_the_mean(study: Study, runs: list[LoadedRun]) -> None:
    made = power.table(build(study, runs))
    assert [str(row[0].value) for row in made.rows][::2] == ["H1, novels", "H1, stories", "H2"]
    assert "no more often than the one with the least power does" in str(made.remarks[1])


@pytest.mark.slow
def test_power_to_refute_a_claim_about_each_block_is_that_of_a_share_of_the_error(
    study: Study, runs: list[LoadedRun]
) -> None:
    asked = replace(study, hypotheses=(replace(H1, bounds=(0.02,)),))
    report = build(asked, runs)
    assert report.verdicts[0].outcome == "refuted"
    first = report.verdicts[0].blocks[0]
    row = power.table(report).rows[0]
    assert first.sd is not None and first.ratio is not None
    design = power.Design(low=-math.inf, high=math.log(1.02), alpha=0.05, sd=first.sd, is_paired=True, shares=2)
    shared, whole = (power.power(one, math.log(first.ratio), 3) for one in (design, replace(design, shares=1)))
    assert row[4].value == pytest.approx(shared) and shared < whole


@pytest.mark.slow
def test_each_block_has_its_figures_and_one_has_all_verdicts(
    study: Study, runs: list[LoadedRun], tmp_path: Path
) -> None:
    report = build(study, runs)
    files, _remarks = figures.draw(report, "en", tmp_path)
    stems = {path.stem for path, _content in files}
    assert {"verdicts", "val_ppl_comparison-novels", "val_ppl_comparison-stories"} <= stems
    assert "val_ppl_comparison" not in stems and "verdicts-novels" not in stems
    page = writing.show(report, "html", "en", synthetic.START, files)
    assert "Validation perplexity, stories" in page and page.count('class="zoom"') == 4
