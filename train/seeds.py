"""Random streams: one per purpose, each a pure function of the run's seed and the purpose's name.

Streams never share state, so two arms of a study that differ in one stream's use (say, how Q/K are drawn) agree in all
others, and a resumed run has no generator state to restore.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the step of the SplitMix64 generator


def stream_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called by these names, e.g. ``stream_seed(42, "dropout", step, 0)``."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *names: object) -> torch.Generator:
    """Return a CPU generator for the stream: initial weights are the same on every device."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


def draw_offsets(seed: int, step: int, count: int, limit: int) -> np.ndarray:
    """Return ``count`` integers [count] in [0, limit), int64: a pure function of the arguments in any NumPy."""
    offsets: np.ndarray = (splitmix64(stream_seed(seed, "data", step), count) % np.uint64(limit)).astype(np.int64)
    return offsets


def splitmix64(start: int, count: int) -> np.ndarray:
    """Return the first ``count`` numbers [count], uint64, of the SplitMix64 generator in state ``start``.

    (Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014.)
    """
    with np.errstate(over="ignore"):
        z: np.ndarray = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return z
