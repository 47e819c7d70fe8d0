"""Tell oelm-jobs how far a program has come, and ask whether it should stop; outside a run nothing happens.

    import oelm_run

    for step in range(first, steps):
        ...
        oelm_run.log(step=step, loss=loss)
        if oelm_run.should_stop():
            save(step)
            break

A run's program can import this file without installing it. It needs the standard library alone (Python 3.8), so that
it may be copied beside a script that is also started by hand. docs/run-directory.md describes what it writes.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Dict, Optional, Set

RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
"""Variables that number a run's processes, the innermost launcher's first: the first that is set decides."""
LOCAL_RANKS = ("LOCAL_RANK", "NODE_RANK")
"""What the first process has 0 of, too; some launchers set none but these."""


def log(step: Any = None, **values: Any) -> None:
    """Record numbers of a step: a line of metrics.jsonl in the run directory, from which the status follows.

    Only the first of a run's processes writes. What can't be written or is no number is named on stderr, once.

    Args:
        step: Without one, the values belong to the last step that was named.
        values: Numbers, or what has one (a tensor, a NumPy scalar).
    """
    run_dir = os.environ.get("OELM_RUN_DIR")
    if run_dir and _is_first():
        try:
            with _lock:
                _log.add(run_dir, step, values)
        except Exception as error:  # nothing that is wrong here is worth the training
            _complain("metrics can't be written: %s" % error)


def should_stop() -> bool:
    """Tell whether the run was asked to end (SIGTERM): write a checkpoint then, and exit.

    From the first call on, SIGTERM does not end the program by itself any more; a handler that the program has by then
    is called as before. Each process answers for itself: those that train together agree before they leave their loop.
    """
    if os.environ.get("OELM_RUN_DIR") and not _stop.is_listening:
        _stop.listen()
    return _stop.is_asked_for


def _is_first() -> bool:
    rank = next((os.environ[name] for name in RANKS if os.environ.get(name)), "0")
    return rank == "0" and all(os.environ.get(name) in (None, "", "0") for name in LOCAL_RANKS)


class _Log:
    """metrics.jsonl, kept up by one process."""

    def __init__(self) -> None:
        self._run_dir = ""
        self._file = -1
        self._is_torn = False  # the last line lacks its end
        self._step = 0

    def add(self, run_dir: str, step: Any, values: Dict[str, Any]) -> None:
        if run_dir != self._run_dir:
            self._open(run_dir)
        if step is not None:
            self._step = int(step)
        record = {"step": self._step, "time": time.time()}
        for name, value in values.items():
            if name == "time":
                _complain("a metric can't be called time: every line has its own")
                continue
            try:
                record[name] = _number(value)
            except (TypeError, ValueError):
                _complain("%s is left out: %s is no number" % (name, type(value).__name__))
        # One call for each line: what was logged is in the file, whole, if the process is killed now.
        line = (b"\n" if self._is_torn else b"") + json.dumps(record).encode() + b"\n"
        self._is_torn = True
        self._is_torn = os.write(self._file, line) < len(line)

    def _open(self, run_dir: str) -> None:
        path = os.path.join(run_dir, "metrics.jsonl")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        size = os.fstat(self._file).st_size  # an attempt that was killed, or a full disk, may have left half a line
        self._is_torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        self._run_dir = run_dir


class _Stop:
    """Whether SIGTERM has come."""

    def __init__(self) -> None:
        self.is_listening = False
        self.is_asked_for = False
        self._before: Any = None

    def listen(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        try:
            if before is None:
                raise ValueError("SIGTERM has a handler that isn't Python's")
            signal.signal(signal.SIGTERM, self._on_term)
        except ValueError as error:  # as in another thread than the main one
            _complain("should_stop() does not hear of a stop: %s" % error)
        else:
            self._before, self.is_listening = before, True

    def _on_term(self, number: int, frame: Optional[FrameType]) -> None:
        self.is_asked_for = True
        if callable(self._before):
            self._before(number, frame)

    def after_fork(self) -> None:
        """Leave a forked process, such as one that loads data, the handler that it would have had."""
        if self.is_listening and signal.getsignal(signal.SIGTERM) == self._on_term:
            signal.signal(signal.SIGTERM, self._before)
        self.is_listening = False


def _number(value: Any) -> Any:
    """Return what JSON has for a number; one that isn't finite is text ("nan", "inf", "-inf").

    Raises:
        TypeError, ValueError: It is none.
    """
    if isinstance(value, (bool, int)):
        return value
    item = getattr(value, "item", None)  # PyTorch warns of float(tensor) where a gradient hangs on it
    number = float(item() if callable(item) else value)
    return number if math.isfinite(number) else str(number)


def _complain(words: str) -> None:
    """Say something on stderr, once."""
    if words not in _said:
        _said.add(words)
        with contextlib.suppress(Exception):  # closed, or as full as the disk
            sys.stderr.write("oelm_run: %s\n" % words)


_lock = threading.Lock()
_log, _stop = _Log(), _Stop()
_said: Set[str] = set()
os.register_at_fork(after_in_child=_stop.after_fork)
