"""Read the built-in trainer's flags as people type them, for a study that says the same by its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..spec.study import Run
from ..train import config as trainer
from . import built_in
from .settable import DERIVED

MODULES = ("train", "oelm_jobs.train")
"""What ``python -m`` calls the trainer."""


@dataclass(frozen=True, kw_only=True)
class Typed:
    """What a command line tells the trainer."""

    values: Mapping[str, Any]
    """Of every key, but those that the toolkit derives."""
    stated: frozenset[str]
    """Those that stand on the command line."""
    left_out: frozenset[str]
    """Those that the toolkit says itself, whatever stands there."""
    global_batch: int
    """Sequences per step."""


def is_trainer(project: Path, module: str) -> bool:
    """Tell whether a module is the trainer, and no package of the project's own of that name."""
    own = project / MODULES[0] / "config.py"
    try:
        return module == MODULES[1] or (module == MODULES[0] and b"class TrainConfig" in own.read_bytes())
    except OSError:
        return False


def read(words: Sequence[str], processes: int) -> Typed | None:
    """Return what flags say to a number of processes; None where the trainer would not take them."""
    if {"-h", "--help"} & set(words):
        return None
    try:
        config = trainer.from_flags(words)
    except trainer.ConfigError:
        return None
    names = {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    return Typed(
        values={key: value for key, value in asdict(config).items() if key not in DERIVED},
        stated=frozenset(names & trainer.FIELDS.keys() - {*DERIVED}),
        left_out=frozenset(names & {*DERIVED} - {"seed", "batch_size", "out_dir"}),
        global_batch=config.batch_size * processes * config.gradient_accumulation_steps,
    )


def is_repeated(typed: Typed, run: Run) -> bool:
    """Tell whether a run trains as a command line says, whatever its files are called."""
    own = built_in.in_full(run.settings)
    paths = trainer.keys_of_kind("path")
    same = all(own.get(key) == value for key, value in typed.values.items() if key not in paths)
    return same and run.global_batch == typed.global_batch
