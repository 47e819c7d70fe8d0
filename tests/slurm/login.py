"""The login node of tests behind SSH; the fixtures ``login`` and ``laptop`` (conftest) start it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.ssh.testbed import Client, Host, Network


class Login(Host):
    """The cluster's login node."""

    laptop: Client
    """Who logs in."""
    far: Network
    """Where the laptop is."""


def write_target(project: Path, login: Host, **keys: Any) -> None:
    values = {"kind": "slurm", "host": "login", "root": "oelm", "python": sys.executable, "poll_s": 0, **keys}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    (project / "jobs" / "targets.toml").write_text("[cluster]\n" + "\n".join(lines) + "\nsbatch = { time = 30 }\n")
