"""Keep freed memory in the process, and explain what to change when there is too little."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from . import estimate
from .config import TrainConfig
from .sentences import _

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory for the next step instead of handing it back (glibc; else nothing).

    A step allocates the same tensors as the one before; memory from the kernel costs a page fault per 4 kB, which is
    several percent of a step on a CPU. (mallopt(3))
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        if not mallopt(_M_MMAP_THRESHOLD, 2**30):
            mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that older versions take


def available_bytes(device: torch.device) -> int:
    """Return the memory that a process could have on a device if it began anew."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def advice(config: TrainConfig, device: torch.device) -> str:
    """Return a sentence for a run that is out of memory: the batch size to try, with the same global batch.

    It raises nothing: a device whose memory ran out may not answer any more, and there may be no memory for words.
    """
    try:
        return _advice(config, device)
    except Exception:
        return _("out of memory at --batch_size {batch_size}", config.batch_size)


def _advice(config: TrainConfig, device: torch.device) -> str:
    room = available_bytes(device)
    size = estimate.fitting_batch_size(config, room, device.type == "cuda")
    if size is None and config.batch_size > 1:  # the estimate was wrong: at least it was too much
        size = max(n for n in range(1, config.batch_size) if config.batch_size % n == 0)
    if size is None:
        return _(
            "out of memory with one sequence at a time ({room:.1f} GB available): the model is too large",
            room / 1e9,
        )
    steps = config.gradient_accumulation_steps * (config.batch_size // size)
    return _(
        "out of memory at --batch_size {batch_size} ({room:.1f} GB available); --batch_size {size} "
        "--gradient_accumulation_steps {steps} should fit and trains on the same global batch",
        config.batch_size, room / 1e9, size, steps,
    )  # fmt: skip
