"""Estimate a configuration's parameters, disk and memory from its sizes alone.

Standard library only: the toolkit asks before anything is queued.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from .config import TrainConfig

HEADROOM = 0.9
"""The allocator's fragmentation and the libraries' workspaces take the rest of a device's memory."""


class ParameterCounts(NamedTuple):
    """Numbers of parameters, padding and packing left out."""

    total: int
    trainable: int
    qk: int
    embedding: int


def parameter_counts(config: TrainConfig) -> ParameterCounts:
    """Return the counts of a model: tied head, learned positions, no attention biases, biases elsewhere."""
    d, f = config.d_model, config.d_ff
    embedding = config.vocab_size * d + config.seq_len * d
    qk, ffn = 2 * d * d, 2 * d * f + f + d
    layer = 4 * d * d + ffn + 4 * d
    total = embedding + config.num_layers * layer + 2 * d
    frozen = (qk if config.freeze_qk else 0) + (ffn if config.freeze_ffn else 0)
    return ParameterCounts(total, total - config.num_layers * frozen, config.num_layers * qk, embedding)


def checkpoint_bytes(config: TrainConfig) -> int:
    """Return the size of one checkpoint: fp32 weights and, for what is trained, AdamW's two moments."""
    counts = parameter_counts(config)
    return 4 * counts.total + 8 * counts.trainable


def checkpoint_disk_bytes(config: TrainConfig) -> int:
    """Return the most that a run's checkpoints take on disk.

    One checkpoint more than is kept exists while it is written, and ``best_model.pt`` (weights alone) twice.
    """
    saves = -(-config.max_steps // config.save_interval)
    kept = min(saves, config.keep_last + 1) if config.keep_last else saves
    kept += config.max_steps // config.keep_every if config.keep_last and config.keep_every else 0
    return min(kept, saves + 1) * checkpoint_bytes(config) + 2 * 4 * parameter_counts(config).total


def static_bytes(config: TrainConfig) -> int:
    """Return the memory of weights (fp32), gradients and AdamW's two moments."""
    counts = parameter_counts(config)
    return 4 * counts.total + 12 * counts.trainable


def sequence_bytes(config: TrainConfig, element_bytes: int) -> int:
    """Return the memory of the activations that one sequence keeps for the backward pass.

    Per token and layer: two norm inputs and outputs, q, k, v and the attention's output, its projection and the second
    layer's output (about 10 D), the hidden layer before and after the GELU (2 F), and dropout masks. With attention
    dropout, PyTorch's kernels for CPUs keep T scores per head as well. (Korthikanti et al., arXiv:2205.05198.)
    """
    per_token = element_bytes * (10 * config.d_model + 2 * config.d_ff) * config.num_layers
    if config.dropout:
        per_token += 3 * config.d_model * config.num_layers
        per_token += 2 * element_bytes * config.num_heads * config.seq_len * config.num_layers
    return config.seq_len * (per_token + 8 * config.d_model)


def training_bytes(config: TrainConfig) -> int:
    """Return the memory of one process of a training on a GPU, in bytes."""
    return static_bytes(config) + config.batch_size * sequence_bytes(config, 2 if config.use_amp else 4)


def fitting_batch_size(
    config: TrainConfig, available_bytes: float, element_bytes: Optional[int] = None
) -> Optional[int]:
    """Return the largest batch size below the configured one that is likely to fit and divides it; None if none is."""
    size = element_bytes or (2 if config.use_amp else 4)
    fitting = int((HEADROOM * available_bytes - static_bytes(config)) // sequence_bytes(config, size))
    smaller = [n for n in range(1, config.batch_size) if config.batch_size % n == 0 and n <= fitting]
    return max(smaller, default=None)
