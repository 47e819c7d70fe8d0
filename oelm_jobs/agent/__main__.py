"""Owns the agent's command line: ``python AGENT VERB``, a JSON request on stdin, a JSON reply on stdout; leaves each
verb to its module.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Dict, List

from . import schema, verbs

VERBS = {
    "launch": "host.launch",
    "settle": "host.launch",
    "cancel": "host.cancel",
    "archive": "host.archive",
    "find": "transfer.find",
    "data": "transfer.tokens",
    "expect": "transfer.tokens",
    "accept": "transfer.tokens",
    "inventory": "transfer.inventory",
    "release": "transfer.inventory",
    "snapshots": "transfer.clean",
    "discard": "transfer.clean",
    "remove": "transfer.inventory",
    "log": "probe",
    "probe": "probe",
    "examine": "checks.examine",
    "slurm_submit": "slurm.submit",
    "slurm_settle": "slurm.submit",
    "slurm_poll": "slurm.state",
    "slurm_cancel": "slurm.cancel",
    "slurm_archive": "slurm.cancel",
    "slurm_trial": "checks.slurm_trial",
}
"""Verb to the module that answers it with a function of the verb's name; ``verbs`` describes what each is asked and
answers. ``supervise`` reads its own arguments.
"""


REFUSED = 3
"""Exit code of a verb that certainly did nothing."""


def answer(verb: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """Let a verb's module answer a request; its ``clusters``, where it has any, are those of Slurm's commands, which
    find what they find in a login shell where it says so (``login_shell``), and its ``own`` says who may read what is
    written (the arguments of privacy.enter).

    Raises:
        schema.Misfit: The request is none; nothing was done.
        privacy.NotOurs: The root is somebody else's; nothing was done.
    """
    verbs.check_request(verb, request)
    own = request.pop("own", None)
    if own:
        from . import privacy

        privacy.confine(own["share"])
        privacy.enter(own["root"], own["share"], own["also"], make=False)
    clusters = request.pop("clusters", "")
    if request.pop("login_shell", False):
        from .slurm import profile as slurm_profile

        slurm_profile.follow(fresh=verb in ("examine", "slurm_submit"))
    if clusters:
        from .slurm import commands as slurm_commands

        slurm_commands.about(clusters)
    reply = getattr(importlib.import_module("." + VERBS[verb], __package__), verb)(request)
    return verbs.cut_answer(verb, dict(reply))


def main(argv: List[str]) -> int:
    """Run one verb and return the exit code."""
    verb = argv[0] if argv else ""
    if verb == "supervise":
        from .supervise import main as supervise

        return supervise(argv[1:])
    if verb not in VERBS:
        print("unknown verb %r; valid: supervise, %s" % (verb, ", ".join(sorted(VERBS))), file=sys.stderr)
        return 2
    try:
        reply = answer(verb, schema.loads(sys.stdin.buffer.read()))
    except Exception as error:
        if not getattr(error, "is_refusal", False):
            raise
        print(error, file=sys.stderr)
        return REFUSED
    json.dump(reply, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
