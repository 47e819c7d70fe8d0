"""Owns the agent's command line: ``python AGENT VERB``, a JSON request on stdin, a JSON reply on stdout; leaves each
verb to its module.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import List

VERBS = {
    "launch": "launch",
    "settle": "launch",
    "cancel": "cancel",
    "archive": "archive",
    "find": "archive",
    "log": "probe",
    "probe": "probe",
    "examine": "examine",
}
"""Verb to the module that answers it with a function of the verb's name; ``supervise`` reads its own arguments."""


def main(argv: List[str]) -> int:
    """Run one verb and return the exit code."""
    if sys.version_info < (3, 8):
        print("oelm-jobs needs Python 3.8 or newer on the target; this is %s" % sys.version.split()[0], file=sys.stderr)
        return 2
    verb = argv[0] if argv else ""
    if verb == "supervise":
        from .supervise import main as supervise

        return supervise(argv[1:])
    if verb not in VERBS:
        print("unknown verb %r; valid: supervise, %s" % (verb, ", ".join(sorted(VERBS))), file=sys.stderr)
        return 2
    module = importlib.import_module("." + VERBS[verb], __package__)
    json.dump(getattr(module, verb)(json.load(sys.stdin)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
