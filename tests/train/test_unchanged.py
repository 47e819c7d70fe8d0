"""What the reference arms have always been: counts, costs, checkpoints, and every loss to the bit.

Bits of floating-point numbers differ between processors, so none are kept in a file: the network, its initial weights,
its data and its steps are written out here once more, in the order of operations that results were published with.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from oelm_jobs.folders import study_files
from oelm_jobs.study import resolve
from oelm_jobs.study.files import load_study
from oelm_jobs.targets.files import LOCAL
from tests.golden import compare_json
from tests.support import REPOSITORY
from tests.train.support import metrics, train_here, write_tokens
from train import config as configuration
from train import estimate
from train.checkpoint import load_checkpoint
from train.config import TrainConfig, keys_of_kind
from train.cross_entropy import linear_cross_entropy, token_losses
from train.flops import flops_per_token
from train.linear import linear, product
from train.model import Transformer

DEMO = TrainConfig(
    d_model=128, num_layers=4, num_heads=4, d_ff=512, seq_len=64, vocab_size=1024, dropout=0.0, batch_size=16,
    max_steps=5, warmup_steps=2, max_lr=2e-3, min_lr=2e-4, log_interval=1, val_interval=5, val_batches=2, keep_every=0,
)  # fmt: skip
ARMS = {
    "gpt": DEMO,
    "no_freeze": replace(DEMO, model_type="oelm"),
    "freeze": replace(DEMO, model_type="oelm", freeze_qk=True),
    "freeze_ffn": replace(DEMO, model_type="oelm", freeze_ffn=True, qk_init="orthogonal"),
    "scaled": replace(DEMO, model_type="oelm", freeze_qk=True, qk_init="normal_scaled"),
}


class Straight:
    """The network written out: parameters by name, in the order in which they are drawn, updated and saved."""

    def __init__(self, config: TrainConfig) -> None:
        d, f = config.d_model, config.d_ff
        shapes: dict[str, tuple[int, ...]] = {"tokens": (config.vocab_size, d), "positions": (config.seq_len, d)}
        for layer in range(config.num_layers):
            for name, shape in {
                "norm1.weight": (d,), "norm1.bias": (d,), "attn.qk": (2 * d, d), "attn.v": (d, d),
                "attn.out.weight": (d, d), "norm2.weight": (d,), "norm2.bias": (d,), "ffn.up.weight": (f, d),
                "ffn.up.bias": (f,), "ffn.down.weight": (d, f), "ffn.down.bias": (d,),
            }.items():  # fmt: skip
                shapes[f"blocks.{layer}.{name}"] = shape
        shapes |= {"norm.weight": (d,), "norm.bias": (d,)}
        self.config = config
        self.p = {name: self.drawn(name, shape) for name, shape in shapes.items()}
        for name, parameter in self.p.items():
            frozen = (config.freeze_qk and name.endswith(".attn.qk")) or (config.freeze_ffn and ".ffn." in name)
            parameter.requires_grad_(not frozen)

    def drawn(self, name: str, shape: tuple[int, ...]) -> Tensor:
        config, d = self.config, self.config.d_model
        if len(shape) == 1:
            return torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
        if name.endswith("attn.qk") and config.model_type == "oelm":
            source = stream(config.seed, "qk", name)
            if config.qk_init == "normal_scaled":
                return torch.randn(*shape, generator=source) / math.sqrt(d)
            rows = d // config.num_heads if config.qk_init == "orthogonal_head" else d
            blocks = []
            for _ in range(2 * d // rows):
                q, r = torch.linalg.qr(torch.randn(d, rows, generator=source, dtype=torch.float64))
                blocks.append((q * torch.sign(torch.diagonal(r))).t().float())
            return torch.cat(blocks)
        into_stream = name.endswith(("attn.out.weight", "ffn.down.weight"))
        std = 0.02 / math.sqrt(2 * config.num_layers) if into_stream else 0.02
        return torch.empty(shape).normal_(0.0, std, generator=stream(config.seed, "weights", name))

    def hidden(self, tokens: Tensor) -> Tensor:
        config, p = self.config, self.p
        B, T, d = *tokens.shape, config.d_model
        x = F.embedding(tokens, p["tokens"]) + p["positions"][:T]
        for layer in range(config.num_layers):
            w = {name.split(".", 2)[2]: value for name, value in p.items() if name.startswith(f"blocks.{layer}.")}
            h = F.layer_norm(x, (d,), w["norm1.weight"], w["norm1.bias"])
            if w["attn.qk"].requires_grad:
                qkv = linear(h, torch.cat((w["attn.qk"], w["attn.v"])))
            else:
                qkv = FrozenQK.apply(h, w["attn.qk"], w["attn.v"])  # type: ignore[no-untyped-call]  # not typed in torch
            q, k, v = qkv.view(B, T, 3, config.num_heads, -1).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + linear(y.transpose(1, 2).reshape(B, T, d), w["attn.out.weight"])
            h = F.layer_norm(x, (d,), w["norm2.weight"], w["norm2.bias"])
            h = F.gelu(linear(h, w["ffn.up.weight"], w["ffn.up.bias"]))
            x = x + linear(h, w["ffn.down.weight"], w["ffn.down.bias"])
        return F.layer_norm(x, (d,), p["norm.weight"], p["norm.bias"]).flatten(0, 1)

    def train(self, tokens: np.ndarray) -> list[float]:
        """Make all steps; return the loss of each."""
        config = self.config
        trained = [p for p in self.p.values() if p.requires_grad]
        decayed, others = ([p for p in trained if (p.dim() >= 2) is is_matrix] for is_matrix in (True, False))
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        fused = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 4)
        optimizer = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=fused)
        losses = []
        for step in range(1, config.max_steps + 1):
            batch = torch.from_numpy(tokens[windows(config, step, tokens.size)].astype(np.int64))
            targets = batch[:, 1:].flatten()
            loss = linear_cross_entropy(self.hidden(batch[:, :-1]), self.p["tokens"], targets, config.vocab_size, 1.0)
            loss.backward()  # type: ignore[no-untyped-call]  # not typed in torch
            progress = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
            cosine = config.min_lr + 0.5 * (config.max_lr - config.min_lr) * (1 + math.cos(math.pi * progress))
            for group in optimizer.param_groups:
                rises = step <= config.warmup_steps
                group["lr"] = config.max_lr * step / config.warmup_steps if rises else cosine
            torch.nn.utils.clip_grad_norm_([*decayed, *others], config.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def val_loss(self, tokens: np.ndarray) -> float:
        """Return the loss over a whole file, a batch of windows at a time as the trainer cuts it."""
        config = self.config
        length, total = config.seq_len, 0.0
        count = -(-(tokens.size - 1) // length)
        inputs, targets = (torch.full((count * length,), filler) for filler in (0, -1))
        inputs[: tokens.size] = torch.from_numpy(tokens.astype(np.int64))[: count * length]
        targets[: tokens.size - 1] = torch.from_numpy(tokens.astype(np.int64))[1:]
        first = config.val_batches * config.batch_size
        sums = []
        for start, end in ((0, first), (first, count)):
            total = 0.0
            for at in range(start, end, config.batch_size):
                rows = slice(at * length, min(at + config.batch_size, end) * length)
                hidden = self.hidden(inputs[rows].view(-1, length))
                total += float(token_losses(hidden, self.p["tokens"], targets[rows], config.vocab_size).double().sum())
            n = int((targets[start * length : end * length] >= 0).sum())
            sums.append((total / n, n))
        (a, a_n), (b, b_n) = sums
        return (a * a_n + b * b_n) / (a_n + b_n)


class FrozenQK(torch.autograd.Function):
    """One product forwards, and backwards none for the gradient to Q/K."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, qk: Tensor, v: Tensor) -> Tensor:
        packed = torch.cat((qk, v))
        ctx.save_for_backward(x, packed)
        return product(x, packed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, packed), (grad,) = ctx.saved_tensors, grads
        d = packed.shape[1]
        return product(grad, packed.t()), None, grad[..., 2 * d :].reshape(-1, d).t() @ x.reshape(-1, d)


