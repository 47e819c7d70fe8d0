"""Estimate a configuration's parameters, disk and memory from its sizes alone.

Standard library only: the toolkit asks before anything is queued.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Optional

from .config import TrainConfig
from .freezing import freezing

HEADROOM = 0.9
"""The allocator's fragmentation and the libraries' workspaces take the rest of a device's memory."""
GPU_STRIP_ELEMENTS, CPU_STRIP_ELEMENTS = 1 << 27, 1 << 24
"""Logits that exist at once."""


class ParameterCounts(NamedTuple):
    """Numbers of parameters, padding and packing left out."""

    total: int
    trainable: int
    qk: int
    embedding: int


def parameter_counts(config: TrainConfig) -> ParameterCounts:
    """Return the counts of a model: tied head, no attention biases, biases elsewhere.

    What is trained for some steps and then frozen counts as trainable.
    """
    d, f = config.d_model, config.d_ff
    embedding = config.vocab_size * d + (config.seq_len * d if config.position == "learned" else 0)
    qk, ffn = 2 * d * d, 2 * d * f + f + d
    layer = 4 * d * d + ffn + 4 * d
    total = embedding + config.num_layers * layer + 2 * d
    frozen = freezing(config)
    never = 0 if frozen.after else frozen.total({"q": d * d, "k": d * d, "ffn": ffn})
    return ParameterCounts(total, total - never, config.num_layers * qk, embedding)


def checkpoint_disk_bytes(config: TrainConfig) -> int:
    """Return the most that a run's checkpoints take on disk.

    One checkpoint holds fp32 weights and, for what is trained, AdamW's two moments. One more than is kept exists while
    it is written, and ``best_model.pt`` (weights alone) twice.
    """
    counts = parameter_counts(config)
    saves = -(-config.max_steps // config.save_interval)
    kept = min(saves, config.keep_last + 1) if config.keep_last else saves
    kept += config.max_steps // config.keep_every if config.keep_last and config.keep_every else 0
    return min(kept, saves + 1) * (4 * counts.total + 8 * counts.trainable) + 2 * 4 * counts.total


def held_bytes(config: TrainConfig, on_gpu: bool = True) -> int:
    """Return the memory of what doesn't depend on the batch: weights, AdamW's two moments, copies of weights.

    A forward pass makes copies and keeps them: of all matrices in low precision, in fp32 the packed ones of Q, K and V.
    """
    counts, d = parameter_counts(config), config.d_model
    copies = 2 * (4 * d * d + 2 * d * config.d_ff) if _element_bytes(config, on_gpu) == 2 else 4 * 3 * d * d
    return 4 * counts.total + 8 * counts.trainable + config.num_layers * copies


def sequence_bytes(config: TrainConfig, on_gpu: bool = True) -> int:
    """Return the memory of what one sequence keeps for the backward pass.

    Per token and layer: the residual stream before each norm (2 D, in fp32) and the norms' statistics; both norms'
    outputs, q, k, v, and the attention's output (6 D); the hidden layer before and after the GELU (2 F), in the
    precision of products. Frozen layers keep no inputs. (Korthikanti et al., arXiv:2205.05198.)
    """
    d, f, heads, element = config.d_model, config.d_ff, config.num_heads, _element_bytes(config, on_gpu)
    layer, embedding = 8 * d + 16 + element * (6 * d + 2 * f) + 4 * heads, 4 * d + 16
    if config.qk_norm:  # statistics, and what was normalised in fp32
        layer += 8 * heads + (8 * d if element == 2 else 0)
    if config.position == "rope":  # q and k once more, and a copy of the output in another layout
        layer += 3 * element * d
    elif config.qk_norm:
        layer += 2 * element * d
    if config.dropout and on_gpu:  # masks; those of attention are drawn anew
        layer, embedding = layer + 2 * d, embedding + d
    elif config.dropout:  # PyTorch takes attention apart, and keeps T scores per head and scaled copies of q and k, too
        layer += element * (4 * d + 2 * heads * config.seq_len) - 4 * heads
        embedding += element * d
    frozen = freezing(config)
    spared = frozen.num_layers * element * (d + f) if "ffn" in frozen.parts and not frozen.after else 0
    return config.seq_len * (config.num_layers * layer + embedding - spared)


def head_bytes(config: TrainConfig, on_gpu: bool = True) -> int:
    """Return the memory that the output head takes besides, at the end of a micro-step's forward pass.

    Of all tokens: its input in both precisions and that input's gradient. Of the weight: a copy in low precision, and
    its gradient. Of a strip of logits: the logits, in fp32 as well where they are in bf16, their softmax in fp32, and
    that of the strip before.
    """
    element, tokens = _element_bytes(config, on_gpu), config.batch_size * config.seq_len
    low = element if element == 2 else 0
    budget = GPU_STRIP_ELEMENTS if on_gpu else CPU_STRIP_ELEMENTS
    strips = -(-tokens * config.vocab_size // budget)
    each = low + 8 + (element if strips > 1 else 0) if on_gpu else 4
    logits = -(-tokens // strips) * config.vocab_size * each
    return tokens * config.d_model * (8 + low) + config.vocab_size * config.d_model * (4 + low) + logits


def training_bytes(config: TrainConfig, on_gpu: bool = True) -> int:
    """Return the most memory that one process of a training takes at once.

    That is at the end of a forward pass, with the gradients of the micro-steps before, or of a backward pass.
    """
    gradients = 4 * parameter_counts(config).trainable
    forward = config.batch_size * sequence_bytes(config, on_gpu) + head_bytes(config, on_gpu)
    if config.gradient_accumulation_steps > 1:
        forward += gradients
    return held_bytes(config, on_gpu) + max(forward, gradients + 4 * config.vocab_size * config.d_model)


def fitting_batch_size(config: TrainConfig, available_bytes: float, on_gpu: bool = True) -> Optional[int]:
    """Return the largest batch size below the configured one that is likely to fit and divides it; None if none is."""
    for size in range(config.batch_size - 1, 0, -1):
        if config.batch_size % size == 0:
            steps = config.gradient_accumulation_steps * (config.batch_size // size)
            smaller = replace(config, batch_size=size, gradient_accumulation_steps=steps)
            if training_bytes(smaller, on_gpu) <= HEADROOM * available_bytes:
                return size
    return None


def _element_bytes(config: TrainConfig, on_gpu: bool) -> int:
    """Return the size of a number that products take and make."""
    return 2 if on_gpu and config.use_amp else 4
