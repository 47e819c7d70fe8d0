"""Folders on the user's machine: a project's, and the toolkit's own.

The latter are what platformdirs would answer, without its imports, which take as long as asking fifty runs for their
state.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from .agent.sentences import _
from .errors import LocalError, UsageError

NAME = "oelm-jobs"
MAC = Path("Library") / "Application Support"
REMEMBERED = "remembered.toml"
"""File beside the user's targets.toml, written by the toolkit: targets that were given on a command line."""
COMMANDS = Path(".oelm") / "studies"
"""Folder in a project for the studies that ``oelm run`` makes of commands."""


def config_folder() -> Path:
    """Return the user's configuration folder of the toolkit (XDG Base Directory Specification; Apple's on macOS)."""
    return _folder("XDG_CONFIG_HOME", Path(".config"))


def state_folder() -> Path:
    """Return the user's state folder of the toolkit; ``OELM_STATE_DIR`` names another one."""
    named = os.environ.get("OELM_STATE_DIR")
    return Path(named) if named else _folder("XDG_STATE_HOME", Path(".local") / "state")


def index_path() -> Path:
    """Return the file of the user's index of runs."""
    return state_folder() / "runs.sqlite3"


def home() -> Path:
    """Return the user's home folder.

    Raises:
        LocalError: Neither HOME nor the user database names one.
    """
    try:
        found = Path.home()
    except RuntimeError:
        found = Path()
    if not found.is_absolute():
        raise LocalError(
            _("no home folder is known: HOME is not set, and user {user} is not in the user database", os.getuid()),
            hint=_("export HOME=/a/folder/of/yours"),
        )
    return found


def expanded(path: str) -> Path:
    """Return a user's path with ``~`` expanded.

    Raises:
        LocalError: It is not known.
    """
    if path == "~" or path.startswith("~/"):
        return home() / path[2:]
    try:
        return Path(path).expanduser()
    except RuntimeError:  # ~somebody
        raise LocalError(_("{path}: no such user, or nobody says where that home folder is", path)) from None


def _folder(variable: str, below_home: Path) -> Path:
    named = os.environ.get(variable, "")
    if os.path.isabs(named):  # a relative one is to be ignored
        return Path(named) / NAME
    return home() / (MAC if sys.platform == "darwin" else below_home) / NAME


def check_home(folder: Path) -> None:
    """Refuse a folder that holds more than a project: the home folder, or the root of all.

    Raises:
        UsageError: It is one.
    """
    if folder in (home().resolve(), Path(folder.anchor)):
        raise UsageError(
            _("{folder} is no program's folder: all files in it would be taken for code", str(folder)),
            hint=_("make a folder for the program, and go there"),
        )


def find_project(start: Path) -> Path:
    """Return the nearest folder at or above ``start`` that has studies.

    Raises:
        UsageError: There is none.
        LocalError: There is a folder for studies that may not be read.
    """
    start = start.resolve()
    found = _project(start)
    for jobs in (folder / "jobs" for folder in ([found] if found else [start, *start.parents])):
        if jobs.is_dir() and not os.access(jobs, os.R_OK | os.X_OK):
            raise LocalError(_("{path}: can't be read: {why}", str(jobs), os.strerror(errno.EACCES)))
    if found:
        return found
    raise UsageError(
        _("no project here: neither {folder} nor a folder above it has a study in jobs/*.toml", str(start)),
        hint=_(
            "go to your project's folder, or make one here: oelm init; a command runs as it stands, where it lies:"
            " oelm run -- python SCRIPT"
        ),
    )


def program_folder(start: Path) -> Path:
    """Return the folder that a program in ``start`` belongs to: the project, else the git checkout, else ``start``.

    Raises:
        UsageError: It holds more than a program.
    """
    start = start.resolve()
    checkout = next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)
    found = _project(start) or checkout or start
    check_home(found)
    return found


def _project(start: Path) -> Path | None:
    return next((folder for folder in (start, *start.parents) if study_files(folder) or example_files(folder)), None)


def example_files(project: Path) -> list[Path]:
    """Return the studies in ``jobs/examples``, which are named by their paths."""
    return sorted((project / "jobs" / "examples").glob("*.toml"))


def study_files(project: Path) -> list[Path]:
    """Return the project's study files: the user's own, then those of commands (``oelm run``), each sorted by name."""
    own = sorted(path for path in (project / "jobs").glob("*.toml") if path.name != "targets.toml")
    return own + sorted((project / COMMANDS).glob("*.toml"))


def target_files(project: Path) -> list[Path]:
    """Return the targets files that exist: remembered ones, the user's, then the project's, whose tables win."""
    user = config_folder()
    paths = (user / REMEMBERED, user / "targets.toml", project / "jobs" / "targets.toml")
    return [path for path in paths if path.is_file()]
