"""What a reviewer asks: Q or K alone, some layers, or later; rotary positions, normalised Q/K, another data order."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.support import needs
from tests.train.support import TINY, Trainers, metrics, outcome, read_json, train_here
from tests.train.test_model import CountedProducts, batch, gradients, plain_loss
from tests.train.test_resume import LONG, assert_equal, assert_same_end, kill_after
from tests.train.test_stepping import ALONE, CPU, build, micro_batches
from train import estimate, evaluate, loop, sample
from train.attention import normalised, rotated, rotation_table
from train.checkpoint import load_checkpoint
from train.config import (
    FIELDS,
    LATER,
    ConfigError,
    TrainConfig,
    from_dict,
    from_flags,
    in_full,
    recorded,
    scientific_hash,
    to_dict,
    to_flags,
)
from train.data import TrainingBatches, open_tokens
from train.distributed import World
from train.flops import flops_per_token
from train.freezing import freezing
from train.limits import validate
from train.model import Transformer, padded_vocab_size
from train.optimizer import build_optimizer, trainable_parameters
from train.speed_trial import build_arm, read_arms

SMALL = replace(TINY, dropout=0.0, freeze_qk=False, num_layers=4)
QUESTIONS: dict[str, dict[str, Any]] = {
    "trained": {},
    "pair": {"freeze_qk": True},
    "q": {"freeze_q": True},
    "k": {"freeze_k": True},
    "lower": {"freeze_qk": True, "freeze_layers": "0-1"},
    "q_of_some": {"freeze_q": True, "freeze_layers": "0,3"},
    "k_and_ffn_of_one": {"freeze_k": True, "freeze_ffn": True, "freeze_layers": "2"},
    "ffn_of_some": {"freeze_ffn": True, "freeze_layers": "1-2"},
    "rope": {"position": "rope"},
    "rope_pair": {"position": "rope", "freeze_qk": True},
    "norm": {"qk_norm": True},
    "norm_rope_q": {"qk_norm": True, "position": "rope", "freeze_q": True},
    "gpt_rope": {"model_type": "gpt", "position": "rope"},
}


def asked(name: str, **changes: Any) -> TrainConfig:
    config = replace(SMALL, **QUESTIONS[name], **changes)
    validate(config)
    return config


def frozen_names(config: TrainConfig) -> set[str]:
    """What a configuration freezes, spelled out."""
    layers = {"0-1": [0, 1], "0,3": [0, 3], "2": [2], "1-2": [1, 2]}.get(config.freeze_layers, range(config.num_layers))
    parts = ["attn.qk"] * config.freeze_qk + ["attn.q"] * config.freeze_q + ["attn.k"] * config.freeze_k
    if config.freeze_ffn:
        parts += ["ffn.up.weight", "ffn.up.bias", "ffn.down.weight", "ffn.down.bias"]
    return {f"blocks.{layer}.{part}" for layer in layers for part in parts}


# Keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", LATER)
def test_a_younger_key_is_neither_recorded_nor_hashed_nor_told_at_its_default(key: str) -> None:
    other = {"position": "rope", "freeze_layers": "1", "freeze_from_step": 3, "data_seed": 7, "init_from": "w.pt"}.get(
        key, True
    )
    config, changed = TrainConfig(), replace(TrainConfig(), **{key: other})
    assert key not in to_dict(config) and f"--{key}" not in to_flags(config)
    assert to_dict(changed)[key] == other and f"--{key}" in to_flags(changed)
    assert scientific_hash(changed, 16) != scientific_hash(config, 16)
    assert scientific_hash(from_dict({key: FIELDS[key].default}), 16) == scientific_hash(config, 16)
    assert from_flags(to_flags(changed)) == changed and from_dict(to_dict(changed)) == changed
    assert recorded(in_full(to_dict(config))) == to_dict(config)


@pytest.mark.parametrize(("text", "layers"), [
    ("0-2", "0-2"), ("2,0,1", "0-2"), ("0, 1 ,5", "0-1,5"), ("3", "3"), ("0-1,1-2", "0-2"), ("4,0-1,2-3", "0-4"),
])  # fmt: skip
def test_layers_are_written_one_way(text: str, layers: str) -> None:
    config = from_flags(["--freeze-layers", text, "--model_type", "oelm", "--freeze_q"])
    assert config.freeze_layers == layers
    validate(config)


@pytest.mark.parametrize(("flags", "expected"), [
    ("--freeze_q", "freeze_q = true: only model_type oelm freezes Q/K"),
    ("--freeze_k", "freeze_k = true: only model_type oelm freezes Q/K"),
    ("--model_type oelm --freeze_qk --freeze_q", "freeze_q = true: freeze_qk = true freezes both already"),
    ("--model_type oelm --freeze_qk --freeze_k", "freeze_k = true: freeze_qk = true freezes both already"),
    ("--model_type oelm --freeze_q --freeze_k", "freeze_k = true: with freeze_q = true these are both"),
    ("--model_type oelm --freeze_layers 0-2", "freeze_layers = 0-2: nothing is frozen"),
    ("--model_type oelm --freeze_from_step 9", "freeze_from_step = 9: nothing is frozen"),
    ("--model_type oelm --freeze_qk --freeze_layers 0-6", "freeze_layers = 0-6: the last of 6 layers is 5"),
    ("--model_type oelm --freeze_qk --freeze_layers 5,0-4", "freeze_layers = 0-5: these are all layers"),
    ("--freeze_layers upper", "freeze_layers = upper: give layers counted from 0, as in 0-2,5, or all"),
    ("--freeze_layers 3-1", "freeze_layers = 3-1: give layers"),
    ("--freeze_layers 1,,2", "freeze_layers = 1,,2: give layers"),
    (f"--model_type oelm --freeze_qk --freeze_layers 0-{10**8}", "the last of 6 layers is 5"),
    ("--freeze_ffn --freeze_from_step 100000", "freeze_from_step = 100000: must be below max_steps = 100000"),
    ("--freeze_ffn --freeze_from_step -1", "freeze_from_step = -1: must not be negative"),
    ("--position rotary", "position = rotary: choose one of learned, rope"),
    ("--position rope --d_model 24 --num_heads 8", "position = rope: rotates pairs: d_model / num_heads = 3"),
    ("--data_seed -1", "data_seed = -1: must not be negative"),
    (f"--data_seed {2**63}", "must be below 2^63"),
    ("--data_seed many", "data_seed = many: must be a whole number"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused_by_the_key(flags: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(from_flags(flags.split()))
    assert expected in str(caught.value)


# Counts, costs and the network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUESTIONS)
def test_counts_are_those_of_the_tensors(name: str) -> None:
    config = asked(name)
    model = Transformer(config)
    counted = {key: p.numel() for key, p in model.named_parameters()}
    counted["tokens"] = config.vocab_size * config.d_model
    frozen = frozen_names(config)
    assert {key for key, p in model.named_parameters() if not p.requires_grad} == frozen
    counts = model.count_parameters()
    assert counts["total"] == sum(counted.values())
    assert counts["frozen"] == sum(counted[key] for key in frozen) == counts["total"] - counts["trainable"]
    assert counts["qk"] == 2 * config.num_layers * config.d_model**2
    assert counts["embedding"] == counted["tokens"] + counted.get("positions", 0)
    assert ("positions" in counted) is (config.position == "learned")
    guess = estimate.parameter_counts(config)
    assert guess._asdict() == {key: counts[key] for key in guess._fields}
    held = {id(p) for p in trainable_parameters(build_optimizer(model, config))}
    assert held == {id(p) for p in model.parameters() if p.requires_grad}
    assert list(model.buffers()) == []


def test_what_is_frozen_later_counts_as_trainable() -> None:
    config = asked("q_of_some", freeze_from_step=5)
    assert Transformer(config).count_parameters()["frozen"] == 0
    assert estimate.parameter_counts(config).trainable == estimate.parameter_counts(config).total


@pytest.mark.parametrize("name", QUESTIONS)
def test_the_flops_of_a_step_are_those_of_its_products(name: str) -> None:
    config = asked(name)
    model = Transformer(config).to("meta")
    tokens = torch.zeros(1, config.seq_len, dtype=torch.long, device="meta")
    with sdpa_kernel(SDPBackend.MATH), CountedProducts() as counted:
        model(tokens, tokens).backward()
    padding = 6.0 * config.d_model * (padded_vocab_size(config.vocab_size) - config.vocab_size)
    assert counted.flops / config.seq_len == pytest.approx(flops_per_token(config) + padding, rel=1e-9)


def test_a_step_before_the_freeze_costs_what_a_trained_one_does() -> None:
    late, never, always = asked("q_of_some", freeze_from_step=5), asked("trained"), asked("q_of_some")
    assert flops_per_token(late, 5) == flops_per_token(never) > flops_per_token(always)
    assert flops_per_token(late, 6) == flops_per_token(late) == flops_per_token(always)


@pytest.mark.parametrize("name", QUESTIONS)
def test_loss_and_gradients_equal_a_plain_implementation(name: str) -> None:
    config = asked(name)
    model = Transformer(config)
    tokens, targets = batch(config)
    wanted_loss = plain_loss(model, tokens, targets)
    wanted = gradients(model, wanted_loss)
    loss = model(tokens, targets)
    found = gradients(model, loss)
    assert loss.item() == pytest.approx(wanted_loss.item(), abs=1e-6)
    assert found.keys() == wanted.keys() == {key for key, p in model.named_parameters() if p.requires_grad}
    for key, gradient in found.items():
        assert torch.allclose(gradient, wanted[key], rtol=1e-4, atol=1e-7), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rope_pair", "norm", "norm_rope_q"])
def test_compiled_and_under_autocast_the_network_is_the_same(name: str) -> None:
    pytest.importorskip("torch._inductor")
    model = Transformer(asked(name))
    tokens, targets = batch(model.config)
    exact = gradients(model, model(tokens, targets))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gradients(model, model(tokens, targets))
    for block in model.blocks:
        block.forward = torch.compile(block.forward, backend="aot_eager")  # type: ignore[method-assign]  # in its place
    found = gradients(model, model(tokens, targets))
    assert found.keys() == rounded.keys() == exact.keys()
    for key, gradient in exact.items():
        assert torch.allclose(found[key], gradient, rtol=1e-4, atol=1e-7), key
        assert rounded[key].dtype == torch.float32
        assert float((rounded[key] - gradient).norm()) < 0.06 * float(gradient.norm()) + 1e-4, key


def test_rotary_scores_depend_on_how_far_apart_two_tokens_are_and_nothing_else() -> None:
    source = torch.Generator().manual_seed(4)
    q, k = (torch.randn(1, 1, 1, 8, generator=source).expand(1, 1, 32, 8) for _ in range(2))
    table = rotation_table(32, 8, CPU)
    scores = (rotated(q, table) @ rotated(k, table).transpose(2, 3))[0, 0]
    for distance in range(8):
        diagonal = scores.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-5), distance
    assert not torch.allclose(scores[0, 0], scores[1, 0], atol=1e-3)
    assert torch.allclose(rotated(q, table).norm(dim=-1), q.norm(dim=-1), atol=1e-5)
    half = rotated(q.to(torch.bfloat16), table)
    assert half.dtype == torch.bfloat16


def test_normalised_queries_and_keys_have_no_scale_and_scores_a_bound() -> None:
    config = asked("norm")
    model, other = Transformer(config), Transformer(config)
    with torch.no_grad():
        for _, parameter in other.qk_parameters():
            parameter.mul_(50.0)
    tokens, _ = batch(config)
    with torch.no_grad():
        assert torch.allclose(model.logits(tokens), other.logits(tokens), atol=1e-4)
    width = config.d_model // config.num_heads
    x = 30 * torch.randn(2, 3, 5, width, generator=torch.Generator().manual_seed(2))
    scores = normalised(x) @ normalised(x).transpose(2, 3) / width**0.5  # the scale that attention has
    assert float(scores.abs().max()) == pytest.approx(width**0.5, rel=1e-4)


def test_q_and_k_alone_begin_as_the_pair_does() -> None:
    for init in ("orthogonal_head", "orthogonal", "normal", "normal_scaled"):
        pair = dict(Transformer(asked("pair", qk_init=init)).named_parameters())
        for name in ("q", "k", "q_of_some", "norm_rope_q"):
            drawn = dict(Transformer(asked(name, qk_init=init)).named_parameters())
            for layer in range(SMALL.num_layers):
                own = [drawn.pop(f"blocks.{layer}.attn.{part}", None) for part in ("qk", "q", "k")]
                whole = torch.cat([part for part in own if part is not None])
                assert torch.equal(whole, pair[f"blocks.{layer}.attn.qk"])
            assert all(torch.equal(value, pair[key]) for key, value in drawn.items())


# Steps ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pair", "q", "k_and_ffn_of_one"])
def test_freezing_from_a_step_on_follows_a_plain_loop(name: str) -> None:
    config = asked(name, freeze_from_step=3, batch_size=2, gradient_accumulation_steps=2, max_steps=8)
    model, stepper = build(config)
    plain = Transformer(config)
    frozen = frozen_names(config)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if (p.dim() >= 2) is decays], "weight_decay": decay}
            for decays, decay in ((True, config.weight_decay), (False, 0.0))
        ],
        betas=(config.beta1, config.beta2),
    )
    for step in range(1, 9):
        if step == 4:
            stepper.freeze()
            held = {key for key, p in model.named_parameters() if p in stepper.optimizer.state}
            assert held == {key for key, _ in model.named_parameters()} - frozen, (
                "no moments are kept of what is frozen"
            )
            kept = {key: p.detach().clone() for key, p in model.named_parameters() if key in frozen}
        batches = micro_batches(config, step)
        stepper.step(step, batches)
        whole = torch.cat(batches)
        optimizer.zero_grad()
        plain_loss(plain, whole[:, :-1], whole[:, 1:]).backward()  # type: ignore[no-untyped-call]  # not typed in torch
        for key, parameter in plain.named_parameters():
            if step > 3 and key in frozen:
                parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(list(plain.parameters()), config.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = stepper.optimizer.param_groups[0]["lr"]
        optimizer.step()
        assert stepper.newest_norm() == pytest.approx(norm.item(), rel=1e-4), step
    for (key, own), (_, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(own, theirs, atol=2e-5), key
        assert key not in frozen or torch.equal(own, kept[key])


@pytest.mark.parametrize("name", ["pair", "q"])
def test_what_is_frozen_later_goes_round_until_then_and_no_longer(name: str, group: World) -> None:
    config = asked(name, freeze_from_step=2, max_steps=9)
    model, stepper = build(config, group)
    alone_model, alone = build(config)
    everything = sum(p.numel() for p in model.parameters())
    frozen = sum(p.numel() for key, p in model.named_parameters() if key in frozen_names(config))
    for step in range(1, 6):
        if step == 3:
            stepper.freeze()
            alone.freeze()
        sent: list[int] = []

        def count(state, bucket, sent=sent):  # type: ignore[no-untyped-def]  # DDP refuses annotations in text
            sent.append(sum(gradient.numel() for gradient in bucket.gradients()))
            future = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        if step in (1, 3):
            stepper._wrapped.register_comm_hook(None, count)
            counted = sent
        counted.clear()
        for each in (stepper, alone):
            each.step(step, micro_batches(config, step))
        assert sum(counted) == everything - (frozen if step > 2 else 0)
    for (key, own), (_, theirs) in zip(model.named_parameters(), alone_model.named_parameters(), strict=True):
        assert torch.equal(own, theirs), key


def test_a_speed_trial_times_an_arm_as_it_is_once_frozen(tiny: TrainConfig) -> None:
    common = replace(tiny, freeze_qk=False)
    arms = read_arms(["late:freeze_k=true,freeze_layers=0,freeze_from_step=20", "some:freeze_layers=0,freeze_q=true",
                      "both:freeze_qk=true"], replace(common, num_layers=3, max_steps=40))  # fmt: skip
    assert (arms["late"].freeze_layers, arms["late"].freeze_from_step, arms["some"].freeze_q) == ("0", 20, True)
    spread = read_arms(["a:freeze_layers=0,2,freeze_q=true", "b:freeze_qk=true"], replace(common, num_layers=3))
    assert (spread["a"].freeze_layers, spread["a"].freeze_q) == ("0,2", True)
    timed = build_arm("late", arms["late"], ALONE).stepper.model
    assert not timed.blocks[0].attn.k.requires_grad and timed.blocks[0].attn.q.requires_grad


# Whole runs -----------------------------------------------------------------------------------------------------------

PROOFS = {
    "q": ({"q"}, {"k", "other"}),
    "k": ({"k"}, {"q", "other"}),
    "lower": ({"qk"}, {"qk_trained", "other"}),
    "q_of_some": ({"q"}, {"k", "qk_trained", "other"}),
    "k_and_ffn_of_one": ({"k", "ffn"}, {"q", "qk_trained", "other"}),
    "ffn_of_some": ({"ffn"}, {"qk", "other"}),
    "rope_pair": ({"qk"}, {"other"}),
    "norm": (set(), {"qk", "other"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("name", PROOFS)
def test_the_treatment_is_proved_by_hashes(name: str, after: int, tiny: TrainConfig) -> None:
    frozen, trained = PROOFS[name]
    late = {"freeze_from_step": after} if after and frozen else {}
    config = replace(tiny, freeze_qk=False, num_layers=4, max_steps=4)
    config = replace(config, **QUESTIONS[name], **late)
    validate(config)
    assert train_here(config) == 0
    proof = read_json(Path(str(config.out_dir)) / "treatment.json")
    assert proof["groups"].keys() == frozen | trained
    for part, entry in proof["groups"].items():
        assert entry["requires_grad"] is entry["in_optimizer"] is (part in trained)
        assert (entry["sha256_start"] == entry["sha256_end"]) is (part in frozen and not after)
        assert ("sha256_frozen" in entry) is (part in frozen and bool(after))
        if "sha256_frozen" in entry:
            assert entry["frozen_from_step"] == after
            assert entry["sha256_start"] != entry["sha256_frozen"] == entry["sha256_end"]
    for key in LATER:
        assert proof.get(key, FIELDS[key].default) == getattr(config, key)
    counts = proof["parameters"]
    assert counts == Transformer(config).count_parameters() == outcome(config)["parameters"]
    assert sum(layer["trainable"] for layer in proof["layers"]) == counts["trainable"]
    log = (Path(str(config.out_dir)) / "training.log").read_text()
    assert ("Frozen after step 2: " in log) is bool(late)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have SIGTERM come to the trainer in this process after a step."""
    made = loop.Trainer._step

    def step_and_be_stopped(trainer: Any, batches: Any) -> None:
        made(trainer, batches)
        if trainer.progress.step == step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop.Trainer, "_step", step_and_be_stopped)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pair", "q_of_some", "norm_rope_q"])
