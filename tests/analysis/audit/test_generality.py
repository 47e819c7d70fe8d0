"""The audit knows what else can be frozen and varied: Q or K alone, some layers, later, positions, the data order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oelm_jobs.analysis.audit import configurations, lock, treatment
from oelm_jobs.analysis.judging import speed
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Parameters, TensorGroup, Treatment
from oelm_jobs.analysis.report import build, may_pair

from oelm_jobs.study import files
from tests.support import REPOSITORY
from tests.train.support import TINY, train_here, write_tokens

from ..synthetic import load, make_run, study


def part(start: str, end: str, frozen: str = "", after: int = 0) -> TensorGroup:
    """An entry of treatment.json whose tensors had these hashes."""
    is_trained = start != end and not frozen
    return TensorGroup(requires_grad=is_trained, in_optimizer=is_trained, sha256_start=start, sha256_end=end,
                       frozen_from_step=after, sha256_frozen=frozen)  # fmt: skip


def run(groups: dict[str, TensorGroup], frozen: int = 0, **asked: Any) -> LoadedRun:
    treated = {key: value for key, value in asked.items() if key not in ("freeze_qk", "data_seed")}
    record = Treatment(model_type="oelm", groups={"other": part("a", "b"), **groups}, **treated)
    parameters = Parameters(total=100, trainable=100 - frozen, frozen=frozen)
    return LoadedRun(name="x", group="x", label="X", seed=42, path=Path("x"), status="DONE", treatment=record,
                     train={"model_type": "oelm", **asked}, parameters=parameters)  # fmt: skip


STILL, MOVED = part("a", "a"), part("a", "b")
LATE = part("a", "b", frozen="b", after=9)
ASKED: dict[str, tuple[dict[str, Any], dict[str, TensorGroup]]] = {
    "q": ({"freeze_q": True}, {"q": STILL, "k": MOVED}),
    "k": ({"freeze_k": True}, {"q": MOVED, "k": STILL}),
    "layers": ({"freeze_qk": True, "freeze_layers": "0-1"}, {"qk": STILL, "qk_trained": MOVED}),
    "late": ({"freeze_qk": True, "freeze_from_step": 9}, {"qk": LATE}),
    "late_q": ({"freeze_q": True, "freeze_from_step": 9}, {"q": LATE, "k": MOVED}),
    "neither": ({"freeze_q": False, "freeze_k": False}, {"qk": MOVED}),
    "ffn": ({"freeze_ffn": True}, {"qk": MOVED, "ffn": STILL}),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_run_that_did_what_its_group_says_is_not_contradicted_and_proven(name: str) -> None:
    factors, groups = ASKED[name]
    honest = run(
        groups, frozen=0 if "freeze_from_step" in factors else 10 if True in factors.values() else 0, **factors
    )
    assert treatment.contradictions(honest, factors) == []
    assert treatment.proven(honest)
    for entry in set(groups) - {"other"}:
        cut = run({**groups, entry: replace(groups[entry], sha256_end="")}, **factors)
        assert not treatment.proven(cut), entry


@pytest.mark.parametrize(("name", "groups", "said"), [
    ("q", {"q": MOVED, "k": MOVED}, "should freeze Q, but the optimizer holds them"),
    ("q", {"q": part("a", "c"), "k": MOVED}, "should freeze Q, but they changed between start and end"),
    ("q", {"q": STILL, "k": STILL}, "should train K, but they are the same at start and end"),
    ("k", {"q": STILL, "k": STILL}, "should train Q, but the optimizer doesn't hold them"),
    ("layers", {"qk": STILL, "qk_trained": STILL}, "should train Q/K of the other layers, but they are the same"),
    ("late", {"qk": STILL}, "should freeze Q/K after step 9, but did not"),
    ("late", {"qk": part("a", "b", frozen="b", after=8)}, "should freeze Q/K after step 9, but did not"),
    ("late", {"qk": part("a", "b", frozen="c", after=9)}, "should freeze Q/K after step 9, but they changed since"),
    ("late_q", {"q": part("a", "a", frozen="a", after=9), "k": MOVED}, "should train Q until step 9, but they are as"),
    ("neither", {"qk": STILL}, "should train Q/K, but they are the same at start and end"),
    ("ffn", {"qk": MOVED, "ffn": MOVED}, "should freeze feed-forward layers, but the optimizer holds them"),
])  # fmt: skip
def test_tensors_that_contradict_the_group_are_named(name: str, groups: dict[str, TensorGroup], said: str) -> None:
    factors, _ = ASKED[name]
    found = treatment.contradictions(run(groups, **factors), factors)
    assert any(said in str(text) for text in found), found


def test_a_configuration_that_is_not_the_groups_is_named() -> None:
    factors = {"freeze_qk": True, "freeze_layers": "0-1", "position": "rope"}
    other = run({"qk": STILL}, freeze_qk=True, freeze_layers="2-3")
    texts = [str(text) for text in treatment.contradictions(other, factors)]
    assert "x ran with freeze_layers = 2-3, the group says 0-1" in texts
    assert "x ran with position = learned, the group says rope" in texts


def test_counts_alone_tell_nothing_of_what_is_frozen_later() -> None:
    late, q, trained = {"freeze_qk": True, "freeze_from_step": 9}, {"freeze_q": True}, {"freeze_qk": False}
    assert [treatment.freezing(each) for each in (late, q, trained, {}, {"freeze_k": False})] == [
        None, True, False, None, False,
    ]  # fmt: skip
    arms = ([run({"qk": MOVED})], [run({"qk": LATE})])
    for each, is_void in ((late, False), (q, True)):
        found = treatment.never_varied(*arms, (treatment.freezing(trained), treatment.freezing(each)))
        assert (found is not None) is is_void


def test_arms_that_differ_in_a_younger_key_still_share_their_first_weights() -> None:
    def began(start: str, **asked: Any) -> LoadedRun:
        groups = {"q": STILL, "k": MOVED} if "freeze_q" in asked else {"qk": STILL}
        return run({**groups, "other": part(start, "z")}, **asked)

    pair: dict[str, Any] = {"freeze_qk": True}
    for asked in ({"freeze_q": True}, {"freeze_qk": True, "data_seed": 7}, {"freeze_qk": True, "qk_norm": True}):
        assert treatment.other_start([began("s", **pair)], [began("s", **asked)], (pair, asked)) is None
        assert treatment.other_start([began("s", **pair)], [began("t", **asked)], (pair, asked)) is not None
    rope = {"freeze_qk": True, "position": "rope"}
    assert treatment.other_start([began("s", **pair)], [began("t", **rope)], (pair, rope)) is None
    some, all_layers = {"freeze_ffn": True, "freeze_layers": "0"}, {"freeze_ffn": True}
    fewer = [run({"qk": MOVED, "ffn": STILL, "other": part(start, "z")}) for start in "st"]
    assert treatment.other_start(fewer[:1], fewer[1:], (some, all_layers)) is None


def test_seeds_are_paired_only_where_they_saw_the_same_data(tmp_path: Path) -> None:
    a, b = (load(make_run(tmp_path, group)) for group in ("oelm_no_freeze", "oelm_freeze"))
    assert may_pair([a], [b])
    other = replace(b, train={**b.train, "data_seed": 7})
    assert not may_pair([a], [other])
    assert may_pair([replace(a, train={**a.train, "data_seed": 7})], [other])


def test_a_younger_key_that_only_one_arm_records_is_a_difference_that_nobody_declared(tmp_path: Path) -> None:
    runs = [load(make_run(tmp_path, group)) for group in ("oelm_no_freeze", "oelm_freeze")]
    runs[1] = replace(runs[1], train={**runs[1].train, "qk_norm": True})
    said = [str(finding.text) for finding in build(study(), runs).findings if finding.key == "qk_norm"]
    assert said == ["qk_norm is not the same: oelm_no_freeze False, oelm_freeze True"]
    assert configurations.arm(runs[0]).keys["qk_norm"] is False and "qk_norm" not in runs[0].train


def test_a_lock_from_before_a_key_still_is_the_plan() -> None:
    asked = files.load_study(REPOSITORY, "qk_init")
    assert "position" in asked.settings and "position" not in lock.plan_of(asked)["train"]
    changed = replace(asked, settings={**asked.settings, "position": "rope"})
    assert lock.plan_of(changed)["train"]["position"] == "rope"


def test_the_flops_that_freezing_can_save_know_that_rotary_positions_are_no_parameters() -> None:
    shape = {"d_model": 8, "num_layers": 2, "d_ff": 16, "seq_len": 4}
    embedding, layers = 10 * 8, 2 * (4 * 64 + 2 * 8 * 16 + 16 + 8 + 4 * 8) + 2 * 8
    found = []
    for position, extra in (("learned", 4 * 8), ("rope", 0)):
        parameters = Parameters(total=embedding + extra + layers, frozen=0)
        trained = replace(run({}), train={**shape, "position": position}, parameters=parameters)
        frozen = replace(trained, parameters=replace(parameters, frozen=128))
        found.append(speed.flop_bound(frozen, trained))
    assert found[0] == found[1] is not None


@pytest.mark.slow
def test_what_the_trainer_records_proves_its_own_treatment_and_contradicts_every_other(tmp_path: Path) -> None:
    data = write_tokens(tmp_path)
    tiny = replace(TINY, freeze_qk=False, max_steps=4, data_path=str(data))
    treatments: dict[str, dict[str, Any]] = {
        "trained": {"freeze_qk": False},
        "pair": {"freeze_qk": True},
        "q": {"freeze_q": True},
        "k": {"freeze_k": True},
        "lower": {"freeze_qk": True, "freeze_layers": "0"},
        "late": {"freeze_qk": True, "freeze_from_step": 2},
        "late_k": {"freeze_k": True, "freeze_from_step": 2},
        "rope": {"freeze_qk": True, "position": "rope"},
    }
    every = dict.fromkeys(treatment.OF_QK, False) | {
        "freeze_layers": "all",
        "freeze_from_step": 0,
        "position": "learned",
    }
    runs = {}
    for name, asked in treatments.items():
        config = replace(tiny, **asked, out_dir=str(tmp_path / name))
        assert train_here(config) == 0
        runs[name] = load(tmp_path / name)
    for name, own in runs.items():
        assert treatment.proven(own), name
        for other, asked in treatments.items():
            found = treatment.contradictions(own, {"model_type": "oelm", **every, **asked})
            assert (found == []) is (name == other), (name, other, found)
