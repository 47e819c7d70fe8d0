"""Options of sbatch that a job is submitted with: the toolkit's own and its target's; and which runs share a job.

Source: sbatch(1).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..agent.sentences import _
from ..agent.slurm.commands import RECORDS_S
from ..errors import ConfigurationError
from ..spec import lineage
from ..spec.options import GPU_OPTIONS, PLACEHOLDER, Slurm, count_gpus
from ..spec.target import Target

if TYPE_CHECKING:
    from ..spec.study import Run

CPU_OPTIONS = frozenset(
    {"cpus-per-task", "cpus-per-gpu", "ntasks", "ntasks-per-node", "ntasks-per-gpu", "exclusive", "mincpus",
     "extra-node-info"}
)  # fmt: skip
"""Options that say how many cores a job gets; without any, the toolkit asks for one a process."""
VALUE_WORDS = (
    ("memory", ("mem", "mem-per-cpu", "mem-per-gpu")), ("node name", ("nodelist", "exclude")),
    ("generic resource", GPU_OPTIONS), ("reservation", ("reservation",)), ("license", ("licenses",)),
)  # fmt: skip
"""What sbatch says of a value, and the options that it may be about."""
MAX_ARRAY = 1000
"""Tasks of an array where the cluster's own limit isn't known: MaxArraySize is 1001 by default."""
MAX_SCRIPT_BYTES = 3_500_000
"""slurmctld takes scripts of up to 4 MiB (slurm.conf(5), max_script_size)."""
LONGEST_WARNING_S = 65535
"""sbatch takes no more (sbatch(1), --signal)."""
_SAFE = re.compile(r"[A-Za-z0-9_./:,=@%+\[\]*&|()!-]+")


# The header -----------------------------------------------------------------------------------------------------------


def header(
    target: Target, runs: Sequence[Run], *, name: str, folder: str, stem: str, more: Mapping[str, str] | None = None
) -> list[str]:
    """Return the options of the job that executes ``runs`` (an array where there are several), one a line, quoted as
    sbatch reads them.

    Args:
        name: Job name.
        folder: Where the job's own output goes.
        stem: Beginning of that file's name.
        more: Options that the target's own come before.

    Raises:
        ConfigurationError: The target's options ask for other GPUs than the runs have processes, or Slurm can't keep
            logs in that folder.
    """
    slurm = options_of(target)
    given = _filled(target, runs[0])
    if "%" in folder or "\\" in folder:
        # sbatch(1), filename pattern: both are expanded in the whole path, and '%%' is not on every version.
        raise ConfigurationError(
            _(
                "target {target}: {path} holds '%' or a backslash, which Slurm reads as something else",
                target.name,
                folder,
            ),
            hint=_("give the target another root"),
        )
    lines: dict[str, str | None] = {"job-name": name, "chdir": folder}
    lines["output"] = stem + ("_%a.log" if len(runs) > 1 else ".log")
    lines["comment"] = name  # where a site's plugin gives jobs names of its own, it is found by this
    lines["open-mode"] = "append"
    lines.update(more or {})
    lines["requeue" if slurm.requeue else "no-requeue"] = None
    if warned_s := warning_s(target, runs[0]):
        lines["signal"] = f"B:USR1@{warned_s}"
    if len(runs) > 1:
        lines["array"] = f"0-{len(runs) - 1}" + (f"%{slurm.max_parallel}" if slurm.max_parallel else "")
    nodes = slurm.nodes
    per_node = runs[0].world_size // nodes
    lines["nodes"] = str(nodes)  # without it Slurm may spread GPUs over as many as it likes (sbatch(1), --nodes)
    if per_node and not any(option in given for option in GPU_OPTIONS):
        lines["gres"] = f"gpu:{per_node}"
    match = re.fullmatch(r"([^,:]+:)?\d+", given.get("gpus") or "")
    if match and nodes > 1:  # and divide them, or tasks that have one each, unevenly
        lines["gpus-per-node"] = f"{match[1] or ''}{per_node}"
    tasks = given.get("ntasks") or ""
    if tasks.isdigit() and nodes > 1 and int(tasks) % nodes == 0 and "ntasks-per-gpu" not in given:
        lines["ntasks-per-node"] = str(int(tasks) // nodes)
    if not any(option in given for option in CPU_OPTIONS):
        lines["cpus-per-task"] = str(per_node or runs[0].cpus)
    lines.update(given)
    return [f"--{option}" if value is None else f"--{option}={quote(value)}" for option, value in lines.items()]


def quote(value: str) -> str:
    """Return a value as a word of an ``#SBATCH`` line: sbatch, not a shell, takes quotes and backslashes away."""
    if _SAFE.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def options_of(target: Target) -> Slurm:
    """Return a target's Slurm keys."""
    assert target.slurm is not None, target.name
    return target.slurm


def without_slurm(target: Target) -> str:
    """Return what to do where Slurm's commands can't be run, or don't answer, on a target."""
    words = _("is this the login node, and is Slurm up? Try squeue there")
    if not (target.host and target.python):
        return words
    return _(
        "{words}; where python = {python!r} of the target is in a container, bind Slurm's commands,"
        " its configuration and munge's socket into it",
        words,
        target.python,
    )


