"""Read and check what a study file says of its blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from .. import names, tomlfile
from ..agent.sentences import _
from ..errors import nearest
from ..programs import built_in, script
from ..spec.block import EACH, HOLDS, MEAN, Block
from ..spec.program import Program
from ..spec.study import Group, Study
from . import program_file, taking

LOSSES = ("loss", "ppl")
"""How metrics end that are told for each token."""


def read(
    section: tomlfile.Section,
    settings: Mapping[str, Any],
    program: Program | None,
    groups: Mapping[str, Group],
    factors: Sequence[str],
) -> dict[str, Block]:
    """Take [blocks], noting what is wrong.

    Args:
        settings: What the study's runs have in common.
        program: None for the built-in trainer.
        factors: Settings that groups set.
    """
    found: dict[str, Block] = {}
    tables = {name: section.take_section(name) for name in section.keys_left()}
    name_data = program is not None and any("data" in table for table in tables.values())
    why_not = partial(_why_not_here, program=program, groups=groups, factors=factors)
    for name, table in tables.items():
        taking.check_name(section, _("a block's name"), name, _why_no_name(name, found, groups))
        data = program_file.take_data(table) if program is not None and "data" in table else None
        block = Block(name=name, settings=_settings(table, settings, program, why_not), data=data)
        _check_data(table, block, found, of_program=program is not None, name_data=name_data)
        table.finish(["data"] if program is not None else [key for key in settings if key not in factors])
        found[name] = block
    if not found:
        section.wrong("NAME", _("give at least one block, as in {example}", '[blocks.novels] data_path = "…"'))
    for name, block in found.items() if program is not None else ():
        others = [other for other in found.values() if other is not block]
        _check_settings(section.beside(name), block, others, settings)
    return found


def _why_no_name(name: str, before: Collection[str], groups: Collection[str]) -> str:
    if why := names.why_not(name):
        return why
    if re.fullmatch(r"s\d+", name):
        return _("a block's name can't be like a seed (s43)")
    for other in before:
        if name.startswith(f"{other}-") or other.startswith(f"{name}-"):
            return _("its runs could not be told from those of block {other}: neither name may begin the other", other)
    for group in groups:
        if f"{group}-{name}" in groups:
            return _("runs of group {group} in it would be called as those of group {other}", group, f"{group}-{name}")
    return ""


def _settings(
    table: tomlfile.Section,
    settings: Mapping[str, Any],
    program: Program | None,
    why_not: Callable[[str], str],
) -> dict[str, object]:
    read_value: Callable[[tomlfile.Section, str], Any] = built_in.read_value
    if program is not None:
        read_value = program_file.read_value
    found: dict[str, object] = {}
    for key in table.keys_left():
        if why := why_not(key):
            table.wrong(key, why)
            table.take_any(key)
            continue
        if program is None and key not in settings:
            continue  # unknown, which is said once all are taken
        with table.noting():
            found[key] = value = read_value(table, key)
            if program is None and key in built_in.DATA and (reason := names.why_not_path(str(value))):
                table.wrong(key, reason, value=value)
    return found


def _why_not_here(key: str, *, program: Program | None, groups: Mapping[str, Group], factors: Sequence[str]) -> str:
    """Return why a block can't set a key that is known; empty where it can."""
    if key in factors:
        return _("is a factor: set it in the groups")
    if setting := [group.name for group in groups.values() if key in group.declared]:
        return _("groups set it themselves ({names})", setting)
    if program is not None:
        return _("takes the seed: set it in seeds") if key == program.seed else ""
    if key == "global_batch":
        return _("is the same in all blocks: set it in [train]")
    if key in built_in.DERIVED:
        return built_in.WHY_DERIVED
    return ""


