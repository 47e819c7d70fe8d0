"""Submission, polling and cancelling: the interface of the schedulers, and the choice between them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..agent.sentences import _

if TYPE_CHECKING:
    from ..agent import messages
    from ..connections import Connection
    from ..spec.target import Target

CODE_GONE = _("the code is not there any more: another command has removed it")


@dataclass(frozen=True, kw_only=True)
class LaunchScript:
    """One script of a submission: a run, or an array of runs where Slurm decides."""

    run_dirs: tuple[str, ...]
    """Absolute paths on the target."""
    token: str
    """Token of its submission."""
    script: str
    """The launch script."""
    position: int
    """Number in the submission."""
    name: str
    """What the target calls it."""
    after: int | None = None
    """Position of the job that must have ended before."""
    snapshot: str | None = None
    """Name of the code that it runs there, the same for all of a submission."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A scheduler's answer to a submission."""

    accepted: tuple[str, ...]
    """Run directories that will be run."""
    busy: tuple[str, ...] = ()
    """Run directories that a live execution has claimed already."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Run directories that will certainly not be run, with the target's reasons."""
    handle: str = ""
    """What the target calls the submission; for people."""


def allowed_environment(target: Target) -> dict[str, str]:
    """Return the environment variables that a target allows and that are set here; they travel in a request and are
    never written to disk.
    """
    return {name: os.environ[name] for name in target.env if name in os.environ}


def silent(text: str) -> None:
    """Default progress callback; does nothing."""


class Scheduler(Protocol):
    """Decides when runs start."""

    def submit(
        self,
        jobs: Sequence[LaunchScript],
        token: str,
        say: Callable[[str], None] = silent,
        accepted: Callable[[Sequence[str]], None] = lambda run_dirs: None,
    ) -> Answer:
        """Submit runs, at most once for a token.

        Args:
            say: Called with what is being waited for.
            accepted: Called with the run directories accepted so far, repeatedly while the others wait.

        Raises:
            CodeGone: Its code is not there any more: send it again.
            TargetError: Certainly refused: nothing will run.
            UnknownAnswer: It may run; ``settle`` finds out.
        """

    def settle(self, token: str, root: str, run_dirs: Sequence[str]) -> Answer:
        """Find out which runs of a submission were accepted, and keep the others, which the answer names, from ever
        being accepted later.

        Args:
            root: The target's root when it was submitted; the targets file may name another one by now.
            run_dirs: The runs of which nothing is known yet.

        Raises:
            TargetError: It can't be found out now.
        """

    def poll(self, runs: Mapping[str, str], *, ended: Collection[str] = (), host: bool = False) -> messages.PollAnswer:
        """Return the probe's answer about runs, and about the host, in one round trip (agent/probe.py).

        Args:
            runs: Run directory to the token of its newest submission.
            ended: Those of them whose end is known: they are asked about for signs of life alone.

        Raises:
            TargetError: The target can't be asked.
        """

    def archive(self, run_dirs: Sequence[str]) -> None:
        """Move whole run directories aside, so that their runs can start over.

        Raises:
            TargetError: One is in use; none was moved.
        """

    def cancel(self, runs: Mapping[str, str]) -> Mapping[str, str]:
        """End runs (run directory to token) with all their processes; return the outcome by run directory."""


def scheduler(connection: Connection) -> Scheduler:
    """Return the scheduler at the other end of a connection."""
    if connection.target.slurm is not None:
        from .slurm import SlurmScheduler

        return SlurmScheduler(connection)
    from .leases import LeaseScheduler

    return LeaseScheduler(connection)
