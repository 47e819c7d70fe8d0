"""Owns the two products that autograd would make dearer than they are: the packed QKV projection and the output head
with its loss. It leaves to ``model`` where they stand and what their weights mean.

Shapes: N tokens, D d_model, V vocabulary, P padded vocabulary (P >= V).
"""

from __future__ import annotations

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1
"""A target with this value adds nothing to the loss."""

# A chunk of logits is written once and read four times: on a CPU it should stay in the last-level cache, on a GPU it
# only has to bound the memory peak (4,096 x 50,304 logits are 823 MB in fp32).
CHUNK_BYTES_CPU = 4 << 20
CHUNK_BYTES_GPU = 512 << 20


class _FrozenQKProjection(torch.autograd.Function):
    """``x @ [Wqk; Wv]^T`` as one product forwards; backwards the product for Wqk's gradient does not take place.

    The gradient to x passes through Wqk all the same: freezing a weight doesn't stop what flows through it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, qk: Tensor, v: Tensor) -> Tensor:
        """x [..., D], qk [2D, D], v [D, D] -> [..., 3D]."""
        packed = torch.cat((qk, v))
        ctx.save_for_backward(x, packed)
        return F.linear(x, packed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, packed = ctx.saved_tensors
        grad = grads[0]
        d = packed.shape[1]
        grad_x = grad @ packed if ctx.needs_input_grad[0] else None
        grad_v = grad[..., 2 * d :].reshape(-1, d).t() @ x.reshape(-1, d) if ctx.needs_input_grad[2] else None
        return grad_x, None, grad_v


def project_qkv(x: Tensor, qk: Tensor, v: Tensor) -> Tensor:
    """Project x [..., D] with qk [2D, D] and v [D, D] to [..., 3D] in one product, frozen or not."""
    if qk.requires_grad:
        return F.linear(x, torch.cat((qk, v)))
    return _FrozenQKProjection.apply(*_autocast(x, qk, v))  # type: ignore[no-any-return,no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    """Output head and cross-entropy in row chunks, gradients computed in the forward pass.

    The logits of all tokens never exist at once, nothing is recomputed, and each chunk is consumed while it is in the
    cache. (The idea is that of Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models",
    arXiv:2411.09009, and of Liger Kernel, arXiv:2410.10989.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, scale: float) -> Tensor:
        """x [N, D], weight [P, D], targets [N] -> scale * mean cross-entropy, a scalar in fp32."""
        want_x, want_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        x_low, weight_low = _autocast(x, weight)
        loss = x.new_zeros((), dtype=torch.float32)
        grad_x = torch.empty_like(x) if want_x else None
        grad_weight = torch.zeros_like(weight) if want_weight else None
        scale = scale / max(1, targets.numel())
        for rows in _chunks(x, weight):
            xs, goal = x_low[rows], targets[rows]
            losses, probs = _losses_and_probs(xs, weight_low, goal, vocab_size)
            loss += losses.sum()
            if grad_x is None and grad_weight is None:
                continue
            # d loss / d logits = probs - one_hot(target), computed in place.
            probs[torch.arange(goal.numel(), device=goal.device), goal] -= 1.0
            probs = probs.to(xs.dtype)
            if grad_x is not None:
                grad_x[rows] = (probs @ weight_low).mul_(scale)
            if grad_weight is not None:
                scaled = xs * scale
                if scaled.dtype == grad_weight.dtype:
                    grad_weight.addmm_(probs.t(), scaled)
                else:
                    grad_weight += probs.t() @ scaled
        ctx.grads = (grad_x, grad_weight)
        return loss * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tuple[Optional[Tensor], ...]:
        # The last references must go, or autograd copies the gradients instead of keeping them.
        (grad_x, grad_weight), ctx.grads = ctx.grads, None
        # Asking a GPU for the value would stall it; on a CPU the question saves a pass over both gradients.
        if grads[0].device.type != "cpu" or grads[0].item() != 1.0:
            grad_x = None if grad_x is None else grad_x.mul_(grads[0])
            grad_weight = None if grad_weight is None else grad_weight.mul_(grads[0])
        return grad_x, grad_weight, None, None, None


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, scale: float = 1.0) -> Tensor:
    """Return ``scale`` times the mean cross-entropy (nats) of x [N, D] @ weight[:vocab_size].T against targets [N].

    ``weight`` [P, D] may have padding rows behind ``vocab_size``; they take no part and get a gradient of zero.
    """
    return _LinearCrossEntropy.apply(x, weight, targets, vocab_size, scale)  # type: ignore[no-any-return,no-untyped-call]


@torch.no_grad()
def token_losses(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> Tensor:
    """Return the cross-entropy (nats) of every token [N] in fp32, zero where the target is ``IGNORED``."""
    x_low, weight_low = _autocast(x, weight)
    found = [
        _losses_and_probs(x_low[rows], weight_low, targets[rows].clamp(min=0), vocab_size)[0]
        for rows in _chunks(x, weight)
    ]
    return torch.cat(found).masked_fill(targets == IGNORED, 0.0)


def _losses_and_probs(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int) -> Tuple[Tensor, Tensor]:
    """Return the losses [n] and the softmax [n, P] of one chunk, both in fp32."""
    logits = x @ weight.t()
    if weight.shape[0] > vocab_size:
        logits[:, vocab_size:] = float("-inf")
    chosen = logits.gather(1, targets[:, None]).float()
    logits = logits.float()
    lse = torch.logsumexp(logits, 1)
    return lse - chosen[:, 0], torch.softmax(logits, 1)


def _chunks(x: Tensor, weight: Tensor) -> "list[slice]":
    """Cut N rows so that the logits of a chunk keep to the device's budget; no chunk is much smaller than another."""
    budget = CHUNK_BYTES_CPU if x.device.type == "cpu" else CHUNK_BYTES_GPU
    rows = max(1, budget // (4 * weight.shape[0]))
    count = -(-x.shape[0] // rows)
    size = -(-x.shape[0] // max(1, count))
    return [slice(start, min(start + size, x.shape[0])) for start in range(0, x.shape[0], max(1, size))]


def _autocast(*tensors: Tensor) -> Tuple[Tensor, ...]:
    """Cast as autocast would for a matrix product; custom functions and in-place code are not cast for us."""
    device = tensors[0].device.type
    if device == "cuda" and torch.is_autocast_enabled():
        return tuple(t.to(torch.get_autocast_gpu_dtype()) for t in tensors)
    if device == "cpu" and torch.is_autocast_cpu_enabled():
        return tuple(t.to(torch.get_autocast_cpu_dtype()) for t in tensors)
    return tensors
