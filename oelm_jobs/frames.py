"""Results of the Python API as pandas data frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from .agent.sentences import _
from .agent.states import State
from .store import StoredRun

if TYPE_CHECKING:
    import pandas as pd

SCALARS = (str, int, float, bool, type(None))


def data_frame(results: Iterable[object]) -> pd.DataFrame:
    """Return a data frame with a row for each result and a column for each of its values; needs pandas.

    A run's progress has columns of its own, and a result about a run those of its study and name. What is neither
    number nor text is left out.

    Args:
        results: Runs (``view.runs``, ``plan.runs``, ``report.runs``) or what was done with them (``outcome.done``).
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
    about = found.pop("run", None)
    names = {"study": about.study, "run": about.name} if about is not None else {}
    return {**names, **{key: _shown(value) for key, value in found.items() if isinstance(value, SCALARS)}}


def _shown(value: Any) -> Any:
    return str(value) if isinstance(value, State) else value
