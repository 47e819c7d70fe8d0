"""Tell factors, which loops and names declare, from settings in which commands differ though nobody declared it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from . import roles
from .commands import Command
from .keys import Key


@dataclass(frozen=True, kw_only=True)
class Undeclared:
    """A setting in which commands differ though neither a loop nor a name tells that."""

    name: str
    usual: str
    scripts: tuple[str, ...]
    """Those that have another value."""
    others: tuple[str, ...]
    """Their values."""
    places: tuple[str, ...]
    """Their lines."""
    commands: int
    """How many they start with such a value."""


def undeclared(key: Key, commands: Sequence[Command]) -> Undeclared:
    usual = key.usual
    odd = [place for place, value in enumerate(key.values) if value != usual]
    return Undeclared(
        places=tuple(dict.fromkeys(str(commands[place].started.place) for place in odd)),
        commands=len(odd),
        name=key.name,
        usual=_shown(usual),
        scripts=tuple(dict.fromkeys(commands[place].started.script for place in odd)),
        others=tuple(dict.fromkeys(_shown(key.values[place]) for place in odd)),
    )


def _shown(value: tuple[str, ...] | None) -> str:
    return "—" if value is None else " ".join(value) if value else "✓"


def factors_of(commands: Sequence[Command], varying: list[Key], seeds: list[int]) -> tuple[list[Key], list[Key]]:
    """Return the settings that loops and names declare, and as many others as tell the runs apart; and the rest."""
    found = [key for key in varying if _is_looped(key, commands) or _is_named(key, commands)]
    places = range(len(commands))

    def told(several: list[Key]) -> int:
        return len({(*(key.values[place] for key in several), seeds[place] if seeds else 0) for place in places})

    whole = told(varying)
    while told(found) < whole:
        left = [key for key in varying if key not in found]
        found.append(max(left, key=lambda key: (told([*found, key]), -_evenness(key))))
    found.sort(key=varying.index)
    return found, [key for key in varying if key not in found]


def _evenness(key: Key) -> int:
    """Return how unequal the numbers of commands are that have each value."""
    count = Counter(key.values).values()
    return max(count) - min(count)


def _is_looped(key: Key, commands: Sequence[Command]) -> bool:
    """Tell whether one line of a script starts commands with several values."""
    values: dict[object, set[object]] = {}
    for command, value in zip(commands, key.values, strict=True):
        place = command.started.place
        values.setdefault((command.started.script, place.path, place.line), set()).add(value)
    return any(len(each) > 1 for each in values.values())


def _is_named(key: Key, commands: Sequence[Command]) -> bool:
    """Tell whether the names of scripts, jobs and results say a setting's values."""
    called = [_name_of(command) for command in commands]
    if len(set(called)) < 2:
        return False
    usual = key.usual
    odd = [place for place, value in enumerate(key.values) if value != usual]
    marks: dict[int, bool] = {}
    for place in odd:
        value = key.values[place]
        text = value[0] if value else sorted(re.split(r"[_.-]", key.name), key=len)[-1]
        shape = rf"(?<![\d.]){re.escape(text.lower())}(?![\d])"
        marks[place] = bool(text) and re.search(shape, called[place]) is not None
    usual_texts = [called[place] for place in range(len(commands)) if place not in odd]
    is_apart = all(text not in usual_texts for place, text in enumerate(called) if place in odd)
    return all(marks.values()) and is_apart


def _name_of(command: Command) -> str:
    """Return the names that people gave a command."""
    parts = [PurePosixPath(command.started.script).stem, PurePosixPath(command.started.place.path).stem]
    parts.append((command.started.options or {}).get("job-name", ""))
    for name, argument in command.arguments.items():
        if roles.is_label(name) or roles.is_output(name):
            parts += argument.values
    return " ".join(parts).lower()


def is_same_within(key: Key, others: Sequence[Key], commands: Sequence[Command]) -> bool:
    """Tell whether commands that differ in the seed alone have the same value."""
    values: dict[object, set[object]] = {}
    for place in range(len(commands)):
        values.setdefault(tuple(other.values[place] for other in others), set()).add(key.values[place])
    return all(len(each) == 1 for each in values.values())
