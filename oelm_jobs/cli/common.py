"""What all commands share: exit codes and errors, the language, the project's folder, prompts."""

from __future__ import annotations

import atexit
import codecs
import contextlib
import copy
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from .. import __version__, language, visible
from ..agent.sentences import _
from ..errors import (
    EXIT_DONE,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_PIPE,
    EXIT_REFUSED,
    EXIT_SYSTEM,
    OelmError,
    UsageError,
    valid_choices,
)
from ..language import translated, translated_help

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..project import Project

visible.translate = translated
PLAINLY = "oelm-plainly"
"""What is done with characters that a stream's encoding lacks (codecs.register_error). All is written through such a
stream: click's own would take UTF-8 where ASCII was asked for.
"""
LIKE = {
    "–": "-",
    "—": "-",
    "−": "-",
    "×": "x",
    "·": ".",
    "…": "~",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "≥": ">",
    "≤": "<",
}
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
ASKED = "_OELM_COMPLETE"
"""Environment variable with which a shell asks how a command line may go on (``complete``), whatever its value."""


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII that looks like the character which can't be encoded, else its escape."""
    assert isinstance(error, UnicodeEncodeError)
    found = error.object[error.start : error.end]
    return "".join(LIKE.get(each) or each.encode("unicode_escape").decode() for each in found), error.end


codecs.register_error(PLAINLY, _plainly)