def warning_s(target: Target, run: Run) -> int:
    """Return how long before its time limit a run is warned: as its target says, or earlier where its program has more
    time than that to stop; 0 for never.
    """
    given = options_of(target).warning_s
    if not given or run.program is None:
        return given
    return min(max(given, math.ceil(run.program.stop_s + RECORDS_S)), LONGEST_WARNING_S)


def _filled(target: Target, run: Run) -> dict[str, str | None]:
    """Return the target's options with the placeholder filled in, after a look at the GPUs that they ask for."""
    nodes = options_of(target).nodes
    if run.world_size % nodes:
        raise ConfigurationError(
            _(
                "target {target}: {n} processes of group {group} can't be divided over nodes = {nodes}",
                target.name,
                run.world_size,
                run.group,
                nodes,
            ),
            hint=_("change nodes in sbatch of the target, or gpus of the group"),
        )
    given: dict[str, str | None] = {}
    for option, value in options_of(target).sbatch.items():
        if not run.world_size and (option in GPU_OPTIONS or option.startswith("gpu-") or option.endswith("-per-gpu")):
            continue  # sbatch refuses some of them where no GPU is asked for, or counts cores by them
        number = run.world_size if option == "gpus" else run.world_size // nodes
        given[option] = value.replace(PLACEHOLDER, str(number)) if value is not None else None
    asked = count_gpus(given, nodes)
    if asked and asked != run.world_size:
        words = ", ".join(f"{option} = {given[option]!r}" for option in GPU_OPTIONS if option in given)
        raise ConfigurationError(
            _(
                "target {target} asks for {n} GPUs ({options}), group {group} runs {processes} processes",
                target.name,
                asked,
                words,
                run.group,
                run.world_size,
            ),
            hint=_(
                "set gpus_per_run = {n} in the target, or write {place} where the number stands", asked, PLACEHOLDER
            ),
        )
    return given


def named_in(target: Target, words: str) -> str:
    """Return the target's option that sbatch's words are about, as its file has it (``mem = '32 G'``); empty where they
    name none.
    """
    given = options_of(target).sbatch
    named = re.findall(r"--([a-z][a-z-]*[a-z])", words)
    named += [option for said, options in VALUE_WORDS if said in words.lower() for option in options]
    named = [option for option in named if option in given]
    return f"{named[0]} = {given[named[0]]!r}" if named else ""


# Which runs share a job -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one sbatch submits: a run, or an array of runs."""

    position: int
    """Number in the submission."""
    name: str
    """Job name: readable, then token and position."""
    runs: tuple[Run, ...]
    """In the order of the array's indices."""
    after: int | None
    """Position of the batch that must have ended before."""


def batches(
    runs: Sequence[Run], token: str, *, sequential: bool, limit: int = MAX_ARRAY, run_bytes: int = 0
) -> list[Batch]:
    """Return what is submitted together: runs of equal size as arrays, each alone where one waits for the other.

    Args:
        limit: Most tasks of an array.
        run_bytes: Size of a run's part of a script.
    """
    groups: list[tuple[Run, ...]]
    if sequential:
        groups = [(run,) for run in runs]
    else:
        limit = max(1, min(limit, MAX_SCRIPT_BYTES // run_bytes if run_bytes else limit))
        sizes: dict[tuple[int, object], list[Run]] = {}
        for run in runs:  # those before which others have to be over have the same job before them
            needed = tuple((place["run_dir"], place["when"]) for place in lineage.waited_for(run.parents))
            sizes.setdefault((run.world_size, needed), []).append(run)
        groups = [tuple(same[first : first + limit]) for same in sizes.values() for first in range(0, len(same), limit)]
    return [
        Batch(
            position=position,
            name=f"{group[0].name if len(group) == 1 else group[0].study}.{token}.{position}",
            runs=group,
            after=position - 1 if sequential and position else None,
        )
        for position, group in enumerate(groups)
    ]


def shared_part(records: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (what all records have in common, what each has besides), which ``agent.rundir.merged`` puts together.

    Tables within records are compared key by key, lists of equal length place by place (a command's words).
    """
    shared: dict[str, object] = {}
    rests: list[dict[str, object]] = [{} for _ in records]
    for key in dict.fromkeys(itertools.chain.from_iterable(records)):
        try:
            values = list(map(itemgetter(key), records))
        except KeyError:  # not all have it
            for rest, record in zip(rests, records, strict=True):
                if key in record:
                    rest[key] = record[key]
            continue
        value = values[0]
        if _are_equal(values):
            shared[key] = value
        elif all(isinstance(other, dict) and other.keys() == value.keys() for other in values):
            own = [k for k in value if not _are_equal(list(map(itemgetter(k), values)))]
            shared[key] = {k: v for k, v in value.items() if k not in own}
            for rest, other in zip(rests, values, strict=True):
                rest[key] = {k: other[k] for k in own}
        elif all(isinstance(other, list) and len(other) == len(value) for other in values):
            places = [place for place, words in enumerate(zip(*values, strict=True)) if not _are_equal(words)]
            shared[key] = [None if place in places else word for place, word in enumerate(value)]
            named = [(str(place), place) for place in places]
            for rest, other in zip(rests, values, strict=True):
                rest[key] = {name: other[place] for name, place in named}
        else:
            for rest, other in zip(rests, values, strict=True):
                rest[key] = other
    return shared, rests


def _are_equal(values: Sequence[Any]) -> bool:
    return values.count(values[0]) == len(values)
