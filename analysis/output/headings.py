"""Title, headings and remarks on the whole that every form of a report has."""

from __future__ import annotations

from collections.abc import Sequence

from oelm_jobs.agent.sentences import Sentence, _

from .. import wording
from ..judging.verdicts import Verdict
from ..printed import date
from ..report import Report

AUDIT = _("What limits this comparison")
CLEAN = _("The audit found nothing that limits the comparison.")
DEVIATIONS = _("Deviations from the locked plan")
FILTER = _("Show rows with …")
INTERIM = _("INTERIM: not every planned run has finished; nothing here is final.")
NO_DIFFERENCES = _("All runs have the same configuration.")
NO_HYPOTHESES = _("The study declares no hypotheses.")
LINEAGE = _("Where runs come from")
NOTES = _("How the files were read")
VERDICTS = _("Verdicts")
ZOOM = _("Every run's curve: drag to zoom in, double-click to see all")


def title(report: Report) -> Sentence:
    """Return the report's title."""
    return _("Report of study {study}", report.study.name)


def question(report: Report) -> str:
    """Return what was asked; empty where nothing was."""
    return _("Question: {question}", report.study.question) if report.study.question else ""


def locked(report: Report) -> str:
    """Return when the rules were locked; empty where they weren't."""
    if report.locked_at is None:
        return ""
    said = _("The rules were locked on {date}.", date(report.locked_at))
    for line in report.locked.lines if report.locked is not None else ():
        said = _("{a} {b}", said, line)
    return said


def made(made_at: float) -> Sentence:
    """Return when the report was made."""
    return _("Made {date}", date(made_at))


def rule(verdict: Verdict) -> Sentence:
    """Return the rule that a verdict goes by."""
    return _("rule: {rule}", wording.rule(verdict.hypothesis))


def rows(count: int) -> Sentence:
    """Return what stands for a folded table."""
    return _("{count} rows", f"{count:,}")


def changes(names: Sequence[str]) -> Sentence:
    """Return the heading of the changes that the code of these runs had."""
    return _("Code of {run}: changes against its revision", names)
