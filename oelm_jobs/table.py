"""Format rows as a table of characters.

``text`` has no dependencies and is fast, because ``oelm-status`` prints it; the other forms use tabulate, imported when
needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from . import visible
from .fitting import is_wide, width, wrap

GAP = "  "
"""Between two columns of a text table."""

NARROWEST = (12, 8, 1)
"""To so many columns headers are folded, in this order, until a table fits."""
NARROWEST_WIDE = 8
"""Columns of a header that breaks anywhere: it isn't read from top to bottom."""


def text(
    rows: Iterable[Sequence[str]],
    headers: Sequence[str],
    align: str = "",
    *,
    within: int | None = None,
    in_pieces: bool = False,
) -> str:
    """Return an aligned table for a terminal, its headers and a rule first, without trailing spaces or newline.

    ``align`` has one letter a column, ``l`` or ``r``; missing letters mean left. Short rows are filled with empty
    cells; control characters in cells (newlines, escape sequences) are shown as escapes, so that a cell can't break
    the table.

    Args:
        within: Where it would take more columns of a terminal, headers are folded to what stands below them.
        in_pieces: What has no room all the same follows below, each piece with the first column.
    """
    count = len(headers)
    body = [[visible.line(str(cell)) for cell in row][:count] for row in rows]
    for row in body:
        row.extend([""] * (count - len(row)))
    heads = [[visible.line(str(header)) for header in headers]]
    if within is not None:
        below = [max(map(width, column)) for column in zip([""] * count, *body, strict=True)]
        heads = _folded(heads[0], below, within - len(GAP) * (count - 1))
    columns = []
    for letter, *cells in zip(align.ljust(count, "l"), *heads, *body, strict=True):
        taken = [width(cell) for cell in cells]
        most = max(taken)
        padded = []
        for cell, own in zip(cells, taken, strict=True):
            blank = " " * (most - own)
            padded.append(blank + cell if letter == "r" else cell + blank)
        padded.insert(len(heads), "-" * most)
        columns.append(padded)
    pieces = _pieces(columns, within) if in_pieces and within is not None else [columns]
    return "\n\n".join("\n".join(GAP.join(cells).rstrip() for cells in zip(*piece, strict=True)) for piece in pieces)


def _pieces(columns: Sequence[list[str]], within: int) -> list[list[list[str]]]:
    """Return the columns in pieces that fit, the first column in each; one that never fits has its own."""
    pieces: list[list[list[str]]] = []
    room = 0
    for column in columns[1:]:
        needed = len(GAP) + width(column[0])
        if not pieces or needed > room:
            pieces.append([columns[0]])
            room = within - width(columns[0][0])
        pieces[-1].append(column)
        room -= needed
    return pieces or [list(columns)]


def _folded(headers: Sequence[str], below: Sequence[int], within: int) -> list[list[str]]:
    """Return header lines, the last one above the rule: broken at as few places as make columns of these widths fit."""
    folded = [[header] for header in headers]
    for narrowest in NARROWEST:
        if sum(max(cells, *map(width, lines)) for cells, lines in zip(below, folded, strict=True)) <= within:
            break
        folded = [
            _balanced(header, max(cells, narrowest, NARROWEST_WIDE)) if is_wide(header)
            else wrap(header, max(cells, narrowest))
            for header, cells in zip(headers, below, strict=True)
        ]  # fmt: skip
    height = max(map(len, folded), default=0)
    return [list(line) for line in zip(*([""] * (height - len(lines)) + lines for lines in folded), strict=True)]


def _balanced(header: str, columns: int) -> list[str]:
    """Return a header that breaks anywhere in as few lines as make so many columns, alike in length."""
    lines = wrap(header, columns)
    narrower = [wrap(header, fewer) for fewer in range(columns // 2, columns)]
    return next((each for each in narrower if len(each) == len(lines)), lines)


def markdown(rows: Iterable[Sequence[str]], headers: Sequence[str], align: str = "") -> str:
    """Return a GitHub table; pipes, newlines and what would be HTML in cells are escaped."""
    from tabulate import tabulate

    def plain(cell: str) -> str:
        return visible.line(str(cell)).replace("|", "\\|").replace("<", "&lt;")

    escaped = [[plain(cell) for cell in row] for row in rows]
    heads = [plain(header) for header in headers]
    sides = ["right" if letter == "r" else "left" for letter in align.ljust(len(heads), "l")]
    return str(tabulate(escaped, heads, tablefmt="github", disable_numparse=True, colalign=sides))


def latex(rows: Iterable[Sequence[str]], headers: Sequence[str], align: str = "") -> str:
    """Return a booktabs table (``\\usepackage{booktabs}``) with special characters escaped."""
    lines = [f"\\begin{{tabular}}{{{align.ljust(len(headers), 'l')}}}", "\\toprule"]
    lines.append(" & ".join(tex(str(header)) for header in headers) + " \\\\")
    lines.append("\\midrule")
    lines.extend(" & ".join(tex(str(cell)) for cell in row) + " \\\\" for row in rows)
    lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines)


def csv(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Return comma-separated values with Unix line ends; None becomes an empty field."""
    import csv as _csv

    out = io.StringIO()
    _csv.writer(out, lineterminator="\n").writerows([headers, *rows])
    return out.getvalue()


def tex(cell: str) -> str:
    """Return text with LaTeX's special characters escaped and the signs used in reports as commands."""
    return "".join(_TEX.get(character, character) for character in visible.line(cell))


_TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "—": "---", "±": "$\\pm$", "×": "$\\times$",
    "≥": "$\\geq$", "≤": "$\\leq$", "−": "$-$", "<": "$<$", ">": "$>$", "²": "$^2$", "·": "$\\cdot$",
}  # fmt: skip
