"""Join commands of one program into groups and seeds: what differs becomes a setting, what nobody declared is found."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .. import names, tomlfile
from ..agent.sentences import _
from ..programs import script
from ..spec.program import SPELLINGS
from . import arguments, roles, secrets
from .arguments import Argument
from .commands import Command
from .found import Found

_Identity = tuple[tuple[tuple[str, ...] | None, ...], int]
"""The values of a group's settings, and its number of GPUs."""
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
    def varies(self) -> bool:
        """Whether commands differ in it."""
        return len(set(self.values)) > 1


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
    keys, given, seeds, seed_words = _take_roles(commands, found)
    varying: list[Key] = [key for key in keys if key.varies]
    templates = _templates(varying, seeds)
    varying = [key for key in varying if key.argument not in templates]
    whole = set(templates)
    templates |= {key.argument: made for key in varying if (made := _seed_taken_out(key, seeds))}
    for key in list(varying):
        others = [each for each in varying if each is not key]
        if roles.is_label(key.argument) and not _is_same_within(key, others, commands):
            why = _("--{name} is left out: a run is named by its group and seed", key.argument.lstrip("-"))
            found.leave(commands[0].started.place, " ".join(commands[0].started.words), why)
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


# Which arguments are what ---------------------------------------------------------------------------------------------


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


