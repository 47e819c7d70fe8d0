"""What a step's time is, by a clock that a stand-in for a GPU turns: all that its work takes, and nothing else."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.train.support import metrics, outcome, train_here
from train import loop, run
from train.config import TrainConfig
from train.model import Transformer
from train.stepping import Stepper

LAUNCH_S, STEP_S = 1.0, 10.0
"""What it takes to hand a step to the stand-in, and to make it there."""


class SlowGpu:
    """Makes what it is given one after the other; who asks for a result waits until all is made."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.free_at_s = 0.0
        self.syncs = 0

    def step(self) -> None:
        """Take a step, then wait until the one before it is made, as who asks for its norm does."""
        self.now_s += LAUNCH_S
        before_s, self.free_at_s = self.free_at_s, max(self.now_s, self.free_at_s) + STEP_S
        self.now_s = max(self.now_s, before_s)

    def synchronize(self) -> None:
        self.syncs += 1
        self.now_s = max(self.now_s, self.free_at_s)


class LossSum:
    """A sum that lies on the stand-in."""

    def __init__(self, value: Tensor, gpu: SlowGpu) -> None:
        self.value, self.gpu = value, gpu

    def __iadd__(self, other: Tensor) -> LossSum:
        self.value += other
        return self

    def fill_(self, value: float) -> None:
        self.value.fill_(value)

    def zero_(self) -> None:
        self.value.zero_()

    def __float__(self) -> float:
        self.gpu.synchronize()
        return float(self.value)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SlowGpu:
    """Have runs of this process take their time from a stand-in, on which their steps are made."""
    found = SlowGpu()
    prepare, step = Stepper.__post_init__, Stepper.step

    def prepared(stepper: Stepper) -> None:
        prepare(stepper)
        stepper.loss_sum = LossSum(stepper.loss_sum, found)  # type: ignore[assignment]  # in a tensor's place

    def stepped(stepper: Stepper, number: int, batches: list[Tensor]) -> None:
        step(stepper, number, batches)
        found.step()

    monkeypatch.setattr(Stepper, "__post_init__", prepared)
    monkeypatch.setattr(Stepper, "step", stepped)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: found.now_s, time=lambda: 0.0))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "syncs"),
    [
        ({"log_interval": 1}, 24 + 1),
        ({"log_interval": 24, "save_interval": 1}, 24 + 2),  # a checkpoint of each step, two of them logged
        ({"log_interval": 24}, 2 + 1),
    ],
    ids=str,
)
def test_a_steps_time_holds_all_waiting_for_it_whoever_asks_for_its_result(
    changes: dict[str, int], syncs: int, tiny: TrainConfig, gpu: SlowGpu
) -> None:
    config = replace(tiny, **{"save_interval": 1000, "val_interval": 1000, **changes})
    assert train_here(config) == 0
    ended, tokens = outcome(config), config.batch_size * config.seq_len
    # Handed over one by one, steps take both times; where nobody asks, one is handed over while another is made.
    step_s = STEP_S + LAUNCH_S if syncs > 3 else STEP_S
    assert ended["tokens_per_s"] == pytest.approx(tokens / step_s)
    assert ended["train_s"] == pytest.approx(gpu.now_s)
    assert metrics(config)[24]["tokens_per_s"] == pytest.approx(tokens / step_s, rel=0.01)
    assert gpu.syncs == syncs, "nothing else waits for the GPU"


@pytest.fixture
def compiler(gpu: SlowGpu, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have runs compiled, which takes hours, until they freeze something: from then on by the ``later`` put here."""
    compiler: dict[str, Any] = {"frozen": False, "count": 0, "later": lambda: None}
    freeze = Transformer.freeze

    def compiled(graph: Any, inputs: Any) -> Any:
        if compiler["frozen"]:
            compiler["later"]()
        compiler["count"] += 1
        gpu.now_s += 3600.0
        return graph.forward

    def frozen(model: Transformer) -> None:
        freeze(model)
        compiler["frozen"] = True

    monkeypatch.setattr(run, "wants_compile", lambda *_: True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=compiled))
    monkeypatch.setattr(Transformer, "freeze", frozen)
    return compiler


@pytest.mark.slow
def test_compiling_anew_for_what_freezes_later_is_no_steps_time(
    tiny: TrainConfig, gpu: SlowGpu, compiler: dict[str, Any]
) -> None:
    config = replace(tiny, freeze_from_step=8, log_interval=1, max_steps=16, val_interval=16)
    before: list[int] = []
    compiler["later"] = lambda: before.append(compiler["count"])
    assert train_here(config) == 0
    assert before and before[0] > 0, "it is compiled before and after"
    assert outcome(config)["compiled"] is True
    assert outcome(config)["train_s"] == pytest.approx(16 * (LAUNCH_S + STEP_S))


@pytest.mark.slow
def test_a_run_that_cannot_compile_what_freezes_later_says_so_and_goes_on_eagerly(
    tiny: TrainConfig, tmp_path: Path, compiler: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError("no kernels for this")

    compiler["later"] = fail
    config = replace(tiny, freeze_from_step=8, max_steps=16)
    assert train_here(config) == 0
    assert capsys.readouterr().out.count("Not compiled any more, so slower: RuntimeError: no kernels for this\n") == 1
    assert outcome(config)["compiled"] is False and outcome(config)["exact"] is True
    must = replace(config, compile="true", out_dir=str(tmp_path / "must"))
    compiler["frozen"] = False
    assert train_here(must) == 1
    reason = "--compile true can't be kept, auto goes on without it: RuntimeError: no kernels for this"
    assert (outcome(must)["reason"], outcome(must)["step"]) == (reason, 8)
