"""Ends a process of a run in the middle of its training, and shows afterwards that the run went on to the same bits.

The trainer appends each record of its metrics to a file, so steps that were trained twice stand in it twice: as they
were before the process was killed, and as the run trained them again from its last checkpoint.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .agent import processes, records, rundir
from .agent.run.rows import json_object

LOST = 2
"""So many records are to be lost when the process is killed: what is trained again shows them again."""
SHOWN = ("loss", "grad_norm", "val_loss")
"""What is compared of a step: each depends on every weight."""


@dataclass(frozen=True, kw_only=True)
class Killed:
    """The process that was ended."""

    pid: int
    step: int
    """The newest one that the run had told."""
    checkpoint: int
    """The step from which it can go on."""


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A step that was trained twice."""

    step: int
    before: dict[str, object]
    """What it told before the process was killed, by name."""
    after: dict[str, object]
    """The same when it was trained again."""

    @property
    def is_same(self) -> bool:
        """Whether both are the same to the last bit."""
        return self.before == self.after


@dataclass(kw_only=True)
class Interruption:
    """Kills a process of one run, once."""

    run_dir: Path
    killed: Killed | None = field(default=None, init=False)

    def look(self) -> bool:
        """Kill a process that trains, once the run has gone on for a while after a checkpoint; tell whether that was
        done now.
        """
        if self.killed is not None or (found := self._ripe()) is None:
            return False
        step, checkpoint = found
        if (rank := self._rank()) is None:
            return False
        processes.send([rank], signal.SIGKILL)
        self.killed = Killed(pid=rank.pid, step=step, checkpoint=checkpoint)
        return True

    def _ripe(self) -> tuple[int, int] | None:
        """Return the newest step and that of the newest checkpoint, where it is time."""
        steps = [step for step, _told in _told(self.run_dir)]
        saved = [int(name[1]) for path in self.run_dir.glob("checkpoint_*.pt") if (name := _NUMBER.search(path.name))]
        if not steps or not saved or len(set(steps)) < len(steps):
            return None  # it begins, or it has gone on from a checkpoint before
        return (steps[-1], max(saved)) if sum(step > max(saved) for step in steps) >= LOST else None

    def _rank(self) -> processes.Identity | None:
        """Return a process that trains: below the one that the run's record of its newest attempt names, and the parent
        of none.
        """
        started = records.START.read_if_sound(self.run_dir)
        if started is None or rundir.read_json(rundir.control(self.run_dir, rundir.END)) is not None:
            return None
        below = processes.descendants_of(started["pid"])
        return next((each for each in below if not processes.descendants_of(each.pid)), None)

    def repeated(self) -> list[Repeated]:
        """Return the steps that were trained twice."""
        first: dict[int, dict[str, object]] = {}
        found = []
        for step, told in _told(self.run_dir):
            if step in first:
                found.append(Repeated(step=step, before=first[step], after=told))
            first[step] = told
        return found


_NUMBER = re.compile(r"_(\d+)\.pt$")


def _told(run_dir: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield step and numbers of each record of a run's metrics, in the order in which they were told."""
    try:
        lines = (run_dir / rundir.METRICS).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return
    for row in map(json_object, lines):  # one that was cut off when the process was killed is none
        if row is not None and isinstance(row.get("step"), int):
            yield row["step"], {name: row[name] for name in SHOWN if name in row}
