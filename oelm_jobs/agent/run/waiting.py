"""What a supervisor waits for, as a record in the run directory, which goes when the wait is over."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Union

from .. import reasons, records, rundir


def write(run_dir: Union[str, Path], token: str, reason: str) -> None:
    """Record what an execution waits for from now on; a full disk doesn't end a wait, and leaves no older record."""
    content = {"version": 1, "token": token, "time": time.time(), **reasons.told(reason)}
    try:
        rundir.write_json(rundir.control(run_dir, rundir.WAITING), content, durable=False)
    except OSError:
        clear(run_dir)


def clear(run_dir: Union[str, Path]) -> None:
    """Record that the wait is over; harmless where there was none."""
    with contextlib.suppress(OSError):
        rundir.control(run_dir, rundir.WAITING).unlink()


def read(run_dir: Union[str, Path], token: str, since: float = 0.0) -> str:
    """Return what the execution of a submission waits for, or waited for when it was lost; empty where it doesn't.

    Args:
        since: When that execution began, Unix seconds.
    """
    record = records.WAITING.read_if_sound(run_dir) or {}
    is_its = record.get("token") == token and (rundir.finite(record.get("time")) or 0.0) >= since
    return reasons.read(record) if is_its else ""
