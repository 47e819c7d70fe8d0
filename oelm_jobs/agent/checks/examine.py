"""Examine a host: interpreter, devices, disk, clock and leases, for the client to judge."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Callable, Dict, List, cast

from .. import privacy, rundir
from ..host import lease, lease_folder, ports
from ..run.variables import wandb_login
from ..transfer import tokens
from . import quota, trial

if TYPE_CHECKING:
    from .. import messages


def examine(request: messages.ExamineRequest) -> messages.ExamineAnswer:
    """Examine what a run would find on this host. Paths may begin with ``~``.

    Args:
        request: ``root``, ``checkpoint_root``, ``python``, ``setup`` and ``code`` (folder of the project's code) of
            the target, ``trial`` (how its launch scripts begin, or empty), ``environment`` (variables of the client
            that runs get), ``ports`` that studies prefer, ``files`` (token files), ``slurm`` (whether runs go to
            Slurm), ``jobs`` (scripts for it, by number of processes as text).

    Returns:
        ``agent_python``, ``host``, ``user``, ``time``, ``root``, what lease.table answers, ``lease_folder`` with
        ``lease_privacy`` (why others don't share it, or empty), ``lease_room`` (bytes) and ``lease_files`` (left there;
        -1 where nobody counts) or ``lease_error``, ``checkpoints`` (where they go) and ``disk_free`` (bytes, there),
        ``writable`` and ``locks`` (errors, or empty), ``quotas`` (of root, checkpoints and home, as quota.quotas
        answers), ``trial`` (as trial.attempt answers), ``bash`` and ``rsync`` (paths, or empty), ``ends_processes``
        (the host ends what a logout leaves), ``wandb_login``, ``ports_taken``, ``data`` (as tokens.data answers);
        ``site`` (as slurm.site.site answers) or ``site_error``, ``tests`` (of ``jobs``, as its test_only answers);
        where runs don't go to Slurm and the host submits to a cluster, its ``partitions`` that take jobs.
    """
    os.environ.update(request.get("environment") or {})
    root = os.path.expanduser(request["root"])
    checkpoints = os.path.expanduser(request.get("checkpoint_root") or root)
    answer: Dict[str, object] = {"agent_python": sys.version.split()[0], "host": os.uname().nodename}
    answer.update(user=privacy.user_name(os.getuid()), time=time.time(), root=root)
    try:
        where = lease_folder.folder()
        answer["lease_folder"], answer["lease_privacy"] = str(where), lease_folder.privacy(where)
        answer["lease_room"], answer["lease_files"] = lease_folder.room(where)
        answer.update(lease.table())
    except OSError as error:
        answer.update(lease_error=str(error), devices=[], queue=[])
    answer.update(checkpoints=checkpoints, disk_free=rundir.disk_free(checkpoints))
    answer["writable"] = _trouble(root, _write) or (_trouble(checkpoints, _write) if checkpoints != root else "")
    answer["locks"] = "" if answer["writable"] else _trouble(checkpoints, _lock)
    answer["quotas"] = quota.quotas([root, checkpoints, os.path.expanduser("~")])
    code = os.path.expanduser(request.get("code") or root)
    python = os.path.expanduser(request["python"])
    question = trial.QUESTION + (trial.OF_SLURM if request.get("slurm") else "")
    folder = code if os.path.isdir(code) else "/"
    answer["trial"] = trial.attempt(request["trial"], request["setup"], python, folder, question=question)
    answer["bash"], answer["rsync"] = shutil.which("bash") or "", shutil.which("rsync") or ""
    answer["ends_processes"] = _ends_processes()
    answer["wandb_login"] = wandb_login(os.environ)
    answer["ports_taken"] = [port for port in request["ports"] if not ports.port_is_free(port)]
    files = {path: os.path.expanduser(path) for path in request.get("files") or []}
    rows = tokens.data({"root": root, "files": list(files.values()), "whole": True})["files"]
    answer["data"] = {path: rows[place] for path, place in files.items()}
    if request.get("slurm"):
        from ..slurm import commands as slurm_commands
        from ..slurm import site as slurm_site

        try:
            answer["site"] = slurm_site.site()
            jobs = request.get("jobs") or {}
            answer["tests"] = {size: slurm_site.test_only(script) for size, script in jobs.items()}
        except slurm_commands.SlurmError as error:
            answer["site_error"] = str(error)
    elif shutil.which("sinfo") and (found := _partitions()):
        answer["partitions"] = found
    return cast("messages.ExamineAnswer", answer)


def _partitions() -> List[str]:
    from ..slurm import commands, site

    try:
        return [row["name"] for row in site.partitions() if row["is_up"] and row["takes_jobs"]]
    except commands.SlurmError:
        return []


def _trouble(root: str, act: Callable[[BinaryIO], object]) -> str:
    """Return why something can't be done with a new file below ``root``; empty where it can."""
    probe = os.path.join(root, rundir.CONTROL, ".probe-%d" % os.getpid())
    try:
        os.makedirs(os.path.dirname(probe), exist_ok=True)
        with open(probe, "wb") as file:
            act(file)
        os.unlink(probe)
    except OSError as error:
        return str(error)
    return ""


def _write(file: BinaryIO) -> None:
    file.write(b"x" * 4096)


def _lock(file: BinaryIO) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # some network file systems can't


def _ends_processes() -> bool:
    """Tell whether this host ends what a user leaves running at logout (logind.conf(5), KillUserProcesses)."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    value = ""
    for path in ["/etc/systemd/logind.conf", *sorted(map(str, Path("/etc/systemd/logind.conf.d").glob("*.conf")))]:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, setting = line.partition("=")
                value = setting.strip().lower() if key.strip() == "KillUserProcesses" else value
    lingers = os.path.exists("/var/lib/systemd/linger/" + privacy.user_name(os.getuid()))
    return value in ("yes", "true", "1", "on") and not lingers
