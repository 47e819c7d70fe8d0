"""What all commands share: exit codes and errors, the language, the project's folder, prompts."""

from __future__ import annotations

import atexit
import copy
import gc
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .. import language, visible
from ..agent.sentences import _
from ..errors import OelmError, TargetError, UsageError, valid_choices
from ..language import translated, translated_help

if TYPE_CHECKING:
    from ..project import Project

visible.translate = translated
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
EXIT_INTERNAL, EXIT_SYSTEM, EXIT_INTERRUPTED, EXIT_PIPE = 70, 74, 130, 141
"""Exit codes besides those of errors.py; all are described in docs/commands.md."""


def say(text: str = "", **style: Any) -> None:
    """Print a result on stdout, in the chosen language; ``style`` as for click.style, dropped for a pipe."""
    message = visible.text(translated(text))
    click.echo(click.style(message, **style) if style else message)


def narrate(text: str) -> None:
    """Print progress on stderr, in the chosen language; only results go to stdout."""
    click.echo(visible.message(translated(text)), err=True)


def put(text: str, *, nl: bool = True) -> None:
    """Print text on stdout that is in its language already. Only colours are left as escape sequences, so foreign parts
    must have been through ``visible`` before they were coloured.
    """
    click.echo(visible.coloured(text), nl=nl)


def put_json(value: object, *, indent: int | None = 1) -> None:
    """Print a value as JSON on stdout."""
    import json

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
            _fail(name, str(error), error.exit_code, error.hint, argv)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(0)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else name
            _fail(name, _of_click(error), 2, _("help: {command} --help", path), argv)
        except click.ClickException as error:
            _fail(name, _of_click(error), error.exit_code, "", argv)
        except (KeyboardInterrupt, click.Abort):
            narrate(_("\n{command}: interrupted", name))
            sys.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            _discard_stdout()  # the reader of a pipe has gone (head)
            sys.exit(EXIT_PIPE)
        except OSError as error:
            _discard_stdout()
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            _fail(name, what, EXIT_SYSTEM, _with_traceback(name), argv)
        except Exception as error:
            what = _("internal error: {kind}: {words}", type(error).__name__, str(error))
            _fail(name, what, EXIT_INTERNAL, _with_traceback(name), argv)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments, or print the help that they ask for."""
        with language.of_click():
            return super().make_context(info_name, args, parent, **extra)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, paragraph by paragraph."""
        paragraphs = [" ".join(paragraph.split()) for paragraph in (self.help or "").split("\n\n")]
        for paragraph in paragraphs:
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(translated_help(paragraph))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        records = []
        for param in self.get_params(ctx):
            if isinstance(param, click.Option):
                option = copy.copy(param)
                option.help = translated_help(option.help or "")
                records.append(option.get_help_record(ctx))
        with formatter.section(translated_help("Options")):
            formatter.write_dl([record for record in records if record is not None])


class EndingGroup(Ending, click.Group):
    """A group of such commands."""

    command_class = Ending

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the shared options."""
        _add_shared_options(cmd)
        super().add_command(cmd, name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name, and the others."""
        with language.of_click():
            return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            help_text = (command.help or "").split("\n\n")[0] if command else ""
            rows.append((name, translated_help(" ".join(help_text.split()))))
        with formatter.section(translated_help("Commands")):
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
        choices = valid_choices(wanted, language.LANGUAGES)
        raise UsageError(_("--lang {language}: {choices}", wanted, choices))


def _of_click(error: click.ClickException) -> str:
    """Return an error of click's, which is in the chosen language already."""
    with language.of_click():
        return error.format_message()


def _with_traceback(name: str) -> str:
    return _("run it again with --debug for the traceback: {command} --debug", name)


def _fail(name: str, what: str, code: int, hint: str, argv: list[str]) -> NoReturn:
    if "--debug" in argv and isinstance(sys.exc_info()[1], Exception):
        import traceback

        click.echo(visible.text(traceback.format_exc()), err=True)
    for begin, said in ((f"{name}: ", what), ("  ", hint)):
        if said:  # what follows a newline is still this command's error, and looks it
            click.echo(begin + visible.message(translated(said)), err=True)
    sys.exit(code)


def _add_shared_options(made: click.Command) -> None:
    """Add, behind its own, the options that every command has."""
    from .. import __version__

    def nothing() -> None: ...

    for option in (
        click.option(
            "--lang",
            metavar="|".join(language.LANGUAGES),
            expose_value=False,
            help=_("Language of all text (or OELM_LANG)."),
        ),
        click.option("--debug", is_flag=True, expose_value=False, help=_("Show the traceback of an error.")),
        click.version_option(__version__, prog_name="oelm-jobs", help=_("Show the version and exit.")),
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


def open_project() -> Project:
    """Return the project that the current folder belongs to; it narrates."""
    from ..project import Project

    try:
        return Project(say=narrate)
    except FileNotFoundError:
        raise UsageError(_("the current folder has been removed"), hint=_("go to your project's folder")) from None


def split_names(values: tuple[str, ...]) -> list[str]:
    """Return the names of a repeatable option that also takes comma lists, each once, in order."""
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not any(names):
        raise UsageError(_("an option that takes names was given none"), hint=_("leave it out to mean all"))
    return list(dict.fromkeys(name for name in names if name))


def end_with(errors: Mapping[str, TargetError]) -> None:
    """Print all but the last of several targets' errors and raise that one; do nothing without errors."""
    for number, error in enumerate(errors.values(), start=1):
        if number == len(errors):
            raise error
        narrate(str(error))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; without a terminal ``--yes`` must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(_("{question} Nobody can be asked here.", question), hint=_("give --yes to confirm"))
    if not click.confirm(visible.text(translated(question)), err=True):
        raise UsageError(_("not confirmed; nothing was done"))