def _check_data(
    table: tomlfile.Section, block: Block, before: Mapping[str, Block], *, of_program: bool, name_data: bool
) -> None:
    """Note where a block names no data of its own.

    Args:
        before: The blocks before it.
        name_data: Whether a block of a program names files.
    """
    if of_program:
        if block.data is None and (name_data or not block.settings):
            why = _(
                "is missing: give files and folders that the program reads in this block, or settings that name them"
            )
            table.lacks("data", why)
        elif same := [other.name for other in before.values() if _is_same(other, block)]:
            table.wrong("data", _("and settings are those of block {other}, too: a block has data of its own", same[0]))
    elif path := block.settings.get(built_in.TRAINING_DATA):
        if same := [other.name for other in before.values() if other.settings.get(built_in.TRAINING_DATA) == path]:
            table.wrong(
                built_in.TRAINING_DATA,
                _("is that of block {other}, too: a block has data of its own", same[0]),
                value=path,
            )
    else:
        table.lacks(built_in.TRAINING_DATA, _("is missing: a block is a data set, so give its training file"))


def _is_same(one: Block, other: Block) -> bool:
    return (one.data, one.settings) == (other.data, other.settings)


def _check_settings(
    table: tomlfile.Section, block: Block, others: Sequence[Block], settings: Mapping[str, Any]
) -> None:
    """Note settings of a program that are not of one kind throughout, or that other blocks lack."""
    for key, value in block.settings.items():
        alike = [settings] if key in settings else [other.settings for other in others if key in other.settings]
        if any(script.kind(each[key]) is not script.kind(value) for each in alike):
            why = _("must be of the kind that it has in the study: {value}", repr(alike[0][key]))
            table.wrong(key, why, value=value)
        lacking = [other.name for other in others if key not in other.settings]
        if key not in settings and lacking:
            meant = nearest(key, [*settings, *(key for other in others for key in other.settings)])
            why = _("neither [settings] nor block {other} has it: give it in one of them", lacking[0])
            table.wrong(key, _("{why}; did you mean {nearest!r}?", why, meant) if meant else why)


def check_groups(
    top: tomlfile.Section,
    blocks: Mapping[str, Block],
    global_batch: int,
    settings: Mapping[str, object],
    groups: Iterable[Group],
) -> None:
    """Note why settings of groups of the built-in trainer don't go together, in each block."""
    for group in groups:
        for block in blocks.values() or (Block(name=""),):
            fault = built_in.fault_of(global_batch, {**settings, **block.settings}, group)
            if fault is not None:
                is_its = fault.key in block.settings and fault.key not in group.values
                place = top.beside("blocks", block.name) if is_its else top.beside("groups", group.name)
                place.wrong(fault.key, fault.why, value=fault.value)
                break


def take_holds(table: tomlfile.Section, blocks: Collection[str]) -> str:
    """Take of a hypothesis over which blocks its claim is: over each of them, which is the stronger one, where the
    study doesn't say.
    """
    if blocks:
        return table.take("holds", str, EACH, choices=HOLDS)
    if "holds" in table:
        table.wrong("holds", _("is about [blocks], of which there are none: a block is a data set of its own"))
        table.take_any("holds")
    return ""


def check(top: tomlfile.Section, study: Study) -> None:
    """Note what a study with blocks can't have besides, and hypotheses that have no metric in common over them."""
    if not study.blocks:
        return
    if study.speed_trial:
        top.wrong("speed_trial", _("is about one data set: give it a study of its own, without [blocks]"))
    if study.sweep is not None:
        top.wrong("sweep", _("is about one data set: sweep in a study without [blocks], and give its values here"))
    if study.program is None:
        for key in built_in.DATA:
            if study.settings[key] != built_in.DEFAULTS[key]:
                top.beside("train").wrong(key, _("each block names its own: leave it out here"))
        _check_vocabularies(top, study)


def _check_vocabularies(top: tomlfile.Section, study: Study) -> None:
    sizes = {
        name: block.settings.get(built_in.VOCABULARY, study.settings[built_in.VOCABULARY])
        for name, block in study.blocks.items()
    }
    if len(set(sizes.values())) < 2:
        return
    for hypothesis in study.hypotheses:
        if hypothesis.holds == MEAN and hypothesis.metric.endswith(LOSSES):
            why = _(
                "the blocks have no common unit of {metric}, since their vocabularies differ ({sizes}), and so no mean:"
                ' give holds = "each"',
                hypothesis.metric,
                [f"{name} {size}" for name, size in sizes.items()],
            )
            top.beside("hypotheses", hypothesis.id).wrong("holds", why, value=MEAN)
