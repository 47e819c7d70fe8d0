"""What a report says of a sweep: the best combination of each group, what each value gave, and where that ends."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import figures, report, sweeps, tables
from oelm_jobs.analysis.figures import drawing
from oelm_jobs.analysis.figures import swept as drawn

from oelm_jobs.spec.study import Study
from oelm_jobs.spec.sweep import Parameter, Sweep
from oelm_jobs.study import sweep

from .synthetic import load, make_run, study

RATES, WARMUPS = (3e-4, 1e-3, 3e-3), (20, 40)
SWEPT = Sweep(parameters={"max_lr": Parameter(values=RATES), "warmup_steps": Parameter(values=WARMUPS)})
SETTINGS = {"d_model": 128, "max_lr": 1e-3, "warmup_steps": 40, "qk_init": "orthogonal_head"}
LOSS = {3e-4: 3.9, 1e-3: 3.7, 3e-3: 3.8}
"""By the learning rate, of GPT; the lower ones are better with OELM."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> report.Report:
    root, runs = tmp_path_factory.mktemp("runs"), []
    for group, rate, warmup, seed in itertools.product(("gpt_base", "oelm_freeze"), RATES, WARMUPS, (42, 43)):
        loss = (LOSS[rate] if group == "gpt_base" else 3 + 100 * rate) + warmup / 1000 + (seed - 42) / 100
        values = {"max_lr": rate, "warmup_steps": warmup}
        place = make_run(
            root, group, seed, tag=sweep.name(values), train=values, final_loss=loss,
            stop=200 if (rate, warmup, seed, group) == (3e-3, 40, 43, "gpt_base") else None,
        )  # fmt: skip
        runs.append(load(place))
    return report.build(swept(), runs)


def swept() -> Study:
    whole = study(seeds=(42, 43))
    groups = {name: whole.groups[name] for name in ("gpt_base", "oelm_freeze")}
    return replace(whole, settings=SETTINGS, sweep=SWEPT, groups=groups, hypotheses=())


def table(made: report.Report, key: str) -> list[dict[str, object]]:
    (found,) = [each for each in made.tables if each.key == key]
    return tables.records(found)


def test_the_best_combination_of_each_group_has_its_uncertainty(made: report.Report) -> None:
    gpt, oelm = table(made, "sweep")
    assert (gpt["max_lr"], gpt["warmup_steps"], gpt["results"], gpt["combinations"]) == ("0.001", "20", 2, 6)
    assert gpt["final_val_loss"] == pytest.approx(3.725) and gpt["final_val_loss_sd"] == pytest.approx(0.01 / 2**0.5)
    assert (
        gpt["interval"] == "[3.6615, 3.7885]"
    )  # 3.725 ± 12.706 · 0.00707 / √2, Student's t with one degree of freedom
    assert (oelm["max_lr"], oelm["warmup_steps"]) == ("0.0003", "20")
    assert (gpt["without_result"], oelm["without_result"]) == (1, 0)


def test_each_value_is_told_with_the_best_of_the_others(made: report.Report) -> None:
    rows = table(made, "swept")
    assert [(row["setting"], row["value"]) for row in rows] == [
        ("max_lr", "0.0003"), ("max_lr", "0.001"), ("max_lr", "0.003"), ("warmup_steps", "20"), ("warmup_steps", "40")
    ]  # fmt: skip
    assert [row["gpt_base"] for row in rows] == pytest.approx([3.925, 3.725, 3.825, 3.725, 3.745])


def test_a_best_value_at_the_edge_of_what_was_tried_is_named(made: report.Report) -> None:
    said = [str(finding.text) for finding in made.findings if "best at" in finding.text]
    assert said == [
        "Group A: GPT-Base is best at warmup_steps = 20, the lowest that was tried: what lies beyond is not known",
        "Group C: OELM-Freeze is best at max_lr = 0.0003, the lowest that was tried: what lies beyond is not known",
        "Group C: OELM-Freeze is best at warmup_steps = 20, the lowest that was tried: what lies beyond is not known",
    ]


def test_runs_of_a_sweep_are_no_results_of_their_groups(made: report.Report) -> None:
    said = [str(finding.text) for finding in made.findings if finding.key == "interim"]
    assert (
        said[0] == "interim: group gpt_base has runs of the sweep alone, on which no verdict rests" and len(said) == 2
    )


