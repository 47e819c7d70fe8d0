"""A study over several data sets, its blocks: the study that each of them makes, and the hash of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..spec.block import Block
from ..spec.study import Study

DataHash = str | Mapping[str, str]
"""Hash of what a study's runs read, empty where that isn't known; of a study with blocks by the block's name."""


def each(study: Study) -> dict[str, Study]:
    """Return the study that each block makes, by its name; the study alone, without a name, where it has no blocks."""
    return {name: _within(study, block) for name, block in study.blocks.items()} or {"": study}


def _within(study: Study, block: Block) -> Study:
    program = study.program
    if program is not None and block.data is not None:
        program = replace(program, data=block.data)
    return replace(study, blocks={}, settings={**study.settings, **block.settings}, program=program)


def tag(block: str, own: str = "") -> str:
    """Return how runs in a block are tagged: with its name, in front of a tag of their own."""
    return "-".join(filter(None, (block, own)))


def of_tag(study: Study, tagged: str) -> tuple[str, str]:
    """Return the block that a tag names, and the tag without it; no block where it names none."""
    for name in study.blocks:
        if tagged == name or tagged.startswith(f"{name}-"):
            return name, tagged[len(name) + 1 :]
    return "", tagged


def changed(before: DataHash, now: DataHash) -> list[tuple[str, str]]:
    """Return the hashes of data that are known of both times and differ, each before and now."""
    names = [""] if isinstance(now, str) else [*now]
    pairs = [(hash_in(before, name), hash_in(now, name)) for name in names]
    return [(one, other) for one, other in pairs if one and other and one != other]


def hash_in(data_hash: DataHash, block: str) -> str:
    """Return the hash of a block's data; empty where it isn't known."""
    return data_hash if isinstance(data_hash, str) else data_hash.get(block, "")
