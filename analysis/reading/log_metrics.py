"""Read metrics from all lines of a script's log by the study's patterns, in constant memory.

A log may have many millions of lines: what fits is looked for in a block of them at a time, and numbers become arrays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oelm_jobs.agent.run.line_patterns import LONGEST_LINE, BadPattern, LinePattern, clean, compile_line, number
from oelm_jobs.agent.run.metrics import TooSlow, bounded
from oelm_jobs.agent.sentences import Sentence, _

from . import files
from .near_lines import nearest

BLOCK = 1 << 20
"""Bytes that are read at a time."""
BLOCK_CPU_S = 20.0
"""Processor time after which a pattern is given up at a block; one that can be meant takes less than a second."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Numbers = Mapping[str, tuple[Floats, NDArray[np.bool_]]]
"""Of each name of a pattern the number in each line that fits, and whether it is one."""
Told = Mapping[str, tuple[Ints, Floats]]
"""Steps and values by metric, in their order; the step is below zero where none was told before."""


def columns(path: Path, lines: Sequence[str], notes: list[Sentence]) -> Iterator[Told]:
    """Yield what the lines of each block say; append to ``notes`` which patterns fit no line. A line without a step is
    of the step that was told last.

    Raises:
        OSError: The log can't be read.
    """
    patterns = []
    for line in dict.fromkeys(lines):
        try:
            patterns.append(compile_line(line))
        except BadPattern as error:
            notes.append(error.args[0])
    readers = [_Reader(group) for group in apart(patterns)]
    for text in blocks(path, notes):
        rows = text.decode("utf-8", errors="replace").split("\n")
        if len(max(rows, key=len)) > LONGEST_LINE:
            rows = [row[:LONGEST_LINE] for row in rows]
        for reader in readers:
            yield reader.read(rows, notes)
    unfit = [pattern for reader in readers for pattern, has_fitted in reader.fitted.items() if not has_fitted]
    if unfit:
        every_line = (line for text in blocks(path, []) for line in text.split(b"\n"))
        notes += nearest(unfit, path.name, every_line)


def blocks(path: Path, notes: list[Sentence]) -> Iterator[bytes]:
    """Yield a log's whole lines, as line_patterns.clean gives them; a last line without an end is left out."""
    part = b""
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            end = 1 + max(block.rfind(b"\n"), block.rfind(b"\r"))
            if end:
                yield clean(part + block[:end])
                part = block[end:]
            elif len(part) < BLOCK:  # of a line without an end its beginning is enough
                part += block
    if part.strip():
        notes.append(files.cut_off(path.name))


def apart(patterns: list[LinePattern]) -> list[list[LinePattern]]:
    """Return patterns in groups whose lines are read in one order: all of them in one where a line of one has the step
    of another's, or two tell the same metric.
    """
    names = [name for pattern in patterns for name in pattern.names if name not in ("step", "max_steps")]
    are_apart = all("step" in pattern.names for pattern in patterns) and len(set(names)) == len(names)
    return [[pattern] for pattern in patterns] if are_apart else [patterns]


class _Reader:
    """Reads the lines of patterns in their common order."""

    def __init__(self, patterns: Sequence[LinePattern]) -> None:
        self.fitted = dict.fromkeys(patterns, False)
        """Whether a line has fitted each pattern; one that was given up is gone."""
        self._last = -1

    def read(self, lines: Sequence[str], notes: list[Sentence]) -> Told:
        """Return what a block's lines say."""
        said: list[tuple[Ints, Numbers]] = []
        for pattern in list(self.fitted):
            try:
                with bounded(BLOCK_CPU_S):
                    places, words = _search(pattern, lines, are_placed=len(self.fitted) > 1)
            except TooSlow:
                del self.fitted[pattern]
                notes.append(_("the pattern {pattern!r} takes too long on a line and was given up", pattern.text))
                continue
            values, known = (column.reshape(-1, len(pattern.names)).T for column in _numbers(words))
            self.fitted[pattern] |= bool(known.any())
            said.append((places, dict(zip(pattern.names, zip(values, known, strict=True), strict=True))))
        return self._in_order(said)

    def _in_order(self, said: Sequence[tuple[Ints, Numbers]]) -> Told:
        """Return the values of patterns in the order of their lines, each with its step."""
        order = np.argsort(np.concatenate([np.zeros(0, int), *(places for places, _numbers in said)]), kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(1, len(order) + 1)
        steps = np.full(len(order) + 1, -1)
        steps[0] = self._last
        found: dict[str, list[tuple[Ints, Floats]]] = {}
        for places, numbers in said:
            own, rank = rank[: len(places)], rank[len(places) :]
            for name, (values, known) in numbers.items():
                if name == "step":
                    is_whole = known & (values >= 0) & (values < 2**53) & (values == np.floor(values))
                    steps[own] = np.where(is_whole, values, -1)
                elif name != "max_steps":
                    found.setdefault(name, []).append((own[known], values[known]))
        steps = steps[np.maximum.accumulate(np.where(steps >= 0, np.arange(len(steps)), 0))]
        self._last = int(steps[-1])
        told = {}
        for name, parts in found.items():
            where, values = (np.concatenate(column) for column in zip(*parts, strict=True))
            in_order = np.argsort(where)
            if len(values):
                told[name] = steps[where[in_order]], values[in_order]
        return told


def _search(pattern: LinePattern, lines: Sequence[str], *, are_placed: bool) -> tuple[Ints, list[Any]]:
    """Return the places of the lines that fit a pattern, and the words of its numbers one line after the other.

    Args:
        are_placed: The places are compared with those of other patterns; else they are only in order.
    """
    needle = pattern.needle.decode()
    if are_placed or "(?P<" in pattern.text:
        search = pattern.regex.search
        hits = [(place, hit) for place, line in enumerate(lines) if needle in line and (hit := search(line))]
        return np.array([place for place, _hit in hits], int), [
            h[group] for _place, h in hits for group in pattern.groups
        ]
    # In one go it takes half the time; what is made of text fits within a line.
    text = "\n".join([line for line in lines if needle in line])
    found = re.findall(pattern.regex.pattern + r"[^\n]*", text)
    return np.arange(len(found)), found if len(pattern.names) == 1 else list(chain.from_iterable(found))


def _numbers(words: list[Any]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the numbers that words are, and which of them are any."""
    try:
        return np.array(list(map(float, words)), float), np.ones(len(words), bool)
    except (TypeError, ValueError):
        found = [number(word) for word in words]
        known = np.array([value is not None for value in found])
        return np.array([math.nan if value is None else value for value in found]), known
