"""Format rows as a table of characters.

``text`` has no dependencies and is fast, because ``oelm-status`` prints it; the other forms use tabulate, imported when
needed.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence

from . import visible

GAP = "  "
"""Between two columns of a text table."""

NARROWEST = (12, 8, 1)
"""To so many characters headers are folded, in this order, until a table fits."""

_ANY_WIDE = re.compile(r"[^\x20-\x7e]")


def width(cell: str) -> int:
    """Return how many terminal columns a string takes: two for wide and full-width characters, none for combining
    ones.
    """
    if not _ANY_WIDE.search(cell):
        return len(cell)
    columns = 0
    for character in cell:
        if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Cc", "Mn", "Me"):
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def cut(content: str, columns: int) -> str:
    """Cut text to a number of terminal columns, with an ellipsis for what is cut off."""
    if width(content) <= columns:
        return content
    while content and width(content) >= columns:
        content = content[:-1]
    return content + "…"


def text(rows: Iterable[Sequence[str]], headers: Sequence[str], align: str = "", *, within: int | None = None) -> str:
    """Return an aligned table for a terminal, its headers and a rule first, without trailing spaces or newline.

    ``align`` has one letter a column, ``l`` or ``r``; missing letters mean left. Short rows are filled with empty
    cells; control characters in cells (newlines, escape sequences) are shown as escapes, so that a cell can't break
    the table. Where it would take more than ``within`` columns, headers are folded to what stands below them.
    """
    count = len(headers)
    body = [[visible.line(str(cell)) for cell in row][:count] for row in rows]
    for row in body:
        row.extend([""] * (count - len(row)))
    heads = [[visible.line(str(header)) for header in headers]]
    widths = [[width(cell) for cell in row] for row in body]
    below = [max((row[i] for row in widths), default=0) for i in range(count)]
    if within is not None:
        heads = _folded(heads[0], below, within - len(GAP) * (count - 1))
    table = [*heads, *body]
    widths[:0] = [[width(cell) for cell in row] for row in heads]
    columns = [max(row[i] for row in widths) for i in range(count)]
    right = [i < len(align) and align[i] == "r" for i in range(count)]
    lines = []
    for row, taken in zip(table, widths, strict=True):
        cells = [
            " " * (columns[i] - taken[i]) + row[i] if right[i] else row[i] + " " * (columns[i] - taken[i])
            for i in range(count)
        ]
        lines.append(GAP.join(cells).rstrip())
    lines.insert(len(heads), GAP.join("-" * column for column in columns))
    return "\n".join(lines)


def _folded(headers: Sequence[str], below: Sequence[int], within: int) -> list[list[str]]:
    """Return header lines, the last one above the rule: broken at as few blanks as make columns of these widths fit."""
    import textwrap

    folded = [[header] for header in headers]
    for narrowest in NARROWEST:
        if sum(max(cells, *map(width, lines)) for cells, lines in zip(below, folded, strict=True)) <= within:
            break
        folded = [
            textwrap.wrap(header, max(cells, narrowest), break_long_words=False, break_on_hyphens=False) or [""]
            for header, cells in zip(headers, below, strict=True)
        ]
    height = max(map(len, folded), default=0)
    return [list(line) for line in zip(*([""] * (height - len(lines)) + lines for lines in folded), strict=True)]


def markdown(rows: Iterable[Sequence[str]], headers: Sequence[str], align: str = "") -> str:
    """Return a GitHub table; pipes, newlines and what would be HTML in cells are escaped."""
    from tabulate import tabulate

    def plain(cell: str) -> str:
        return visible.line(str(cell)).replace("|", "\\|").replace("<", "&lt;")

    escaped = [[plain(cell) for cell in row] for row in rows]
    heads = [plain(header) for header in headers]
    return str(tabulate(escaped, heads, tablefmt="github", disable_numparse=True, colalign=_colalign(align, heads)))


def latex(rows: Iterable[Sequence[str]], headers: Sequence[str], align: str = "") -> str:
    """Return a booktabs table (``\\usepackage{booktabs}``) with special characters escaped."""
    letters = "".join(align[i] if i < len(align) else "l" for i in range(len(headers)))
    lines = [f"\\begin{{tabular}}{{{letters}}}", "\\toprule"]
    lines.append(" & ".join(tex(str(header)) for header in headers) + " \\\\")
    lines.append("\\midrule")
    lines.extend(" & ".join(tex(str(cell)) for cell in row) + " \\\\" for row in rows)
    lines += ["\\bottomrule", "\\end{tabular}"]
    return "\n".join(lines)


def csv(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Return comma-separated values with Unix line ends; None becomes an empty field."""
    out = io.StringIO()
    import csv as _csv

    writer = _csv.writer(out, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    return out.getvalue()


def tex(cell: str) -> str:
    """Return text with LaTeX's special characters escaped and the signs used in reports as commands."""
    return "".join(_TEX.get(character, character) for character in visible.line(cell))


_TEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{", "}": "\\}",
    "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "—": "---", "±": "$\\pm$", "×": "$\\times$",
    "≥": "$\\geq$", "≤": "$\\leq$", "−": "$-$", "<": "$<$", ">": "$>$", "²": "$^2$", "·": "$\\cdot$",
}  # fmt: skip


def _colalign(align: str, headers: Sequence[str]) -> list[str]:
    return ["right" if i < len(align) and align[i] == "r" else "left" for i in range(len(headers))]
