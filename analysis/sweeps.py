"""What a sweep found: the best combination of each group, and what each value of a swept setting gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oelm_jobs.agent.sentences import _
from oelm_jobs.programs import built_in
from oelm_jobs.spec.study import Study
from oelm_jobs.study import sweep

from . import tables
from .findings import AuditFinding, warning
from .reading.loaded_run import LoadedRun, finished
from .statistics import mean_sd, paired
from .tables import Cell, Column, Table, column
from .told import Goals

LEVEL = 0.95
"""Of the interval of a combination's mean."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The runs of a group with one combination of values."""

    group: str
    tag: str
    values: Mapping[str, Any]
    """By what is swept."""
    results: tuple[float, ...]
    """The main metric of each finished run."""
    failed: int
    """Runs that have no result."""

    @property
    def mean(self) -> float:
        """Over seeds; infinite where a run diverged."""
        mean = mean_sd(self.results)[0]
        return math.inf if mean is None else mean


def combinations(study: Study, runs: Sequence[LoadedRun], goals: Goals | None) -> list[Combination]:
    """Return what was run of a study's sweep, in the order of its groups; nothing where nobody says which values of the
    main metric are better.
    """
    if study.sweep is None or (goals is not None and not next(iter(goals.values()), "")):
        return []
    keys = [*study.sweep.parameters]
    found: dict[tuple[str, str], list[LoadedRun]] = {}
    for run in runs:
        values = _values(run, keys)
        if run.group not in study.groups or values is None:
            continue
        if run.tag.endswith((sweep.name(values), sweep.digest(values))):
            found.setdefault((run.group, run.tag), []).append(run)
    order = [*study.groups]
    return sorted(
        (_combination(group, tag, members, keys, goals) for (group, tag), members in found.items()),
        key=lambda one: order.index(one.group),
    )


def _values(run: LoadedRun, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return what a run has of the swept settings; None where its record lacks one."""
    known = {"global_batch": run.global_batch, **(run.train if run.is_script else built_in.in_full(run.train))}
    return {key: known[key] for key in keys} if all(key in known for key in keys) else None


def _combination(
    group: str, tag: str, runs: Sequence[LoadedRun], keys: Sequence[str], goals: Goals | None
) -> Combination:
    results = [value for run in finished(runs) if (value := _result(run, goals)) is not None]
    return Combination(
        group=group,
        tag=tag,
        values=_values(runs[0], keys) or {},
        results=tuple(results),
        failed=len(runs) - len(results),
    )


def _result(run: LoadedRun, goals: Goals | None) -> float | None:
    """Return a run's main metric at its end: of the built-in trainer the validation loss."""
    if goals is None:
        return run.final.loss if run.final is not None else None
    series = run.series.get(next(iter(goals), ""))
    return series.last.value if series is not None else None


def _is_maximized(goals: Goals | None) -> bool:
    return goals is not None and next(iter(goals.values()), "") == "maximize"


def best(found: Sequence[Combination], goals: Goals | None) -> dict[str, Combination]:
    """Return each group's combination with the best mean; groups without results are not there. One that diverged or
    lacks the result of a run comes behind those that are whole.
    """
    sign = -1 if _is_maximized(goals) else 1
    ranked = sorted(
        (one for one in found if one.results),
        key=lambda one: (not math.isfinite(one.mean), one.failed > 0, sign * one.mean),
    )
    first = {one.group: one for one in reversed(ranked)}
    return {group: first[group] for group in dict.fromkeys(one.group for one in found) if group in first}


def made(study: Study, found: Sequence[Combination], labels: Mapping[str, str], goals: Goals | None) -> list[Table]:
    """Return the tables of a sweep; none where nothing has run."""
    if not found:
        return []
    return [_best_table(found, labels, goals), _by_key(study, found, labels, goals)]


def _best_table(found: Sequence[Combination], labels: Mapping[str, str], goals: Goals | None) -> Table:
    rows = []
    for group, one in best(found, goals).items():
        tried = [other for other in found if other.group == group]
        rows.append(
            (
                Cell(labels.get(group) or group),
                *(Cell(_shown(value)) for value in one.values.values()),
                Cell(*mean_sd(one.results)),
                Cell(_interval(one.results)),
                Cell(len(one.results)),
                Cell(len(tried)),
                Cell(sum(other.failed for other in tried)),
            )
        )
    metric = _metric(goals)
    columns = (
        column("group"),
        *(Column(key, tables.TEXT, key) for key in found[0].values),
        metric,
        column("interval"),
        column("results"),
        column("combinations"),
        column("without_result"),
    )
    remark = _("The best of several looks better than it is: it was chosen by the same runs. Run it on fresh seeds.")
    spread = _("± is the standard deviation over seeds, the interval that of the mean (95 %).")
    return Table("sweep", columns, tuple(rows), remarks=(spread, remark))


def _by_key(study: Study, found: Sequence[Combination], labels: Mapping[str, str], goals: Goals | None) -> Table:
    """Return a table of the swept settings' values: the best combination with each, by group."""
    rows = []
    for key in found[0].values:
        for _place, shown in sorted({_order(one.values[key]) for one in found}):
            cells = []
            for group in study.groups:
                of_value = [one for one in found if one.group == group and _shown(one.values[key]) == shown]
                chosen = best(of_value, goals).get(group)
                cells.append(Cell(*mean_sd(chosen.results)) if chosen else tables.EMPTY)
            rows.append((Cell(key), Cell(shown), *cells))
    metric = _metric(goals)
    columns = (
        column("setting"),
        column("value"),
        *(Column(group, metric.kind, labels.get(group) or group) for group in study.groups),
    )
    remarks = [_("The cells are {metric}.", metric.header)]
    if len(found[0].values) > 1:
        remarks.append(_("Of each value that of the best combination of the other settings."))
    return Table("swept", columns, tuple(rows), remarks=tuple(remarks))


def edges(found: Sequence[Combination], labels: Mapping[str, str], goals: Goals | None) -> list[AuditFinding]:
    """Return a warning for each group whose best value of a setting is the lowest or highest that was tried."""
    said = []
    for group, one in best(found, goals).items():
        for key, value in one.values.items():
            tried = [other.values[key] for other in found if other.group == group]
            if not all(map(_is_number, tried)) or min(tried) == max(tried):
                continue
            if value not in (min(tried), max(tried)):
                continue
            which = _("the lowest") if value == min(tried) else _("the highest")
            text = _(
                "{group} is best at {key} = {value}, {which} that was tried: what lies beyond is not known",
                labels.get(group) or group, key, _shown(value), which,
            )  # fmt: skip
            said.append(warning(text, group, key=key))
    return said


def _metric(goals: Goals | None) -> Column:
    if goals is None:
        return column("final_val_loss")
    name = next(iter(goals), "")
    return Column(f"{name}_last", tables.METRIC, _("{metric}, last", name))


def _interval(results: Sequence[float]) -> str | None:
    if len(results) < 2 or not all(map(math.isfinite, results)):
        return None
    low, high = paired(results).interval((1 - LEVEL) / 2)
    return f"[{tables.number(low)}, {tables.number(high)}]"


def _order(value: Any) -> tuple[tuple[int, float], str]:
    """Return what sorts a value among others, numbers first, and how it is shown."""
    shown = _shown(value)
    return ((0, float(value)) if _is_number(value) else (1, 0.0)), shown


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return sweep.as_text(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
