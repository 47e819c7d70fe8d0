"""Write a new project's files; what exists stays as it is, but for lines that .gitignore lacks."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

IGNORED = ("/.oelm/", "/models/checkpoints/", "/experiments/analysis/", "/experiments/*/analysis/")
"""What a project makes that belongs into no repository. Summaries and locks beside the last two do."""
DATA = ("/data/demo/", "/data/tiny_stories/")
"""The same of the reference experiment's data."""


class Fate(enum.Enum):
    """What became of a file."""

    MADE = "made"
    ADDED = "added"
    KEPT = "kept"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file of a new project."""

    path: Path
    """Within the project."""
    fate: Fate
    lines: tuple[str, ...] = ()
    """Those that were added."""


def make(folder: Path, name: str, text: str) -> Written:
    """Write a file that isn't there."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return kept(name)
    return Written(path=Path(name), fate=Fate.MADE)


def kept(name: str) -> Written:
    """Return a file that stays as it is."""
    return Written(path=Path(name), fate=Fate.KEPT)


def added(name: str, lines: Sequence[str]) -> Written:
    """Return a file that has got more, or none."""
    return Written(path=Path(name), fate=Fate.ADDED, lines=tuple(lines)) if lines else kept(name)


def ignore(folder: Path, wanted: Sequence[str]) -> Written:
    """Add to .gitignore what it lacks."""
    path = folder / ".gitignore"
    before = path.read_bytes() if path.exists() else b""
    known = {line.strip() for line in before.decode("utf-8", "replace").splitlines()}
    lacking = [line for line in wanted if not known.intersection(_covering(line))]
    if not lacking:
        return kept(path.name)
    gap = b"" if before.endswith(b"\n") or not before else b"\n"
    with path.open("ab") as file:
        file.write(gap + "".join(f"{line}\n" for line in ["# what oelm-jobs makes", *lacking]).encode())
    return Written(path=Path(path.name), fate=Fate.ADDED if before else Fate.MADE, lines=tuple(lacking))


def _covering(line: str) -> Iterable[str]:
    """Yield the lines that ignore what one does: the folder or one above it, anchored or not."""
    parts = line.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        folder = "/".join(parts[:depth])
        yield from (f"{before}{folder}{after}" for before in ("/", "") for after in ("/", ""))
