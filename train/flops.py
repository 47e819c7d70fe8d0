"""Count the FLOPs of a training step, which bound what freezing can gain.

Products of matrices count, with 2 FLOPs per multiply and add; attention counts in full, not its causal half (PaLM,
arXiv:2204.02311, appendix B). Standard library only.
"""

from __future__ import annotations

from typing import Optional

from .config import TrainConfig
from .freezing import freezing


def flops_per_token(config: TrainConfig, step: Optional[int] = None) -> float:
    """Return the FLOPs per token of a training step, numbered from 1; by default of the last one."""
    d, layers = config.d_model, config.num_layers
    ffn = 2 * d * config.d_ff
    weights = layers * (4 * d * d + ffn) + config.vocab_size * d
    frozen = freezing(config)
    is_late = step is None or step > frozen.after
    spared = frozen.total({"q": d * d, "k": d * d, "ffn": ffn}) if is_late else 0
    return training_flops(weights, spared, layers * d * config.seq_len)


def training_flops(weights: int, frozen: int, attention: int) -> float:
    """Return the FLOPs per token of training ``weights`` weights of products, ``frozen`` of them left as they are.

    A trained product costs 6 FLOPs per weight and token (forward, gradient to the input, gradient to the weight); a
    frozen one 4, since the gradient still flows through it; attention 12 · layers · width · length, of which
    ``attention`` is the product.
    """
    return 6.0 * weights - 2.0 * frozen + 12.0 * attention
