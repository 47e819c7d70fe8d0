"""The device that a process computes on, made ready before its first product; an unusable GPU is an error."""

from __future__ import annotations

import glob
import os

import torch

from .errors import NoGpu, TrainError
from .sentences import _


def choose(local_rank: int = 0) -> torch.device:
    """Return the GPU of a process of this host; the CPU where there is none.

    Sets CUBLAS_WORKSPACE_CONFIG, unless it is set: PyTorch and cuBLAS read it at a process's first product, and some
    versions of PyTorch hand cuBLAS memory that they never allocated if it changes later.

    Raises:
        NoGpu: torch sees no GPU, or fewer than were given to the run (OELM_LEASED_GPUS), or one that can't compute.
        TrainError: This host has fewer GPUs than processes.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seen, given = torch.cuda.device_count() if torch.cuda.is_available() else 0, leased_gpus()
    if seen < given:
        if seen:
            raise NoGpu(_("torch sees {seen} GPU only, {given} given to this run: {why}", seen, given, _why_none()))
        raise NoGpu(_("torch sees no GPU, {given} given to this run: {why}", given, _why_none()))
    if not seen:
        there, mend = _usable_by_others(), "CUDA_VISIBLE_DEVICES="
        if there:
            raise NoGpu(_("torch sees no GPU, this host has {count}: {why} ({mend}: CPU)", there, _why_none(), mend))
        return torch.device("cpu")
    if local_rank >= seen:
        raise TrainError(
            _(
                "process {rank} of this host has no GPU: {seen} visible; start torchrun with "
                "--nproc_per_node {seen} or free more GPUs",
                local_rank,
                seen,
            )
        )
    device = torch.device("cuda", local_rank)
    _try(device)
    return device


def leased_gpus() -> int:
    """Return how many GPUs this host's processes were given by who started them; 0 where that is not known, and with
    OELM_STAND_IN_GPUS, which says that the GPUs of this host are only stood in for.
    """
    given = os.environ.get("OELM_LEASED_GPUS", "")
    return int(given) if given.isdigit() and not os.environ.get("OELM_STAND_IN_GPUS") else 0


def computes_in_bf16(device: torch.device) -> bool:
    """Tell whether a GPU has bf16 in hardware; PyTorch emulates it on older ones, slower than fp32."""
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _usable_by_others() -> int:
    """Return how many NVIDIA GPUs this process may open although torch sees none; 0 where none is wanted."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles") or os.environ.get("OELM_STAND_IN_GPUS"):
        return 0
    return sum(os.access(path, os.R_OK | os.W_OK) for path in glob.glob("/dev/nvidia[0-9]*"))


def _why_none() -> str:
    """Return what torch says of why it sees no GPU, or fewer than there are."""
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return _("{torch} is a build for the CPU alone", f"torch {torch.__version__}")
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        return _("{build} says {error}", _build(), str(error).splitlines()[0])
    return _build()


def _build() -> str:
    """Return torch's version and what decides which GPUs it can use."""
    build, visible = f"torch {torch.__version__} for CUDA {torch.version.cuda}", os.environ.get("CUDA_VISIBLE_DEVICES")
    return build if visible is None else f"{build}, CUDA_VISIBLE_DEVICES={visible}"


def _try(device: torch.device) -> None:
    """Compute something on a GPU that torch sees: it may be another process's, broken, or too old for this torch.

    Raises:
        NoGpu: It can't.
    """
    name, kinds = str(device), ""
    try:
        torch.cuda.set_device(device)
        major, minor = torch.cuda.get_device_capability(device)
        name = f"{device} ({torch.cuda.get_device_name(device)}, sm_{major}{minor})"
        kinds = " ".join(torch.cuda.get_arch_list())
        torch.ones(1, device=device).add_(1.0).item()
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise NoGpu(
            _("{device} can't compute: {why} ({build} with kernels for {kinds})", name, why, _build(), kinds)
        ) from error
