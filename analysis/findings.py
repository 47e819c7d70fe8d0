"""What an audit reports: a statement, how severe it is, and what it is about."""

from __future__ import annotations

from dataclasses import dataclass

from oelm_jobs.agent.sentences import Sentence, _

VOID, UNFAIR, WARNING, DECLARED, NOTE = "void", "unfair", "warning", "declared", "note"
SEVERITIES = (VOID, UNFAIR, WARNING, DECLARED, NOTE)
"""In the order in which a report lists them; ``note`` is about how files were read."""
MARKS = {VOID: _("void"), UNFAIR: _("unfair"), WARNING: _("warning"), DECLARED: _("declared")}
"""How a report marks a finding of each severity."""


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """One thing that the audit found."""

    severity: str
    """One of SEVERITIES."""
    text: Sentence
    """The sentence."""
    groups: tuple[str, ...] = ()
    """Groups that it is about; empty means all."""
    key: str = ""
    """The configuration key, where it is about one."""
    metrics: tuple[str, ...] = ()
    """Metrics that it voids; empty means all (``unfair``) or none (other severities)."""
    is_doubt: bool = False
    """True where it is about single values; a verdict that rests on them repeats it in its own line."""
    is_between: bool = False
    """True where it lies between its groups and says nothing about one of them alone."""

    def concerns(self, *groups: str) -> bool:
        """Tell whether it bears on a comparison of these groups."""
        if self.is_between:
            return set(self.groups) <= set(groups)
        return not self.groups or bool(set(groups) & set(self.groups))


def warning(statement: Sentence, *groups: str, key: str = "", is_doubt: bool = False) -> AuditFinding:
    """Return a warning; without groups it is about all."""
    return AuditFinding(severity=WARNING, text=statement, groups=groups, key=key, is_doubt=is_doubt)
