"""Owns where the toolkit's own files lie on the user's machine; leaves their content to store and targets.

What platformdirs would answer, without its imports: they cost as much as asking fifty runs where they stand.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NAME = "oelm-jobs"
MAC = Path("Library") / "Application Support"


def config_folder() -> Path:
    """Return the user's configuration folder of the toolkit (XDG Base Directory Specification; Apple's on macOS)."""
    return _folder("XDG_CONFIG_HOME", Path(".config"))


def state_folder() -> Path:
    """Return the user's state folder of the toolkit; ``OELM_STATE_DIR`` names another one."""
    named = os.environ.get("OELM_STATE_DIR")
    return Path(named) if named else _folder("XDG_STATE_HOME", Path(".local") / "state")


def _folder(variable: str, below_home: Path) -> Path:
    named = os.environ.get(variable, "")
    if os.path.isabs(named):  # a relative one is to be ignored
        return Path(named) / NAME
    return Path.home() / (MAC if sys.platform == "darwin" else below_home) / NAME
