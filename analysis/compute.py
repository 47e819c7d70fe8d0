"""What a study took in all: also runs that were tuned with, failed, were cancelled, started over or forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from oelm_jobs import ledger
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.agent.states import State
from oelm_jobs.spec.study import Study

from .audit.locked import is_judged
from .earlier import Earlier
from .reading.loaded_run import LoadedRun, on_cpus
from .tables import Cell, Table, column

KINDS = {
    "judged": _("finished, judged"),
    "tuning": _("finished, of a sweep"),
    "other": _("finished, others"),
    "failed": _("failed"),
    "cancelled": _("cancelled"),
    "unfinished": _("not over, or not known here"),
    "rerun": _("started over"),
    "forgotten": _("forgotten"),
}
"""Kinds of runs, in the order of the rows; each run is of one."""
TOTAL = _("all")
Cost = tuple[str, float | None, float | None]
"""Kind of a run, its hours, and its hours times GPUs; None where they aren't known."""


def table(study: Study, runs: Sequence[LoadedRun], past: Sequence[Earlier]) -> Table | None:
    """Return what all runs of a study took, by kind; None where nothing of it is known.

    Args:
        runs: As they are now.
        past: What was before them.
    """
    costs = [*_now(study, runs), *_before(past)]
    if all(cost[1] is None and cost[2] is None for cost in costs):
        return None
    rows = [_row(said, [cost for cost in costs if cost[0] == kind]) for kind, said in KINDS.items()]
    rows = [row for row in rows if row[1].value]
    names = ("kind", "run_count", "hours", "gpu_hours", "without_hours")
    made = Table("compute", tuple(map(column, names)), (*rows, _row(TOTAL, costs)))
    return made.of_processes if on_cpus(runs) else made


def _now(study: Study, runs: Sequence[LoadedRun]) -> Iterator[Cost]:
    is_swept = study.sweep is not None
    for run in runs:
        kind = "judged" if is_judged(study, run) else "tuning" if is_swept else "other"
        if run.status == State.FAILED:
            kind = "failed"
        elif run.status == State.CANCELLED:
            kind = "cancelled"
        elif not run.finished and run.source != "log":
            kind = "unfinished"
        yield kind, run.elapsed_hours, run.gpu_hours


def _before(past: Sequence[Earlier]) -> Iterator[Cost]:
    for one in past:
        kind = "forgotten" if one.entry.event == ledger.FORGOTTEN else "rerun"
        yield kind, one.run.elapsed_hours if one.run is not None else None, one.gpu_hours


def _row(said: Sentence, costs: Sequence[Cost]) -> tuple[Cell, ...]:
    hours, gpu_hours = _sum([cost[1] for cost in costs]), _sum([cost[2] for cost in costs])
    unknown = sum(cost[1] is None and cost[2] is None for cost in costs)
    return Cell(said), Cell(len(costs)), Cell(hours), Cell(gpu_hours), Cell(unknown or None)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None
