"""What a report says of the sources of variation that runs had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from oelm_jobs.analysis import variation
from oelm_jobs.analysis.reading.loaded_run import LoadedRun

from . import synthetic


def said(runs: Sequence[LoadedRun]) -> dict[str, tuple[str, str | None]]:
    table = variation.table(runs)
    assert table is not None
    return {str(row[0].value): (str(row[1].value), row[2].value and str(row[2].value)) for row in table.rows}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedRun]:
    path: Path = tmp_path_factory.mktemp("runs")
    made = synthetic.make_arms(path, {"gpt_base": [3.88, 3.885]})
    return [replace(run, train={**run.train, "dropout": 0.1}) for run in made]


def with_train(runs: Sequence[LoadedRun], **keys: object) -> list[LoadedRun]:
    return [replace(run, train={**run.train, **keys}) for run in runs]


def test_seeds_vary_what_they_decide_in_the_built_in_trainer(runs: list[LoadedRun]) -> None:
    found = said(runs)
    for source in ("initial weights", "order of the data", "dropout"):
        assert found[source] == ("varied", "seed: 42, 43")
    assert found["data, and their split"][0] == found["host"][0] == found["code"][0] == "not varied"


def test_a_seed_of_the_data_is_told_apart(runs: list[LoadedRun]) -> None:
    fixed = said(with_train(runs, data_seed=7))
    assert fixed["order of the data"] == ("not varied", "data_seed: 7")
    assert fixed["initial weights"] == ("varied", "seed: 42, 43")
    alone = [replace(run, seed=42, train={**run.train, "data_seed": i}) for i, run in enumerate(runs)]
    assert said(alone)["order of the data"] == ("varied", "data_seed: 0, 1")
    assert said(alone)["initial weights"] == ("not varied", "seed: 42")


def test_nothing_is_said_that_the_records_do_not_show(runs: list[LoadedRun]) -> None:
    assert said(with_train(runs, dropout=0.0))["dropout"] == ("none in these runs", "dropout = 0")
    unseeded = said([replace(run, seed=None) for run in runs])
    assert unseeded["initial weights"] == ("not known", None)
    half = [replace(runs[0], hardware={}), runs[1]]
    assert said(half)["host"][0] == "not known" and str(said(half)["host"][1]).endswith(", –")
    other = [replace(runs[0], hardware={**runs[0].hardware, "host": "other"}), runs[1]]
    assert said(other)["host"][0] == "varied"
    scripts = said([replace(run, is_script=True) for run in runs])
    assert scripts["what the seed decides"][0] == "varied" and "it knows alone" in str(
        scripts["what the seed decides"][1]
    )
    assert "dropout" not in scripts and variation.table([]) is None
