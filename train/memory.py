"""Owns the estimate of how much memory a training step takes, to name a batch size that would fit.

It leaves to the device the truth. The estimate counts what grows with the batch (activations kept for the backward pass
and one chunk of logits) and what does not (weights, gradients, AdamW's moments).
"""

from __future__ import annotations

import os
from typing import Optional

import torch

from .config import TrainConfig

_HEADROOM = 0.9  # the allocator's fragmentation and the libraries' workspaces take the rest


def static_bytes(total_parameters: int, trainable_parameters: int) -> int:
    """Return the bytes of weights (fp32), gradients and AdamW's two moments."""
    return 4 * total_parameters + 12 * trainable_parameters


def sequence_bytes(config: TrainConfig, element_bytes: int) -> int:
    """Return the bytes of activations that one sequence keeps for the backward pass.

    Per token and layer: two norm inputs and outputs, q, k, v and the attention's output, its projection and the second
    layer's output (about 10 D), the hidden layer before and after the GELU (2 F), and dropout masks. With attention
    dropout, PyTorch's kernels for CPUs keep T scores per head as well. (Korthikanti et al., arXiv:2205.05198.)
    """
    per_token = element_bytes * (10 * config.d_model + 2 * config.d_ff) * config.num_layers
    if config.dropout:
        per_token += 3 * config.d_model * config.num_layers
        per_token += 2 * element_bytes * config.num_heads * config.seq_len * config.num_layers
    return config.seq_len * (per_token + 8 * config.d_model)


def fitting_batch_size(
    config: TrainConfig, total_parameters: int, trainable_parameters: int, available_bytes: int, element_bytes: int
) -> Optional[int]:
    """Return the largest batch size below the configured one that is likely to fit and divides it; None if none is."""
    room = _HEADROOM * available_bytes - static_bytes(total_parameters, trainable_parameters)
    fitting = int(room // sequence_bytes(config, element_bytes))
    smaller = [n for n in range(1, config.batch_size) if config.batch_size % n == 0 and n <= fitting]
    return max(smaller, default=None)


def available_bytes(device: torch.device) -> int:
    """Return the memory that a process could have on a device if it began anew."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def advice(config: TrainConfig, total_parameters: int, trainable_parameters: int, device: torch.device) -> str:
    """Return a sentence for a run that is out of memory: the batch size to try, with the same global batch."""
    element_bytes = 2 if config.use_amp and device.type == "cuda" else 4
    room = available_bytes(device)
    size = fitting_batch_size(config, total_parameters, trainable_parameters, room, element_bytes)
    if size is None and config.batch_size > 1:  # the estimate was wrong: at least it was too much
        size = max(n for n in range(1, config.batch_size) if config.batch_size % n == 0)
    if size is None:
        return f"out of memory with one sequence at a time ({room / 1e9:.1f} GB available): the model is too large"
    steps = config.gradient_accumulation_steps * (config.batch_size // size)
    return (
        f"out of memory at --batch_size {config.batch_size} ({room / 1e9:.1f} GB available); "
        f"--batch_size {size} --gradient_accumulation_steps {steps} should fit and trains on the same global batch"
    )
