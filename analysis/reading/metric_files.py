"""Read files of metrics that programs and trackers write, row by row: CSV, JSON lines, JSON, TensorBoard's events.

The step of a row is None where the file tells none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from oelm_jobs.agent.run.rows import Table, json_object, numbers, step_name, whole
from oelm_jobs.agent.sentences import Sentence, _

from . import event_files, files

Row = tuple[int | None, dict[str, float]]
"""A step, and values by metric."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
"""Of tables, those first that are believed first; TensorBoard's events come after all of them."""
DEPTH = 4
"""Folders below a run's own in which tables are looked for."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line is no row."""


def rows(
    path: Path, notes: list[Sentence], columns: Mapping[str, str] | None = None, *, is_over: bool = False
) -> Iterator[Row]:
    """Yield the rows of a file; append to ``notes`` what was not understood.

    Args:
        is_over: Nothing more is written: a last row may lack its end.
        columns: Names of columns by metric; all are metrics where None. Where ``step`` isn't among them, a column's
            name tells it.

    Raises:
        OSError: The file can't be read.
    """
    by_column = {column: name for name, column in (columns or {}).items()}
    key = "" if columns is None else columns.get("step", "")
    for row in raw(path, notes, is_over=is_over):
        key = key or step_name(row)  # the first that a file has is that of all its rows
        step = whole(row.pop(key, None))
        if by_column:
            row = {by_column[column]: value for column, value in row.items() if column in by_column}
        yield step, row


def is_table(path: Path) -> bool:
    """Tell whether a file's name is that of a table."""
    return path.suffix in SUFFIXES or event_files.is_events(path)


def by_kind(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield the tables of each kind, those first that are believed first."""
    for kind in (*SUFFIXES, ""):
        found = [path for path in paths if path.suffix == kind or (not kind and path.suffix not in SUFFIXES)]
        if found:
            yield without_older_states(found)


def below(
    folder: Path,
    fits: Callable[[Path], bool],
    enters: Callable[[Path], bool] = lambda folder: True,
    *,
    depth: int = DEPTH,
) -> Iterator[Path]:
    """Yield the files that fit in a folder and in those below it which are entered; what can't be listed has none."""
    try:
        inner = sorted(folder.iterdir(), key=in_order)
    except OSError:
        return
    yield from (path for path in inner if path.is_file() and fits(path))
    for path in inner if depth else ():
        if path.is_dir() and not path.is_symlink() and enters(path):
            yield from below(path, fits, enters, depth=depth - 1)


def in_order(path: Path) -> list[tuple[int, str]]:
    """Return what sorts files by the numbers in their names."""
    return [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d{1,12})", str(path))]


def without_older_states(paths: Sequence[Path]) -> list[Path]:
    """Return files without all of transformers' states but the last, which holds what those before it do."""
    states = [path for path in paths if path.name == "trainer_state.json"]
    return [path for path in paths if path not in states[:-1]]


def raw(path: Path, notes: list[Sentence], *, is_over: bool = False) -> Iterator[dict[str, float]]:
    """Yield the rows of a file, with a number for each column that has one (``is_over`` as for ``rows``)."""
    if event_files.is_events(path):
        return event_files.rows(path, notes)
    if path.suffix == ".json":
        return _whole(path, notes)
    return _lines(path, notes, is_json=path.suffix in (".jsonl", ".ndjson"), is_over=is_over)


def _lines(path: Path, notes: list[Sentence], *, is_json: bool, is_over: bool = False) -> Iterator[dict[str, float]]:
    """Yield the rows of a text file. A last line without an end is one where it is a whole object, or where nothing
    more is written and it has the table's columns.
    """
    table: Table | None = None
    odd = 0
    with path.open("rb") as stream:
        while line := stream.readline(LONGEST_LINE):
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(LONGEST_LINE)
                odd += bool(line)
                continue
            text = line.decode("utf-8", errors="replace").lstrip("\ufeff").strip("\r\n")
            is_whole = line.endswith(b"\n") or json_object(line) is not None
            if not is_whole and not (is_over and table is not None and table.row(text) is not None):
                notes.append(files.cut_off(path.name))
                continue
            if not text.strip():
                continue
            if is_json:
                content = json_object(text)
                row = None if content is None else numbers(content)
            elif table is None:
                table = Table(text)
                continue
            else:
                row = table.row(text)
            if row is None:
                odd += 1
            else:
                yield row
    if odd:
        notes.append(_("{count} lines of {name} were not understood", odd, path.name))


def _whole(path: Path, notes: list[Sentence]) -> Iterator[dict[str, float]]:
    """Yield the rows of a JSON file: transformers' trainer_state.json, a list of objects, lists by metric, or one
    object; some write JSON lines under that name.
    """
    content, note = files.read(path, object, json.loads)  # which knows the NaN that Python writes
    if note is not None:
        with path.open("rb") as stream:
            is_lines = json_object(stream.readline(LONGEST_LINE)) is not None
        if is_lines:
            yield from _lines(path, notes, is_json=True)
        else:
            notes.append(note)
        return
    if isinstance(content, dict) and isinstance(content.get("log_history"), list):
        content = content["log_history"]
    if isinstance(content, dict):
        lists = {name: value for name, value in content.items() if isinstance(value, list) and value}
        if lists:
            for place in range(max(map(len, lists.values()))):
                yield numbers({name: value[place] for name, value in lists.items() if place < len(value)})
            return
        content = [content]
    for item in content if isinstance(content, list) else []:
        if isinstance(item, dict):
            yield numbers(item)
