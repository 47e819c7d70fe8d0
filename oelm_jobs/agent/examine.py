"""Owns looking over a host before it costs a night; leaves judging what was found to the client."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

from . import lease, ports, quota, rundir, tokens

TRIAL = """
import importlib.util, json, sys
found = {"python": sys.version.split()[0], "wandb": importlib.util.find_spec("wandb") is not None}
import torch
found.update(torch=torch.__version__, cuda=torch.cuda.is_available(), gpus=torch.cuda.device_count())
try:
    import train.run
except Exception as error:
    found["trainer_error"] = "%s: %s" % (type(error).__name__, error)
print(json.dumps(found))
"""
"""What the target's interpreter is asked, in the folder of the code: whether it could train."""


def examine(request: Dict[str, Any]) -> Dict[str, Any]:
    """Look at what a run would find on this host. Paths may begin with ``~``.

    Args:
        request: ``root``, ``checkpoint_root``, ``python``, ``setup`` and ``code`` (folder of the project's code) of
            the target, ``ports`` that studies prefer, ``files`` (token files), ``variables`` (names that matter),
            ``slurm`` (whether runs go to Slurm).

    Returns:
        ``agent_python``, ``host``, ``user``, ``time``, ``root``, ``lease_folder`` or ``lease_error``, ``devices`` and
        ``queue``, ``checkpoints`` (where they go) and ``disk_free`` (bytes, there), ``writable`` and ``locks`` (errors,
        or empty), ``quotas`` (of root, checkpoints and home, as quota.quotas answers), ``trial`` (what TRIAL said after
        the set-up, or ``error``), ``bash`` and ``rsync`` (paths, or empty), ``ends_processes`` (the host ends what a
        logout leaves), ``wandb_login``, ``ports_taken``, ``data`` (as tokens.data answers); ``site`` (slurm_site) or
        ``site_error``.
    """
    root = os.path.expanduser(request["root"])
    checkpoints = os.path.expanduser(request.get("checkpoint_root") or root)
    answer: Dict[str, Any] = {"agent_python": sys.version.split()[0], "host": os.uname().nodename}
    answer.update(user=_user(), time=time.time(), root=root)
    try:
        answer["lease_folder"] = str(lease.folder())
        answer.update(lease.table())
    except OSError as error:
        answer.update(lease_error=str(error), devices=[], queue=[])
    answer.update(checkpoints=checkpoints, disk_free=rundir.disk_free(checkpoints))
    answer["writable"] = _writable(root) or (_writable(checkpoints) if checkpoints != root else "")
    answer["locks"] = "" if answer["writable"] else _locks(checkpoints)
    answer["quotas"] = quota.quotas([root, checkpoints, os.path.expanduser("~")])
    code = os.path.expanduser(request.get("code") or root)
    python = os.path.expanduser(request["python"])
    answer["trial"] = _trial(request["setup"], python, code if os.path.isdir(code) else "/")
    answer["bash"], answer["rsync"] = shutil.which("bash") or "", shutil.which("rsync") or ""
    answer["ends_processes"] = _ends_processes()
    answer["wandb_login"] = _wandb_login()
    answer["ports_taken"] = [port for port in request["ports"] if not ports.port_is_free(port)]
    files = {path: os.path.expanduser(path) for path in request.get("files") or []}
    rows = tokens.data({"root": root, "files": list(files.values()), "whole": True})["files"]
    answer["data"] = {path: rows[place] for path, place in files.items()}
    if request.get("slurm"):
        from . import slurm_commands, slurm_site

        try:
            answer["site"] = slurm_site.site()
        except slurm_commands.SlurmError as error:
            answer["site_error"] = str(error)
    return answer


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.getuid())


def _writable(root: str) -> str:
    """Return why nothing can be written below ``root``; empty where it can."""
    probe = os.path.join(root, rundir.CONTROL, ".writable-%d" % os.getpid())
    try:
        os.makedirs(os.path.dirname(probe), exist_ok=True)
        with open(probe, "wb") as file:
            file.write(b"x" * 4096)
        os.unlink(probe)
    except OSError as error:
        return str(error)
    return ""


def _locks(root: str) -> str:
    """Return why files below ``root`` can't be locked (some network file systems); empty where they can."""
    probe = os.path.join(root, rundir.CONTROL, ".lock-%d" % os.getpid())
    try:
        with open(probe, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(probe)
    except OSError as error:
        return str(error)
    return ""


def _trial(setup: List[str], python: str, code: str) -> Dict[str, Any]:
    """Ask the target's interpreter, after the target's set-up, whether it could train."""
    # Read from stdin, not with -c: that would source ~/.bashrc here (Debian's bash below sshd), and not for a run.
    script = (
        "if ! {\n:\n%s\n} >&2 </dev/null; then echo 'set-up failed' >&2; exit 78; fi\n"
        'cd -- "$3" && exec "$1" -c "$2" </dev/null\n' % "\n".join(setup)
    )
    try:
        done = subprocess.run(
            ["bash", "-s", python, TRIAL, code],
            input=script.encode("utf-8", "surrogateescape"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=180,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": str(error)}
    try:
        return dict(json.loads(done.stdout.decode("utf-8", "replace").strip().splitlines()[-1]))
    except (ValueError, IndexError):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return {"error": said[-1] if said else "exit code %d" % done.returncode}


def _ends_processes() -> bool:
    """Tell whether this host ends what a user leaves running at logout (logind.conf(5), KillUserProcesses)."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    value = ""
    for path in ["/etc/systemd/logind.conf", *sorted(map(str, Path("/etc/systemd/logind.conf.d").glob("*.conf")))]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, _, setting = line.partition("=")
                    value = setting.strip().lower() if key.strip() == "KillUserProcesses" else value
        except OSError:
            continue
    return value in ("yes", "true", "1", "on") and not os.path.exists("/var/lib/systemd/linger/" + _user())


def _wandb_login() -> bool:
    """Tell whether Weights & Biases would find a key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return "api.wandb.ai" in Path("~/.netrc").expanduser().read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
