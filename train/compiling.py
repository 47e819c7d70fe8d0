"""Compiling of the network with torch.compile: when it pays, and what stands in its way.

Quick to import, because the toolkit asks whether a run would be compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, List

from .config import TrainConfig
from .sentences import _

if TYPE_CHECKING:
    import torch

    from .model import Transformer

PAYS_AFTER_STEPS = 2_000
"""Compilation takes a minute or so; ``--compile auto`` takes it only for runs that win it back."""
OLDEST_FOR_TRITON = (7, 0)
"""Compute capability of the oldest GPUs that torch.compile generates kernels for."""


def wants_compile(config: TrainConfig, device: str) -> bool:
    """Tell whether to compile on a kind of device: as the flag says, or on a GPU if the run is long enough.

    The whole run counts, not the steps that are left: compiled and eager blocks round differently, so a resumed run
    must choose as it did before.
    """
    if config.compile == "auto":
        return device == "cuda" and config.max_steps >= PAYS_AFTER_STEPS
    return config.compile == "true"


def compile_model(model: Transformer) -> None:
    """Have each block, and the head's softmax, compiled at its first call, for each shape that it is called with."""
    import torch
    import torch._dynamo  # which older versions don't import by themselves

    from .cross_entropy import softmax_to_compile

    # A function is left eager, without a word, once it has more variants than this: the arms of a speed trial are some.
    for limit in ("cache_size_limit", "accumulated_cache_size_limit"):
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, 1024)
    # Block by block: all blocks share one compilation, and DDP can send a block's gradients while the one below still
    # computes. So TorchDynamo need not cut what it compiles inside of DDP, as after a later freeze: it would round
    # otherwise than a block compiled before, and some versions refuse to cut around an autograd.Function.
    torch._dynamo.config.optimize_ddp = False
    for block in model.blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    model.softmax = torch.compile(softmax_to_compile, dynamic=False, fullgraph=True)


def leave_eager(model: Transformer) -> None:
    """Undo ``compile_model``, as far as it went."""
    from .cross_entropy import softmax

    for block in model.blocks:
        vars(block).pop("forward", None)
    model.softmax = softmax


def compile_anew(model: Transformer) -> None:
    """Compile for other gradients than so far, as a run does that begins now: older versions of TorchDynamo don't
    notice that a parameter of a module takes none any more.
    """
    import torch._dynamo

    leave_eager(model)
    torch._dynamo.reset()
    compile_model(model)


def why_not(error: BaseException, device: torch.device) -> str:
    """Return in words why compiling failed: what it lacks, or else the line of the error that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("backend=")] or [type(error).__name__]
    telling = [line for line in lines if "error: " in line.lower()] or lines
    return ", ".join(lacking(device)) or telling[0][:200]


def lacking(device: torch.device) -> List[str]:
    """Return what torch.compile needs for a device and this machine doesn't have."""
    import importlib.util
    import os
    import shutil
    import sysconfig

    import torch

    found: List[str] = []
    if device.type == "cuda":
        compilers = [os.environ.get("CC") or "gcc", "clang", "cc"]
        if importlib.util.find_spec("triton") is None:
            found.append(_("no Triton"))
        major, minor = torch.cuda.get_device_capability(device) if torch.cuda.is_available() else OLDEST_FOR_TRITON
        if (major, minor) < OLDEST_FOR_TRITON:
            found.append(_("no GPU of sm_70 or newer (sm_{kind})", f"{major}{minor}"))
    else:
        compilers = [os.environ.get("CXX") or "g++", "clang++"]
    if not any(map(shutil.which, compilers)):
        found.append(_("no C compiler ({names})", compilers))
    headers = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(headers):
        found.append(_("no headers of Python ({path})", headers))
    return found
