"""Speed trials, the counted bound, and the planner."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oelm_jobs.analysis import power
from oelm_jobs.analysis.judging import speed
from oelm_jobs.analysis.reading import loading
from oelm_jobs.analysis.reading.loaded_run import LoadedRun, Parameters
from oelm_jobs.analysis.report import Report, build

from .. import synthetic
from ..synthetic import make_arms

ROUNDS = [1.010, 1.014, 1.008, 1.012, 1.011, 1.009, 1.013, 1.010, 1.012, 1.009, 1.011, 1.012, 1.010, 1.008, 1.013]
LOSSES = {"gpt_base": [3.88], "oelm_no_freeze": [3.85], "oelm_freeze": [3.95]}


def trial(tmp_path: Path, ratios: list[float], control: list[float] | None = None) -> None:
    comparison: dict[str, object] = {"group": "oelm_freeze", "against": "oelm_no_freeze", "ratios": ratios}
    content = {"version": 1, "comparisons": [comparison], **({"control": {"ratios": control}} if control else {})}
    (tmp_path / "speed_trial.json").write_text(json.dumps(content))


def report(tmp_path: Path, **options: object) -> Report:
    study = synthetic.study()
    runs = make_arms(tmp_path, LOSSES, **options)
    trials, remarks = loading.load_trials(None, study, runs)
    return build(study, runs, trials=trials, remarks=remarks)


def h3(found: Report) -> tuple[str, str, str]:
    verdict = next(v for v in found.verdicts if v.hypothesis.id == "H3")
    return verdict.outcome, verdict.method, " | ".join(map(str, (verdict.reason, *verdict.alarms, *verdict.notes)))


def test_the_interleaved_trial_decides_speed(tmp_path: Path) -> None:
    trial(tmp_path, ROUNDS, [1.0, 1.001, 0.999, 1.0005, 0.9995])
    outcome, method, said = h3(report(tmp_path))
    assert (outcome, method) == ("supported", "trial") and "control" not in said


def test_a_trial_that_leaves_it_open_asks_for_rounds_and_not_for_seeds(tmp_path: Path) -> None:
    trial(tmp_path, [0.96, 1.02, 0.97, 0.98, 1.01, 0.99, 1.0, 0.95, 1.03], [1.0, 1.001, 0.999])
    outcome, method, said = h3(report(tmp_path))
    assert (outcome, method) == ("inconclusive", "trial") and "a longer trial is needed" in said and "seeds" not in said


def test_a_trial_whose_rounds_follow_each_other_decides_nothing_and_says_how_many_would(tmp_path: Path) -> None:
    trial(tmp_path, [1.0 + i / 100 for i in range(15)], [1.0, 1.001, 0.999])
    outcome, method, said = h3(report(tmp_path))
    assert (outcome, method) == ("undecidable", "trial")
    assert re.search(r"the 15 rounds are so correlated that they count as [12], .* about \d{2,3} rounds would", said)


def test_the_trial_decides_where_end_to_end_speed_could_not(tmp_path: Path) -> None:
    trial(tmp_path, ROUNDS, [1.0, 1.001, 0.999])
    runs = [
        synthetic.load(synthetic.make_run(tmp_path, g, final_loss=x[0], world_size=4 if g == "oelm_freeze" else 1))
        for g, x in LOSSES.items()
    ]
    trials, _ = loading.load_trials(None, synthetic.study(), runs)
    assert h3(build(synthetic.study(), runs, trials=trials))[:2] == ("supported", "trial")


def test_a_disturbed_round_does_not_turn_the_trial(tmp_path: Path) -> None:
    trial(tmp_path, [*ROUNDS[:-1], 0.3], [1.0, 1.001, 0.999])
    assert h3(report(tmp_path))[:2] == ("supported", "trial")


def test_a_trial_whose_control_is_off_decides_nothing(tmp_path: Path) -> None:
    trial(tmp_path, ROUNDS, [1.08, 1.081, 1.079, 1.08])
    outcome, _, said = h3(report(tmp_path))
    assert outcome == "undecidable" and "instead of 1.00" in said


def test_a_trial_without_a_control_says_so(tmp_path: Path) -> None:
    trial(tmp_path, ROUNDS)
    assert "has no A/A control" in h3(report(tmp_path))[2]


def test_a_trial_decides_though_the_rounds_of_other_groups_in_it_can_not_be(tmp_path: Path) -> None:
    trial(tmp_path, ROUNDS, [1.0, 1.001, 0.999])
    path = tmp_path / "speed_trial.json"
    content = json.loads(path.read_text())
    content["comparisons"][0]["flop_ratio"] = 0
    other = {"group": "oelm_no_freeze", "against": "gpt_base", "ratios": [0.0, -1.0, "nan"]}
    path.write_text(json.dumps({**content, "comparisons": [other, *content["comparisons"]]}))
    assert h3(report(tmp_path))[:2] == ("supported", "trial")


def test_a_trial_without_rounds_is_named_and_passed_over(tmp_path: Path) -> None:
    trial(tmp_path, [1.0])
    found = report(tmp_path)
    assert any("speed_trial.json was not understood: no paired rounds" in str(f.text) for f in found.findings)
    assert h3(found)[1] == "point"


def test_a_gain_above_the_counted_bound_is_flagged(tmp_path: Path) -> None:
    trial(tmp_path, [r * 1.25 for r in ROUNDS], [1.0, 1.001, 0.999])
    assert "more than the saved operations can give" in h3(report(tmp_path))[2]


def reference(frozen: int) -> LoadedRun:
    shape = {"d_model": 512, "num_layers": 6, "d_ff": 2048, "seq_len": 512}
    counts = Parameters(total=44_896_768, trainable=44_896_768 - frozen, frozen=frozen)
    return LoadedRun(name="r", group="g", label="", seed=1, path=Path("r"), parameters=counts, train=shape)


def test_the_counted_bound_at_the_reference_is_1_0225() -> None:
    assert speed.flop_bound(reference(3_145_728), reference(0)) == pytest.approx(1.0225, abs=5e-5)


def test_there_is_no_bound_where_the_shape_is_unknown() -> None:
    unknown = LoadedRun(
        name="r", group="g", label="", seed=1, path=Path("r"), parameters=reference(3_145_728).parameters
    )
    assert speed.flop_bound(unknown, reference(0)) is None


def design(sd: float, *, paired: bool = True) -> power.Design:
    return power.Design(low=-math.log(1.05), high=math.log(1.05), alpha=0.05, sd=sd, is_paired=paired)


@pytest.mark.parametrize(
    ("sd", "seeds", "expected"), [(0.01, 3, 0.92), (0.02, 3, 0.50), (0.02, 5, 0.84), (0.02, 8, 0.98), (0.04, 8, 0.57)]
)
def test_power_at_a_true_gap_of_two_percent_against_a_margin_of_five(sd: float, seeds: int, expected: float) -> None:
    assert power.power(design(sd), math.log(1.02), seeds) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("paired", "true", "shares"), [(True, 0.02, 1), (False, 0.02, 1), (True, 0.09, 1), (True, 0.09, 3), (True, 0.02, 3)]
)
def test_power_is_what_simulation_says(paired: bool, true: float, shares: int) -> None:
    from oelm_jobs.analysis import statistics

    rng = np.random.default_rng(5)
    plan, right = replace(design(0.03, paired=paired), shares=shares), 0
    for _ in range(3000):
        if paired:
            estimate = statistics.paired(rng.normal(true, 0.03, 5).tolist())
        else:
            estimate = statistics.welch(
                rng.normal(true, 0.03 / math.sqrt(2), 5).tolist(), rng.normal(0, 0.03 / math.sqrt(2), 5).tolist()
            )
        p = (
            estimate.p_inside(plan.low, plan.high)
            if true < plan.high
            else shares * estimate.p_outside(plan.low, plan.high)
        )
        right += p < 0.05
    assert power.power(plan, true, 5) == pytest.approx(right / 3000, abs=0.03)


def test_the_number_of_seeds_is_the_smallest_with_enough_power() -> None:
    needed = power.seeds_needed(design(0.02), math.log(1.02))
    assert needed == 5
    assert power.power(design(0.02), math.log(1.02), 5) >= 0.8 > power.power(design(0.02), math.log(1.02), 4)


def test_a_true_value_on_the_margin_can_never_be_decided() -> None:
    assert power.seeds_needed(design(0.02), math.log(1.05)) is None


def test_one_seed_has_no_power() -> None:
    assert power.power(design(0.02), 0.0, 1) == 0.0


@pytest.mark.slow
def test_the_bound_of_a_spread_covers_the_true_one_four_times_in_five() -> None:
    rng = np.random.default_rng(2)
    seen = rng.normal(0, 1, (4000, 3)).std(axis=1, ddof=1)
    assert np.mean([power.sd_bound(float(s), 2) >= 1 for s in seen]) == pytest.approx(0.8, abs=0.02)


@pytest.mark.slow
def test_two_seeds_beside_many_have_no_power_at_a_level_that_the_report_would_not_decide_at() -> None:
    few = replace(design(0.001, paired=False), beside=4)
    assert power.power(few, 0.0, 2) > 0.9 and power.seeds_needed(few, 0.0) == 2, "at 5 % the report decides"
    assert power.seeds_needed(replace(few, alpha=0.0125), 0.0) == 3
    assert not replace(few, alpha=0.0125).is_decidable(0.0, 2)
    assert power.seeds_needed(replace(few, alpha=0.0125, beside=0), 0.0) == 2, "two beside two keep every level"
    refused = replace(few, alpha=0.0125).refused
    assert refused is not None and refused[:2] == (2, 3) and few.refused is None
    assert "2 seeds in one group and 4 in the other, unpaired, hold no error of 0.625 %" in str(refused[2])


@pytest.mark.slow
def test_power_with_unequal_arms_is_what_simulation_says() -> None:
    from oelm_jobs.analysis import statistics

    rng, right = np.random.default_rng(7), 0
    plan = replace(design(0.03, paired=False), beside=8)
    for _ in range(3000):
        estimate = statistics.welch(*(rng.normal(0, 0.03 / math.sqrt(2), n).tolist() for n in (3, 8)))
        right += estimate.p_inside(plan.low, plan.high) < 0.05
    assert power.power(plan, 0.0, 3) == pytest.approx(right / 3000, abs=0.05)


@pytest.mark.slow
def test_a_plan_says_of_which_numbers_of_seeds_the_report_decides_nothing(tmp_path: Path) -> None:
    """As it is judged: two seeds beside four, unpaired, at Holm's level of three hypotheses."""
    losses = {"gpt_base": [3.88, 3.89, 3.885, 3.887], "oelm_no_freeze": [3.85, 3.856], "oelm_freeze": [3.865, 3.862]}
    runs = [replace(run, source="log") for run in make_arms(tmp_path, losses)]
    (h4,) = (h for h in synthetic.study().hypotheses if h.id == "H4")
    asked = synthetic.study(seeds=(42, 43, 44, 45), hypotheses=tuple(replace(h4, id=f"H{n}") for n in range(3)))
    found = build(asked, runs)
    assert [v.outcome for v in found.verdicts] == ["undecidable"] * 3
    remarks = [str(remark) for remark in power.table(found).remarks]
    for n in range(3):
        (said,) = (remark for remark in remarks if remark.startswith(f"H{n}: "))
        assert said.startswith(f"H{n}: undecidable with 2 seeds; from 3 on there is a verdict (2 seeds in one group")


