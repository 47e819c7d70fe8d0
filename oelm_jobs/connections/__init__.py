"""Ways to reach a target: the interface that all of them have, and the choice between them."""

from __future__ import annotations

import atexit
import posixpath
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict

from ..agent.registry import Answers, Asks, Verb
from ..folders import expanded

if TYPE_CHECKING:
    from ..code.snapshot import Tree
    from ..spec.target import Target

AGENT_FOLDER = ".oelm/agent"
"""Where the agents lie below a target's root, each under its hash."""


class Route(NamedTuple):
    """How rsync reaches a target."""

    shell: tuple[str, ...]
    """Words of its remote shell, ``ssh`` first."""
    host: str
    """What it puts before the colon."""


class PlacedTree(NamedTuple):
    """A tree and the folder (absolute, or below ``~``) that is to hold it under its hash."""

    tree: Tree
    folder: str


class Connection(Protocol):
    """A way to reach a target; threads may share one."""

    @property
    def target(self) -> Target:
        """The target as its file describes it."""

    @property
    def resolved(self) -> Target:
        """The target with every path absolute, as it is there.

        Raises:
            TargetError: It can't be reached.
        """

    @property
    def python(self) -> str:
        """The interpreter that runs supervisor and trainer there."""

    def keep_tree(self, tree: Tree, folder: str) -> str:
        """Place ``tree`` in ``folder/<hash>`` there, whole and at most once; return that path.

        Raises:
            TargetError: It can't be reached or written.
        """

    def call(
        self, verb: Verb[Asks, Answers], request: Asks, *, trees: Sequence[PlacedTree] = (), timeout_s: float = 60.0
    ) -> Answers:
        """Send a request to the agent there and return its answer.

        Args:
            trees: Have these there before, in the same round trip (a request that only reads does without, where
                nothing can be written).

        Raises:
            TargetError: It was certainly not carried out (refused, not reached).
            UnknownAnswer: It may have been carried out; no answer came.
        """

    def route(self) -> Route | None:
        """Return how rsync reaches the target by the same rules; None for this machine.

        Raises:
            TargetError: It can't be reached.
        """

    def terminal(self, line: str, *options: str) -> list[str]:
        """Return the argv of a local command that runs a line of shell there, on this terminal.

        Args:
            options: More options of ssh; passed over where it is this machine.

        Raises:
            TargetError: It can't be reached.
        """

    def forward(self, port: int, there: int) -> list[str]:
        """Forward a port of this machine's loopback to one of the target's; return the argv of the command that ends
        the forwarding (empty for this machine).

        Raises:
            TargetError: It can't be reached, or the port is taken.
        """

    def close(self) -> None:
        """Close the connection; the next use opens it again."""


_open: dict[tuple[str, Path, bool], Connection] = {}
_LOCK = threading.RLock()
"""Held while connections are added or removed."""


def connect(target: Target, project: Path) -> Connection:
    """Return this process's connection to a target, made on first use."""
    return _known(target, project, for_transfer=False)


def connect_for_transfer(target: Target, project: Path) -> Connection:
    """Return the connection for a command that transfers files with rsync. rsync uses the OpenSSH client, so the
    requests do, too: that saves fabric's start-up and a second kind of login.
    """
    return _known(target, project, for_transfer=bool(target.host) and target.connection != "openssh")


def _known(target: Target, project: Path, *, for_transfer: bool) -> Connection:
    key = (target.name, project, for_transfer)
    with _LOCK:
        known = _open.get(key)
        if known is None or known.target != target:
            known = _open[key] = _made(target, project, for_transfer=for_transfer)
        return known


def _made(target: Target, project: Path, *, for_transfer: bool) -> Connection:
    if not target.host:
        from .local import LocalConnection

        return LocalConnection(target, project)
    if for_transfer or target.connection == "openssh":
        from . import sshconfig
        from .openssh import OpenSSHConnection, PlainSSHConnection

        is_plain = for_transfer and not sshconfig.look_up(target).proxy
        return PlainSSHConnection(target) if is_plain else OpenSSHConnection(target)
    from . import early

    socket = early.begin(target)
    from .fabric import FabricConnection

    return FabricConnection(target, socket)


def close_all(project: Path | None = None) -> None:
    """Close this process's connections, or those of one project."""
    with _LOCK:
        closing = [_open.pop(key) for key in list(_open) if project in (None, key[1])]
    for connection in closing:
        connection.close()


atexit.register(close_all)


def interpreter(target: Target) -> str:
    """Return the command of the Python that runs supervisor and trainer: the one that the target names; else ``python``
    where a set-up on another machine or under Slurm provides it; else ``python3`` there, and the toolkit's own here.
    """
    if target.host:
        return target.python or ("python" if target.setup else "python3")
    if target.python:
        return str(expanded(target.python))
    return "python" if target.slurm is not None and target.setup else sys.executable


def unreached(target: Target, project: Path) -> Target:
    """Return a target with its paths as they are known without connecting: relative ones are placed below ``~``."""
    if not target.host:
        return connect(target, project).resolved
    return with_paths(target, lambda path: path if path.startswith(("/", "~")) else posixpath.join("~", path), "~")


class Own(TypedDict):
    """A target's root and who may use it, as privacy.enter takes them."""

    root: str
    share: str
    also: list[str]


def own(target: Target) -> Own:
    """Return a target's root and who may use it."""
    elsewhere = [target.checkpoint_root] if target.checkpoint_root else []
    return {"root": target.root or "~", "share": target.share, "also": elsewhere}


def with_paths(target: Target, place: Callable[[str], str], root: str) -> Target:
    """Return a target with its paths placed by a function; ``root`` stands for a root that it does not name."""
    return replace(
        target,
        root=place(target.root or root),
        checkpoint_root=place(target.checkpoint_root) if target.checkpoint_root else "",
        data={folder: place(path) for folder, path in target.data.items()},
    )


def as_agent_reads(connection: Connection) -> Target:
    """Return the connection's target with relative paths placed below ``~``, which the agent there expands: that saves
    a round trip.
    """
    return unreached(connection.target, Path("/")) if connection.target.host else connection.resolved
