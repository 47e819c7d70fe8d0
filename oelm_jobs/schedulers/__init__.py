"""Submission, polling and cancelling: the interface of the schedulers, and the choice between them."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ..agent.sentences import _
from ..errors import CodeGone, TargetError

if TYPE_CHECKING:
    from ..agent import messages
    from ..agent.record_types import NeedRecord
    from ..connections import Connection
    from ..spec.target import Target


class LaunchScript(NamedTuple):
    """One script of a submission: a run, or an array of runs where Slurm decides."""

    run_dirs: tuple[str, ...]
    """Absolute paths on the target."""
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
    gpus: int | tuple[int, ...] = 1
    """What its run, or each of them, asks for: any so many GPUs, or these."""
    needs: tuple[NeedRecord, ...] = ()
    """The runs that it, or each of its runs, needs, and that are not over."""


class Answer(NamedTuple):
    """A scheduler's answer to a submission."""

    accepted: tuple[str, ...]
    """Run directories that will be run."""
    busy: tuple[str, ...] = ()
    """Run directories that a live execution has claimed already."""
    refused: Mapping[str, str] = MappingProxyType({})
    """Run directories that will certainly not be run, with the target's reasons."""


def allowed_environment(target: Target) -> dict[str, str]:
    """Return the environment variables that a target allows and that are set here; they travel in a request and are
    never written to disk.
    """
    return {name: os.environ[name] for name in target.env if name in os.environ}


def silent(text: str) -> None:
    """Default progress callback; does nothing."""


class Scheduler(abc.ABC):
    """Decides when runs start, at the other end of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @abc.abstractmethod
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

    @abc.abstractmethod
    def settle(self, token: str, root: str, run_dirs: Sequence[str]) -> Answer:
        """Find out which runs of a submission were accepted, and keep the others, which the answer names, from ever
        being accepted later.

        Args:
            root: The target's root when it was submitted; the targets file may name another one by now.
            run_dirs: The runs of which nothing is known yet.

        Raises:
            TargetError: It can't be found out now.
        """

    @abc.abstractmethod
    def poll(
        self, runs: Mapping[str, str], *, ended: Collection[str] = (), host: bool = False, anew: bool = False
    ) -> messages.PollAnswer:
        """Return the probe's answer about runs, and about the host, in one round trip (agent/probe.py).

        Args:
            runs: Run directory to the token of its newest submission.
            ended: Those of them whose end is known: they are asked about for signs of life alone.
            anew: Whether an answer of the scheduler's won't do that another command was given a moment ago.

        Raises:
            TargetError: The target can't be asked.
        """

    def archive(self, run_dirs: Sequence[str], *, remove: bool = False) -> messages.Moved:
        """Rename run directories to ``.archive/<name>-<time>`` beside them, so that their runs can start over; return
        where those that were there are now, and what they took.

        Args:
            remove: Remove them there. Those that don't lie below the target's folders for runs are refused.

        Raises:
            TargetError: One is in use; none was moved.
        """
        request: messages.ArchiveRequest = {"run_dirs": list(run_dirs)}
        if remove:
            place = self._connection.resolved
            request["below"] = [folder for folder in (place.root, place.checkpoint_root) if folder]
        answer = self._archive(request)
        if busy := answer["busy"]:
            raise TargetError(_("still in use, nothing was archived: {run_dirs}", busy), hint=_("end it: oelm-cancel"))
        return answer

    @abc.abstractmethod
    def _archive(self, request: messages.ArchiveRequest) -> messages.Moved:
        """Let the agent move run directories."""

    @abc.abstractmethod
    def cancel(self, runs: Mapping[str, str]) -> Mapping[str, str]:
        """End runs (run directory to token) with all their processes; return the outcome by run directory."""

    def _check_begun(self, answer: messages.Accepted, token: str) -> None:
        """Raise an error where the agent's answer is that a submission was not begun."""
        from ..agent import snapshots  # here: a look at runs sends no code

        if answer["answer"] == snapshots.LACKING:
            gone = _("the code is not there any more: another command has removed it")
            raise CodeGone(_("{target}: {why}", self._connection.target.name, gone))
        if answer["answer"] == "settled":
            raise TargetError(_("submission {token} had been given up", token))


def scheduler(connection: Connection) -> Scheduler:
    """Return the scheduler at the other end of a connection."""
    if connection.target.slurm is not None:
        from .slurm import SlurmScheduler

        return SlurmScheduler(connection)
    from .leases import LeaseScheduler

    return LeaseScheduler(connection)
