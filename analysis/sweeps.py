"""What a sweep found: the best combination of each group, and what each value of a swept setting gave."""

from __future__ import annotations

import itertools
import math
import re
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
from .told import Goals, Groups

LEVEL = 0.95
"""Of the interval of a combination's mean."""
MOST_HASHED = 4
"""So many settings at most are looked for in the hash at the end of a tag."""


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
    """Return what was run of a study's sweep, or of lists that commands gave, in the order of its groups; nothing where
    nobody says which values of the main metric are better.
    """
    if goals is not None and not next(iter(goals.values()), ""):
        return []
    runs = [run for run in runs if run.tag and run.group in study.groups]
    if study.sweep is None:
        keys, members = of_lists(study, runs)
    else:
        keys = [*study.sweep.parameters]
        members = [run for run in runs if (values := values_of(run, keys)) and _is_named(run.tag, values)]
    found: dict[tuple[str, str], list[LoadedRun]] = {}
    for run in members:
        found.setdefault((run.group, run.tag), []).append(run)
    order = [*study.groups]
    return sorted(
        (_combination(group, tag, members, keys, goals) for (group, tag), members in found.items()),
        key=lambda one: order.index(one.group),
    )


def of_lists(study: Study, runs: Sequence[LoadedRun]) -> tuple[list[str], list[LoadedRun]]:
    """Return what ``--set`` swept by lists of values, and these runs: those whose tag is the name of a combination of
    settings which the study has, if one of them was run with several values. Lists of different settings make one
    sweep, in which a run has the study's own value of what it wasn't given.
    """
    own = {"global_batch": study.global_batch, **study.settings}
    fixed = (*study.factors, *(built_in.FIXED if study.program is None else ()))
    settable = {key: value for key, value in own.items() if key not in fixed}
    known = [{key: value for key, value in _settings(run).items() if key in settable} for run in runs]
    told = [sweep.told_in(run.tag, of_run) for run, of_run in zip(runs, known, strict=True)]
    keys = dict.fromkeys(key for each in told for key in each)
    others = [{key: v for key, v in of_run.items() if v != own[key]} for of_run in known]
    keys |= dict.fromkeys(
        key for run, each in zip(runs, others, strict=True) if _is_named(run.tag, each) for key in each
    )
    members = [
        (run, of_run) for run, each, of_run, changed in zip(runs, told, known, others, strict=True)
        if each or _is_named(run.tag, changed) or _is_named(run.tag, {key: of_run.get(key) for key in keys})
    ]  # fmt: skip
    varied = [key for key in keys if len({sweep.as_text(of_run.get(key)) for _run, of_run in members}) > 1]
    return varied, [run for run, _of_run in members if varied and values_of(run, varied) is not None]


