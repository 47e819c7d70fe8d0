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
from . import AGENT_FOLDER, PlacedTree, Route, interpreter
from .answers import believed
from .channel import Channel
from .greeting import command
from .wire import Interrupted, Own, Reply, converse

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
        self.round_trips = 0
        """Commands that were run there."""

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

    def route(self) -> Route:
        """Return how rsync reaches the target by the same rules."""
        raise NotImplementedError

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return the argv of a local command that runs a line of shell there, on this terminal."""
        raise NotImplementedError

    def forward(self, port: int, there: int) -> list[str]:
        """Forward a port of this machine's loopback to one there; return the argv of the command that ends it."""
        raise NotImplementedError

    def _route(self, shell: Sequence[str]) -> Route:
        """Return the route over a remote shell, wrapped by quiet.py where the login shell there prints something."""
        if self._is_noisy:
            shell = [sys.executable, "-S", str(Path(__file__).with_name("quiet.py")), str(len(shell) + 1), *shell]
        host = self.target.host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host  # an IPv6 address (rsync(1))
        return Route(shell=tuple(shell), host=host)

    def close(self) -> None:
        """Close the connection."""
        raise NotImplementedError

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
        if not path or path.startswith("/"):
            return posixpath.normpath(path) if path else ""
        return posixpath.normpath(posixpath.join(self.home, path.removeprefix("~/").removeprefix("~") or "."))

    @property
    def resolved(self) -> Target:
        """The target with every path absolute, as it is there.

        Raises:
            TargetError: It can't be reached.
        """
        if self._resolved is None:
            self._resolved = replace(
                self.target,
                root=self.resolve(self.target.root or "~"),
                checkpoint_root=self.resolve(self.target.checkpoint_root),
                data={folder: self.resolve(path) for folder, path in self.target.data.items()},
                home=self.home,
            )
        return self._resolved

    @property
    def root(self) -> str:
        """The target's root there.

        Raises:
            TargetError: It can't be reached.
        """
        return self.resolved.root

    @property
    def python(self) -> str:
        """The interpreter that runs supervisor and trainer there."""
        python = interpreter(self.target)
        return self.resolve(python) if python.startswith("~") else python

    # Requests ---------------------------------------------------------------------------------------------------------

    def keep_tree(self, tree: Tree, folder: str) -> str:
        """Place ``tree`` in ``folder/<hash>`` there, whole and at most once; return that path."""
        from ..code.snapshot import agent

        place = f"{folder}/{tree.hash}"
        if (tree.hash, folder) != (agent().hash, f"{self.root}/{AGENT_FOLDER}"):  # every request brings the agent
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

        reads = may_repeat(verb)
        root = self._resolved.root if self._resolved else self.target.root or "~"
        own = PlacedTree(tree=agent(), folder=posixpath.join(root, AGENT_FOLDER))
        also = (self.target.checkpoint_root,) if self.target.checkpoint_root else ()
        begun, number = time.monotonic(), 0
        while True:
            number += 1
            try:
                reply = self._ask(verb, request, Own(root, self.target.share, also), [own, *places], reads, timeout_s)
            except NotReached:
                if number == TRIES or time.monotonic() - begun > PATIENCE_S:
                    raise
            except Interrupted as broken:
                self._drop_unused()
                if broken.sent and not reads:
                    raise AnswerLost(
                        _("{target}: no answer to {verb}: {why}", self.target.name, verb, str(broken))
                    ) from broken
                if number == TRIES or time.monotonic() - begun > PATIENCE_S:
                    raise NotReached(_("{target}: {why}", self.target.name, str(broken))) from broken
            else:
                self._home = self._home or reply.home
                self._is_noisy = self._is_noisy or reply.is_noisy
                return reply.answer
            time.sleep(random.uniform(0.3, 1.0) * number)  # many clients that were cut together come back apart

    def _ask(
        self,
        verb: str,
        request: Mapping[str, object],
        own: Own,
        places: Sequence[PlacedTree],
        reads: bool,
        timeout_s: float,
    ) -> Reply:
        with self._lock:
            channel = self._open(command(self.target.python or "python3"))
            self._under_way += 1
            self.round_trips += 1
        try:
            return converse(channel, verb, request, places, own=own, reads=reads, timeout_s=timeout_s)
        except TargetError as error:
            error.args = (_("{target}: {why}", self.target.name, str(error)),)
            raise
        finally:
            channel.close()
            with self._lock:
                self._under_way -= 1

    def _drop_unused(self) -> None:
        """Drop the connection, unless other threads' requests are under way on it: they may be acts, and what ails one
        channel need not ail them. Where it does, the last of them drops it.
        """
        with self._lock:
            if not self._under_way:
                self._drop()
