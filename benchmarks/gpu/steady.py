"""``python -m benchmarks.gpu.steady``: make steps that may not wait for the GPU, and say what a profile has of them."""

from __future__ import annotations

import sys
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from train.config import from_flags
from train.data import TrainingBatches, open_tokens
from train.distributed import join
from train.model import Transformer
from train.optimizer import Precision, build_optimizer
from train.stepping import Stepper

WARM_UP, STEPS = 5, 10
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "cudaEventSynchronize")
"""Calls of CUDA's runtime that wait for the GPU. One of the last kind a step is for the norm of the step before."""


def main(words: list[str]) -> int:
    """Print the waits of a profile; fail where a step waits."""
    config = from_flags(words)
    world = join()
    on_gpu = world.device.type == "cuda"
    model = Transformer(config).to(world.device).train()
    stepper = Stepper(config, world, model, build_optimizer(model, config), Precision(config, world.device), False)
    batches = TrainingBatches(open_tokens(config.data_path, config.seq_len), config, world).steps(1, 1 << 20)
    for step in range(1, 1 + WARM_UP):
        stepper.step(step, next(batches))
    if on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    for step in range(1 + WARM_UP, 1 + WARM_UP + STEPS):
        stepper.step(step, next(batches))
    if on_gpu:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        for step in range(1 + WARM_UP + STEPS, 1 + WARM_UP + 2 * STEPS):
            stepper.step(step, next(batches))
    waits = Counter(event.name for event in profiled.events())
    if not on_gpu:
        print(f"Steps in {stepper.precision.name}, without a GPU to wait for")
        return 0
    seen = ", ".join(f"{waits[name]} {name}" for name in WAITS if waits[name]) or "no wait"
    print(f"Steps in {stepper.precision.name} pass PyTorch's own check; a profile of {STEPS} of them has {seen}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
