"""Owns the truth about runs on their host, read from records and locks; decides nothing and changes nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict

from . import lease, rundir

MAX_LOG_BYTES = 1 << 20
"""Largest piece of a log in one answer."""


def probe(request: Dict[str, Any]) -> Dict[str, Any]:
    """Answer where runs stand.

    Args:
        request: ``run_dirs``; ``root``, where given, asks for the host's devices, its queue and the disk there, too.

    Returns:
        ``host``, ``time``, ``runs`` (run directory to its state), and ``devices``, ``queue`` and ``disk_free`` (bytes)
        where asked for.
    """
    answer = {"host": os.uname().nodename, "time": time.time()}  # type: Dict[str, Any]
    queue = {ticket.run_dir: place for place, ticket in enumerate(lease.tickets(), start=1)}
    answer["runs"] = {run_dir: _state(run_dir, queue) for run_dir in request["run_dirs"]}
    if request.get("root"):
        answer.update(lease.table(), disk_free=rundir.disk_free(request["root"]))
    return answer


def _state(run_dir: str, queue: Dict[str, int]) -> Dict[str, Any]:
    """Return state, reason and progress of one run.

    A held claim means alive. An end record of the newest submission is final. Neither: the supervisor was lost, in a
    reboot if the boot id says so; while processes of the run live on without it, the state is UNKNOWN.
    """
    # Plain strings: a status asks for hundreds of runs, and building paths costs more than reading the files.
    control = run_dir + "/" + rundir.CONTROL + "/"
    alive = rundir.is_locked(control + rundir.CLAIM)
    start = rundir.read_json(control + rundir.START) or {}
    end = rundir.read_json(control + rundir.END) or {}
    claim = rundir.read_json(control + rundir.CLAIM) or {}
    token = claim.get("token") or end.get("token") or start.get("token") or ""
    started = start.get("token") == token
    ended = start.get("number") in [attempt.get("number") for attempt in end.get("attempts", [])]
    row = {"token": token, "state": rundir.QUEUED, "reason": ""}  # type: Dict[str, Any]
    if started:
        row.update({name: start.get(name) for name in ("devices", "started_at")}, attempt=start.get("number"))
    if alive and started and not ended:
        row.update(state=rundir.RUNNING)
    elif alive:
        row.update(reason=_last_said(control), place=queue.get(run_dir))
    elif end and end.get("token") == token and (ended or not started):
        row.update(state=end.get("state"), reason=end.get("reason", ""), ended_at=end.get("ended_at"))
    elif started and start:
        if start.get("boot_id") != rundir.boot_id():
            row.update(state=rundir.FAILED, reason="reboot: submit again to resume")
        elif rundir.processes_of(run_dir):
            row.update(state=rundir.UNKNOWN, reason="supervisor lost, its processes live on: oelm-cancel ends them")
        else:
            row.update(state=rundir.FAILED, reason="supervisor lost: submit again to resume")
    elif os.path.exists(control + rundir.CANCEL):
        row.update(state=rundir.CANCELLED, reason="cancelled before it started")
    elif claim:
        said = _last_said(control)
        row.update(state=rundir.FAILED, reason="ended before training started" + (": " + said if said else ""))
    else:
        row.update(state=rundir.UNKNOWN, reason="no trace of it on this host", absent=True)
    heartbeat = rundir.read_json(run_dir + "/" + rundir.HEARTBEAT) or {}
    if row["state"] != rundir.QUEUED:
        row.update({name: heartbeat.get(name) for name in ("step", "max_steps", "loss", "tokens_per_s")})
        row["heartbeat_at"] = heartbeat.get("time")
        row["val_loss"] = _last_val_loss(run_dir)
    return row


def _last_said(control: str) -> str:
    """Return the newest line of the supervisor's log, without its time."""
    lines = rundir.last_lines(control + rundir.SUPERVISOR_LOG, 1)
    line = lines[0] if lines else ""
    return line[20:] if line[:2] == "20" and line[19:20] == " " else line


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


def log(request: Dict[str, Any]) -> Dict[str, Any]:
    """Return a piece of a run's log.

    Args:
        request: ``run_dir``, ``name`` of the file, and ``offset`` in bytes, or ``lines`` to count from the end.

    Returns:
        ``content`` (base64), ``offset`` of its beginning, ``size`` of the whole.
    """
    import base64

    path = Path(request["run_dir"]) / request["name"]
    try:
        with open(str(path), "rb") as file:
            size = file.seek(0, 2)
            offset = request.get("offset")
            if offset is None:
                offset = _offset_of_last(file, size, int(request["lines"]))
            file.seek(min(int(offset), size))
            content = file.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        return {"content": "", "offset": 0, "size": 0}
    return {"content": base64.b64encode(content).decode(), "offset": min(int(offset), size), "size": size}


def _offset_of_last(file: Any, size: int, lines: int) -> int:
    """Return where the last ``lines`` lines begin, looking at no more than one piece of the file."""
    begin = max(0, size - MAX_LOG_BYTES)
    file.seek(begin)
    content = file.read(size - begin)
    position = len(content)
    if content.endswith(b"\n"):
        position -= 1
    for _ in range(lines):
        position = content.rfind(b"\n", 0, position)
        if position < 0:
            return begin
    return int(begin + position + 1)
