"""The frozen dataclasses of studies, runs and targets, in the terms of docs/architecture.md.

Each name is imported when it is first used: making a dozen dataclasses takes longer than asking fifty runs for their
state, and ``oelm-status`` needs two of them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..agent.states import State

if TYPE_CHECKING:
    from .study import (
        METRICS,
        RELATIONS,
        SPEED_TRIAL,
        TRAIN_PREFIX,
        Group,
        Hypothesis,
        Run,
        SpeedTrial,
        Study,
    )
    from .target import Slurm, Target

_HOMES = {
    "target": ("Slurm", "Target"),
    "study": (
        "Group",
        "Hypothesis",
        "METRICS",
        "RELATIONS",
        "Run",
        "SPEED_TRIAL",
        "SpeedTrial",
        "Study",
        "TRAIN_PREFIX",
    ),
}

__all__ = [
    "METRICS",
    "RELATIONS",
    "SPEED_TRIAL",
    "TRAIN_PREFIX",
    "Group",
    "Hypothesis",
    "Run",
    "Slurm",
    "SpeedTrial",
    "State",
    "Study",
    "Target",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f".{module}", __name__), name)  # asked once
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
