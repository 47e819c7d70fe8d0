"""Join commands of one program into groups and seeds: what differs becomes a setting, what nobody declared is found."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import tomlfile
from ..agent.sentences import _
from ..programs import script
from ..spec.program import SPELLINGS
from . import arguments, composed, roles
from .arguments import Argument
from .commands import Command
from .found import Found
from .grouping import Undeclared, factors_of, is_same_within, undeclared
from .keys import ENVIRONMENT, SCRIPT, Key, take_roles
from .naming import names_of


@dataclass(kw_only=True)
class Joined:
    """Commands as groups and seeds."""

    words: list[str]
    """Of the study's command."""
    spelling: str
    booleans: str
    settings: dict[str, Any]
    factors: list[str]
    groups: dict[str, dict[str, Any]]
    seeds: list[int]
    has_seed: bool
    members: list[tuple[Command, str, int]]
    """Each command with its group and seed."""
    undeclared: list[Undeclared] = field(default_factory=list)
    arms: int = 1
    """Groups by the factors alone."""
    seeds_of: dict[str, list[int]] = field(default_factory=dict)
    """The seeds that each group has in the scripts."""
    repeated: int = 0
    """Commands that are the same run as an earlier one."""
    replaced: Mapping[str, str | None] = field(default_factory=dict)
    """Arguments that the toolkit gives, with what stands for them; None for those that are left out."""
    labels: list[str] = field(default_factory=list)
    """Settings that only name groups."""


def join(commands: list[Command], found: Found) -> Joined:
    """Return commands of one program as groups and seeds; what has no place is named."""
    commands = _of_one_shape(commands, found)
    keys, given, seeds, seed_words = take_roles(commands, found)
    varying: list[Key] = [key for key in keys if key.varies]
    templates = composed.templates(varying, seeds)
    varying = [key for key in varying if key.argument not in templates]
    whole = set(templates)
    templates |= {key.argument: made for key in varying if (made := composed.seed_taken_out(key, seeds))}
    for key in list(varying):
        others = [each for each in varying if each is not key]
        if roles.is_label(key.argument) and not is_same_within(key, others, commands):
            why = _("--{name} is left out: a run is named by its group and seed", key.argument.lstrip("-"))
            one = next(command for command, value in zip(commands, key.values, strict=True) if value is not None)
            found.leave(one.started.place, " ".join(one.started.words), why)
            varying.remove(key)
            keys.remove(key)
            given[key.argument] = None
    spelling = _spelling(keys)
    needs_flags = any(key.style == arguments.SWITCH and key.varies for key in keys if key.argument not in whole)
    needs_flags |= any(None in key.values for key in varying)
    texts = {text for key in keys for value in key.values for text in (value or ())}
    booleans = (
        "flag" if needs_flags else "True" if {"True", "False"} & texts and not {"true", "false"} & texts else "true"
    )
    for key in keys:
        key.is_placed = _must_be_placed(key, spelling) or key.argument in templates or key.is_text
        if key.is_placed and None in key.values:  # a place can't be left out
            return join(_with_or_without(key, commands, found), found)
    words = _words(commands, keys, given, templates, seed_words)
    settings = {
        key.name: _typed(key, key.values[0], booleans)
        for key in keys
        if not key.varies and not key.is_placed and key.values[0] is not None
    }
    joined = Joined(
        words=words,
        spelling=spelling,
        booleans=booleans,
        settings=settings,
        factors=[],
        groups={},
        seeds=sorted(set(seeds)) if seeds else [],
        has_seed=bool(seeds),
        members=[],
        replaced=given,
    )
    if not any(key for key in keys if not key.is_placed) and "{settings}" in words:
        words.remove("{settings}")
    _group(joined, commands, varying, seeds, booleans)
    return joined


def _of_one_shape(commands: list[Command], found: Found) -> list[Command]:
    """Return the commands that one line of placeholders can stand for: those with the same words by themselves and
    options of one dash; others are named.
    """

    def shape(command: Command) -> tuple[object, ...]:
        own = [each for each in command.arguments.values() if _is_fixed(each)]
        return (
            command.program.head[: command.program.script],
            *((each.name, each.style, len(each.values)) for each in own),
        )

    count = Counter(map(shape, commands))
    usual = max(count, key=lambda each: count[each])
    for command in commands:
        if shape(command) != usual:
            why = _("its words don't fit the other commands', option by option: import it by itself")
            found.leave(command.started.place, " ".join(command.started.words), why)
    return [command for command in commands if shape(command) == usual]


def _with_or_without(key: Key, commands: list[Command], found: Found) -> list[Command]:
    """Return the commands with an argument, or those without it, whichever are more; the others are named."""
    has = [value is not None for value in key.values]
    is_usual = sum(has) * 2 >= len(has)
    for command, is_there in zip(commands, has, strict=True):
        if is_there is not is_usual:
            why = _("its words don't fit the other commands', option by option: import it by itself")
            found.leave(command.started.place, " ".join(command.started.words), why)
    return [command for command, is_there in zip(commands, has, strict=True) if is_there is is_usual]


def _is_fixed(argument: Argument) -> bool:
    return argument.style in (arguments.SHORT, arguments.OVERRIDE, arguments.WORD) or "#" in argument.name


