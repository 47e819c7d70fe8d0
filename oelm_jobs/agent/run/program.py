"""What a supervisor executes: the built-in trainer, here, or a program of the user's own (script.py)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Collection, List, Mapping, NamedTuple, Optional, Protocol, Sequence

from ..processes import Identity
from . import judge
from .place import Place, Verdict

if TYPE_CHECKING:
    from ..record_types import Attempt, JobStart, OutcomeRecord

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
"""The trainer is one process, whatever a pod's variables say; torchrun tells each of several its own."""


class Command(NamedTuple):
    """What is started next."""

    argv: List[str]
    environment: Mapping[str, str]
    """Variables that it has besides those of the attempt."""
    folder: Optional[str] = None
    """Where it is started; None for this process's own folder."""
    stage: str = ""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    """Its exit code; a signal that ended it is negative."""
    seconds: float
    """How long it ran."""
    stop_signal: Optional[int]
    """What the supervisor was asked to stop by; None where nobody asked."""
    was_killed: bool = False
    """Whether the time for a checkpoint was over before it ended."""


class Program(Protocol):
    """What a supervisor executes; what has a body here is the built-in trainer's."""

    is_script: bool = False
    """Whether it is the user's own: of its processes nothing is known, and ``look`` reads what it tells."""
    taken: Mapping[str, str]
    """Paths of what it takes from other runs, by the names that it has for them."""

    def prepare(self, place: Place, number: int, avoided: Collection[int]) -> Optional[int]:
        """Make an attempt ready; return its port, which is none of the avoided ones.

        Raises:
            OSError: It can't be made ready.
        """

    def start_record(self) -> JobStart:
        """Return what start.json and the attempt's record say besides."""
        return {}

    def next(self, traces: judge.Traces) -> Optional[Command]:
        """Return the command to start now; None where all is done."""

    def look(self) -> None:
        """Read what the command has said of its progress."""
        return

    def ended(self, how: Ended, left: Sequence[Identity], place: Place, before: List[Attempt]) -> Optional[Verdict]:
        """Say how the attempt ended; None where another command follows.

        Args:
            how: How the command ended.
            left: What of it was left running.
            before: The attempts before this one.
        """

    def outcome(self) -> OutcomeRecord:
        """Return what the program's records say of this attempt; empty where it left none."""

    def can_go_on(self) -> bool:
        """Tell whether there is a checkpoint from which a longer run can go on."""


class Trainer(Program):
    """The built-in trainer, which keeps records of its own."""

    def __init__(self, run_dir: Path, command: List[str]) -> None:
        self._run_dir = run_dir
        self.taken: Mapping[str, str] = {}
        self._command = command
        self._argv: List[str] = []
        self._traces: Optional[judge.Traces] = None

    def prepare(self, place: Place, number: int, avoided: Collection[int]) -> Optional[int]:
        """Give torchrun its port, where there is one."""
        command = list(self._command)
        for name, path in self.taken.items():  # said by the run that it is of, until that is over
            if "--" + name in command[:-1]:
                command[command.index("--" + name) + 1] = path
        self._argv, port = place.argv(command, number, avoided)
        return port

    def next(self, traces: judge.Traces) -> Optional[Command]:
        """Return its only command."""
        self._traces = traces
        return Command(self._argv, ALONE)

    def ended(self, how: Ended, left: Sequence[Identity], place: Place, before: List[Attempt]) -> Optional[Verdict]:
        """Judge by its outcome record."""
        assert self._traces is not None
        outcome = self.outcome()
        return judge.judge(self._traces, outcome, how.code, stop_signal=how.stop_signal, place=place, before=before)

    def outcome(self) -> OutcomeRecord:
        """Return its outcome record."""
        return self._traces.outcome() if self._traces else {}

    def can_go_on(self) -> bool:
        """Look for a checkpoint of its own."""
        return any(self._run_dir.glob("checkpoint_*.pt"))
