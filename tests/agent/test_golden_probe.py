"""Where runs on a plain host stand, for all that their records and locks may say: as it always was.

``UPDATE_GOLDEN=1 pytest tests/agent/test_golden_probe.py`` writes it anew; read the difference before committing it.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oelm_jobs.agent import probe, processes, rundir
from tests.golden import compare, table

TOKEN, OLD = "oelm-1", "oelm-0"
OURS, EARLIER = "boot-2", "boot-1"
CLAIMS = [(TOKEN, OURS), (TOKEN, EARLIER), ("", OURS)]
"""Token and boot."""
STARTS = [(TOKEN, 1, OURS), (TOKEN, 1, EARLIER), (TOKEN, 2, OURS), (OLD, 1, OURS)]
"""Token, number of the attempt, boot."""
PROGRESS = ("step", "max_steps", "tokens_per_s", "loss", "heartbeat_at", "val_loss")
LOGS = {"no log": None, "launched": rundir.LAUNCHED, "waits": "waiting for 1 GPU", "set-up": "set-up failed"}


def columns() -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any] | None]]:
    """Yield claim, start record and end record of a run."""
    claims = [None, *({"token": token, "boot_id": boot} for token, boot in CLAIMS)]
    more = {"devices": ["cpu:0"], "started_at": 2.0}
    starts = [None, *({"token": token, "number": number, "boot_id": boot, **more} for token, number, boot in STARTS)]
    ends: list[dict[str, Any] | None] = [None]
    for (state, reason), token in itertools.product([("DONE", ""), ("FAILED", "NaN"), ("CANCELLED", "")], (TOKEN, OLD)):
        ends.append({"token": token, "state": state, "reason": reason, "ended_at": 3.0, "attempts": [{"number": 1}]})
    yield from itertools.product(claims, starts, ends)


def make(run_dir: Path, records: dict[str, dict[str, Any] | None], log: str | None, is_cancelled: bool) -> None:
    """Write what a run has left."""
    control = run_dir / rundir.CONTROL
    control.mkdir(parents=True)
    for name, record in records.items():
        if record is not None:
            (control / name).write_text(json.dumps(record))
    if log is not None:
        (control / rundir.SUPERVISOR_LOG).write_text(rundir.log_line(log))
    if is_cancelled:
        (control / rundir.CANCEL).write_text("{}")


def ask(run_dir: Path, is_held: bool) -> dict[str, Any]:
    """Return where a run stands; of progress only whether it was read is kept."""
    claim = run_dir / rundir.CONTROL / rundir.CLAIM
    handle = os.open(claim, os.O_RDWR) if is_held and claim.exists() else None
    if handle is not None:
        fcntl.flock(handle, fcntl.LOCK_EX)
    row = probe.state(str(run_dir), lambda: {str(run_dir): 3})
    if handle is not None:
        os.close(handle)
    if "step" in row:
        assert [row.pop(key) for key in PROGRESS] == [None] * len(PROGRESS)
        row["progress"] = True
    return row


@pytest.mark.slow
def test_each_of_thousands_of_cases_has_its_state_and_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "boot_id", lambda: OURS)
    lines: dict[str, list[dict[str, Any]]] = {}
    for (log, text), is_cancelled in itertools.product(LOGS.items(), (False, True)):
        names = f"{log}, {'cancelled' if is_cancelled else 'not cancelled'}"
        run_dirs = []
        for number, found in enumerate(columns()):
            run_dirs.append(tmp_path / names / f"exp_{number}")
            make(run_dirs[-1], dict(zip((rundir.CLAIM, rundir.START, rundir.END), found, strict=True)), text,
                 is_cancelled)  # fmt: skip
        for is_held, lives_on in ((False, False), (False, True), (True, False)):
            monkeypatch.setattr(processes, "of_run", lambda run_dir, lives_on=lives_on: [object()] * lives_on)
            how = "claim held" if is_held else "processes live on" if lives_on else "nothing lives"
            lines[f"{names}, {how}"] = [ask(run_dir, is_held) for run_dir in run_dirs]
    compare("states/host_rows.txt", table(lines))
