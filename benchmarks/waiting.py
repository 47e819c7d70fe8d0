"""What 5,000 runs cost that wait on a plain host, and 300 submissions of one run each: submitting them, their memory,
and processor time while they wait.

Goals: 5,000 submitted within 10 s; all that wait take under 100 MB together, and no processor time.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import submit_many  # beside this file

from oelm_jobs.agent import rundir

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support import launch_runs, make_run

RUNS, SINGLE, SETTLING_S, WATCHED_S = 5_000, 300, 15.0, 60.0
SCRIPT = """#!/usr/bin/env bash
cd {{ code | quote }} || exit 78
exec {{ supervisor | map('quote') | join(' ') }} supervise -- sleep 3600 <<'OELM_RECORD'
{{ record }}
OELM_RECORD
"""


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        place = furnished(folder)
        submit_many.RUNS, submit_many.SCRIPT = RUNS, SCRIPT
        took = submit_many.submit(place, 0, "--mode", "parallel")
        print(f"{RUNS:,} runs submitted: {took:.1f} s (goal: within 10)")
        watch(place, RUNS)
    with tempfile.TemporaryDirectory() as folder:
        place = furnished(folder)
        for number in range(SINGLE):
            launch_runs(place, [(make_run(place, f"r{number:03d}"), ["sleep", "3600"])], token=f"t{number}")
        print(f"{SINGLE} submissions of one run each:")
        watch(place, SINGLE)


def furnished(folder: str) -> Path:
    """Return a folder in which this user's index and leases are."""
    place = Path(folder)
    (place / "leases").mkdir()
    os.environ.update(OELM_STATE_DIR=str(place / "state"), OELM_LEASE_DIR=str(place / "leases"))
    return place


def watch(place: Path, count: int) -> None:
    """Print what processes take that wait with so many runs below a folder, and end them."""
    time.sleep(SETTLING_S)
    claims = list(place.rglob(f"{rundir.CONTROL}/{rundir.CLAIM}"))
    held = [claim for claim in claims if rundir.is_locked(claim)]
    pids = {claim: int((rundir.read_json(claim) or {})["pid"]) for claim in held}
    waiting = {pid for claim, pid in pids.items() if not (claim.parent / rundir.START).exists()}
    try:
        assert len(held) == count, len(held)
        resident, own = (sum(memory_mb(pid, word) for pid in waiting) for word in ("Rss", "Pss"))
        before = sum(map(processor_s, waiting))
        time.sleep(WATCHED_S)
        spent = sum(map(processor_s, waiting)) - before
        print(
            f"{sum(pid in waiting for pid in pids.values()):,} wait in {len(waiting)} processes: {own:.0f} MB"
            f" ({resident:.0f} with what they share counted for each; goal: under 100), and {spent:.2f} s of"
            f" processor time in {WATCHED_S:.0f} s"
        )
    finally:
        for pid in [*waiting, *pids.values()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if pid in waiting else signal.SIGTERM)
        while any(map(rundir.is_locked, held)):  # they write until they have ended
            time.sleep(0.1)


def memory_mb(pid: int, word: str) -> float:
    """Return the memory of a process, resident (``Rss``) or its share of that (``Pss``)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(word + ":"))


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
