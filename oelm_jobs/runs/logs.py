"""Read a run's logs, wherever they are written, and follow them until the run is over."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import probe, registry
from ..agent.sentences import _, joined
from ..agent.states import State
from ..connections import connect
from ..connections.answers import nonsense
from ..errors import NotReached
from ..store import Store
from ..stored_run import StoredRun
from ..targets.files import load_target
from .observe import refresh

if TYPE_CHECKING:
    from ..agent import messages

WAIT_S, SLURM_WAIT_S = 20.0, 2.0
"""How long a target may wait for more of a log that is followed, in one question; on Slurm the queue is asked, too."""
RETRY_S = 2.0
"""Pause before a lost connection is tried again."""
PAUSE_S = 0.2
"""Pause after a look that brought nothing."""
MAX_ODD = 10
"""So many looks may find a shorter log than before, or bring less of it than there is: it is made anew just now."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of one of a run's logs."""

    content: bytes
    begin: int
    """Where it begins, in bytes."""
    size: int
    """Bytes of the whole log."""
    state: State
    """Where the run stood before the log was read."""
    reason: str
    """Why."""

    @property
    def why_empty(self) -> str:
        """Why nothing is written yet."""
        return self.reason or _("its training hasn't started")


def pieces(
    store: Store,
    project: Path,
    run: StoredRun,
    name: str,
    *,
    lines: int,
    follow: bool,
    say: Callable[[str], None],
) -> Iterator[Piece]:
    """Yield one of a run's logs piece by piece, from ``lines`` lines before its end; at least one piece, maybe empty.

    Args:
        follow: Go on until the run is over; a lost connection is made again, and the log goes on where it was.
        say: Is told what is waited for.

    Raises:
        TargetError: The target can't be asked.
    """
    offset: int | None = None
    wait_s = 0.0  # at first: what there is, and where the run stands, is said at once
    end, odd, is_lost = math.inf, 0, False
    while True:
        try:
            piece = _look(store, project, run, name, offset=offset, lines=lines, wait_s=wait_s)
        except NotReached as error:
            if not follow:
                raise
            if not is_lost:
                say(joined((str(error), _("trying again"))))
            is_lost = True
            time.sleep(RETRY_S)
            continue
        is_lost = False
        is_another = piece.size < (offset or 0)  # the run was started over
        is_odd = is_another or len(piece.content) < min(probe.MAX_LOG_BYTES, piece.size - piece.begin)
        odd = odd + is_odd if is_odd or not follow else 0
        if odd > MAX_ODD:
            raise nonsense(run.target, "log", _("log.size = {size}: is not what is sent", piece.size))
        if is_another:
            offset, end = 0, math.inf
            continue
        yield piece
        offset = piece.begin + len(piece.content)
        if not follow:
            end = min(end, piece.size)  # what is written from now on is not waited for
        if offset < min(end, piece.size):
            continue
        if not follow or piece.state.is_final:
            return
        if wait_s and not piece.content:
            time.sleep(PAUSE_S)  # whether or not the target has waited
        if not wait_s and piece.state is not State.RUNNING:
            why, state = piece.why_empty, piece.state
            say(_("{run} is {state} ({why}); its log follows when it is written", run.name, state, why))
        wait_s = WAIT_S


def _look(
    store: Store, project: Path, run: StoredRun, name: str, *, offset: int | None, lines: int, wait_s: float
) -> Piece:
    """Return a piece of a log, with the run's state as its files say; on Slurm as the queue has it.

    Args:
        offset: Where to begin in bytes; None means ``lines`` lines before the end.
        wait_s: How long the target may wait for more to be written.

    Raises:
        TargetError: It can't be asked, or sends another piece.
    """
    target = load_target(project, run.target)
    current = None
    if run.state is State.PLANNED or target.slurm is not None:
        # The state is asked before the log: what a run wrote before it was over is then never missed.
        current = refresh(store, project, [run]).runs[0]
        wait_s = min(wait_s, SLURM_WAIT_S)
    request: messages.LogRequest = {
        "run_dir": run.run_dir,
        "name": name,
        "offset": offset,
        "lines": lines,
        "wait_s": wait_s,
    }
    answer = connect(target, project).call(registry.LOG, request, timeout_s=60 + wait_s)
    begin, size = answer["offset"], answer["size"]
    meant = range(max(0, size - probe.MAX_LOG_BYTES), size + 1) if offset is None else (min(size, offset),)
    if begin not in meant:
        wrong = _("log.offset = {offset}: was asked for from {begin} of {size} on", begin, meant[0], size)
        raise nonsense(run.target, "log", wrong)
    return Piece(
        content=base64.b64decode(answer["content"]),
        begin=begin,
        size=size,
        state=current.state if current else State(answer["state"]),
        reason=current.reason if current else answer["reason"] or "",
    )
