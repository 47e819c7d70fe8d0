"""Verdicts over several blocks: over each of them, and over their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import statistics
from oelm_jobs.analysis.judging.blocks import Within, judge
from oelm_jobs.analysis.judging.verdicts import Circumstances, Verdict
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Parameters, Point

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.study import Hypothesis

EACH = Hypothesis(
    id="H", metric="final_val_ppl", group="b", against="a", relation="at_most_above", bounds=(0.05,), holds="each"
)
MEAN = replace(EACH, holds="mean")
MARGIN = math.log(1.05)
Gaps = Mapping[str, Sequence[float]]
"""Of each block the differences of loss of its seeds, from 1 on."""
GOOD, EDGE = [0.01, 0.012, 0.008], [0.03, 0.05, 0.07]


def run(group: str, seed: int, loss: float, block: str = "") -> LoadedRun:
    return LoadedRun(
        name=f"{group}-s{seed}-{block}", group=group, label=group, seed=seed, path=Path(group), status="DONE",
        final=Point(step=100, loss=loss, full=True), last_step=100,
        parameters=Parameters(trainable=int(min(loss, 1e6))),
    )  # fmt: skip


def within(name: str, gaps: Sequence[float], first: int = 1, **around: object) -> Within:
    seeds = range(first, first + len(gaps))
    runs = {
        "a": [run("a", seed, 2.0 + 0.1 * seed, name) for seed in seeds],
        "b": [run("b", seed, 2.0 + 0.1 * seed + gap, name) for seed, gap in zip(seeds, gaps, strict=True)],
    }
    return Within(runs=runs, around={"H": Circumstances(**{"may_pair": True, **around})})


def verdict(h: Hypothesis, gaps: Gaps, **around: object) -> Verdict:
    (found,) = judge([h], {name: within(name, each, **around) for name, each in gaps.items()})
    return found


def outcomes(found: Verdict) -> list[str]:
    return [found.outcome, *(each.outcome for each in found.blocks)]


def test_a_claim_about_each_block_is_supported_where_every_one_supports_it() -> None:
    found = verdict(EACH, {"x": GOOD, "y": [0.02, 0.021, 0.019]})
    assert outcomes(found) == ["supported"] * 3
    assert (found.method, found.count, found.level, found.estimate) == ("each", 3, 0.95, None)
    assert [each.block for each in found.blocks] == ["x", "y"]
    assert found.p_supported == max(each.p_supported or 0.0 for each in found.blocks)
    left = verdict(EACH, {"x": GOOD, "y": EDGE})
    assert outcomes(left) == ["inconclusive", "supported", "inconclusive"] and str(left.reason) == "open in y"


def test_support_in_each_block_needs_no_correction_and_refutation_gets_a_share_for_each() -> None:
    almost = [MARGIN - 0.01 + 0.0085 * x for x in (-1, 0, 1)]  # p of about 0.04 or so, on either side of the margin
    (alone,) = verdict(EACH, {"x": almost}).blocks
    assert 0.025 < (alone.p_supported or 0.0) <= 0.10
    same = verdict(replace(EACH, level=0.9), {"x": almost, "y": almost, "z": almost})
    assert same.outcome == "supported"
    beyond = [2 * MARGIN - gap for gap in almost]
    assert verdict(replace(EACH, level=0.9), {"x": beyond}).outcome == "refuted"
    shared = verdict(replace(EACH, level=0.9), {"x": beyond, "y": GOOD, "z": GOOD})
    assert outcomes(shared) == ["inconclusive", "inconclusive", "supported", "supported"]
    assert shared.p_refuted == pytest.approx(3 * (shared.blocks[0].p_refuted or 0.0))


def test_one_block_that_breaks_the_rule_refutes_a_claim_about_each() -> None:
    found = verdict(EACH, {"x": GOOD, "y": [0.3, 0.31, 0.29]})
    assert outcomes(found) == ["refuted", "supported", "refuted"]
    assert str(found.reason) == "refuted in y, and one block is enough"
    diverged = verdict(EACH, {"x": GOOD, "y": [0.01, math.inf, 0.01]})
    assert outcomes(diverged) == ["refuted", "supported", "refuted"]
    assert verdict(MEAN, {"x": GOOD, "y": [0.01, math.inf, 0.01]}).outcome == "refuted"


def test_with_one_seed_in_a_block_the_claim_is_met_or_not_and_no_more() -> None:
    assert outcomes(verdict(EACH, {"x": GOOD, "y": [0.01]})) == ["met (one seed)", "supported", "met (one seed)"]
    assert verdict(EACH, {"x": GOOD, "y": [0.1]}).outcome == "not met (one seed)"
    assert verdict(MEAN, {"x": [0.0], "y": [0.08]}).outcome == "met (one seed)"
    assert verdict(MEAN, {"x": [0.0], "y": [0.12]}).outcome == "not met (one seed)"
    assert verdict(MEAN, {"x": GOOD, "y": [0.2]}).outcome == "not met (one seed)"
    for h in (EACH, MEAN):
        assert verdict(h, {"x": [0.0], "y": [math.inf]}).outcome == "not met (one seed)"
        assert verdict(h, {"x": GOOD, "y": [math.inf]}).outcome == "not met (one seed)"


@pytest.mark.parametrize("h", [EACH, MEAN])
def test_what_cannot_be_judged_in_one_block_cannot_be_over_all(h: Hypothesis) -> None:
    blocks = {"x": within("x", GOOD), "y": within("y", GOOD, void=_("nothing was frozen"))}
    assert [str(judge([h], blocks)[0].outcome), str(judge([h], blocks)[0].reason)] == [
        "void",
        "block y: nothing was frozen",
    ]
    empty = Within(runs={"a": [run("a", 1, 2.0)], "b": []}, around={})
    (found,) = judge([h], {"x": within("x", GOOD), "y": empty})
    assert (found.outcome, str(found.reason)) == ("no data", "block y: group b has no runs")


def test_an_exact_count_is_decided_in_each_block_and_in_the_mean() -> None:
    count = replace(EACH, metric="trainable_params", relation="reduction", bounds=(0.0, 0.2))
    blocks = {name: Within(runs={"a": [run("a", 1, a)], "b": [run("b", 1, b)]}, around={}) for name, a, b in (
        ("x", 100.0, 90.0), ("y", 100.0, 60.0),
    )}  # fmt: skip
    assert outcomes(judge([count], blocks)[0]) == ["refuted", "supported", "refuted"]
    assert judge([replace(count, holds="mean")], blocks)[0].outcome == "refuted"
    assert judge([replace(count, holds="mean", bounds=(0.0, 0.3))], blocks)[0].outcome == "supported"


def test_the_mean_is_tested_on_each_seeds_mean_over_the_blocks() -> None:
    gaps = {"x": [0.00, 0.10, 0.02, 0.08], "y": [0.05, -0.06, 0.04, -0.03]}  # what one seed gains it loses elsewhere
    found = verdict(MEAN, gaps)
    means = [(x + y) / 2 for x, y in zip(gaps["x"], gaps["y"], strict=True)]
    expected = statistics.paired(means)
    assert (found.method, found.outcome, found.count) == ("means_paired", "supported", 4)
    assert found.ratio == pytest.approx(math.exp(expected.mean)) and found.sd == pytest.approx(expected.sd)
    assert found.interval == pytest.approx([math.exp(bound) for bound in expected.interval(0.05)])
    assert [each.outcome for each in found.blocks] == ["inconclusive", "inconclusive"]
    assert any("is a claim about these data sets alone" in note for note in found.notes)


def test_seeds_that_not_every_block_has_are_left_out_of_the_mean_and_named() -> None:
    (found,) = judge([MEAN], {"x": within("x", GOOD), "y": within("y", GOOD, first=2)})
    assert (found.method, found.count) == ("means_paired", 2)
    assert "seeds 1, 4 are not in every block, and left out of the mean" in map(str, found.notes)


def test_arms_that_are_not_paired_are_compared_by_their_seeds_means() -> None:
    found = verdict(MEAN, {"x": [0.0, -0.1, 0.1], "y": [0.01, -0.11, 0.1]}, may_pair=False)
    assert found.method == "means_welch" and found.count == 3
    assert all(each.method == "welch" for each in found.blocks)


def test_blocks_without_common_seeds_have_their_variances_combined() -> None:
    blocks = {"x": within("x", GOOD), "y": within("y", [0.02, 0.05, 0.03], first=11)}
    (found,) = judge([MEAN], blocks)
    x, y = statistics.paired(GOOD), statistics.paired([0.02, 0.05, 0.03])
    assert (found.method, found.count) == ("combined", 3)
    assert found.ratio == pytest.approx(math.exp((x.mean + y.mean) / 2))
    both = statistics.mean_of([x, y])
    assert both.standard_error == pytest.approx(math.hypot(x.standard_error, y.standard_error) / 2)
    parts = [x.standard_error**2, y.standard_error**2]
    assert both.df == pytest.approx(sum(parts) ** 2 / sum(part**2 / 2 for part in parts))


def test_too_few_seeds_in_a_block_whose_seeds_are_others_are_told_as_that() -> None:
    family = [replace(MEAN, id=f"H{number}") for number in range(3)]
    blocks = {"x": within("x", [0.01, 0.012]), "y": within("y", [0.02, 0.021, 0.019, 0.02], first=11)}
    blocks = {name: replace(each, around={h.id: each.around["H"] for h in family}) for name, each in blocks.items()}
    found = judge(family, blocks)[0]
    assert found.outcome == "undecidable"
    assert str(found.reason) == (
        "2 seeds beside 4, with no two in common over the blocks, hold no error of 1.67 %: 3 seeds of each group in "
        "each block would"
    )


def test_all_claims_hold_together_over_blocks_as_without() -> None:
    names = [f"H{number}" for number in range(4)]
    blocks = {name: within(name, [0.02, 0.03, 0.025]) for name in ("x", "y")}
    blocks = {name: replace(each, around=dict.fromkeys(names, each.around["H"])) for name, each in blocks.items()}
    found = judge([replace(EACH if i % 2 else MEAN, id=name) for i, name in enumerate(names)], blocks)
    assert sorted(round(1 - (each.level or 0.0), 6) for each in found) == [0.0125, 0.016667, 0.025, 0.05]


def test_a_remark_that_all_blocks_have_is_made_once() -> None:
    said: Sentence = _("interim")
    (found,) = judge([EACH], {"x": within("x", GOOD, notes=(said,)), "y": within("y", GOOD, notes=(said, _("copies")))})
    assert [*map(str, found.notes)] == ["interim"]
    assert [[*map(str, each.notes)] for each in found.blocks] == [[], ["copies"]]
