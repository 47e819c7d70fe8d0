"""Build AdamW, compute the learning rate of a step, and choose the numeric precision of a device.

The learning rate is a pure function of the step, so a resumed run needs no scheduler state.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, ContextManager, List

import torch
from torch import nn

from . import device as device_module
from .config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step (counted from 1): a linear rise to max_lr, then a cosine down to min_lr."""
    if step <= config.warmup_steps:
        return config.max_lr * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return config.min_lr + 0.5 * (config.max_lr - config.min_lr) * (1 + math.cos(math.pi * min(1.0, progress)))


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters: matrices and embeddings decay, norms and biases don't.

    Frozen parameters are not in it: they cost no state, and weight decay can't shrink them.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    # Fused AdamW came to CPUs with PyTorch 2.4; before, it is accepted there and fails at the first step.
    version = tuple(int(part) for part in str(torch.__version__).split(".")[:2])
    fused = all(p.is_cuda for p in trainable) or version >= (2, 4)
    return torch.optim.AdamW(groups, lr=config.max_lr, betas=(config.beta1, config.beta2), fused=fused)


def leave_out_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Take parameters without gradient out of an optimizer, with their state: weight decay would shrink them."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not parameter.requires_grad:
                optimizer.state.pop(parameter, None)
        group["params"] = [p for p in group["params"] if p.requires_grad]


def trainable_parameters(optimizer: torch.optim.Optimizer) -> List[nn.Parameter]:
    """Return all parameters that an optimizer holds."""
    return [p for group in optimizer.param_groups for p in group["params"]]


class Precision:
    """The numeric precision of a run: fp32 on CPUs; bf16, fp16 (with loss scaling) or tf32 on GPUs."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._device = device.type
        self.name = "fp32"
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # partial sums could overflow
            is_new = device_module.computes_in_bf16(device)  # and in tf32
            self.name = ("bf16" if is_new else "fp16") if config.use_amp else ("tf32" if is_new else "fp32")
        self.scaler: Any = None
        if self.name == "fp16":
            made_by = getattr(torch.amp, "GradScaler", None)  # from PyTorch 2.3
            self.scaler = made_by("cuda") if made_by else torch.cuda.amp.GradScaler()

    def autocast(self) -> ContextManager[Any]:
        """Return the context in which the forward pass runs."""
        if self.name not in ("bf16", "fp16"):
            return contextlib.nullcontext()
        return torch.autocast(self._device, dtype=torch.bfloat16 if self.name == "bf16" else torch.float16)
