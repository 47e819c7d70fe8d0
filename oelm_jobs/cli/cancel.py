"""``oelm-cancel``: end runs with all their processes."""

from __future__ import annotations

import shlex
import sys

import click

from ..agent.sentences import _, joined
from ..errors import TargetError, UnknownAnswer, UsageError
from .common import command, confirm, each_target, end_with, narrate, project, put_json, say


@command("oelm-cancel")
@click.argument("names", nargs=-1, metavar="[STUDY|GROUP|RUN]...")
@click.option("--study", metavar="NAME", help=_("Only this study."))
@click.option("--all", "everything", is_flag=True, help=_("Every run of this project that isn't over."))
@click.option("--yes", is_flag=True, help=_("Don't ask."))
@click.option("--json", "as_json", is_flag=True, help=_("Print JSON."))
def main(names: tuple[str, ...], study: str | None, everything: bool, yes: bool, as_json: bool) -> None:
    """Cancel runs.

    They write a checkpoint first; submitting them again goes on from there. Cancelling a run that is over does nothing.
    """
    from ..agent.states import State
    from ..runs import control, observe
    from ..runs.select import select, titles
    from ..store import Store

    if not names and study is None and not everything:
        raise UsageError(_("name a study, a group or a run"), hint=_("or give --all; oelm-status lists them"))
    root = project()
    with Store() as store:
        scope = observe.Scope.STOPPED if names else observe.Scope.MOVING
        view = observe.refresh(store, root, select(store, root, names, study), scope=scope)
        chosen = view.runs
        alive = [run for run in chosen if not run.state.is_final]
        if everything and not names and study is None:
            chosen = tuple(alive)
            if not alive:
                narrate(_("No run of this project is under way."))
        called = titles(chosen)
        if len(alive) > 1:
            listed = ", ".join(called[run.study, run.name] for run in alive[:8]) + (", …" if len(alive) > 8 else "")
            confirm(_("Cancel {count} runs ({runs})?", count=len(alive), runs=listed), yes=yes)
        working = sum(run.state is State.RUNNING for run in alive)
        if working and sys.stderr.isatty():
            narrate(_("Waiting until {count} runs have written a checkpoint", count=working))
        done: dict[tuple[str, str], str] = {}
        errors = each_target(
            (run.target for run in alive),
            lambda name: done.update(control.cancel(store, root, [run for run in alive if run.target == name])),
        )
    argv = ["oelm-cancel", *names, *(["--study", study] if study else []), *(["--all"] if everything else [])]
    for error in errors.values():
        _say_what_was_done(error, again=shlex.join(argv))
    answers = {
        (run.study, run.name): done.get(
            (run.study, run.name),
            _("was {state} when {target} last answered", state=run.state, target=run.target)
            if run.target in view.unreachable
            else _("is {state} already", state=run.state),
        )
        for run in chosen
        if run.state.is_final or run.target not in errors
    }
    if as_json:
        rows = [{"study": study, "run": name, "answer": answer} for (study, name), answer in answers.items()]
        unreachable = {name: str(error) for name, error in errors.items()}
        put_json({"version": 1, "runs": rows, "unreachable": unreachable})
    for key, answer in answers.items() if not as_json else ():
        say(_("{run}: {what}", run=called[key], what=answer))
    end_with(errors)


def _say_what_was_done(error: TargetError, *, again: str) -> None:
    """Add to a target's error what is known of the runs there; cancelling twice does no harm.

    Args:
        again: The command to give again.
    """
    is_open = isinstance(error, UnknownAnswer)
    done = _("what was cancelled there is not known") if is_open else _("nothing was cancelled there")
    error.args = (joined((str(error), done)),)
    error.hint = joined((_("try it again: {command}", command=again), error.hint))
