"""Owns what the toolkit needs of whatever decides when runs start; each module is one scheduler. Leaves reaching it
to connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..connections import Connection


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a submission, rendered."""

    run_dir: str
    """Absolute path on the target."""
    token: str
    """Token of its submission."""
    script: str
    """The launch script."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a scheduler said to a submission."""

    accepted: tuple[str, ...]
    """Run directories that will be run."""
    busy: tuple[str, ...]
    """Run directories that a live execution has claimed already."""
    handle: str
    """What the target calls the submission."""


class Scheduler(Protocol):
    """Decides when runs start."""

    def submit(self, jobs: Sequence[Job], token: str) -> Answer:
        """Submit runs, at most once for a token.

        Raises:
            TargetError: Certainly refused: nothing will run.
            UnknownAnswer: It may run; ``settle`` finds out.
        """

    def settle(self, token: str) -> bool:
        """Find out for good whether a submission was accepted; False means that it never will be.

        Raises:
            TargetError: It can't be found out now.
        """

    def poll(self, run_dirs: Sequence[str], *, host: bool = False) -> Mapping[str, Any]:
        """Return the probe's answer about runs, and about the host, in one round trip (agent/probe.py).

        Raises:
            TargetError: The target can't be asked.
        """

    def archive(self, run_dirs: Sequence[str]) -> None:
        """Move run directories aside, whole, so that their runs can start over.

        Raises:
            TargetError: One is in use; none was moved.
        """

    def cancel(self, run_dirs: Sequence[str]) -> Mapping[str, str]:
        """End runs with all their processes; return what was done by run directory."""


def scheduler(connection: Connection) -> Scheduler:
    """Return the scheduler at the other end of a connection."""
    from .leases import LeaseScheduler

    return LeaseScheduler(connection)
