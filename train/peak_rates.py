"""Peak rates of GPUs, against which a training's speed is held: its MFU, model FLOPs utilization.

Standard library only.
"""

from __future__ import annotations

import re
from typing import Dict, NamedTuple, Optional

from .config import TrainConfig
from .flops import flops_per_token


class Peak(NamedTuple):
    """Dense TFLOP/s of matrix products that are summed in fp32. Data sheets often give twice that, for sparse ones."""

    half: float
    """In bf16 and fp16."""
    tf32: Optional[float]
    """None where there are no such units."""
    fp32: Optional[float] = None
    """Told for cards without tf32 only, which train in it."""


_PEAKS: Dict[str, Peak] = {
    # Data sheets of V100 (1165301-r5), V100S and T4 (951643).
    r"V100-(SXM[23]|DGXS)-\d+GB(-LS)?": Peak(125.0, None, 15.7),
    r"V100-PCIE-\d+GB": Peak(112.0, None, 14.0),
    r"V100S-PCIE-\d+GB": Peak(130.0, None, 16.4),
    r"T4": Peak(65.0, None, 8.1),
    # A100 data sheet (1758950-r4), SXM and PCIe alike; data sheets of A10, A10G, A30, A40.
    r"A100-(SXM4|PCIE|PG509)(-\d+GB)?|A100[ -]80GB PCIe": Peak(312.0, 156.0),
    r"A10": Peak(125.0, 62.5),
    r"A10G": Peak(70.0, 35.0),
    r"A30": Peak(165.0, 82.0),
    r"A40": Peak(149.7, 74.8),
    # NVIDIA Ampere GA102 GPU architecture whitepaper, appendices: fp16 with fp32 accumulation.
    r"RTX 3090": Peak(71.2, 35.6),
    r"RTX 3090 Ti": Peak(80.0, 40.0),
    r"RTX A5000": Peak(111.1, 55.6),
    r"RTX A6000": Peak(154.8, 77.4),
    # Data sheets of L4 and L40, halved, and of L40S, which has both figures.
    r"L4": Peak(121.0, 60.0),
    r"L40": Peak(181.0, 90.5),
    r"L40S": Peak(362.0, 183.0),
    # NVIDIA Ada GPU architecture whitepapers (GeForce, professional), appendices: fp16 with fp32 accumulation.
    r"RTX 4090": Peak(165.2, 82.6),
    r"RTX 6000 Ada Generation": Peak(364.2, 182.1),
    # Data sheets of H100 (SXM, PCIe, NVL) and H200 (SXM, NVL), halved. A GH200 has the compute units of an H100 SXM.
    r"H100 80GB HBM3|H200|GH200 \d+GB": Peak(989.4, 494.7),
    r"H100 PCIe": Peak(756.0, 378.0),
    r"H100 NVL|H200 NVL": Peak(835.5, 417.5),
    # Data sheets of HGX B200 and GB200 NVL72, of one GPU, halved.
    r"B200": Peak(2250.0, 1125.0),
    r"GB200": Peak(2500.0, 1250.0),
    # NVIDIA RTX Blackwell GPU architecture whitepapers (GeForce, PRO), appendices: fp16 with fp32 accumulation.
    r"RTX 5090": Peak(209.5, 104.8),
    r"RTX PRO 6000 Blackwell Workstation Edition": Peak(503.8, 251.9),
}
"""By the name that CUDA gives a card, without the words that all cards of its maker have."""


def peak_flops(device_name: str, precision: str) -> Optional[float]:
    """Return the peak FLOP/s of a device by its name, in a precision of ``Precision.name``; None where it isn't known.

    A part of a card (MIG, a virtual GPU) and a card with another power limit have names of their own, and no rate.
    """
    model = re.sub(r"^(NVIDIA |Tesla |GeForce |Quadro )*", "", device_name)
    for pattern, peak in _PEAKS.items():
        if re.fullmatch(pattern, model):
            found = {"bf16": peak.half if peak.tf32 else None, "fp16": peak.half, "tf32": peak.tf32, "fp32": peak.fp32}
            rate = found.get(precision)
            return 1e12 * rate if rate else None
    return None


def mfu(
    config: TrainConfig,
    tokens_per_s: float,
    world_size: int,
    device_name: str,
    precision: str,
    step: Optional[int] = None,
) -> Optional[float]:
    """Return the part of its devices' peak rate that a training makes use of, from 0 to 1; None where that isn't known.

    Counted are the FLOPs that a step has to do (``flops``), by default the last one: a frozen weight's gradient isn't
    among them.
    """
    peak = peak_flops(device_name, precision)
    return tokens_per_s * flops_per_token(config, step) / (peak * world_size) if peak else None
