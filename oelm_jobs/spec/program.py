"""Dataclasses of a program of the user's own: its commands, and what the study says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Word = str | tuple[str, ...]
"""A word of a command: text, or texts and names of placeholders in turn (text, name, text, …, text)."""
GOALS = ("minimize", "maximize")
"""Which values of a metric are better."""
MEASURED = ("sampled", "full")
"""On how much of the validation data a metric is measured: on a part, or on all."""
SPELLINGS = ("--key=value", "--key value", "key=value")
"""How {settings} may spell a setting."""
FILE_KINDS = ("json", "yaml", "toml")
"""What kind of file {settings_file} may name."""
BOOLEANS = ("true", "True", "flag")
"""How a setting that is true is spelled; a flag's name stands alone, and one that is false isn't there."""


def placeholders(words: Iterable[Word]) -> set[str]:
    """Return the placeholders in words."""
    return {name for word in words if not isinstance(word, str) for name in word[1::2]}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of a run."""

    name: str
    """Empty where there is one command alone."""
    words: tuple[Word, ...]
    """As they are before anything is filled in."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Where the numbers are that a program tells."""

    lines: tuple[str, ...] = ()
    """Patterns of lines of its output."""
    files: tuple[str, ...] = ()
    """Patterns of files."""
    goal: Mapping[str, str] = field(default_factory=dict)
    """Metric to one of GOALS, the main one first."""
    names: tuple[str, ...] = ()
    """Names in the patterns of lines."""
    measured: Mapping[str, str] = field(default_factory=dict)
    """Metric to one of MEASURED, where the study says it."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the runs of a study execute in place of the built-in trainer."""

    stages: tuple[Stage, ...]
    """One after the other; at least one."""
    spelling: str = SPELLINGS[0]
    """One of SPELLINGS or FILE_KINDS."""
    booleans: str = BOOLEANS[0]
    """One of BOOLEANS."""
    resume: tuple[Word, ...] = ()
    """What {resume} stands for once there is a checkpoint."""
    checkpoint: str = ""
    """Pattern of its checkpoints, of which the newest counts; empty where it writes none."""
    best: str = ""
    """Pattern of its best checkpoint."""
    length: str = ""
    """The setting that says how long a run is; empty where none does."""
    data: tuple[str, ...] = ()
    """Files and folders that it reads, as it calls them."""
    execution: frozenset[str] = frozenset()
    """Settings that leave the result as it is."""
    stop_s: float = 30.0
    """Seconds for a checkpoint between SIGTERM and SIGKILL."""
    seed: str = ""
    """The setting that takes the seed; empty where a command has {seed}, or the program fixes its own."""
    files: tuple[str, ...] = ()
    """Patterns of files that are there once it is done."""
    metrics: Metrics = field(default_factory=Metrics)

    def names(self) -> set[str]:
        """Return the placeholders in its commands."""
        return {name for stage in self.stages for name in placeholders(stage.words)}

    @property
    def takes_seed(self) -> bool:
        """Whether it is told the seed."""
        return bool(self.seed) or "seed" in self.names()
