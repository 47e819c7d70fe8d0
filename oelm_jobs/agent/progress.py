"""Owns what a run says of itself while it goes: step, loss, rate, the newest words of its supervisor; leaves its state
to probe and slurm_state.
"""

from __future__ import annotations

import json
from typing import Any, Dict

from . import rundir


def progress(run_dir: str) -> Dict[str, Any]:
    """Return what the trainer last said: step, max_steps, loss, tokens_per_s, heartbeat_at and val_loss."""
    heartbeat = rundir.read_json(run_dir + "/" + rundir.HEARTBEAT) or {}
    row = {name: heartbeat.get(name) for name in ("step", "max_steps", "loss", "tokens_per_s")}
    # An attempt that ended went on after its last heartbeat.
    outcome = rundir.read_json("%s/%s/%s" % (run_dir, rundir.CONTROL, rundir.OUTCOME)) or {}
    if outcome.get("attempt") == heartbeat.get("attempt") and outcome.get("step"):
        row["step"] = outcome["step"]
    return dict(row, heartbeat_at=heartbeat.get("time"), val_loss=_last_val_loss(run_dir))


def last_said(control: str) -> str:
    """Return the newest line of the supervisor's log, without its time; empty before the newest launch wrote one.

    Args:
        control: The run's control folder, with a slash at its end.
    """
    lines = rundir.last_lines(control + rundir.SUPERVISOR_LOG, 1)
    line = lines[0] if lines else ""
    words = line[20:] if line[:2] == "20" and line[19:20] == " " else line
    return "" if words == rundir.LAUNCHED else words


def _last_val_loss(run_dir: str) -> Any:
    for line in reversed(rundir.tail(run_dir + "/" + rundir.METRICS, 16384).splitlines()):
        if b'"val_loss"' not in line:
            continue
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and rundir.finite(record.get("val_loss")) is not None:
            return record["val_loss"]
    return None
