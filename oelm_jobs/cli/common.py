"""Owns what all commands share (how errors end a command, the project's place, prompts); leaves what a command does
to its module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import OelmError, UsageError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _ending(invoke: Callable[[], Any], name: str, debug: bool) -> Any:
    """Run a command; an error becomes one line on stderr (and its hint) and an exit code, a traceback only with
    ``--debug``.
    """
    try:
        return invoke()
    except OelmError as error:
        if debug:
            raise
        click.echo(f"{name}: {error}", err=True)
        if error.hint:
            click.echo(f"  {error.hint}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo(f"\n{name}: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has gone (head): nothing is left to say, and Python's own farewell would complain.
        sys.stdout = sys.stderr
        sys.exit(141)
    except (click.exceptions.Exit, click.ClickException, click.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        click.echo(f"{name}: internal error: {type(error).__name__}: {error}", err=True)
        click.echo(f"  run it again with --debug for the traceback: {name} --debug", err=True)
        sys.exit(70)


class _Command(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        return _ending(lambda: super(_Command, self).invoke(ctx), self.name or "oelm", ctx.params.pop("debug", False))


class _Group(click.Group):
    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        return _ending(lambda: super(_Group, self).invoke(ctx), self.name or "oelm", ctx.params.pop("debug", False))


def _debug(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--debug", is_flag=True, help="Show the traceback of an error.")(function)


def _version(function: Callable[..., Any]) -> Callable[..., Any]:
    from .. import __version__

    return click.version_option(__version__, prog_name="oelm-jobs")(function)


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command called ``name`` that ends errors as all commands do and takes ``--debug`` and
    ``--version``.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        wrapped = _version(_debug(function))
        return click.command(name, cls=_Command, context_settings=CONTEXT, **attributes)(wrapped)

    return decorate


def group(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Group]:
    """Make a click group called ``name`` whose subcommands (``@main.command()``) end errors as all commands do."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        wrapped = _version(_debug(function))
        return click.group(name, cls=_Group, context_settings=CONTEXT, **attributes)(wrapped)

    return decorate


def project() -> Path:
    """Return the project that the current folder belongs to."""
    from ..project import find_project

    return find_project(Path.cwd())


def split_names(values: tuple[str, ...]) -> list[str]:
    """Return the names of a repeatable option that also takes comma lists, each once, in order."""
    names = [name.strip() for value in values for name in value.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; off a terminal the answer must have been given as ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here.", hint="give --yes to confirm")
    if not click.confirm(question, err=True):
        raise UsageError("not confirmed; nothing was done")


def narrate(text: str) -> None:
    """Say on stderr what goes on; results alone go to stdout."""
    click.echo(text, err=True)
