"""The folder of ssh's master sockets: only its owner can enter it, whatever others have put into ``/tmp``."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from ..agent import rundir
from ..agent.sentences import _
from ..errors import LocalError
from ..folders import state_folder

TEMPORARY = "/tmp"
"""Where sockets lie that have no better place; every user of the machine may write there."""
MAX_FOLDER = 45
"""Characters of a folder's path: 104 bytes are a socket's on macOS (unix(4)), ssh adds 58 of its own."""
REMEMBERED = "ssh-folder"
"""File in the state folder with the path of a folder that was made since the usual one was another user's."""


def control_folder() -> Path:
    """Return the folder of master sockets, made where it is missing; it is the same for all commands of this user.

    Raises:
        LocalError: None can be made.
    """
    usual = f"{TEMPORARY}/oelm-ssh-{os.getuid()}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for path in (f"{runtime}/oelm" if os.path.isabs(runtime) else "", usual, _remembered()):
        if path and len(path) <= MAX_FOLDER and " " not in path and _is_mine(Path(path)):
            return Path(path)
    path = f"{usual}-{secrets.token_hex(4)}"
    if not _is_mine(Path(path)):
        raise LocalError(_("{path}: can't be made, and {other} is not a folder of yours alone", path, usual))
    with contextlib.suppress(OSError):  # the next command makes one of its own
        state_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        rundir.write_text(state_folder() / REMEMBERED, path, durable=False, mode=0o600)
    return Path(path)


def _remembered() -> str:
    try:
        path = (state_folder() / REMEMBERED).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
    return path if path.startswith(f"{TEMPORARY}/") else ""


def _is_mine(path: Path) -> bool:
    """Make a folder unless it exists; tell whether it belongs to this user, is no link, and is closed to all others."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
