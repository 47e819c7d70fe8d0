"""Tell which commands xargs and GNU parallel start, one for each of several words or lines.

Source: xargs(1), parallel(1).
"""

from __future__ import annotations

import itertools
import posixpath
import re
import shlex
from collections.abc import Callable, Sequence

from .scope import MOST_WORDS, TooMany

Lines = Callable[[str], "list[str] | None"]
"""Returns a file's lines; None where they aren't known."""
_XARGS_VALUED = "aEILnPsd"
_PARALLEL_VALUED = frozenset(
    {"-j", "--jobs", "-P", "--max-procs", "--joblog", "--delay", "--results", "--timeout", "--retries", "--tmpdir",
     "--memfree", "--load", "--nice", "--halt", "--tagstring", "-S", "--sshlogin", "--sshloginfile", "--workdir",
     "--wd", "--env", "--basefile", "--return", "--limit"}
)  # fmt: skip
_SOURCE = re.compile(r":::\+?|::::\+?")
_PLACE = re.compile(r"\{(\d*)(//|/\.|/|\.)?\}|\{#\}")


def xargs(words: Sequence[str], lines: list[str] | None, read: Lines) -> list[str] | None:
    """Return the commands that xargs starts, as lines of a shell; None where nobody knows them.

    Args:
        words: Of the whole command.
        lines: What it reads, where that is known.
    """
    mark, most, each_line, place = "", 0, 0, 1
    while place < len(words) and words[place].startswith("-"):
        option = words[place]
        place += 1
        name, value = option[1:2], option[2:]
        if option.startswith("--"):
            name, _equals, value = option[2:].partition("=")
            name = {"replace": "I", "max-args": "n", "max-lines": "L", "arg-file": "a"}.get(name, "")
        elif name in _XARGS_VALUED and not value and place < len(words):
            value = words[place]
            place += 1
        if name in ("I", "i"):
            mark = value or "{}"
        elif name == "n" and value.isdigit():
            most = int(value)
        elif name == "L" and value.isdigit():
            each_line = int(value)
        elif name == "a":
            lines = read(value)
        elif name in ("d", "0", "E"):
            return None
    command = words[place:]
    if lines is None or not command:
        return None
    if mark:
        return [shlex.join([word.replace(mark, line.strip()) for word in command]) for line in lines if line.strip()]
    if each_line:
        lines = [" ".join(lines[first : first + each_line]) for first in range(0, len(lines), each_line)]
        return [f"{shlex.join(command)} {line}" for line in lines if line.strip()]
    try:
        items = [item for line in lines for item in shlex.split(line)]
    except ValueError:
        return None
    most = most or max(len(items), 1)
    return [shlex.join([*command, *items[first : first + most]]) for first in range(0, len(items), most)]


def parallel(words: Sequence[str], lines: list[str] | None, read: Lines) -> list[str] | None:
    """Return the commands that GNU parallel starts, as lines of a shell; None where nobody knows them.

    Args:
        words: Of the whole command.
        lines: What it reads, where that is known.
    """
    place, separator = 1, ""
    while place < len(words) and words[place].startswith("-"):
        option, equals, value = words[place].partition("=")
        place += 1
        if option in ("-a", "--arg-file", "--colsep", "-C") and not equals and place < len(words):
            value = words[place]
            place += 1
        elif option in _PARALLEL_VALUED and not equals:
            place += 1
        if option in ("-a", "--arg-file"):
            lines = read(value)
        elif option in ("--colsep", "-C"):
            separator = value
        elif option in ("--pipe", "--pipepart", "-N", "-n", "-X", "-m", "--xargs", "-S", "--sshlogin"):
            return None
    rest = list(words[place:])
    first = next((at for at, word in enumerate(rest) if _SOURCE.fullmatch(word)), len(rest))
    command, rows = rest[:first], _rows(rest[first:], read)
    if first == len(rest):
        rows = [[line] for line in lines if line.strip()] if lines is not None else None
    if rows is None:
        return None
    if separator:
        rows = [re.split(separator, " ".join(row)) for row in rows]
    if not command:
        return [" ".join(row) for row in rows]
    text = " ".join(command)
    text = text if _PLACE.search(text) else f"{text} {{}}"
    return [_filled(text, row, number) for number, row in enumerate(rows, start=1)]


def _rows(rest: Sequence[str], read: Lines) -> list[list[str]] | None:
    """Return the arguments of each command: every combination of what the sources give; linked ones go side by side."""
    found: list[list[str]] = [[]]
    place = 0
    while place < len(rest):
        source = rest[place]
        end = next((at for at in range(place + 1, len(rest)) if _SOURCE.fullmatch(rest[at])), len(rest))
        items: list[str] | None = list(rest[place + 1 : end])
        if source.startswith("::::"):
            several = [read(path) for path in items or ()]
            items = None if None in several else [line for each in several for line in each or ()]
        if items is None:
            return None
        if source.endswith("+"):
            count = max(len(items), 1)
            found = [[*row, items[at % count]] for at, row in enumerate(found)] if items else found
        else:
            if len(found) * len(items) > MOST_WORDS:
                raise TooMany
            found = [[*row, item] for row, item in itertools.product(found, items)]
        place = end
    return found


def _filled(text: str, row: Sequence[str], number: int) -> str:
    """Return a command with its arguments in place of ``{}``, ``{2}``, ``{.}``, ``{/}`` and ``{#}``."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "{#}":
            return str(number)
        chosen = row[int(found[1]) - 1 : int(found[1])] if found[1] else row
        word = " ".join(chosen)
        if found[2] == "//":
            word = posixpath.dirname(word)
        elif found[2]:
            word = posixpath.basename(word) if "/" in found[2] else word
            word = posixpath.splitext(word)[0] if "." in found[2] else word
        return shlex.quote(word) if len(chosen) == 1 else " ".join(map(shlex.quote, chosen))

    return _PLACE.sub(value, text)
