"""Make of what scripts start the commands of one program: arguments by name, GPUs, environment, place."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..agent.sentences import _
from ..errors import DataError
from ..spec.options import count_gpus
from ..spec.program import SPELLINGS
from . import arguments, launchers, roles, secrets
from .arguments import Argument
from .found import MOST_COMMANDS, Found, Started
from .scope import END, MARK, as_written, is_known

_OURS = re.compile(
    r"CUDA_VISIBLE_DEVICES|NVIDIA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|MASTER_(ADDR|PORT)|WORLD_SIZE|(LOCAL_|NODE_)?RANK|"
    r"NPROC_PER_NODE|NNODES|GPUS_PER_NODE|(SLURM|PBS|LSB|SGE)_.*|LS_SUBCWD|PWD|IFS|OLDPWD|BASH_SOURCE"
)
"""Variables that the toolkit, Slurm or the shell sets."""
_SHARED_FLAGS = 0.5
"""Of the options of two scripts, where they are taken for variants of one program."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the study's program."""

    started: Started
    program: launchers.Program
    arguments: Mapping[str, Argument]
    """By name, in order."""
    gpus: int
    gpus_are_said: bool
    environment: Mapping[str, str]
    """What the program finds in it, as far as the script says it."""
    secrets: tuple[str, ...] = ()
    """Variables in it that hold keys."""


def of_one_program(found: Found) -> list[Command]:
    """Return the commands of the program that is started in most ways; what else is started is named.

    Raises:
        DataError: A sweep of Hydra's is too long.
    """
    commands = [command for started in found.started for command in _commands(started, found)]
    if not commands:
        return []
    heads = _variants(commands)
    different = {(command.program, tuple(command.arguments.values())): command for command in commands}
    count = Counter(heads[command.program.head] for command in different.values())
    best = max(count.values())
    main = next(head for head in heads.values() if count[head] == best)
    for command in commands:
        if heads[command.program.head] != main:
            why = _("another program than {program}: a study has one, so import it by itself", _called(main))
            found.leave(command.started.place, " ".join(command.started.words), why)
        else:
            _name_unknown(command.started, found)
    return [command for command in commands if heads[command.program.head] == main]


def _name_unknown(started: Started, found: Found) -> None:
    """Name what of a command's arguments isn't known."""
    program = launchers.recognise(started.words, started.folder)
    for word in started.words:
        if _is_rest(word):
            why = _("what the script is given on its command line isn't known: left out")
            found.leave(started.place, " ".join(started.words), why)
    for argument in arguments.read(program.arguments):
        is_ours = roles.is_output(argument.name) or roles.is_label(argument.name) or roles.is_rank(argument.name)
        for word in argument.values:
            if not is_known(word) and not is_ours and not _is_rest(word):
                source = as_written(word[word.index(MARK) : word.index(END) + 1])
                why = _("{source} isn't known before it runs: give the value in the study", secrets.hidden(source))
                found.leave(started.place, " ".join(started.words), why)


def _is_rest(word: str) -> bool:
    return not is_known(word) and re.fullmatch(r"\$\{?[@*]\}?", as_written(word)) is not None


def _called(head: tuple[str, ...]) -> str:
    return next((word for word in reversed(head) if "{" not in word), head[-1])


def _commands(started: Started, found: Found) -> list[Command]:
    words = list(started.words)
    words = [word for word in words if not _is_rest(word)]
    words = [as_written(word) for word in words]
    program = launchers.recognise(words, started.folder)
    gpus, are_said = _gpus(started, program)
    environment = {name: value for name, value in started.environment.items() if not _OURS.fullmatch(name)}
    keys = tuple(name for name in environment if secrets.is_variable(name) or secrets.is_value(environment[name]))
    rest = " ".join(program.arguments)
    prefix = {name: value for name, value in environment.items() if name not in keys and not (value and value in rest)}
    made = []
    for several in _swept(arguments.read(program.arguments), started):
        made.append(
            Command(
                started=started,
                program=program,
                arguments={argument.name: argument for argument in several},
                gpus=gpus,
                gpus_are_said=are_said,
                environment=prefix,
                secrets=keys,
            )
        )
    return made


def _swept(several: list[Argument], started: Started) -> list[list[Argument]]:
    """Return the arguments of each run of Hydra's --multirun; else the arguments as they are."""
    marks = [each for each in several if each.name in ("-m", "multirun")]
    if not marks or not any(each.style == SPELLINGS[2] for each in several):
        return [several]
    lost = [Argument(f"#{1000 + place}", arguments.WORD, (value,)) for place, value in enumerate(marks[0].values)]
    several = [each for each in (*lost, *several) if each not in marks]
    several = arguments.read([word for each in several for word in each.words()])
    choices = [
        [replace(each, values=(value,)) for value in each.values[0].split(",")]
        if each.style in (SPELLINGS[2], arguments.OVERRIDE) and not each.values[0].startswith(("[", "{", "'", '"'))
        else [each]
        for each in several
    ]
    number = 1
    for each_of in choices:
        number *= len(each_of)
    if number > MOST_COMMANDS:
        raise DataError(_("{place}: the scripts start more than {n:,} commands", str(started.place), MOST_COMMANDS))
    return [list(each) for each in itertools.product(*choices)]


def _gpus(started: Started, program: launchers.Program) -> tuple[int, bool]:
    """Return how many GPUs a command has over all nodes, and whether anything says so."""
    options: dict[str, str | None] = dict(started.options or {})
    asked = options.get("nodes") or ""
    nodes = max(program.nodes, int(asked) if asked.isdigit() else 1)
    if program.processes is not None:
        return program.processes * nodes, True
    seen = started.environment.get("CUDA_VISIBLE_DEVICES")
    if seen is not None and is_known(seen):
        return (0 if seen in ("", "-1") else seen.count(",") + 1), True
    counted = count_gpus(options, nodes) or started.gpus
    return (counted, True) if counted else (1, False)


def _variants(commands: Sequence[Command]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return for each head the one of its program: those that differ in the script alone are variants of one program
    where they share most of their options.
    """
    flags: dict[tuple[str, ...], set[str]] = {}
    scripts: dict[tuple[str, ...], int | None] = {}
    for command in commands:
        head = command.program.head
        flags.setdefault(head, set()).update(name for name in command.arguments if not name.startswith("#"))
        scripts[head] = command.program.script
    found: dict[tuple[str, ...], tuple[str, ...]] = {}
    for head, own in flags.items():
        found[head] = head
        for other in list(found):
            place = scripts[head]
            is_like = place is not None and place == scripts[other] and len(head) == len(other)
            if other == head or not is_like or place is None or head[:place] != other[:place]:
                continue
            both = own & flags[other]
            if both and len(both) >= _SHARED_FLAGS * len(own | flags[other]):
                found[head] = found[other]
                break
    return found
