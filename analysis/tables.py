"""Tables of typed cells, so that every output shows the same values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.language import translated

from .printed import say

DASH = "–"
"""What a missing value looks like."""

TEXT, COUNT, LOSS, PPL, PERCENT, GAP, HOURS, RATE, GB, STEP = (
    "text", "count", "loss", "ppl", "percent", "gap", "hours", "rate", "gb", "step",
)  # fmt: skip

QUANTITIES = {
    "group": (TEXT, _("Group")),
    "run": (TEXT, _("Run")),
    "seed": (TEXT, _("Seed")),
    "status": (TEXT, _("Status")),
    "seeds": (TEXT, _("Seeds")),
    "step": (STEP, _("Steps")),
    "final_val_loss": (LOSS, _("Final val. loss")),
    "final_val_ppl": (PPL, _("Final val. PPL")),
    "gap_to_baseline": (GAP, _("PPL gap to baseline")),
    "best_val_loss": (LOSS, _("Best val. loss")),
    "best_val_ppl": (PPL, _("Best val. PPL")),
    "best_step": (STEP, _("Best at step")),
    "total_params": (COUNT, _("Total parameters")),
    "trainable_params": (COUNT, _("Trainable parameters")),
    "frozen_params": (COUNT, _("Frozen parameters")),
    "embedding_params": (COUNT, _("Embedding")),
    "qk_params": (COUNT, _("Q/K")),
    "other_params": (COUNT, _("Other")),
    "frozen_share": (PERCENT, _("Frozen")),
    "frozen_share_without_embedding": (PERCENT, _("Frozen, without embeddings")),
    "gpus": (TEXT, _("GPUs per run")),
    "sequences_per_step": (TEXT, _("Sequences per step")),
    "tokens_per_s_per_gpu": (RATE, _("Tokens/s per GPU")),
    "hours": (HOURS, _("Hours")),
    "gpu_hours": (HOURS, _("GPU-hours")),
    "peak_gpu_mem_gb": (GB, _("Peak memory (GB)")),
    "attempts": (COUNT, _("Attempts")),
    "curve_area": (LOSS, _("Mean val. loss over log tokens")),
    "steps_to_target": (STEP, _("Steps to target")),
    "tokens_to_target": (COUNT, _("Tokens to target")),
    "gpu_hours_to_target": (HOURS, _("GPU-hours to target")),
    "trainable_share": (PERCENT, _("Trainable, of baseline")),
    "layer": (TEXT, _("Layer")),
    "hypothesis": (TEXT, _("Hypothesis")),
    "verdict": (TEXT, _("Verdict")),
    "estimate": (TEXT, _("Estimate")),
    "interval": (TEXT, _("Interval")),
    "rule": (TEXT, _("Rule")),
    "pairs": (COUNT, _("n")),
    "spread": (PERCENT, _("SD of a pair")),
    "spread_source": (TEXT, _("Spread from")),
    "assumed_gap": (TEXT, _("True value assumed")),
    "seeds_needed": (STEP, _("Seeds for 80 % power")),
    "seeds_needed_cautious": (STEP, _("With a larger spread")),
    "seeds_needed_holm": (STEP, _("With Holm, at worst")),
    "key": (TEXT, _("Key")),
    "kind": (TEXT, _("Kind")),
    "declared": (TEXT, _("Declared reason")),
    "revision": (TEXT, _("Revision")),
    "snapshot": (TEXT, _("Snapshot")),
    "train_code": (TEXT, _("Trainer code")),
    "target": (TEXT, _("Target")),
    "hardware": (TEXT, _("Hardware")),
    "host": (TEXT, _("Host")),
    "versions": (TEXT, _("Versions")),
    "precision": (TEXT, _("Precision")),
    "data": (TEXT, _("Data")),
    "fingerprint": (TEXT, _("Fingerprint")),
}
"""How the cells of each quantity are shown, and its heading, by its key."""
TITLES = {
    "comparison": _("Comparison of the groups"),
    "comparison_result": _("Comparison of the groups: results"),
    "comparison_cost": _("Comparison of the groups: cost"),
    "comparison_parameters": _("Comparison of the groups: parameters"),
    "runs_result": _("Every run: results"),
    "runs_cost": _("Every run: cost"),
    "differences": _("Configuration differences"),
    "provenance": _("Provenance"),
    "runs": _("Every run"),
    "parameters": _("Parameters"),
    "efficiency": _("What a loss costs"),
    "layers": _("Parameters by layer"),
    "verdicts": _("Hypotheses"),
    "power": _("Power"),
}
"""Title of each table, by its key."""


@dataclass(frozen=True)
class Cell:
    """A value with its spread."""

    value: float | int | str | None
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
    header: str
    """Its heading in a report."""
    section: str = ""
    """Where wide tables are cut for narrow outputs: columns of one section stay together."""
    is_plain: bool = False
    """True where it stands in CSV and JSON alone: readers have its value in another unit."""


def column(key: str, section: str = "", *, is_plain: bool = False) -> Column:
    """Return a column of QUANTITIES."""
    return Column(key, *QUANTITIES[key], section, is_plain)


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first column names the row."""

    key: str
    """One of TITLES."""
    columns: tuple[Column, ...]
    """The first one is the row's name."""
    rows: tuple[tuple[Cell, ...], ...]
    """As many cells as columns."""
    is_turned: bool = False
    """True where text outputs show quantities as rows (many quantities, few groups)."""
    remarks: tuple[Sentence, ...] = ()
    """Lines below the table."""

    @property
    def title(self) -> Sentence:
        """Its heading."""
        return TITLES[self.key]

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
    if isinstance(value, str):
        return translated(value, language) or DASH
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
    assert kind == GB, kind
    return f"{value:.2f}"


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
    """Return keys and values for machines: one row a record, a column ``<key>_sd`` where a spread is known,
    sentences in English.
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
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if cell.prefix:
        return f"{cell.prefix}{value}"
    return value
