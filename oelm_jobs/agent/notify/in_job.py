"""What a Slurm job starts to tell people of its run; on a plain host somebody watches over all runs."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from . import declared

if TYPE_CHECKING:
    from ..run_record import RunRecord

TELL_S, TELL_STOPPED_S = 20.0, 5.0
"""So long a job waits until people are told of its end; where Slurm ends it, it has less."""


class Teller:
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
            self._watcher = declared.begin("stalled", told.folder, self._run_dir, listens=True)
            if self._watcher is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._watcher.wait(10)  # it has forked by then

    def tell_of_end(self, *, is_stopped: bool) -> None:
        """Have told how the run ended. What can't be sent in that time is the login node's to send."""
        told = self._told()
        teller = declared.begin("job", told.folder) if told is not None else None
        if teller is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                teller.wait(TELL_STOPPED_S if is_stopped else TELL_S)

    def _told(self) -> Optional[declared.Declared]:
        return declared.read(Path(self._folder)) if self._folder else None
