"""Reports of many runs say the same thing once."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from oelm_jobs.analysis import repeated
from oelm_jobs.analysis.findings import AuditFinding, warning
from oelm_jobs.analysis.reading.loaded_run import LoadedRun
from oelm_jobs.analysis.report import build

from oelm_jobs.agent.sentences import _

from . import synthetic
from .synthetic import load, make_run

SEEDS = range(42, 57)
GROUPS = {
    group: cast("Sequence[LoadedRun]", [SimpleNamespace(name=f"{group}-s{seed}", seed=seed) for seed in SEEDS])
    for group in ("wide", "deep")
}


def diverged(*names: str) -> list[AuditFinding]:
    return [warning(_("{run} diverged", name), name.partition("-")[0]) for name in names]


@pytest.mark.parametrize(
    ("seeds", "shown"),
    [
        ([42, 44], "wide-s42, wide-s44 diverged"),
        ([42, 43, 44, 46, 48, 49, 50, 51], "wide of seeds 42–44, 46, 48–51 diverged"),
        (SEEDS, "all 15 of wide diverged"),
    ],
)
def test_what_is_the_same_of_several_runs_is_said_once_with_their_names(seeds: Sequence[int], shown: str) -> None:
    found = repeated.once(diverged(*(f"wide-s{seed}" for seed in seeds)), GROUPS)
    assert [one.text for one in found] == [shown]


def test_what_is_said_of_runs_in_several_groups_concerns_all_of_them() -> None:
    (found,) = repeated.once(diverged("deep-s42", "wide-s42", "wide-s43"), GROUPS)
    assert found.groups == ("deep", "wide")


def test_findings_that_differ_in_more_than_their_run_stay_apart_and_in_order() -> None:
    said = [warning(_("{run}: PPL {ppl}", name, ppl)) for name, ppl in (("wide-s42", "9"), ("wide-s43", "8"))]
    found = repeated.once([said[0], *diverged("deep-s42"), said[1], said[0]], GROUPS)
    assert [one.text for one in found] == ["wide-s42: PPL 9", "deep-s42 diverged", "wide-s43: PPL 8"]


def test_pairs_of_runs_are_counted() -> None:
    pairs = [warning(_("{a} and {b} are copies", f"wide-s{seed}", f"deep-s{seed}")) for seed in SEEDS]
    assert [one.text for one in repeated.once(pairs, GROUPS)] == [
        "wide-s42 and deep-s42 are copies; 14 more are like that"
    ]


def test_of_ninety_runs_a_value_that_differs_names_the_few(tmp_path: Any) -> None:
    kinds = {42: "RTX 3090"}
    runs = [
        load(
            make_run(tmp_path, group, seed, hardware={"name": kinds.get(seed, "RTX A5000")}, final_loss=3 + seed / 100)
        )
        for group in ("gpt_base", "oelm_freeze")
        for seed in range(42, 50)
    ]
    report = build(synthetic.study(seeds=tuple(range(42, 50)), hypotheses=()), runs)
    (said,) = [one.text for one in report.limits if one.key == "gpu_model"]
    assert said == (
        "gpu_model is not the same (RTX 3090: gpt_base, oelm_freeze; RTX A5000: all 14 others): speed and hours can't"
        " be compared"
    )
