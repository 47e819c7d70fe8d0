"""What an audit reports: a statement, how severe it is, and what it is about."""

from __future__ import annotations

from dataclasses import dataclass

from .words import Text

VOID, UNFAIR, WARNING, DECLARED, NOTE = "void", "unfair", "warning", "declared", "note"
SEVERITIES = (VOID, UNFAIR, WARNING, DECLARED, NOTE)
"""In the order in which a report lists them; ``note`` is about how files were read."""


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """One thing that the audit found."""

    severity: str
    """One of SEVERITIES."""
    text: Text
    """The sentence."""
    groups: tuple[str, ...] = ()
    """Groups that it is about; empty means all."""
    key: str = ""
    """The configuration key, where it is about one."""
    metrics: tuple[str, ...] = ()
    """Metrics that it voids; empty means all (``unfair``) or none (other severities)."""
    is_between: bool = False
    """True where it lies between its groups and says nothing about one of them alone."""

    def concerns(self, *groups: str) -> bool:
        """Tell whether it bears on a comparison of these groups."""
        if self.is_between:
            return set(self.groups) <= set(groups)
        return not self.groups or bool(set(groups) & set(self.groups))


def warning(statement: Text, *groups: str, key: str = "") -> AuditFinding:
    """Return a warning; without groups it is about all."""
    return AuditFinding(severity=WARNING, text=statement, groups=groups, key=key)
