"""The output head and its loss, computed tile by tile: the most expensive product of the network, and its memory peak.

Shapes: N tokens, D d_model, V vocabulary, P padded vocabulary (P >= V).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor

from .estimate import CPU_STRIP_ELEMENTS, GPU_STRIP_ELEMENTS
from .linear import autocast, product

IGNORED = -1
"""A target with this value adds nothing to the loss."""


@dataclass(frozen=True)
class _Tiles:
    """How the logits [N, V] are cut. A tile should stay in a CPU core's cache while it is made and normalised; a strip
    of tiles bounds the memory peak (4,096 x 50,257 logits are 823 MB in fp32)."""

    strip_elements: int
    """Logits that exist at once."""
    columns: int
    """Width of a tile."""


_CPU_TILES = _Tiles(strip_elements=CPU_STRIP_ELEMENTS, columns=4096)
_GPU_TILES = _Tiles(strip_elements=GPU_STRIP_ELEMENTS, columns=1 << 16)  # a GPU would rather have few large products

Softmax = Callable[[Tensor], Tuple[Tensor, Tensor]]
"""Makes of logits [n, V], of any precision, their softmax [n, V] in that precision and log-sum-exp [n] in fp32."""


def softmax(logits: Tensor) -> Tuple[Tensor, Tensor]:
    """Softmax and log-sum-exp by PyTorch's own kernels, in as few passes over the logits as they allow."""
    largest, where = logits.max(1, keepdim=True)
    whole = torch.softmax(logits, 1, dtype=torch.float32)  # a GPU converts fp16 on the way, bf16 before
    lse = largest.float() - whole.gather(1, where).log_()  # the largest probability is 1 / sum(exp(x - largest))
    return whole.to(logits.dtype), lse[:, 0]


def softmax_to_compile(logits: Tensor) -> Tuple[Tensor, Tensor]:
    """Do the same in steps that torch.compile joins into one kernel, which reads the logits and writes the softmax."""
    wide = logits.float()
    largest = wide.amax(1, keepdim=True)
    powers = (wide - largest).exp()
    total = powers.sum(1, keepdim=True)
    return (powers / total).to(logits.dtype), (largest + total.log())[:, 0]


