"""Linear layers: the packed QKV projection that freezing makes cheaper, and the fastest product on a CPU.

Shapes: I inputs, O outputs, D d_model; [..., I] may have any leading dimensions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .environment import cpu_name


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Return x [..., I] @ weight [O, I].T + bias [O]."""
    if prefers_onednn(x):
        return _OneDNNLinear.apply(x, weight, bias)  # type: ignore[no-any-return,no-untyped-call]  # not typed in torch
    return F.linear(x, weight, bias)


def project_qkv(x: Tensor, *weights: Tensor) -> Tensor:
    """Project x [..., D] with matrices [rows, D], some of them frozen, to [..., sum of rows] in one product."""
    if not torch.is_grad_enabled() or all(weight.requires_grad for weight in weights):
        return linear(x, torch.cat(weights))
    return _PartlyFrozenProjection.apply(*autocast(x, *weights))  # type: ignore[no-any-return,no-untyped-call]  # not typed in torch


class _PartlyFrozenProjection(torch.autograd.Function):
    """``x @ [W1; W2; …]^T`` as one product forwards; backwards the products for frozen weights' gradients don't take
    place.

    The gradient to x passes through all of them: freezing a weight doesn't stop what flows through it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        """x [..., D], weights [rows, D] each -> [..., sum of rows]."""
        packed = torch.cat(weights)
        ctx.save_for_backward(x, packed)
        ctx.rows = [weight.shape[0] for weight in weights]
        return product(x, packed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, packed = ctx.saved_tensors
        found: List[Optional[Tensor]] = [product(grads[0], packed.t()) if ctx.needs_input_grad[0] else None]
        for part, is_trained in zip(torch.split(grads[0], ctx.rows, -1), ctx.needs_input_grad[1:]):
            flat = part.reshape(-1, part.shape[-1])  # [tokens, rows]
            found.append(flat.t() @ x.reshape(-1, x.shape[-1]) if is_trained else None)
        return tuple(found)


class _OneDNNLinear(torch.autograd.Function):
    """A linear layer by oneDNN, apart from the gradient to its weight, which the BLAS computes faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        """x [..., I], weight [O, I], bias [O] -> [..., O]."""
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        grad_x = product(grad, weight.t()).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_weight = grad.t() @ x.reshape(-1, weight.shape[1]) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None


def product(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Return x [..., I] @ weight [O, I].T + bias [O], without gradient on the way through oneDNN."""
    if prefers_onednn(x):
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return F.linear(x, weight, bias)


def prefers_onednn(x: Tensor) -> bool:
    """Tell whether a product with x is faster by oneDNN than by the BLAS: in fp32 on AMD's processors.

    There MKL, PyTorch's BLAS, reaches 80-90 % of oneDNN's speed. The operator is the one that torch.compile generates.
    """
    if is_compiling() or x.dtype != torch.float32 or x.device.type != "cpu":
        return False
    return _has_onednn() and _autocast_dtype("cpu") is None


@lru_cache(maxsize=1)
def _has_onednn() -> bool:
    """Tell whether the operator is there and does what it should: it is PyTorch's own and may change with versions."""
    if "AMD" not in cpu_name():
        return False
    x, weight, bias = torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)
    try:
        found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    except Exception:  # absent, or with other arguments, as in PyTorch 2.0
        return False
    return bool(torch.equal(found, torch.full((2, 4), 4.0)))


def is_compiling() -> bool:
    """Tell whether torch.compile is tracing this call, or may be; it finds its own way to the fastest product."""
    asked = getattr(getattr(torch, "compiler", None), "is_compiling", None)  # before PyTorch 2.2 there is no telling
    return True if asked is None else bool(asked())


def autocast(*tensors: Tensor) -> Tuple[Tensor, ...]:
    """Cast as autocast would for a matrix product; custom functions and in-place code are not cast for us."""
    dtype = _autocast_dtype(tensors[0].device.type)
    return tensors if dtype is None else tuple(t.to(dtype) for t in tensors)


def _autocast_dtype(device: str) -> Optional[torch.dtype]:
    """Return the type that autocast now gives to matrix products on a kind of device; None outside of autocast."""
    if device not in ("cpu", "cuda"):
        return None
    if hasattr(torch, "get_autocast_dtype"):  # from PyTorch 2.4
        return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    if device == "cuda":
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else None
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else None
