"""Results of the Python API as pandas data frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .agent.sentences import _
from .spec.study import Run
from .stored_run import StoredRun

if TYPE_CHECKING:
    import pandas as pd

    from .outcome import Outcome
    from .runs.observe import View
    from .study.plan import Plan

SCALARS = (str, int, float, bool, type(None))


def data_frame(results: Iterable[object] | StoredRun | View | Plan | Outcome[Any]) -> pd.DataFrame:
    """Return a data frame with a row for each result and a column for each of its values; needs pandas.

    A run's progress has columns of its own, what is within a result columns with both names (``final_loss``), what a
    script told its last values and the best by their goal (``accuracy_last``, ``accuracy_best``), and a result about a
    run those of its study, group, seed and name (``run``). What is neither number nor text is left out.

    Args:
        results: Runs (a view, a plan, ``report.runs``), what was done with them (an outcome, ``project.submit``'s
            list), or others of the API's dataclasses, such as ``report.verdicts``.
    """
    import pandas as pd

    if isinstance(results, StoredRun):
        results = [results]
    for name in ("runs", "done"):
        results = getattr(results, name, results)
    return pd.DataFrame([_row(result) for result in cast("Iterable[object]", results)])


def _row(result: Any) -> dict[str, object]:
    if isinstance(result, StoredRun):
        found = {**result.progress, **result._asdict()}
    elif is_dataclass(result):
        found = {field.name: getattr(result, field.name) for field in fields(result)}
    else:
        raise TypeError(_("{kind} is no result of a run", type(result).__name__))
    if "name" in found and "seed" in found:
        found = {("run" if key == "name" else key): value for key, value in found.items()}
    run = found.get("run")
    if isinstance(run, (StoredRun, Run)):
        found = {"study": run.study, "group": run.group, "seed": run.seed, **found, "run": run.name}
    row = {}
    for key, value in found.items():
        if isinstance(value, Enum):
            row[key] = value.value
        elif isinstance(value, SCALARS):
            row[key] = value
        elif isinstance(value, Path):
            row[key] = str(value)
        elif is_dataclass(value):
            row |= {f"{key}_{inner}": part for inner, part in _row(value).items()}
    for name, series in (found.get("series") or {}).items():
        row[f"{name}_last"] = series.last.value
        if best := series.best(goal) if (goal := found["goals"].get(name)) else None:
            row[f"{name}_best"] = best.value
    return row
