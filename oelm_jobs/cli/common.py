"""What all commands share: exit codes and errors, the language, the project's folder, prompts."""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from .. import language, visible
from ..errors import NoSuchTarget, OelmError, TargetError, UsageError, valid_choices
from ..language import tr

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
EXIT_INTERNAL, EXIT_SYSTEM, EXIT_INTERRUPTED, EXIT_PIPE = 70, 74, 130, 141
"""Exit codes besides those of errors.py; all are described in docs/commands.md."""


def say(text: str = "", **style: Any) -> None:
    """Print a result on stdout, in the chosen language; ``style`` as for click.style, dropped for a pipe."""
    message = visible.text(tr(text))
    click.echo(click.style(message, **style) if style else message)


def narrate(text: str) -> None:
    """Print progress on stderr, in the chosen language; only results go to stdout."""
    click.echo(visible.message(tr(text)), err=True)


def put(text: str, *, nl: bool = True) -> None:
    """Print text on stdout that is in its language already. Only colours are left as escape sequences, so foreign parts
    must have been through ``visible`` before they were coloured.
    """
    click.echo(visible.coloured(text), nl=nl)


def put_json(value: object, *, indent: int | None = 1) -> None:
    """Print a value as JSON on stdout."""
    click.echo(visible.in_json(json.dumps(value, indent=indent)))


