"""The words of a program's commands: filling their placeholders by position, and what torchrun has to be told."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING, List, Mapping, NamedTuple, Sequence, Union

if TYPE_CHECKING:
    from ..record_types import Word

NODE_RANK = "node_rank"
"""The placeholder that has another value on each node of a run."""
LAUNCHER_OPTIONS = {
    "--master_port": "meeting", "--master_addr": "meeting", "--rdzv_endpoint": "meeting", "--rdzv_backend": "meeting",
    "--rdzv_id": "meeting", "--rdzv_conf": "meeting", "--standalone": "meeting", "--nnodes": "nodes",
    "--nproc_per_node": "processes",
}  # fmt: skip
"""Options of torchrun's by what they say, which it takes with hyphens, too (torch/distributed/run.py)."""
FLAGS = ("--standalone", "--no_python", "--run_path", "-m", "--module")
"""Options of torchrun's without a value."""


class Ground(NamedTuple):
    """Where an attempt runs, as far as its words say it."""

    gpus: int
    """Devices on each node."""
    host: str = "localhost"
    """Where its processes meet."""
    port: int = 0
    """On which port of that."""
    nodes: int = 1
    rendezvous: str = ""
    """Name of this attempt's own at which torchrun's processes meet; empty where the port is its own alone."""


def fill(words: Sequence[Word], values: Mapping[str, Union[str, Sequence[str]]]) -> List[str]:
    """Return words with their placeholders filled in; nothing is looked for in the values.

    Args:
        values: Text for each placeholder; words for one that makes up a word by itself, none of which may be there.
    """
    filled: List[str] = []
    for word in words:
        if isinstance(word, str):
            filled.append(word)
            continue
        whole = values.get(word[1], "") if len(word) == 3 and not word[0] and not word[2] else ""
        if not isinstance(whole, str):
            filled.extend(whole)
            continue
        parts = (values.get(part, "") if place % 2 else part for place, part in enumerate(word))
        filled.append("".join(part if isinstance(part, str) else " ".join(part) for part in parts))
    return filled


def holds(words: Sequence[Word], placeholder: str) -> bool:
    """Tell whether any of the words has a placeholder."""
    return any(placeholder in word[1::2] for word in words if not isinstance(word, str))


def of_interpreter(words: Sequence[str]) -> List[str]:
    """Return words that begin with the target's own interpreter where they begin with ``python`` or ``torchrun``."""
    if words[:1] == ["python"]:
        return [sys.executable, *words[1:]]
    return [sys.executable, "-m", "torch.distributed.run", *words[1:]] if words[:1] == ["torchrun"] else list(words)


def launcher(words: Sequence[str]) -> int:
    """Return how many of the words are torchrun's name; 0 where they start something else."""
    if words and os.path.basename(words[0]) == "torchrun":
        return 1
    is_python = bool(words) and re.fullmatch(r"python[0-9.]*", os.path.basename(words[0])) is not None
    return 3 if is_python and list(words[1:3]) == ["-m", "torch.distributed.run"] else 0


def with_rendezvous(words: Sequence[str], ground: Ground) -> List[str]:
    """Return torchrun's words with what they leave out: where its processes meet, how many nodes and processes there
    are; other words as they are.
    """
    count = launcher(words)
    if not count:
        return list(words)
    said = {LAUNCHER_OPTIONS.get(option) for option in _options(words[count:])}
    own: List[str] = []
    if "nodes" not in said and ground.nodes > 1:
        own.append("--nnodes=%d" % ground.nodes)
    if "processes" not in said:
        own.append("--nproc_per_node=%d" % max(1, ground.gpus))
    if "meeting" not in said:
        if ground.rendezvous:
            endpoint = "%s:%d" % (ground.host, ground.port if ground.nodes > 1 else 0)
            own += ["--rdzv-backend=c10d", "--rdzv-endpoint=" + endpoint, "--rdzv-id=" + ground.rendezvous]
        else:
            own.append("--master_port=%d" % ground.port)
    return [*words[:count], *own, *words[count:]]


def _options(words: Sequence[str]) -> List[str]:
    """Return the names of torchrun's own options in its words: those before the script."""
    found: List[str] = []
    place = 0
    while place < len(words) and words[place].startswith("-"):
        name, has_value, _value = words[place].partition("=")
        found.append(name.replace("-", "_").replace("__", "--", 1) if name.startswith("--") else name)
        place += 1 if has_value or found[-1] in FLAGS else 2
    return found


def command(words: Sequence[Word], values: Mapping[str, Union[str, Sequence[str]]], ground: Ground) -> List[str]:
    """Return the argv of a program's words: filled in, with the target's interpreter and what torchrun has to be told.

    A word with the node's own number in it is a shell's to fill in on each of several nodes (SLURM_NODEID, srun(1)).
    """
    mark = "0"
    while ground.nodes > 1 and (mark == "0" or mark in repr((words, values, ground))):
        mark = "node" if mark == "0" else mark + "-"
    argv = with_rendezvous(of_interpreter(fill(words, {**values, NODE_RANK: mark})), ground)
    if ground.nodes == 1 or not any(mark in word for word in argv):
        return argv
    quoted = ('"$SLURM_NODEID"'.join(map(shlex.quote, word.split(mark))) for word in argv)
    return ["sh", "-c", "exec " + " ".join(quoted)]
