"""``python -m benchmarks.gpu.head ROWS WIDTH VOCABULARY``: the output head alone, beside F.cross_entropy.

Prints a JSON object: by precision and kind of head its time, its memory and how far its gradients are from fp32's.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from train.config import TrainConfig
from train.cross_entropy import linear_cross_entropy, softmax, softmax_to_compile
from train.distributed import join
from train.model import padded_vocab_size
from train.optimizer import Precision

ROUNDS, WARM_UP = 20, 3
Head = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Makes of x [N, D], weight [P, D] and targets [N] the mean loss."""


def plain(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, weight), targets)


OWN, COMPILED = "this trainer's", "this trainer's, compiled"
OWN_HEADS = (OWN, COMPILED)


def heads(vocab_size: int, compiles: bool) -> dict[str, Head]:
    found: dict[str, Head] = {
        OWN: partial(linear_cross_entropy, vocab_size=vocab_size, by=softmax),
        "F.cross_entropy": plain,
    }
    if compiles:
        by = torch.compile(softmax_to_compile, fullgraph=True, dynamic=False)
        found[COMPILED] = partial(linear_cross_entropy, vocab_size=vocab_size, by=by)
        found["F.cross_entropy, compiled"] = torch.compile(plain, dynamic=False)
    return found


def step(
    head: Head, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, factor: float = 1.0
) -> tuple[Tensor, ...]:
    """Return the gradients of one forward and backward pass, of the loss times a factor."""
    low = torch.autocast(x.device.type, dtype=dtype) if dtype != torch.float32 else contextlib.nullcontext()
    with low:
        loss = head(x, weight, targets)
    return torch.autograd.grad(loss * factor, (x, weight))


def timed_s(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that work takes on its device."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def measure(rows: int, width: int, vocab_size: int, device: torch.device) -> dict[str, Any]:
    source = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=source).to(device).requires_grad_()  # as the last norm leaves it
    weight = torch.zeros(padded_vocab_size(vocab_size), width)
    weight[:vocab_size].normal_(0.0, 0.02, generator=source)
    weight = weight.to(device).requires_grad_()
    targets = torch.randint(vocab_size, (rows,), generator=source).to(device)
    # In fp32 proper: this trainer leaves the padding of the vocabulary out, others take it for entries.
    own = step(lambda x, w, t: plain(x, w[:vocab_size], t), x, weight, targets, torch.float32)
    others = step(plain, x, weight, targets, torch.float32)
    Precision(TrainConfig(), device)  # from here on products are made and summed as in a run
    on_gpu = device.type == "cuda"
    bf16 = on_gpu and torch.cuda.get_device_capability(device)[0] >= 8
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    found: dict[str, Any] = {}
    for name in (["bf16", "fp16"] if bf16 else ["fp16"]) if on_gpu else ["fp32"]:
        dtype = kinds.get(name, torch.float32)
        # The scaler's first factor: what it takes to keep small gradients of fp16.
        factor = 65_536.0 if name == "fp16" else 1.0
        compared = heads(vocab_size, compiles=on_gpu)
        entries: dict[str, dict[str, Any]] = {key: {"s": []} for key in compared}
        for key, head in compared.items():
            gradients = step(head, x, weight, targets, dtype, factor)
            pairs = zip(gradients, own if key in OWN_HEADS else others, strict=True)
            entries[key]["error"] = [float((a / factor - b).norm() / b.norm()) for a, b in pairs]
            del gradients
            for _ in range(WARM_UP):
                step(head, x, weight, targets, dtype)
            if on_gpu:
                torch.cuda.synchronize()
                before = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                step(head, x, weight, targets, dtype)
                torch.cuda.synchronize()
                entries[key]["gb"] = (torch.cuda.max_memory_allocated() - before) / 1e9
        for _ in range(ROUNDS):
            for key, head in compared.items():
                entries[key]["s"].append(timed_s(partial(step, head, x, weight, targets, dtype), device))
        found[name] = {key: {**entry, "s": statistics.median(entry["s"])} for key, entry in entries.items()}
    return found


if __name__ == "__main__":
    rows, width, vocab_size = map(int, sys.argv[1:])
    print(json.dumps(measure(rows, width, vocab_size, join().device)))
