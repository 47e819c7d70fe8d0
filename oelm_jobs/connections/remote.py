"""What all ways to reach another machine have in common: requests, retries, paths there.

A request that only reads is sent again when the connection breaks. One that acts is sent once, after the agent there
has said that it is ready: a failure before that is certain not to have had an effect, and the outcome of a later one is
asked for (schedulers). Trees are named by their content, so placing them may be repeated.
"""

from __future__ import annotations

import posixpath
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent.registry import Answers, Asks, Verb, may_repeat
from ..agent.sentences import _
from ..errors import AnswerLost, NotReached, TargetError
from ..spec.target import Target
from . import AGENT_FOLDER, Own, PlacedTree, Route, interpreter, own, with_paths
from .answers import believed
from .channel import Channel
from .greeting import command
from .wire import Interrupted, Reply, converse

if TYPE_CHECKING:
    from ..code.snapshot import Tree

TRIES = 3
PATIENCE_S = 8.0
"""After so long no further try is begun."""


class RemoteConnection:
    """Another machine; several threads' requests may be under way at a time."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._lock = threading.RLock()
        """Held while a channel is opened, or the connection dropped."""
        self._under_way = 0
        """Requests, of all threads."""
        self._home = ""
        self._resolved: Target | None = None
        self._is_noisy = False

    # Given by each way ------------------------------------------------------------------------------------------------

    def _open(self, line: str) -> Channel:
        """Run a line of shell there, connecting first where that is needed.

        Raises:
            NotReached: Not just now; nothing was run.
            TargetError: Not at all; nothing was run.
        """
        raise NotImplementedError

    def _drop(self) -> None:
        """Drop a connection that can't be relied on any more."""
        raise NotImplementedError

    def _route(self, shell: Sequence[str]) -> Route:
        """Return the route over a remote shell, wrapped by quiet.py where the login shell there prints something."""
        if self._is_noisy:
            shell = [sys.executable, "-S", str(Path(__file__).with_name("quiet.py")), str(len(shell) + 1), *shell]
        host = self.target.host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host  # an IPv6 address (rsync(1))
        return Route(shell=tuple(shell), host=host)

    # Where things lie -------------------------------------------------------------------------------------------------

    @property
    def home(self) -> str:
        """The home folder there.

        Raises:
            TargetError: It can't be reached.
        """
        if not self._home:
            self._converse("", {}, [], 60.0)
        return self._home

    def resolve(self, path: str) -> str:
        """Return a path of the targets file as an absolute path there."""
        if not path.startswith("/"):
            path = posixpath.join(self.home, path.removeprefix("~/").removeprefix("~"))
        return posixpath.normpath(path)

    @property
    def resolved(self) -> Target:
        """The target with every path absolute, as it is there.

        Raises:
            TargetError: It can't be reached.
        """
        if self._resolved is None:
            self._resolved = replace(with_paths(self.target, self.resolve, "~"), home=self.home)
        return self._resolved

    @property
    def python(self) -> str:
        """The interpreter that runs supervisor and trainer there."""
        python = interpreter(self.target)
        return self.resolve(python) if python.startswith("~") else python

    # Requests ---------------------------------------------------------------------------------------------------------

    def keep_tree(self, tree: Tree, folder: str) -> str:
        """Place ``tree`` in ``folder/<hash>`` there, whole and at most once; return that path."""
        from ..code.snapshot import agent

        place, own_folder = f"{folder}/{tree.hash}", f"{self.resolved.root}/{AGENT_FOLDER}"
        if (tree.hash, folder) != (agent().hash, own_folder):  # every request brings the agent
            self._converse("", {}, [PlacedTree(tree=tree, folder=folder)], 120.0)
        return place

    def call(
        self, verb: Verb[Asks, Answers], request: Asks, *, trees: Sequence[PlacedTree] = (), timeout_s: float = 60.0
    ) -> Answers:
        """Send a request to the agent there, sending the agent first where it is missing; return its answer."""
        about = {"clusters": self.target.clusters, "login_shell": self.target.login_shell}
        answer = self._converse(verb, {**request, **about}, trees, timeout_s)
        return believed(self.target.name, verb, request, answer)

    def _converse(
        self, verb: str, request: Mapping[str, object], places: Sequence[PlacedTree], timeout_s: float
    ) -> dict[str, object]:
        import random

        from ..code.snapshot import agent  # not before a channel is being opened: it takes a while

        about = own(self._resolved or self.target)
        needed = [PlacedTree(tree=agent(), folder=posixpath.join(about["root"], AGENT_FOLDER)), *places]
        begun, number = time.monotonic(), 0
        while True:
            number += 1
            try:
                reply = self._ask(verb, request, needed, about, timeout_s)
            except NotReached as error:
                failure = error
            except Interrupted as broken:
                self._drop_unused()
                if broken.sent and not may_repeat(verb):
                    raise AnswerLost(
                        _("{target}: no answer to {verb}: {why}", self.target.name, verb, str(broken))
                    ) from broken
                failure = NotReached(self._named(broken))
            else:
                self._home = self._home or reply.home
                self._is_noisy = self._is_noisy or reply.is_noisy
                return reply.answer
            if number == TRIES or time.monotonic() - begun > PATIENCE_S:
                raise failure
            time.sleep(random.uniform(0.3, 1.0) * number)  # many clients that were cut together come back apart

    def _ask(
        self, verb: str, request: Mapping[str, object], places: Sequence[PlacedTree], about: Own, timeout_s: float
    ) -> Reply:
        try:
            with self._lock:
                channel = self._open(command(self.target.python or "python3"))
                self._under_way += 1
        except TargetError as error:
            if self.target.name != self.target.host:  # which it names
                error.args = (self._named(error),)
            raise
        try:
            return converse(channel, verb, request, places, own=about, timeout_s=timeout_s)
        except TargetError as error:
            error.args = (self._named(error),)
            raise
        finally:
            channel.close()
            with self._lock:
                self._under_way -= 1

    def _named(self, error: Exception) -> str:
        """Return what an error says, with the target's name in front."""
        return _("{target}: {why}", self.target.name, str(error))

    def _drop_unused(self) -> None:
        """Drop the connection, unless other threads' requests are under way on it: they may be acts, and what ails one
        channel need not ail them. Where it does, the last of them drops it.
        """
        with self._lock:
            if not self._under_way:
                self._drop()
