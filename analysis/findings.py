"""Owns the form of what an audit finds; leaves finding it to ``treatment``, ``audit`` and ``logaudit``."""

from __future__ import annotations

from dataclasses import dataclass

from .words import Text

VOID, UNFAIR, WARNING, DECLARED, NOTE = "void", "unfair", "warning", "declared", "note"
SEVERITIES = (VOID, UNFAIR, WARNING, DECLARED, NOTE)
"""In the order in which a report lists them; ``note`` is about how files were read."""


@dataclass(frozen=True, kw_only=True)
class Finding:
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

    def concerns(self, *groups: str) -> bool:
        """Tell whether it is about one of these groups."""
        return not self.groups or bool(set(groups) & set(self.groups))
