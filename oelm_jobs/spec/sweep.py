"""Dataclasses of sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METHODS = ("grid", "random")
"""Every combination of values, or combinations that are drawn."""
DISTRIBUTIONS = ("uniform", "log_uniform_values", "int_uniform")
"""What a value may be drawn from (docs.wandb.ai, Sweep configuration options)."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A setting that is swept: one of some values, or drawn between two numbers."""

    values: tuple[Any, ...] = ()
    """Values to choose from; instead of a distribution."""
    distribution: str = ""
    """From what a random sweep draws, in W&B's words: any number from ``min`` to ``max`` (``uniform``), the same with
    equal chances for equal ratios (``log_uniform_values``), any whole number (``int_uniform``).
    """
    min: float = 0.0
    """Lowest number that is drawn."""
    max: float = 0.0
    """Highest number that is drawn."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Settings that each group is run with, in place of one."""

    parameters: Mapping[str, Parameter]
    """The settings that are swept, each a table: ``values``, or ``distribution`` with ``min`` and ``max``."""
    method: str = "grid"
    """``grid``, every combination of values, or ``random``, combinations that are drawn."""
    seed: int = 0
    """From which combinations are drawn: the same ones each time, and with a higher run_cap the same ones first."""
    run_cap: int | None = None
    """At most so many combinations, each of which all groups are run with; a random sweep needs it."""
    zip: tuple[tuple[str, ...], ...] = ()
    """Lists of settings that are swept together: the first value of one with the first of the others, and so on."""
    skip: tuple[Mapping[str, Any], ...] = ()
    """Combinations that are left out: all that have these values."""
