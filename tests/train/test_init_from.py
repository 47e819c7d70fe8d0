"""A run begins with another run's weights, and with nothing else of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.train.support import metrics, outcome, read_json, train_here
from train.checkpoint import BEST
from train.config import TrainConfig, from_flags, recorded, scientific_hash, to_dict

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tiny: TrainConfig, tmp_path: Path) -> TrainConfig:
    """A run that has ended."""
    before = replace(tiny, out_dir=str(tmp_path / "before"), model_type="gpt", freeze_qk=False)
    assert train_here(before) == 0
    return before


def weights_of(config: TrainConfig, name: str = BEST) -> str:
    return str(Path(str(config.out_dir)) / name)


def test_it_begins_with_the_weights_and_trains_its_own_steps(source: TrainConfig, tiny: TrainConfig) -> None:
    last = weights_of(source, f"checkpoint_{source.max_steps}.pt")
    config = replace(tiny, init_from=last, seed=7)
    assert train_here(config) == 0
    started = read_json(Path(str(config.out_dir)) / "treatment.json")["groups"]["qk"]["sha256_start"]
    ended = read_json(Path(str(source.out_dir)) / "treatment.json")["groups"]["qk"]["sha256_end"]
    assert started == ended
    assert outcome(config)["step"] == config.max_steps and min(metrics(config)) == 1
    assert f"Weights: {last}" in (Path(str(config.out_dir)) / "training.log").read_text()


def test_resumed_it_goes_on_from_its_own_checkpoint(source: TrainConfig, tiny: TrainConfig) -> None:
    config = replace(tiny, init_from=weights_of(source))
    assert train_here(config) == 0
    Path(weights_of(source)).unlink()  # which nobody needs any more
    assert train_here(config) == 0
    assert outcome(config)["resumed_from"] == config.max_steps


def test_weights_of_another_shape_are_refused(
    source: TrainConfig, tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(replace(tiny, init_from=weights_of(source), num_heads=2, d_ff=32)) == 1
    said = capsys.readouterr().err
    assert "holds another model: num_heads = 4 there and 2 here, d_ff = 64 there and 32 here" in said
    assert train_here(replace(tiny, init_from=weights_of(source, "gone.pt"))) == 1
    assert "checkpoint not found" in capsys.readouterr().err


def test_absent_it_is_neither_recorded_nor_hashed(tiny: TrainConfig) -> None:
    assert "init_from" not in to_dict(tiny)
    other = replace(tiny, init_from="weights.pt")
    assert recorded({"init_from": "weights.pt"}) == {"init_from": "weights.pt"}
    assert scientific_hash(other, 4) != scientific_hash(tiny, 4)
    assert from_flags(["--init-from=~/w.pt"]).init_from == str(Path("~/w.pt").expanduser())
