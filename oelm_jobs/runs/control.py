"""Cancelling runs and reading their logs, wherever they are."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import probe, registry
from ..agent.sentences import _
from ..agent.states import State
from ..connections import connect
from ..connections.answers import nonsense
from ..schedulers import scheduler
from ..store import Store, StoredRun
from ..targets.files import load_target
from .observe import Scope, refresh

if TYPE_CHECKING:
    from ..agent import messages

ARRIVAL_S = 30.0
"""So long a cancel waits for a submission that is on its way."""


def cancel(store: Store, project: Path, runs: Sequence[StoredRun]) -> dict[tuple[str, str], str]:
    """End runs with all their processes; return by study and run name what was done.

    A submission that is on its way is waited for: what it starts a moment later would live on.

    Raises:
        TargetError: A target can't be reached; its runs are as they were.
    """
    runs = _arrived(store, project, runs)
    done: dict[tuple[str, str], str] = {
        (run.study, run.name): _("is being submitted by another command; try again")
        for run in runs
        if run.state is State.PLANNED
    }
    alive = [run for run in runs if run.state is not State.PLANNED]
    for name in dict.fromkeys(run.target for run in alive):
        theirs = [run for run in alive if run.target == name]
        host = scheduler(connect(load_target(project, name), project))
        answers = host.cancel({run.run_dir: run.token for run in theirs})
        done.update({(run.study, run.name): answers[run.run_dir] for run in theirs})
    refresh(store, project, alive, scope=Scope.ALL)
    return done


def _arrived(store: Store, project: Path, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return runs as they stand once their submissions have an answer, or ARRIVAL_S later."""
    deadline = time.monotonic() + ARRIVAL_S
    found = list(runs)
    while any(run.state is State.PLANNED for run in found) and time.monotonic() < deadline:
        time.sleep(0.2)
        found = list(refresh(store, project, (store.run(project, run.study, run.name) or run for run in found)).runs)
    return found


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of one of a run's logs."""

    content: bytes
    begin: int
    """Where it begins, in bytes."""
    size: int
    """Bytes of the whole log."""
    state: State
    """Where the run stood before the log was read, as its files say."""
    reason: str
    """Why."""


def read_log(project: Path, run: StoredRun, name: str, *, offset: int | None, lines: int, wait_s: float = 0.0) -> Piece:
    """Return a piece of one of a run's logs.

    Args:
        offset: Where to begin in bytes; None means ``lines`` lines before the end.
        wait_s: How long the target may wait for more to be written.

    Raises:
        TargetError: It can't be asked, or sends another piece.
    """
    connection = connect(load_target(project, run.target), project)
    request: messages.LogRequest = {
        "run_dir": run.run_dir,
        "name": name,
        "offset": offset,
        "lines": lines,
        "wait_s": wait_s,
    }
    answer = connection.call(registry.LOG, request, timeout_s=60 + wait_s)
    begin, size = answer["offset"], answer["size"]
    meant = range(max(0, size - probe.MAX_LOG_BYTES), size + 1) if offset is None else (min(size, offset),)
    if begin not in meant:
        wrong = _(
            "log.offset = {offset}: was asked for from {begin} of {size} on", offset=begin, begin=meant[0], size=size
        )
        raise nonsense(run.target, "log", wrong)
    return Piece(
        content=base64.b64decode(answer["content"]),
        begin=begin,
        size=size,
        state=State(answer["state"]),
        reason=answer["reason"] or "",
    )
