"""The softmax of the output head, which a GPU can make in one pass over the logits, and what it is compiled from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support import needs
from tests.train.support import TINY, VOCAB_SIZE
from train.cross_entropy import Softmax, linear_cross_entropy, softmax, softmax_to_compile
from train.distributed import World
from train.model import Transformer
from train.optimizer import Precision, build_optimizer
from train.stepping import Stepper

CPU = torch.device("cpu")


@pytest.mark.parametrize("by", [softmax, softmax_to_compile])
@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 1e-7), (torch.bfloat16, 2.0**-9), (torch.float16, 2.0**-11)]
)
def test_softmax_and_log_sum_exp_are_rounded_once(by: Softmax, dtype: torch.dtype, rounding: float) -> None:
    logits = 4 * torch.randn(50, 300, generator=torch.Generator().manual_seed(0))
    logits[0], logits[1, :4], logits[2, 7] = 5.0, torch.tensor([900.0, 900.0, -900.0, 0.0]), 60_000.0
    logits[:, 290:] = float("-inf")  # padding of the vocabulary
    logits = logits.to(dtype)
    exact = logits.double()
    found, lse = by(logits)
    assert found.dtype == dtype and lse.dtype == torch.float32
    assert torch.allclose(found.double(), exact.softmax(1), rtol=2 * rounding, atol=1e-7)
    assert torch.count_nonzero(found[:, 290:]) == 0
    assert torch.allclose(lse.double(), exact.logsumexp(1), rtol=1e-6, atol=1e-6)


def test_the_weights_gradient_is_the_same_where_kernels_must_repeat(algorithms: None) -> None:
    x, weight = torch.randn(40, 8, requires_grad=True), torch.randn(VOCAB_SIZE, 8, requires_grad=True)
    targets = torch.arange(40) % 7  # each target several times
    found = []
    for must_repeat in (False, True):
        torch.use_deterministic_algorithms(must_repeat)
        found.append(torch.autograd.grad(linear_cross_entropy(x, weight, targets, VOCAB_SIZE), (x, weight)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_the_head_is_compiled_with_the_blocks_and_trains_the_same() -> None:
    needs("g++")  # for torch.compile
    from torch._inductor import metrics

    config = replace(TINY, dropout=0.0, freeze_qk=False)
    tokens = torch.randint(
        VOCAB_SIZE, (config.batch_size * config.seq_len,), generator=torch.Generator().manual_seed(1)
    )
    x = torch.randn(len(tokens), config.d_model, generator=torch.Generator().manual_seed(2))
    kernels, losses, gradients = [], [], []
    for compiled in (False, True):
        model = Transformer(config).train()
        Stepper(config, World(0, 1, CPU), model, build_optimizer(model, config), Precision(config, CPU), compiled)
        metrics.reset()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # in fp32 a CPU makes its softmax tile by tile
            loss = linear_cross_entropy(x, model.tokens, tokens, VOCAB_SIZE, by=model.softmax)
        kernels.append(metrics.generated_kernel_count)
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, model.tokens)[0])
    assert kernels[0] == 0 and kernels[1] > 0
    assert torch.allclose(losses[0], losses[1], rtol=1e-6)
    assert torch.allclose(gradients[0], gradients[1], rtol=2.0**-8, atol=1e-6)
