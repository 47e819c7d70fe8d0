"""Fill the columns of what scripts tell: last and best values of their metrics, and gaps to the first group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from oelm_jobs.agent.sentences import _
from oelm_jobs.spec.study import Hypothesis, Study

from . import tables
from .judging.evidence import gather
from .reading.loaded_run import LoadedRun, Reading, finished
from .statistics import mean_sd
from .tables import EMPTY, Cell, Column, column

Groups = Mapping[str, Sequence[LoadedRun]]
Goals = Mapping[str, str]
"""The metrics that scripts tell, each with its direction: ``minimize``, ``maximize``, or empty; the main one first."""
Quantity = tuple[Column, Callable[[str, Sequence[LoadedRun]], Cell]]
"""A column of a table of groups, and what makes its cell of a group and its runs."""
RunQuantity = tuple[Column, Callable[[str, LoadedRun], "float | str | None"]]
"""A column of a table of runs, and what makes its value of a group and a run."""

MOST_METRICS = 12
"""So many metrics are shown where the study says of none what is better."""


def metrics(study: Study, runs: Sequence[LoadedRun]) -> dict[str, str]:
    """Return the metrics that a report of scripts is about: those whose direction the study or its runs say or that it
    judges by; where there are none, the first ones that are told.
    """
    found = dict(study.program.metrics.goal) if study.program is not None else {}
    for run in runs:
        found |= {name: goal for name, goal in run.goals.items() if name not in found}
    found |= {h.metric: h.goal for h in study.hypotheses if h.is_told and h.metric not in found}
    named = list(dict.fromkeys(name for run in runs for name in run.series))
    return found or dict.fromkeys(named[:MOST_METRICS], "")


def results(groups: Groups, goals: Goals, target: float | None) -> list[Quantity]:
    """Return columns of groups: of each metric the mean last value and, where it has a direction, the best; of the main
    one how far it lies from the first group's, and the steps to a target.
    """
    found: list[Quantity] = []
    for place, (name, goal) in enumerate(goals.items()):
        found.append((_last(name, goal), partial(_mean, name, "")))
        if place == 0 and len(groups) > 1:
            gap = Column("gap_to_baseline", tables.DELTA, _("{metric}, gap to baseline", name), "result")
            found.append((gap, partial(_gap, name, groups)))
        if goal:
            found.append((_best(name), partial(_mean, name, goal)))
        if goal and place == 0 and target is not None:
            found.append((column("steps_to_target", "result"), partial(_steps_to, name, goal, target)))
    return found


def of_run(goals: Goals) -> list[RunQuantity]:
    """Return columns of runs: last and best values, and the step at which the main metric was best."""
    found: list[RunQuantity] = []
    for place, (name, goal) in enumerate(goals.items()):
        found.append((_last(name, goal), partial(_value, name, "")))
        if goal:
            found.append((_best(name), partial(_value, name, goal)))
        if goal and place == 0:
            found.append((column("best_step", "result"), partial(_best_step, name, goal)))
    return found


def _last(name: str, goal: str) -> Column:
    """Return the column of a metric's last values, headed by its name alone where no others are shown."""
    return Column(f"{name}_last", tables.METRIC, _("{metric}, last", name) if goal else name, "result")


def _best(name: str) -> Column:
    return Column(f"{name}_best", tables.METRIC, _("{metric}, best", name), "result")


def _reading(run: LoadedRun, name: str, goal: str) -> Reading | None:
    """Return the last value of a metric, with a goal the best one."""
    series = run.series.get(name)
    return None if series is None else series.best(goal) if goal else series.last


def _value(name: str, goal: str, group: str, run: LoadedRun) -> float | None:
    reading = _reading(run, name, goal)
    return None if reading is None else reading.value


def _best_step(name: str, goal: str, group: str, run: LoadedRun) -> int | None:
    reading = _reading(run, name, goal)
    return None if reading is None else reading.step


def _mean(name: str, goal: str, group: str, runs: Sequence[LoadedRun]) -> Cell:
    values = [_value(name, goal, group, run) for run in finished(runs)]
    return Cell(*mean_sd([value for value in values if value is not None]))


def _gap(name: str, groups: Groups, group: str, runs: Sequence[LoadedRun]) -> Cell:
    """Return the difference of a metric's mean to the first group's, at the step at which a hypothesis compares it."""
    baseline = next(iter(groups))
    h = Hypothesis(
        id="", metric=name, group=group, against=baseline, relation="equivalent_within", bounds=(0.0,),
        scale="difference", is_told=True,
    )  # fmt: skip
    evidence = gather(h, groups, may_pair=False)
    own, base = ([value.raw for value in arm] for arm in (evidence.group, evidence.against))
    if group == baseline or evidence.missing or not all(map(math.isfinite, [*own, *base])):
        return EMPTY
    return Cell(math.fsum(own) / len(own) - math.fsum(base) / len(base))


def _steps_to(name: str, goal: str, target: float, group: str, runs: Sequence[LoadedRun]) -> Cell:
    """Return the median of the steps until a metric is as good as the target."""
    reached = []
    for run in runs:
        if (series := run.series.get(name)) is not None:
            hits = np.flatnonzero(series.value >= target if goal == "maximize" else series.value <= target)
            step = series.step[hits[0]] if len(hits) else series.step[-1]
            reached.append(((float(step),), bool(len(hits))))
    return censored(reached, 0)


def censored(reached: Sequence[tuple[tuple[float | None, ...], bool]], position: int) -> Cell:
    """Return the median over runs, which is known as long as less than half of them are censored."""
    known = [(value, hit) for spent, hit in reached if (value := spent[position]) is not None]
    if not known:
        return EMPTY
    values = sorted(value if hit else math.inf for value, hit in known)
    middle = values[(len(values) - 1) // 2]
    return Cell(middle) if math.isfinite(middle) else Cell(max(value for value, _hit in known), prefix="> ")