def _spelling(keys: Sequence[Key]) -> str:
    count = Counter(key.style for key in keys if key.style in SPELLINGS)
    return count.most_common(1)[0][0] if count else SPELLINGS[1]


def _must_be_placed(key: Key, spelling: str) -> bool:
    """Tell whether {settings} can't spell a setting."""
    if key.style in (ENVIRONMENT, SCRIPT, arguments.SHORT, arguments.OVERRIDE, arguments.WORD) or "#" in key.argument:
        return True
    if key.style == arguments.SWITCH:
        return not key.varies or spelling == SPELLINGS[2]
    if spelling == SPELLINGS[2] and None in key.values:
        return True
    return key.style != spelling or not re.fullmatch(r"[A-Za-z_][\w./@-]*", key.name) or key.name != key.argument


def _words(
    commands: Sequence[Command],
    keys: Sequence[Key],
    given: Mapping[str, str | None],
    templates: Mapping[str, str],
    seed_words: dict[str, str],
) -> list[str]:
    """Return the words of the study's command."""
    by_argument = {key.argument: key for key in keys}
    first = commands[0]
    head = list(first.program.head)
    if SCRIPT in by_argument and first.program.script is not None:
        head[first.program.script] = f"{{{SCRIPT}}}"
    variables = [
        (key.argument.partition(" ")[2], templates.get(key.argument, f"{{{key.name}}}"))
        for key in keys
        if key.style == ENVIRONMENT
    ]
    variables += [
        (name.partition(" ")[2], word) for name, word in seed_words.items() if name.startswith(ENVIRONMENT + " ")
    ]
    words = ["env", *(f"{name}={text}" for name, text in variables)] if variables else []
    words += head
    behind: list[str] = []
    for name in dict.fromkeys(name for command in commands for name in command.arguments):
        argument = next(command.arguments[name] for command in commands if name in command.arguments)
        key = by_argument.get(name)
        argument = Argument(name.partition("#")[0] or name, argument.style, argument.values)
        if name in given and given[name] is None:
            continue
        if name in given or name in seed_words:
            made = argument.words([given.get(name) or seed_words.get(name, "")])
        elif name in templates:
            made = argument.words([templates[name]])
        elif key is None or not key.is_placed:
            continue
        elif key.varies:
            made = argument.words([f"{{{key.name}}}"])
        else:
            made = argument.words([value.replace("{", "{{").replace("}", "}}") for value in argument.values])
        if argument.style == arguments.WORD:
            words += made
        else:
            behind += made
    return [*words, "{settings}", *behind]


def _typed(key: Key, value: tuple[str, ...] | None, booleans: str) -> Any:
    """Return a value as a study has it: a number where it is the same one for the program, else text."""
    if value is None:
        return False
    if not value:
        return True
    if len(value) > 1:
        return [_typed(key, (each,), booleans) for each in value]
    text = value[0]
    if key.is_text or key.style == SCRIPT:
        return text
    if text in ("true", "false") and booleans == "true":
        return text == "true"
    if text in ("True", "False") and booleans == "True":
        return text == "True"
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?(\d+\.\d*|\.\d+|\d+(?:\.\d*)?[eE][-+]?\d+)", text) and math.isfinite(float(text)):
        is_whole = float(text).is_integer() and "." not in text and "-" not in text
        return text if is_whole else float(text)
    found = tomlfile.value_of(text)
    if isinstance(found, list) and script.why_not_value(found) == "":
        from ..programs import words

        return found if words.spelled(found, booleans) == text else text
    return text


def _group(joined: Joined, commands: list[Command], varying: list[Key], seeds: list[int], booleans: str) -> None:
    labels = [key for key in varying if roles.is_label(key.argument)]
    labels = [
        key for key in labels if is_same_within(key, [other for other in varying if other not in labels], commands)
    ]
    factors, rest = factors_of(commands, [key for key in varying if key not in labels], seeds)
    joined.labels = [key.name for key in labels]
    gpus = len({command.gpus for command in commands}) > 1
    identity = [(tuple(key.values[place] for key in varying), command.gpus) for place, command in enumerate(commands)]
    order = list(dict.fromkeys(identity))
    called = names_of(commands, varying, rest, identity, order, seeds)
    joined.factors = [key.name for key in factors]
    for each, name in zip(order, called, strict=True):
        place = identity.index(each)
        joined.groups[name] = {key.name: _typed(key, key.values[place], booleans) for key in varying}
        if gpus or commands[place].gpus != 1:
            joined.groups[name]["gpus"] = commands[place].gpus
    joined.arms = len({tuple(key.values[place] for key in factors) for place in range(len(commands))})
    seen: set[tuple[str, int]] = set()
    for place, command in enumerate(commands):
        member = called[order.index(identity[place])], seeds[place] if seeds else -1
        joined.members.append((command, *member))
        joined.repeated += member in seen
        seen.add(member)
    for name in joined.groups:
        joined.seeds_of[name] = sorted({seed for _command, group, seed in joined.members if group == name})
    for key in rest:
        joined.undeclared.append(undeclared(key, commands))
