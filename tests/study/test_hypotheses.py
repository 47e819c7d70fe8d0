"""Hypotheses of a study file: metrics of the built-in trainer, and those that a script tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from oelm_jobs import tomlfile
from oelm_jobs.errors import ConfigurationError
from oelm_jobs.spec.program import Metrics
from oelm_jobs.spec.study import Group, Hypothesis
from oelm_jobs.study import hypothesis_file

TOLD = Metrics(goal={"val_loss": "minimize", "accuracy": "maximize"}, names=("val_loss", "lr"))


def read(told: Metrics | None, **keys: object) -> Hypothesis:
    groups = {name: Group(name=name, label=name, factors={}, gpus=1, port=None) for name in ("a", "b")}
    section = tomlfile.Section(Path("jobs/s.toml"), "hypotheses", {"H": {"group": "b", "against": "a", **keys}})
    with section.all_at_once():
        return hypothesis_file.read(section, groups, told)[0]
    raise AssertionError("what is wrong is raised")


def test_a_metric_that_the_script_tells_has_the_direction_that_the_study_declares() -> None:
    h = read(TOLD, metric="accuracy", at_most_below=0.02, scale="difference", at="best")
    assert (h.is_told, h.goal, h.scale, h.at, h.relation, h.bounds) == (
        True, "maximize", "difference", "best", "at_most_below", (0.02,),
    )  # fmt: skip
    plain = read(TOLD, metric="val_loss", increase=[0.0, float("inf")])
    assert (plain.scale, plain.at, plain.goal, plain.bounds) == ("ratio", "last", "minimize", (0.0, float("inf")))
    cost = read(TOLD, metric="gpu_hours", at_most_above=0.1)
    assert not cost.is_told and read(Metrics(names=("gpu_hours",)), metric="gpu_hours", at_most_above=0.1).is_told
    assert read(None, metric="final_val_loss", equivalent_within=0.05, scale="difference").scale == "difference"


@pytest.mark.parametrize(
    ("told", "keys", "expected"),
    [
        (TOLD, {"metric": "acuracy", "at_most_above": 0.1}, "did you mean 'accuracy'?"),
        (TOLD, {"metric": "final_val_ppl", "at_most_above": 0.1}, "valid: accuracy, gpu_hours, lr, val_loss"),
        (None, {"metric": "accuracy", "at_most_above": 0.1}, "final_val_ppl"),
        (TOLD, {"metric": "lr", "at_most_above": 0.1, "at": "best"}, '[metrics] goal = { lr = "minimize" }'),
        (TOLD, {"metric": "lr", "at_most_above": 0.1, "at": "first"}, "at = 'first'"),
        (None, {"metric": "best_val_loss", "at_most_above": 0.1, "at": "last"}, "unknown key"),
        (TOLD, {"metric": "lr", "at_most_above": 0.1, "scale": "log"}, "valid: difference, ratio"),
        (None, {"metric": "speed", "at_most_below": 0.1, "scale": "difference"}, "compared as a ratio"),
        (TOLD, {"metric": "lr", "ratio_at_least": 1.0, "scale": "difference"}, "at_most_below"),
        (TOLD, {"metric": "lr", "at_most_below": 1.5}, "below 1"),
        (TOLD, {"metric": "lr", "reduction": [2, 1], "scale": "difference"}, "differences in the metric's units"),
        (TOLD, {"metric": "lr", "increase": [2, 1]}, "as fractions"),
        (TOLD, {"metric": "lr", "increase": [1, 2], "at_most_above": 1.0}, "exactly one of"),
        (TOLD, {"metric": "lr", "better_by": 0.1}, '[metrics] goal = { lr = "minimize" }'),
        (TOLD, {"metric": "val_loss", "better_by": 1.0}, "below 1, which is a fraction"),
        (TOLD, {"metric": "val_loss", "better_by": -0.1}, "must not be negative"),
        (TOLD, {"metric": "val_loss", "better_by": 0.1, "because": "one\ntwo"}, "because"),
    ],
)
def test_what_is_off_in_a_hypothesis_is_named(told: Metrics | None, keys: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        read(told, **keys)
    assert expected in str(raised.value)


def test_a_claim_to_be_better_goes_by_the_metric_s_direction_and_may_ask_for_nothing_more() -> None:
    assert not read(TOLD, metric="val_loss", better_by=0).is_higher_better
    assert read(TOLD, metric="accuracy", better_by=2.0).is_higher_better, "which may be more than all of it"
    assert read(None, metric="speed", better_by=0.1).is_higher_better
    assert not read(None, metric="gpu_hours", better_by=0.1).is_higher_better
    assert read(TOLD, metric="val_loss", better_by=3, scale="difference").bounds == (3.0,), "in its own units"


def test_a_margin_takes_a_reason() -> None:
    h = read(TOLD, metric="val_loss", at_most_above=0.05, because="half of what doubling the width gives")
    assert h.because == "half of what doubling the width gives" and not read(TOLD, metric="lr", increase=[0, 1]).because
