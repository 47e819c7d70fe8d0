"""The errors that end a run early, each with the status that outcome.json gives it.

Only ``run`` catches them: it writes the outcome and prints one line.

    TrainError (error)
      DataError          a token file is missing, too short or not what its manifest says
      NoGpu              there are GPUs, and torch can't use them
      CheckpointError    nothing to resume from, or a checkpoint of another run
      DiskFull           no room for a checkpoint; the older ones are untouched
      PeerLost           another process of the run has ended
      Diverged           (diverged) the loss is not finite or far above that of guessing
      OutOfMemory        (oom) names a batch size that would fit
"""

from __future__ import annotations

import errno

from .sentences import _


class TrainError(Exception):
    """An end with a reason that a person can act on: printed as one line, without a traceback."""

    status = "error"


class DataError(TrainError):
    """A token file is missing, too short or not what its manifest says."""


class NoGpu(TrainError):
    """There are GPUs that can't be used: on the CPU the run would waste a night, and the GPUs."""


class CheckpointError(TrainError):
    """There is nothing to resume from, or the checkpoint belongs to another run."""


class DiskFull(TrainError):
    """A checkpoint could not be written for want of room."""


class PeerLost(TrainError):
    """A collective failed because another process has ended; that process has the real reason."""

    def __init__(self) -> None:
        super().__init__(_("another process of the run has ended"))


class Diverged(TrainError):
    """The loss is not finite, or has stayed far above that of guessing."""

    status = "diverged"


class OutOfMemory(TrainError):
    """The micro-batch does not fit into the device's memory."""

    status = "oom"


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error, or one that caused it, says that the disk or the user's quota is full."""
    seen: "list[BaseException]" = []
    current: "BaseException | None" = error
    while current is not None and current not in seen:
        if isinstance(current, OSError) and current.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        seen.append(current)
        current = current.__cause__ or current.__context__
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of PyTorch or Python says that memory ran out, on a GPU or on the host."""
    # torch.cuda.OutOfMemoryError is a RuntimeError with the first of these; the CPU's allocator and the libraries that
    # allocate for themselves (cuBLAS, cuDNN, cuSOLVER) have no class of their own. cuBLAS can't begin without memory.
    signs = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "cudaErrorMemoryAllocation")
    text = str(error)
    is_start = "CUBLAS_STATUS_NOT_INITIALIZED" in text and "cublasCreate" in text
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and (is_start or any(sign in text for sign in signs))
    )


def is_peer_lost(error: BaseException) -> bool:
    """Tell whether an error of gloo or NCCL says that the other side is gone."""
    text = str(error).lower()
    signs = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused")
    remote = ("remote process exited", "nccl communicator was aborted", "socket timeout", "heartbeat")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs + remote)
