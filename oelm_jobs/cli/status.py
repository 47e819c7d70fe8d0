"""``oelm-status``: show the state of every run, as its target reports it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _
from ..errors import Nonsense, few
from .common import command, end_with, narrate, open_project, put, put_json, terminal_width
from .selection import by_runs

if TYPE_CHECKING:
    from ..agent.record_types import Left
    from ..project import Project
    from ..runs.rebuild import Holding
    from ..stored_run import StoredRun


@command("oelm-status")
@by_runs
@click.option("--gpus", is_flag=True, help=_("The targets' devices, queues and disks, too."))
@click.option("--watch", is_flag=True, help=_("Redraw until interrupted."))
@click.option("--rebuild", is_flag=True, help=_("Make the index of runs again from the run directories first."))
@click.option(
    "--adopt",
    is_flag=False,
    flag_value="",
    metavar="[PROJECT]",
    help=_("Rebuild, and take over the runs that a project submitted which was moved, or is on another machine."),
)
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON; with --watch an object a line."))
def main(
    names: tuple[str, ...],
    study: str | None,
    gpus: bool,
    watch: bool,
    rebuild: bool,
    adopt: str | None,
    as_json: bool,
    **only: Any,
) -> None:
    """Show where runs stand: state, progress, losses, rate and the expected rest.

    A terminal that is too narrow gets fewer columns and notes that are cut; a pipe or a file gets everything. Where
    this project has no run, the targets are asked whose runs they hold.
    """
    from . import view

    with open_project() as project:
        elsewhere, nonsense = _look_elsewhere(project, rebuild=rebuild, adopt=adopt)
        views = project.watch(*names, study=study, hosts=gpus)
        is_narrowed = any(only.values())
        if is_narrowed:
            views = (each.only(**only) for each in views)
        if watch:
            screen = contextlib.nullcontext() if as_json else view.screen()
            with contextlib.suppress(KeyboardInterrupt), screen as show:
                for each in views:
                    show(each) if show else put_json(view.as_json(each), indent=None)
            return
        shown = next(views)
        left = project.left_behind(shown.runs)
    if as_json:
        content = view.as_json(shown)
        if elsewhere:
            content["elsewhere"] = [_as_json(one) for one in elsewhere]
        if left:
            content["left"] = [
                {"study": run.study, "name": run.name, "target": place["target"], "run_dir": place["run_dir"]}
                for run, place in left
            ]
        put_json(content)
    elif shown.runs or shown.unreachable or shown.hosts:
        put(view.render(shown, width=terminal_width()))
    elif is_narrowed:
        narrate(_("No run is one of those."))
    elif elsewhere:
        narrate(_("This project has no run here yet."))
    else:
        narrate(_("No run yet. Submit some: oelm-submit"))
    _tell_of(left)
    for message in (*nonsense, *shown.nonsense):
        raise Nonsense(message)
    end_with(error for run in shown.runs if (error := run.misnamed if run.is_nowhere else run.misread))


def _look_elsewhere(project: Project, *, rebuild: bool, adopt: str | None) -> tuple[list[Holding], tuple[str, ...]]:
    """Rebuild the index where that is asked for, else look at the targets where it is empty. Print which runs on
    targets the index does not have; return them, and the targets whose answers were invalid.
    """
    is_asked = rebuild or adopt is not None
    if not is_asked and not project.is_empty:
        return [], ()
    found = project.rebuild() if is_asked else project.survey()
    for message in found.passed_over:
        narrate(message)
    for name, reason in found.unreachable.items():
        what = _("its runs stay as they were") if is_asked else _("what lies there is not known")
        narrate(_("target {target} can't be asked, {what}: {why}", name, what, reason))
    left = [holding for holding in found.holdings if not (is_asked and holding.is_own)]
    if adopt is not None:
        taken = project.adopt(found, adopt)
        for holding in taken:
            narrate(_("took over {runs}", _runs(holding)))
        if not taken:
            narrate(_("There is nothing to take over."))
        keys = {(holding.target, holding.project) for holding in taken}
        left = [holding for holding in left if (holding.target, holding.project) not in keys]
    several = len({holding.project for holding in left if holding.is_elsewhere and not holding.is_own}) > 1
    for holding in left:
        what = _("bring them into the index: oelm-status --rebuild")
        if not holding.is_own:
            named = [holding.owner] if several or not holding.is_elsewhere else []
            import shlex  # here, because few looks at the status need it

            what = _("take them over: {command}", shlex.join(["oelm-status", "--adopt", *named]))
        narrate(_("{target} holds {runs}; {what}", holding.target, _runs(holding), what))
    return left, found.nonsense


def _tell_of(left: list[tuple[StoredRun, Left]]) -> None:
    by_target: dict[str, list[str]] = {}
    for run, place in left:
        by_target.setdefault(place["target"], []).append(f"{run.study}/{run.name} in {place['run_dir']}")
    for target, runs in by_target.items():
        what = _("what {count} runs left there when they started over elsewhere", len(runs))
        if len(runs) == 1:
            what = _("what 1 run left there when it started over elsewhere")
        narrate(_("{target} still holds {what}: {runs}", target, what, few(runs)))


def _runs(holding: Holding) -> str:
    """Return ``2 runs of project /p: tiny/gpt_base RUNNING, tiny/oelm_freeze DONE``."""
    whose = _("this project") if holding.is_own else _("project {path}", holding.owner)
    listed = [
        f"{known.study}/{known.run} {holding.states.get(known.run_dir, '')}".rstrip() for known in holding.records
    ]
    if len(listed) == 1:
        return _("1 run of {whose}: {runs}", whose, listed)
    return _("{count} runs of {whose}: {runs}", len(listed), whose, few(listed))


def _as_json(holding: Holding) -> dict[str, object]:
    runs = [
        {"study": one.study, "name": one.run, "run_dir": one.run_dir, "state": holding.states.get(one.run_dir)}
        for one in holding.records
    ]
    return {"target": holding.target, "project": holding.project, "is_own": holding.is_own, "runs": runs}
