"""Tables of typed cells, so that every output shows the same values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.language import translated

from .printed import say, where

DASH = "–"
"""What a missing value looks like."""

TEXT, COUNT, LOSS, PPL, PERCENT, GAP, HOURS, RATE, GB, METRIC, DELTA = (
    "text", "count", "loss", "ppl", "percent", "gap", "hours", "rate", "gb", "metric", "delta",
)  # fmt: skip

_DIGITS = {
    COUNT: (-math.inf, math.inf, ",.0f"),
    LOSS: (-math.inf, math.inf, ".4f"),
    PPL: (0, 10_000, ".2f"),
    HOURS: (1, math.inf, ".2f"),
    RATE: (100, math.inf, ",.0f"),
    GB: (0, math.inf, ".2f"),
}
"""Of each kind, from which number to which it is shown how; others have three digits."""

QUANTITIES = {
    "group": (TEXT, _("Group")),
    "run": (TEXT, _("Run")),
    "block": (TEXT, _("Block")),
    "seed": (TEXT, _("Seed")),
    "status": (TEXT, _("Status")),
    "seeds": (TEXT, _("Seeds")),
    "step": (COUNT, _("Steps")),
    "final_val_loss": (LOSS, _("Final val. loss")),
    "final_val_ppl": (PPL, _("Final val. PPL")),
    "gap_to_baseline": (GAP, _("PPL gap to baseline")),
    "best_val_loss": (LOSS, _("Best val. loss")),
    "best_val_ppl": (PPL, _("Best val. PPL")),
    "best_step": (COUNT, _("Best at step")),
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
    "steps_to_target": (COUNT, _("Steps to target")),
    "tokens_to_target": (COUNT, _("Tokens to target")),
    "gpu_hours_to_target": (HOURS, _("GPU-hours to target")),
    "trainable_share": (PERCENT, _("Trainable, of baseline")),
    "layer": (TEXT, _("Layer")),
    "setting": (TEXT, _("Setting")),
    "value": (TEXT, _("Value")),
    "results": (COUNT, _("Results")),
    "combinations": (COUNT, _("Combinations")),
    "without_result": (COUNT, _("Runs without result")),
    "trials": (COUNT, _("Trials")),
    "tried": (COUNT, _("Over")),
    "failed": (COUNT, _("Failed")),
    "not_over": (COUNT, _("Missing or under way")),
    "extra": (COUNT, _("Further runs")),
    "confirming": (COUNT, _("Confirming runs")),
    "run_count": (COUNT, _("Runs")),
    "without_hours": (COUNT, _("Hours not known")),
    "hypothesis": (TEXT, _("Hypothesis")),
    "verdict": (TEXT, _("Verdict")),
    "estimate": (TEXT, _("Estimate")),
    "interval": (TEXT, _("Interval")),
    "rule": (TEXT, _("Rule")),
    "pairs": (COUNT, _("n")),
    "spread": (PERCENT, _("SD of a pair")),
    "spread_source": (TEXT, _("Spread from")),
    "assumed_gap": (TEXT, _("True value assumed")),
    "seeds_needed": (COUNT, _("Seeds for 80 % power")),
    "seeds_needed_cautious": (COUNT, _("With a larger spread")),
    "seeds_needed_holm": (COUNT, _("With Holm, at worst")),
    "ratio": (METRIC, _("Ratio")),
    "ratio_interval": (TEXT, _("Interval of the ratio")),
    "sd_log_ratio": (METRIC, _("SD of its logarithm")),
    "difference": (DELTA, _("Difference")),
    "difference_interval": (TEXT, _("Interval of the difference")),
    "sd_difference": (METRIC, _("SD of the difference")),
    "level": (PERCENT, _("Level")),
    "source": (TEXT, _("Source of variation")),
    "varied": (TEXT, _("Over these runs")),
    "shown_by": (TEXT, _("Shown by")),
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
OF_PROCESSES = {
    "gpus": _("Processes per run"),
    "tokens_per_s_per_gpu": _("Tokens/s per process"),
    "gpu_hours": _("Process-hours"),
    "gpu_hours_to_target": _("Process-hours to target"),
}
"""Headings of quantities where runs used no GPU: each of their processes stands for one."""
TITLES = {
    "comparison": _("Comparison of the groups"),
    "comparison_result": _("Comparison of the groups: results"),
    "comparison_cost": _("Comparison of the groups: cost"),
    "comparison_parameters": _("Comparison of the groups: parameters"),
    "runs_result": _("Every run: results"),
    "runs_cost": _("Every run: cost"),
    "sweep": _("Sweep: the best combination of each group"),
    "swept": _("Sweep: what each value gave"),
    "budget": _("Tuning: what each group was given"),
    "choice": _("Tuning: what was chosen, and what it gave on fresh seeds"),
    "differences": _("Configuration differences"),
    "provenance": _("Provenance"),
    "runs": _("Every run"),
    "parameters": _("Parameters"),
    "efficiency": _("What a loss costs"),
    "layers": _("Parameters by layer"),
    "blocks": _("Blocks: the data sets that the groups were run on"),
    "verdicts": _("Hypotheses"),
    "effects": _("Effect sizes"),
    "variation": _("What varied, and what did not"),
    "power": _("Power"),
    "compute": _("Compute: all that was run"),
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
KEPT = {"comparison": 4, "runs": 5}
"""How many of a table's first columns readers have whatever is known: which row it is, and how it stands."""


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
        """The table without the columns that only programs read, and those of which nothing is known."""
        return self.only([not column.is_plain for column in self.columns]).without_gaps(KEPT.get(self.key, 1))

    @property
    def of_processes(self) -> Table:
        """The table in the words for runs without GPUs."""
        return replace(self, columns=tuple(replace(c, header=OF_PROCESSES.get(c.key, c.header)) for c in self.columns))

    def without_gaps(self, kept: int) -> Table:
        """The table without columns, but the first ones, of which no row has a value."""
        has_value = [any(cell.value is not None for cell in cells) for cells in zip(*self.rows, strict=True)]
        return self.only([i < kept or is_known for i, is_known in enumerate(has_value)]) if self.rows else self

    def only(self, kept: Sequence[bool]) -> Table:
        """Return the table with some of its columns."""
        rows = tuple(tuple(compress(row, kept)) for row in self.rows)
        return replace(self, columns=tuple(compress(self.columns, kept)), rows=rows)


