"""``oelm-logs``: print what a run wrote, over all its attempts."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import click

from .. import visible
from ..agent.reasons import detailed
from ..agent.sentences import _
from ..agent.states import State
from . import complete
from .common import command, narrate, open_project, put, put_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..runs.logs import Piece
    from ..stored_run import StoredRun


@command("oelm-logs")
@click.argument("run", shell_complete=complete.runs)
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    metavar="N",
    default=50,
    show_default=True,
    help=_("How many of the last lines."),
)
@click.option("-f", "--follow", is_flag=True, help=_("Go on until the run is over."))
@click.option("--supervisor", is_flag=True, help=_("The supervisor's own log: waiting, attempts, signals."))
@click.option(
    "--study", metavar="NAME", shell_complete=complete.studies, help=_("The run's study, where its name is not unique.")
)
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON: an object for each line, then the state."))
def main(run: str, lines: int, follow: bool, supervisor: bool, study: str | None, as_json: bool) -> None:
    """Print a run's log.

    With --follow a lost connection is made again, and the log goes on where it was.
    """
    with open_project() as project:
        chosen = project.run(run, study=study)
        found = project.follow(chosen, lines=lines, supervisor=supervisor, until_over=follow)
        try:
            piece = write_log(found, _Objects(chosen) if as_json else None)
        except KeyboardInterrupt:
            return
    if as_json:
        return
    if piece.begin + len(piece.content) == 0:
        narrate(_("{run} is {state} and has written nothing yet ({why})", chosen.name, piece.state, piece.why_empty))
        if not supervisor and piece.state not in (State.PLANNED, State.QUEUED):  # whose reason is the supervisor's word
            argv = ["oelm-logs", run, *(["--study", study] if study else []), "--supervisor"]
            narrate(_("  what was said before its training: {command}", shlex.join(argv)))
    elif follow:
        narrate(detailed(_("{run} is {state}", chosen.name, piece.state), piece.reason))


def write_log(pieces: Iterable[Piece], write: _Bytes | None = None) -> Piece:
    """Print a log as it comes; return its last piece."""
    write = write or (_Shown() if sys.stdout.isatty() else _Bytes())
    for piece in pieces:
        write.piece(piece)
    write.end(piece)
    return piece


class _Bytes:
    """Writes a log unchanged."""

    def piece(self, piece: Piece) -> None:
        sys.stdout.buffer.write(piece.content)
        sys.stdout.buffer.flush()

    def end(self, last: Piece) -> None: ...


class _Shown(_Bytes):
    """Writes a log to a terminal, with escapes for control characters."""

    def __init__(self) -> None:
        self._stream = visible.Stream()

    def piece(self, piece: Piece) -> None:
        put(self._stream.piece(piece.content), nl=False)

    def end(self, last: Piece) -> None:
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

    def end(self, last: Piece) -> None:
        if self._open:
            self._write(self._open)
        put_json({**self._run, "state": last.state, "reason": last.reason}, indent=None)
