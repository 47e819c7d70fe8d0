"""Which device a process computes on, in which precision, and that nothing is computed before it is ready."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.support import TINY, Ended, Trainers, outcome, train_here
from train import device, evaluate, speed_trial
from train.config import TrainConfig, to_flags
from train.errors import NoGpu
from train.model import Transformer
from train.optimizer import Precision, build_optimizer
from train.treatment import describe_treatment

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str | None]]:
    """Stand in for a GPU of some compute capability; return what cuBLAS is told at each of its calls."""

    def stand_in(capability: tuple[int, int] = (8, 0), fault: str = "") -> list[str | None]:
        told: list[str | None] = []

        def ones(*_: Any, **__: Any) -> torch.Tensor:
            told.append(os.environ.get(CUBLAS))
            if fault:
                raise RuntimeError(fault)
            return torch.zeros(1)

        monkeypatch.delenv(CUBLAS, raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: told.append(os.environ.get(CUBLAS)))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "Tesla")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90"])
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # as it says where it is emulated
        monkeypatch.setattr(torch, "ones", ones)
        return told

    return stand_in


def start_two(fault: str, config: TrainConfig, trainers: Trainers) -> list[Ended]:
    """Run two processes of which the second has a fault of ``faulty``."""
    processes = trainers.start(config, 2, env={"OELM_TEST_FAULT": fault}, module="tests.train.faulty")
    return [Ended(process) for process in processes]


class NoProducts(TorchDispatchMode):
    """Fails at the first product of matrices."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in ("mm", "bmm", "addmm", "addmm_", "baddbmm", "matmul", "linear")
        return func(*args, **(kwargs or {}))


def test_cublas_is_told_its_workspace_before_anything_is_computed(
    gpu: Callable[..., list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = gpu()
    assert device.choose() == torch.device("cuda", 0)
    assert told == [":4096:8"] * 2
    monkeypatch.setenv(CUBLAS, ":16:8")
    device.choose()
    assert os.environ[CUBLAS] == ":16:8", "a user's own word counts"


def test_every_entry_point_chooses_its_device_before_its_first_product(
    tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(local_rank: int = 0) -> torch.device:
        raise NoGpu("chosen")

    for module in ("distributed", "evaluate"):
        monkeypatch.setattr(f"train.{module}.choose", refuse)
    arms = ["--arm", "a:", "--arm", "b:", *to_flags(tiny)]
    with NoProducts():
        assert train_here(tiny) == 1
        assert speed_trial.main(arms) == 1
        assert evaluate.main(["absent.pt"]) == 1
    assert capsys.readouterr().err == "train: chosen\n" * 3


class OnGpu(torch.Tensor):
    """Stands in for a tensor on a GPU: what is computed with it is noted."""

    asked: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.asked.append(func.__name__)
        found = super().__torch_function__(func, types, args, kwargs)
        return found.as_subclass(torch.Tensor) if func.__name__ == "cpu" else found


@pytest.mark.slow
def test_describing_a_fresh_run_makes_no_product_on_its_device() -> None:
    model = Transformer(TINY)
    plain = describe_treatment(model, build_optimizer(model, TINY), TINY)
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            there = nn.Parameter(parameter.detach().as_subclass(OnGpu), parameter.requires_grad)
            setattr(module, name, there)
    optimizer = build_optimizer(model, TINY)
    OnGpu.asked.clear()
    assert describe_treatment(model, optimizer, TINY) == plain
    assert "cpu" in OnGpu.asked and not {"matmul", "__matmul__", "bmm"} & set(OnGpu.asked)


@pytest.mark.parametrize(
    ("capability", "name", "without_amp"),
    [
        ((6, 0), "fp16", "fp32"),
        ((7, 0), "fp16", "fp32"),
        ((7, 5), "fp16", "fp32"),
        ((8, 0), "bf16", "tf32"),
        ((8, 6), "bf16", "tf32"),
        ((9, 0), "bf16", "tf32"),
        ((12, 0), "bf16", "tf32"),
    ],
)
def test_the_precision_is_what_the_hardware_computes_in(
    capability: tuple[int, int], name: str, without_amp: str, gpu: Callable[..., list[str | None]]
) -> None:
    gpu(capability)
    precision = Precision(TINY, torch.device("cuda", 0))
    assert precision.name == name and (precision.scaler is not None) is (name == "fp16")
    assert Precision(replace(TINY, use_amp=False), torch.device("cuda", 0)).name == without_amp
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction


def test_a_gpu_of_the_host_that_torch_does_not_see_is_an_error_and_never_a_run_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device.glob, "glob", lambda _: ["/dev/null", "/dev/null", "/dev/absent"])
    monkeypatch.delenv("OELM_STAND_IN_GPUS", raising=False)
    with pytest.raises(NoGpu, match=r"torch sees no GPU, this host has 2: torch .* \(CUDA_VISIBLE_DEVICES=: CPU\)"):
        device.choose()
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(NoGpu, match=r"for CUDA 12.4, CUDA_VISIBLE_DEVICES=7 says Torch not compiled"):
        device.choose()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.choose().type == "cpu"


def test_a_gpu_that_cannot_compute_is_named_with_what_torch_says_of_it(gpu: Callable[..., list[str | None]]) -> None:
    gpu((6, 1), fault="CUDA error: no kernel image is available\nand so on")
    words = r"cuda:0 \(Tesla, sm_61\) can't compute: CUDA error: no kernel image is available \(torch .* sm_80 sm_90\)"
    with pytest.raises(NoGpu, match=words):
        device.choose()


@pytest.mark.slow
def test_a_process_without_its_device_ends_all_with_its_words(tiny: TrainConfig, trainers: Trainers) -> None:
    ended = start_two("device", tiny, trainers)
    assert [process.code for process in ended] == [1, 1]
    assert outcome(tiny)["reason"] == "the second GPU is broken"


@pytest.mark.slow
def test_cards_that_would_compute_in_different_precisions_are_refused_by_rank_and_name(
    tiny: TrainConfig, trainers: Trainers
) -> None:
    ended = start_two("older card", tiny, trainers)
    reason = (
        "process 1 would compute in fp16 on Tesla V100, process 0 in bf16 on A100: a run's GPUs must be alike; choose "
        "them by the target's gpus or avoid, Slurm's gres or constraint, or CUDA_VISIBLE_DEVICES"
    )
    assert [process.code for process in ended] == [1, 1]
    assert outcome(tiny)["reason"] == reason and outcome(tiny)["step"] == 0
    assert outcome(tiny)["hardware"]["name"] == "1 x A100 + 1 x Tesla V100"
    assert f"train: process 0: {reason}\n" in ended[0].err and reason not in ended[1].err


@pytest.mark.slow
def test_a_run_of_which_some_processes_have_no_gpu_is_refused(tiny: TrainConfig, trainers: Trainers) -> None:
    ended = start_two("GPU on one", tiny, trainers)
    assert [process.code for process in ended] == [1, 1]
    assert re.fullmatch(
        r"process 1 computes on .* \(meta\), process 0 on .* \(cpu\): "
        r"give every process a GPU, or none \(CUDA_VISIBLE_DEVICES=\)",
        outcome(tiny)["reason"],
    )
