"""Runs that are submitted to another target than before: what they leave behind, and the copy of it at home.

Two targets may be one place, as two partitions of a cluster are. Elsewhere a run starts over, since its checkpoints
stay where they are; its record says since then what it has left where, so that nothing of it is lost sight of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..agent import records, registry
from ..connections import Connection
from ..spec.study import Run
from ..stored_run import StoredRun
from ..study.plan import Plan
from ..targets.files import load_targets
from ..transfer import sync
from ..transfer.home import home_of

if TYPE_CHECKING:
    from ..agent import messages
    from ..agent.record_types import Left


def in_place(plan: Plan, connection: Connection, stored: Iterable[StoredRun]) -> frozenset[str]:
    """Return the names of runs that were submitted to another target and lie where the plan's would: the plan's target
    has the record of that very submission there.

    Raises:
        TargetError: It can't be asked.
    """
    planned = {run.name: run.run_dir for run in plan.runs}
    alike = [run for run in stored if run.target != plan.target.name and planned.get(run.name) == run.run_dir]
    if not plan.target.host:
        alike = [run for run in alike if not sync.record(Path(run.run_dir))]  # a copy that was fetched
    if not alike:
        return frozenset()
    request: messages.FindRequest = {"root": plan.root, "checkpoint_root": plan.target.checkpoint_root}
    found = connection.call(registry.FIND, request, timeout_s=600)["runs"]
    there = {(record.get("run_dir"), record.get("token")) for record in found}
    return frozenset(run.name for run in alike if (run.run_dir, run.token) in there)


def left(known: StoredRun, run: Run, *, moves: bool) -> tuple[Left, ...]:
    """Return what a run that is submitted again leaves on other targets."""
    places = list(known.left)
    if moves:
        places.append({"target": known.target, "run_dir": known.run_dir, "token": known.token})
    return tuple(place for place in places if (place["target"], place["run_dir"]) != (run.target, run.run_dir))


def set_copy_aside(project: Path, known: StoredRun) -> Path | None:
    """Move what was fetched of a run out of the way of what it will be elsewhere; return where it is now, None where
    nothing was.
    """
    home = home_of(project, known)
    return sync.set_aside(home) if sync.record(home).get("run_dir") == known.run_dir else None


def left_by(project: Path, runs: Sequence[StoredRun]) -> list[tuple[StoredRun, Left]]:
    """Return what runs have left on other targets, but for what is known to lie there no more."""
    targets = load_targets(project)
    found: list[tuple[StoredRun, Left]] = []
    for run in runs:
        for place in run.left:
            target = targets.get(place["target"])
            if target is not None and not target.host:
                there = records.RUN.read_if_sound(place["run_dir"])
                if there is None or there.token != place["token"]:
                    continue
            found.append((run, place))
    return found
