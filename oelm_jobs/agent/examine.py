"""Owns looking over a host before it costs a night; leaves judging what was found to the client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List

from . import lease, rundir

TORCH = (
    "import json, sys; import torch; print(json.dumps({'torch': torch.__version__, 'python': sys.version.split()[0],"
    " 'cuda': torch.cuda.is_available(), 'gpus': torch.cuda.device_count()}))"
)


def examine(request: Dict[str, Any]) -> Dict[str, Any]:
    """Look at what a run would find on this host.

    Args:
        request: ``root``, ``python`` and ``setup`` of the target, ``ports`` that studies prefer.

    Returns:
        ``agent_python``, ``host``, ``lease_folder`` (path or error), ``devices`` and ``queue``, ``disk_free`` (bytes),
        ``writable`` (error or empty), ``torch`` (what the target's interpreter says after the set-up, or ``error``),
        ``ports_taken``.
    """
    answer = {"agent_python": sys.version.split()[0], "host": os.uname().nodename}  # type: Dict[str, Any]
    try:
        answer["lease_folder"] = str(lease.folder())
        answer.update(lease.table())
    except OSError as error:
        answer.update(lease_error=str(error), devices=[], queue=[])
    answer["disk_free"] = rundir.disk_free(request["root"])
    answer["writable"] = _writable(request["root"])
    answer["torch"] = _torch(request["setup"], request["python"])
    answer["ports_taken"] = [port for port in request["ports"] if not lease.port_is_free(port)]
    return answer


def _writable(root: str) -> str:
    """Return why nothing can be written below ``root``; empty where it can."""
    probe = os.path.join(root, rundir.CONTROL, ".writable-%d" % os.getpid())
    try:
        os.makedirs(os.path.dirname(probe), exist_ok=True)
        with open(probe, "wb") as file:
            file.write(b"x")
        os.unlink(probe)
    except OSError as error:
        return str(error)
    return ""


def _torch(setup: List[str], python: str) -> Dict[str, Any]:
    """Ask the target's interpreter, after the target's set-up, for its torch."""
    script = 'if ! {\n:\n%s\n} >&2; then echo \'set-up failed\' >&2; exit 78; fi\nexec "$0" -c "$1"\n' % "\n".join(
        setup
    )
    try:
        done = subprocess.run(
            ["bash", "-c", script, python, TORCH],
            stdin=subprocess.DEVNULL,
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
