"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, WARNING, BAD = "good", "warning", "bad"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    """Its name."""
    verdict: str
    """GOOD, WARNING (works, but) or BAD (a run would fail)."""
    found: str
    """What was found."""
    mend: str = ""
    """What to do about it."""

    @property
    def is_bad(self) -> bool:
        """True where a run would fail."""
        return self.verdict == BAD
