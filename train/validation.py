"""Measure the validation loss: a fixed set of sequences in fixed order, split over the processes.

The sequences are windows of the validation file from its start, so neither the step, nor the seed, nor the number of
processes changes what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import torch

from .config import TrainConfig
from .data import TokenFile, validation_batch
from .distributed import World
from .model import Transformer
from .optimizer import Precision


@dataclass(frozen=True)
class Measurement:
    """A validation loss and what it was measured on."""

    loss: float
    """Mean cross-entropy, nats per token."""
    num_tokens: int
    """Number of targets."""
    is_full: bool
    """Whether that is the whole validation file."""


def interval_windows(config: TrainConfig, file: TokenFile, global_batch: int) -> int:
    """Return how many windows a validation at an interval reads: ``val_batches`` global batches, or the whole file."""
    return min(config.val_batches * global_batch, file.windows(config.seq_len))


@torch.no_grad()
def measure(
    model: Transformer,
    file: TokenFile,
    config: TrainConfig,
    world: World,
    precision: Precision,
    first: int,
    last: int,
    should_stop: Optional[Callable[[], bool]] = None,
) -> Optional[Measurement]:
    """Return the loss over windows [first, last), the same on all processes; None if ``should_stop`` said so.

    Collective. Groups of ``batch_size`` windows go round the processes; sums are kept in double precision.
    ``should_stop`` is collective too and asked after every group.
    """
    model.eval()
    losses, count = 0.0, 0
    starts = list(range(first, last, config.batch_size))
    try:
        for turn in range(0, len(starts), world.size):
            if should_stop is not None and should_stop():
                return None
            if turn + world.rank >= len(starts):
                continue
            start = starts[turn + world.rank]
            tokens, targets = validation_batch(file, config.seq_len, start, min(start + config.batch_size, last))
            with precision.autocast():
                found = model.losses(tokens.to(world.device), targets.to(world.device))
            losses += float(found.double().sum())
            count += int((targets >= 0).sum())
    finally:
        model.train()
    losses, tokens_seen = world.total([losses, float(count)])
    return Measurement(losses / tokens_seen, int(tokens_seen), first == 0 and last == file.windows(config.seq_len))


def combine(a: Measurement, b: Measurement, file: TokenFile) -> Measurement:
    """Return the measurement over both sets of windows, which must be disjoint."""
    num_tokens = a.num_tokens + b.num_tokens
    loss = (a.loss * a.num_tokens + b.loss * b.num_tokens) / num_tokens
    return Measurement(loss, num_tokens, num_tokens == file.num_tokens - 1)
