"""What the user's login profile says of Slurm, and which commands over ssh have not read: where its commands are,
which cluster they are about, defaults for sbatch.

A profile may take seconds (modules), so what it said is kept for a day, while its files are the same; a submission and
oelm-doctor read it anew. It may greet before, and may put a function or an alias in a command's place.

What else is remembered of a cluster for a while lies beside it, in this user's cache folder (``keep``, ``recall``).
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
from typing import Any, Dict, List, Mapping, Tuple

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
"""How long what it said is believed, and that it said nothing of squeue."""
OF_THE_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER")
"""Which cluster Slurm's commands are about."""
OF_SBATCH = "SBATCH_"
"""Beginning of the variables that sbatch takes options from."""


def cache_file(what: str, *of: str) -> Path:
    """Return this user's file for something about what ``of`` names, and make its folder where that can be done."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "oelm-jobs"
    if folder.is_absolute():  # else nobody says where this user's home is
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
    key = " ".join([*of, str(os.getuid())])
    return folder / ("%s-%s.json" % (what, hashlib.sha256(key.encode()).hexdigest()[:12]))


def keep(path: Path, content: Mapping[str, object]) -> None:
    """Keep something in a cache file with the ``time``, now unless it says another one; where that can't be written,
    as in a full home folder, it is only asked again.
    """
    with contextlib.suppress(OSError):
        rundir.write_json(path, {"time": time.time(), **content}, durable=False)


def recall(path: Path, age_s: float) -> Dict[str, Any]:
    """Return what a cache file keeps; empty where that is nothing, or not younger than ``age_s``."""
    known = rundir.read_json(path) or {}
    return known if 0 <= time.time() - float(known.get("time") or 0) < age_s else {}


def follow(*, fresh: bool = False) -> None:
    """Let Slurm's commands of this process find what they find in the user's login shell.

    Args:
        fresh: Read the profile now, whatever is known of it.
    """
    # What a login brings by itself the profile may build on.
    given = ("%s=%s" % (name, os.environ.get(name, "")) for name in (*OF_THE_CLUSTER, "PATH"))
    path = cache_file("login", os.uname().nodename, processes.boot_id(), *given)
    files = _stamps()
    known = {} if fresh else recall(path, KEPT_S)
    if known.get("files") != files or not (known.get("path") or recall(path, FAILURE_KEPT_S)):
        command, variables = _read("squeue")
        known = {"files": files, "path": command, "variables": variables}
        keep(path, known)
    if shutil.which("squeue") is None:
        _add_to_path(known["path"])
    os.environ.update(known["variables"])


@functools.lru_cache(maxsize=None)
def find(command: str) -> None:
    """Add the folder of a command to PATH, where the profile alone does so, and what it says of the cluster with it."""
    path, variables = _read(command)
    if _add_to_path(path):
        for name in variables.keys() & OF_THE_CLUSTER:
            os.environ.setdefault(name, variables[name])


def _add_to_path(command: str) -> bool:
    if not os.access(command, os.X_OK):
        return False
    os.environ["PATH"] = "%s:%s" % (os.environ.get("PATH", os.defpath), os.path.dirname(command))
    return True


def _stamps() -> List[List[int]]:
    found = []
    for name in FILES:
        with contextlib.suppress(OSError):
            status = os.stat(os.path.expanduser(name))
            found.append([status.st_ino, status.st_size, status.st_mtime_ns])
    return found


def _read(command: str) -> Tuple[str, Dict[str, str]]:
    """Return the path of a command, and the variables, of a login shell; empty where none gets so far."""
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
        return "", {}
    if not is_said:
        return "", {}
    path, *variables = words.split("\0")[:-1]
    pairs = (variable.partition("=") for variable in variables)
    found = {name: value for name, _, value in pairs if name in OF_THE_CLUSTER or name.startswith(OF_SBATCH)}
    if "SLURM_CLUSTERS" not in found and found.get("SBATCH_CLUSTERS"):
        found["SLURM_CLUSTERS"] = found["SBATCH_CLUSTERS"]  # what is sent there has to be looked for there
    return path.strip(), found
