"""The states of a run (docs/architecture.md, "States") and the choice of its checkpoints, for all sides."""

from __future__ import annotations

import enum


class State(str, enum.Enum):
    """Where a run stands; the order is that in which a run goes through its states.

    A member is the text of its name wherever text is written: in JSON, in a database, in words.
    """

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

    def __str__(self) -> str:
        return self.value


FINAL = (State.DONE, State.FAILED, State.CANCELLED)
"""States of a run that is over."""
TOLD = tuple(state for state in State if state is not State.PLANNED)
"""States that an agent tells and a run's records hold."""


class Checkpoints(str, enum.Enum):
    """Which of a run's checkpoints are fetched."""

    NONE = "none"
    BEST = "best"
    """The one with the lowest validation loss."""
    LATEST = "latest"
    """The one of the highest step."""
    ALL = "all"

    def __str__(self) -> str:
        return self.value
