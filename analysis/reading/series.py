"""Read the metrics that a script told of itself into series by step, from its files and the lines of its log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from oelm_jobs.agent import rundir
from oelm_jobs.agent.run import work
from oelm_jobs.agent.sentences import Sentence, _

from . import files, log_metrics, metric_files
from .columns import Column, Columns
from .loaded_run import Series
from .log_metrics import Told
from .metric_files import Row

LIMIT = 1 << 16
"""Values that are kept of one series."""
BLOCK = 1 << 12
"""Values of rows that are collected before they become arrays."""


def read_series(
    run_dir: Path, metrics: files.Metrics, notes: list[Sentence], *, attempts: int | None = None, is_over: bool = False
) -> dict[str, Series]:
    """Return a run's metrics; append to ``notes`` what a reader of the report should know about how they were told.

    Of several places that tell a metric the first counts: metrics.jsonl, the study's files in their order, its lines.

    Args:
        attempts: How often the run was started. As often as that a step may go back: what came after it is then
            replaced. Where None, or where steps go back more often, a value replaces that of its own step alone.
        is_over: The run is done: a table's last row may lack its end.
    """
    found: dict[str, Series] = {}
    for name, told in _sources(run_dir, metrics, notes, is_over):
        collected = Collected(metrics.goal.get)
        collected.add(name, told, notes)
        for metric, series in collected.finish(name, notes, attempts).items():
            found.setdefault(metric, series)
    return found


def _sources(
    run_dir: Path, metrics: files.Metrics, notes: list[Sentence], is_over: bool
) -> Iterable[tuple[str, Iterable[Told]]]:
    """Yield names of places that tell metrics, and what they tell."""
    own = run_dir / rundir.METRICS
    if own.is_file():
        # The time is that of the line (oelm_run).
        rows = metric_files.rows(own, notes)
        yield own.name, in_blocks((step, {n: v for n, v in row.items() if n != "time"}) for step, row in rows)
    for pattern in metrics.files:
        paths = metric_files.without_older_states(sorted(work.named(run_dir, pattern), key=metric_files.in_order))
        if not paths:
            notes.append(_("no file fits {pattern}", pattern))
        yield pattern, in_blocks(row for path in paths for row in metric_files.rows(path, notes, is_over=is_over))
    if metrics.lines and (run_dir / rundir.LOG).is_file():
        yield rundir.LOG, log_metrics.columns(run_dir / rundir.LOG, metrics.lines, notes)


def of_tables(
    tables: Sequence[Path],
    goal: Callable[[str], str | None],
    notes: list[Sentence],
    columns: Mapping[str, str] | None = None,
) -> dict[str, Series]:
    """Return the metrics of a run's tables: those of a kind go on from each other, and of kinds that tell a metric the
    first counts.

    Args:
        goal: As for ``Collected``.
        columns: As for ``metric_files.rows``.
    """
    found: dict[str, Series] = {}
    for some in metric_files.by_kind(tables):
        collected = Collected(goal)
        for table in some:
            collected.add(table.name, in_blocks(metric_files.rows(table, notes, columns, is_over=True)), notes)
        names = ", ".join(table.name for table in some[:3])
        for metric, told in collected.finish(names, notes, None).items():
            found.setdefault(metric, told)
    return found


def in_blocks(rows: Iterable[Row]) -> Iterator[Told]:
    """Yield what rows tell, many at a time; one without a step is of the step that was told last.

    Raises:
        OSError: They can't be read on.
    """
    last, count = -1, 0
    found: dict[str, tuple[list[int], list[float]]] = {}
    try:
        for step, values in rows:
            last = last if step is None else step
            for name, value in values.items():
                steps, told = found.setdefault(name, ([], []))
                steps.append(last)
                told.append(value)
            count += len(values)
            if count >= BLOCK:
                yield _as_arrays(found)
                found, count = {}, 0
    except OSError:
        yield _as_arrays(found)
        raise
    yield _as_arrays(found)


def _as_arrays(found: Mapping[str, tuple[list[int], list[float]]]) -> Told:
    return {name: (np.array(steps), np.array(values, float)) for name, (steps, values) in found.items()}


class Collected:
    """Values of any number of metrics from one place, in the order in which it tells them."""

    def __init__(self, goal: Callable[[str], str | None]) -> None:
        """Make it.

        Args:
            goal: Returns which way a metric is better, ``minimize`` or ``maximize``, empty where nobody says; None for
                one of which nothing odd is told.
        """
        self._goal = goal
        self._metrics: dict[str, _Values] = {}

    def add(self, place: str, told: Iterable[Told], notes: list[Sentence]) -> None:
        """Add what a place tells; append to ``notes`` why it can't be read."""
        try:
            for block in told:
                for name, (steps, values) in block.items():
                    if name not in self._metrics:
                        self._metrics[name] = _Values(-1.0 if self._goal(name) == "maximize" else 1.0)
                    self._metrics[name].add(steps, values)
        except OSError as error:
            notes.append(files.not_understood(place, error.strerror or _("unreadable")))

    def finish(self, place: str, notes: list[Sentence], attempts: int | None) -> dict[str, Series]:
        """Return the series; append to ``notes`` what was odd about them."""
        found = {}
        for name, values in self._metrics.items():
            said: list[Sentence] = []
            found[name] = values.finish(name, place, said, attempts)
            notes += said if self._goal(name) is not None else []
        return found