def show(cell: Cell, kind: str, language: str) -> str:
    """Return a cell as a reader sees it."""
    value = cell.value
    if isinstance(value, str):
        return where(translated(value, language)) or DASH
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    shown = _number(value, kind)
    if cell.sd is not None and math.isfinite(cell.sd) and cell.sd > 1e-9 * abs(value):
        decimals = len(shown.partition(".")[2].rstrip(" %")) if "e" not in shown else 0
        scale = 100 if kind in (PERCENT, GAP) else 1
        shown += f" ± {scale * cell.sd:,.{decimals}f}" if "e" not in shown else f" ± {cell.sd:.1e}"
    return cell.prefix + shown


def number(value: float, *, digits: int = 5, signed: bool = False) -> str:
    """Return a value of any metric with so many digits, with a real minus sign and thousands divided."""
    if not math.isfinite(value):
        return DASH if math.isnan(value) else "∞" if value > 0 else "−∞"
    value += 0.0  # no negative zero
    sign, size = "+" if signed and value else "", abs(value)
    if size and not 1e-4 <= size < 1e9:
        return f"{value:{sign}.{digits - 1}e}".replace("-", "−", 1)
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0) if size else 0
    return f"{value:{sign},.{decimals}f}".replace("-", "−")


def _number(value: float, kind: str) -> str:
    if kind in (PERCENT, GAP):
        shown = f"{100 * value:{'+' if kind == GAP else ''}.1f} %".replace("-", "−")
        return shown if shown.strip("+−") != "0.0 %" else "0.0 %"
    if kind in (METRIC, DELTA):
        return number(value) if kind == METRIC else number(value, digits=3, signed=True)
    least, most, digits = _DIGITS[kind]
    return format(value, digits if least <= value < most else ".3g")


def grid(table: Table, language: str) -> tuple[list[list[str]], list[str], str]:
    """Return rows, headers and alignment letters as shown, turned where the table says so."""
    heads = [say(column.header, language) for column in table.columns]
    rows = [
        [show(cell, column.kind, language) for cell, column in zip(row, table.columns, strict=True)]
        for row in table.rows
    ]
    align = "".join("l" if column.kind == TEXT else "r" for column in table.columns)
    if not table.is_turned:
        return rows, heads, align
    first, *others = ([*line] for line in zip(heads, *rows, strict=True))
    return others, first, "l" + "r" * len(rows)


def for_readers(made: Iterable[Table]) -> list[Table]:
    """Return the tables as readers have them; of which nothing is known is left out."""
    shown = [table.for_readers for table in made]
    return [table for table in shown if len(table.columns) > 1 or not table.rows]


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
            piece = table.only([i == 0 or column.section == name for i, column in enumerate(table.columns)])
            keys = {column.key for column in piece.columns}
            if not any(keys <= {column.key for column in other.columns} for other in made if other is not table):
                remarks = table.remarks if name == names[0] else ()
                found.append(replace(piece, key=f"{table.key}_{name}", remarks=remarks))
    return found


def raw(table: Table) -> dict[str, list[float | int | str | None]]:
    """Return the values for machines by the key of their column, in ``<key>_sd`` their spread where one is known;
    sentences in English.
    """
    found: dict[str, list[float | int | str | None]] = {}
    for i, column in enumerate(table.columns):
        found[column.key] = [_plain(row[i]) for row in table.rows]
        spreads = [row[i].sd for row in table.rows]
        if any(spread is not None for spread in spreads):
            found[f"{column.key}_sd"] = [*spreads]
    return found


def records(table: Table) -> list[dict[str, float | int | str | None]]:
    """Return a record of values for machines for each row."""
    found = raw(table)
    return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]


def _plain(cell: Cell) -> float | int | str | None:
    value = cell.value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return f"{cell.prefix}{value}" if cell.prefix else value
