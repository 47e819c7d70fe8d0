"""The agent's command line: ``python AGENT VERB``, a JSON request on stdin, a JSON answer on stdout.

``supervise`` reads its own arguments.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Dict, List

from . import schema, verbs
from .registry import VERBS

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
    reply = getattr(importlib.import_module("." + VERBS[verb].module, __package__), verb)(request)
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
