"""Determine where runs stand on their host, from records and locks; read-only."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, cast

from . import privacy, records, rundir
from .host import rules
from .reasons import because, told
from .rules import first
from .run.progress import add_progress
from .states import TOLD, State

if TYPE_CHECKING:
    from . import messages

MAX_LOG_BYTES = 1 << 20
"""Largest piece of a log in one answer."""
LOG_POLL_S = 0.3
"""How often a log that somebody follows is looked at."""


def probe(request: messages.ProbeRequest) -> messages.PollAnswer:
    """Answer where runs stand.

    Args:
        request: ``run_dirs``; ``root``, where given, asks for the host's devices, its queue and the disk there, too;
            ``tells`` is the root whose runs somebody is to watch over.

    Returns:
        ``host``, ``time``, ``runs`` (run directory to its state), and where asked for ``disk_free`` (bytes) and what
        lease.table answers, empty with ``lease_error`` where its folder or nvidia-smi is in disorder.
    """
    host, at, line = os.uname().nodename, time.time(), functools.lru_cache(maxsize=None)(_line)
    runs = {run_dir: state_or_unknown(run_dir, line) for run_dir in request["run_dirs"]}
    answer: messages.PollAnswer = {"host": host, "time": at, "runs": runs}
    tells = request.get("tells")
    if tells and os.path.isdir(rundir.control(os.path.expanduser(tells), rundir.NOTIFY)):
        from .notify import declared

        with contextlib.suppress(Exception):  # nobody who looks suffers
            declared.see_to(tells)
    if request.get("root"):
        from .host import lease  # here, like others: most looks need nothing of leases, and a probe's start-up counts

        answer["disk_free"] = rundir.disk_free(os.path.expanduser(request["root"]))
        try:
            table = lease.table()
        except OSError as error:  # it hides no runs
            table, answer["lease_error"] = {"devices": [], "queue": [], "limit": "", "junk": []}, str(error)
        answer = {**answer, **table}
    return answer


def _line() -> Dict[str, int]:
    """Return this user's waiting runs' places in the host's line; none where the folder of it can't be used."""
    from .host import tickets

    me = privacy.user_name(os.getuid())
    try:
        waiting = tickets.waiting()
    except OSError:  # runs say why when they need it
        return {}
    return {ticket.run_dir: place for place, ticket in enumerate(waiting, start=1) if ticket.user == me}


def state_or_unknown(run_dir: str, line: Callable[[], Mapping[str, int]] = _line) -> messages.RunRow:
    """Return a run's state; records that make no sense are one run's trouble, not everybody's."""
    try:
        row = state(run_dir, line)
        if row["state"] in TOLD:
            return row
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        pass
    return _unknown(because("not_understood", folder=rundir.CONTROL))


def _unknown(reason: str, **more: Any) -> messages.RunRow:
    """Return the row of a run of which nothing is known."""
    return cast("messages.RunRow", {"state": State.UNKNOWN, **told(reason), "token": "", **more})


def state(run_dir: str, line: Callable[[], Mapping[str, int]] = _line) -> messages.RunRow:
    """Return state, reason and progress of one run.

    Args:
        line: Returns run directories' places in the host's line; asked where the run waits.

    Raises:
        ValueError: Its records make no sense.
    """
    who = privacy.another(run_dir)
    if who:  # in a root that a group shares
        return _unknown(because("anothers", user=who), absent=True)
    # Plain strings: a status asks for hundreds of runs, and building paths costs more than reading the files.
    control = run_dir + "/" + rundir.CONTROL + "/"
    is_held = rundir.is_locked(control + rundir.CLAIM)
    start = records.START.read(run_dir) or {}
    if start.get("job"):
        from .slurm import state as slurm_state

        return cast("messages.RunRow", slurm_state.of_run(run_dir))
    facts = rules.Facts(
        is_held=is_held,
        start=start,
        end=records.END.read(run_dir),
        claim=records.CLAIM.read(run_dir),
        traces=rules.Traces(run_dir, line),
    )
    row = first(rules.ON_HOST, facts) or rules.no_trace(facts)
    if row["state"] != State.QUEUED:
        add_progress(row, run_dir)
    return cast("messages.RunRow", row)


def log(request: messages.LogRequest) -> messages.LogAnswer:
    """Return a piece of a run's log.

    Args:
        request: ``run_dir``, ``name`` of the file, and ``offset`` in bytes, or ``lines`` to count from the end;
            ``wait_s``: how long to wait for more where there is nothing behind the offset and the run isn't over.

    Returns:
        ``content`` (base64), ``offset`` of its beginning, ``size`` of the whole, and the run's ``state``, ``reason``.
    """
    import base64

    path = Path(request["run_dir"]) / request["name"]
    deadline = time.monotonic() + float(request.get("wait_s") or 0)
    while True:
        # The state is asked before the log: what a run wrote before it was over is then never missed.
        row = state_or_unknown(request["run_dir"])
        offset, size, content = _piece(path, request)
        if content or State(row["state"]).is_final or time.monotonic() >= deadline:
            break
        time.sleep(LOG_POLL_S)
    text = base64.b64encode(content).decode()
    return {"content": text, "offset": offset, "size": size, "state": row["state"], "reason": row["reason"]}


def _piece(path: Path, request: messages.LogRequest) -> "tuple[int, int, bytes]":
    """Return (where it begins, size of the whole, content) of the piece of a log that is asked for."""
    try:
        with open(str(path), "rb") as file:
            size = file.seek(0, 2)
            offset = request.get("offset")
            if offset is None:
                offset = _offset_of_last(file, size, int(request["lines"] or 0))
            offset = min(int(offset), size)
            file.seek(offset)
            return offset, size, file.read(MAX_LOG_BYTES)
    except FileNotFoundError:
        return 0, 0, b""


def _offset_of_last(file: Any, size: int, lines: int) -> int:
    """Return where the last ``lines`` lines begin, looking at no more than one piece of the file."""
    begin = max(0, size - MAX_LOG_BYTES)
    file.seek(begin)
    content = file.read(size - begin)
    before, *last = content[: len(content) - content.endswith(b"\n")].rsplit(b"\n", lines)
    return begin + len(before) + 1 if len(last) == lines else begin
