"""Move run directories aside, so that their runs can start over or be forgotten."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Sequence

from .. import inside, privacy, rundir
from ..run import result
from ..sentences import _

if TYPE_CHECKING:
    from .. import messages


def archive(request: messages.ArchiveRequest) -> messages.Moved:
    """Move run directories to ``.archive/<name>-<time>`` beside them, all or none.

    Args:
        request: ``run_dirs``; those that don't exist are passed over. ``below``: folders; what was moved is removed,
            and all of it has to lie below one of them.

    Returns:
        ``moved``: run directory to its new place; ``busy``: those that a live execution has claimed; ``gpu_hours``:
            run directory to what its attempts took; ``removed``, where asked for: those of which nothing is left.

    Raises:
        inside.Outside: One is no run directory, or is to be removed and lies elsewhere; nothing was moved.
        privacy.NotOurs: One is another user's; nothing was moved.
    """
    run_dirs = check(request)
    privacy.not_anothers(run_dirs)
    claims: Dict[str, int] = {}
    answer: messages.Moved = {"moved": {}, "busy": [], "gpu_hours": {}}
    try:
        for run_dir in run_dirs:
            if not os.path.isdir(run_dir):
                continue
            try:
                rundir.control(run_dir, "").mkdir(exist_ok=True)
                claims[run_dir] = rundir.lock(rundir.control(run_dir, rundir.CLAIM), patience_s=2.0)
            except rundir.Busy:
                answer["busy"].append(run_dir)
        for run_dir in claims if not answer["busy"] else ():
            move_aside(run_dir, answer)
    finally:
        for handle in claims.values():
            os.close(handle)
    return removed(request, answer)


def check(request: messages.ArchiveRequest) -> List[str]:
    """Return the run directories of a request.

    Raises:
        inside.Outside: One is none, or is to be removed and does not lie where it may be.
    """
    run_dirs = [inside.run_dir(run_dir) for run_dir in request["run_dirs"]]
    folders = request.get("below")
    if folders is not None:
        for run_dir in run_dirs:
            _check_below(run_dir, folders)
    return run_dirs


def _check_below(run_dir: str, folders: Sequence[str]) -> None:
    """See that a run directory, wherever links in its path lead, lies below one of several folders.

    Raises:
        inside.Outside: It doesn't, or is a link itself.
    """
    tops = [os.path.realpath(os.path.expanduser(folder)) for folder in folders if folder]
    place = os.path.realpath(run_dir)
    is_below = any(place.startswith(top.rstrip("/") + "/") for top in tops)
    if os.path.islink(run_dir) or not is_below:
        raise inside.Outside(_("{run_dir} does not lie below {folders}: nothing of it is removed", run_dir, tops))


def move_aside(run_dir: str, answer: messages.Moved) -> None:
    """Move a run directory, whose claim this process holds, into the archive; enter in the answer where it is now."""
    answer["gpu_hours"][run_dir] = result.gpu_hours(result.attempts_so_far(Path(run_dir), lambda start: "")[0])
    folder = Path(run_dir).parent / rundir.ARCHIVE
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    place = folder / ("%s-%s-%d" % (Path(run_dir).name, stamp, time.monotonic_ns() % 1000000))
    os.rename(run_dir, str(place))
    answer["moved"][run_dir] = str(place)


def removed(request: messages.ArchiveRequest, answer: messages.Moved) -> messages.Moved:
    """Remove what was moved, where that is asked for; return the answer.

    Nothing starts in a place in the archive, so claims are not needed any more: where they are held, NFS keeps a file.
    """
    if request.get("below") is not None:
        for place in answer["moved"].values():
            shutil.rmtree(place, ignore_errors=True)
        answer["removed"] = [run_dir for run_dir, place in answer["moved"].items() if not os.path.lexists(place)]
    return answer
