"""The comparison of arms that submit and report share."""

from __future__ import annotations

import pytest
from oelm_jobs.train import config as trainer

from oelm_jobs.errors import UnfairError
from oelm_jobs.study import fairness
from oelm_jobs.study.fairness import Arm

FACTORS = ("model_type", "freeze_qk")


def arm(group: str, run: str = "", **keys: object) -> Arm:
    return Arm(group=group, run=run or group, keys=keys)


def test_equal_arms_have_no_differences() -> None:
    assert fairness.check([arm("a", max_lr=3e-4), arm("b", max_lr=3e-4)], factors=FACTORS, unequal={}) == []


def test_factors_may_differ() -> None:
    assert fairness.check([arm("a", freeze_qk=True), arm("b", freeze_qk=False)], factors=FACTORS, unequal={}) == []


def test_an_undeclared_scientific_difference_is_refused_and_the_message_says_what_and_how_to_go_on() -> None:
    with pytest.raises(UnfairError) as caught:
        fairness.check([arm("a", max_lr=3e-4), arm("b", max_lr=1e-3)], factors=FACTORS, unequal={})
    assert "max_lr: a=0.0003, b=0.001" in str(caught.value) and "\n" not in str(caught.value)
    assert "model_type, freeze_qk" in str(caught.value)
    assert '[unequal] max_lr = "why"' in caught.value.hint


def test_a_declared_scientific_difference_is_returned_with_its_reason() -> None:
    (found,) = fairness.check(
        [arm("a", max_lr=3e-4), arm("b", max_lr=1e-3)], factors=FACTORS, unequal={"max_lr": "tuned"}
    )
    assert (found.key, found.kind, found.reason, found.is_unfair) == ("max_lr", "scientific", "tuned", False)


def test_execution_differences_void_what_depends_on_them() -> None:
    arms = [
        arm("a", world_size=2, port=1, batch_size=8),
        arm("b", world_size=4, port=2, batch_size=4),
    ]
    found = {d.key: d.voids for d in fairness.check(arms, factors=FACTORS, unequal={})}
    assert found == {"batch_size": ("speed", "gpu_hours"), "port": (), "world_size": ("speed", "gpu_hours")}


def test_runs_of_one_group_that_disagree_are_told_apart_by_name() -> None:
    arms = [arm("a", "a", max_steps=100), arm("a", "a-s43", max_steps=200), arm("b", "b", max_steps=100)]
    (found,) = fairness.differences(arms, factors=(), unequal={})
    assert found.values == {"a": 100, "a-s43": 200, "b": 100}


def test_a_factor_excuses_no_difference_between_the_seeds_of_a_group() -> None:
    arms = [arm("a", "a", freeze_qk=True), arm("a", "a-s43", freeze_qk=False), arm("b", "b", freeze_qk=False)]
    (found,) = fairness.differences(arms, factors=FACTORS, unequal={})
    assert found.is_unfair and found.values == {"a": True, "a-s43": False, "b": False}


def test_seeds_are_replication_and_no_difference() -> None:
    assert fairness.differences([arm("a", seed=42), arm("a", seed=43)], factors=(), unequal={}) == []


def test_a_key_that_an_arm_lacks_is_unknown_there() -> None:
    assert fairness.differences([arm("a", dropout=0.1), arm("b")], factors=(), unequal={}) == []


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [(1, 1.0, True), (1, True, False), ([0.9], (0.9,), True), ("1", 1, False), (None, 0, False)],
)
def test_values_are_compared_as_a_configuration_means_them(left: object, right: object, equal: bool) -> None:
    assert (fairness.differences([arm("a", key=left), arm("b", key=right)], factors=(), unequal={}) == []) is equal


def test_the_split_of_keys_is_that_of_the_trainer() -> None:
    for kind in trainer.KINDS:
        for key in trainer.keys_of_kind(kind):
            found = fairness.differences([arm("a", **{key: 1}), arm("b", **{key: 2})], factors=(), unequal={})
            kinds = ["scientific" if kind == "scientific" else "execution"]
            expected = [] if key in fairness.BUILT_IN.ignored else kinds
            assert [difference.kind for difference in found] == expected, key