@pytest.mark.parametrize("step", [5, 8, 9, 15])
def test_stopped_before_at_or_after_the_freeze_a_run_goes_on_to_the_bit(
    step: int, name: str, tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(tiny, freeze_qk=False, num_layers=4, keep_last=0)
    config = replace(config, **QUESTIONS[name], freeze_from_step=8, save_interval=1000, dropout=0.2)
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    assert train_here(whole) == 0
    with monkeypatch.context() as patched:
        stop_after(step, patched)
        assert train_here(config) == 75
    assert train_here(config) == 0
    assert outcome(config)["resumed_from"] == step and outcome(config)["exact"] is True
    assert_same_end(config, whole)
    proofs = [read_json(Path(str(each.out_dir)) / "treatment.json") for each in (config, whole)]
    assert proofs[0] == proofs[1]
    stopped = load_checkpoint(str(Path(str(config.out_dir)) / f"checkpoint_{step}.pt"))
    ended = load_checkpoint(str(Path(str(config.out_dir)) / "checkpoint_24.pt"))
    moments = len(frozen_names(config)) if step <= 8 else 0
    assert len(stopped["optimizer"]["state"]) == len(ended["optimizer"]["state"]) + moments


@pytest.mark.slow
def test_processes_killed_before_and_after_the_freeze_end_like_ones_never_killed(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    world_size, freeze_from_step = 2, 30
    several = {**LONG, "max_steps": 100, "batch_size": 2, "gradient_accumulation_steps": 2}
    config = replace(tiny, **several, freeze_qk=False, freeze_k=True, freeze_from_step=freeze_from_step)
    whole = replace(config, out_dir=str(tmp_path / "whole"))
    ended = trainers.run(whole, world_size)
    assert ended.code == 0 and f"Frozen after step {freeze_from_step}" in ended.out, ended.err
    for step in (12, 45):
        kill_after(trainers, config, world_size, step, signal.SIGKILL)
    assert trainers.run(config, world_size).code == 0
    assert outcome(config)["resumed_from"] > 0 and outcome(config)["exact"] is True
    assert_same_end(config, whole)


@pytest.mark.slow
def test_a_compiled_run_freezes_at_its_step_and_goes_on_to_the_bit(
    tiny: TrainConfig, tmp_path: Path, trainers: Trainers
) -> None:
    needs("g++")  # for torch.compile
    config = replace(tiny, freeze_from_step=8, compile="true", keep_last=0)
    ended = trainers.run(config)
    assert ended.code == 0 and "Frozen after step 8" in ended.out, ended.err
    entry = read_json(Path(str(config.out_dir)) / "treatment.json")["groups"]["qk"]
    assert entry["sha256_start"] != entry["sha256_frozen"] == entry["sha256_end"]
    assert_goes_on(config, 1, tmp_path, trainers)


@pytest.mark.slow
def test_compiled_processes_go_on_to_the_bit(tiny: TrainConfig, tmp_path: Path, trainers: Trainers) -> None:
    needs("g++")
    config = replace(tiny, compile="true", keep_last=0, batch_size=2)
    assert trainers.run(config, 2).code == 0
    assert_goes_on(config, 2, tmp_path, trainers)


def assert_goes_on(config: TrainConfig, world_size: int, tmp_path: Path, trainers: Trainers) -> None:
    """Assert that a compiled run which is over ends in the same bits when it goes on from its tenth step."""
    after = replace(config, out_dir=str(tmp_path / "after"), resume=f"{config.out_dir}/checkpoint_10.pt")
    assert trainers.run(after, world_size).code == 0
    assert outcome(after)["exact"] is outcome(after)["compiled"] is True
    ends = [load_checkpoint(f"{each.out_dir}/checkpoint_24.pt") for each in (config, after)]
    assert_equal(ends[0]["model"], ends[1]["model"])
    assert_equal(ends[0]["optimizer"], ends[1]["optimizer"])


@pytest.mark.slow
def test_a_checkpoint_from_before_a_key_is_of_the_same_run_only_at_its_default(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_here(tiny) == 0
    path = Path(str(tiny.out_dir)) / "checkpoint_24.pt"
    assert not set(load_checkpoint(str(path))["config"]) & set(LATER)
    assert train_here(tiny) == 0
    assert train_here(replace(tiny, qk_norm=True)) == 1
    assert "qk_norm = False there and True here" in capsys.readouterr().err
    normed = replace(tiny, qk_norm=True, resume="none")
    assert train_here(normed) == 0
    assert train_here(replace(tiny, resume="auto")) == 1
    assert "qk_norm = True there and False here" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_checkpoint_says_later_is_what_the_run_said(
    tiny: TrainConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(tiny, freeze_qk=False, **QUESTIONS["norm_rope_q"], freeze_from_step=5, max_steps=10)
    assert train_here(config) == 0
    path = str(Path(str(config.out_dir)) / "checkpoint_10.pt")
    assert evaluate.evaluate(path, None, None, 0)[1].loss == metrics(config)[10]["val_loss"]
    model, read, _ = evaluate.load_model(path)
    assert read == config and not model.training
    tokens = torch.arange(5)
    new = sample.generate(model, tokens, 20, 0, 0, torch.Generator())  # past seq_len, which is 16
    assert new.shape == (20,) and int(new[0]) == int(model.logits(tokens[None], last=1).argmax())


def test_the_data_seed_decides_the_data_and_the_seed_all_else(tiny: TrainConfig) -> None:
    file = open_tokens(tiny.data_path, tiny.seq_len)

    def data(config: TrainConfig) -> np.ndarray:
        return np.concatenate(
            [b.numpy() for step in (1, 2, 9) for b in TrainingBatches(file, config, ALONE).host_batches(step)]
        )

    def weights(config: TrainConfig) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in Transformer(config).parameters()])

    same_data = [replace(tiny, seed=seed, data_seed=7) for seed in (42, 43)]
    same_start = [replace(tiny, data_seed=seed) for seed in (None, 7, 8)]
    assert np.array_equal(*map(data, same_data)) and not torch.equal(*map(weights, same_data))
    assert all(torch.equal(weights(config), weights(tiny)) for config in same_start)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert not np.array_equal(data(same_start[a]), data(same_start[b]))
    assert np.array_equal(data(replace(tiny, data_seed=tiny.seed)), data(tiny))
    assert np.array_equal(data(replace(tiny, data_seed=0)), data(replace(tiny, seed=0)))


def test_names_of_parameters_are_told_apart() -> None:
    frozen = freezing(asked("k_and_ffn_of_one"))
    assert frozen.covers("blocks.2.attn.k") and frozen.covers("blocks.2.ffn.up.bias")
    for name in ("blocks.12.attn.k", "blocks.2.attn.q", "blocks.2.attn.qk", "blocks.1.attn.k", "norm.weight", "tokens"):
        assert not frozen.covers(name), name
