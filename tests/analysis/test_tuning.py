"""What a report says of tuning: equal budgets, the choice, and verdicts on the runs that confirm it alone."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis import report, tables, tuning
from oelm_jobs.analysis.audit import choice
from oelm_jobs.analysis.judging.verdicts import SUPPORTED, Verdict
from oelm_jobs.analysis.output import result_types, writing
from oelm_jobs.analysis.reading.loaded_run import LoadedRun

from oelm_jobs.errors import UsageError
from oelm_jobs.ledger import Entry
from oelm_jobs.spec.study import Hypothesis, Study
from oelm_jobs.spec.sweep import Parameter, Sweep
from oelm_jobs.study import sweep
from tests.objects import why_not

from .synthetic import load, make_run, study

GROUPS, SEEDS, FRESH, RATES = ("gpt_base", "oelm_freeze"), (42, 43), (101, 102, 103), (3e-4, 1e-3, 3e-3)
BEST = {"gpt_base": 1e-3, "oelm_freeze": 3e-3}
BETTER = Hypothesis(
    id="H1", metric="final_val_loss", group="oelm_freeze", against="gpt_base", relation="reduction",
    bounds=(0.0, float("inf")),
)  # fmt: skip


def tuned_study(**changes: Any) -> Study:
    whole = study(seeds=SEEDS, hypotheses=(BETTER,))
    return replace(
        whole, groups={name: whole.groups[name] for name in GROUPS}, tuned=("max_lr",), confirm_seeds=FRESH,
        sweep=Sweep(parameters={"max_lr": Parameter(values=RATES)}), **changes,
    )  # fmt: skip


def loss_of(group: str, rate: float, seed: int) -> float:
    return 3.5 + (0 if rate == BEST[group] else 0.3) - (0.2 if group == "oelm_freeze" else 0) + (seed % 10) / 1000


def trial(root: Path, group: str, rate: float, seed: int, **changes: Any) -> None:
    made = {"train": {"max_lr": rate}, "final_loss": loss_of(group, rate, seed), **changes}
    anew(root, group, seed, sweep.name({"max_lr": rate}), **made)


def anew(root: Path, group: str, seed: int, tag: str, **changes: Any) -> None:
    """Make a run, in place of one that is there."""
    for old in root.glob(f"exp_{group}{'' if seed == SEEDS[0] else f'-s{seed}'}-{tag}"):
        shutil.rmtree(old)
    make_run(root, group, seed, tag=tag, **changes)


def confirming(root: Path, group: str, seed: int, rate: float | None = None) -> None:
    rate = rate or BEST[group]
    anew(root, group, seed, "confirm", train={"max_lr": rate}, final_loss=loss_of(group, rate, seed))


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trials")
    for group, rate, seed in itertools.product(GROUPS, RATES, SEEDS):
        trial(root, group, rate, seed)
    return root


@pytest.fixture(scope="module")
def whole(trials: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole") / "runs"
    shutil.copytree(trials, root)
    for group, seed in itertools.product(GROUPS, FRESH):
        confirming(root, group, seed)
    return root


@pytest.fixture
def runs(whole: Path, tmp_path: Path) -> Path:
    """All runs of a study that was tuned and confirmed, to be tampered with."""
    shutil.copytree(whole, tmp_path / "runs")
    return tmp_path / "runs"


def loaded(root: Path) -> list[LoadedRun]:
    return [load(path) for path in sorted(root.iterdir())]


def chosen(root: Path, asked: Study | None = None) -> choice.Choice:
    asked = asked or tuned_study()
    found = tuning.efforts(asked, loaded(root), None)
    groups = tuning.recorded(found, tuning.chosen(found, None))
    return choice.made(
        asked.name, groups, metric="final_val_loss", goal="minimize", seeds=asked.seeds,
        confirm_seeds=asked.confirm_seeds, at=1.7e9,
    )  # fmt: skip


def built(root: Path, made: choice.Choice | None, asked: Study | None = None) -> report.Report:
    return report.build(asked or tuned_study(), loaded(root), choice=made)


def said(made: report.Report) -> list[str]:
    assert made.tuning is not None
    return [str(finding.text) for finding in made.tuning.findings]


def verdict(made: report.Report) -> Verdict:
    (found,) = made.verdicts
    return found


def table(made: report.Report, key: str) -> list[dict[str, object]]:
    (found,) = [each for each in made.tables if each.key == key]
    return tables.records(found)


def test_every_arm_is_chosen_for_by_the_same_trials_and_judged_on_fresh_seeds_alone(whole: Path) -> None:
    made = built(whole, chosen(whole))
    assert said(made) == []
    decided = verdict(made)
    assert (decided.outcome, decided.count, decided.alarms) == (SUPPORTED, 3, ())
    assert {value.run for value in decided.group} == {f"oelm_freeze-s{seed}-confirm" for seed in FRESH}
    assert "selected and judged on the same validation data" in map(str, decided.notes)
    for row in table(made, "budget"):
        assert (row["trials"], row["tried"], row["failed"], row["not_over"], row["extra"]) == (6, 6, 0, 0, 0)
    assert len({row["step"] for row in table(made, "budget")}) == 1
    assert [(row["max_lr"], row["confirming"]) for row in table(made, "choice")] == [("0.001", 3), ("0.003", 3)]


def test_before_anything_confirms_there_is_no_verdict(trials: Path) -> None:
    made = built(trials, None)
    assert verdict(made).outcome == "no data" and made.is_interim
    assert [row["confirming"] for row in table(made, "choice")] == [0, 0]


def test_of_equal_combinations_the_first_of_the_sweep_is_chosen(tmp_path: Path) -> None:
    for group, rate, seed in itertools.product(GROUPS, reversed(RATES), SEEDS):
        trial(tmp_path, group, rate, seed, final_loss=3.0)
    for order in (RATES, RATES[::-1]):
        asked = replace(tuned_study(), sweep=Sweep(parameters={"max_lr": Parameter(values=order)}))
        best = tuning.chosen(tuning.efforts(asked, loaded(tmp_path), None), None)
        assert {one.values["max_lr"] for one in best.values()} == {order[0]}


def test_a_trial_that_failed_was_tried_and_a_group_without_results_chooses_nothing(
    trials: Path, tmp_path: Path
) -> None:
    shutil.copytree(trials, tmp_path / "runs")
    for seed in SEEDS:
        for rate in RATES:
            trial(tmp_path / "runs", "gpt_base", rate, seed, status="FAILED")
    effort = tuning.efforts(tuned_study(), loaded(tmp_path / "runs"), None)[0]
    assert len(effort.of(tuning.FAILED)) == len(effort.of(*tuning.OVER)) == 6
    assert [*tuning.chosen([effort], None)] == []


Attempt = Callable[[Path], None]
UNEQUAL = "UNEQUAL TUNING: the groups did not have the same budget"
CHEATS: dict[str, tuple[Attempt, list[str]]] = {
    "one arm is tuned by more trials": (
        lambda runs: [trial(runs, "oelm_freeze", 5e-3, seed) for seed in SEEDS] and None,
        [UNEQUAL, "oelm_freeze was tried with more than the sweep", "oelm_freeze-max_lr_5e-3"],
    ),
    "one arm is tuned with more seeds": (
        lambda runs: [trial(runs, "oelm_freeze", rate, 44) for rate in RATES] and None,
        [UNEQUAL, "oelm_freeze was tried with more than the sweep"],
    ),
    "one arm is tuned with longer trials": (
        lambda runs: [trial(runs, "oelm_freeze", rate, seed, steps=800) for rate in RATES for seed in SEEDS] and None,
        [UNEQUAL, "steps of a trial"],
    ),
    "a trial is dropped": (
        lambda runs: shutil.rmtree(next(runs.glob("*gpt_base-max_lr_3e-3"))),
        [UNEQUAL, "gpt_base lacks trials: gpt_base-max_lr_3e-3", "not there any more: gpt_base-max_lr_3e-3"],
    ),
    "a trial is run again until it fits": (
        lambda runs: trial(runs, "gpt_base", 1e-3, 42, final_loss=9.0) and None,
        ["gpt_base: results of trials changed", "would choose max_lr = 0.0003 today", "max_lr = 0.001, counts"],
    ),
    "a seed that confirms had a part in the choice": (
        lambda runs: trial(runs, "gpt_base", 1e-3, 101) and None,
        ["seeds 101 are to confirm the choice, and were tried with before: gpt_base-s101-max_lr_1e-3"],
    ),
    "an arm is another one when it is confirmed": (
        lambda runs: [
            anew(runs, "oelm_freeze", seed, "confirm", train={"max_lr": 3e-3, "d_ff": 1024}, final_loss=3.0)
            for seed in FRESH
        ] and None,
        ["oelm_freeze: the runs that confirm differ from its trials in d_ff"],
    ),
    "a run confirms other values": (
        lambda runs: confirming(runs, "oelm_freeze", 102, 1e-3) and None,
        ["oelm_freeze-s102-confirm confirms nothing, since its values are not those that were chosen: left out"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_an_attempt_to_cheat_is_told_in_the_line_of_the_verdict(runs: Path, cheat: str) -> None:
    made_before = chosen(runs)
    attempt, expected = CHEATS[cheat]
    attempt(runs)
    made = built(runs, made_before)
    alarms = "\n".join(map(str, verdict(made).alarms))
    for words in expected:
        assert words in "\n".join(said(made)) and words in alarms
    printed = writing.show(made, "text", "en", 0.0)
    assert " ".join(expected[0].split()[:4]) in " ".join(printed.split())


def test_a_seed_that_confirms_and_was_tried_is_told_also_where_all_groups_threw_that_away(whole: Path) -> None:
    gone = [
        Entry(
            time=1.7e9, study="demo", run=f"{group}-s101", group=group, seed=101, tag="", fingerprint="", token="t",
            target="local", run_dir="/r", state="DONE", reason="", metric=None, value=None, step=None, has_result=True,
            gpu_hours=None, why="", files="removed",
        )
        for group in GROUPS
    ]  # fmt: skip
    made = report.build(tuned_study(), loaded(whole), choice=chosen(whole), ledger=gone)
    (alarm,) = verdict(made).alarms
    assert str(alarm) == (
        "seeds 101 are to confirm the choice, and were tried with before: gpt_base-s101, oelm_freeze-s101"
    )


def test_a_run_with_other_values_than_were_chosen_decides_nothing(runs: Path) -> None:
    before = chosen(runs)
    confirming(runs, "oelm_freeze", 102, 1e-3)
    decided = verdict(built(runs, before))
    assert {value.seed for value in decided.group} == {101, 103}
    assert (decided.outcome, decided.count) == (SUPPORTED, 2)


def test_confirming_runs_without_a_recorded_choice_are_told(whole: Path) -> None:
    assert "the choice has no record" in said(built(whole, None))[0]


def test_a_choice_that_was_recorded_after_its_confirmation_had_begun_is_told(whole: Path) -> None:
    late = chosen(whole)
    groups = late.groups
    late = choice.made(
        late.study, groups, metric=late.metric, goal=late.goal, seeds=SEEDS, confirm_seeds=FRESH, at=2e9
    )  # fmt: skip
    assert any("made after runs that confirm it had begun" in text for text in said(built(whole, late)))


def test_a_value_that_was_dropped_from_the_sweep_is_told(runs: Path) -> None:
    before = chosen(runs)
    fewer = replace(tuned_study(), sweep=Sweep(parameters={"max_lr": Parameter(values=RATES[:2])}))
    text = "\n".join(said(built(runs, before, fewer)))
    assert "gpt_base: trials of the choice are not there any more: gpt_base-max_lr_3e-3" in text
    assert "was tried with more than the sweep" in text


def test_what_is_tuned_without_a_sweep_is_not_shown(tmp_path: Path) -> None:
    asked = replace(study(), tuned=("max_lr",))
    texts = [str(found.text) for found in report.build(asked, [load(make_run(tmp_path, "gpt_base"))]).findings]
    assert [text for text in texts if "not shown, since no [sweep] tried them" in text]


def test_a_choice_is_written_once_and_one_that_was_edited_is_refused(trials: Path, tmp_path: Path) -> None:
    path, first = tmp_path / "experiments" / "demo_choice.json", chosen(trials)
    assert choice.read(path) is None
    assert choice.write(path, first) == choice.read(path) == first
    other = replace_rate(first, 3e-4)
    assert choice.write(path, other) == first, "the first one counts"
    path.write_text(path.read_text().replace("0.003", "0.0003"))
    with pytest.raises(UsageError, match="edited after it was made"):
        choice.read(path)


def replace_rate(made: choice.Choice, rate: float) -> choice.Choice:
    values = {"max_lr": rate}
    groups = {name: choice.Chosen(values=values, tag=one.tag, trials=one.trials) for name, one in made.groups.items()}
    return choice.made(
        made.study, groups, metric=made.metric, goal=made.goal, seeds=made.seeds, confirm_seeds=made.confirm_seeds,
        at=made.chosen_at,
    )  # fmt: skip


def test_the_report_in_json_has_trials_choice_and_what_confirms_it(whole: Path) -> None:
    content = json.loads(writing.show(built(whole, chosen(whole)), "json", "en", 0.0))
    assert why_not(content, result_types.Results) == ""
    assert content["tuning"]["sound"] is True
    group = content["tuning"]["groups"]["gpt_base"]
    assert (group["chosen"], len(group["trials"]), len(group["confirming"])) == ({"max_lr": 1e-3}, 6, 3)


def test_a_test_file_that_no_trial_sees_makes_those_that_confirm_no_other_arm(runs: Path) -> None:
    found = [
        replace(run, data={**run.data, "test_sha256": "7" * 64}) if run.tag == "confirm" else run
        for run in loaded(runs)
    ]
    made = report.build(tuned_study(), found, choice=chosen(runs))
    assert said(made) == []