def stream(seed: int, *names: str) -> torch.Generator:
    digest = hashlib.blake2b("/".join([str(seed), *names]).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def windows(config: TrainConfig, step: int, num_tokens: int) -> np.ndarray:
    """The places [batch_size, seq_len + 1] of a step's tokens: SplitMix64 from a seed of the step's own."""
    digest = hashlib.blake2b(f"{config.seed}/data/{step}".encode(), digest_size=8).digest()
    state, offsets = int.from_bytes(digest, "little") >> 1, []
    for number in range(1, config.batch_size + 1):
        z = (state + number * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        offsets.append((z ^ (z >> 31)) % (num_tokens - config.seq_len))
    return np.array(offsets)[:, None] + np.arange(config.seq_len + 1)


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_every_loss_and_weight_of_an_arm_is_the_straight_networks_to_the_bit(arm: str, tmp_path: Path) -> None:
    path = write_tokens(tmp_path, train_tokens=20_000, val_tokens=4_000, vocab_size=DEMO.vocab_size)
    config = replace(ARMS[arm], data_path=str(path), out_dir=str(tmp_path / "run"))
    assert train_here(config) == 0
    straight = Straight(config)
    records = metrics(config)
    assert straight.train(np.fromfile(path, dtype="<u2")) == [records[step]["loss"] for step in sorted(records)]
    assert straight.val_loss(np.fromfile(path.with_name("val.bin"), dtype="<u2")) == records[5]["val_loss"]
    saved = load_checkpoint(str(tmp_path / "run" / "checkpoint_5.pt"))
    assert list(saved["model"]) == list(straight.p)
    for name, value in saved["model"].items():
        assert torch.equal(value, straight.p[name]), name


@pytest.mark.parametrize("arm", ARMS)
def test_initial_weights_are_drawn_as_they_always_were(arm: str) -> None:
    drawn, straight = dict(Transformer(ARMS[arm]).named_parameters()), Straight(ARMS[arm]).p
    assert list(drawn) == list(straight)
    for name, value in straight.items():
        assert torch.equal(drawn[name], value) and drawn[name].requires_grad is value.requires_grad, name


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_checkpoint_holds_what_it_always_held(arm: str, tmp_path: Path) -> None:
    path = write_tokens(tmp_path, vocab_size=64)
    small = replace(ARMS[arm], d_model=16, num_layers=2, num_heads=2, d_ff=24, seq_len=8, vocab_size=64, batch_size=2)
    config = replace(small, max_steps=1, warmup_steps=0, data_path=str(path), out_dir=str(tmp_path / "run"))
    assert train_here(config) == 0
    saved = load_checkpoint(str(tmp_path / "run" / "checkpoint_1.pt"))
    for entry in saved["treatment"]["groups"].values():
        assert len(entry.pop("sha256_start")) == 64
    assert saved["treatment"].pop("qk_orthogonality_error") >= 0
    state = saved["optimizer"]["state"]
    found = {
        "model": [f"{name} {list(value.shape)}" for name, value in saved["model"].items()],
        "moments": [
            f"{list(state[place]['exp_avg'].shape)} {list(state[place]['exp_avg_sq'].shape)}" for place in state
        ],
        "groups": [f"{group['params']} {group['weight_decay']}" for group in saved["optimizer"]["param_groups"]],
        "config": {key: value for key, value in saved["config"].items() if key in keys_of_kind("scientific")},
        **{key: saved[key] for key in ("version", "treatment", "global_batch", "fingerprint")},
    }
    compare_json(f"checkpoints/{arm}.json", found)


@pytest.mark.parametrize("name", [path.stem for path in study_files(REPOSITORY)])
def test_counts_and_costs_of_a_study_that_comes_along_stay_what_they_are(name: str) -> None:
    runs = resolve.plan_runs(load_study(REPOSITORY, name, warn=pytest.fail), replace(LOCAL, root="/project"))
    found = {}
    for run in runs:
        if run.trial is None:
            config = configuration.from_dict({key: value for key, value in run.settings.items() if value is not None})
            counts = estimate.parameter_counts(config)._asdict()
            costs = {"flops_per_token": flops_per_token(config), "disk": estimate.checkpoint_disk_bytes(config)}
            found[run.name] = {**counts, **costs, "hash": configuration.scientific_hash(config, run.global_batch)}
    compare_json(f"counts/{name}.json", found)
