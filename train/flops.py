"""Count the FLOPs of a training step, and name the peak of known devices: for MFU, and for the most that freezing can
gain.

Products of matrices count, with 2 FLOPs per multiply and add; attention counts in full, not its causal half (PaLM,
arXiv:2204.02311, appendix B). Standard library only.
"""

from __future__ import annotations

from typing import Optional

from .config import TrainConfig

# Dense TFLOP/s by the makers' data sheets; bf16 with fp32 accumulation, and tf32 (fp32 where there is none).
_PEAK_TFLOPS = {
    "A100": (312.0, 156.0),
    "H100": (989.0, 495.0),
    "RTX A5000": (111.1, 55.6),
    "RTX A6000": (154.8, 77.4),
    "RTX PRO 6000": (503.8, 251.9),
    "L40S": (362.0, 183.0),
    "V100": (125.0, 15.7),
    "RTX 3090": (71.2, 35.6),
    "RTX 4090": (165.2, 82.6),
}


def flops_per_token(config: TrainConfig) -> float:
    """Return the FLOPs of a training step per token."""
    d, layers = config.d_model, config.num_layers
    qk, ffn = 2 * d * d, 2 * d * config.d_ff
    weights = layers * (4 * d * d + ffn) + config.vocab_size * d
    frozen = layers * ((qk if config.freeze_qk else 0) + (ffn if config.freeze_ffn else 0))
    return training_flops(weights, frozen, layers * d * config.seq_len)


def training_flops(weights: int, frozen: int, attention: int) -> float:
    """Return the FLOPs per token of training ``weights`` weights of products, ``frozen`` of them left as they are.

    A trained product costs 6 FLOPs per weight and token (forward, gradient to the input, gradient to the weight); a
    frozen one 4, since the gradient still flows through it; attention 12 · layers · width · length, of which
    ``attention`` is the product.
    """
    return 6.0 * weights - 2.0 * frozen + 12.0 * attention


def peak_flops(device_name: str, precision: str) -> Optional[float]:
    """Return the peak FLOP/s of a device by its name; None where it is not known."""
    for name, (low, high) in _PEAK_TFLOPS.items():
        if name in device_name:
            return 1e12 * (low if precision in ("bf16", "fp16") else high)
    return None
