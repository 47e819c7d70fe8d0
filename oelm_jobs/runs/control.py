"""Cancelling runs, wherever they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..agent.sentences import _
from ..agent.states import State
from ..outcome import Outcome, each_target
from ..store import Store
from ..stored_run import StoredRun
from ..targets.files import load_target
from .observe import Scope, View, refresh, scheduler_of

ANSWERS = {"cancelled": _("cancelled"), "not running": _("not running"), "still ending": _("still ending")}
"""What the agent answers of a run, as it is shown."""
ARRIVAL_S = 30.0
"""So long a cancel waits for a submission that is on its way."""


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """What a cancel did with one run."""

    run: StoredRun
    answer: str
    """What was done, in words."""


def cancel_all(
    store: Store, view: View, project: Path, confirm: Callable[[Sequence[StoredRun]], None]
) -> Outcome[Cancelled]:
    """End those runs of a view that aren't over.

    Args:
        confirm: Is given them before; what it raises keeps them alive.
    """
    alive = [run for run in view.runs if not run.state.is_final]
    confirm(alive)
    done: dict[tuple[str, str], str] = {}
    errors = each_target(
        (run.target for run in alive),
        lambda name: done.update(cancel(store, project, [run for run in alive if run.target == name])),
    )
    answers = [
        Cancelled(run=run, answer=done.get((run.study, run.name)) or _left_alone(run, view))
        for run in view.runs
        if run.state.is_final or run.target not in errors
    ]
    return Outcome(done=tuple(answers), unreachable=errors)


def _left_alone(run: StoredRun, view: View) -> str:
    if run.target in view.unreachable:
        return _("was {state} when {target} last answered", str(run.state), run.target)
    return _("is {state} already", str(run.state))


def cancel(store: Store, project: Path, runs: Sequence[StoredRun]) -> dict[tuple[str, str], str]:
    """End runs of one target with all their processes; return by study and run name what was done.

    A submission that is on its way is waited for: what it starts a moment later would live on.

    Raises:
        TargetError: The target can't be reached; its runs are as they were.
    """
    runs = _arrived(store, project, runs)
    sent = [run for run in runs if run.state is not State.PLANNED]
    done: dict[tuple[str, str], str] = {
        (run.study, run.name): _("is being submitted by another command; try again")
        for run in runs
        if run.state is State.PLANNED
    }
    if sent:
        host = scheduler_of(load_target(project, sent[0].target), project)
        answers = host.cancel({run.run_dir: run.token for run in sent})
        done |= {(run.study, run.name): ANSWERS.get(answers[run.run_dir], answers[run.run_dir]) for run in sent}
        refresh(store, project, sent, scope=Scope.ALL)
    return done


def _arrived(store: Store, project: Path, runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return runs as they stand once their submissions have an answer, or ARRIVAL_S later."""
    deadline = time.monotonic() + ARRIVAL_S
    found = list(runs)
    while any(run.state is State.PLANNED for run in found) and time.monotonic() < deadline:
        time.sleep(0.2)
        found = list(refresh(store, project, (store.run(project, run.study, run.name) or run for run in found)).runs)
    return found
