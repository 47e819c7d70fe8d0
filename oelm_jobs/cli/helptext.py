"""Write help as wide as the terminal, also where that is narrow, and where its characters are wide."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any

import click

from ..agent.sentences import _
from ..fitting import width, wrap
from ..language import translated


class Formatter(click.HelpFormatter):
    """What click's own does for terminals of fifty columns and more, and characters of one column each."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.width = min(self.width, shutil.get_terminal_size().columns - 1)

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write how the command is called."""
        begin = translated(_("Usage: {command}", prog))
        then = width(begin) + 1
        if then > self.width // 2:
            then = 4
        self._write_lines(wrap(args, self.width, begin + " ", " " * then))

    def write_heading(self, heading: str) -> None:
        """Write what a list is headed with."""
        self._write_lines([" " * self.current_indent + translated(_("{heading}:", heading))])

    def write_text(self, text: str) -> None:
        """Write one paragraph."""
        indent = " " * self.current_indent
        self._write_lines(wrap(text, self.width, indent, indent))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write terms and what they mean, which has half of the width at least."""
        rows = list(rows)
        most = min(col_max, max(self.width // 3, 10))
        begin = self.current_indent + min(max(width(term) for term, _meaning in rows), most) + col_spacing
        for term, meaning in rows:
            first = " " * self.current_indent + term
            lines = wrap(meaning, self.width, " " * begin, " " * begin)
            if width(first) + col_spacing <= begin:
                lines[0] = first + " " * (begin - width(first)) + lines[0].lstrip()
            else:
                lines.insert(0, first)
            self._write_lines(line.rstrip() for line in lines)

    def _write_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line + "\n")
