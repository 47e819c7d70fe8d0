"""The network: its counts, its first loss, what a token sees, and gradients equal to a plain implementation's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.support import TINY
from train import cross_entropy, estimate
from train import linear as linear_module
from train.config import TrainConfig
from train.cross_entropy import linear_cross_entropy, token_losses
from train.flops import flops_per_token
from train.initialization import orthogonality_error
from train.linear import linear, project_qkv
from train.model import Transformer, padded_vocab_size
from train.optimizer import build_optimizer, trainable_parameters

REFERENCE = TrainConfig(model_type="oelm", freeze_qk=True)
SMALL = replace(TINY, dropout=0.0)


def batch(config: TrainConfig, sequences: int = 3) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(
        config.vocab_size, (sequences, config.seq_len + 1), generator=torch.Generator().manual_seed(5)
    )
    return tokens[:, :-1], tokens[:, 1:]


def plain_loss(model: Transformer, tokens: Tensor, targets: Tensor) -> Tensor:
    """The network in the plainest words, on the model's own parameters: no packing, tiles, SDPA or own gradients."""
    config, p = model.config, dict(model.named_parameters())
    d, heads, length = config.d_model, config.num_heads, tokens.shape[1]
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    x = p["tokens"][tokens]
    if config.position == "learned":
        x = x + p["positions"][:length]
    for layer in range(config.num_layers):
        w = {name[len(f"blocks.{layer}.") :]: value for name, value in p.items() if name.startswith(f"blocks.{layer}.")}
        h = F.layer_norm(x, (d,), w["norm1.weight"], w["norm1.bias"])
        queries, keys = (w["attn.q"], w["attn.k"]) if "attn.q" in w else w["attn.qk"].split(d)
        q, k, v = (
            (h @ weight.t()).view(*h.shape[:2], heads, d // heads).transpose(1, 2)
            for weight in (queries, keys, w["attn.v"])
        )
        if config.qk_norm:
            q, k = (x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() for x in (q, k))
        if config.position == "rope":
            turns = torch.stack([rotary_matrix(place, d // heads) for place in range(length)])  # [T, K, K]
            q, k = (torch.einsum("tij,bhtj->bhti", turns, x) for x in (q, k))
        scores = (q @ k.transpose(2, 3) / math.sqrt(d // heads)).masked_fill(future, float("-inf"))
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ w["attn.out.weight"].t()
        h = F.layer_norm(x, (d,), w["norm2.weight"], w["norm2.bias"])
        h = F.gelu(h @ w["ffn.up.weight"].t() + w["ffn.up.bias"])
        x = x + h @ w["ffn.down.weight"].t() + w["ffn.down.bias"]
    x = F.layer_norm(x, (d,), p["norm.weight"], p["norm.bias"])
    logits = x @ p["tokens"][: config.vocab_size].t()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def rotary_matrix(place: int, width: int) -> Tensor:
    """The rotation of a place [K, K] as Su et al. write it (arXiv:2104.09864, section 3.2.2, equation 15)."""
    matrix = torch.zeros(width, width, dtype=torch.float64)
    for i in range(width // 2):
        angle = place * 10_000 ** (-2 * i / width)
        matrix[2 * i, 2 * i] = matrix[2 * i + 1, 2 * i + 1] = math.cos(angle)
        matrix[2 * i, 2 * i + 1], matrix[2 * i + 1, 2 * i] = -math.sin(angle), math.sin(angle)
    return matrix.float()


def gradients(model: Transformer, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # not typed in torch
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_the_reference_configuration_has_its_published_counts() -> None:
    counts = Transformer(REFERENCE).count_parameters()
    assert counts == {
        "total": 44_896_768,
        "trainable": 41_751_040,
        "frozen": 3_145_728,
        "qk": 3_145_728,
        "embedding": 25_993_728,
    }


@pytest.mark.parametrize("ffn", [False, True])
@pytest.mark.parametrize("qk", [False, True])
def test_estimated_counts_equal_the_models_for_every_arm(qk: bool, ffn: bool) -> None:
    config = replace(SMALL, freeze_qk=qk, freeze_ffn=ffn)
    counts, guess = Transformer(config).count_parameters(), estimate.parameter_counts(config)
    assert (guess.total, guess.trainable, guess.qk, guess.embedding) == (
        counts["total"],
        counts["trainable"],
        counts["qk"],
        counts["embedding"],
    )


@pytest.mark.parametrize("vocab_size", [65, 4096, 50257])
def test_the_first_loss_is_that_of_guessing(vocab_size: int) -> None:
    config = replace(SMALL, d_model=64, vocab_size=vocab_size)
    with torch.no_grad():
        loss = Transformer(config)(*batch(config, 16))
    assert abs(float(loss) - math.log(vocab_size)) < 0.05


def test_a_later_token_never_changes_an_earlier_logit() -> None:
    model = Transformer(replace(SMALL, model_type="oelm")).eval()
    tokens, _ = batch(SMALL)
    with torch.no_grad():
        before = model.logits(tokens)
        for place in range(1, tokens.shape[1]):
            changed = tokens.clone()
            changed[:, place:] = (changed[:, place:] + 7) % SMALL.vocab_size
            after = model.logits(changed)
            assert torch.equal(before[:, :place], after[:, :place])
            assert not torch.equal(before[:, place], after[:, place])


@pytest.mark.parametrize("arm", ["gpt", "no_freeze", "freeze", "freeze_ffn", "freeze_all"])
def test_loss_and_gradients_equal_a_plain_implementation(arm: str) -> None:
    config = replace(
        SMALL,
        model_type="gpt" if arm == "gpt" else "oelm",
        freeze_qk=arm in ("freeze", "freeze_all"),
        freeze_ffn=arm in ("freeze_ffn", "freeze_all"),
    )
    model = Transformer(config)
    tokens, targets = batch(config)
    expected_loss = plain_loss(model, tokens, targets)
    expected = gradients(model, expected_loss)
    loss = model(tokens, targets)
    assert loss.item() == pytest.approx(expected_loss.item(), abs=1e-6)
    found = gradients(model, loss)
    assert found.keys() == expected.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("onednn", [False, True])
def test_a_linear_layer_is_the_same_by_either_library(onednn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "cpu_name", lambda: "AMD")
    linear_module._has_onednn.cache_clear()
    if onednn and not linear_module._has_onednn():
        pytest.skip("this PyTorch's oneDNN has no such operator")
    monkeypatch.setattr(linear_module, "_has_onednn", lambda: onednn)
    source = torch.Generator().manual_seed(3)
    x, weight, bias = (torch.randn(*shape, generator=source) for shape in ((2, 5, 8), (12, 8), (12,)))
    upstream = torch.randn(2, 5, 12, generator=source)
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    wanted = torch.autograd.grad(F.linear(*inputs), inputs, upstream)
    assert torch.allclose(linear(*inputs), F.linear(*inputs), atol=1e-6)
    for gradient, plain in zip(torch.autograd.grad(linear(*inputs), inputs, upstream), wanted, strict=True):
        assert torch.allclose(gradient, plain, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_gradient_to_the_input_passes_through_q_and_k_frozen_or_not(frozen: bool) -> None:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 8, generator=source).requires_grad_()
    qk, v = torch.randn(16, 8, generator=source, requires_grad=not frozen), torch.randn(8, 8, generator=source)
    upstream = torch.randn(2, 5, 24, generator=source)
    project_qkv(x, qk, v.requires_grad_()).backward(upstream)
    weights = torch.cat((qk, v)).detach()
    assert x.grad is not None and torch.allclose(x.grad, upstream @ weights, atol=1e-5)
    assert (qk.grad is None) is frozen
    assert v.grad is not None
    assert torch.allclose(v.grad, torch.einsum("bto,bti->oi", upstream[..., 16:], x), atol=1e-5)


@pytest.mark.parametrize("vocab_size", [61, 64, 130])
@pytest.mark.parametrize("tiles", [(64, 16), (1 << 24, 4096)])
def test_tiled_cross_entropy_equals_the_plain_one(
    vocab_size: int, tiles: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_entropy, "_CPU_TILES", cross_entropy._Tiles(strip_elements=tiles[0], columns=tiles[1]))
    source = torch.Generator().manual_seed(2)
    x = torch.randn(13, 8, generator=source).requires_grad_()
    weight = torch.randn(padded_vocab_size(vocab_size), 8, generator=source).requires_grad_()
    targets = torch.randint(vocab_size, (13,), generator=source)
    expected = F.cross_entropy(x @ weight[:vocab_size].t(), targets) * 0.5
    wanted = torch.autograd.grad(expected, (x, weight))
    loss = linear_cross_entropy(x, weight, targets, vocab_size, 0.5)
    found = torch.autograd.grad(loss * 3.0, (x, weight))
    assert torch.allclose(loss, expected, rtol=1e-6)
    for gradient, plain in zip(found, wanted, strict=True):
        assert torch.allclose(gradient, 3.0 * plain, rtol=1e-5, atol=1e-7)
    assert torch.count_nonzero(found[1][vocab_size:]) == 0
    each = token_losses(x, weight, targets, vocab_size)
    assert torch.allclose(each.mean() * 0.5, expected, rtol=1e-6)


def test_cross_entropy_survives_logits_that_underflow_a_probability() -> None:
    x = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]] + [[0.0]] * 5, requires_grad=True)
    targets = torch.tensor([1, 0])
    loss = linear_cross_entropy(x, weight, targets, 3)
    assert loss.item() == 400.0
    assert torch.allclose(torch.autograd.grad(loss, x)[0], torch.tensor([[1.0], [-1.0]]))


@pytest.mark.parametrize("frozen", [False, True])
def test_under_autocast_gradients_come_in_fp32_and_near_those_of_fp32(frozen: bool) -> None:
    config = replace(SMALL, freeze_qk=frozen)
    model = Transformer(config)
    tokens, targets = batch(config)
    exact = gradients(model, model(tokens, targets))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(tokens, targets)
        losses = model.losses(tokens, targets)
    assert loss.dtype == losses.dtype == torch.float32
    assert float(losses.mean()) == pytest.approx(loss.item(), abs=2e-2)
    for name, gradient in gradients(model, loss).items():
        assert gradient.dtype == torch.float32
        assert float((gradient - exact[name]).norm()) < 0.05 * float(exact[name].norm()) + 1e-4, name


@pytest.mark.parametrize("total", [8_192, 524_288])
def test_in_fp16_gradients_lose_nothing_before_the_scaler_acts(total: int) -> None:
    source = torch.Generator().manual_seed(6)
    rows, vocab_size, factor = 256, 1_030, 65_536.0  # the scaler's first
    x, weight = torch.randn(rows, 64, generator=source), torch.zeros(padded_vocab_size(vocab_size), 64)
    weight[:vocab_size] = 0.02 * torch.randn(vocab_size, 64, generator=source)
    targets = torch.randint(vocab_size // 2, (rows,), generator=source)  # the other half's gradients are tiny
    exact = [tensor.half().double().requires_grad_() for tensor in (x, weight)]
    share = rows / total  # of the batch, as one of its micro-batches has it
    plain = F.cross_entropy(exact[0] @ exact[1][:vocab_size].t(), targets) * share
    wanted_x, wanted_weight = torch.autograd.grad(plain, exact)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = linear_cross_entropy(x.requires_grad_(), weight.requires_grad_(), targets, vocab_size, share)
    found_x, found_weight = torch.autograd.grad(loss * factor, (x, weight))
    seen = vocab_size // 2
    for found, wanted, most in [
        (found_x, wanted_x, 1e-4),
        (found_weight[:seen], wanted_weight[:seen], 1e-4),
        (found_weight[seen:], wanted_weight[seen:], 2e-3),
    ]:
        assert float((found.double() / factor - wanted).norm() / wanted.norm()) < most


def test_in_fp16_the_sum_over_many_tokens_does_not_overflow() -> None:
    x = torch.full((40_000, 1), 8.0)  # 320,000 in sum
    weight = torch.tensor([[2.0], [0.0]] + [[0.0]] * 6)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = linear_cross_entropy(x, weight.requires_grad_(), torch.ones(40_000, dtype=torch.long), 2)
    assert torch.allclose(torch.autograd.grad(loss, weight)[0][:2], torch.tensor([[8.0], [-8.0]]), rtol=1e-2)


def test_arms_differ_in_q_and_k_alone() -> None:
    arms = {
        "gpt": replace(SMALL, model_type="gpt", freeze_qk=False),
        "no_freeze": replace(SMALL, freeze_qk=False),
        "freeze": SMALL,
        "freeze_ffn": replace(SMALL, freeze_ffn=True),
        "scaled": replace(SMALL, qk_init="normal_scaled"),
    }
    models = {name: dict(Transformer(config).named_parameters()) for name, config in arms.items()}
    for name, parameters in models.items():
        for key, value in parameters.items():
            if not key.endswith(".attn.qk"):
                assert torch.equal(value, models["gpt"][key]), (name, key)
    for key in ("blocks.0.attn.qk", "blocks.1.attn.qk"):
        assert torch.equal(models["freeze"][key], models["no_freeze"][key])
        assert not torch.equal(models["freeze"][key], models["gpt"][key])
        assert not torch.equal(models["freeze"][key], models["scaled"][key])


def test_another_seed_changes_every_matrix() -> None:
    one, other = Transformer(SMALL), Transformer(replace(SMALL, seed=43))
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        if a.dim() >= 2:
            assert not torch.equal(a, b), name


def test_q_and_k_are_drawn_as_asked() -> None:
    config = replace(SMALL, d_model=64, num_heads=4)
    qk = {
        kind: Transformer(replace(config, qk_init=kind)).blocks[0].attn.qk.detach()
        for kind in ("orthogonal_head", "orthogonal", "normal", "normal_scaled")
    }
    assert orthogonality_error(qk["orthogonal_head"], 16) < 1e-6
    assert orthogonality_error(qk["orthogonal"], 16) < 1e-6
    for half in qk["orthogonal"].split(64):
        assert torch.allclose(half @ half.t(), torch.eye(64), atol=1e-6)
    query = qk["orthogonal_head"][:64]
    assert float((query @ query.t() - torch.eye(64)).abs().max()) > 0.1  # heads are independent draws
    assert float(qk["normal"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(qk["normal_scaled"].std()) == pytest.approx(1 / 8, rel=0.05)
    assert orthogonality_error(qk["normal_scaled"], 16) > 0.1


def test_frozen_weights_are_parameters_without_gradient_and_unknown_to_the_optimizer() -> None:
    model = Transformer(replace(SMALL, freeze_ffn=True))
    assert list(model.buffers()) == []
    held = {id(p) for p in trainable_parameters(build_optimizer(model, SMALL))}
    for name, parameter in model.named_parameters():
        frozen = name.endswith(".attn.qk") or ".ffn." in name
        assert parameter.requires_grad is not frozen, name
        assert (id(parameter) in held) is not frozen, name


class CountedProducts(TorchDispatchMode):
    """Counts the FLOPs of the matrix products that really take place."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm", "addmm", "addmm_", "baddbmm"):
            a, b = args[-2:] if name not in ("addmm", "addmm_", "baddbmm") else args[1:3]
            self.flops += 2 * a.numel() * b.shape[-1]
        elif name in ("matmul", "linear") or "attention" in name:
            raise AssertionError(f"{name} hides its products from the count")
        return func(*args, **(kwargs or {}))


def counted_flops_per_token(config: TrainConfig) -> float:
    """Run a step on PyTorch's meta device, which has shapes and no numbers."""
    model = Transformer(config).to("meta")
    tokens = torch.zeros(1, config.seq_len, dtype=torch.long, device="meta")
    with sdpa_kernel(SDPBackend.MATH), CountedProducts() as counted:
        model(tokens, tokens).backward()
    return counted.flops / config.seq_len


@pytest.mark.slow
@pytest.mark.parametrize(("vocab_size", "least"), [(50257, 1.022), (4096, 1.045)])
def test_freezing_saves_the_flops_that_it_can(vocab_size: int, least: float) -> None:
    trained = replace(REFERENCE, freeze_qk=False, vocab_size=vocab_size, dropout=0.0)
    frozen = replace(trained, freeze_qk=True)
    counted = {config.freeze_qk: counted_flops_per_token(config) for config in (trained, frozen)}
    assert counted[False] / counted[True] >= least
    for config in (trained, frozen):
        padding = 6.0 * config.d_model * (padded_vocab_size(vocab_size) - vocab_size)
        assert counted[config.freeze_qk] == pytest.approx(flops_per_token(config) + padding, rel=1e-6)


def test_the_reference_costs_what_is_published() -> None:
    assert flops_per_token(replace(REFERENCE, freeze_qk=False)) == pytest.approx(286.5e6, rel=1e-4)
    assert flops_per_token(REFERENCE) == pytest.approx(280.2e6, rel=1e-4)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same_loss() -> None:
    pytest.importorskip("torch._inductor")
    model = Transformer(SMALL)
    tokens, targets = batch(SMALL)
    exact = gradients(model, model(tokens, targets))
    for block in model.blocks:
        block.forward = torch.compile(block.forward, backend="aot_eager")  # type: ignore[method-assign]  # in its place
    found = gradients(model, model(tokens, targets))
    assert found.keys() == exact.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, exact[name], rtol=1e-4, atol=1e-7), name
