"""The states of a run (docs/architecture.md, "States") and the choice of its checkpoints, for all sides."""

from __future__ import annotations

import enum


class Word(str, enum.Enum):
    """An enumeration whose members are their text wherever text is written: in JSON, in a database, in words."""

    def __str__(self) -> str:
        return str(self.value)


class State(Word):
    """Where a run stands; the order is that in which a run goes through its states."""

    PLANNED = "PLANNED"
    """Known to the client's index alone: its submission has no answer yet."""
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    """The target contradicts itself, or knows nothing of the run."""

    @property
    def is_final(self) -> bool:
        """True where nothing more happens unless somebody submits again."""
        return self in FINAL


FINAL = (State.DONE, State.FAILED, State.CANCELLED)
"""States of a run that is over."""
TOLD = tuple(state for state in State if state is not State.PLANNED)
"""States that an agent tells and a run's records hold."""


class Checkpoints(Word):
    """Which of a run's checkpoints are fetched."""

    NONE = "none"
    BEST = "best"
    """The one with the lowest validation loss."""
    LATEST = "latest"
    """The one of the highest step."""
    ALL = "all"