def say(text: str = "", **style: Any) -> None:
    """Print a result on stdout, in the chosen language; ``style`` as for click.style, dropped for a pipe."""
    message = visible.text(translated(text))
    if style:
        click.echo(click.style(message, **style), file=sys.stdout)
    else:  # there is nothing to take away for a pipe, for which click looks at the terminal each time
        print(message, flush=True)


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the width of the terminal on stdout, or another stream; None for a pipe or a file, where nothing is cut
    or wrapped.
    """
    try:
        return os.get_terminal_size((stream or sys.stdout).fileno()).columns or None
    except (OSError, ValueError):
        return None


def say_wrapped(text: str, then: str = "", **style: Any) -> None:
    """Print a result on stdout, on a terminal in lines that fit, of which all but the first begin with ``then``.

    Not for what is to be copied: a command in two lines is two commands.
    """
    for line in _fitting(text, terminal_width(), then):
        say(line, **style)


def narrate_wrapped(text: str) -> None:
    """Print progress on stderr, on a terminal in lines that fit; not for what is to be copied."""
    for line in _fitting(text, terminal_width(sys.stderr), ""):
        narrate(line)


def _fitting(text: str, width: int | None, then: str) -> list[str]:
    if width is None:
        return [text]
    from ..fitting import wrap

    return wrap(visible.text(translated(text)), width, then=then)


def narrate(text: str) -> None:
    """Print progress on stderr, in the chosen language; only results go to stdout."""
    click.echo(visible.message(translated(text)), file=sys.stderr)


def put(text: str, *, nl: bool = True) -> None:
    """Print text on stdout that is in its language already. Only colours are left as escape sequences, so foreign parts
    must have been through ``visible`` before they were coloured.
    """
    click.echo(visible.coloured(text), file=sys.stdout, nl=nl)


def put_json(value: object, *, indent: int | None = 1) -> None:
    """Print a value as JSON on stdout; paths and errors are their text."""
    import json

    click.echo(visible.in_json(json.dumps(value, indent=indent, default=str)), file=sys.stdout)


class _Context(click.Context):
    def make_formatter(self) -> click.HelpFormatter:
        from .helptext import Formatter

        return Formatter(width=self.terminal_width, max_width=self.max_content_width)


class _ReaderGone(Exception):
    """Whoever read the output has gone (head). click would end a BrokenPipeError itself, with an exit code that says
    something else.
    """


@contextlib.contextmanager
def _readers_may_go() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise _ReaderGone from None


class Ending(click.Command):
    """A click command that ends an error with one line on stderr, its hint on another, and an exit code.

    A traceback is shown only with ``--debug``. ``--lang`` and OELM_LANG choose the language of everything, help
    included.
    """

    context_class = _Context

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Make the command, with the options that every command has behind its own."""
        super().__init__(*args, **{"context_settings": CONTEXT, **settings})
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
            option(self)

    def __call__(self, *args: Any, **extra: Any) -> Any:
        """Run the command as the program that it is: this process ends with it.

        What it has made is not taken apart piece by piece, which takes a tenth of a short command's time.
        """
        try:
            return super().__call__(*args, **extra)
        except SystemExit as ended:
            if not args and isinstance(ended.code, int):
                atexit._run_exitfuncs()
                with contextlib.suppress(OSError):  # then the interpreter ends it, and says so
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(ended.code)
            raise

    def main(  # type: ignore[override]  # click overloads it
        self, args: Sequence[str] | None = None, *, standalone_mode: bool = True, **extra: Any
    ) -> Any:
        """Run the command; in standalone mode exit, with the error's code."""
        argv = list(sys.argv[1:] if args is None else args)
        own = argv[: argv.index("--")] if "--" in argv else argv  # what follows may be a program's (oelm run)
        name = self.name or "oelm"
        extra = {"prog_name": name, **extra, "standalone_mode": False}
        if not standalone_mode:
            return super().main(argv, **extra)
        with_traceback = _("run it again with --debug for the traceback: {command} --debug", name)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=PLAINLY)  # a terminal of a small alphabet is no reason to fail
        if ASKED in os.environ:
            self._complete(name)
        try:
            _choose_language(own)
            code = super().main(argv, **extra) or EXIT_DONE
            with _readers_may_go():
                sys.stdout.flush()  # here, where a full disk behind a pipe can still be named
            sys.exit(code)
        except OelmError as error:
            _fail(name, str(error), error.exit_code, error.hint, own)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else name
            with language.of_click():
                what = language.click_says(error.format_message())
            _fail(name, what, EXIT_REFUSED, _("help: {command} --help", path), own)
        except (KeyboardInterrupt, click.Abort):
            narrate(_("\n{command}: interrupted", name))
            sys.exit(EXIT_INTERRUPTED)
        except _ReaderGone:
            _discard_stdout()
            sys.exit(EXIT_PIPE)
        except OSError as error:
            _discard_stdout()
            what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
            hint = with_traceback
            if error.filename and isinstance(error, PermissionError):
                import shlex  # here: every command imports this module

                place = os.path.dirname(os.path.abspath(error.filename))
                hint = _("who may write there: {command}", shlex.join(["ls", "-ld", place, str(error.filename)]))
            _fail(name, what, EXIT_SYSTEM, hint, own)
        except Exception as error:
            what = _("internal error: {kind}: {words}", type(error).__name__, str(error))
            _fail(name, what, EXIT_INTERNAL, with_traceback, own)

    def _complete(self, name: str) -> NoReturn:
        """Answer a shell that completes a command line, in which nothing may appear that it didn't ask for."""
        with contextlib.suppress(Exception), contextlib.redirect_stderr(None):
            from .complete import answer

            with contextlib.suppress(UsageError):
                _choose_language([])
            if found := answer(self, name):
                put(found)
            sys.stdout.flush()
        sys.exit(0)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the options that begin so, in the chosen language."""
        found = click.Command.shell_complete(self, ctx, incomplete)  # a group's would import all of its commands
        for item in found:
            item.help = translated_help(item.help or "")
        return found

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments, or print the help that they ask for."""
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            extra["color"] = False
        with language.of_click(), _readers_may_go():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run what the arguments ask for."""
        with _readers_may_go():
            return super().invoke(ctx)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, paragraph by paragraph."""
        for paragraph in (self.help or "").split("\n\n"):
            formatter.write_paragraph()
            with formatter.indentation():
                formatter.write_text(translated_help(" ".join(paragraph.split())))

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
    """A group of such commands; alone it lists them."""

    command_class = Ending

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Make the group; it does nothing itself."""
        super().__init__(*args, **{**settings, "invoke_without_command": True, "callback": _list_commands})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name, and the others; a wrong one is named with the nearest."""
        if not ctx.resilient_parsing and not args[0].startswith("-") and args[0] not in self.overview():
            what = _("no command {name!r}; {choices}", args[0], valid_choices(args[0], self.overview()))
            raise UsageError(what, hint=_("help: {command} --help", ctx.command_path))
        with language.of_click():
            return super().resolve_command(ctx, args)

    def overview(self) -> Mapping[str, str]:
        """Return the line of each command."""
        return {name: (command.help or "").split("\n\n")[0] for name, command in self.commands.items()}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the commands and options that begin so."""
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=translated_help(" ".join(line.split())))
            for name, line in self.overview().items()
            if name.startswith(incomplete)
        ]
        return [*commands, *super().shell_complete(ctx, incomplete)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        with formatter.section(translated_help("Commands")):
            rows = [(name, translated_help(" ".join(line.split()))) for name, line in self.overview().items()]
            formatter.write_dl(rows)


@click.pass_context
def _list_commands(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        with language.of_click():
            put(context.get_help())


def _discard_stdout() -> None:
    """Send further output nowhere; else Python complains at exit about the closed stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _choose_language(argv: list[str]) -> None:
    """Set the language before anything is parsed, so that help and usage errors are in it, too."""
    wanted = os.environ.get("OELM_LANG") or "en"
    if wanted in language.LANGUAGES:
        language.choose(wanted)
    for position, argument in enumerate(argv):
        if argument == "--lang" and position + 1 < len(argv):
            wanted = argv[position + 1]
        elif argument.startswith("--lang="):
            wanted = argument.partition("=")[2]
    if wanted not in language.LANGUAGES:
        raise UsageError(_("--lang {language}: {choices}", wanted, valid_choices(wanted, language.LANGUAGES)))
    if wanted != "en" and not _can_show(language.NAMES[wanted]):
        wanted = "en"
    language.choose(wanted)


