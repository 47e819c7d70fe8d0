"""Options that say which runs a command is about; the same in all commands, and said before anything is done."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..agent.sentences import _
from ..errors import UsageError, few, valid_choices
from . import complete
from .common import narrate, split_names

if TYPE_CHECKING:
    from ..agent.states import State
    from ..project import Project
    from ..runs.selection import Selection
    from ..stored_run import StoredRun

NAMES = "[STUDY|GROUP|RUN]..."
"""How names of runs are shown in a command's help."""


def by_runs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the names of runs, and the options that choose among them: ``names``, ``study`` and ``only``."""
    for add in (
        click.option(
            "--state",
            "states",
            multiple=True,
            metavar="STATE",
            callback=_states,
            shell_complete=complete.states,
            help=_("Only runs in this state; repeatable, or a,b,c."),
        ),
        click.option(
            "--tag",
            "tags",
            multiple=True,
            metavar="TAG",
            callback=_tags,
            help=_("Only runs with this tag, or with one that it fits (lr*)."),
        ),
        click.option(
            "--seed", "--seeds", "seeds", multiple=True, metavar="N,N-N", callback=_seeds, help=_("Only these seeds.")
        ),
        click.option("--study", metavar="NAME", shell_complete=complete.studies, help=_("Only this study.")),
        click.argument("names", nargs=-1, metavar=NAMES, shell_complete=complete.runs),
    ):
        function = add(function)
    return function


def choose(
    project: Project,
    names: Sequence[str],
    study: str | None,
    only: Mapping[str, Sequence[Any]],
    *,
    earlier: bool = False,
    tell: Callable[[str], None] = narrate,
) -> tuple[str | Selection, ...]:
    """Return what names the runs that are meant, to a method of the project. Say first which runs these are where
    options or patterns choose them, or names mean several.

    Args:
        only: ``seeds``, ``tags`` and ``states``, as by_runs gives them.
        earlier: As for the project's ``select``.
        tell: Is told which runs these are.
    """
    is_plain = not any(only.values()) and not any(re.search(r"[*?\[]", name) for name in names)
    if is_plain and not names and study is None:
        return ()
    chosen = project.select(*names, study=study, earlier=earlier, **only)
    if is_plain and len(chosen.runs) < 2:
        return tuple(names)
    if chosen.runs:
        tell(_("{count} of {all} runs: {runs}", len(chosen.runs), chosen.out_of, few(called(chosen.runs))))
    else:
        tell(_("None of {all} runs is meant.", chosen.out_of))
    return tuple(names) if is_plain else (chosen,)


def called(runs: Sequence[StoredRun]) -> list[str]:
    """Return what several runs are called: their names, with their studies' where these repeat."""
    from .view import titles

    return list(titles(runs).values())


def words(names: Sequence[str], study: str | None, only: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the names and options again, as words of a command line."""
    found = [*names, *(["--study", study] if study else [])]
    seeds = [str(each[0]) if len(each) == 1 else f"{each[0]}-{each[-1]}" for each in only["seeds"]]
    for option, values in (("--seed", seeds), ("--tag", only["tags"]), ("--state", only["states"])):
        found += [option, ",".join(map(str, values))] if values else []
    return found


def _seeds(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[range, ...]:
    found = []
    for part in split_names(values):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UsageError(_("--seed {seeds}: give numbers and ranges of them, as in 42,45-47", part))
        found.append(range(first, last + 1))
    return tuple(found)


def _tags(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(split_names(values))


def _states(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[State, ...]:
    if not values:
        return ()
    from ..agent.states import State

    wanted = [value.upper() for value in split_names(values)]
    for value in wanted:
        if value not in State.__members__:
            raise UsageError(_("--state {state}: {choices}", value, valid_choices(value, State.__members__)))
    return tuple(State[value] for value in wanted)
