"""Start runs on a plain host, each at most once.

A submission's file is made exclusively: a launch that is sent twice, or arrives after the client gave it up
(``settle``), does nothing. Each run's claim is taken here and handed down on an inherited descriptor, to its script or
to the keeper of those that wait, so that from the first instant the kernel knows whether anybody still cares for the
run.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterable, List, Mapping, Optional, Sequence

from .. import inside, privacy, processes, rundir, snapshots
from ..sentences import _
from . import permitted

if TYPE_CHECKING:
    from .. import messages
    from . import keeper


class NotWritable(Exception):
    """Nothing can be written below the root: the submission was not accepted and nothing was started."""

    is_refusal = True

    def __init__(self, root: str, error: OSError) -> None:
        super().__init__(_("nothing can be written below {root}: {why}", root, str(error)))


class InputGone(Exception):
    """What a run takes from another one isn't there any more: nothing was started."""

    is_refusal = True


def submission_file(root: str, token: str) -> Path:
    """Return the path of a submission's file."""
    return Path(root) / rundir.CONTROL / "submissions" / (token + ".json")


def take(root: str, token: str, content: Mapping[str, object]) -> bool:
    """Make a submission's file with ``content``, durably; False where it exists already.

    Raises:
        NotWritable: It can't be made.
        inside.Outside: The token is none.
    """
    path = submission_file(root, inside.token(token))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return rundir.create(path, content)
    except OSError as error:
        raise NotWritable(root, error) from error


def begin(
    request: messages.CodeRequest, run_dirs: Sequence[str], scripts: Iterable[str], is_there: bool, **more: object
) -> str:
    """Make a submission's file before anything is started; return why it was not made: lacking, settled or repeated.

    Args:
        run_dirs: Those of its runs.
        scripts: Their launch scripts.
        is_there: Whether the code that they need is there.
        more: What its file holds besides.

    Raises:
        InputGone: What a run takes from another one isn't there any more.
        NotWritable: Nothing can be written there.
        inside.Outside: The token is none.
        privacy.NotOurs: A run directory is another user's.
    """
    root, token = request["root"], request["token"]
    if not submission_file(root, inside.token(token)).exists():
        if not is_there:
            return snapshots.LACKING
        _see_inputs(scripts)
    made = privacy.take_run_dirs(root, run_dirs)
    content = {"version": 1, "token": token, **more}
    if request.get("snapshot"):
        content["snapshot"] = request["snapshot"]
    if take(root, token, content):
        return ""
    known = rundir.read_json(submission_file(root, token)) or {}
    privacy.leave_run_dirs(made)
    return "settled" if known.get("settled") else "repeated"


def _see_inputs(scripts: Iterable[str]) -> None:
    """See that what runs take from others is there: once their submission is on record nobody removes it.

    Raises:
        InputGone: Something isn't.
    """
    from .. import records
    from ..run import inputs
    from ..run_record import RunRecord

    sources = inputs.Sources()
    for script in scripts:
        for content in rundir.records_in(script) if '"needs"' in script else ():
            if records.RUN.shape.wrong(content) is not None:
                continue  # its supervisor says so
            record = RunRecord.of(content)
            if gone := sources.lacking(record):
                raise InputGone(
                    _(
                        "{run} takes {source}, which is not there any more; nothing was queued (submit again: what is"
                        " made at home is brought anew, or it is said what to train)",
                        record.run,
                        gone,
                    )
                )


def launch(request: messages.LaunchRequest) -> messages.LaunchAnswer:
    """Start the runs of one submission, detached.

    Args:
        request: ``root``, ``token``, ``runs``: a list of ``run_dir``, ``token``, ``script``, in lane order, with
            ``gpus`` and ``after`` as in the run's record; ``snapshot``: name of the code that they need;
            ``environment``: variables of the client that the runs get.

    Returns:
        ``answer``: accepted, repeated, settled or lacking (the snapshot is gone; nothing was started); ``runs``: run
            directory to ``started`` or ``busy`` (a live execution has its claim).

    Raises:
        InputGone: What a run takes from another one isn't there any more.
        NotWritable: Nothing can be written there.
        inside.Outside: A run has no run directory's path, or the token is none.
        privacy.NotOurs: A run directory is another user's.
        trees.Busy: Snapshots are being removed.
    """
    with snapshots.needed(request["root"], request.get("snapshot") or "") as is_there:
        return _launch(request, is_there)


