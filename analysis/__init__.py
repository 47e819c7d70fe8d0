"""Analysis of runs: tables, verdicts and figures from run directories.

The names below are loaded on use: importing the package costs next to nothing, numpy, scipy and matplotlib come with
what needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .output.writing import show as show
    from .output.writing import write as write
    from .reading.loading import load_directories as load_directories
    from .reading.loading import load_study_runs as load_study_runs
    from .report import Report as Report
    from .report import build as build

_HOME = {
    "show": "output.writing",
    "load_directories": "reading.loading",
    "load_study_runs": "reading.loading",
    "build": "report",
    "Report": "report",
    "write": "output.writing",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
