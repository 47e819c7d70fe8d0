"""Collect records into columns in bounded memory; of two records of one step the later one is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMIT = 1 << 18
"""Rows that are kept of one run; more than any reference run logs, few enough for a thousand runs."""

PARTS = 1 << 12
"""Pieces that rows are kept in before they are joined."""

Column = NDArray[Any]


class Columns:
    """Rows appended in the order of a file; the column ``step`` is their key."""

    def __init__(self, *, limit: int = LIMIT, keep_lowest: str = "") -> None:
        """Keep at most twice ``limit`` rows; thinning never drops the last row or the lowest of column
        ``keep_lowest``.
        """
        self._limit = limit
        self._keep_lowest = keep_lowest
        self._parts: list[dict[str, Column]] = []
        self._rows = 0
        self.added = 0
        """Rows that were given."""
        self.repeated = 0
        """Rows that a later record of the same step replaced."""
        self.stride = 1
        """Of so many rows one was kept where there were too many."""
        self.restarts = 0
        """How often the step went back."""
        self.last_added_step = -1
        """Step of the newest row."""

    def add(self, rows: Mapping[str, Column], *, left_out: int = 0) -> None:
        """Append rows; ``rows["step"]`` is an integer column; ``left_out`` rows were thinned by the caller
        (``stride``).
        """
        step = rows["step"]
        if not len(step):
            return
        self.added += len(step) + left_out
        back = int(np.count_nonzero(np.diff(step) <= 0)) + int(0 <= step[0] <= self.last_added_step)
        self.restarts += back
        self.last_added_step = int(step[-1])
        if self.stride > 1 and not back and not left_out:
            # Thinned as the older rows already are; the newest one is kept.
            kept = np.arange((len(step) - 1) % self.stride, len(step), self.stride)
            rows = {name: column[self._with_lowest(kept, rows)] for name, column in rows.items()}
        self._parts.append(dict(rows))
        self._rows += len(rows["step"])
        if self._rows > 2 * self._limit:
            self._compact()
        elif len(self._parts) > PARTS:  # small arrays have as much overhead as data
            self._parts = [self._whole()]

    def finish(self) -> dict[str, Column] | None:
        """Return the columns by rising step, or None where nothing was added."""
        if not self._parts:
            return None
        self._compact()
        return self._parts[0]

    def _compact(self) -> None:
        whole = self._whole()
        step = whole["step"]
        if np.any(np.diff(step) <= 0):
            _, from_end = np.unique(step[::-1], return_index=True)
            kept = len(step) - 1 - from_end
            self.repeated += len(step) - len(kept)
            whole = {name: column[kept] for name, column in whole.items()}
        while len(whole["step"]) > self._limit:
            count = len(whole["step"])
            kept = self._with_lowest(np.arange((count - 1) % 2, count, 2), whole)
            whole = {name: column[kept] for name, column in whole.items()}
            self.stride *= 2
        self._parts = [whole]
        self._rows = len(whole["step"])

    def _whole(self) -> dict[str, Column]:
        return {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}

    def _with_lowest(self, kept: Column, rows: Mapping[str, Column]) -> Column:
        if not self._keep_lowest or np.all(np.isnan(rows[self._keep_lowest])):
            return kept
        return np.union1d(kept, [int(np.nanargmin(rows[self._keep_lowest]))])
