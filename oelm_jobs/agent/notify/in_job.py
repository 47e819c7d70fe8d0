"""What a Slurm job starts to tell people of its run; on a plain host somebody watches over all runs."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from . import declared

if TYPE_CHECKING:
    from ..run_record import RunRecord

TELL_S, TELL_STOPPED_S = 20.0, 5.0
"""So long a job waits until people are told of its end; where Slurm ends it, it has less."""
TRY_S, TRY_STOPPED_S = 8.0, 3.0
"""So long a try of a job's may take: one that its end cuts short may have arrived, and nobody makes it again."""
FORK_S = 10.0
"""So long a job waits for what watches over it to become nobody's child."""
SPARE_S = 1.0
"""So long before it goes the last try is over, and what became of it on record."""


class JobTeller:
    """Starts the processes that tell of a run, of one that is to be told of."""

    def __init__(self, record: RunRecord) -> None:
        self._folder, self._run_dir = record.notify, record.run_dir
        self._watcher: "Optional[subprocess.Popen[bytes]]" = None
        """Holds the pipe at whose end the other process goes."""

    def watch_for_stalls(self) -> None:
        """Start what tells of a run that makes no progress. It becomes no descendant of this process, which takes those
        for its run's and ends them.
        """
        told = self._told()
        if told is not None and "stalled" in told.notify["on"]:
            self._watcher = declared.begin("stalled", told.folder, self._run_dir, TRY_S)
            if self._watcher is not None:
                try:
                    self._watcher.wait(FORK_S)
                except subprocess.TimeoutExpired:  # a process that comes later would be taken for the run's
                    self._watcher.kill()
                    self._watcher.wait()

    def tell_of_end(self, *, is_stopped: bool) -> None:
        """Have told how the run ended. What can't be sent in that time is the login node's to send."""
        tell_s, try_s = (TELL_STOPPED_S, TRY_STOPPED_S) if is_stopped else (TELL_S, TRY_S)
        until = time.monotonic() + tell_s
        told = self._told()
        if told is None:
            return
        teller = declared.begin("job", told.folder, self._run_dir, until - SPARE_S, try_s)
        if teller is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                teller.wait(max(0.0, until - time.monotonic()))

    def _told(self) -> Optional[declared.Declared]:
        return declared.read(Path(self._folder)) if self._folder else None
