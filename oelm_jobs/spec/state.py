"""The states of a run."""

from __future__ import annotations

import enum


class State(str, enum.Enum):
    """Where a run stands (docs/architecture.md, states)."""

    PLANNED = "PLANNED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_final(self) -> bool:
        """True where nothing more happens unless somebody submits again."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)

    def __str__(self) -> str:
        return self.value
