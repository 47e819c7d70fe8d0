"""The page of commands: usage, arguments and options as click knows them, and the exit codes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

import click

from oelm_jobs import errors
from oelm_jobs.agent import supervise
from oelm_jobs.cli.main import COMMANDS
from oelm_jobs.cli.selection import NAMES

from .words import NONE, NOTE, Meaningless, code, documented, plain, table

TYPES = {"text": "text", "integer": "whole number", "float": "number", "boolean": "", "path": "path"}
"""What click calls a type, and what it is called here."""
OF_ALL = ("--lang", "--debug", "--version", "--help")
"""Options that every command has."""
DEFAULT = re.compile(r"\s*\[default: (.*)\]$")
"""What the help of an option says of a default that click doesn't know."""


def page() -> str:
    """Return the page."""
    parts = [
        NOTE,
        HEAD,
        table(("command", "what it does"), [(f"[`oelm-{n}`](#oelm-{n})", s) for n, s in COMMANDS.items()]),
    ]
    for name in COMMANDS:
        parts.append(section(command(name), f"oelm-{name}", "##"))
    shared = [param for param in _params(command("status")) if param.opts[-1] in OF_ALL]
    parts.append("## Options of every command\n\n" + _options(shared))
    parts.append(f"## Exit codes\n\n{_exit_codes()}")
    return "\n".join(parts)


def command(name: str) -> click.Command:
    """Return a command of the toolkit."""
    found: click.Command = importlib.import_module(f"oelm_jobs.cli.{name.replace('-', '_')}").main
    return found


def section(which: click.Command, called: str, level: str) -> str:
    context = _context(which, called)
    usage = f"```text\n{' '.join([called, *which.collect_usage_pieces(context)])}\n```\n"
    paragraphs = [plain(paragraph) for paragraph in (which.help or "").split("\n\n")]
    parts = [f"{level} {called}\n", usage, *(f"{paragraph}\n" for paragraph in paragraphs)]
    if NAMES in usage:
        parts.append(f"`{NAMES}`: [which runs](../commands.md#which-runs).\n")
    own = [param for param in _params(which) if param.opts[-1] not in OF_ALL]
    if own:
        parts.append(_options(own))
    if isinstance(which, click.Group):
        parts += [section(sub, f"{called} {name}", level + "#") for name, sub in sorted(which.commands.items())]
    return "\n".join(parts)


def _context(which: click.Command, called: str | None = None) -> click.Context:
    """Return a context as the command makes it: click keeps the help option that the first one asks for."""
    return click.Context(which, info_name=called, **which.context_settings)


def _params(which: click.Command) -> Iterator[click.Option]:
    for param in which.get_params(_context(which)):
        if isinstance(param, click.Option):
            yield param


def _options(options: list[click.Option]) -> str:
    rows = []
    for option in options:
        said = plain(option.help or "")
        if not said:
            raise Meaningless(f"option {option.opts[0]} has no help")
        told = DEFAULT.search(said)
        names = ", ".join(map(code, sorted(option.opts, key=lambda name: (not name.startswith("--"), name))))
        rows.append((names, _takes(option), told[1] if told else _default(option), DEFAULT.sub("", said)))
    return table(("option", "takes", "default", "meaning"), rows)


def _takes(option: click.Option) -> str:
    kind = option.type
    if option.is_flag and option.flag_value is not None and isinstance(kind, click.types.BoolParamType):
        return NONE
    if isinstance(kind, click.Choice):
        return ", ".join(map(code, map(str, kind.choices)))
    called = code(option.metavar) if option.metavar else ""
    word = TYPES.get(kind.name.removesuffix(" range"), "text")
    if isinstance(kind, click.types._NumberRangeBase):
        low, high = kind.min, kind.max
        word += f", {low} to {high}" if None not in (low, high) else f", from {low}" if low is not None else ""
    if called and word == "text":
        return called
    return f"{called} ({word})" if called else word


def _default(option: click.Option) -> str:
    value = option.get_default(click.Context(click.Command("any")), call=False)
    is_told = (
        isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != "" and not option.is_flag
    )
    return code(str(value)) if is_told else NONE


def _exit_codes() -> str:
    said = documented(errors)
    names = sorted((name for name in vars(errors) if name.startswith("EXIT_")), key=lambda name: getattr(errors, name))
    if lacking := [name for name in names if name not in said]:
        raise Meaningless(f"oelm_jobs/errors.py: {lacking[0]} has no docstring")
    rows = [(str(getattr(errors, name)), said[name]) for name in names]
    of_run = {name: text for name, text in documented(supervise).items() if name.startswith("EXIT_")}
    own = [("0", "DONE."), *((str(getattr(supervise, name)), text) for name, text in of_run.items())]
    return (
        table(("code", "meaning"), rows)
        + "\nThose of the supervisor of a run; what counts is the run's [end record](../run-directory.md):\n\n"
        + table(("code", "meaning"), own)
    )


HEAD = """# Commands and options

`oelm NAME` and `oelm-NAME` are the same command; `oelm` alone lists them. How they choose runs, and what is to be
known of some of them beyond their options, is in [Using the commands](../commands.md).
"""
