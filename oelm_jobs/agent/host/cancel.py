"""End runs of a plain host from outside: through their supervisor while it lives, else directly."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

from .. import processes, records, rundir
from ..reasons import because
from ..run import place, result
from ..states import State
from .host import STOP_GRACE_S

if TYPE_CHECKING:
    from .. import messages

PATIENCE_S = 10.0
"""A supervisor that has not ended by then is ended itself, and its processes with it; a keeper with its last run."""
MOST_S = 90.0
"""After so long whoever asks has an answer, although a run's program may have more time than this."""
KILL_S = 2.0
"""So long what is left is killed again and again: it may be forking."""


def cancel(request: messages.RunDirs) -> messages.Cancelled:
    """End runs, waiting or running; harmless for a run that is over.

    Args:
        request: ``run_dirs``.

    Returns:
        ``runs``: run directory to ``cancelled``, ``not running`` or ``still ending`` (the kernel has not let go of it,
            or its program has more time for a checkpoint than an answer takes).
    """
    waiting: Dict[str, float] = {}
    patience: Dict[str, float] = {}
    answers = {}
    answered_by = time.monotonic() + MOST_S
    # From the last: a run that would start when the one before it ends is cancelled before that.
    for run_dir in reversed(request["run_dirs"]):
        answers[run_dir] = "not running"
        if rundir.is_locked(rundir.control(run_dir, rundir.CLAIM)):
            record = records.RUN.read_if_sound(run_dir)
            patience[run_dir] = PATIENCE_S + max(0.0, place.stop_grace(record, STOP_GRACE_S) - STOP_GRACE_S)
            waiting[run_dir] = time.monotonic() + patience[run_dir]
        elif processes.of_run(run_dir):
            answers[run_dir] = "cancelled" if _kill_all(run_dir) else "still ending"
    while waiting:
        for run_dir, deadline in list(waiting.items()):  # still from the last
            if not rundir.is_locked(rundir.control(run_dir, rundir.CLAIM)):
                del waiting[run_dir]
            elif answers[run_dir] == "not running" and _ask(run_dir):
                answers[run_dir] = "cancelled"
                waiting[run_dir] = time.monotonic() + patience[run_dir]  # writing thousands of them down takes its time
            elif patience[run_dir] > MOST_S and time.monotonic() >= answered_by:
                del waiting[run_dir]
                answers[run_dir] = "still ending"
            elif time.monotonic() >= deadline:
                del waiting[run_dir]
                answers[run_dir] = "cancelled" if _kill_supervised(run_dir) else "still ending"
        time.sleep(0.05)
    return {"runs": answers}


def _ask(run_dir: str) -> bool:
    """Ask the holder of the claim to end its run; False while the claim doesn't name a live process, because a launch
    has taken it and not started one yet.
    """
    holder, is_keeper = _holder(run_dir)
    if holder is None:
        return False
    content = {"by": "oelm-cancel", "time": time.time()}
    with contextlib.suppress(OSError):  # on a full disk the signal alone has to do
        # After a power cut nothing would start a run that only waited: of thousands none is synced.
        rundir.write_json(rundir.control(run_dir, rundir.CANCEL), content, durable=not is_keeper)
    processes.send([holder], signal.SIGTERM)
    return True


def _holder(run_dir: str) -> "Tuple[Optional[processes.Identity], bool]":
    """Return the live process that took the claim, and whether it keeps it for a run that was not started yet."""
    claim = rundir.read_json(rundir.control(run_dir, rundir.CLAIM)) or {}
    identity = processes.Identity.from_json(claim)
    return identity if identity is not None and identity.is_alive() else None, bool(claim.get("keeper"))


def _keeps_others(keeper: processes.Identity) -> bool:
    """Tell whether a keeper may hold claims of runs whose end nobody has asked for."""
    folder, claim = "/proc/%d/fd/" % keeper.pid, "/%s/%s" % (rundir.CONTROL, rundir.CLAIM)
    try:
        held = [os.readlink(folder + handle) for handle in os.listdir(folder)]
    except OSError:  # it is at work after all, or this host doesn't say
        return True
    claims = [path for path in held if path.endswith(claim)]
    return not all(os.path.exists(path[: -len(rundir.CLAIM)] + rundir.CANCEL) for path in claims)


def _kill_supervised(run_dir: str) -> bool:
    """Kill a supervisor that doesn't end, and all it started; return whether nothing is left.

    A keeper that is stopped lives on for others that wait with it: it starts only what nobody has cancelled.
    """
    holder, is_keeper = _holder(run_dir)
    if holder is not None and is_keeper and _keeps_others(holder):
        return rundir.control(run_dir, rundir.CANCEL).exists()
    family: List[processes.Identity] = []
    if holder is not None:
        # What a keeper has started are other runs.
        family = processes.descendants_of(holder.pid) if not is_keeper else [holder]
        # The supervisor goes first, or it would judge the death of its ranks.
        processes.send([holder], signal.SIGKILL)
    return _kill_all(run_dir, family)


def _kill_all(run_dir: str, also: Sequence[processes.Identity] = ()) -> bool:
    """Kill what is left of a run without a supervisor and record its end; return whether all is gone."""
    deadline = time.monotonic() + KILL_S
    left = [*processes.of_run(run_dir), *also]
    lived = bool(left)
    while left and time.monotonic() < deadline:
        processes.send(left, signal.SIGKILL)
        time.sleep(0.05)
        left = [*processes.of_run(run_dir), *(identity for identity in also if identity.is_alive())]
    try:
        handle = rundir.lock(rundir.control(run_dir, rundir.CLAIM), patience_s=2.0)
    except rundir.Busy:
        return False
    try:
        record = records.RUN.read_if_sound(run_dir)
        path = rundir.control(run_dir, "").parent
        reason = because("cancelled")
        attempts, _ = result.attempts_so_far(path, lambda start: reason, end_state=State.CANCELLED, lived=lived)
        first = attempts[0].get("started_at") if attempts else None
        queued_at = rundir.finite(record.queued_at if record else None) or rundir.finite(first) or time.time()
        try:
            result.write(path, record, State.CANCELLED, reason, attempts, queued_at)
        except OSError:  # a full disk: the end record at least
            result.write_end(path, record, State.CANCELLED, reason, attempts)
    finally:
        os.close(handle)
    return not left