def _take_roles(
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


def _templates(varying: list[Key], seeds: list[int]) -> dict[str, str]:
    """Return the arguments whose values are put together of others' and the seed, with the texts that do it."""
    found: dict[str, str] = {}
    if not varying:
        return found
    simple = [key for key in varying if all(value is not None and len(value) == 1 for value in key.values)]
    for key in simple:
        texts = [value[0] for value in key.values if value]
        if all(re.fullmatch(r"-?[\d.]+(e-?\d+)?", text, re.I) for text in texts):
            continue
        parts = {
            other: [value[0] for value in other.values if value]
            for other in simple
            if other is not key and other.argument not in found and len(set(other.values)) > 1
        }
        made = _template(texts, parts, [str(seed) for seed in seeds])
        if made is not None:
            template, used = made
            found[key.argument] = template
            for other in used:
                other.is_text = True
    return found


def _template(texts: list[str], parts: dict[Key, list[str]], seeds: list[str]) -> tuple[str, list[Key]] | None:
    """Return a text with placeholders that stands for all texts, and the settings in it."""
    template = texts[0].replace("{", "{{").replace("}", "}}")
    used: list[Key] = []
    choices: list[tuple[str, str, Key | None]] = [(values[0], f"{{{key.name}}}", key) for key, values in parts.items()]
    choices += [(seeds[0], "{seed}", None)] if len(set(seeds)) > 1 else []
    for value, placeholder, key in sorted(choices, key=lambda each: -len(each[0])):
        shape = re.compile(rf"(?<![\d.])(?<!{{){re.escape(value)}(?![\d.])(?!}})")
        pieces = re.split(r"(\{[^{}]+\})", template)
        replaced = "".join(piece if piece.startswith("{") else shape.sub(placeholder, piece) for piece in pieces)
        if value and replaced != template:
            template = replaced
            used += [key] if key is not None else []

    def filled(place: int) -> str:
        text = template
        for key, values in parts.items():
            text = text.replace(f"{{{key.name}}}", values[place])
        return (text.replace("{seed}", seeds[place]) if seeds else text).replace("{{", "{").replace("}}", "}")

    if template == texts[0] or any(filled(place) != text for place, text in enumerate(texts)):
        return None
    return template, used


def _seed_taken_out(key: Key, seeds: list[int]) -> str:
    """Leave of each value what is the group's, where the rest is the seed's; return the text for both, else nothing."""
    texts = [value[0] if value and len(value) == 1 else "" for value in key.values]
    if len(set(seeds)) < 2 or not all(texts):
        return ""
    cut = [re.sub(rf"(?<!\d){seed}(?!\d)", "\0", text) for text, seed in zip(texts, seeds, strict=True)]
    parts = [text.split("\0") for text in cut]
    if any(len(part) != 2 or not part[0] for part in parts) or len({part[1] for part in parts}) > 1:
        return ""
    between = _common([part[0][::-1] for part in parts])[::-1]
    between = (re.search(r"[\W_]*[A-Za-z]*$", between) or between)[0] if len({part[0] for part in parts}) > 1 else ""
    own = [part[0].removesuffix(between) for part in parts]
    if not all(own):
        return ""
    key.values = [(each,) for each in own]
    behind = between + "{seed}" + parts[0][1]
    return f"{{{key.name}}}{behind}" if "{" not in between + parts[0][1] else ""


def _is_same_within(key: Key, others: Sequence[Key], commands: Sequence[Command]) -> bool:
    """Tell whether commands that differ in the seed alone have the same value."""
    values: dict[object, set[object]] = {}
    for place in range(len(commands)):
        values.setdefault(tuple(other.values[place] for other in others), set()).add(key.values[place])
    return all(len(each) == 1 for each in values.values())


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


# Groups ---------------------------------------------------------------------------------------------------------------


def _group(joined: Joined, commands: list[Command], varying: list[Key], seeds: list[int], booleans: str) -> None:
    labels = [key for key in varying if roles.is_label(key.argument)]
    labels = [
        key for key in labels if _is_same_within(key, [other for other in varying if other not in labels], commands)
    ]
    factors, rest = _factors(commands, [key for key in varying if key not in labels], seeds)
    joined.labels = [key.name for key in labels]
    gpus = len({command.gpus for command in commands}) > 1
    identity = [(tuple(key.values[place] for key in varying), command.gpus) for place, command in enumerate(commands)]
    order = list(dict.fromkeys(identity))
    called = _names(commands, varying, rest, identity, order, seeds)
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
        joined.undeclared.append(_undeclared(key, commands))


def _undeclared(key: Key, commands: Sequence[Command]) -> Undeclared:
    usual = Counter(key.values).most_common(1)[0][0]
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


def _factors(commands: Sequence[Command], varying: list[Key], seeds: list[int]) -> tuple[list[Key], list[Key]]:
    """Return the settings that loops and names declare, and as many others as tell the runs apart; and the rest."""
    found = [key for key in varying if _is_looped(key, commands) or _is_named(key, commands)]
    places = range(len(commands))
    whole = len({(*(key.values[place] for key in varying), seeds[place] if seeds else 0) for place in places})

    def told(several: list[Key]) -> int:
        return len({(*(key.values[place] for key in several), seeds[place] if seeds else 0) for place in places})

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
    usual = Counter(key.values).most_common(1)[0][0]
    odd = [place for place, value in enumerate(key.values) if value != usual]
    marks: dict[int, bool] = {}
    for place in odd:
        value = key.values[place]
        text = (
            value[0]
            if value
            else next((part for part in sorted(re.split(r"[_.-]", key.name), key=len)[::-1]), key.name)
        )
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


def _names(
    commands: Sequence[Command],
    varying: Sequence[Key],
    undeclared: Sequence[Key],
    identity: list[_Identity],
    order: list[_Identity],
    seeds: list[int],
) -> list[str]:
    """Return a name for each group: its label, that of its scripts without seeds and what all have in common, or its
    values; groups that only undeclared settings tell apart have these behind it.
    """
    if len(order) == 1:
        return ["base"]
    places = [[place for place, each in enumerate(identity) if each == group] for group in order]
    labels = [key for key in varying if roles.is_label(key.argument)]
    stems = [
        _without_seed(PurePosixPath(command.started.script).stem, place, seeds)
        for place, command in enumerate(commands)
    ]
    ways = [[_text(key.values[each[0]]) for each in places] for key in labels]
    if all(len({stems[place] for place in each}) == 1 for each in places):
        ways.append([stems[each[0]] for each in places])
    usual = {key: Counter(key.values).most_common(1)[0][0] for key in undeclared}
    for way in ways:
        texts = list(way)
        for at, each in enumerate(places):
            odd = [key for key in undeclared if key.values[each[0]] != usual[key]]
            if way.count(way[at]) > 1 and odd:
                texts[at] = "-".join([way[at], *(f"{key.name}_{_text(key.values[each[0]])}" for key in odd)])
        if len(set(texts)) == len(texts):
            prefix = re.split(r"(?<=[_.-])(?=[^_.-]*$)", _common(texts))[0]
            short = [text[len(prefix) :] if prefix.endswith(("_", "-", ".")) else text for text in texts]
            return _unique(short if all(short) else texts)
    several = ["-".join(_part(key, value) for key, value in zip(varying, each[0], strict=True)) for each in order]
    if len(set(several)) < len(several):
        several = [f"{text}-gpus_{each[1]}" for text, each in zip(several, order, strict=True)]
    return _unique(several)


def _without_seed(stem: str, place: int, seeds: Sequence[int]) -> str:
    if len(set(seeds)) < 2:
        return stem
    return re.sub(rf"[_.-]*(seed|s|run)?[_-]?0*{seeds[place]}(?!\d)(?!.*\d)", "", stem) or stem


def _part(key: Key, value: tuple[str, ...] | None) -> str:
    """Return a group's value as a part of its name."""
    if not value:
        return key.name if value is not None else f"no_{key.name}"
    text = PurePosixPath(value[0]).stem if len(value) == 1 and re.search(r"\.[A-Za-z]\w*$", value[0]) else _text(value)
    return text if key.style in (SCRIPT, arguments.WORD) else f"{key.name}_{text}"


def _text(value: tuple[str, ...] | None) -> str:
    return PurePosixPath("_".join(value or ("",))).name


def _common(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    for place, sign in enumerate(first):
        if place >= len(last) or last[place] != sign:
            return first[:place]
    return first


def _unique(texts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for text in texts:
        name = re.sub(r"[^A-Za-z0-9-]+", "_", text).strip("_-")[:56].rstrip("_-") or "group"
        if names.why_not_group(name) or name == names.SPEED_TRIAL:
            name = f"{name}_"
            name = name if not names.why_not_group(name) else "group"
        wanted, number = name, 2
        while name.lower() in (each.lower() for each in found):
            name, number = f"{wanted}_{number}", number + 1
        found.append(name)
    return found
