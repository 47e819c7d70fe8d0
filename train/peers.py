"""Notice at once that another process of the run has ended, also where this one waits for a GPU and would for ever.

A collective of a GPU that lacks a process never ends, and no signal reaches Python meanwhile. So each process has a
thread that listens to the next one, in a ring, and passes on what it hears.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
import threading
from typing import Callable

import torch
import torch.distributed as dist

from .checkpoint import WRITING_THREAD

PATIENCE_S = 5.0
"""So long a process may take to find out by itself that another one is gone: it knows more than the thread does."""
_ENDED_WELL, _LOST = 1.0, 2.0


class Watch:
    """Watches the other processes until ``leave``. Collective."""

    def __init__(self, rank: int, size: int, lost: Callable[[], None]) -> None:
        """Begin.

        Args:
            lost: What to do, in the watching thread, before this process is ended because another one has ended.
        """
        self._next, self._previous, self._lost = (rank + 1) % size, (rank - 1) % size, lost
        self._left = threading.Event()
        # A group of its own: what waits here must not stand in the way of other messages, nor ever time out.
        self._group = dist.new_group(backend="gloo", timeout=datetime.timedelta(days=3650))
        self._thread = threading.Thread(target=self._listen, name="watch", daemon=True)
        self._thread.start()

    def warn(self) -> None:
        """Tell the others that this process has failed and will end."""
        self._tell(_LOST)

    def leave(self) -> None:
        """Tell the others that this process ends well, and wait until the next one does. Collective."""
        self._left.set()
        self._tell(_ENDED_WELL)
        self._thread.join()

    def _listen(self) -> None:
        heard = torch.full((1,), _LOST)
        with contextlib.suppress(RuntimeError):  # the connection is gone
            dist.recv(heard, src=self._next, group=self._group)
        if heard.item() == _ENDED_WELL:
            return
        self.warn()
        if not self._left.wait(PATIENCE_S):
            self._lost()
            end_at_once(1)

    def _tell(self, what: float) -> None:
        with contextlib.suppress(RuntimeError):
            dist.send(torch.full((1,), what), dst=self._previous, group=self._group)


def end_at_once(code: int) -> None:
    """End this process without a word to the others or to a GPU, which may never answer; a checkpoint that is being
    written is finished.
    """
    for thread in threading.enumerate():
        if thread.name == WRITING_THREAD:  # others may wait for work for ever, as those of torch.compile do
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
