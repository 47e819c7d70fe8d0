"""Results of the Python API as pandas data frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from .agent.sentences import _
from .spec.study import Run
from .stored_run import StoredRun

if TYPE_CHECKING:
    import pandas as pd

SCALARS = (str, int, float, bool, type(None))


def data_frame(results: Iterable[object]) -> pd.DataFrame:
    """Return a data frame with a row for each result and a column for each of its values; needs pandas.

    A run's progress has columns of its own, what is within a result columns with both names (``final_loss``), and a
    result about a run those of its study, group, seed and name. What is neither number nor text is left out.

    Args:
        results: Runs (``view.runs``, ``plan.runs``, ``report.runs``), what was done with them (``outcome.done``), or
            others of the API's dataclasses, such as ``report.report.verdicts``.
    """
    import pandas as pd

    return pd.DataFrame([_row(result) for result in results])


def _row(result: Any) -> dict[str, Any]:
    if isinstance(result, StoredRun):
        found = {**result._asdict(), **result.progress}
    elif is_dataclass(result):
        found = {field.name: getattr(result, field.name) for field in fields(result)}
    else:
        raise TypeError(_("{kind} is no result of a run", type(result).__name__))
    run = found.get("run")
    if isinstance(run, (StoredRun, Run)):
        found = {"study": run.study, "group": run.group, "seed": run.seed, **found, "run": run.name}
    row = {}
    for key, value in found.items():
        if isinstance(value, Enum):
            row[key] = value.value
        elif isinstance(value, SCALARS):
            row[key] = value
        elif is_dataclass(value):
            row |= {f"{key}_{inner}": part for inner, part in _row(value).items()}
    return row
