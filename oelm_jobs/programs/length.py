"""What tells how long a run is; imports nothing, since every status asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "max_steps"
"""The setting that says how many steps the built-in trainer takes, and what records call the length of any run."""

KEPT = ("settings", KEY, "metrics")
"""What the index keeps of a script, by the keys of its record."""


def tokens_per_step(settings: Mapping[str, Any], global_batch: int) -> int:
    """Return how many tokens a step of the trainer takes."""
    return global_batch * int(settings["seq_len"])
