"""Remove the snapshots below a root that nobody needs, and copies of inputs; say what runs take from others.

A run that is not over needs its snapshot, and so does a submission of which not every answer is known. Removing and
submitting exclude each other by a lock: a submission either names its snapshot before others are looked at, or finds
it gone, starts nothing and says so, and the client sends the code once more.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING, Dict, List, Sequence, Set, Tuple

from .. import privacy, rundir, trees
from ..sentences import _
from ..snapshots import FOLDER
from . import copies, find
from .taken import taken, told
from .uses import NAME, Uses, snapshot_in

if TYPE_CHECKING:
    from .. import messages

BLIND_S = 24 * 3600.0
"""On a file system without locks, what was asked for within so long stays: it may be for a submission being made."""


def snapshots(request: messages.SnapshotsRequest) -> messages.SnapshotsAnswer:
    """Find snapshots and copies of inputs that nobody needs.

    Args:
        request: ``root``; ``checkpoint_root``, where run directories lie elsewhere; ``young_s``: what was asked for
            within so many seconds stays, since a submission whose fate is not known may name it.

    Returns:
        ``unused``: their names; ``freed``: bytes that removing them would free; ``note``: why some can't be judged,
            empty where all could be; ``copies``: bytes of each copy that no run takes; ``taken``: what runs that aren't
            over take from others (of one file a few are named, the last with ``more``, the number of the others);
            ``doubt``: why they may take anything, empty where that is known.
    """
    folder = os.path.join(request["root"], rundir.CONTROL, FOLDER)
    uses = Uses(request["root"], find.top(request))
    names, note = _unused(folder, request, uses)
    rows, doubt = taken(uses)
    return {
        "unused": names, "freed": _size([os.path.join(folder, name) for name in names]), "note": note,
        "copies": {} if doubt else copies.unused(request["root"], rows, request.get("young_s") or 0.0),
        "taken": told(rows), "doubt": doubt,
    }  # fmt: skip


def discard(request: messages.DiscardRequest) -> messages.Discarded:
    """Remove snapshots and copies, each only while nobody needs it, and the files that no other snapshot has.

    Args:
        request: As for ``snapshots``, and ``names`` and ``copies``.

    Returns:
        ``removed``, ``copies``: names of those that are gone; ``freed``: bytes.

    Raises:
        trees.Busy: Somebody is submitting just now; nothing was removed.
    """
    folder = os.path.join(request["root"], rundir.CONTROL, FOLDER)
    with trees.held(folder, alone=True) as is_held:
        blind_s = 0.0 if is_held else BLIND_S
        uses = Uses(request["root"], find.top(request))
        unused = _unused(folder, request, uses, blind_s)[0]
        names = [name for name in unused if name in request["names"]]
        places = [os.path.join(folder, name) for name in names]
        freed = _size(places)
        for place in places:
            trees.remove(place)
        trees.sweep(folder, blind_s)
        sizes: Dict[str, int] = {}
        if request["copies"]:
            rows, doubt = taken(uses)
            young_s = max(request.get("young_s") or 0.0, blind_s)
            sizes = {} if doubt else copies.unused(request["root"], rows, young_s)
        gone = copies.remove(request["root"], [name for name in request["copies"] if name in sizes])
    return {"removed": names, "freed": freed + sum(sizes[name] for name in gone), "copies": gone}


def _unused(folder: str, request: messages.SnapshotsRequest, uses: Uses, least_s: float = 0.0) -> Tuple[List[str], str]:
    """Return this user's snapshots of some age that nobody needs, and why some can't be judged."""
    candidates: Set[str] = set()
    now, young_s = time.time(), max(request.get("young_s") or 0.0, least_s)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            place = os.path.join(folder, name)
            look = os.lstat(place)
            is_one = NAME.fullmatch(name) and stat.S_ISDIR(look.st_mode) and privacy.is_ours(look, folder)
            if is_one and now - look.st_mtime >= young_s:
                candidates.add(name)
    if not candidates:
        return [], ""
    wanted, note = _wanted(uses, candidates)
    return sorted(candidates - wanted), note


def _wanted(uses: Uses, candidates: Set[str]) -> Tuple[Set[str], str]:
    """Return the snapshots that unfinished runs and submissions name, and why some can't be judged."""
    named: Dict[str, str] = {}
    for run_dir, use in uses.newest.items():
        name = use.snapshot or snapshot_in(rundir.control(run_dir, rundir.SCRIPT))
        if not name or name in candidates:
            named[run_dir] = name
    wanted = {use.snapshot for _run_dir, use in uses.unanswered} | {named[run_dir] for run_dir in uses.not_over(named)}
    if "" in wanted or uses.unread:  # of an older version, and not over: it may be any
        return set(candidates), uses.note or _("a run that is not over does not say which snapshot it needs")
    return wanted, uses.note


def _size(places: Sequence[str]) -> int:
    """Return the bytes that removing trees would free: those of files that only they and the store have."""
    found: Dict[Tuple[int, int], List[int]] = {}
    for top in places:
        for folder, _folders, names in os.walk(top):
            for name in names:
                with contextlib.suppress(OSError):
                    look = os.lstat(os.path.join(folder, name))
                    row = found.setdefault((look.st_dev, look.st_ino), [look.st_size, look.st_nlink, 0])
                    row[2] += 1
    return sum(size for size, links, ours in found.values() if links - ours <= 1)
