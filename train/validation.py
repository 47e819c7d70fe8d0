"""Measure the validation loss: a fixed set of sequences in fixed order, split over the processes.

The sequences are windows of the validation file from its start, so neither the step, nor the seed, nor the number of
processes changes what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from torch import Tensor

from .config import TrainConfig
from .cross_entropy import IGNORED
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
    whole_batches: bool = False,
) -> Optional[Measurement]:
    """Return the loss over windows [first, last), the same on all processes; None if ``should_stop`` said so.

    Collective. Groups of ``batch_size`` windows go round the processes; sums are kept in double precision.
    ``should_stop`` is collective too and asked after every group. ``whole_batches`` fills up the last group with
    windows that don't count: compiled blocks would be compiled again for a smaller one.
    """
    model.eval()
    # The sum stays on the device until the end: a GPU would be waited for after every group.
    losses, count = torch.zeros((), dtype=torch.float64, device=world.device), 0
    starts = list(range(first, last, config.batch_size))
    try:
        for turn in range(0, len(starts), world.size):
            if should_stop is not None and should_stop():
                return None
            if turn + world.rank >= len(starts):
                continue
            start = starts[turn + world.rank]
            end = start + config.batch_size
            tokens, targets = validation_batch(file, config.seq_len, start, end if whole_batches else min(end, last))
            targets[last - start :] = IGNORED
            with precision.autocast():
                found = model.losses(_sent(tokens, world.device), _sent(targets, world.device))
            losses += found.double().sum()
            count += int((targets >= 0).sum())
    finally:
        model.train()
    loss, tokens_seen = world.total([float(losses), float(count)])
    return Measurement(loss / tokens_seen, int(tokens_seen), first == 0 and last == file.windows(config.seq_len))


def _sent(batch: Tensor, device: torch.device) -> Tensor:
    """Return a batch on a device, without waiting for what that still has to do."""
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch.to(device)


def combine(a: Measurement, b: Measurement, file: TokenFile) -> Measurement:
    """Return the measurement over both sets of windows, which must be disjoint."""
    num_tokens = a.num_tokens + b.num_tokens
    loss = (a.loss * a.num_tokens + b.loss * b.num_tokens) / num_tokens
    return Measurement(loss, num_tokens, num_tokens == file.num_tokens - 1)
