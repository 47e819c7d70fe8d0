"""What a run says of itself while it goes: step, loss, rate, the newest words of its supervisor."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Dict, Union

from .. import reasons, records, rundir
from ..sentences import joined
from ..states import State
from ..verbs import METRIC, METRIC_NAME, MOST_METRICS

if TYPE_CHECKING:
    from ..messages import Progress
    from ..record_types import HeartbeatRecord


def add_progress(row: Dict[str, Any], run_dir: str) -> None:
    """Add to a run's row what the trainer last said: step, max_steps, loss, tokens_per_s, heartbeat_at and val_loss; of
    a script the metrics, too, and while it runs the remark on it.
    """
    heartbeat = records.HEARTBEAT.read_if_sound(run_dir) or {}
    row.update(_progress(run_dir, heartbeat))
    remark = reasons.read(heartbeat)
    is_its = heartbeat.get("attempt") == rundir.attempt_mark(row.get("token"), row.get("attempt"))
    if remark and is_its and row["state"] == State.RUNNING:
        row.update(reasons.told(joined((reasons.read(row), remark))))


def _progress(run_dir: str, heartbeat: HeartbeatRecord) -> Progress:
    # Of a run that diverges the loss is no number; nothing else that makes no sense is passed on either.
    step = _number(heartbeat.get("step"))
    # An attempt that ended went on after its last heartbeat.
    outcome = records.OUTCOME.read_if_sound(run_dir) or {}
    if outcome.get("attempt") == heartbeat.get("attempt") and _number(outcome.get("step")):
        step = outcome["step"]
    found: Progress = {
        "step": step,
        "max_steps": _number(heartbeat.get("max_steps")),
        "tokens_per_s": _number(heartbeat.get("tokens_per_s")),
        "loss": rundir.finite(heartbeat.get("loss")),
        "heartbeat_at": _number(heartbeat.get("time")),
        "val_loss": _last_val_loss(run_dir),
    }
    told = heartbeat.get("metrics")
    if told is not None:
        found["metrics"] = _metrics(told)
    return found


def _metrics(told: Any) -> Dict[str, Union[float, str]]:
    """Return a record's metrics, as many as an answer holds; what can't be one is left out."""
    found = [
        (name, value)
        for name, value in (told.items() if isinstance(told, dict) else ())
        if METRIC_NAME.wrong(name) is None and METRIC.wrong(value) is None
    ]
    return dict(found[:MOST_METRICS])


def _number(value: Any) -> Any:
    """Return a count, rate or time of a record; None where it can't be one."""
    return value if rundir.finite(value) is not None and 0 <= value < 1e300 else None


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
        with contextlib.suppress(ValueError):
            record = json.loads(line) if b'"val_loss"' in line else None
            if isinstance(record, dict) and rundir.finite(record.get("val_loss")) is not None:
                return record["val_loss"]
    return None
