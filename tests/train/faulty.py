"""Train with a fault on rank 1 alone, which OELM_TEST_FAULT names, for tests of what the other processes then do."""

from __future__ import annotations

import functools
import os
import select
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from train import __main__ as command
from train import checkpoint, distributed, environment, loop, run
from train.config import TrainConfig
from train.errors import NoGpu
from train.optimizer import Precision


def has_no_device(local_rank: int) -> torch.device:
    raise NoGpu("the second GPU is broken")


def has_no_compiler(function: Any, **_: Any) -> Any:
    raise RuntimeError("no compiler on rank 1")


def precision_of_a_gpu(config: TrainConfig, device: torch.device) -> Precision:
    return Precision(config, torch.device("cuda", 0))


def fail_at_step_7(trainer: loop.Trainer, batches: Any) -> None:
    if trainer.progress.step != 6:
        return make_step(trainer, batches)
    if not is_faulty:
        select.select([], [], [])  # as a process does that waits for a GPU, which waits for another process
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED" if fault == "memory" else "CUDA error: an assert")


def write_slowly(path: str, content: dict[str, Any]) -> None:
    """Take as long for the first checkpoint as the other process needs to begin a step too early, or two seconds."""
    if path.endswith("checkpoint_1.pt"):
        early, mark = Path(path).with_name("early"), Path(path).with_name("writing")
        mark.touch()
        deadline = time.monotonic() + 2.0
        while not early.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        mark.unlink()
    write(path, content)


def note_an_early_step(trainer: loop.Trainer, batches: Any) -> None:
    out_dir = Path(str(trainer.config.out_dir))
    if trainer.progress.step == 2 and (out_dir / "writing").exists():
        (out_dir / "early").touch()
    make_step(trainer, batches)


make_step, write = loop.Trainer._step, checkpoint.write_atomically

if __name__ == "__main__":
    compilers = ThreadPoolExecutor(1)  # its thread waits for work for ever, as that of torch.compile does
    compilers.submit(int)
    fault, is_faulty = os.environ["OELM_TEST_FAULT"], os.environ["RANK"] == "1"
    if fault == "device" and is_faulty:
        distributed.choose = has_no_device
    if fault == "GPU on one" and is_faulty:
        distributed.choose = lambda _: torch.device("meta")
    if fault == "older card":
        environment.cpu_name = lambda: "Tesla V100" if is_faulty else "A100"
        torch.cuda.get_device_capability = lambda _=None: (7, 0) if is_faulty else (8, 0)
        run.Precision = precision_of_a_gpu  # type: ignore[misc, assignment]  # in place of a class
    if fault == "compiler":
        run.wants_compile = lambda *_: True
        torch.compile = has_no_compiler if is_faulty else functools.partial(torch.compile, backend="eager")
    if fault == "slow disk" and not is_faulty:
        checkpoint.write_atomically = write_slowly
    if fault == "slow disk" and is_faulty:
        loop.Trainer._step = note_an_early_step  # type: ignore[method-assign]  # in its place
    if fault in ("killed", "memory", "assert"):
        loop.Trainer._step = fail_at_step_7  # type: ignore[method-assign]  # in its place
    sys.exit(command.main())
