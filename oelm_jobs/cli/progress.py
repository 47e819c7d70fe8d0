"""Show a transfer's progress: a line rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

import click

from .. import visible
from ..agent.sentences import _
from ..language import translated
from .common import narrate
from .view import duration

REDRAW_S, TELL_S = 0.2, 15.0


class Meter:
    """Shows the files and bytes transferred, on stderr; a context manager that restores the terminal."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._is_terminal = sys.stderr.isatty()
        self._files = self._size = self._done = 0
        self._begun = self._shown = time.monotonic()
        self._has_line = False

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, files: int, size: int) -> None:
        """Begin a transfer of so many files and bytes."""
        self._files, self._size, self._done = files, size, 0
        self._begun = time.monotonic()
        self._shown = self._begun if not self._is_terminal else 0.0

    def advance(self, size: int) -> None:
        """Count bytes that have arrived."""
        self._done += size
        now = time.monotonic()
        if now - self._shown >= (REDRAW_S if self._is_terminal else TELL_S):
            self._shown = now
            self._show(now)

    def say(self, text: str) -> None:
        """Print a message on a line of its own."""
        self.end()
        narrate(text)

    def _show(self, now: float) -> None:
        rate = self._done / max(now - self._begun, 1e-3)
        text = _(
            "{verb} {files} files: {done:,.0f} of {size:,.0f} MB ({share} %), {rate:,.1f} MB/s",
            self._verb,
            self._files,
            self._done / 1e6,
            self._size / 1e6,
            100 * self._done // max(self._size, 1),
            rate / 1e6,
        )
        if rate and self._done < self._size:
            text = _("{words}, {duration} left", text, duration((self._size - self._done) / rate))
        if self._is_terminal:
            click.echo(f"\r\x1b[K{visible.text(translated(text))}", err=True, nl=False)
            self._has_line = True
        else:
            narrate(text)

    def end(self) -> None:
        """Restore the terminal."""
        if self._has_line:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._has_line = False
