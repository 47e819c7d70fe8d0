"""What the code of earlier submissions was, file by file, kept in the user's state folder under its hash."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..agent import rundir
from ..folders import state_folder

MANY = 8
"""So many files are named."""


def _path(code: str) -> Path:
    return state_folder() / "code" / f"{code}.json"


def remember(code: str, files: Mapping[str, str]) -> None:
    """Keep what code of a hash is: name to hash of each file. Where that can't be written nothing is kept."""
    path = _path(code)
    with contextlib.suppress(OSError):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            rundir.write_json(path, dict(files), durable=False)


@functools.lru_cache(maxsize=8)
def _kept(path: Path) -> Any:
    """Return what a file holds, which is read once: each run that is done asks for it."""
    return json.loads(path.read_text(encoding="utf-8"))


def changed(before: str, now: str) -> list[str] | None:
    """Return the names of files that differ between the code of two hashes, the first of many; None where one isn't
    known any more.
    """
    try:
        one, other = (_kept(_path(code)) for code in (before, now))
        names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
        return names if len(names) <= MANY else [*names[:MANY], "…"]
    except (OSError, ValueError, AttributeError, TypeError):
        return None
