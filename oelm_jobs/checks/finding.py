"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

from ..agent.states import Word


class Grade(Word):
    """How good a finding is."""

    GOOD = "good"
    WARNING = "warning"
    """It works, but."""
    BAD = "bad"
    """A run would fail."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    """Its name."""
    verdict: Grade
    found: str
    """What was found."""
    mend: str = ""
    """What to do about it."""

    @property
    def is_bad(self) -> bool:
        """True where a run would fail."""
        return self.verdict is Grade.BAD


def good(what: str, found: str) -> Finding:
    """Return a finding of what is as it should be."""
    return Finding(what=what, verdict=Grade.GOOD, found=found)


def warning(what: str, found: str, mend: str = "") -> Finding:
    """Return a finding of what works, but."""
    return Finding(what=what, verdict=Grade.WARNING, found=found, mend=mend)


def bad(what: str, found: str, mend: str = "") -> Finding:
    """Return a finding of what would make a run fail."""
    return Finding(what=what, verdict=Grade.BAD, found=found, mend=mend)
