"""A target's settings for Slurm, and what its options of sbatch ask for, read once: nodes, partitions, time, GPUs.

Source: sbatch(1). Options are passed on as they are; this is what the toolkit itself understands of them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres", "tres-per-node", "tres-per-task")
"""Options that say which GPUs a job gets; without any, the toolkit asks for as many as the run has processes."""
PLACEHOLDER = "{gpus}"
"""In a value: the number of GPUs, of the run for ``gpus`` and of a node otherwise."""


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A target's settings for Slurm."""

    sbatch: Mapping[str, str | None] = field(default_factory=dict)
    """Long options of ``sbatch``, word for word; ``true`` for a switch. ``{gpus}`` in a value stands for the number of
    GPUs. Absent: one node, one GPU and one core for each process.
    """
    login_shell: bool = False
    """Whether scripts and ``oelm shell`` read the profile, as ``bash -l`` does, in which many clusters define
    ``module``; Slurm's commands [do, too](../slurm.md#the-target).
    """
    requeue: bool = True
    """Whether a run that was preempted or reached its time limit starts again by itself."""
    warning_s: int = 120
    """Seconds before its time limit at which a run writes a checkpoint and requeues itself; 0 for never."""
    max_timeouts: int = 100
    """How often one job may start again after its time limit."""
    max_parallel: int = 0
    """Most runs of an array at a time; 0 for as many as the cluster gives."""
    poll_s: float = 30.0
    """Seconds for which one answer of ``squeue`` is used by all commands."""

    def word(self, option: str) -> str:
        """Return an option's value as it is written; empty where there is none."""
        return self.sbatch.get(option) or ""

    @functools.cached_property
    def nodes(self) -> int:
        """Nodes that a run spreads over: as many as the options say, or follow from them."""

        def number(option: str) -> int:
            words = self.word(option)
            return sum(count for _type, count in _gpus("gpus", words)) if PLACEHOLDER not in words else 0

        if number("nodes"):
            return number("nodes")
        for whole, part in (("gpus", "gpus-per-node"), ("ntasks", "ntasks-per-node")):
            if number(whole) and number(part) and number(whole) % number(part) == 0:
                return number(whole) // number(part)
        from ..agent.slurm import step  # here: a status reads these settings, too

        try:
            return max(1, sum(name != "" for name in step.expand(self.word("nodelist"))))
        except ValueError:  # it can't be read
            return 1

    @property
    def partitions(self) -> list[str]:
        """Partitions that are named; none where the site chooses."""
        return [name for name in self.word("partition").split(",") if name]

    @property
    def gpu_types(self) -> list[tuple[str, str]]:
        """(Option, GPU type that it names), as ``pro6000`` in ``pro6000:1`` and in ``gpu:pro6000:1``."""
        return [(option, name) for option in GPU_OPTIONS for name, _ in _gpus(option, self.word(option)) if name]

    @property
    def no_gpus(self) -> bool:
        """Whether the options say that a job gets none."""
        numbers = [number for option in GPU_OPTIONS for _type, number in _gpus(option, self.word(option))]
        return any(self.word(option) for option in GPU_OPTIONS) and not any(numbers)


def count_gpus(options: Mapping[str, str | None], nodes: int) -> int:
    """Return how many GPUs options ask for over all nodes; 0 where they ask for none or can't tell."""
    tasks = _tasks(options, nodes)
    for option, times in (
        ("gpus", 1),
        ("gpus-per-node", nodes),
        ("gpus-per-task", tasks),
        ("tres-per-task", tasks),
        ("gres", nodes),
        ("tres-per-node", nodes),
    ):
        found = sum(number for _type, number in _gpus(option, options.get(option) or ""))
        if found:
            return found * times
    return 0


def _tasks(options: Mapping[str, str | None], nodes: int) -> int:
    """Return how many tasks options ask for (sbatch(1): one a node unless they say otherwise)."""
    ntasks, per_node = options.get("ntasks") or "", options.get("ntasks-per-node") or ""
    if ntasks.isdigit():
        return int(ntasks)
    return nodes * (int(per_node) if per_node.isdigit() else 1)


def _gpus(option: str, words: str) -> list[tuple[str, int]]:
    """Return type and number of the GPUs in each part of an option's value (``2``, ``a100:2``, ``gpu:a100:2(S:0)``): no
    type is empty, no number is 1. What else ``gres`` and the like ask for is left out.
    """
    found = []
    for part in filter(None, re.sub(r"\([^)]*\)", "", words).split(",")):
        fields = re.split("[:=]", part.replace("gres/", "").replace("gres:", ""))
        if option.startswith(("gres", "tres")) and fields.pop(0) != "gpu":
            continue
        number = int(fields.pop()) if fields and fields[-1].isdecimal() else 1
        found.append((fields[0] if fields and fields[0] != PLACEHOLDER else "", number))
    return found


def seconds(words: str) -> float | None:
    """Return a time of sbatch's or sinfo's in seconds (``90`` is minutes, ``1-12:00:00``); None where it is none."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", words.strip()):
        return None
    days, dash, clock = words.strip().rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if not dash and len(parts) < 3:  # M, M:S; otherwise D-H, D-H:M, D-H:M:S, H:M:S
        parts = [0, *parts]
    hours, minutes, secs = [*parts, 0, 0][:3]
    return float(int(days or 0) * 86400 + hours * 3600 + minutes * 60 + secs)
