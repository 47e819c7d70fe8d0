"""Answer a shell that asks how a command line may go on, in the middle of the user's line: whatever is broken (no
project, a study that is no TOML, an index that is locked) is no error here, but nothing to offer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def answer(command: click.Command, name: str) -> str:
    """Return how the word at the end of a command line may go on, a line each: kind (plain, file or dir), tab, word,
    tab, what it means.

    Reads COMP_LINE, the command line as far as the cursor, and COMP_WORD, the end of it that the shell replaces (bash
    cuts words at ``=`` and ``:``), where that isn't the whole word.
    """
    from click.shell_completion import ShellComplete, split_arg_string

    words = split_arg_string(os.environ.get("COMP_LINE", "") + "x")  # a word of its own behind a blank
    *before, last = words[1:] or [""]
    word = last[:-1]
    option = word.partition("=")[0] + "=" if word.startswith("--") and "=" in word else ""
    replaced = os.environ.get("COMP_WORD", word)
    kept = len(word) - len(replaced) if word.endswith(replaced) else 0
    rows = []
    for item in ShellComplete(command, {}, name, "").get_completions(before, word):
        value = (option + str(item.value))[kept:] if item.type == "plain" else ""
        if value.isprintable():
            rows.append(f"{item.type}\t{value}\t{' '.join((item.help or '').split())}")
    return "\n".join(rows)


# What options and arguments complete, as click asks them --------------------------------------------------------------


def files(ctx: click.Context, param: click.Parameter, begin: str) -> list[CompletionItem[str]]:
    """Let the shell complete a path."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(begin, type="file")]


def studies(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a study."""
    from .. import completing

    return completing.studies(begin)


def runs(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a study, a group or a run that was submitted."""
    from .. import completing

    return completing.runs(begin, ctx.params.get("study"))


def runs_and_groups(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a group or a run that was submitted."""
    from .. import completing

    return completing.runs(begin, ctx.params.get("study"), studies=False)


def groups(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a group of the study that the line names."""
    from .. import completing

    return completing.groups(begin, ctx.params.get("study"))


def states(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a state of runs."""
    from .. import completing

    return completing.states(begin)


def targets(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a target."""
    from .. import completing

    return completing.targets(begin)


def settings(ctx: click.Context, param: click.Parameter, begin: str) -> list[str]:
    """Complete a setting of the study that the line names, then its value."""
    from .. import completing

    return completing.settings(begin, ctx.params.get("study"))
