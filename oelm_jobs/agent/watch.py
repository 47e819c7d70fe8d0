"""Watch over a study's runs and send what is to be told of them: processes of their own, which no run waits for.

On a plain host one process looks at a study's runs until all are over, and all is sent or given up. A Slurm job has its
own for as long as it runs, and the login node sends what its node can't.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from . import probe, records, rundir
from .notify import declared as declarations
from .notify import ways
from .notify.declared import LOCK, SETTINGS, Declared
from .notify.outbox import Outbox
from .notify.telling import Row, Teller, by_records
from .states import State

FIRST_S, PERIOD_S = 0.5, 5.0
"""Pause between two looks, at the beginning and later."""
SHARE = 0.02
"""So much of a processor looking may take."""
LEAVES_S = 2 * ways.PATIENCE_S
"""So long one that watches has to leave it to the next; it may be sending."""
DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What Slurm sends to all processes of a job; what tells of it ends by itself."""
STALLS_S = 60.0
"""Longest pause between two looks of a job at its own run."""
LOGIN_S = 60.0
"""After so long no other try is begun on a login node: what is left then is the next poll's."""


def main() -> None:
    """Do what the first line of stdin says: what, a study's folder, and what more that takes."""
    what, folder, *more = json.loads(sys.stdin.readline())
    if what in ("job", "stalled"):
        for number in DEAF_TO:
            signal.signal(number, signal.SIG_IGN)
    if what == "watch":
        watch(Path(folder))
    elif what == "job":
        in_job(Path(folder), *more)
    elif what == "stalled":
        if os.fork():  # no descendant of the supervisor, which ends what its run leaves
            os._exit(0)
        for_stalls(Path(folder), *more)
    else:
        polled(Path(folder), *more)


# A plain host ---------------------------------------------------------------------------------------------------------


def watch(folder: Path) -> None:
    """Watch over a study's runs until all are over and all is told. One process does: of several the newest, which has
    the environment of the newest submission; the one before leaves it to that.
    """
    version = _version(folder)
    lock = _turn(folder, version)
    if lock is None:
        return
    try:
        box, pause_s = Outbox(folder), FIRST_S
        teller = Teller(box)
        while _version(folder) == version:
            found, is_told = declarations.read(folder), False
            if found is None:
                return
            with contextlib.suppress(OSError):  # a full disk: what can't be noted yet is looked at again
                is_over = teller.look(found, _on_host)
                is_told = box.send(found.notify, patience_s=PERIOD_S) is None and is_over
            if is_told and found.close():
                return
            pause_s = min(pause_s * 1.5, PERIOD_S)
            time.sleep(max(min(pause_s, _shortest_stall_s(found)), teller.looked_s / SHARE))
    finally:
        os.close(lock)


def _version(folder: Path) -> "Tuple[int, int]":
    """Return what tells the settings from those before and after."""
    try:
        found = os.stat(str(folder / SETTINGS))
    except OSError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def _turn(folder: Path, version: "Tuple[int, int]") -> Optional[int]:
    """Return the lock of who watches, once the one before has left; None where it stays, or a newer one is there."""
    deadline = time.monotonic() + LEAVES_S
    while _version(folder) == version and time.monotonic() < deadline:
        with contextlib.suppress(rundir.Busy):
            try:
                return rundir.lock(folder / LOCK, patience_s=0.5)
            except OSError:
                return None
    return None


def _shortest_stall_s(found: Declared) -> float:
    """Return how often to look, so that a stall is told soon after its time."""
    return found.notify["stalled_after_s"] / 2 if "stalled" in found.notify["on"] else PERIOD_S


def _on_host(run_dir: str, token: str) -> Optional[Row]:
    row: Dict[str, Any] = dict(probe.state_or_unknown(run_dir, dict))
    if row.get("code") == "not_understood":  # nobody mends its records while it is waited for
        row["absent"] = True
    return row


# A Slurm job ----------------------------------------------------------------------------------------------------------


def in_job(folder: Path, run_dir: str, until: float, each_s: float) -> None:
    """Tell of a run's end what its own records say; and where it was the last one, of all.

    Args:
        until: When the job goes, by the monotonic clock.
        each_s: So long a try may take.
    """
    found = declarations.read(folder)
    if found is None or run_dir not in found.runs:
        return
    box = Outbox(folder)
    teller = Teller(box)
    teller.look_at(found, run_dir, by_records)
    box.send_own(found.notify, until=until, each_s=each_s)
    # From the back: what was submitted last is mostly what isn't over, and the first such one is enough.
    others = reversed(list(found.runs.items()))
    if all(time.monotonic() < until and by_records(other, token) for other, (token, _since) in others):
        teller.look(found, by_records)
        box.send_own(found.notify, until=until, each_s=each_s)


def for_stalls(folder: Path, run_dir: str, each_s: float) -> None:
    """Tell of a run that makes no progress, until stdin is closed.

    Args:
        each_s: So long a try may take.
    """
    box = Outbox(folder)
    teller = Teller(box)
    while True:
        began = time.monotonic()
        found = declarations.read(folder)
        if found is None or run_dir not in found.runs or "stalled" not in found.notify["on"]:
            return
        teller.look_at(found, run_dir, _in_job)
        pause_s = max(min(STALLS_S, found.notify["stalled_after_s"] / 10), (time.monotonic() - began) / SHARE)
        box.send_own(found.notify, until=float("inf"), each_s=each_s)
        ready, _, _ = select.select([sys.stdin], [], [], pause_s)
        if ready:
            return


def _in_job(run_dir: str, token: str) -> Optional[Row]:
    """Return the row of a run whose job this is; its end is its supervisor's to tell."""
    start = records.START.read_if_sound(run_dir) or {}
    is_its = start.get("token") == token
    return {"token": token, "state": State.RUNNING, "attempt": start.get("number")} if is_its else None


# A login node ---------------------------------------------------------------------------------------------------------


def polled(folder: Path, root: str, known: Sequence[Tuple[str, str, Row]]) -> None:
    """Note what is to be told of a study whose runs are Slurm's, and send what is due, once; of several that a poll
    starts one does.

    Args:
        known: Run directory, token and row of those that a poll has asked about.
    """
    try:
        lock = rundir.lock(folder / LOCK)
    except (rundir.Busy, OSError):
        return
    try:
        found = declarations.read(folder)
        if found is None or not found.is_slurm:
            return
        rows: Dict[Tuple[str, str], Optional[Row]] = {(run_dir, token): row for run_dir, token, row in known}
        for run_dir, (token, _since) in found.runs.items():
            if (run_dir, token) not in rows:
                rows[run_dir, token] = by_records(run_dir, token)
        left = [(run_dir, token) for run_dir, (token, _s) in found.runs.items() if rows[run_dir, token] is None]
        if left:
            from .slurm import commands, state

            with contextlib.suppress(commands.SlurmError):  # then the next poll says where they stand
                asked = state.rows_of(os.path.expanduser(root), left)
                rows.update({(run_dir, token): asked.get(run_dir) for run_dir, token in left})
        box = Outbox(folder)
        is_over = Teller(box).look(found, lambda run_dir, token: rows.get((run_dir, token)))
        if box.send(found.notify, patience_s=LOGIN_S) is None and is_over:
            found.close()
    finally:
        os.close(lock)
