"""``oelm-cancel``: end runs with all their processes."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _, joined
from ..errors import TargetError, UnknownAnswer, few
from .common import command, confirm, end_with, narrate, open_project, put_json, say
from .selection import by_runs, choose, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..stored_run import StoredRun


@command("oelm-cancel")
@by_runs
@click.option("--all", "everything", is_flag=True, help=_("Every run of this project that isn't over."))
@click.option("--yes", is_flag=True, help=_("Don't ask."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(names: tuple[str, ...], study: str | None, everything: bool, yes: bool, as_json: bool, **only: Any) -> None:
    """Cancel runs.

    They write a checkpoint first; submitting them again goes on from there. Cancelling a run that is over does nothing.
    """
    from ..agent.states import State
    from .view import titles

    with open_project() as project:
        chosen = choose(project, names, study, only)
        is_all = not chosen and study is None

        def ask(runs: Sequence[StoredRun]) -> None:
            if is_all and not runs:
                narrate(_("No run of this project is under way."))
            if len(runs) > 1:
                confirm(_("Cancel {count} runs ({runs})?", len(runs), few([*titles(runs).values()])), yes=yes)
            working = sum(run.state is State.RUNNING for run in runs)
            if working and sys.stderr.isatty():
                narrate(_("Waiting until {count} runs have written a checkpoint", working))

        found = project.cancel(*chosen, study=study, everything=everything, confirm=ask)
    argv = ["oelm-cancel", *words(names, study, only), *(["--all"] if everything else [])]
    for error in found.unreachable.values():
        _say_what_was_done(error, again=shlex.join(argv))
    shown = [one for one in found.done if not is_all or not one.run.state.is_final]
    called = titles([one.run for one in shown])
    if as_json:
        rows = [{"study": one.run.study, "run": one.run.name, "answer": one.answer} for one in shown]
        put_json({"version": 1, "runs": rows, "unreachable": found.unreachable, "misread": found.misread})
    for one in shown if not as_json else ():
        say(_("{run}: {what}", called[one.run.study, one.run.name], one.answer))
    end_with([*found.misread.values(), *found.unreachable.values()])


def _say_what_was_done(error: TargetError, *, again: str) -> None:
    """Add to a target's error what is known of the runs there; cancelling twice does no harm.

    Args:
        again: The command to give again.
    """
    is_open = isinstance(error, UnknownAnswer)
    done = _("what was cancelled there is not known") if is_open else _("nothing was cancelled there")
    error.args = (joined((str(error), done)),)
    error.hint = joined((_("try it again: {command}", again), error.hint))