def _launch(request: messages.LaunchRequest, is_there: bool) -> messages.LaunchAnswer:
    runs, queued_at = request["runs"], time.time()
    run_dirs = [inside.run_dir(run["run_dir"]) for run in runs]
    for run in runs:  # before any is claimed: what is refused has started nothing
        for needed in run.get("needs") or ():
            inside.run_dir(needed)
    scripts = (run["script"] for run in runs)
    refused = begin(request, run_dirs, scripts, is_there, time=queued_at, runs=run_dirs)
    if refused:
        return {"answer": refused, "runs": {}}
    around = (processes.ATTEMPT_VARIABLE, processes.RUN_DIR_VARIABLE, permitted.AT_SUBMISSION)
    environment = {name: value for name, value in os.environ.items() if name not in around}
    environment.update(request.get("environment") or {})
    environment.update(permitted.travelling(environment))
    environment["OELM_SUBMITTED_AT"] = "%.6f" % queued_at
    from . import keeper, tickets  # here: a submission to Slurm takes none

    with contextlib.suppress(OSError):  # what is wrong with the lease folder is the runs' to report
        queued_at = tickets.arrival(queued_at)
    most, soft_limit = keeper.room(len(runs))
    answers, claimed = {}, []
    try:
        # In lane order: a run that waits for the one before it finds that claim held, or the run over.
        for position, run in enumerate(runs):
            held = _claim(run, queued_at + position * 1e-6)
            answers[run["run_dir"]] = "busy" if held is None else "started"
            claimed += [held] if held is not None else []
            if len(claimed) == most:
                whole, claimed = claimed, []
                _start(whole, environment, soft_limit)
    finally:
        if claimed:
            _start(claimed, environment, soft_limit)
    return {"answer": "accepted", "runs": answers}


def _claim(run: messages.LaunchRun, queued_at: float) -> Optional[keeper.Held]:
    """Take the run's claim and prepare its folder; None where a live execution has the claim."""
    from . import keeper

    control = rundir.control(run["run_dir"], "")
    control.mkdir(parents=True, exist_ok=True)
    try:
        taken = rundir.lock(control / rundir.CLAIM, patience_s=2.0)
    except rundir.Busy:
        return None
    # Above the numbers on which scripts are given theirs; the lock is the open file's, whatever its number.
    handle = fcntl.fcntl(taken, fcntl.F_DUPFD_CLOEXEC, rundir.CLAIM_FD + 1)
    os.close(taken)
    with contextlib.suppress(FileNotFoundError):
        (control / rundir.CANCEL).unlink()
    rundir.mark_origin(run["run_dir"], run["token"])
    rundir.write_text(control / rundir.SCRIPT, run["script"], durable=False, mode=0o777)
    request = json.dumps(run.get("gpus"))
    needs = tuple(run.get("needs") or ())
    return keeper.Held(run["run_dir"], run["token"], handle, queued_at, request, run.get("after"), needs)


def _start(runs: List[keeper.Held], environment: Dict[str, str], soft_limit: int) -> None:
    """Start a run, or the keeper of several, which starts them in turn."""
    from . import keeper

    if len(runs) == 1:
        keeper.start(runs[0], environment)
        return
    keeper.begin(runs, environment, soft_limit)


def settle(request: messages.Submission) -> messages.SettleAnswer:
    """Return whether a submission was accepted; if it wasn't by now, keep it from ever being accepted.

    Args:
        request: ``root``, ``token``.

    Returns:
        ``answer``: accepted or settled; ``runs``: the accepted run directories.
    """
    root, token = request["root"], request["token"]
    content: Dict[str, object] = {"version": 1, "token": token, "time": time.time(), "settled": True, "runs": []}
    if take(root, token, content):
        return {"answer": "settled", "runs": []}
    known = rundir.read_json(submission_file(root, token)) or {}
    return {"answer": "settled" if known.get("settled") else "accepted", "runs": known.get("runs", [])}
