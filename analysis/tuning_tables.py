"""Tables of tuning: what each group was given, and what was chosen for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oelm_jobs.agent.sentences import _

from . import sweeps, tables
from .reading.loaded_run import LoadedRun
from .statistics import mean_sd
from .tables import Cell, Column, Table, column
from .told import Goals
from .tuning import DONE, FAILED, GOING, MISSING, OVER, UNKNOWN, Tuning


def made(tuned: Tuning, labels: Mapping[str, str], goals: Goals | None) -> list[Table]:
    """Return the table of budgets and, where something can be chosen, that of choices."""
    return [_budget(tuned, labels), *_choice(tuned, labels, goals)]


def _budget(tuned: Tuning, labels: Mapping[str, str]) -> Table:
    rows = [
        (
            Cell(labels.get(effort.group) or effort.group),
            Cell(len(effort.trials)),
            Cell(len(effort.of(*OVER))),
            Cell(len(effort.of(FAILED))),
            Cell(len(effort.of(GOING, MISSING, UNKNOWN))),
            Cell(len(effort.extra)),
            Cell(effort.steps),
            Cell(effort.gpu_hours),
        )
        for effort in tuned.efforts
    ]
    keys = ("group", "trials", "tried", "failed", "not_over", "extra", "step", "gpu_hours")
    said = _("A trial is a combination with a seed; one that failed was tried. The hours are those of all runs.")
    return Table("budget", tuple(map(column, keys)), tuple(rows), remarks=(said,))


def _choice(tuned: Tuning, labels: Mapping[str, str], goals: Goals | None) -> list[Table]:
    rows = []
    keys: Sequence[str] = ()
    for effort in tuned.efforts:
        group = effort.group
        before = tuned.choice.groups.get(group) if tuned.choice is not None else None
        values = before.values if before is not None else tuned.best[group].values if group in tuned.best else None
        if values is None:
            continue
        keys = [*values]
        tried = next((one for one in effort.combinations if one.values == values), None)
        confirming = tuned.confirming.get(group, ())
        rows.append(
            (
                Cell(labels.get(group) or group),
                *(Cell(sweeps.text_of(value)) for value in values.values()),
                Cell(*mean_sd(tried.results)) if tried is not None else tables.EMPTY,
                Cell(len([trial for trial in effort.of(DONE) if tried and trial.candidate.tag == tried.tag])),
                Cell(*mean_sd(_results(confirming, goals))),
                Cell(len(confirming)),
            )
        )
    if not rows:
        return []
    metric = sweeps.metric(goals)
    columns = (
        column("group"),
        *(Column(key, tables.TEXT, key) for key in keys),
        Column(f"{metric.key}_chosen", metric.kind, _("{metric} when chosen", metric.header)),
        column("results"),
        Column(f"{metric.key}_confirmed", metric.kind, _("{metric} on fresh seeds", metric.header)),
        column("confirming"),
    )
    when = _("Chosen on {date}, by the best mean over the seeds.", tuned.choice.chosen) if tuned.choice else None
    remark = when or _("What the trials choose now; oelm-submit --confirm records it and runs it on fresh seeds.")
    return [Table("choice", columns, tuple(rows), remarks=(remark,))]


def _results(runs: Sequence[LoadedRun], goals: Goals | None) -> list[float]:
    over = [run for run in runs if run.finished or run.diverged]
    return [value for run in over if (value := sweeps.result_of(run, goals)) is not None]
