"""The page of the built-in trainer's keys: its configuration, with the bounds that are checked."""

from __future__ import annotations

from typing import Any

from oelm_jobs.programs import built_in
from train import config as trainer
from train import limits

from .words import NONE, NOTE, Meaningless, choices, code, plain, table, toml

TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def page() -> str:
    """Return the page."""
    parts = [NOTE, HEAD]
    for kind in trainer.KINDS:
        rows = [_row(key) for key in trainer.keys_of_kind(kind)]
        parts.append(f"## {kind.title()} keys\n\n{SAID[kind]}\n\n" + table(("key", "type", "default", "meaning"), rows))
    parts.append(f"## What may be set where\n\n{_where()}")
    return "\n".join(parts)


def _row(key: str) -> tuple[str, ...]:
    field = trainer.FIELDS[key]
    said = plain(field.metadata["help"])
    if not said:
        raise Meaningless(f"train/config.py: {key} has no help")
    return code(key), _type(key), _default(field.default), said


def _type(key: str) -> str:
    told: Any = trainer.FIELDS[key].metadata
    if told["choices"]:
        return choices(told["choices"])
    bounds = limits.bounds(key)
    return f"{TYPES[told['type']]}, {bounds}" if bounds else TYPES[told["type"]]


def _default(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, float) and 0 < value < 1e-2:
        return code(f"{value:.0e}".replace("e-0", "e-"))
    return toml(value)


def _where() -> str:
    names = ", ".join
    return WHERE.format(
        derived=names(map(code, built_in.DERIVED)),
        fixed=names(map(code, built_in.FIXED)),
        factors=names(map(code, built_in.FACTORS)),
    )


SAID = {
    "scientific": "They decide the result. Equal keys, data and global batch mean the same run.",
    "execution": "They decide how fast and how safely the result is reached.",
    "path": "They say where files are.",
    "logging": "They say who else is told.",
}
HEAD = """# Keys of the built-in trainer

They stand in `[train]` of a study, the same for all groups; groups set the factors. Keys that are left out have
their defaults. By hand they are flags: `python -m train --max_steps 600`.
"""
WHERE = """`factors` of a study may be: {factors}.

The same for all groups of a study, whatever is declared: {fixed}.

Derived by the toolkit, and not to be set in a study: {derived} (`batch_size` from `global_batch`, `seed` from
`seeds`).
"""
