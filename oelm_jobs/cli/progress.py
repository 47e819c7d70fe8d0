"""Show the progress of transfers and of making data: a line rewritten on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import AbstractContextManager

import click

from .. import visible
from ..agent.reasons import detailed
from ..agent.sentences import _
from ..fitting import cut
from ..language import translated
from .common import narrate
from .view import duration

REDRAW_S, TELL_S = 0.2, 15.0


class Meter(AbstractContextManager["Meter"]):
    """Shows how many bytes are done, on stderr; a context manager that restores the terminal."""

    def __init__(self, verb: str = "") -> None:
        self._verb, self._is_terminal, self._has_line = verb, sys.stderr.isatty(), False
        self._start("", 0)

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, files: int, size: int) -> None:
        """Begin a transfer of so many files and bytes."""
        self._start(_("{verb} {files} files", self._verb, files), size)

    def _start(self, what: str, size: int) -> None:
        self._what, self._size, self._done = what, size, 0
        self._begun = time.monotonic()
        self._shown = self._begun if not self._is_terminal else 0.0

    def go_on(self, what: str, size: int, more: int) -> None:
        """Count more bytes of something that are done, of ``size`` in all."""
        if what != self._what:
            self._start(what, size)
        self.advance(more)

    def advance(self, size: int) -> None:
        """Count bytes that are done."""
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
        done, size, elapsed_s = self._done / 1e6, self._size / 1e6, now - self._begun
        share = 100 * self._done // max(self._size, 1)
        text = detailed(self._what, _("{done:,.0f} of {size:,.0f} MB ({share} %)", done, size, share))
        if done and elapsed_s >= REDRAW_S:  # the first bytes of a stage may come with its beginning
            text = _("{words}, {rate:,.1f} MB/s", text, done / elapsed_s)
            if done < size:
                text = _("{words}, {duration} left", text, duration((size - done) * elapsed_s / done))
        if self._is_terminal:
            line = cut(visible.text(translated(text)), shutil.get_terminal_size().columns - 1)
            click.echo(f"\r\x1b[K{line}", err=True, nl=False)  # one that takes two lines could not be rewritten
            self._has_line = True
        else:
            narrate(text)

    def end(self) -> None:
        """Restore the terminal."""
        if self._has_line:
            click.echo("\r\x1b[K", err=True, nl=False)
            self._has_line = False
