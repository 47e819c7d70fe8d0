"""The network: a pre-norm GPT with learned positions and tied embeddings, and OELM, its twin with other Q/K.

Shapes, here and in every comment:

    B  sequences        D  d_model              V  vocab_size
    T  tokens in each   H  heads                P  padded vocabulary: V rounded up, so that GPUs work in whole tiles
    F  d_ff             K  head width, D / H

    token ids [B, T] -> embeddings [B, T, D] -> blocks [B, T, D] -> logits [B, T, P], of which [..., :V] count
"""

from __future__ import annotations

from typing import Dict, Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import TrainConfig
from .cross_entropy import linear_cross_entropy, token_losses
from .initialization import initialize
from .linear import linear, project_qkv


class CausalSelfAttention(nn.Module):
    """Multi-head attention in which a token sees itself and what stands before it; no biases.

    Q and K are one parameter ``qk`` [2D, D] (Q's rows first), V is another, so that freezing the first leaves the
    second to train. Frozen Q/K are parameters without gradient, never buffers: DDP would broadcast those every step.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.qk = nn.Parameter(torch.empty(2 * config.d_model, config.d_model))
        self.v = nn.Parameter(torch.empty(config.d_model, config.d_model))
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, D = x.shape
        qkv = project_qkv(x, self.qk, self.v)  # [B, T, 3D]
        q, k, v = qkv.view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # each [B, H, T, K]
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)  # [B, H, T, K]
        y = linear(y.transpose(1, 2).reshape(B, T, D), self.out.weight)
        return F.dropout(y, self.dropout, self.training)


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them: D -> F -> D."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(linear(x, self.up.weight, self.up.bias))
        return F.dropout(linear(h, self.down.weight, self.down.bias), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then feed-forward, each on a normalised copy of the residual stream and added to it."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model)
        self.attn = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.ffn(self.norm2(x))
        return x


class Transformer(nn.Module):
    """The language model. ``model(tokens, targets)`` is the training loss, ``model.logits(tokens)`` the prediction."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(padded_vocab_size(config.vocab_size), config.d_model))  # [P, D], tied
        self.positions = nn.Parameter(torch.empty(config.seq_len, config.d_model))  # [T, D]
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.d_model)
        initialize(self, config)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.ffn.requires_grad_(not config.freeze_ffn)
        for _, qk in self.qk_parameters():
            qk.requires_grad_(not config.freeze_qk)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] -> normalised residual stream [B, T, D]."""
        x = F.embedding(tokens, self.tokens) + self.positions[: tokens.shape[1]]
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        normalised: Tensor = self.norm(x)
        return normalised

    def forward(self, tokens: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
        """Return ``scale`` times the mean cross-entropy (nats) over [B, T] targets; a scalar."""
        x = self.hidden(tokens).flatten(0, 1)  # [BT, D]
        return linear_cross_entropy(x, self.tokens, targets.flatten(), self.config.vocab_size, scale)

    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy (nats) of each target [B, T], without gradient; ignored targets give zero."""
        x = self.hidden(tokens).flatten(0, 1)
        return token_losses(x, self.tokens, targets.flatten(), self.config.vocab_size).view_as(targets)

    def logits(self, tokens: Tensor, last: Optional[int] = None) -> Tensor:
        """Return the logits [B, T, V], or [B, last, V] of the last positions alone."""
        x = self.hidden(tokens)
        x = x if last is None else x[:, -last:]
        return F.linear(x, self.tokens[: self.config.vocab_size])

    def qk_parameters(self) -> Iterator[Tuple[str, nn.Parameter]]:
        """Yield the name and the parameter [2D, D] of each layer's Q/K projection."""
        return ((name, p) for name, p in self.named_parameters() if name.endswith(".attn.qk"))

    def count_parameters(self) -> Dict[str, int]:
        """Return the numbers of parameters by kind; padding rows of the vocabulary are not counted."""
        sizes = {name: self.parameter_size(name, p) for name, p in self.named_parameters()}
        trainable = {name for name, p in self.named_parameters() if p.requires_grad}
        total = sum(sizes.values())
        num_trainable = sum(sizes[name] for name in trainable)
        return {
            "total": total,
            "trainable": num_trainable,
            "frozen": total - num_trainable,
            "qk": sum(sizes[name] for name, _ in self.qk_parameters()),
            "embedding": sizes["tokens"] + sizes["positions"],
        }

    def parameter_size(self, name: str, parameter: Tensor) -> int:
        """Return the number of elements of a parameter that exist in the mathematical model."""
        return self.config.vocab_size * self.config.d_model if name == "tokens" else parameter.numel()


def padded_vocab_size(vocab_size: int) -> int:
    """Return P: a multiple of 64 for real vocabularies, of 8 for small ones, where 64 would be most of the work."""
    tile = 64 if vocab_size >= 1024 else 8
    return -(-vocab_size // tile) * tile
