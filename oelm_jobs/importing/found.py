"""What scripts would start, what in them was not understood, and how their files are read."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..agent.sentences import _
from ..errors import DataError
from . import secrets
from .scope import END, MARK, as_written

MOST_COMMANDS = 10_000
"""Commands that all scripts together may start."""
MOST_BYTES = 1_000_000
"""Of a script; nobody writes longer ones."""
SHELLS = frozenset({"bash", "sh", "zsh", "dash", "ksh"})


@dataclass(frozen=True, kw_only=True)
class Place:
    """A line of a script."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Left:
    """A line that was not understood, or has no place in a study."""

    place: Place
    source: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Started:
    """A command that a script would start."""

    place: Place
    words: tuple[str, ...]
    """After expansion; what isn't known is marked."""
    script: str
    """The script that was given, which may have called that of ``place``."""
    folder: str = ""
    """Where it is started, as seen from the project."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is exported, or stands in front of it."""
    setup: tuple[str, ...] = ()
    """Lines before it that prepare the shell."""
    options: Mapping[str, str] | None = None
    """Of sbatch, by their long names; None where it isn't submitted."""
    host: str = ""
    """Where ssh starts it."""
    gpus: int | None = None
    """What a header of another scheduler than Slurm asks for."""


@dataclass
class Found:
    """What scripts would start, and what wasn't understood."""

    started: list[Started] = field(default_factory=list)
    left: dict[tuple[str, int, str], Left] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    """Scripts that others start."""

    def add(self, started: Started) -> None:
        if len(self.started) >= MOST_COMMANDS:
            raise DataError(
                _("{place}: the scripts start more than {n:,} commands", str(started.place), MOST_COMMANDS),
                hint=_("give fewer of them, or a loop with fewer rounds; a study of so many runs helps nobody"),
            )
        self.started.append(started)

    def leave(self, place: Place, source: str, why: str) -> None:
        source = secrets.hidden(" ".join(as_written(source).split()))
        self.left.setdefault((place.path, place.line, why), Left(place=place, source=source, why=why))


def read(path: Path) -> str:
    """Return a script's text.

    Raises:
        DataError: It can't be read, or is no shell script.
    """
    try:
        if not path.is_file():
            raise DataError(
                _("{path}: no such file", str(path)) if not path.exists() else _("{path}: is no file", str(path))
            )
        if path.stat().st_size > MOST_BYTES:
            raise DataError(_("{path}: is no script: it has more than {n:,} bytes", str(path), MOST_BYTES))
        content = path.read_bytes()
    except OSError as error:
        raise DataError(_("{path}: can't be read: {why}", str(path), error.strerror or str(error))) from None
    if not content.strip():
        raise DataError(_("{path}: is empty", str(path)))
    if b"\0" in content:
        raise DataError(_("{path}: is no shell script: it holds zero bytes", str(path)))
    text = content.decode("utf-8-sig", errors="replace")  # what matters in a script is ASCII
    if why := _why_no_shell(path, text):
        raise DataError(_("{path}: is no shell script: {why}", str(path), why))
    return text.replace(MARK, "?").replace(END, "?")


def _why_no_shell(path: Path, text: str) -> str:
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("#!"):
        words = first[2:].split()
        name = posixpath.basename(words[-1] if words[:1] == ["/usr/bin/env"] and len(words) > 1 else (words or [""])[0])
        name = name if not name.startswith("-") else posixpath.basename(words[0])
        return "" if name in SHELLS or not name else _("its first line names {program}", name)
    if path.suffix in (".py", ".ipynb", ".json", ".yaml", ".yml", ".toml", ".md", ".csv", ".r", ".jl"):
        return _("it ends in {suffix}", path.suffix)
    return ""
