"""Communication between the processes of a run apart from gradients, and the device of each process.

Gradients are left to DistributedDataParallel. Messages go over gloo on the CPU, also on GPU runs: they are a few bytes,
and asking a GPU would stall it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence

import torch
import torch.distributed as dist

from .errors import NoGpu, PeerLost, TrainError, is_peer_lost
from .sentences import _


@dataclass(frozen=True)
class World:
    """The processes of this run and this process's place among them."""

    rank: int
    """This process, from 0."""
    size: int
    """Number of processes."""
    local_rank: int
    """This process among those on its host."""
    device: torch.device
    """What it computes on."""
    group: Optional[Any]
    """The gloo group for messages; None in a run of one process."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def agree(self, code: int) -> int:
        """Return the largest code over all processes. Collective."""
        return int(self.largest(float(code)))

    def largest(self, value: float) -> float:
        """Return the largest value over all processes. Collective."""
        return self.total([value], dist.ReduceOp.MAX)[0]

    def total(self, values: Sequence[float], operation: Any = None) -> List[float]:
        """Return the sums over all processes, in double precision. Collective."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        with _peer_errors():
            dist.all_reduce(tensor, op=operation or dist.ReduceOp.SUM, group=self.group)
        return [float(value) for value in tensor.tolist()]

    def from_main(self, value: Any) -> Any:
        """Return rank 0's value (anything picklable) on every process. Collective."""
        if self.size == 1:
            return value
        box = [value]
        with _peer_errors():
            dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def close(self) -> None:
        """Leave the process groups."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


class _peer_errors:
    """Turn gloo's errors about a vanished peer into ``PeerLost``."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Any) -> None:
        if error is not None and is_peer_lost(error):
            raise PeerLost() from error


def leased_gpus() -> int:
    """Return how many GPUs this host's processes were given by who started them; 0 where that is not known, and with
    OELM_STAND_IN_GPUS, which says that the GPUs of this host are only stood in for.
    """
    given = os.environ.get("OELM_LEASED_GPUS", "")
    return int(given) if given.isdigit() and not os.environ.get("OELM_STAND_IN_GPUS") else 0


def _why_none() -> str:
    """Return what torch says of why it sees no GPU, or fewer than there are."""
    version = f"torch {torch.__version__}"
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return _("{torch} is a build for the CPU alone", version)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    build = f"{version} for CUDA {torch.version.cuda}"
    if visible is not None:
        build += f", CUDA_VISIBLE_DEVICES={visible}"
    try:
        torch.zeros(1, device="cuda")
    except Exception as error:
        return _("{build} says {error}", build, str(error).splitlines()[0])
    return build


def join() -> World:
    """Read torchrun's environment, choose the device and meet the other processes; alone without torchrun.

    Raises:
        NoGpu: the run was given GPUs (OELM_LEASED_GPUS), and torch sees none or fewer.
        TrainError: this host has fewer GPUs than processes.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    seen, given = torch.cuda.device_count() if torch.cuda.is_available() else 0, leased_gpus()
    if seen < given:
        if seen:
            raise NoGpu(_("torch sees {seen} GPU only, {given} given to this run: {why}", seen, given, _why_none()))
        raise NoGpu(_("torch sees no GPU, {given} given to this run: {why}", given, _why_none()))
    if seen:
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
        torch.cuda.set_device(device)
    if size == 1:
        return World(0, 1, local_rank, device, None)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    group = dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD
    return World(rank, size, local_rank, device, group)
