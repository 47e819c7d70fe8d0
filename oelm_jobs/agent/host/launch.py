"""Start runs on a plain host, each at most once.

A submission's file is made exclusively: a launch that is sent twice, or arrives after the client gave it up
(``settle``), does nothing. Each run's claim is taken here and handed down to its script on an inherited descriptor,
so that from the first instant the kernel knows whether anybody still cares for the run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict

from .. import inside, privacy, processes, rundir, snapshots
from ..sentences import _
from . import permitted, tickets

if TYPE_CHECKING:
    from .. import messages


class NotWritable(Exception):
    """Nothing can be written below the root: the submission was not accepted and nothing was started."""

    is_refusal = True


def _submission_file(root: str, token: str) -> Path:
    return Path(root) / rundir.CONTROL / "submissions" / (inside.token(token) + ".json")


def _take(root: str, token: str, content: Dict[str, Any]) -> bool:
    """Make the submission's file with ``content``, durably; False where it exists already."""
    path = _submission_file(root, token)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return rundir.create(path, content)
    except OSError as error:
        raise NotWritable(_("nothing can be written below {root}: {why}", root, str(error))) from error


def launch(request: messages.LaunchRequest) -> messages.LaunchAnswer:
    """Start the runs of one submission, detached.

    Args:
        request: ``root``, ``token``, ``runs``: a list of ``run_dir``, ``token``, ``script``, in lane order;
            ``snapshot``: name of the code that they need; ``environment``: variables of the client that the runs get.

    Returns:
        ``answer``: accepted, repeated, settled or lacking (the snapshot is gone; nothing was started); ``runs``: run
            directory to ``started`` or ``busy`` (a live execution has its claim).

    Raises:
        NotWritable: Nothing can be written there.
        inside.Outside: A run has no run directory's path, or the token is none.
        privacy.NotOurs: A run directory is another user's.
        trees.Busy: Snapshots are being removed.
    """
    with snapshots.needed(request["root"], request.get("snapshot") or "") as is_there:
        return _launch(request, is_there)


def _launch(request: messages.LaunchRequest, is_there: bool) -> messages.LaunchAnswer:
    root, token, runs = request["root"], request["token"], request["runs"]
    run_dirs = [inside.run_dir(run["run_dir"]) for run in runs]
    if not is_there and not _submission_file(root, token).exists():
        return {"answer": snapshots.LACKING, "runs": {}}
    made = privacy.take_run_dirs(root, run_dirs)
    queued_at = time.time()
    content: Dict[str, Any] = {"version": 1, "token": token, "time": queued_at, "runs": run_dirs}
    if request.get("snapshot"):
        content["snapshot"] = request["snapshot"]
    if not _take(root, token, content):
        known = rundir.read_json(_submission_file(root, token)) or {}
        privacy.leave_run_dirs(made)
        return {"answer": "settled" if known.get("settled") else "repeated", "runs": {}}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OELM_ATTEMPT")}
    environment.pop(processes.RUN_DIR_VARIABLE, None)
    environment.pop(permitted.AT_SUBMISSION, None)
    environment.update(request.get("environment") or {})
    environment.update(permitted.travelling(environment))
    environment["OELM_SUBMITTED_AT"] = "%.6f" % queued_at
    with contextlib.suppress(OSError):  # what is wrong with the lease folder is the runs' to report
        queued_at = tickets.arrival(queued_at)
    answers = {}
    # In lane order: a run that waits for the one before it finds that claim held, or the run over.
    for position, run in enumerate(runs):
        handle = _claim(run)
        if handle is None:
            answers[run["run_dir"]] = "busy"
            continue
        environment["OELM_QUEUED_AT"] = "%.6f" % (queued_at + position * 1e-6)
        _start(run, handle, environment)
        answers[run["run_dir"]] = "started"
    return {"answer": "accepted", "runs": answers}


def _claim(run: messages.LaunchRun) -> Any:
    """Take the run's claim and prepare its folder; None where a live execution has the claim."""
    control = rundir.control(run["run_dir"], "")
    control.mkdir(parents=True, exist_ok=True)
    try:
        handle = rundir.lock(control / rundir.CLAIM, patience_s=2.0)
    except rundir.Busy:
        return None
    with contextlib.suppress(FileNotFoundError):
        (control / rundir.CANCEL).unlink()
    rundir.mark_origin(run["run_dir"], run["token"])
    rundir.write_text(control / rundir.SCRIPT, run["script"], durable=False, mode=0o777)
    return handle


def _start(run: messages.LaunchRun, handle: int, environment: Dict[str, str]) -> None:
    """Start the launch script with the held claim on CLAIM_FD, in a session of its own, tied to no terminal."""
    os.dup2(handle, rundir.CLAIM_FD, inheritable=True)
    control = rundir.control(run["run_dir"], "")
    with open(str(control / rundir.SUPERVISOR_LOG), "ab", buffering=0) as log:
        log.write(rundir.log_line(rundir.LAUNCHED).encode())
        process = subprocess.Popen(
            ["bash", str(control / rundir.SCRIPT)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=run["run_dir"],
            pass_fds=(rundir.CLAIM_FD,),
            start_new_session=True,
        )
    # The script execs the supervisor: the pid and its start time stay the same.
    rundir.write_claim(handle, run["token"], processes.identify(process.pid))
    os.close(rundir.CLAIM_FD)
    os.close(handle)


def settle(request: messages.Submission) -> messages.SettleAnswer:
    """Return whether a submission was accepted; if it wasn't by now, keep it from ever being accepted.

    Args:
        request: ``root``, ``token``.

    Returns:
        ``answer``: accepted or settled; ``runs``: the accepted run directories.
    """
    root, token = request["root"], request["token"]
    content = {"version": 1, "token": token, "time": time.time(), "settled": True, "runs": []}
    if _take(root, token, content):
        return {"answer": "settled", "runs": []}
    known = rundir.read_json(_submission_file(root, token)) or {}
    return {"answer": "settled" if known.get("settled") else "accepted", "runs": known.get("runs", [])}