def hashed_in(run: LoadedRun) -> dict[str, Any] | None:
    """Return the values whose hash stands at the end of a run's tag, as ``sweep.name`` puts it there; None where none
    does.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{sweep.DIGEST}}}", run.tag.rpartition("-")[2]):
        return None
    known = {key: value for key, value in _settings(run).items() if sweep.plain(key) in run.tag}
    for count in range(1, min(len(known), MOST_HASHED) + 1):
        for keys in itertools.combinations(known, count):
            values = {key: known[key] for key in keys}
            if run.tag.endswith(sweep.digest(values)):
                return values
    return None


def _is_named(tag: str, values: Mapping[str, Any]) -> bool:
    """Tell whether a tag ends in the name of a combination."""
    return bool(values) and tag.endswith((sweep.name(values), sweep.digest(values)))


def _settings(run: LoadedRun) -> dict[str, Any]:
    return {"global_batch": run.global_batch, **(run.train if run.is_script else built_in.in_full(run.train))}


def values_of(run: LoadedRun, keys: Sequence[str]) -> dict[str, Any] | None:
    """Return what a run has of the swept settings; None where its record lacks one."""
    known = _settings(run)
    return {key: known[key] for key in keys} if all(key in known for key in keys) else None


def _combination(
    group: str, tag: str, runs: Sequence[LoadedRun], keys: Sequence[str], goals: Goals | None
) -> Combination:
    results = [value for run in finished(runs) if (value := result_of(run, goals)) is not None]
    return Combination(
        group=group,
        tag=tag,
        values=values_of(runs[0], keys) or {},
        results=tuple(results),
        failed=len(runs) - len(results),
    )


def result_of(run: LoadedRun, goals: Goals | None) -> float | None:
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
                *(Cell(text_of(value)) for value in one.values.values()),
                Cell(*mean_sd(one.results)),
                Cell(_interval(one.results)),
                Cell(len(one.results)),
                Cell(len(tried)),
                Cell(sum(other.failed for other in tried)),
            )
        )
    result = metric(goals)
    columns = (
        column("group"),
        *(Column(key, tables.TEXT, key) for key in found[0].values),
        result,
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
        places, by_value = set(), dict[tuple[str, str], list[Combination]]()
        for one in found:
            places.add(order(one.values[key]))
            by_value.setdefault((one.group, text_of(one.values[key])), []).append(one)
        for _place, word in sorted(places):
            cells = []
            for group in study.groups:
                chosen = best(by_value.get((group, word), ()), goals).get(group)
                cells.append(Cell(*mean_sd(chosen.results)) if chosen else tables.EMPTY)
            rows.append((Cell(key), Cell(word), *cells))
    result = metric(goals)
    columns = (
        column("setting"),
        column("value"),
        *(Column(group, result.kind, labels.get(group) or group) for group in study.groups),
    )
    remarks = [_("The cells are {metric}.", result.header)]
    if len(found[0].values) > 1:
        remarks.append(_("Of each value that of the best combination of the other settings."))
    return Table("swept", columns, tuple(rows), remarks=tuple(remarks))


def shown(groups: Groups, found: Sequence[Combination], goals: Goals | None) -> dict[str, tuple[LoadedRun, ...]]:
    """Return the groups that figures show: of a sweep's each one's best combination alone, in the group's place where
    it has no other runs.
    """
    if not found:
        return {name: tuple(runs) for name, runs in groups.items()}
    chosen = {group: f"{group}-{one.tag}" for group, one in best(found, goals).items()}
    swept = {f"{one.group}-{one.tag}" for one in found}
    names = [name if runs else chosen.get(name, name) for name, runs in groups.items() if name not in swept]
    return {name: tuple(groups[name]) for name in dict.fromkeys([*names, *chosen.values()]) if name in groups}


def edges(found: Sequence[Combination], labels: Mapping[str, str], goals: Goals | None) -> list[AuditFinding]:
    """Return a warning for each group whose best value of a setting is the lowest or highest that was tried."""
    said = []
    for group, one in best(found, goals).items():
        for key, value in one.values.items():
            tried = [other.values[key] for other in found if other.group == group]
            if not all(map(is_number, tried)) or min(tried) == max(tried):
                continue
            if value not in (min(tried), max(tried)):
                continue
            which = _("the lowest") if value == min(tried) else _("the highest")
            text = _(
                "{group} is best at {key} = {value}, {which} that was tried: what lies beyond is not known",
                labels.get(group) or group, key, text_of(value), which,
            )  # fmt: skip
            said.append(warning(text, group, key=key))
    return said


def metric(goals: Goals | None) -> Column:
    """Return the column of what combinations are compared by."""
    if goals is None:
        return column("final_val_loss")
    name = next(iter(goals), "")
    return Column(f"{name}_last", tables.METRIC, _("{metric}, last", name))


def _interval(results: Sequence[float]) -> str | None:
    if len(results) < 2 or not all(map(math.isfinite, results)):
        return None
    low, high = paired(results).interval((1 - LEVEL) / 2)
    return f"[{tables.number(low)}, {tables.number(high)}]"


def order(value: Any) -> tuple[tuple[int, float], str]:
    """Return what sorts a value among others, numbers first, and how it is shown."""
    return ((0, float(value)) if is_number(value) else (1, 0.0)), text_of(value)


def text_of(value: Any) -> str:
    """Return a value as a reader has it."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return sweep.as_text(value)


def is_number(value: Any) -> bool:
    """Tell whether a value has a place on a scale."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
