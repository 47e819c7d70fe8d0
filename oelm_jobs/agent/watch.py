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
from typing import Any, Dict, Optional, Tuple

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
JOB_S = 10.0
"""After so long a job begins no other try: what is left then is the login node's."""


def main() -> None:
    """Do what the first line of stdin says: what, a study's folder, a run directory."""
    what, folder, run_dir = json.loads(sys.stdin.readline())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # Slurm sends them to all of a job; each way ends by itself
    if what == "watch":
        watch(Path(folder))
    elif what == "job":
        in_job(Path(folder))
    elif what == "stalled":
        if os.fork():  # no descendant of the supervisor, which ends what its run leaves
            os._exit(0)
        for_stalls(Path(folder), run_dir)
    else:
        send(Path(folder))


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
        teller, box, pause_s = Teller(), Outbox(folder), FIRST_S
        while _version(folder) == version:
            found, is_told = declarations.read(folder), False
            if found is None:
                return
            with contextlib.suppress(OSError):  # a full disk: what can't be noted yet is looked at again
                is_over = teller.look(found, _on_host)
                is_told = box.send(found.notify) is None and is_over
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


def in_job(folder: Path) -> None:
    """Tell what the runs' own records say, at the end of one of them."""
    found = declarations.read(folder)
    if found is not None:
        Teller().look(found, by_records)
        found.outbox.send(found.notify, patience_s=JOB_S)


def for_stalls(folder: Path, run_dir: str) -> None:
    """Tell of a run that makes no progress, until stdin is closed."""
    teller = Teller()
    while True:
        found = declarations.read(folder)
        if found is None or run_dir not in found.runs or "stalled" not in found.notify["on"]:
            return
        own = found._replace(runs={run_dir: found.runs[run_dir]})
        teller.look(own, _in_job)
        found.outbox.send(found.notify, patience_s=JOB_S)
        ready, _, _ = select.select([sys.stdin], [], [], min(PERIOD_S, _shortest_stall_s(found)))
        if ready:
            return


def _in_job(run_dir: str, token: str) -> Optional[Row]:
    """Return the row of a run whose job this is; its end is its supervisor's to tell."""
    start = records.START.read_if_sound(run_dir) or {}
    is_its = start.get("token") == token
    return {"token": token, "state": State.RUNNING, "attempt": start.get("number")} if is_its else None


# A login node ---------------------------------------------------------------------------------------------------------


def send(folder: Path) -> None:
    """Send what is due of a study whose runs are Slurm's, once."""
    found = declarations.read(folder)
    if found is not None:
        found.outbox.send(found.notify)
