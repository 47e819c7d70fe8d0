"""The interface of one command that runs on another machine: bytes in, bytes out, an exit code."""

from __future__ import annotations

import re
from typing import Protocol

MAX_SAID_BYTES = 16 << 10
"""How much of a command's stderr is kept: its end."""
_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


class Broken(Exception):
    """The connection was lost, or nothing came for too long, in the middle of a command."""


class Channel(Protocol):
    """One command that runs on the target."""

    def write(self, data: bytes, idle_s: float) -> None:
        """Send bytes to its stdin.

        Args:
            idle_s: How long nothing may move.

        Raises:
            Broken: They could not be handed over.
        """

    def close_input(self) -> None:
        """Close its stdin; harmless when called again.

        Raises:
            Broken: It could not be told.
        """

    def read(self, idle_s: float) -> bytes:
        """Return the next bytes of its stdout; empty at its end.

        Raises:
            Broken: Nothing came for ``idle_s`` seconds.
        """

    def end(self) -> tuple[int | None, str]:
        """Return its exit code (None where the connection went first, or a signal ended it) and the last line of its
        stderr.
        """

    def close(self) -> None:
        """Close it; harmless when called again."""


def last_line(said: bytes) -> str:
    """Return the last line that isn't blank, without escapes and control characters, cut to 400 characters."""
    text = _ESCAPE.sub(b"", said).decode("utf-8", "replace")
    lines = ["".join(c for c in line if c.isprintable()).strip() for line in text.splitlines()]
    return ([line for line in lines if line] or [""])[-1][:400]