def _can_show(text: str) -> bool:
    """Tell whether stdout's encoding has the characters of a text; pipes in tests and elsewhere may name none."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _fail(name: str, what: str, code: int, hint: str, argv: list[str]) -> NoReturn:
    if "--debug" in argv and isinstance(sys.exc_info()[1], Exception):
        import traceback

        click.echo(visible.text(traceback.format_exc()), file=sys.stderr)
    for begin, said in ((f"{name}: ", what), ("  ", hint)):
        if said:  # what follows a newline is still this command's error, and looks it
            click.echo(begin + visible.message(translated(said)), file=sys.stderr)
    sys.exit(code)


def command(name: str) -> Callable[[Callable[..., Any]], Ending]:
    """Make a command called ``name``."""
    return click.command(name, cls=Ending)


def open_project(*, is_any: bool = False) -> Project:
    """Return the project that the current folder belongs to; it narrates.

    Args:
        is_any: Where there is none, the git checkout or the folder itself will do.
    """
    from ..project import Project

    try:
        return Project(say=narrate, is_any=is_any)
    except FileNotFoundError:
        raise UsageError(_("the current folder has been removed"), hint=_("go to your project's folder")) from None


def split_names(values: tuple[str, ...]) -> list[str]:
    """Return the names of a repeatable option that also takes comma lists, each once, in order."""
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not any(names):
        raise UsageError(_("an option that takes names was given none"), hint=_("leave it out to mean all"))
    return list(dict.fromkeys(name for name in names if name))


def end_with(errors: Iterable[OelmError]) -> None:
    """Print all but the last of several runs' or targets' errors and raise that one; do nothing without errors."""
    known = list(errors)
    for error in known[:-1]:
        narrate(str(error))
    for error in known[-1:]:
        raise error


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; without a terminal ``--yes`` must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(_("{question} Nobody can be asked here.", question), hint=_("give --yes to confirm"))
    if not click.confirm(visible.text(translated(question)), err=True):
        raise UsageError(_("not confirmed; nothing was done"))


def ask(question: str, **settings: Any) -> str:
    """Return what the user answers on a terminal, which the caller has seen to be one; ``settings`` as for
    click.prompt.
    """
    with language.of_click():
        suffix = translated(_(": "))
        return str(click.prompt(visible.text(translated(question)), err=True, prompt_suffix=suffix, **settings))


def columns(rows: Mapping[str, str]) -> list[str]:
    """Return lines with what is to be typed, or a name, on the left, and what it is for on the right, or below it where
    the terminal has no room for both.
    """
    from ..fitting import width

    longest = max(map(len, rows))
    lines: list[str] = [_("  {command}   {what}", typed.ljust(longest), what) for typed, what in rows.items()]
    if max(width(translated(line)) for line in lines) <= (terminal_width() or math.inf):
        return lines
    return [line for typed, what in rows.items() for line in (f"  {typed}", _("      {what}", what))]
