"""What a target's options of sbatch ask for, read once: nodes, partitions, time, GPUs.

Source: sbatch(1). Options are passed on as they are; this is what the toolkit itself understands of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres", "tres-per-node", "tres-per-task")
"""Options that say which GPUs a job gets; without any, the toolkit asks for as many as the run has processes."""
PLACEHOLDER = "{gpus}"
"""In a value: the number of GPUs, of the run for ``gpus`` and of a node otherwise."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options ask for."""

    nodes: int
    """Nodes that a run spreads over: as many as the options say, or follow from them."""
    partitions: tuple[str, ...]
    """Partitions that are named; none where the site chooses."""
    gpu_types: tuple[tuple[str, str], ...]
    """(Option, GPU type that it names), as ``pro6000`` in ``pro6000:1`` and in ``gpu:pro6000:1``."""
    no_gpus: bool
    """Whether they say that a job gets none."""
    time: str | None
    """The time limit as it is written; None where there is none."""
    account: str
    qos: str
    constraint: str
    """These three as they are written; empty where there is none."""


def read(options: Mapping[str, str | None]) -> Asked:
    """Return what long options of sbatch ask for."""
    nodes = _nodes(options)
    gpus = {option: str(options[option]) for option in GPU_OPTIONS if options.get(option)}
    filled = {option: value.replace(PLACEHOLDER, "1") for option, value in gpus.items()}
    return Asked(
        nodes=nodes,
        partitions=tuple(name for name in (options.get("partition") or "").split(",") if name),
        gpu_types=tuple((option, name) for option, value in gpus.items() for name in _types(option, value)),
        no_gpus=bool(filled) and not count_gpus(filled, nodes),
        time=options.get("time"),
        account=options.get("account") or "",
        qos=options.get("qos") or "",
        constraint=options.get("constraint") or "",
    )


def _nodes(options: Mapping[str, str | None]) -> int:
    def number(option: str) -> int:
        words = options.get(option) or ""
        return _count(words) if words and PLACEHOLDER not in words else 0

    if number("nodes"):
        return number("nodes")
    for whole, part in (("gpus", "gpus-per-node"), ("ntasks", "ntasks-per-node")):
        if number(whole) and number(part) and number(whole) % number(part) == 0:
            return number(whole) // number(part)
    return max(1, _listed(options.get("nodelist") or ""))


def _listed(names: str) -> int:
    """Return how many nodes ``n[1-3,7],m1`` names, all of which Slurm grants; 0 where that can't be read."""
    found = 0
    if not re.fullmatch(r"([^\[\],]|,|\[\d+(-\d+)?(,\d+(-\d+)?)*\])*", names):
        return 0
    for name in re.split(r",(?![^\[]*\])", names):
        ranges = [each.split(",") for each in re.findall(r"\[([^\]]*)\]", name)]
        bounds = [[part.partition("-") for part in each] for each in ranges]
        sizes = [sum(int(last or first) - int(first) + 1 for first, _, last in each) for each in bounds]
        found += math.prod(sizes) if name else 0
    return found


def count_gpus(options: Mapping[str, str | None], nodes: int) -> int:
    """Return how many GPUs options ask for over all nodes; 0 where they ask for none or can't tell."""
    if options.get("gpus"):
        return _count(str(options["gpus"]))
    if options.get("gpus-per-node"):
        return _count(str(options["gpus-per-node"])) * nodes
    for option in ("gpus-per-task", "tres-per-task"):
        found = _gpus_in(str(options.get(option) or ""), is_plain=option == "gpus-per-task")
        if found:
            return found * _tasks(options, nodes)
    for option in ("gres", "tres-per-node"):
        found = _gpus_in(str(options.get(option) or ""), is_plain=False)
        if found:
            return found * nodes
    return 0


def _gpus_in(words: str, *, is_plain: bool) -> int:
    """Return how many GPUs an option's value names, which holds nothing else (``2``, ``a100:2``) or may hold other
    resources besides (``gpu:2,shard:8``).
    """
    parts = words.replace("gres/", "").replace("gres:", "").split(",")
    return sum(_count(part) for part in parts if (is_plain and part) or re.match(r"gpu\b", part))


def _tasks(options: Mapping[str, str | None], nodes: int) -> int:
    """Return how many tasks options ask for (sbatch(1): one a node unless they say otherwise)."""
    ntasks, per_node = options.get("ntasks") or "", options.get("ntasks-per-node") or ""
    if ntasks.isdigit():
        return int(ntasks)
    return nodes * (int(per_node) if per_node.isdigit() else 1)


def _count(words: str) -> int:
    """Return the number in ``2``, ``a100:2``, ``gpu:a100:2(S:0)``; 1 where none stands there."""
    return sum(
        int(match[1]) if (match := re.search(r"(?:^|[:=])(\d+)$", part.partition("(")[0])) else 1
        for part in words.split(",")
        if part
    )


def _types(option: str, words: str) -> list[str]:
    """Return the GPU types that an option names (``pro6000`` in ``pro6000:1`` and in ``gpu:pro6000:1``)."""
    found = []
    for part in re.sub(r"\([^)]*\)", "", words).split(","):
        fields = part.split(":")
        if option in ("gres", "tres-per-node", "tres-per-task"):
            fields = fields[1:] if fields[0] in ("gpu", "gres/gpu") else []
        if fields and not fields[0].isdigit() and fields[0] not in ("", PLACEHOLDER):
            found.append(fields[0])
    return found


def seconds(words: str) -> float | None:
    """Return a time of sbatch's or sinfo's in seconds (``90`` is minutes, ``1-12:00:00``); None where it is none."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", words.strip())
    if not match:
        return None
    days, *rest = (int(part) if part is not None else None for part in match.groups())
    parts = [part for part in rest if part is not None]
    if days is not None:  # D-H, D-H:M, D-H:M:S
        hours, minutes, secs = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, secs = parts
    else:  # M, M:S
        hours, (minutes, secs) = 0, [*parts, 0][:2]
    return float((days or 0) * 86400 + hours * 3600 + minutes * 60 + secs)
