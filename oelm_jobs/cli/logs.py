"""``oelm-logs``: print what a run wrote, over all its attempts."""

from __future__ import annotations

import math
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.sentences import _, joined
from ..agent.states import State
from .common import command, narrate, project, put, put_json

if TYPE_CHECKING:
    from ..runs.control import Piece
    from ..store import Store, StoredRun

WAIT_S = 20.0
"""How long the target may wait for more, in one question of --follow."""
RETRY_S = 2.0
"""Pause before a lost connection is tried again."""
PAUSE_S = 0.2
"""Pause after a look that brought nothing."""
MAX_ODD = 10
"""So many looks may find a shorter log than before, or bring less of it than there is: it is made anew just now."""
NOT_STARTED = _("its training hasn't started")
"""Why a run has no log, where nothing else is known."""


@command("oelm-logs")
@click.argument("run")
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=50, show_default=True, help=_("How many of the last lines.")
)
@click.option("-f", "--follow", is_flag=True, help=_("Go on until the run is over."))
@click.option("--supervisor", is_flag=True, help=_("The supervisor's own log: waiting, attempts, signals."))
@click.option("--study", metavar="NAME", help=_("The run's study, where its name is not unique."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON: an object for each line, then the state."))
def main(run: str, lines: int, follow: bool, supervisor: bool, study: str | None, as_json: bool) -> None:
    """Print a run's log.

    With --follow a lost connection is made again, and the log goes on where it was.
    """
    from ..agent import probe, rundir
    from ..connections.answers import nonsense
    from ..errors import NotReached
    from ..runs.select import select_one
    from ..store import Store

    root = project()
    name = f"{rundir.CONTROL}/{rundir.SUPERVISOR_LOG}" if supervisor else rundir.LOG
    with Store() as store:
        chosen = select_one(store, root, run, study)
        offset: int | None = None
        write = _Objects(chosen) if as_json else _Shown() if sys.stdout.isatty() else _Bytes()
        state, reason, lost = chosen.state, "", False
        wait_s = 0.0  # at first: what there is, and where the run stands, is said at once
        end, odd = math.inf, 0
        try:
            while True:
                try:
                    state, reason, piece = _look(store, root, chosen, name, offset, lines, wait_s)
                except NotReached as error:
                    if not follow:
                        raise
                    if not lost:
                        narrate(joined((str(error), _("trying again"))))
                    lost = True
                    time.sleep(RETRY_S)
                    continue
                lost = False
                is_another = piece.size < (offset or 0)  # the run was started over
                is_odd = is_another or len(piece.content) < min(probe.MAX_LOG_BYTES, piece.size - piece.begin)
                odd = odd + is_odd if is_odd or not follow else 0
                if odd > MAX_ODD:
                    raise nonsense(chosen.target, "log", _("log.size = {size}: is not what is sent", size=piece.size))
                if is_another:
                    offset, end = 0, math.inf
                    continue
                write.piece(piece)
                offset = piece.begin + len(piece.content)
                if not follow:
                    end = min(end, piece.size)  # what is written from now on is not waited for
                if offset < min(end, piece.size):
                    continue
                if not follow or state.is_final:
                    break
                if wait_s and not piece.content:
                    time.sleep(PAUSE_S)  # whether or not the target has waited
                if not wait_s and state is not State.RUNNING:
                    narrate(
                        _(
                            "{run} is {state} ({why}); its log follows when it is written",
                            run=chosen.name,
                            state=state,
                            why=reason or NOT_STARTED,
                        )
                    )
                wait_s = WAIT_S
        except KeyboardInterrupt:
            return
        write.end(state, reason)
        if offset == 0 and not as_json:
            why = reason or NOT_STARTED
            narrate(_("{run} is {state} and has written nothing yet ({why})", run=chosen.name, state=state, why=why))
            if not supervisor and state not in (State.PLANNED, State.QUEUED):  # whose reason is the supervisor's word
                argv = ["oelm-logs", run, *(["--study", study] if study else []), "--supervisor"]
                narrate(_("  what was said before its training: {command}", command=shlex.join(argv)))
        elif follow and not as_json:
            if reason:
                narrate(_("{run} is {state}: {why}", run=chosen.name, state=state, why=reason))
            else:
                narrate(_("{run} is {state}", run=chosen.name, state=state))


class _Bytes:
    """Writes a log unchanged."""

    def piece(self, piece: Piece) -> None:
        sys.stdout.buffer.write(piece.content)
        sys.stdout.buffer.flush()

    def end(self, state: State, reason: str) -> None:
        pass


class _Shown(_Bytes):
    """Writes a log to a terminal, with escapes for control characters."""

    def __init__(self) -> None:
        self._stream = visible.Stream()

    def piece(self, piece: Piece) -> None:
        put(self._stream.piece(piece.content), nl=False)

    def end(self, state: State, reason: str) -> None:
        put(self._stream.piece(b"", final=True), nl=False)


class _Objects(_Bytes):
    """Writes a log as JSON, an object a line; ``offset`` is where the line begins, in bytes."""

    def __init__(self, run: StoredRun) -> None:
        self._run = {"version": 1, "study": run.study, "run": run.name}
        self._begin, self._open = 0, b""

    def piece(self, piece: Piece) -> None:
        if not self._open or piece.begin != self._begin + len(self._open):
            self._begin, self._open = piece.begin, b""
        *whole, self._open = (self._open + piece.content).split(b"\n")
        for line in whole:
            self._write(line)
            self._begin += len(line) + 1
        sys.stdout.flush()

    def _write(self, line: bytes) -> None:
        put_json({**self._run, "offset": self._begin, "line": line.decode("utf-8", "replace")}, indent=None)

    def end(self, state: State, reason: str) -> None:
        if self._open:
            self._write(self._open)
        put_json({**self._run, "state": str(state), "reason": reason}, indent=None)


def _look(
    store: Store, root: Path, run: StoredRun, name: str, offset: int | None, lines: int, wait_s: float
) -> tuple[State, str, Piece]:
    """Return a run's state and the next piece of its log; on Slurm, Slurm is asked, too."""
    from ..runs import control, observe
    from ..targets.files import load_target

    current = None
    if run.state is State.PLANNED or load_target(root, run.target).slurm is not None:
        # The state is asked before the log: what a run wrote before it was over is then never missed.
        current = observe.refresh(store, root, [run]).runs[0]
        wait_s = min(wait_s, 2.0)
    piece = control.read_log(root, run, name, offset=offset, lines=lines, wait_s=wait_s)
    return (current.state, current.reason, piece) if current else (piece.state, piece.reason, piece)