class _Values:
    """Values of one metric; without any step they are numbered from 1, else what came before the first is of step 0."""

    def __init__(self, sign: float) -> None:
        self._sign = sign  # thinning keeps the lowest value
        self._told, self._counted = (Columns(limit=LIMIT, keep_lowest="value") for _each in range(2))
        self._last = -1
        self._starts: list[int] = []  # steps that steps went back to

    def add(self, steps: Column, values: Column) -> None:
        is_told, values = steps >= 0, self._sign * values
        if not is_told.all():
            own = values[~is_told]
            numbered = self._counted.added + np.arange(1, len(own) + 1)
            self._counted.add({"step": numbered, "value": own, "part": np.zeros(len(own), int)})
            steps, values = steps[is_told], values[is_told]
        if len(steps):
            goes_back = np.diff(steps, prepend=self._last) < 0
            part = len(self._starts) + np.cumsum(goes_back)
            self._starts += steps[goes_back].tolist()
            self._last = int(steps[-1])
            self._told.add({"step": steps, "value": values, "part": part})

    def finish(self, metric: str, place: str, notes: list[Sentence], attempts: int | None) -> Series:
        counted, told = self._counted.finish(), self._told.finish()
        if told is None:
            assert counted is not None
            notes.append(_("{metric} in {place} is told without steps: its values are numbered from 1", metric, place))
            return self._series(counted, metric, place, notes, is_counted=True)
        if self._starts and attempts is not None and len(self._starts) < attempts:
            # What a later start told begins at these steps.
            begins = [*np.minimum.accumulate(self._starts[::-1])[::-1], 2**62]
            kept = told["step"] < np.array(begins)[told["part"]]
            told = {name: column[kept] for name, column in told.items()}
        elif self._starts:
            said = _(
                "steps of {metric} in {place} go back {count} times, first to {step} (starts of the run: {starts}): "
                "a value replaced the earlier one of its step; where steps begin anew, tell one that goes on",
                metric, place, len(self._starts), self._starts[0], attempts or "–",
            )  # fmt: skip
            notes.append(said)
        if counted is not None and told["step"][0] > 0:
            told = {name: np.concatenate([counted[name][-1:], column]) for name, column in told.items()}
            told["step"][0] = 0
        return self._series(told, metric, place, notes)

    def _series(
        self, rows: Mapping[str, Column], metric: str, place: str, notes: list[Sentence], *, is_counted: bool = False
    ) -> Series:
        odd = np.flatnonzero(~np.isfinite(rows["value"]))
        if len(odd):
            step = int(rows["step"][odd[0]])
            notes.append(
                _("{metric} in {place} is not finite at {count} of {all} steps, first at {step}",
                  metric, place, len(odd), len(rows["step"]), step)
            )  # fmt: skip
        return Series(step=rows["step"], value=self._sign * rows["value"], is_counted=is_counted)
