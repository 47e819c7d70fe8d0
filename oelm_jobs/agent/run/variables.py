"""What a program of the user's own finds in its environment: the module oelm_run, and what W&B has to know of the run.

W&B is told nothing that the user has set (in the target's set-up, say). The built-in trainer tells it itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Mapping, Tuple
from urllib.parse import urlsplit

from .. import rundir

if TYPE_CHECKING:
    from ..run_record import RunRecord

WANDB_URL = "https://api.wandb.ai"
REACH_S = 2.0
"""A server that has not taken a connection after so long counts as out of reach."""
IMPORTABLE = "importable"
"""The agent's folder of what programs may import."""


def of_program(record: RunRecord, environment: Mapping[str, str]) -> Dict[str, str]:
    """Return variables for a program, given those that it has in any case.

    Where the user is logged in to W&B, this takes up to REACH_S to find out whether its server can be reached.
    """
    known = {
        "WANDB_DIR": record.run_dir,
        "WANDB_RUN_ID": run_id(record),
        "WANDB_NAME": record.run,
        "WANDB_RUN_GROUP": "-".join(filter(None, ["%s/%s" % (record.study, record.group), record.tag])),
        "WANDB_RESUME": "allow",
    }
    if "WANDB_MODE" not in environment and not (wandb_login(environment) and _reaches_wandb(environment)):
        known["WANDB_MODE"] = "offline"  # without a login W&B would ask for one, or give up and the program with it
    found = {name: value for name, value in known.items() if name not in environment}
    # Last, so that nothing of the program's own is hidden by it.
    path = [environment.get("PYTHONPATH", ""), str(Path(__file__).resolve().parent.parent / IMPORTABLE)]
    return {**found, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def run_id(record: RunRecord) -> str:
    """Return what trackers call a run: the same over all its attempts, another one once it is started over."""
    identity = "\0".join((record.study, record.run, rundir.origin(record.run_dir)))
    return "%s-%s" % (record.run, hashlib.sha256(identity.encode()).hexdigest()[:8])


def wandb_login(environment: Mapping[str, str]) -> bool:
    """Tell whether Weights & Biases would find a key."""
    if environment.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(environment.get("WANDB_BASE_URL") or WANDB_URL).hostname or ""
    except ValueError:  # no address: nobody has a key for it
        return False
    for path in (environment.get("NETRC"), "~/.netrc", "~/_netrc"):
        with contextlib.suppress(OSError, RuntimeError):  # nobody says where this user's home is
            if path and host in Path(path).expanduser().read_text(encoding="utf-8", errors="replace").split():
                return True
    return False


def _wandb_place(environment: Mapping[str, str]) -> Tuple[str, int]:
    """Return host and port of W&B's server, or of the proxy on the way to it.

    Raises:
        ValueError: What the environment has is no address.
    """
    url = environment.get("WANDB_BASE_URL") or WANDB_URL
    scheme = urlsplit(url).scheme
    proxies = (environment.get(name) for name in ("%s_proxy" % scheme, "%s_PROXY" % scheme.upper()))
    proxy = next(filter(None, proxies), "")
    place = urlsplit(proxy if "//" in proxy else "//" + proxy) if proxy else urlsplit(url)
    return place.hostname or "", place.port or (443 if (place.scheme or scheme) == "https" else 80)


def _reaches_wandb(environment: Mapping[str, str]) -> bool:
    """Tell whether W&B's server, or the proxy on the way to it, takes a connection."""
    reached: List[bool] = []

    def connect() -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody there, or no address
            socket.create_connection(_wandb_place(environment), REACH_S).close()
            reached.append(True)

    # In a thread, since looking up a name may take longer and can't be told not to.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_S)
    return bool(reached)
