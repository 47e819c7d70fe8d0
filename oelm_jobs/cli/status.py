"""``oelm-status``: where every run stands, as its target says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from .common import command, narrate, project, put, put_json


@command("oelm-status")
@click.argument("names", nargs=-1, metavar="[STUDY|GROUP|RUN]...")
@click.option("--study", metavar="NAME", help="Only this study.")
@click.option(
    "--state", "states", multiple=True, metavar="STATE", help="Only runs in this state; repeatable, or a,b,c."
)
@click.option("--gpus", is_flag=True, help="The targets' devices, queues and disks, too.")
@click.option("--watch", is_flag=True, help="Redraw until interrupted.")
@click.option("--rebuild", is_flag=True, help="Make the index of runs again from the run directories first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch an object a line.")
def main(
    names: tuple[str, ...],
    study: str | None,
    states: tuple[str, ...],
    gpus: bool,
    watch: bool,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Show where runs stand: state, progress, losses, rate and the expected rest.

    A terminal that is too narrow gets fewer columns and notes that are cut; a pipe or a file gets everything.
    """
    from ..observe import View, refresh
    from ..store import Store, set_aside
    from . import view
    from .select import select

    root = project()
    wanted = _states(states)
    if rebuild and (aside := set_aside()):
        narrate(f"the index of runs was damaged; it is kept as {aside}")
    with Store() as store:
        if rebuild:
            _rebuild(store, root)

        def poll() -> View:
            chosen = select(store, root, names, study)
            asked = {run.target for run in chosen} if gpus else ()
            found = refresh(store, root, chosen, also_stopped=bool(names), hosts=asked)
            return View(
                runs=tuple(run for run in found.runs if not wanted or run.state in wanted),
                unreachable=found.unreachable,
                at=found.at,
                hosts=found.hosts,
            )

        if watch:
            with contextlib.suppress(KeyboardInterrupt):
                view.watch(poll, show=(lambda each: put_json(view.as_json(each), indent=None)) if as_json else None)
            return
        shown = poll()
        if as_json:
            put_json(view.as_json(shown))
        elif shown.runs or shown.unreachable or shown.hosts:
            put(view.render(shown, width=view.terminal_width()))
        else:
            narrate("No run yet. Submit some: oelm-submit" if not wanted else "No run is in that state.")


def _states(values: tuple[str, ...]) -> set[str]:
    from ..errors import UsageError, valid_choices
    from ..spec import State
    from .common import split_names

    wanted = {value.upper() for value in split_names(values)}
    for value in wanted:
        if value not in State.__members__:
            raise UsageError(f"--state {value}: {valid_choices(value, State.__members__)}")
    return wanted


def _rebuild(store: Any, root: Path) -> None:
    from .. import workflow
    from ..targets import load_targets

    for name, reason in workflow.rebuild(store, root, list(load_targets(root).values()), narrate).items():
        narrate(f"target {name} can't be asked, its runs stay as they were: {reason}")
