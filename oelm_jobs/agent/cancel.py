"""Owns how a run is ended from outside; leaves ending its processes to its supervisor while that lives."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Dict

from . import result, rundir

PATIENCE_S = 10.0
"""A supervisor that has not ended by then is ended itself, and its processes with it."""


def cancel(request: Dict[str, Any]) -> Dict[str, Any]:
    """End runs, wherever they stand; harmless for a run that is over.

    Args:
        request: ``run_dirs``.

    Returns:
        ``runs``: run directory to ``cancelled``, ``not running`` or ``still ending``.
    """
    waiting = {}  # type: Dict[str, float]
    answers = {}
    # From the last: a run that would start when the one before it ends is cancelled before that.
    for run_dir in reversed(request["run_dirs"]):
        answers[run_dir] = "not running"
        if rundir.is_locked(rundir.control(run_dir, rundir.CLAIM)):
            with contextlib.suppress(OSError):  # on a full disk the signal alone has to do
                rundir.write_json(rundir.control(run_dir, rundir.CANCEL), {"by": "oelm-cancel", "time": time.time()})
            if _signal_supervisor(run_dir, signal.SIGTERM):
                waiting[run_dir] = time.monotonic() + PATIENCE_S
                answers[run_dir] = "cancelled"
        elif rundir.processes_of(run_dir):
            _kill_all(run_dir)
            answers[run_dir] = "cancelled"
    while waiting:
        for run_dir, deadline in list(waiting.items()):
            if not rundir.is_locked(rundir.control(run_dir, rundir.CLAIM)):
                del waiting[run_dir]
            elif time.monotonic() >= deadline:
                del waiting[run_dir]
                # The supervisor goes first, or it would judge the death of its ranks.
                _signal_supervisor(run_dir, signal.SIGKILL)
                _kill_all(run_dir)
        time.sleep(0.05)
    return {"runs": answers}


def _signal_supervisor(run_dir: str, number: int) -> bool:
    """Signal the holder of the claim if it is the very process that took it."""
    claim = rundir.read_json(rundir.control(run_dir, rundir.CLAIM))
    identity = rundir.Identity.from_json(claim)
    if identity is None or not identity.is_alive():
        return False
    try:
        os.kill(identity.pid, number)
    except ProcessLookupError:
        return False
    return True


def _kill_all(run_dir: str) -> None:
    """Kill what is left of a run that has no supervisor any more, and record its end."""
    left = rundir.processes_of(run_dir)
    for identity in left:
        if identity.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(identity.pid, signal.SIGKILL)
    try:
        handle = rundir.lock(rundir.control(run_dir, rundir.CLAIM), patience_s=2.0)
    except rundir.Busy:
        return
    try:
        record = rundir.read_json(rundir.control(run_dir, rundir.RUN)) or {}
        end = rundir.read_json(rundir.control(run_dir, rundir.END)) or {}
        start = rundir.read_json(rundir.control(run_dir, rundir.START)) or {}
        attempts = list(end.get("attempts", []))
        if start and all(attempt.get("number") != start.get("number") for attempt in attempts):
            attempts.append(
                dict(result.lost_attempt(start, "cancelled"), state=rundir.CANCELLED, ended_at=time.time())
            )
        path = rundir.control(run_dir, "").parent
        result.write(
            path, record, rundir.CANCELLED, "cancelled", attempts, float(start.get("started_at") or time.time())
        )
    finally:
        os.close(handle)
