"""The agent's command line: ``python AGENT VERB``, a JSON request on stdin, a JSON answer on stdout.

What of an answer is a sentence (sentences.py) is listed in its ``values``; that of a refusal on stderr has its
``code`` and ``values`` on stdout. ``supervise`` reads its own arguments.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Dict, Iterator, List, Tuple

from . import schema, verbs
from .registry import VERBS
from .sentences import Sentence, encoded

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
    fitting = verbs.cut_answer(verb, dict(reply))
    said = [[place, *encoded(sentence).values()] for place, sentence in _sentences(fitting, [])]
    return dict(fitting, values=said) if said else fitting


def _sentences(part: Any, place: List[Any]) -> Iterator[Tuple[List[Any], Sentence]]:
    """Yield the sentences in an answer with the keys that lead to each; where a run stands has its own beside it."""
    if isinstance(part, Sentence):
        yield place, part
    elif isinstance(part, (list, tuple)):
        for number, each in enumerate(part):
            yield from _sentences(each, [*place, number])
    elif isinstance(part, dict) and "code" not in part:
        for key, each in part.items():
            yield from _sentences(each, [*place, key])


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
        json.dump(encoded(str(error)), sys.stdout)
        return REFUSED
    json.dump(reply, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
