"""One optimizer step: what a plain loop would do, the same whenever it is made, and no word about frozen weights."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.distributed import DDPOptimizer
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.support import TINY, VOCAB_SIZE
from tests.train.test_model import plain_loss
from train.config import TrainConfig
from train.data import open_tokens
from train.distributed import World
from train.errors import Diverged, TrainError
from train.model import Transformer
from train.optimizer import Precision, build_optimizer, learning_rate
from train.stepping import Stepper
from train.validation import measure

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def build(config: TrainConfig, world: World = ALONE) -> tuple[Transformer, Stepper]:
    model = Transformer(config).train()
    return model, Stepper(config, world, model, build_optimizer(model, config), Precision(config, CPU), False)


def micro_batches(config: TrainConfig, step: int) -> list[Tensor]:
    shape = (config.gradient_accumulation_steps, config.batch_size, config.seq_len + 1)
    return list(torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(step)))


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
        loss.backward()  # type: ignore[no-untyped-call]  # not typed in torch
        norm = torch.nn.utils.clip_grad_norm_([*decayed, *others], config.grad_clip)
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(config, step)
        optimizer.step()
        assert float(stepper.loss_sum) == pytest.approx(loss.item(), abs=2e-6), step
        assert stepper.newest_norm() == pytest.approx(norm.item(), rel=1e-4), step
    for (name, own), (_, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(own, theirs, atol=2e-5), name


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


@pytest.mark.slow
def test_what_a_later_freeze_compiles_between_processes_is_not_cut_where_buckets_end(
    group: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: Any) -> Any:
        raise NotImplementedError("as some versions of PyTorch say of an autograd.Function")

    monkeypatch.setattr(DDPOptimizer, "compile_fn", cut)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    config = replace(TINY, freeze_from_step=1)
    model = Transformer(config).train()
    stepper = Stepper(config, group, model, build_optimizer(model, config), Precision(config, CPU), True)
    stepper.freeze()
    stepper.step(2, micro_batches(config, 2))
    assert stepper.compiled and float(stepper.loss_sum) > 0


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


def test_who_insists_on_steps_that_repeat_is_told_which_kernel_has_no_such_form(
    algorithms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, stepper = build(replace(TINY, deterministic="true"))

    def refuse() -> None:
        raise RuntimeError("some_backward_cuda does not have a deterministic implementation\nand more")

    monkeypatch.setattr(stepper, "_pass_without_effect", refuse)
    with pytest.raises(TrainError) as caught:
        stepper._insist_on_repeatability()
    assert str(caught.value) == (
        "--deterministic true can't be kept, auto goes on without it: "
        "some_backward_cuda does not have a deterministic implementation"
    )


class Meta:
    """PyTorch's meta device in a GPU's place: it has no values, so that whoever asks for one fails. Norms that are sent
    to the host and the waits for them are noted instead.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.said: list[str] = []
        self.device = torch.device("meta")
        real, said = Tensor.to, self.said

        class Event:
            count = 0

            def record(self) -> None:
                Event.count += 1
                self.number = Event.count
                said.append(f"norm {self.number} sent")

            def synchronize(self) -> None:
                said.append(f"norm {self.number} awaited")

        def to(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
            if args[:1] != ("cpu",):
                return real(tensor, *args, **kwargs)  # type: ignore[call-overload, no-any-return]  # passed on as it came
            assert tensor.dim() == 0 and kwargs == {"non_blocking": True}
            return torch.zeros(())

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(Tensor, "to", to)

    def build(self, config: TrainConfig) -> Stepper:
        model = Transformer(config).to(self.device).train()
        optimizer = build_optimizer(model, config)
        optimizer.step = lambda: self.said.append("update")  # type: ignore[assignment, method-assign, return-value]  # has no kernel for meta
        return Stepper(config, World(0, 1, self.device), model, optimizer, Precision(config, self.device), False)


@pytest.mark.slow
def test_no_step_on_a_gpu_waits_for_it_but_for_the_norm_of_the_step_before(
    algorithms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TINY, gradient_accumulation_steps=2)
    meta = Meta(monkeypatch)
    stepper = meta.build(config)
    for step in range(1, 4):
        stepper.step(step, [batch.to(meta.device) for batch in micro_batches(config, step)])
    # A norm is asked for when the passes of the step after it are with the GPU already.
    assert meta.said == [
        "norm 1 sent", "update", "norm 1 awaited", "norm 2 sent", "update", "norm 2 awaited", "norm 3 sent", "update",
    ]  # fmt: skip
    with pytest.raises(RuntimeError, match="meta"):
        float(stepper.loss_sum)  # what a step must not do


class Asked(TorchDispatchMode):
    """Counts how often a loss's value is asked for, which makes a GPU finish all that it has to do."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_local_scalar_dense" and args[0].is_floating_point():
            self.count += 1
        return func(*args, **(kwargs or {}))


def test_a_validation_asks_for_one_value_whatever_its_length(data: Path) -> None:
    model, _ = build(TINY)
    file = open_tokens(str(data.parent / "val.bin"), TINY.seq_len)
    for batches in (1, 5):
        with Asked() as asked:
            measured = measure(model, file, TINY, ALONE, Precision(TINY, CPU), 0, batches * TINY.batch_size)
        assert asked.count == 1
        assert measured is not None and measured.num_tokens == batches * TINY.batch_size * TINY.seq_len


@pytest.mark.parametrize(("flag", "insists"), [("auto", True), ("true", True), ("false", False)])
def test_whether_gpu_kernels_must_repeat_is_a_choice(
    flag: str, insists: bool, algorithms: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepper = Meta(monkeypatch).build(replace(TINY, deterministic=flag))
    assert stepper.repeats is torch.are_deterministic_algorithms_enabled() is insists


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
