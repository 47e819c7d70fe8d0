"""Tables of typed cells, so that every output shows the same values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .words import Text, say

DASH = "–"
"""What a missing value looks like."""

TEXT, COUNT, LOSS, PPL, PERCENT, GAP, HOURS, RATE, GB, STEP, NUMBER = (
    "text", "count", "loss", "ppl", "percent", "gap", "hours", "rate", "gb", "step", "number",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A value with its spread."""

    value: float | int | str | Text | None
    """None is shown as a dash."""
    sd: float | None = None
    """Standard deviation over seeds."""
    prefix: str = ""
    """``>`` for a censored value."""


EMPTY = Cell(None)


@dataclass(frozen=True)
class Column:
    """A quantity."""

    key: str
    """Its name in CSV and JSON; with the unit where the kind doesn't say it."""
    kind: str
    """How its cells are shown."""
    section: str = ""
    """Where wide tables are cut for narrow outputs: columns of one section stay together."""

    label: Text | None = None
    """Its heading, where that isn't the sentence ``column_<key>``."""
    is_plain: bool = False
    """True where it stands in CSV and JSON alone: readers have its value in another unit."""

    @property
    def header(self) -> Text:
        """Its heading in a report."""
        return self.label or Text(f"column_{self.key}")


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row."""

    key: str
    """``comparison``, ``parameters`` and so on; its title is the sentence ``table_<key>``."""
    columns: tuple[Column, ...]
    """The first one is the row's name."""
    rows: tuple[tuple[Cell, ...], ...]
    """As many cells as columns."""
    is_turned: bool = False
    """True where text outputs show quantities as rows (many quantities, few groups)."""
    remarks: tuple[Text, ...] = ()
    """Lines below the table."""

    @property
    def title(self) -> Text:
        """Its heading."""
        return Text(f"table_{self.key}")

    @property
    def for_readers(self) -> Table:
        """The table without the columns that only programs read."""
        kept = [i for i, column in enumerate(self.columns) if not column.is_plain]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows)


def show(cell: Cell, kind: str, language: str) -> str:
    """Return a cell as a reader sees it."""
    value = cell.value
    if value is None:
        return DASH
    if isinstance(value, Text):
        return say(value, language)
    if isinstance(value, str):
        return value or DASH
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = _number(value, kind)
    if cell.sd is not None and math.isfinite(cell.sd) and cell.sd > 1e-9 * abs(value):
        decimals = len(shown.partition(".")[2].rstrip(" %")) if "e" not in shown else 0
        scale = 100 if kind in (PERCENT, GAP) else 1
        shown += f" ± {scale * cell.sd:,.{decimals}f}" if "e" not in shown else f" ± {cell.sd:.1e}"
    return cell.prefix + shown


def _number(value: float, kind: str) -> str:
    if kind in (COUNT, STEP):
        return f"{round(value):,}"
    if kind == LOSS:
        return f"{value:.4f}"
    if kind == PPL:
        return f"{value:.2f}" if value < 10_000 else f"{value:.3g}"
    if kind == PERCENT:
        return f"{100 * value:.1f} %"
    if kind == GAP:
        shown = f"{100 * value:+.1f} %".replace("-", "−")
        return shown if shown.strip("+−") != "0.0 %" else "0.0 %"
    if kind == HOURS:
        return f"{value:.2f}" if value >= 1 else f"{value:.3g}"
    if kind == RATE:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    if kind == GB:
        return f"{value:.2f}"
    return f"{value:.4g}"


def grid(table: Table, language: str) -> tuple[list[str], list[list[str]], str]:
    """Return headers, rows and alignment letters as shown, turned where the table says so."""
    heads = [say(column.header, language) for column in table.columns]
    rows = [
        [show(cell, column.kind, language) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    align = "".join("l" if column.kind == TEXT else "r" for column in table.columns)
    if not table.is_turned:
        return heads, rows, align
    turned = (
        [[head, *column] for head, column in zip(heads[1:], list(zip(*rows, strict=True))[1:], strict=False)]
        if rows
        else [[head] for head in heads[1:]]
    )
    return [heads[0], *(row[0] for row in rows)], turned, "l" + "r" * len(rows)


def cut(made: Sequence[Table], widest: int) -> list[Table]:
    """Return the tables, those with more than ``widest`` columns cut by their columns' sections (the row's name stays
    in every piece); a piece whose columns are all in another table is left out.
    """
    found = []
    for table in made:
        names = list(dict.fromkeys(column.section for column in table.columns if column.section))
        if len(names) < 2 or len(table.columns) <= widest:
            found.append(table)
            continue
        for name in names:
            kept = [i for i, column in enumerate(table.columns) if i == 0 or column.section == name]
            piece = Table(
                f"{table.key}_{name}",
                tuple(table.columns[i] for i in kept),
                tuple(tuple(row[i] for i in kept) for row in table.rows),
                remarks=table.remarks if name == names[0] else (),
            )
            keys = {column.key for column in piece.columns}
            if not any(keys <= {column.key for column in other.columns} for other in made if other is not table):
                found.append(piece)
    return found


def raw(table: Table) -> tuple[list[str], list[list[float | int | str | None]]]:
    """Return keys and values for machines: one row a record, a column ``<key>_sd`` where a spread is known, Text in
    English.
    """
    with_sd = [any(row[i].sd is not None for row in table.rows) for i in range(len(table.columns))]
    heads: list[str] = []
    for column, spread in zip(table.columns, with_sd, strict=True):
        heads += [column.key, f"{column.key}_sd"] if spread else [column.key]
    rows: list[list[float | int | str | None]] = []
    for row in table.rows:
        cells: list[float | int | str | None] = []
        for cell, spread in zip(row, with_sd, strict=True):
            cells.append(_plain(cell))
            if spread:
                cells.append(cell.sd)
        rows.append(cells)
    return heads, rows


def _plain(cell: Cell) -> float | int | str | None:
    value = cell.value
    if isinstance(value, Text):
        return say(value, "en")
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if cell.prefix:
        return f"{cell.prefix}{value}"
    return value
