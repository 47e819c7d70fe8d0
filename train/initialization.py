"""Draw initial weights, each parameter from a random stream of its own.

A stream depends on the seed and the parameter's name alone, so arms that draw Q/K differently have all other weights in
common, to the bit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .freezing import is_qk
from .seeds import generator

INIT_STD = 0.02
"""Standard deviation of GPT-2's initial weights (Radford et al. 2019)."""


@torch.no_grad()
def initialize(model: nn.Module, config: TrainConfig) -> None:
    """Fill all parameters of a ``Transformer``.

    Matrices: N(0, 0.02^2), those that write into the residual stream divided by sqrt(2 * layers) (Radford et al. 2019).
    Norms: one and zero. Biases: zero. Q/K of model_type oelm by ``config.qk_init``.
    """
    residual_std = INIT_STD / math.sqrt(2 * config.num_layers)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        if is_qk(name):
            attention, _, part = name.rpartition(".")
            drawn = draw_qk(config, f"{attention}.qk")
            parameter.copy_({"qk": drawn, "q": drawn[: config.d_model], "k": drawn[config.d_model :]}[part])
            continue
        source = generator(config.seed, "weights", name)
        if name == "tokens":
            parameter.zero_()  # the padding rows stay there: their gradient is zero as well
            parameter[: config.vocab_size].normal_(0.0, INIT_STD, generator=source)
            continue
        writes_residual = name.endswith(("attn.out.weight", "ffn.down.weight"))
        parameter.normal_(0.0, residual_std if writes_residual else INIT_STD, generator=source)


def draw_qk(config: TrainConfig, name: str) -> Tensor:
    """Return the query and key weights [2D, D] called by this name, the same whether they are one parameter or two.

    Model_type gpt and ``normal``: N(0, 0.02^2), as all matrices. ``orthogonal_head``: each head's [K, D] block has
    orthonormal rows; blocks are independent draws. ``orthogonal``: each of the two [D, D] matrices is orthogonal.
    ``normal_scaled``: N(0, 1/D), whose rows have length one on average: a control with orthogonality's scale alone.
    """
    d = config.d_model
    if config.model_type == "gpt" or config.qk_init == "normal":
        return torch.empty(2 * d, d).normal_(0.0, INIT_STD, generator=generator(config.seed, "weights", name))
    source = generator(config.seed, "qk", name)
    if config.qk_init == "normal_scaled":
        return torch.randn(2 * d, d, generator=source) / math.sqrt(d)
    block = d // config.num_heads if config.qk_init == "orthogonal_head" else d
    return torch.cat([draw_orthonormal_rows(block, d, source) for _ in range(2 * d // block)])


def draw_orthonormal_rows(rows: int, columns: int, source: torch.Generator) -> Tensor:
    """Return [rows, columns] with orthonormal rows, uniform over all such matrices; rows <= columns.

    QR of a Gaussian matrix; the signs of R's diagonal make the draw uniform (Mezzadri, arXiv:math-ph/0609050). Computed
    in double precision, so that rounding to fp32 is the only error.
    """
    gaussian = torch.randn(columns, rows, generator=source, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    rows_first: Tensor = (q * torch.sign(torch.diagonal(r))).t()
    return rows_first.float()


@torch.no_grad()
def orthogonality_error(weights: Tensor, head_width: int) -> float:
    """Return the largest entry of |W W^T - I| over the head blocks W [K, D] of query or key weights [n * K, D].

    Computed on the CPU: a resumed run doesn't ask, and both have to call a GPU's libraries in the same order.
    """
    blocks = weights.detach().cpu().double().view(-1, head_width, weights.shape[1])  # [n, K, D]
    gram = blocks @ blocks.transpose(1, 2)
    return float((gram - torch.eye(gram.shape[1], dtype=gram.dtype)).abs().max())