class _LinearCrossEntropy(torch.autograd.Function):
    """Output head and cross-entropy tile by tile, with the gradients computed in the forward pass.

    The logits of all tokens never exist at once, nothing is recomputed, and no tile is visited again to be normalised:
    each is softmaxed by itself where it lies in the cache, and the factor that makes it a part of the whole softmax,
    one number per row and tile, goes into the small operands of the products that follow. (Gradients in the forward
    pass: Liger Kernel, arXiv:2410.10989; logits in tiles: Wijmans et al., arXiv:2411.09009; joining softmaxes by their
    log-sum-exp: Milakov and Gimelshein, arXiv:1805.02867.)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, scale: float, by: Softmax
    ) -> Tensor:
        """x [N, D], weight [P, D], targets [N] -> scale * mean cross-entropy, a scalar in fp32."""
        want_x, want_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        scale = scale / max(1, targets.numel())
        x_low, weight_low = autocast(x, weight)
        grad_x = torch.empty_like(x) if want_x else None
        grad_weight = torch.zeros_like(weight) if want_weight else None
        loss = x.new_zeros((), dtype=torch.float32)
        for rows in _strips(x.shape[0], vocab_size, x.device):
            strip, goal = x_low[rows], targets[rows]
            tiles, lses = _softmax_tiles(strip, weight_low, vocab_size, by, keep=want_x or want_weight)
            lse = torch.logsumexp(lses, 1)  # [n]
            goal_weight = weight_low[goal]  # [n, D]
            loss += (lse - (strip * goal_weight).sum(1, dtype=torch.float32)).sum()
            # d loss / d logits = scale * (softmax - one_hot); a tile's softmax times its share is the whole's.
            shares = (lses - lse[:, None]).exp_()  # [n, tiles]
            factors = shares * scale
            if grad_x is not None:
                torch.mul(goal_weight.to(grad_x.dtype), -scale, out=grad_x[rows])
            for number, (columns, tile) in enumerate(tiles):
                share, factor = shares[:, number : number + 1], factors[:, number : number + 1]
                if grad_x is not None:
                    grad_x[rows].addcmul_(product(tile, weight_low[columns].t()), factor.to(grad_x.dtype))
                if grad_weight is None:
                    continue
                if tile.dtype == grad_weight.dtype:
                    grad_weight[columns].addmm_(tile.t(), strip * factor)
                else:
                    size = _balance(strip.shape[0])
                    summed = tile.t() @ (strip * (share * size)).to(tile.dtype)
                    grad_weight[columns].add_(summed, alpha=scale / size)
            if grad_weight is not None:
                _add_to_rows(grad_weight, goal, strip.to(grad_weight.dtype), -scale)
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
        return grad_x, grad_weight, None, None, None, None


def linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, scale: float = 1.0, by: Softmax = softmax
) -> Tensor:
    """Return ``scale`` times the mean cross-entropy (nats) of x [N, D] @ weight[:vocab_size].T against targets [N].

    ``weight`` [P, D] may have padding rows behind ``vocab_size``; they take no part and get a gradient of zero.
    ``by`` makes the softmax except where a CPU computes in fp32.
    """
    return _LinearCrossEntropy.apply(x, weight, targets, vocab_size, scale, by)  # type: ignore[no-any-return,no-untyped-call]  # not typed in torch


@torch.no_grad()
def token_losses(x: Tensor, weight: Tensor, targets: Tensor, vocab_size: int, by: Softmax = softmax) -> Tensor:
    """Return the cross-entropy (nats) of every token [N] in fp32, zero where the target is ``IGNORED``."""
    x_low, weight_low = autocast(x, weight)
    losses = torch.empty(x.shape[0], dtype=torch.float32, device=x.device)
    for rows in _strips(x.shape[0], vocab_size, x.device):
        _, lses = _softmax_tiles(x_low[rows], weight_low, vocab_size, by, keep=False)
        chosen = (x_low[rows] * weight_low[targets[rows].clamp(min=0)]).sum(1, dtype=torch.float32)
        losses[rows] = torch.logsumexp(lses, 1) - chosen
    return losses.masked_fill_(targets == IGNORED, 0.0)


def _add_to_rows(total: Tensor, rows: Tensor, values: Tensor, factor: float) -> None:
    """Add ``factor`` times values [n, D] to the rows [n] of a total [P, D]; a row may be named more than once."""
    if torch.are_deterministic_algorithms_enabled():
        # A GPU's index_add_ does the same then, but some versions of PyTorch wait for the GPU to check the row numbers.
        torch.ops.aten._index_put_impl_(total, [rows], values * factor, True, True)
    else:
        total.index_add_(0, rows, values, alpha=factor)


def _softmax_tiles(
    x: Tensor, weight: Tensor, vocab_size: int, by: Softmax, keep: bool
) -> Tuple[List[Tuple[slice, Tensor]], Tensor]:
    """Return the tiles of a strip, each softmaxed by itself, and each row's log-sum-exp in every tile.

    x [n, D], weight [P, D] -> [(columns, [n, width])], [n, tiles] in fp32; without ``keep`` the tiles are not kept.
    """
    width = (_CPU_TILES if x.device.type == "cpu" else _GPU_TILES).columns
    starts = range(0, vocab_size, width)
    lses = torch.empty(x.shape[0], len(starts), dtype=torch.float32, device=x.device)
    tiles: List[Tuple[slice, Tensor]] = []
    for number, start in enumerate(starts):
        # On a GPU the padding goes into the product, which likes whole tiles, and is cut off behind it.
        last = start + width >= vocab_size
        end = min(start + width, vocab_size)
        padded = weight.shape[0] if last and x.device.type != "cpu" else end
        if x.device.type == "cpu" and x.dtype == torch.float32:
            tile = _workspace(x.shape[0], end - start, number if keep else 0)
            torch.mm(x, weight[start:end].t(), out=tile)
            largest = tile.amax(1)
            torch.softmax(tile, 1, out=tile)  # row by row, so in place is safe
            lses[:, number] = largest - tile.amax(1).log_()  # the largest probability is 1 / sum(exp(x - largest))
        else:
            logits = x @ weight[start:padded].t()
            logits[:, end - start :] = float("-inf")
            tile, lses[:, number] = by(logits)
            end = padded
        if keep:
            tiles.append((slice(start, end), tile))
    return tiles, lses


_buffers: Dict[int, Tensor] = {}


def _workspace(rows: int, columns: int, number: int) -> Tensor:
    """Return a tile [rows, columns] of memory that stays: to get it anew each step costs a page fault per 4 kB.

    Its content is good until the next call with the same number, which comes with the next strip.
    """
    size = rows * columns
    if number not in _buffers or _buffers[number].numel() < size:
        _buffers[number] = torch.empty(size, dtype=torch.float32)
    return _buffers[number][:size].view(rows, columns)


def _balance(num_rows: int) -> float:
    """Return the power of two that makes a sum over N rows as large as one over 256: what fp16 can hold.

    fp16 ends at 65,504 and loses digits below 6e-5, and the mean over a batch of 524,288 tokens would be far below: so
    nothing is scaled before a product, and no sum overflows as long as x is below 255.
    """
    return math.ldexp(1.0, 8 - (num_rows - 1).bit_length())


def _strips(num_rows: int, vocab_size: int, device: torch.device) -> List[slice]:
    """Cut N rows into strips of equal size that keep to the device's budget of logits."""
    budget = (_CPU_TILES if device.type == "cpu" else _GPU_TILES).strip_elements
    count = -(-num_rows * vocab_size // budget)
    size = -(-num_rows // max(1, count))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, max(1, size))]
