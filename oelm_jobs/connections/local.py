"""Reach this machine: the agent runs from the installed package, and trees are copied."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import privacy, reasons, verbs
from ..agent.__main__ import REFUSED
from ..agent.registry import VERBS, Answers, Asks, Verb
from ..agent.sentences import _
from ..errors import TargetError, UnknownAnswer
from ..folders import expanded
from . import interpreter, own, with_paths
from .answers import believed, read

if TYPE_CHECKING:
    from ..code.snapshot import Tree
    from ..spec.target import Target
    from . import PlacedTree


PROGRAM = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from oelm_jobs.agent.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
AGENT = (sys.executable, "-c", PROGRAM, str(Path(__file__).parents[2]))
"""What answers a request in a process of its own. It finds the toolkit without PYTHONPATH, which the runs that it
starts would inherit: their interpreter may be another, with a torch of its own.
"""


class LocalConnection:
    """This machine."""

    def __init__(self, target: Target, project: Path) -> None:
        self.target = target
        self.python = interpreter(target)

        def below(path: str) -> str:
            return str((project / expanded(path)).resolve())

        self.resolved = with_paths(target, below, ".")

    def keep_tree(self, tree: Tree, folder: str) -> str:
        """Copy ``tree`` to ``folder/<hash>``; return that path."""
        from ..agent import trees  # here: a look at runs sends none
        from ..code import snapshot

        try:
            with privacy.confined(self.target.share):
                privacy.enter(**own(self.resolved))
                return str(snapshot.keep(tree, Path(folder)))
        except (privacy.NotOurs, trees.Damaged) as error:
            raise TargetError(_("{target}: {why}", self.target.name, str(error))) from error
        except OSError as error:
            raise TargetError(_("{path}: can't be written: {why}", folder, str(error))) from error

    def call(
        self, verb: Verb[Asks, Answers], request: Asks, *, trees: Sequence[PlacedTree] = (), timeout_s: float = 60.0
    ) -> Answers:
        """Let the agent answer. Quick verbs run in this process; all others, and any that is about another of a site's
        clusters, in a process of their own.
        """
        for place in trees:
            self.keep_tree(place.tree, place.folder)
        clusters = self.target.clusters
        name = self.target.name
        if VERBS[verb].is_quick and not clusters:
            module = importlib.import_module(f"oelm_jobs.agent.{VERBS[verb].module}")
            try:
                with privacy.confined(self.target.share):  # of token files it remembers the hashes
                    answer = verbs.cut_answer(verb, getattr(module, verb)(dict(request)))
            except Exception as error:
                if not getattr(error, "is_refusal", False):
                    raise
                raise TargetError(_("{target}: {why}", name, str(error))) from error
            return believed(name, verb, request, answer)
        import subprocess

        try:
            done = subprocess.run(
                [*AGENT, verb],
                input=json.dumps({**request, "clusters": clusters, "own": own(self.resolved)}).encode(),
                capture_output=True,
                timeout=timeout_s,
                cwd="/",  # a project may hold a folder called oelm_jobs
                start_new_session=True,  # Ctrl-C at the client must not cut a launch in two
            )
        except subprocess.TimeoutExpired as error:
            raise UnknownAnswer(_("{verb} on this machine gave no answer within {n:.0f} s", verb, timeout_s)) from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            message = said[-1] if said else _("exit code {n}", done.returncode)
            if done.returncode == REFUSED:  # with a message of its own
                why = reasons.read(dict(read(name, verb, done.stdout), reason=message))
                raise TargetError(_("{target}: {why}", name, why))
            raise UnknownAnswer(_("{verb} on this machine failed: {why}", verb, message))
        return believed(name, verb, request, read(name, verb, done.stdout))

    def route(self) -> None:
        """Return None: rsync needs no remote shell."""

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return the argv that runs a line of shell here."""
        return ["sh", "-c", line]

    def forward(self, port: int, there: int) -> list[str]:
        """Return no command: there is nothing to forward."""
        return []

    def close(self) -> None:
        """Do nothing: no connection is held open."""
