"""Forgetting runs: the index, status, report and later submissions know them no more, and the study's ledger says so.

Only what is over can be forgotten, since the index is what keeps a run from being submitted twice. The target is asked
once more: it may be at work on a run that failed, by a script that somebody started. A target that can't be asked has
said before how a run ended, if that is known to be over; nothing starts there by its being forgotten, and a submission
that comes later has to reach the target, where the run's claim decides.

What a run made is moved aside as for one that starts over, under its claim: so nothing of it is taken for a new run's
of that name, in a report, when the index is made again, or as a checkpoint to go on from. The line in the ledger is on
the disk before the index forgets the run.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import ledger
from ..agent import rundir
from ..agent.sentences import _, joined
from ..agent.states import State
from ..errors import TargetError, UsageError, few
from ..ledger import Entry
from ..outcome import Outcome, each_target
from ..store import Store
from ..stored_run import StoredRun
from ..targets.files import load_target
from ..transfer import sync
from ..transfer.home import home_of
from . import moving
from .locations import never_was
from .observe import View, scheduler_of


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """A run that was forgotten."""

    run: StoredRun
    """As it was last seen."""
    entry: Entry
    """Its line in the ledger."""
    ledger: Path
    """That file."""


def forget(
    store: Store,
    project: Path,
    view: View,
    *,
    why: str,
    delete: bool,
    confirm: Callable[[Sequence[StoredRun]], None],
    say: Callable[[str], None],
) -> Outcome[Forgotten]:
    """Forget the runs of a view, all of a target or none.

    Args:
        view: In which the targets were asked about all of them.
        why: For the ledger.
        delete: Remove what they made from their targets.
        confirm: Is given them before; what it raises keeps them.
        say: Is told what was submitted again meanwhile.

    Raises:
        UsageError: One isn't over, or what may decide would be removed; nothing was done.
        TargetError: Whether one is over can't be found out, or its files can't be removed; nothing was done.
        LocalError: The ledger can't be written.
    """
    check(view, delete=delete)
    if delete:
        check_copies(project, view.runs)
    confirm(view.runs)
    for study in dict.fromkeys(run.study for run in view.runs):
        ledger.append(project, study, [])  # what can't be written is found out before anything is moved
    done: list[Forgotten] = []

    def act(target: str) -> None:
        theirs = [run for run in view.runs if run.target == target]
        silent = target in view.unreachable
        entries = _put_aside(project, theirs, why=why, delete=delete, is_silent=silent)

        def record(gone: Sequence[StoredRun]) -> None:
            for study in dict.fromkeys(run.study for run in gone):
                lines = [entries[run.study, run.name] for run in gone if run.study == study]
                ledger.append(project, study, lines)

        gone = store.forget(project, theirs, record)
        for run in gone:
            path = ledger.path_of(project, run.study)
            done.append(Forgotten(run=run, entry=entries[run.study, run.name], ledger=path))
        for run in theirs:
            if run not in gone and (place := entries[run.study, run.name].place):
                say(_("{run} was submitted again meanwhile; what it had made is in {place}", run.name, place))

    errors = each_target((run.target for run in view.runs), act)
    order = {(run.study, run.name): number for number, run in enumerate(view.runs)}
    done.sort(key=lambda one: order[one.run.study, one.run.name])
    return Outcome(done=tuple(done), unreachable=errors)


def check(view: View, *, delete: bool) -> None:
    """See that all runs of a view may be forgotten.

    Raises:
        UsageError: One isn't over.
        TargetError: Whether one is can't be found out, or its files can't be removed.
    """
    alive = [run for run in view.runs if not is_over(run)]
    for name, reason in view.unreachable.items():
        unsure = [run for run in alive if run.target == name]
        if unsure:
            what = _("target {target} can't be asked whether {runs} is over", name, _titles(unsure))
            raise TargetError(joined((what, reason)), hint=_("only what is over can be forgotten; nothing was done"))
        if delete and any(run.target == name for run in view.runs):
            what = _("target {target} can't be reached, so nothing can be removed there", name)
            hint = _("without --delete what is known to be over is forgotten all the same")
            raise TargetError(joined((what, reason)), hint=hint)
    if alive:
        stand = [_("{run} is {state}", f"{run.study}/{run.name}", run.state) for run in alive]
        raise UsageError(
            _("only what is over can be forgotten, nothing was done: {runs}", few(stand)), hint=_next_step(alive)
        )


def check_copies(project: Path, runs: Sequence[StoredRun]) -> None:
    """See that of each result of a locked study, whose first ones decide, there is a copy here that was fetched.

    Raises:
        UsageError: Of one there is none.
    """
    locked = {study for study in {run.study for run in runs} if ledger.is_locked(project, study)}
    alone = [run for run in runs if run.study in locked and ledger.has_result(run) and not _is_fetched(project, run)]
    if alone:
        raise UsageError(
            _("--delete would remove results of a locked study that have no copy here, nothing was done: {runs}",
              _titles(alone)),
            hint=_("oelm-fetch brings them from other machines; without --delete they are moved to .archive"),
        )  # fmt: skip


def _is_fetched(project: Path, run: StoredRun) -> bool:
    home = home_of(project, run)
    return sync.record(home).get("run_dir") == run.run_dir and (home / rundir.MANIFEST).exists()


def is_over(run: StoredRun) -> bool:
    """Tell whether a run is known to be over, or its target to have nothing of it."""
    return run.state is not State.PLANNED and (run.state.is_final or never_was(run))


def _next_step(alive: Sequence[StoredRun]) -> str:
    if all(run.state is State.PLANNED for run in alive):
        return _("it is being submitted by another command; try again")
    command = shlex.join(["oelm-cancel", *(f"{run.study}/{run.name}" for run in alive[:8])])
    return _("end it first: {command}", command)


def _titles(runs: Sequence[StoredRun]) -> str:
    return few([f"{run.study}/{run.name}" for run in runs])


def _put_aside(
    project: Path, runs: Sequence[StoredRun], *, why: str, delete: bool, is_silent: bool
) -> dict[tuple[str, str], Entry]:
    """Move aside or remove what one target's runs made; return by study and name the lines about them.

    Raises:
        TargetError: The target refuses, or one is in use: nothing was moved.
    """
    moved: dict[str, str] = {}
    hours: dict[str, float] = {}
    removed: Sequence[str] = ()
    if not is_silent:
        scheduler = scheduler_of(load_target(project, runs[0].target), project)
        answer = scheduler.archive([run.run_dir for run in runs], remove=delete)
        moved, hours, removed = answer["moved"], answer["gpu_hours"], answer.get("removed", ())
    entries = {}
    for run in runs:
        files = ledger.ARCHIVED if run.run_dir in moved else ledger.STAYS if is_silent else ledger.NONE
        if run.run_dir in removed:
            files = ledger.REMOVED
        copy = moving.set_copy_aside(project, run)
        entries[run.study, run.name] = ledger.entry_of(
            run, why=why, files=files, gpu_hours=hours.get(run.run_dir),
            place=moved.get(run.run_dir, "") if files == ledger.ARCHIVED else "", copy=str(copy) if copy else "",
        )  # fmt: skip
    return entries
