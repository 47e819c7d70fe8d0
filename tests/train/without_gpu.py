"""Train without a GPU while the background thread prepares batches, for tests of that thread.

Run as a module, it trains, and preparing step OELM_TEST_FAILS_AT fails on rank OELM_TEST_FAILS_ON.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import torch

from train import __main__ as command
from train.data import TrainingBatches


def prepare_ahead(fails_at: int, error: BaseException) -> None:
    """Have this process's batches prepared by the thread, as on a GPU, and step ``fails_at`` fail with ``error``."""
    make, gather = TrainingBatches.__init__, TrainingBatches.host_batches

    def made(self: TrainingBatches, *arguments: Any) -> None:
        make(self, *arguments)
        self._ahead = 2

    def gathered(self: TrainingBatches, step: int) -> list[torch.Tensor]:
        if step == fails_at:
            raise error
        return gather(self, step)

    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[assignment, method-assign]  # in its place
    TrainingBatches.__init__ = made  # type: ignore[method-assign]  # in its place
    TrainingBatches.host_batches = gathered  # type: ignore[method-assign]  # in its place


if __name__ == "__main__":
    is_faulty = os.environ["OELM_TEST_FAILS_ON"] in (os.environ.get("RANK", "0"), "all")
    fails_at = int(os.environ["OELM_TEST_FAILS_AT"]) if is_faulty else -1
    prepare_ahead(fails_at, OSError(errno.EIO, os.strerror(errno.EIO)))
    sys.exit(command.main())
