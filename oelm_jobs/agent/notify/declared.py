"""What is to be told of a study's runs: a folder for each study and user below the root, and who looks after it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .. import rundir, schema, verbs
from . import ways
from .outbox import Failure, Outbox

SETTINGS, CLOSED, LOCK = "settings.json", "closed", "watch"
"""Files of one of them: what is to be told; there where all has been; locked by who watches over it."""
PROGRAM = __name__.rsplit(".", 2)[0] + ".watch"
"""Watches over runs, and tells of them."""
SHAPE = schema.Table(
    {"study": verbs.TOKEN, "project": verbs.PATH, "target": verbs.LINE, "slurm": schema.Flag(), "notify": verbs.NOTIFY,
     "runs": schema.Map(schema.Row((verbs.TOKEN, verbs.TIME))), "host": schema.Text()},
    keeps=True,
)  # fmt: skip


class Declared(NamedTuple):
    """What is to be told of a study's runs on this target."""

    folder: Path
    study: str
    target: str
    host: str
    """The plain host whose runs they are; empty of Slurm's."""
    is_slurm: bool
    notify: Mapping[str, Any]
    """``on``, ``stalled_after_s`` and the ways."""
    runs: Mapping[str, Tuple[str, float]]
    """Run directory to the token of its newest submission and when that was declared, Unix seconds."""

    def close(self) -> bool:
        """Note that all is told, unless another submission has come meanwhile; return whether it was noted."""
        with contextlib.suppress(OSError):
            (self.folder / CLOSED).touch()
        now = read(self.folder)
        if now is None or (now.runs, now.notify) == (self.runs, self.notify):
            return True
        with contextlib.suppress(OSError):
            (self.folder / CLOSED).unlink()
        return False


def read(folder: Path) -> Optional[Declared]:
    """Return what is declared in a folder; None where nothing is, or somebody else could have written it."""
    path = folder / SETTINGS
    try:
        for each in (folder, path):
            found = os.lstat(str(each))
            if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
                return None
    except OSError:
        return None
    content = rundir.read_json(path)
    if content is None or SHAPE.wrong(content) is not None:
        return None
    runs = {run_dir: (str(token), float(since)) for run_dir, (token, since) in content["runs"].items()}
    study, target, host = content["study"], content["target"], content["host"]
    return Declared(folder, study, target, host, content["slurm"], content["notify"], runs)


def open_ones(root: str) -> Iterator[Path]:
    """Yield this user's folders of which not all has been told, and that nobody looks after."""
    top = str(rundir.control(os.path.expanduser(root), rundir.NOTIFY))
    try:
        names = os.listdir(top)
    except OSError:  # mostly there is none
        return
    for name in names:
        folder = Path(top) / name
        with contextlib.suppress(OSError):
            is_own = os.lstat(str(folder)).st_uid == os.getuid()
            if is_own and not (folder / CLOSED).exists() and not rundir.is_locked(folder / LOCK):
                yield folder


def see_to(root: str) -> None:
    """Let somebody watch over the runs of a plain host of which not all has been told, where nobody does: the host was
    started again, say.
    """
    for folder in open_ones(root):
        found = read(folder)
        if found is not None and found.host == os.uname().nodename:
            leave("watch", folder)


_left: "List[subprocess.Popen[bytes]]" = []
"""What was left, to be reaped once it has ended: a client that looks on may live for days."""


def leave(what: str, folder: Path, *more: object) -> None:
    """Start such a program that lives on by itself.

    Args:
        more: What else it is told.
    """
    _left[:] = [child for child in _left if child.poll() is None]
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as told:  # which nobody waits for to be read
        told.write(_order(what, folder, *more))
        told.seek(0)
        _left.append(ways.start(PROGRAM, stdin=told))


def begin(what: str, folder: Path, *more: object) -> "Optional[subprocess.Popen[bytes]]":
    """Start such a program; return it, None where it doesn't start. Its stdin stays open.

    Args:
        what: What it is to do (watch.py).
        more: What else it is told.
    """
    with contextlib.suppress(OSError):  # no notification is worth a run
        child = ways.start(PROGRAM)
        assert child.stdin is not None
        child.stdin.write(_order(what, folder, *more))
        child.stdin.flush()
        return child
    return None


def _order(what: str, folder: Path, *more: object) -> bytes:
    return json.dumps([what, str(folder), *more]).encode() + b"\n"


def failures(root: str) -> List[Failure]:
    """Return what was not sent of the runs below a root, the newest last."""
    top = rundir.control(os.path.expanduser(root), rundir.NOTIFY)
    known = [read(folder) for folder in top.iterdir()] if top.is_dir() else []
    found = [failure for each in known if each is not None for failure in Outbox(each.folder).failures()]
    return sorted(found, key=lambda failure: failure.at)
