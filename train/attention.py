"""Causal self-attention, with learned or rotary positions. Shapes are those of ``model``."""

from __future__ import annotations

from functools import lru_cache
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TrainConfig
from .linear import linear, project_qkv

ROPE_BASE = 10_000.0
"""What the wavelengths of rotary positions are powers of (Su et al., arXiv:2104.09864, section 3.3)."""
NORM_EPSILON = 1e-6
"""Keeps the root mean square of a query or key off zero."""


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a token sees itself and what stands before it; no biases.

    Q and K are one parameter ``qk`` [2D, D] (Q's rows first), or ``q`` and ``k`` [D, D] where one of them alone is
    frozen; V is another, so that freezing leaves it to train. Frozen weights are parameters without gradient, never
    buffers: DDP would broadcast those every step.
    """

    def __init__(self, config: TrainConfig, splits_qk: bool) -> None:
        super().__init__()
        d = config.d_model
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qk_norm = config.qk_norm
        self.splits_qk = splits_qk
        if splits_qk:
            self.q, self.k = nn.Parameter(torch.empty(d, d)), nn.Parameter(torch.empty(d, d))
        else:
            self.qk = nn.Parameter(torch.empty(2 * d, d))
        self.v = nn.Parameter(torch.empty(d, d))
        self.out = nn.Linear(d, d, bias=False)

    def query_key(self) -> Tuple[nn.Parameter, ...]:
        """Return the parameters of the query and key projections, queries first."""
        return (self.q, self.k) if self.splits_qk else (self.qk,)

    def forward(self, x: Tensor, rotation: Optional[Tensor] = None) -> Tensor:
        """x [B, T, D], rotation [2, T, K/2] by ``rotation_table`` -> [B, T, D]."""
        B, T, D = x.shape
        qkv = project_qkv(x, *self.query_key(), self.v)  # [B, T, 3D]
        q, k, v = qkv.view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each [B, H, T, K]
        if self.qk_norm:
            q, k = normalised(q), normalised(k)
        if rotation is not None:
            q, k = rotated(q, rotation), rotated(k, rotation)
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)  # [B, H, T, K]
        y = linear(y.transpose(1, 2).reshape(B, T, D), self.out.weight)
        return F.dropout(y, self.dropout, self.training)


def normalised(x: Tensor) -> Tensor:
    """Return x [..., K] divided by its root mean square over K, computed in fp32; there is no gain to learn.

    Attention divides by sqrt(K) all the same, so scores stay within ± sqrt(K) and Q/K's scale has no say in them.
    (Henry et al., arXiv:2010.04245, with the norm of Zhang and Sennrich, arXiv:1910.07467.)
    """
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + NORM_EPSILON)).to(x.dtype)


@lru_cache(maxsize=16)
def rotation_table(length: int, head_width: int, device: torch.device) -> Tensor:
    """Return the cosines and sines [2, T, K/2] by which rotary positions turn each pair of a head's entries.

    Computed in double precision on the CPU, so that it is the same on every device.
    """
    rates = ROPE_BASE ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), rates)
    return torch.stack((angles.cos(), angles.sin())).float().to(device)


def rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Return x [B, H, T, K] with the pairs (0, 1), (2, 3), … of its last axis turned by ``rotation`` [2, T, K/2].

    (Su et al., arXiv:2104.09864, equation 34.)
    """
    cos, sin = rotation
    a, b = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)  # each [B, H, T, K/2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)
