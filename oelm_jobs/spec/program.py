"""Dataclasses of a program of the user's own: its commands, and what the study says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Word = str | tuple[str, ...]
"""A word of a command: text, or texts and names of placeholders in turn (text, name, text, …, text)."""
GOALS = ("minimize", "maximize")
"""Which values of a metric are better."""
SAMPLED = "sampled"
"""Metrics that are measured on a part of the validation data; verdicts repeat it."""
FULL = "full"
"""Metrics that are measured on all of the validation data; of those in neither list verdicts say that it isn't known.
"""
MEASURED = (SAMPLED, FULL)
"""On how much of the validation data a metric is measured."""
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
    """What the stage is called, for status and logs; each once."""
    words: tuple[Word, ...]
    """What a run executes: text, which is split into words once as a shell would, or a list of words, with
    [placeholders](../program.md#placeholders). No shell sees it; for one write ``["sh", "-c", "…"]``, and values behind
    it (``["sh", "-c", "python train.py --lr \\"$1\\"", "sh", "{lr}"]``): inside its text they are shell text.
    ``python`` and ``torchrun`` as first word are the target's. There is one, or there are ``[[stages]]``.
    """


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Where the numbers are that a program tells."""

    lines: tuple[str, ...] = ()
    """Patterns of lines that the program prints: text with names of numbers in braces (``"step {step}: loss {loss}"``),
    or regular expressions with named groups (``'loss=(?P<loss>\\S+)'``).
    """
    files: tuple[str, ...] = ()
    """Patterns of files with metrics by step: CSV, JSON lines, ``trainer_state.json``, TensorBoard's event files."""
    goal: Mapping[str, str] = field(default_factory=dict)
    """Which values of a metric are better: metric = ``"minimize"`` or ``"maximize"``; the first is the main metric."""
    names: tuple[str, ...] = ()
    """Names in the patterns of lines."""
    measured: Mapping[str, str] = field(default_factory=dict)
    """Metric to one of MEASURED, where the study says it."""

    @property
    def main(self) -> str:
        """The metric that settings are chosen by; empty where none has a direction."""
        return next(iter(self.goal), "")


@dataclass(frozen=True, kw_only=True)
class Program:
    """What the runs of a study execute in place of the built-in trainer."""

    stages: tuple[Stage, ...]
    """In place of one ``command``: several, run one after the other under one claim and lease. What is finished isn't
    repeated.
    """
    spelling: str = SPELLINGS[0]
    """How ``{settings}`` spells what has no place by name; or the kind of file that ``{settings_file}`` names, with a
    table for each dot in a name.
    """
    booleans: str = BOOLEANS[0]
    """How true is spelled; ``"flag"``: ``--key`` alone, and nothing for false."""
    resume: tuple[Word, ...] = ()
    """The words that ``{resume}`` stands for once there is a checkpoint; may hold ``{checkpoint}``."""
    checkpoint: str = ""
    """Pattern of checkpoints, in the run directory or the
    [working folder](../run-directory.md#a-program-of-ones-own); the newest whole one counts.
    """
    best: str = ""
    """Pattern of what fetch and clean call the best checkpoint."""
    length: str = ""
    """The setting that says how long a run is: progress, "done", ``--extend``."""
    data: tuple[str, ...] = ()
    """Files and folders that it reads, as it calls them: hashed, mapped by ``data`` of the target, and linked where it
    looks for them; ``--send-data`` sends what a target lacks. Name the files themselves where a folder holds code that
    changes.
    """
    execution: frozenset[str] = frozenset()
    """Settings that don't change the result."""
    stop_s: float = 30.0
    """Seconds for a checkpoint between SIGTERM and SIGKILL, 0 to 86400. What Slurm itself ends
    [may have less](../slurm.md#jobs).
    """
    seed: str = ""
    """The setting that takes the seed, where no command has ``{seed}``. A program with neither fixes its own: such a
    study has one seed.
    """
    files: tuple[str, ...] = ()
    """Patterns of files that are there once it is done."""
    metrics: Metrics = field(default_factory=Metrics)
    """Where the numbers are that the program tells, and which are better."""

    def names(self) -> set[str]:
        """Return the placeholders in its commands."""
        return {name for stage in self.stages for name in placeholders(stage.words)}

    @property
    def takes_seed(self) -> bool:
        """Whether it is told the seed."""
        return bool(self.seed) or "seed" in self.names()
