"""Communication between the processes of a run, apart from gradients.

Gradients are left to DistributedDataParallel. Messages go over gloo on the CPU, also on GPU runs: they are a few bytes,
and asking a GPU would stall it.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
import torch.distributed as dist

from .device import choose
from .environment import describe_hardware
from .errors import PeerLost, TrainError, is_peer_lost
from .peers import Watch, end_at_once
from .sentences import _

PATIENCE = datetime.timedelta(hours=6)
"""So long processes wait for one another's messages: for one that hashes data, reads or writes a large checkpoint on a
slow disk, or compiles. What ends a run whose process is gone is ``peers``, within seconds.
"""


@dataclass(frozen=True)
class World:
    """The processes of this run and this process's place among them."""

    rank: int
    """This process, from 0."""
    size: int
    """Number of processes."""
    device: torch.device
    """What it computes on."""
    group: Optional[Any] = None
    """The gloo group for messages; None in a run of one process."""
    gradients: Optional[Any] = None
    """The group in which gradients go round: NCCL's on GPUs."""
    watch: Optional[Watch] = None
    """What notices that another process has ended."""
    cards: Tuple[str, ...] = ()
    """Model names of what the processes compute on, by rank; empty in a run of one process."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def hardware(self) -> Dict[str, Any]:
        """Return ``describe_hardware`` of this process's device, named after all of the run's where they differ."""
        found = describe_hardware(self.device)
        if len(set(self.cards)) > 1:
            counts = [(name, len(list(alike))) for name, alike in itertools.groupby(self.cards)]
            found["name"] = " + ".join(f"{count} x {name}" for name, count in counts)
        return found

    def meet(self) -> None:
        """Wait until all processes have come here. Collective.

        It belongs behind what one process does alone and slowly: where gradients go round, NCCL waits ten minutes only.
        """
        self.largest(0.0)

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

    def everyones(self, value: Any) -> List[Any]:
        """Return every process's value (anything picklable), by rank. Collective."""
        values: List[Any] = [value]
        if self.size > 1:
            values = [None] * self.size
            with _peer_errors():
                dist.all_gather_object(values, value, group=self.group)
        return values

    def from_main(self, make: Callable[[], Any]) -> Any:
        """Return on every process what ``make`` returns on rank 0 (anything picklable). Collective.

        Raises:
            TrainError: it raised that on rank 0.
        """
        box: List[Any] = [None]
        if self.is_main:
            try:
                box[0] = make()
            except TrainError as error:
                box[0] = error
        if self.size > 1:
            with _peer_errors():
                dist.broadcast_object_list(box, src=0, group=self.group)
        if isinstance(box[0], TrainError):
            raise box[0]
        return box[0]

    def warn(self) -> None:
        """Tell the other processes that this one has failed."""
        if self.watch is not None:
            self.watch.warn()

    def close(self, failed: bool = False) -> None:
        """Leave the process groups, together with the others; of several that failed, end this one at once."""
        if self.watch is None:
            return
        if failed:
            end_at_once(1)
        self.watch.leave()
        dist.destroy_process_group()


@contextlib.contextmanager
def _peer_errors() -> Iterator[None]:
    """Turn gloo's errors about a vanished peer into ``PeerLost``."""
    try:
        yield
    except RuntimeError as error:
        if is_peer_lost(error):
            raise PeerLost() from error
        raise


def join(lost: Callable[[], None] = lambda: None) -> World:
    """Read torchrun's environment, choose the device and meet the other processes; alone without torchrun.

    Args:
        lost: What to do before this process is ended because another one has ended, and it did not notice by itself.

    Raises:
        NoGpu, TrainError: A process can't have its device, or some have GPUs and others none; all processes of the
            run raise what the first has found.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen: Any = None
    try:
        chosen = choose(int(os.environ.get("LOCAL_RANK", "0")))
    except TrainError as error:
        chosen = error
    if size == 1:
        if isinstance(chosen, TrainError):
            raise chosen
        return World(0, 1, chosen)
    # Gloo needs no GPU: a process without one can say so here, and nobody waits for it.
    dist.init_process_group("gloo")
    everyones: List[Any] = [None] * size
    name = "" if isinstance(chosen, TrainError) else describe_hardware(chosen)["name"]
    dist.all_gather_object(everyones, (chosen, name))
    _require_one_kind(everyones)
    gradients = dist.new_group(backend="nccl") if chosen.type == "cuda" else dist.group.WORLD
    messages = dist.new_group(backend="gloo", timeout=PATIENCE)
    cards = tuple(name for _device, name in everyones)
    return World(rank, size, chosen, messages, gradients, Watch(rank, size, lost), cards)


def _require_one_kind(everyones: Sequence[Tuple[Any, str]]) -> None:
    """Raise the first error among the devices that the processes have, or if some are GPUs and others not: they would
    wait for each other in groups of different kinds.

    Args:
        everyones: Each process's device and its name, or the error that it met in place of one.
    """
    for device, _name in everyones:
        if isinstance(device, TrainError):
            raise device
    first, first_name = everyones[0]
    for rank, (device, name) in enumerate(everyones):
        if device.type != first.type:
            raise TrainError(
                _(
                    "process {rank} computes on {name} ({kind}), process 0 on {first_name} ({first_kind}): "
                    "give every process a GPU, or none (CUDA_VISIBLE_DEVICES=)",
                    rank, name, device.type, first_name, first.type,
                )
            )  # fmt: skip
