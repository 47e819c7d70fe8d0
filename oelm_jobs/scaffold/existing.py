"""Find what a folder holds already that commands read: scripts that start training, and logs and tables of old runs."""

from __future__ import annotations

import os
import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..importing.proposal import SUFFIXES

DEEPEST, MOST = 3, 5_000
"""How many folders below each other, and how many files, are looked at."""
MOST_BYTES = 100_000
"""Of a script; longer ones start no training by hand."""
_PASSED_OVER = re.compile(
    r"\..*|__pycache__|node_modules|s?(bin|lib)|lib64|v?env|venv.*|site-packages|jobs|experiments"
)
"""Folders that hold nothing of the kind, or what the toolkit makes."""
_STARTS = re.compile(rb"^[^#\n]*\b(python[0-9.]*|torchrun|accelerate|deepspeed|sbatch|srun)\b", re.MULTILINE)
_LOG = re.compile(r".*\.(log|out)|events\.out\.tfevents.*|trainer_state\.json|metrics\.(csv|jsonl)")


@dataclass(frozen=True, kw_only=True)
class Existing:
    """Words for command lines that name what was found; empty where there is nothing."""

    scripts: str
    """For ``oelm import-script``: a folder, or the scripts of the project's own folder."""
    results: str
    """For ``oelm report --from``."""


def look(folder: Path) -> Existing:
    """Look at the names of a folder's files, and into scripts."""
    scripts, logs = list[str](), list[str]()
    for path in _files(folder):
        if path.endswith(SUFFIXES) and _starts_training(folder / path):
            scripts.append(path)
        elif _LOG.fullmatch(posixpath.basename(path)):
            logs.append(path)
    return Existing(scripts=_words(scripts), results=_words(logs))


def _files(folder: Path) -> Iterator[str]:
    """Yield files by their paths in a folder, those nearest to it first."""
    waiting, seen = [""], 0
    for place in waiting:
        try:
            inner = sorted(os.scandir(folder / place), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in inner:
            path = posixpath.join(place, entry.name)
            if entry.is_dir(follow_symlinks=False):
                if path.count("/") < DEEPEST and not _PASSED_OVER.fullmatch(entry.name):
                    waiting.append(path)
                continue
            seen += 1
            if seen > MOST:
                return
            yield path


def _starts_training(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size <= MOST_BYTES and _STARTS.search(path.read_bytes()) is not None
    except OSError:
        return False


def _words(paths: list[str]) -> str:
    """Return the folder just below the project in which most of some files lie; where that is the project itself, the
    patterns of their names.
    """
    tops = [path.partition("/")[0] + "/" if "/" in path else "" for path in paths]
    most = max(tops, key=tops.count, default="")
    if most:
        return shlex.quote(most)
    return " ".join(dict.fromkeys(f"*{posixpath.splitext(path)[1]}" for path in paths if "/" not in path))
