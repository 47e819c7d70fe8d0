"""oelm-jobs: run a few groups of training experiments on GPUs that are somewhere else, and get an answer that holds.

The names below are the Python API (docs/api.md); each is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agent.states import Checkpoints as Checkpoints
    from .agent.states import State as State
    from .bundling import is_bundle as is_bundle
    from .bundling import reproduce as reproduce
    from .checks.finding import Finding as Finding
    from .frames import data_frame as data_frame
    from .outcome import Outcome as Outcome
    from .project import Project as Project
    from .reporting import StudyReport as StudyReport
    from .reporting import report_on as report_on
    from .runs.control import Cancelled as Cancelled
    from .runs.forget import Forgotten as Forgotten
    from .runs.observe import View as View
    from .runs.rebuild import Survey as Survey
    from .runs.selection import Selection as Selection
    from .spec.study import Run as Run
    from .spec.study import Study as Study
    from .spec.target import Target as Target
    from .stored_run import StoredRun as StoredRun
    from .study.plan import Mode as Mode
    from .study.plan import Plan as Plan
    from .submit.decide import Again as Again
    from .submit.preview import PlannedRun as PlannedRun
    from .submit.submission import Submitted as Submitted
    from .transfer.clean import Cleaned as Cleaned
    from .transfer.fetch import Fetched as Fetched

__version__ = "0.1.0"
_HOME = {
    "Again": "submit.decide",
    "Cancelled": "runs.control",
    "Checkpoints": "agent.states",
    "Cleaned": "transfer.clean",
    "Fetched": "transfer.fetch",
    "Finding": "checks.finding",
    "Forgotten": "runs.forget",
    "Mode": "study.plan",
    "Outcome": "outcome",
    "Plan": "study.plan",
    "PlannedRun": "submit.preview",
    "Project": "project",
    "Run": "spec.study",
    "Selection": "runs.selection",
    "State": "agent.states",
    "StoredRun": "stored_run",
    "Study": "spec.study",
    "StudyReport": "reporting",
    "Submitted": "submit.submission",
    "Survey": "runs.rebuild",
    "Target": "spec.target",
    "View": "runs.observe",
    "data_frame": "frames",
    "is_bundle": "bundling",
    "report_on": "reporting",
    "reproduce": "bundling",
}
"""Module of each exported name."""

__all__ = sorted(_HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