def test_a_ratio_that_the_report_makes_with_no_number_of_seeds_has_no_power(tmp_path: Path) -> None:
    losses = {"gpt_base": [0.2, 0.3, 0.4], "oelm_freeze": [0.301, 0.31, 0.29]}
    (h4,) = (h for h in synthetic.study().hypotheses if h.id == "H4")
    asked = synthetic.study(seeds=(42, 43, 44), hypotheses=(replace(h4, metric="final_val_loss"),))
    found = build(asked, make_arms(tmp_path, losses))
    made = power.table(found)
    (row,) = made.rows
    assert [str(cell.value) for cell in row[4:7]] == ["undecidable"] * 3 and row[7].value is None
    assert str(made.remarks[-1]) == f"H4: undecidable: {found.verdicts[0].reason}"


@pytest.mark.slow
def test_the_plan_uses_the_spread_that_was_seen_and_says_where_it_is_from(tmp_path: Path) -> None:
    losses = {
        "gpt_base": [3.88, 3.90, 3.87],
        "oelm_no_freeze": [3.85, 3.882, 3.862],
        "oelm_freeze": [3.865, 3.875, 3.885],
    }
    found = build(synthetic.study(seeds=(42, 43, 44)), make_arms(tmp_path, losses))
    rows = {(str(row[0].value), str(row[3].value)): row for row in power.table(found).rows}
    assert {key[0] for key in rows} == {"H2", "H3", "H4"}
    seen = next(row for key, row in rows.items() if key[0] == "H2")
    assert str(seen[2].value) == "3 seeds" and seen[1].value == next(
        v.sd for v in found.verdicts if v.hypothesis.id == "H2"
    )
    assert str(next(row for key, row in rows.items() if key[0] == "H3")[2].value) == "assumed"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["rundir", "log"])
def test_the_plan_pairs_seeds_only_where_the_runs_could_be_paired(tmp_path: Path, source: str) -> None:
    runs = [replace(run, source=source) for run in make_arms(tmp_path, {g: x[:1] for g, x in LOSSES.items()})]
    table = power.table(build(synthetic.study(), runs))
    row = next(row for row in table.rows if row[0].value == "H2" and row[3].value == "0 %")
    assert row[4].value == pytest.approx(power.power(design(0.02, paired=source == "rundir"), 0.0, 3))
