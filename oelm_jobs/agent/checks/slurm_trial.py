"""Try whether the interpreter of a target's jobs can talk to Slurm, as their supervisors have to: one in a container
may have neither Slurm's commands nor its socket.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from ..slurm import commands as slurm_commands
from ..slurm import profile
from . import trial

if TYPE_CHECKING:
    from .. import messages

KNOWN_S = 86400.0
"""How long it is remembered that it can."""
TIMEOUT_S = 60.0
"""For a target's set-up and its interpreter: a submission waits for them."""


def slurm_trial(request: messages.SlurmTrialRequest) -> messages.SlurmTrialAnswer:
    """Run a target's set-up and have its interpreter ask for Slurm's settings, unless that is known to work.

    Args:
        request: ``trial``, ``setup``, ``python`` and ``environment`` as examine has them.

    Returns:
        ``slurm_error``: why it can't; empty where it can, and where that is not found out: the set-up may need a
            compute node.

    Raises:
        SlurmError: Slurm does not answer here, either.
    """
    os.environ.update(request.get("environment") or {})
    python = os.path.expanduser(request["python"])
    asked = json.dumps([request["trial"], python, trial.agent_folder()])
    path = slurm_commands.cache_file("trial-" + hashlib.sha256(asked.encode("utf-8", "replace")).hexdigest()[:12])
    if profile.recall(path, KNOWN_S):
        return {"slurm_error": ""}
    slurm_commands.settings()
    found = trial.attempt(request["trial"], request["setup"], python, "/", question=trial.OF_SLURM, timeout_s=TIMEOUT_S)
    if found.get("slurm_error") == "":
        profile.keep(path, {})
    return {"slurm_error": str(found.get("slurm_error") or "")}
