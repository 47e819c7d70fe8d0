"""The network: a pre-norm GPT with learned or rotary positions and tied embeddings, and OELM, its twin with other Q/K.

Shapes, here and in every comment:

    B  sequences        D  d_model              V  vocab_size
    T  tokens in each   H  heads                P  padded vocabulary: V rounded up, so that GPUs work in whole tiles
    F  d_ff             K  head width, D / H

    token ids [B, T] -> embeddings [B, T, D] -> blocks [B, T, D] -> logits [B, T, P], of which [..., :V] count
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import CausalSelfAttention, rotation_table
from .config import TrainConfig
from .cross_entropy import Softmax, linear_cross_entropy, softmax, token_losses
from .freezing import freezing, is_qk
from .initialization import initialize
from .linear import linear


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

    def __init__(self, config: TrainConfig, splits_qk: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.d_model)
        self.attn = CausalSelfAttention(config, splits_qk)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.ffn = FeedForward(config)

    def forward(self, x: Tensor, rotation: Optional[Tensor] = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        x = x + self.ffn(self.norm2(x))
        return x


class Transformer(nn.Module):
    """The language model. ``model(tokens, targets)`` is the training loss, ``model.logits(tokens)`` the prediction."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Parameter(torch.empty(padded_vocab_size(config.vocab_size), config.d_model))  # [P, D], tied
        self.positions = None  # [T, D]
        if config.position == "learned":
            self.positions = nn.Parameter(torch.empty(config.seq_len, config.d_model))
        self._freezing = freezing(config)
        self.blocks = nn.ModuleList([Block(config, self._freezing.splits(i)) for i in range(config.num_layers)])
        self.norm = nn.LayerNorm(config.d_model)
        self.softmax: Softmax = softmax
        """That of the output head; whoever compiles the blocks puts a compiled one here."""
        initialize(self, config)
        if not self._freezing.after:
            self.freeze()

    def freeze(self) -> None:
        """Take no gradients any more of what the configuration freezes."""
        for name, parameter in self.named_parameters():
            if self._freezing.covers(name):
                parameter.requires_grad_(False)

    def hidden(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] -> normalised residual stream [B, T, D]."""
        config, length = self.config, tokens.shape[1]
        x, rotation = F.embedding(tokens, self.tokens), None
        if self.positions is None:
            rotation = rotation_table(length, config.d_model // config.num_heads, x.device)
        else:
            x = x + self.positions[:length]
        x = F.dropout(x, config.dropout, self.training)
        for block in self.blocks:
            x = block(x, rotation)
        normalised: Tensor = self.norm(x)
        return normalised

    def forward(self, tokens: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
        """Return ``scale`` times the mean cross-entropy (nats) over [B, T] targets; a scalar."""
        x = self.hidden(tokens).flatten(0, 1)  # [BT, D]
        return linear_cross_entropy(x, self.tokens, targets.flatten(), self.config.vocab_size, scale, self.softmax)

    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy (nats) of each target [B, T], without gradient; ignored targets give zero."""
        x = self.hidden(tokens).flatten(0, 1)
        return token_losses(x, self.tokens, targets.flatten(), self.config.vocab_size, self.softmax).view_as(targets)

    def logits(self, tokens: Tensor, last: Optional[int] = None) -> Tensor:
        """Return the logits [B, T, V], or [B, last, V] of the last positions alone."""
        x = self.hidden(tokens)
        x = x if last is None else x[:, -last:]
        return F.linear(x, self.tokens[: self.config.vocab_size])

    def qk_parameters(self) -> Iterator[Tuple[str, nn.Parameter]]:
        """Yield the names and parameters of each layer's Q/K projection: one [2D, D], or two [D, D]."""
        return ((name, p) for name, p in self.named_parameters() if is_qk(name))

    def layers(self) -> List[Dict[str, Any]]:
        """Return name, size and trained size of each parameter; padding rows of the vocabulary are not counted."""
        found = []
        for name, parameter in self.named_parameters():
            size = self.config.vocab_size * self.config.d_model if name == "tokens" else parameter.numel()
            found.append({"name": name, "total": size, "trainable": size if parameter.requires_grad else 0})
        return found

    def count_parameters(self) -> Dict[str, int]:
        """Return the numbers of parameters by kind."""
        sizes = {layer["name"]: layer["total"] for layer in self.layers()}
        total, trainable = sum(sizes.values()), sum(layer["trainable"] for layer in self.layers())
        return {
            "total": total,
            "trainable": trainable,
            "frozen": total - trainable,
            "qk": sum(sizes[name] for name, _ in self.qk_parameters()),
            "embedding": sizes["tokens"] + sizes.get("positions", 0),
        }


def padded_vocab_size(vocab_size: int) -> int:
    """Return P: a multiple of 64 for real vocabularies, of 8 for small ones, where 64 would be most of the work."""
    tile = 64 if vocab_size >= 1024 else 8
    return -(-vocab_size // tile) * tile
