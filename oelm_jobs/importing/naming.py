"""Name groups: by their labels, their scripts, or their values."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from .. import names
from . import arguments, roles
from .commands import Command
from .keys import SCRIPT, Key

Identity = tuple[tuple[tuple[str, ...] | None, ...], int]
"""The values of a group's settings, and its number of GPUs."""


def names_of(
    commands: Sequence[Command],
    varying: Sequence[Key],
    undeclared: Sequence[Key],
    identity: list[Identity],
    order: list[Identity],
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
    usual = {key: key.usual for key in undeclared}
    for way in ways:
        texts = list(way)
        for at, each in enumerate(places):
            odd = [key for key in undeclared if key.values[each[0]] != usual[key]]
            if way.count(way[at]) > 1 and odd:
                texts[at] = "-".join([way[at], *(f"{key.name}_{_text(key.values[each[0]])}" for key in odd)])
        if len(set(texts)) == len(texts):
            shared = os.path.commonprefix(texts)  # noqa: RUF071 - characters are meant
            prefix = re.split(r"(?<=[_.-])(?=[^_.-]*$)", shared)[0]
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
