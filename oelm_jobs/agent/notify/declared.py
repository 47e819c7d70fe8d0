"""What is to be told of a study's runs: a folder for each study and user below the root, and who looks after it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .. import processes, rundir, schema, verbs
from . import ways
from .outbox import Failure, Outbox

SETTINGS, CLOSED, LOCK = "settings.json", "closed", "watch"
"""Files of one of them: what is to be told; there where all has been; locked by who watches over it."""
SHAPE = schema.Table(
    {"study": verbs.TOKEN, "project": verbs.PATH, "target": verbs.LINE, "slurm": schema.Flag(), "notify": verbs.NOTIFY,
     "runs": schema.Map(schema.Row((verbs.TOKEN, verbs.TIME)))},
    keeps=True,
)  # fmt: skip


class Declared(NamedTuple):
    """What is to be told of a study's runs on this target."""

    folder: Path
    study: str
    target: str
    is_slurm: bool
    notify: Mapping[str, Any]
    """``on``, ``stalled_after_s`` and the ways."""
    runs: Mapping[str, Tuple[str, float]]
    """Run directory to the token of its newest submission and when that was declared, Unix seconds."""

    @property
    def outbox(self) -> Outbox:
        """The messages."""
        return Outbox(self.folder)

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
    return Declared(folder, content["study"], content["target"], content["slurm"], content["notify"], runs)


def open_ones(root: str) -> Iterator[Path]:
    """Yield the folders of which not all has been told."""
    top = str(rundir.control(os.path.expanduser(root), rundir.NOTIFY))
    try:
        names = os.listdir(top)
    except OSError:  # mostly there is none
        return
    for name in names:
        if not os.path.exists("%s/%s/%s" % (top, name, CLOSED)):
            yield Path(top) / name


def see_to(root: str) -> None:
    """Let somebody watch over the runs of a plain host of which not all has been told, where nobody does: the host was
    started again, say.
    """
    for folder in open_ones(root):
        found = read(folder)
        if found is not None and not found.is_slurm and not rundir.is_locked(folder / LOCK):
            leave("watch", folder)


def leave(what: str, folder: Path) -> None:
    """Start such a program that lives on by itself."""
    child = begin(what, folder)
    if child is not None:
        child.returncode = 0


def begin(what: str, folder: Path, run_dir: str = "", listens: bool = False) -> "Optional[subprocess.Popen[bytes]]":
    """Start the program that watches over runs (watch.py), tied to nobody; return it, None where it doesn't start.

    Args:
        what: What it is to do.
        listens: Whether it goes once its stdin is closed.
    """
    top = Path(__file__).parents[len(__name__.split(".")) - 1]
    module = __name__.rsplit(".", 2)[0] + ".watch"
    own = (processes.ATTEMPT_VARIABLE, processes.RUN_DIR_VARIABLE)
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", ways.PROGRAM % module, str(top)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in own},
            cwd="/",
            start_new_session=True,
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps([what, str(folder), run_dir]).encode() + b"\n")
        child.stdin.flush()
    except OSError:  # no notification is worth a run
        return None
    if not listens:
        child.stdin.close()
    return child


def failures(root: str) -> List[Failure]:
    """Return what was not sent of the runs below a root, the newest last."""
    top = rundir.control(os.path.expanduser(root), rundir.NOTIFY)
    known = [read(folder) for folder in top.iterdir()] if top.is_dir() else []
    found = [failure for each in known if each is not None for failure in each.outbox.failures()]
    return sorted(found, key=lambda failure: failure.at)
