"""Read the options of sbatch and srun, in headers and on command lines. Source: sbatch(1), srun(1)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..agent.sentences import _
from ..targets.sbatch_keys import SHORT

MOST_TASKS = 10_000
"""Of an array."""
_SWITCHES = frozenset(
    {
        "contiguous", "exact", "exclusive", "get-user-env", "help", "hold", "ignore-pbs", "kill-on-bad-exit", "label",
        "no-kill", "no-requeue", "overcommit", "overlap", "oversubscribe", "parsable", "preserve-env", "pty", "quiet",
        "reboot", "requeue", "spread-job", "test-only", "unbuffered", "use-min-nodes", "usage", "verbose", "version",
        "wait", "whole",
    }
)  # fmt: skip
"""Options without a value, or with one behind = only."""
_SHORT_SWITCHES = {"H": "hold", "K": "kill-on-bad-exit", "O": "overcommit", "Q": "quiet", "W": "wait", "k": "no-kill",
                   "l": "label", "s": "oversubscribe", "u": "unbuffered", "v": "verbose"}  # fmt: skip
_OTHERS = {
    "PBS": re.compile(r"#PBS\b(?:.*\s-[Jt]\s*(\d\S*))?"),
    "LSF": re.compile(r"#BSUB\b(?:.*\s-J\s*[\"']?[^\s\[]*\[([^\]]+)\])?"),
    "Grid Engine": re.compile(r"#\$ -(?:.*?\bt\s+(\d\S*))?"),
    "Cobalt": re.compile(r"#COBALT\b()"), "OAR": re.compile(r"#OAR\b()"), "PJM": re.compile(r"#PJM\b()"),
}  # fmt: skip
"""Other schedulers' lines, with the indices of an array."""
INDEX_VARIABLES = ("PBS_ARRAY_INDEX", "PBS_ARRAYID", "LSB_JOBINDEX", "SGE_TASK_ID")
"""What they call a job's place in an array."""
_OTHERS_GPUS = re.compile(r"(?:ngpus|gpus?|num)[=:](\d+)")


@dataclass
class Header:
    """The options that a script's ``#SBATCH`` lines give."""

    options: dict[str, str] = field(default_factory=dict)
    """By their long names; a switch has an empty value."""
    lines: dict[str, int] = field(default_factory=dict)
    strange: list[tuple[int, str, str]] = field(default_factory=list)
    """Lines that can't be read, and those of other schedulers, with why."""
    array: str = ""
    """The indices that another scheduler's line gives."""
    gpus: int | None = None
    """What another scheduler's line asks for."""

    def line(self, option: str) -> int:
        """Return the line of an option; the first one where it is none of the header's."""
        return self.lines.get(option, 1)


def read(text: str) -> Header:
    """Return a script's header, which ends at its first command."""
    header = Header()
    is_over = has_heredoc = False
    for number, line in enumerate(text.splitlines(), start=1):
        has_heredoc = has_heredoc or "<<" in line
        is_over = is_over or bool(line.strip() and not line.startswith("#"))
        if not is_over:
            _read_other(header, number, line)
        if not line.startswith("#SBATCH"):
            continue
        if is_over and has_heredoc:
            continue
        if is_over:
            header.strange.append((number, line, _("sbatch doesn't read it: it stands behind the first command")))
            continue
        try:
            words = shlex.split(line[len("#SBATCH") :], comments=True)
        except ValueError:
            words = ["?"]
        options, rest = parse(words)
        if rest:
            header.strange.append((number, line, _("no option of sbatch that is known")))
        else:
            header.options.update(options)
            header.lines.update(dict.fromkeys(options, number))
    return header


def _read_other(header: Header, number: int, line: str) -> None:
    """Take an array and GPUs of another scheduler's line; the line is named where it gives no array."""
    for scheduler, shape in _OTHERS.items():
        if found := shape.match(line):
            if found[1]:
                header.array = found[1]
                header.lines.setdefault("array", number)
            if gpus := _OTHERS_GPUS.search(line):
                header.gpus = int(gpus[1])
            if not found[1]:
                why = _(
                    "a line for {scheduler}, which no target speaks: sbatch of a target says it to Slurm", scheduler
                )
                header.strange.append((number, line, why))


def parse(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options that words begin with, by their long names, and the words behind them."""
    found: dict[str, str] = {}
    place = 0
    while place < len(words) and words[place].startswith("-") and words[place] != "-":
        word = words[place]
        place += 1
        if word == "--":
            break
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if not equals and name not in _SWITCHES and place < len(words):
                value = words[place]
                place += 1
        elif word[1] in _SHORT_SWITCHES and word[1] not in ("s",):
            name, value = _SHORT_SWITCHES[word[1]], ""
        else:
            name, value = SHORT.get(word[1], word[1]), word[2:].removeprefix("=")
            if not value and place < len(words) and word[1] != "s":
                value = words[place]
                place += 1
        found[name] = value
    return found, list(words[place:])


def indices(array: str) -> list[int] | None:
    """Return the indices of ``--array``; None where it is empty or can't be read."""
    found: list[int] = []
    for part in array.partition("%")[0].split(",") if array else ():
        shape = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?\s*", part)
        if not shape:
            return None
        first, last, step = int(shape[1]), int(shape[2] or shape[1]), int(shape[3] or 1)
        if not step or not 0 <= (last - first) // step <= MOST_TASKS:
            return None
        found += range(first, last + 1, step)
    return None if not array else found


def variables(options: Mapping[str, str]) -> dict[str, str]:
    """Return what Slurm sets in a job's environment as its options say."""
    places = (
        ("SLURM_JOB_NAME", "job-name"), ("SLURM_JOB_PARTITION", "partition"), ("SLURM_NNODES", "nodes"),
        ("SLURM_JOB_NUM_NODES", "nodes"), ("SLURM_NTASKS", "ntasks"), ("SLURM_NTASKS_PER_NODE", "ntasks-per-node"),
        ("SLURM_CPUS_PER_TASK", "cpus-per-task"),
    )  # fmt: skip
    return {variable: options[option] for variable, option in places if options.get(option)}
