"""Format rows as a table of characters.

``text`` has no dependencies and is fast, because ``oelm-status`` prints it; the other forms use tabulate, imported when
needed.
"""

from __future__ import annotations

import io
import itertools
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
    up_to_each = itertools.accumulate(map(width, content))
    return content[: sum(taken < columns for taken in up_to_each)] + "…"


def cut_within(text: str, columns: int) -> str:
    """Return text cut to columns in its middle, with an ellipsis where something is left out."""
    if width(text) <= columns:
        return text
    end = text[len(text) - (columns - 1) // 2 :]
    return cut(text, columns - len(end)) + end


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
    return "\n".join(GAP.join(cells).rstrip() for cells in zip(*columns, strict=True))


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