class Ending(click.Command):
    """A click command that ends an error with one line on stderr, its hint on another, and an exit code.

    A traceback is shown only with ``--debug``. ``--lang`` and OELM_LANG choose the language of everything, help
    included.
    """

    def main(  # type: ignore[override]  # click overloads it, and takes complete_var by position, too
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command; in standalone mode exit, with the error's code."""
        argv = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(argv, prog_name, standalone_mode=False, **extra)
        name = self.name or "oelm"
        # What a command makes lives until it ends: looking for garbage among it, now and at the exit, finds none.
        gc.set_threshold(100_000)
        atexit.register(gc.freeze)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a terminal of a small alphabet is no reason to fail
        try:
            _choose_language(argv)
            code = super().main(argv, prog_name or name, standalone_mode=False, **extra) or 0
            sys.stdout.flush()  # here, where a full disk behind a pipe can still be named
            sys.exit(code)
        except OelmError as error:
            _fail(name, error, error.exit_code, error.hint, argv)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(0)
        except click.UsageError as error:
            _fail(name, error, 2, f"help: {error.ctx.command_path if error.ctx else name} --help", argv)
        except click.ClickException as error:
            _fail(name, error, error.exit_code, "", argv)
        except (KeyboardInterrupt, click.Abort):
            narrate(f"\n{name}: interrupted")
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            _discard_stdout()  # the reader of a pipe has gone (head)
            sys.exit(EXIT_PIPE)
        except OSError as error:
            _discard_stdout()
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            _fail(name, what, EXIT_SYSTEM, f"run it again with --debug for the traceback: {name} --debug", argv)
        except Exception as error:
            hint = f"run it again with --debug for the traceback: {name} --debug"
            _fail(name, f"internal error: {type(error).__name__}: {error}", EXIT_INTERNAL, hint, argv)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage line."""
        formatter.write_usage(ctx.command_path, " ".join(self.collect_usage_pieces(ctx)), prefix=tr("Usage:") + " ")

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, paragraph by paragraph."""
        paragraphs = [" ".join(paragraph.split()) for paragraph in (self.help or "").split("\n\n")]
        for paragraph in paragraphs:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(tr(paragraph))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = [option.get_help_record(ctx) for option in options]
        with formatter.section(tr("Options")):
            formatter.write_dl([(record[0], tr(record[1])) for record in records if record is not None])


class EndingGroup(Ending, click.Group):
    """A group of such commands."""

    command_class = Ending

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the shared options."""
        _add_shared_options(cmd)
        super().add_command(cmd, name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            help_text = (command.help or "").split("\n\n")[0] if command else ""
            rows.append((name, tr(" ".join(help_text.split()))))
        with formatter.section(tr("Commands")):
            formatter.write_dl(rows)


def _discard_stdout() -> None:
    """Send further output nowhere; else Python complains at exit about the closed stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _choose_language(argv: list[str]) -> None:
    """Set the language before anything is parsed, so that help and usage errors are in it, too."""
    wanted = os.environ.get("OELM_LANG", "")
    for position, argument in enumerate(argv):
        if argument == "--lang" and position + 1 < len(argv):
            wanted = argv[position + 1]
        elif argument.startswith("--lang="):
            wanted = argument.partition("=")[2]
    own = os.environ.get("OELM_LANG", "")
    language.choose(wanted if wanted in language.LANGUAGES else own if own in language.LANGUAGES else "en")
    if wanted and wanted not in language.LANGUAGES:
        raise UsageError(f"--lang {wanted}: {valid_choices(wanted, language.LANGUAGES)}")


def _fail(name: str, error: Exception | str, code: int, hint: str, argv: list[str]) -> NoReturn:
    if "--debug" in argv and isinstance(sys.exc_info()[1], Exception):
        import traceback

        click.echo(visible.text(traceback.format_exc()), err=True)
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    for begin, said in ((f"{name}: ", message), ("  ", hint)):
        if said:  # what follows a newline is still this command's error, and looks it
            click.echo(begin + visible.message(tr(said)), err=True)
    sys.exit(code)


def _add_shared_options(made: click.Command) -> None:
    """Add, behind its own, the options that every command has."""
    from .. import __version__

    def nothing() -> None: ...

    for option in (
        click.option("--lang", metavar="en|zh", expose_value=False, help="Language of all text (or OELM_LANG)."),
        click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."),
        click.version_option(__version__, prog_name="oelm-jobs", help="Show the version and exit."),
    ):
        option(nothing)
    made.params += nothing.__click_params__  # type: ignore[attr-defined]  # the options above put it there


def command(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command called ``name`` (Ending) that takes ``--lang``, ``--debug`` and ``--version``."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        made = click.command(name, cls=Ending, context_settings=CONTEXT, **attributes)(function)
        _add_shared_options(made)
        return made

    return decorate


def group(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], click.Group]:
    """Make a click group called ``name``, likewise; ``@main.command()`` adds a command to it."""

    def decorate(function: Callable[..., Any]) -> click.Group:
        made = click.group(name, cls=EndingGroup, context_settings=CONTEXT, **attributes)(function)
        _add_shared_options(made)
        return made

    return decorate


def project() -> Path:
    """Return the project that the current folder belongs to."""
    from ..folders import find_project

    try:
        here = Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder has been removed", hint="go to your project's folder") from None
    return find_project(here)


def split_names(values: tuple[str, ...]) -> list[str]:
    """Return the names of a repeatable option that also takes comma lists, each once, in order."""
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not any(names):
        raise UsageError("an option that takes names was given none", hint="leave it out to mean all")
    return list(dict.fromkeys(name for name in names if name))


def each_target(names: Iterable[str], act: Callable[[str], None]) -> dict[str, TargetError]:
    """Act on each target once; one that can't be reached doesn't keep the command from the others.

    Returns:
        What went wrong, by target; say it with ``end_with``.
    """
    errors: dict[str, TargetError] = {}
    for name in dict.fromkeys(names):
        try:
            act(name)
        except TargetError as error:
            errors[name] = error
        except NoSuchTarget as error:
            errors[name] = TargetError(str(error), hint=error.hint)
    return errors


def end_with(errors: Mapping[str, TargetError]) -> None:
    """Print all but the last of several targets' errors and raise that one; do nothing without errors."""
    for number, error in enumerate(errors.values(), start=1):
        if number == len(errors):
            raise error
        narrate(f"{error}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; without a terminal ``--yes`` must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can be asked here.", hint="give --yes to confirm")
    if not click.confirm(visible.text(tr(question)), err=True):
        raise UsageError("not confirmed; nothing was done")
