"""Dataclass of blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

EACH, MEAN = "each", "mean"
HOLDS = (EACH, MEAN)
"""Over several blocks a claim is about each of them, or about their mean."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A data set that every group of a study is run on."""

    name: str
    """Unique within the study; letters, digits, ``_`` and ``-``."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings that its runs have in place of the study's own: of the trainer ``data_path`` at least."""
    data: tuple[str, ...] | None = None
    """Of a program: files and folders that it reads in this block, in place of ``data`` in ``[program]``."""
