"""What the user's login profile says of Slurm, and which commands over ssh have not read: where its commands are,
which cluster they are about, defaults for sbatch.

A profile may take seconds (modules), so what it said is kept for a day, while its files are the same; a submission and
oelm-doctor read it anew. It may greet before, and may put a function or an alias in a command's place.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from .. import processes, rundir

WORDS = (
    "bash",
    "-lc",
    'printf "\\n%s\\0" "$1"; type -P -- "$0"; printf "\\0";'
    ' for name in $(compgen -e SLURM_) $(compgen -e SBATCH_); do printf "%s=%s\\0" "$name" "${!name}"; done',
)
"""Prints, after the mark that follows, the path of the command that follows and the variables, as a login shell has
them.
"""
TIMEOUT_S = 20.0
"""For a site's profile scripts."""
FILES = (
    "/etc/profile", "/etc/profile.d", "/etc/bash.bashrc", "~/.bash_profile", "~/.bash_login", "~/.profile", "~/.bashrc",
)  # fmt: skip
"""What a login shell of bash reads, or has sourced as a rule."""
KEPT_S, FAILURE_KEPT_S = 86400.0, 600.0
"""How long what it said is believed, and that it said nothing."""
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER")
"""Which cluster Slurm's commands are about."""
OF_SBATCH = "SBATCH_"
"""Beginning of the variables that sbatch takes options from."""


def cache_folder() -> Optional[Path]:
    """Return (and make) this user's folder for what is known of clusters; None where none can be made."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not os.path.isabs(base):  # nobody says where this user's home is
        return None
    folder = Path(base) / "oelm-jobs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def cache_file(folder: Path, what: str, *of: str) -> Path:
    """Return this user's file in ``folder`` for something about what ``of`` names."""
    key = " ".join([*of, str(os.getuid())])
    return folder / ("%s-%s.json" % (what, hashlib.sha256(key.encode()).hexdigest()[:12]))


def follow(*, fresh: bool = False) -> None:
    """Let Slurm's commands of this process find what they find in the user's login shell.

    Args:
        fresh: Read the profile now, whatever is known of it.
    """
    known = _known(fresh)
    if shutil.which("squeue") is None:
        _add_to_path(str(known.get("squeue") or ""))
    for name, value in known.get("variables", {}).items():
        os.environ[name] = value


@functools.lru_cache(maxsize=None)
def find(command: str) -> None:
    """Add the folder of a command to PATH, where the profile alone does so, and what it says of the cluster with it."""
    known = _read(command)
    if known is None or not _add_to_path(known[command]):
        return
    for name, value in known["variables"].items():
        if name in OF_THE_CLUSTER:
            os.environ.setdefault(name, value)


def _add_to_path(command: str) -> bool:
    if not os.access(command, os.X_OK):
        return False
    os.environ["PATH"] = "%s:%s" % (os.environ.get("PATH", os.defpath), os.path.dirname(command))
    return True


def _known(fresh: bool) -> Dict[str, Any]:
    folder = cache_folder()
    path = None
    if folder is not None:
        # What a login brings by itself the profile may build on.
        given = ("%s=%s" % (name, os.environ.get(name, "")) for name in (*OF_THE_CLUSTER, "PATH"))
        path = cache_file(folder, "profile", os.uname().nodename, processes.boot_id(), *given)
    files = _stamps()
    if path is not None and not fresh:
        kept = rundir.read_json(path) or {}
        known: Optional[Dict[str, Any]] = kept.get("known")
        most = KEPT_S if known is not None else FAILURE_KEPT_S
        if kept.get("files") == files and 0 <= time.time() - float(kept.get("time") or 0) < most:
            return known or {}
    known = _read("squeue")
    if path is not None:
        with contextlib.suppress(OSError):  # a full home folder must not keep anybody from looking
            rundir.write_json(path, {"time": time.time(), "files": files, "known": known}, durable=False)
    return known or {}


def _stamps() -> List[List[int]]:
    found = []
    for name in FILES:
        with contextlib.suppress(OSError):
            status = os.stat(os.path.expanduser(name))
            found.append([status.st_ino, status.st_size, status.st_mtime_ns])
    return found


def _read(command: str) -> Optional[Dict[str, Any]]:
    """Return by name the path of a command, and the ``variables``, of a login shell; None where none gets so far."""
    mark = secrets.token_hex(8)
    try:
        with tempfile.TemporaryFile() as said:  # no pipe: what a profile leaves running would keep it open
            subprocess.run(
                [*WORDS, command, mark],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT_S,
            )
            said.seek(0)
            _, is_said, words = said.read().decode("utf-8", "replace").rpartition("\n%s\0" % mark)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if not is_said:
        return None
    path, *variables = words.split("\0")[:-1]
    pairs = (variable.partition("=") for variable in variables)
    found = {name: value for name, _, value in pairs if name in OF_THE_CLUSTER or name.startswith(OF_SBATCH)}
    if "SLURM_CLUSTERS" not in found and found.get("SBATCH_CLUSTERS"):
        found["SLURM_CLUSTERS"] = found["SBATCH_CLUSTERS"]  # what is sent there has to be looked for there
    return {command: path.strip(), "variables": found}
