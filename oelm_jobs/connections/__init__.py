"""Owns what the toolkit needs of a way to reach a target; each module is one way. Leaves what is run there to
schedulers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..snapshot import Tree
    from ..spec import Target


class Connection(Protocol):
    """A way to reach a target."""

    target: Target

    @property
    def root(self) -> str:
        """The target's root as an absolute path there.

        Raises:
            TargetError: It can't be reached.
        """

    @property
    def python(self) -> str:
        """The interpreter that runs supervisor and trainer there."""

    def keep_tree(self, tree: Tree, folder: str) -> str:
        """Have ``tree`` under ``folder/<hash>`` there, sent at most once, never half; return that path.

        Raises:
            TargetError: It can't be reached or written.
        """

    def call(self, verb: str, request: Mapping[str, Any], *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Let the agent there answer a request.

        Raises:
            TargetError: It was certainly not carried out (refused, not reached).
            UnknownAnswer: It may have been carried out; no answer came.
        """


def connect(target: Target, project: Path) -> Connection:
    """Return the connection for a target."""
    assert target.kind == "local", target.kind
    from .local import LocalConnection

    return LocalConnection(target, project)
