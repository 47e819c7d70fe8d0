"""The learning rate of each step, and what decays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.train.support import TINY
from train.config import TrainConfig
from train.model import Transformer
from train.optimizer import Precision, build_optimizer, learning_rate


def test_the_learning_rate_rises_linearly_then_falls_along_a_cosine() -> None:
    config = TrainConfig()
    assert learning_rate(config, 1) == pytest.approx(1.5e-7)
    assert learning_rate(config, 300) == pytest.approx(4.5e-5)  # the log line that users know
    assert learning_rate(config, 2_000) == pytest.approx(3e-4)
    assert learning_rate(config, 51_000) == pytest.approx((3e-4 + 3e-5) / 2)
    assert learning_rate(config, 100_000) == pytest.approx(3e-5)
    rates = [learning_rate(config, step) for step in range(2_000, 100_001, 500)]
    assert rates == sorted(rates, reverse=True)


def test_a_run_shorter_than_its_warm_up_only_warms_up() -> None:
    config = replace(TrainConfig(), max_steps=100)
    assert learning_rate(config, 100) == pytest.approx(3e-4 * 100 / 2_000)
    assert learning_rate(replace(config, warmup_steps=0), 1) <= 3e-4


def test_matrices_and_embeddings_decay_and_norms_and_biases_do_not() -> None:
    model = Transformer(replace(TINY, freeze_qk=False))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, kept = ({names[id(p)] for p in group["params"]} for group in build_optimizer(model, TINY).param_groups)
    assert {"tokens", "positions", "blocks.0.attn.qk", "blocks.1.ffn.down.weight"} <= decayed
    assert all("norm" in name or name.endswith("bias") for name in kept)
    assert len(decayed) + len(kept) == len(names)


def test_frozen_weights_stay_and_padding_rows_stay_zero_over_a_step_with_decay() -> None:
    model = Transformer(TINY)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, replace(TINY, weight_decay=0.5))
    tokens = torch.randint(TINY.vocab_size, (2, 17), generator=torch.Generator().manual_seed(3))
    model(tokens[:, :-1], tokens[:, 1:]).backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) is name.endswith(".attn.qk"), name
    assert torch.count_nonzero(model.tokens[TINY.vocab_size :]) == 0
    assert model.tokens.shape[0] > TINY.vocab_size


def test_a_cpu_computes_in_fp32_whatever_use_amp_says() -> None:
    for use_amp in (True, False):
        precision = Precision(replace(TINY, use_amp=use_amp), torch.device("cpu"))
        assert precision.name == "fp32" and precision.scaler is None
        with precision.autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
