"""Tell what each argument of a program's commands is: a setting, the seed, or what the toolkit gives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ..agent.sentences import _
from ..programs import script
from ..spec.program import SPELLINGS
from . import arguments, roles, secrets
from .arguments import Argument
from .commands import Command
from .found import Found

ENVIRONMENT = "env"
"""Style of a setting that is a variable of the environment."""
SCRIPT = "script"
"""The setting that names a program's variant."""
_RESERVED = {*script.BY_CLIENT, *script.BY_AGENT, "label", "cpus"}


@dataclass(eq=False)
class Key:
    """A setting of the commands."""

    name: str
    """As a study calls it."""
    argument: str
    """The argument's name."""
    style: str
    values: list[tuple[str, ...] | None]
    """Of each command; None where it isn't there."""
    is_placed: bool = False
    """Whether a placeholder of its own stands for it; else {settings} does."""
    is_text: bool = False
    """Whether its values stay text, as they are part of others."""

    @property
    def usual(self) -> tuple[str, ...] | None:
        """The value that most commands have."""
        return Counter(self.values).most_common(1)[0][0]

    @property
    def varies(self) -> bool:
        """Whether commands differ in it."""
        return len(set(self.values)) > 1


def take_roles(
    commands: list[Command], found: Found
) -> tuple[list[Key], dict[str, str | None], list[int], dict[str, str]]:
    """Return the settings; words for what the toolkit gives (None for nothing); the seeds, and words for them."""
    ordered = dict.fromkeys(name for command in commands for name in command.arguments)
    keys: list[Key] = []
    given: dict[str, str | None] = {}
    seeds: list[int] = []
    seed_words: dict[str, str] = {}
    for name in sorted(ordered, key=lambda name: roles.normal(name) != "seed"):
        several = [command.arguments.get(name) for command in commands]
        first = next(each for each in several if each is not None)
        style = Counter(each.style for each in several if each is not None).most_common(1)[0][0]
        values = [each.values if each is not None else None for each in several]
        single = [value[0] if value and len(value) == 1 else None for value in values]
        if roles.is_seed(name, single):
            own = [int(value) for value in single if value is not None]
            if not seeds or own == seeds:
                seeds, seed_words[name] = own, "{seed}"
                continue
        if secrets.is_name(name) or any(value and secrets.is_value(value) for value in single):
            why = _("--{name} is left out: a key belongs in a variable that the target's env names", name.lstrip("-"))
            found.leave(commands[0].started.place, f"--{name.lstrip('-')} …", why)
            given[name] = None
            continue
        if (word := _given(name, single, first, commands)) is not None:
            given[name] = word or None
            continue
        keys.append(Key(name=_called(name, style, values, commands), argument=name, style=style, values=values))
    if len(set(seeds)) > 1:
        same: list[tuple[str, ...] | None] = [(str(seed),) for seed in seeds]
        seed_words |= {key.argument: "{seed}" for key in keys if key.values == same}
        keys = [key for key in keys if key.values != same]
    order = list(ordered)
    keys.sort(key=lambda key: order.index(key.argument))
    for name in dict.fromkeys(name for command in commands for name in command.environment):
        texts = [command.environment.get(name) for command in commands]
        if roles.is_seed(name, texts) and not seeds:
            seeds, seed_words[f"{ENVIRONMENT} {name}"] = [int(text or 0) for text in texts], "{seed}"
        elif len({*texts} - {None}) > 1:
            values = [(text,) if text is not None else None for text in texts]
            keys.append(
                Key(
                    name=_setting_name(name, ENVIRONMENT),
                    argument=f"{ENVIRONMENT} {name}",
                    style=ENVIRONMENT,
                    values=values,
                )
            )
    place = commands[0].program.script
    if place is not None and len({command.program.head[place] for command in commands}) > 1:
        values = [(command.program.head[place],) for command in commands]
        keys.append(Key(name=SCRIPT, argument=SCRIPT, style=SCRIPT, values=values))
    taken: set[str] = set()
    for key in keys:
        wanted, number = key.name, 2
        while key.name in taken:
            key.name, number = f"{wanted}_{number}", number + 1
        taken.add(key.name)
    return keys, given, seeds, seed_words


def _given(name: str, single: Sequence[str | None], first: Argument, commands: Sequence[Command]) -> str | None:
    """Return what stands for an argument that the toolkit gives; empty where nothing does, None where it gives none."""
    values = [value for value in single if value is not None]
    if len(values) != sum(name in command.arguments for command in commands) or not values:
        return None
    if first.style != arguments.WORD and roles.is_rank(name):
        return ""
    is_unique = len(set(values)) == len(commands) > 1
    if roles.is_output(name) or (is_unique and all(map(roles.looks_like_output, values))):
        suffixes = {PurePosixPath(value).suffix for value in values}
        is_file = len(suffixes) == 1 and re.fullmatch(r"\.[A-Za-z]\w{1,8}", suffixes.pop() or "")
        bases = {PurePosixPath(value).name for value in values}
        base = bases.pop() if len(bases) == 1 else "output" + PurePosixPath(values[0]).suffix
        return "{run_dir}/" + base.replace("{", "{{").replace("}", "}}") if is_file else "{run_dir}"
    if all(roles.is_port(name, value) for value in values):
        return "{port}"
    leased = [roles.as_leased(name, value) for value in values]
    return leased[0] if all(leased) and len(set(leased)) == 1 else None


def _called(name: str, style: str, values: Sequence[tuple[str, ...] | None], commands: Sequence[Command]) -> str:
    """Return what a study calls an argument: a word by itself as the variable that holds it, where one is exported."""
    if style == arguments.WORD:
        for variable in commands[0].started.environment:
            texts = [(command.started.environment.get(variable, ""),) for command in commands]
            if texts == list(values) and len(variable) > 1:
                return _setting_name(variable.lower(), style)
    return _setting_name(name, style)


def _setting_name(argument: str, style: str) -> str:
    """Return what a study calls an argument."""
    if argument.startswith("#"):
        return "argument" + argument[1:]
    name = re.sub(r"[\s={}#]", "_", argument.lstrip("-+~"))
    return f"{name}_" if name in _RESERVED and style != SPELLINGS[0] else name