def test_a_study_without_a_sweep_has_no_such_tables(tmp_path: Path) -> None:
    found = report.build(study(), [load(make_run(tmp_path, "gpt_base"))])
    assert not {"sweep", "swept"} & {each.key for each in found.tables}
    assert sweeps.combinations(study(), found.runs, None) == []


def test_lists_of_a_command_have_the_same_tables(made: report.Report, tmp_path: Path) -> None:
    found = report.build(replace(swept(), sweep=None), [run for each in made.groups.values() for run in each])
    assert table(found, "sweep") == table(made, "sweep") and table(found, "swept") == table(made, "swept")


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ([{"max_lr": 1e-3}, {"max_lr": 3e-4}], [("max_lr", "0.0003"), ("max_lr", "0.001")]),
        ([{"max_lr": 3e-4, "warmup_steps": each} for each in (3, 4)], [("warmup_steps", "3"), ("warmup_steps", "4")]),
        ([{"qk_init": "a.b"}, {"qk_init": "orthogonal_head"}], [("qk_init", "a.b"), ("qk_init", "orthogonal_head")]),
        ([{"max_lr": 3e-4}], []),
    ],
    ids=["two values", "one value besides", "a hash in the name", "one value alone"],
)
def test_what_a_command_swept_is_known_by_the_names(
    tmp_path: Path, lists: list[dict[str, object]], expected: list[tuple[str, str]]
) -> None:
    whole = replace(study(hypotheses=()), settings=SETTINGS)
    runs = [load(make_run(tmp_path, "gpt_base", tag=sweep.name(each), train=SETTINGS | each)) for each in lists]
    runs += [load(make_run(tmp_path, "gpt_base", tag=tag, train=SETTINGS | {"max_lr": 5.0})) for tag in ("low", "d_1")]
    found = report.build(whole, runs)
    rows = table(found, "swept") if found.swept else []
    assert [(row["setting"], row["value"]) for row in rows] == expected


@pytest.mark.slow
def test_the_figure_has_a_panel_for_each_setting_and_marks_the_best(made: report.Report, tmp_path: Path) -> None:
    with drawing.style(None):
        arms = drawing.arms(sweeps.shown(made.groups, made.swept, made.goals), made.labels)
        figure = drawn.sweep(made, arms, str)
    assert [arm.label.partition("-")[0] for arm in arms] == ["gpt_base", "oelm_freeze"]  # their best combinations
    rates, warmups = figure.axes
    assert (rates.get_title("left"), rates.get_xscale()) == ("max_lr", "log")  # 3e-4 to 3e-3
    assert (warmups.get_title("left"), warmups.get_xscale()) == ("warmup_steps", "linear")
    rings = [(line.get_xdata()[0], line.get_ydata()[0]) for line in rates.lines if line.get_markersize() == drawn.RING]
    assert rings == [(1e-3, pytest.approx(3.725)), (3e-4, pytest.approx(3.055))]
    assert {"sweep.png", "sweep.svg"} <= {path.name for path, _ in figures.draw(made, "en", tmp_path)[0]}


@pytest.mark.parametrize("other", [(math.inf,), (math.nan, 0.1), (0.99, None)], ids=["diverged", "NaN", "one failed"])
def test_a_combination_that_is_whole_comes_before_one_that_is_not(other: tuple[float | None, ...]) -> None:
    goals = {"accuracy": "maximize"}
    results = tuple(value for value in other if value is not None)
    found = [
        sweeps.Combination(group="g", tag="a", values={"betas": [0.9]}, results=(0.9, 0.91), failed=0),
        sweeps.Combination(group="g", tag="b", values={"betas": [0.8]}, results=results, failed=other.count(None)),
    ]
    assert sweeps.best(found, goals)["g"].tag == "a"
    assert sweeps.edges(found, {}, goals) == []  # lists have no order


def test_the_values_behind_a_hash_in_a_tag_are_found(made: report.Report, tmp_path: Path) -> None:
    values = {"init": "/far/a.pt", "model.größe": 3}
    more = {"init.std": 0.1, "lr": 1e-3, **values}
    for tag, found in ((sweep.name(values, "try"), values), ("init-0123456789ab", None), ("try", None)):
        run = replace(load(make_run(tmp_path, "gpt_base", tag=tag)), train=more, is_script=True)
        assert sweeps.hashed_in(run) == found
