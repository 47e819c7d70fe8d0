"""The memory that a training is said to take: counted tensor by tensor, where no GPU tells."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train import cross_entropy, estimate
from train import linear as linear_module
from train.config import TrainConfig
from train.cross_entropy import linear_cross_entropy
from train.model import Transformer

CONFIG = TrainConfig(
    model_type="oelm", d_model=128, num_layers=3, num_heads=4, d_ff=512, seq_len=64, vocab_size=1024, dropout=0.0
)


def kept_bytes(config: TrainConfig) -> int:
    """Run a forward pass; return the size of all that it keeps for the backward pass, parameters apart."""
    model, kept = Transformer(config), dict[int, Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.zeros(config.batch_size, config.seq_len, dtype=torch.long)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=config.use_amp)
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        model(tokens, tokens)
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class Peak(TorchDispatchMode):
    """Follows how many bytes of tensors without content are there at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.most = 0

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.sizes:
            weakref.finalize(storage, self.sizes.pop, storage._cdata)
            self.sizes[storage._cdata] = storage.nbytes()
            self.most = max(self.most, sum(self.sizes.values()))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self.count(tensor)
        return made


ARMS: list[dict[str, Any]] = [
    {},
    {"freeze_qk": True},
    {"freeze_q": True},
    {"freeze_ffn": True},
    {"freeze_ffn": True, "freeze_layers": "1-2"},
    {"position": "rope"},
    {"qk_norm": True},
    {"position": "rope", "qk_norm": True},
]


@pytest.mark.parametrize("use_amp", [True, False])
@pytest.mark.parametrize("arm", ARMS, ids=str)
def test_what_a_sequence_keeps_is_counted_to_the_byte(
    arm: dict[str, Any], use_amp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear_module, "_has_onednn", lambda: False)  # which keeps what frozen layers don't need
    config = replace(CONFIG, use_amp=use_amp, **arm)
    two, six = (kept_bytes(replace(config, batch_size=size)) for size in (2, 6))
    each = (six - two) // 4
    assert estimate.sequence_bytes(config) == each
    counts, table = estimate.parameter_counts(config), 8192 if config.position == "rope" else 0
    assert estimate.held_bytes(config) + table == 4 * counts.total + 8 * counts.trainable + two - 2 * each


def test_dropout_keeps_masks_on_a_gpu_and_scores_on_a_cpu() -> None:
    dropped = replace(CONFIG, dropout=0.1, use_amp=False)
    two, six = (kept_bytes(replace(dropped, batch_size=size)) for size in (2, 6))
    assert estimate.sequence_bytes(dropped, on_gpu=False) == (six - two) // 4
    more = estimate.sequence_bytes(dropped) - estimate.sequence_bytes(replace(dropped, dropout=0.0))
    assert more == CONFIG.seq_len * CONFIG.d_model * (2 * CONFIG.num_layers + 1)


@pytest.mark.slow
@pytest.mark.parametrize("use_amp", [True, False])
@pytest.mark.parametrize("batch_size", [64, 512, 1200])  # the last one's logits are cut into two strips
def test_the_output_head_takes_what_is_estimated(
    batch_size: int, use_amp: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, d_model=512, seq_len=16, vocab_size=8192, batch_size=batch_size, use_amp=use_amp)

    def lower(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.half() if use_amp else tensor for tensor in tensors)

    monkeypatch.setattr(cross_entropy, "autocast", lower)
    x = torch.empty(batch_size * 16, 512, device="meta", requires_grad=True)
    weight = torch.empty(8192, 512, device="meta", requires_grad=True)
    with Peak() as peak:
        peak.count(x)
        peak.count(weight)
        linear_cross_entropy(x, weight, torch.zeros(len(x), dtype=torch.long, device="meta"), 8192).backward()
    weight_bytes = 4 * weight.numel()
    assert estimate.head_bytes(config) == pytest.approx(peak.most - weight_bytes, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 2}, {"batch_size": 1, "d_ff": 8192}])
def test_the_most_that_a_step_takes_is_estimated(changes: dict[str, int]) -> None:
    # Short sequences: without content PyTorch takes attention apart, and scores are kept that no GPU keeps.
    config = replace(CONFIG, d_model=512, d_ff=2048, num_heads=1, seq_len=16, vocab_size=8192, use_amp=False)
    config = replace(config, **{"batch_size": 64, **changes})
    model = Transformer(config).to("meta")
    tokens = torch.zeros(config.batch_size, config.seq_len, dtype=torch.long, device="meta")
    with Peak() as peak:
        for parameter in model.parameters():
            peak.count(parameter)
        for _ in range(config.gradient_accumulation_steps):
            model(tokens, tokens).backward()
    moments = 8 * estimate.parameter_counts(config).trainable
    assert estimate.training_bytes(config) == pytest.approx(peak.most + moments, rel=0.1)
