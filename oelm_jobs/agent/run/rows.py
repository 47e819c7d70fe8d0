"""Rows of the files in which programs and trackers tell metrics: the columns of tables, the keys of JSON objects."""

from __future__ import annotations

import csv
import json
import math
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

STEP_NAMES = (
    "step", "global_step", "trainer/global_step", "train/global_step", "iter", "iteration", "iter_num", "_step",
    "epoch",
)  # fmt: skip
"""What a column of steps is called, the likeliest first (``_step`` counts the calls of W&B's log)."""
_SPREAD = ("__MIN", "__MAX")
"""Endings of the columns that W&B's page exports beside each curve."""


class Table:
    """A table with a header, divided by commas, semicolons (numbers then have decimal commas) or tabs."""

    def __init__(self, first_line: str) -> None:
        """Read the header from a table's first line."""
        self._divider = max(",;\t", key=first_line.count)
        self._names = _header(self._words(first_line))

    def row(self, line: str) -> Optional[Dict[str, float]]:
        """Return the numbers of a line by column, holes left out; empty for a header that is repeated, None where the
        line is no row.
        """
        words = self._words(line)
        if len(words) != len(self._names):
            return None
        found = {
            name: value for name, word in zip(self._names, words) if name and (value := self._cell(word)) is not None
        }
        if not found and set(words) & set(self._names):  # a program that was started again wrote its header again
            self._names = _header(words)
        return found

    def _words(self, line: str) -> List[str]:
        try:
            return next(csv.reader([line], delimiter=self._divider), [])
        except csv.Error:  # a field larger than there is room for
            return []

    def _cell(self, word: str) -> Optional[float]:
        return cell(word.replace(",", ".") if self._divider == ";" else word)


def _header(names: Sequence[str]) -> List[str]:
    """Return the columns' names; W&B's page puts that of the run before them, which goes where it exports one run."""
    found = [name.strip() for name in names]
    if any(name.endswith(_SPREAD) for name in found):
        found = ["" if name.endswith(_SPREAD) else name for name in found]
        if len({name.rpartition(" - ")[0] for name in found if " - " in name}) == 1:
            found = [name.rpartition(" - ")[2] for name in found]
    return ["" if name in found[:place] else name for place, name in enumerate(found)]


def cell(word: Any) -> Optional[float]:
    """Return what a cell holds; None where it is no number."""
    if not isinstance(word, (str, int, float)) or isinstance(word, bool):
        return None
    try:
        return float(word)
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def json_object(line: Union[str, bytes]) -> Optional[Dict[str, Any]]:
    """Return the object that is in a line; None where there is another thing."""
    try:
        found = json.loads(line)  # which knows the NaN that Python writes
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def numbers(content: Mapping[str, Any]) -> Dict[str, float]:
    """Return the numbers of an object by name, those of objects in it under their names joined by dots."""
    return dict(_numbers(content, ""))


def _numbers(content: Mapping[str, Any], before: str) -> Iterator[Any]:
    for name, value in content.items():
        if isinstance(value, dict) and before.count(".") < 8:
            yield from _numbers(value, "%s%s." % (before, name))
            continue
        found = cell(value)
        if found is not None:
            yield before + name, found


def step_name(row: Mapping[str, float]) -> str:
    """Return which name in a row is that of steps; empty where none is."""
    return next((name for step in STEP_NAMES for name in row if name.lower() == step), "")


def whole(value: Optional[float]) -> Optional[int]:
    """Return a step as a whole number; None where it is none."""
    return int(value) if value is not None and 0 <= value < 2**53 and value == int(value) else None
