"""One optimizer step: what a plain loop would do, the same whenever it is made, and no word about frozen weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.train.support import TINY, VOCAB_SIZE
from tests.train.test_model import plain_loss
from train.config import TrainConfig
from train.distributed import World
from train.errors import Diverged
from train.model import Transformer
from train.optimizer import Precision, build_optimizer, learning_rate
from train.stepping import COMPILE_PAYS_AFTER_STEPS, Stepper, wants_compile

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, CPU, None)


def build(config: TrainConfig, world: World = ALONE) -> tuple[Transformer, Stepper]:
    model = Transformer(config).train()
    return model, Stepper(config, world, model, build_optimizer(model, config), Precision(config, CPU), False)


def micro_batches(config: TrainConfig, step: int) -> list[Tensor]:
    shape = (config.gradient_accumulation_steps, config.batch_size, config.seq_len + 1)
    return list(torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(step)))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[World]:
    """A process group of this process alone that passes for two, so that DDP is used as it would be."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield World(0, 2, 0, CPU, dist.group.WORLD)
    dist.destroy_process_group()


@pytest.fixture
def algorithms() -> Iterator[None]:
    """Leave PyTorch's global choice of algorithms as it was."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
def test_steps_follow_a_plain_loop_over_whole_batches(frozen: bool) -> None:
    config = replace(TINY, freeze_qk=frozen, dropout=0.0, batch_size=2, gradient_accumulation_steps=2)
    model, stepper = build(config)
    plain = Transformer(config)
    decayed = [p for p in plain.parameters() if p.requires_grad and p.dim() >= 2]
    others = [p for p in plain.parameters() if p.requires_grad and p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        betas=(config.beta1, config.beta2),
        foreach=False,
    )
    for step in range(1, 21):
        batches = micro_batches(config, step)
        stepper.loss_sum.zero_()
        stepper.step(step, batches)
        whole = torch.cat(batches)
        loss = plain_loss(plain, whole[:, :-1], whole[:, 1:])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_([*decayed, *others], config.grad_clip)
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(config, step)
        optimizer.step()
        assert float(stepper.loss_sum) == pytest.approx(loss.item(), abs=2e-6), step
        assert stepper.newest_norm() == pytest.approx(norm.item(), rel=1e-4), step
    for (name, own), (_, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(own, theirs, atol=2e-5), name


def test_whether_blocks_are_compiled_is_decided_by_the_whole_run() -> None:
    long, short = (replace(TINY, max_steps=COMPILE_PAYS_AFTER_STEPS - less) for less in (0, 1))
    assert wants_compile(long, "cuda") and not wants_compile(short, "cuda")
    assert not wants_compile(long, "cpu")
    assert wants_compile(replace(short, compile="true"), "cpu")
    assert not wants_compile(replace(long, compile="false"), "cuda")


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_go_round_in_views_of_the_buckets_and_frozen_weights_not_at_all(frozen: bool, group: World) -> None:
    config = replace(TINY, freeze_qk=frozen, dropout=0.0)
    model, stepper = build(config, group)
    sent: list[int] = []
    in_views: list[bool] = []

    def count(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations and refuses text
        sent.append(sum(gradient.numel() for gradient in bucket.gradients()))
        for parameter, gradient in zip(bucket.parameters(), bucket.gradients(), strict=True):
            in_views.append(parameter.grad is not None and parameter.grad.data_ptr() == gradient.data_ptr())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapped = stepper._wrapped
    assert isinstance(wrapped, torch.nn.parallel.DistributedDataParallel)
    assert list(wrapped.buffers()) == [], "DDP would broadcast them at every forward pass"
    wrapped.register_comm_hook(None, count)
    stepper.step(1, micro_batches(config, 1))
    assert sum(sent) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert all(in_views)


def test_settling_the_buckets_leaves_weights_and_gradients_as_they_were(group: World) -> None:
    model, stepper = build(TINY, group)
    untouched = Transformer(TINY)
    for (name, own), (_, theirs) in zip(model.named_parameters(), untouched.named_parameters(), strict=True):
        assert torch.equal(own, theirs) and own.grad is None, name
    assert stepper.newest_norm() is None and float(stepper.loss_sum) == 0.0


def test_every_operation_of_a_step_has_a_deterministic_form(algorithms: None) -> None:
    model, stepper = build(TINY)
    assert stepper._insist_on_repeatability()
    assert torch.are_deterministic_algorithms_enabled()
    stepper.step(1, micro_batches(TINY, 1))
    assert all(p.grad is None for p in model.parameters())


def test_without_a_deterministic_form_steps_are_made_all_the_same_and_said_not_to_repeat(
    algorithms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stepper = build(TINY)

    def refuse() -> None:
        raise RuntimeError(complaint)

    monkeypatch.setattr(stepper, "_pass_without_effect", refuse)
    complaint = "some_backward_cuda does not have a deterministic implementation"
    assert not stepper._insist_on_repeatability()
    assert not torch.are_deterministic_algorithms_enabled()
    complaint = "CUDA out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        stepper._insist_on_repeatability()


def test_a_gradient_that_is_not_finite_is_never_applied() -> None:
    model, stepper = build(replace(TINY, dropout=0.0))
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(Diverged, match="gradient norm is nan at step 1"):
        stepper.step(1, micro_batches(TINY, 1))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) or name == "norm.weight", name


def test_fused_adamw_leaves_out_the_step_that_it_is_told_to() -> None:
    # The means by which a GPU, whose norm is read a step late, never applies a gradient that is not finite.
    model = Transformer(replace(TINY, dropout=0.0))
    optimizer = build_optimizer(model, TINY)
    if not optimizer.defaults["fused"]:
        pytest.skip("this PyTorch has no fused AdamW for CPUs")
    before = model.tokens.detach().clone()
    for told, moves in ((1.0, False), (0.0, True)):
        (batch,) = micro_batches(TINY, 1)
        model(batch[:, :-1], batch[:, 1:]).backward()
        optimizer.found_inf = torch.tensor(told)
        optimizer.step()
        assert torch.equal(model.tokens, before) is not moves
        assert float(optimizer.state[model.tokens]["step"]) == float(moves)
