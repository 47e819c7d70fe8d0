"""Training in fp16 with loss scaling, as GPUs before Ampere do it; here a CPU computes in that precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train.support import metrics, outcome, train_here
from tests.train.test_resume import assert_equal, final_state
from train.config import TrainConfig
from train.optimizer import Precision

pytestmark = pytest.mark.slow


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Have runs of this process compute in fp16; the scaler begins with what is put here under ``first``."""
    scale = {"first": 2.0**16}

    def made(self: Precision, config: TrainConfig, device: torch.device) -> None:
        self._device, self.name = device.type, "fp16"
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale["first"])

    monkeypatch.setattr(Precision, "__init__", made)
    return scale


def test_a_run_in_fp16_learns_what_one_in_fp32_learns(
    tiny: TrainConfig, tmp_path: Path, scale: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_here(tiny) == 0
    monkeypatch.undo()
    plain = replace(tiny, out_dir=str(tmp_path / "plain"))
    assert train_here(plain) == 0
    assert (outcome(tiny)["precision"], outcome(plain)["precision"]) == ("fp16", "fp32")
    for step, record in metrics(plain).items():
        assert metrics(tiny)[step]["loss"] == pytest.approx(record["loss"], abs=0.01), step
    assert outcome(tiny)["final"]["val_loss"] == pytest.approx(outcome(plain)["final"]["val_loss"], abs=0.01)


def test_steps_that_overflow_are_left_out_and_a_resumed_run_is_the_same_to_the_bit(
    tiny: TrainConfig, tmp_path: Path, scale: dict[str, float]
) -> None:
    scale["first"] = 2.0**30
    config = replace(tiny, keep_last=0)
    assert train_here(config) == 0
    assert metrics(config)[1]["grad_norm"] in ("inf", "nan")
    assert isinstance(metrics(config)[24]["grad_norm"], float)
    resumed = replace(config, out_dir=str(tmp_path / "resumed"), resume=f"{config.out_dir}/checkpoint_10.pt")
    scale["first"] = 1.0  # the checkpoint knows better
    assert train_here(resumed) == 0
    assert outcome(resumed)["resumed_from"] == 10 and outcome(resumed)["exact"] is True
    found, expected = final_state(resumed), final_state(config)
    for part in ("model", "optimizer", "scaler"):
        assert_equal(found[part], expected[part])


def test_a_run_that_leaves_out_all_its_steps_is_stopped(tiny: TrainConfig, scale: dict[str, float]) -> None:
    scale["first"] = 2.0**-11
    assert train_here(tiny) == 1
    assert outcome(tiny)["status"] == "diverged"
    assert outcome(tiny)["reason"] == "gradients are not finite in fp16 by step 1, whatever their scale"
