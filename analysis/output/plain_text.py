"""A report as text: for terminals, Markdown, LaTeX, CSV."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from oelm_jobs import table as plain
from oelm_jobs.agent.sentences import _, joined
from oelm_jobs.fitting import width as columns_of
from oelm_jobs.fitting import wrap

from .. import findings, lineage, tables, wording
from ..judging.verdicts import OUTCOMES
from ..printed import say
from ..report import Report
from ..tables import Table, grid, raw
from . import headings

WRAP = 100
"""Columns of running text at most."""

WIDEST = 12
"""Columns of a table in a terminal; wider ones are cut."""
WIDEST_TEX = 9
"""Columns of a LaTeX table."""

PRINTED = (
    "comparison", "budget", "choice", "sweep", "swept", "runs", "efficiency", "blocks", "effects", "variation",
    "compute",
)  # fmt: skip
"""Tables that a terminal shows; the files have all of them."""


def as_text(report: Report, language: str, made_at: float, width: int | None = None) -> str:
    """Return the whole report for a terminal: audit first where it found something, then verdicts, then tables.

    Args:
        width: The terminal's columns; None for a file, whose tables are as wide as they are.
    """
    parts = [head(report, language, made_at, width), audit(report, language, width), verdicts(report, language, width)]
    parts += [_table(table, language, width) for table in _readable(report) if table.key.startswith(PRINTED)]
    if report.lineage:
        items = _items(lineage.lines(report.lineage), language, width)
        parts.append("\n".join([_heading(headings.LINEAGE, language), *items]))
    if report.reading_notes:
        parts.append("\n".join([_heading(headings.NOTES, language), *_items(report.reading_notes, language, width)]))
    return "\n\n".join(parts) + "\n"


def head(report: Report, language: str, made_at: float, width: int | None = None) -> str:
    """Return title, question and date."""
    lines = [headings.title(report), headings.question(report), headings.locked(report), headings.made(made_at)]
    return "\n".join(_wrap(say(line, language), width, "", "  ") for line in lines if line)


def audit(report: Report, language: str, width: int | None = None) -> str:
    """Return what the audit found as a list, deviations from the lock included."""
    lines = [_wrap(say(headings.INTERIM, language), width)] if report.is_interim else []
    if report.limits:
        marked = (_("{what}: {details}", findings.MARKS[f.severity], f.text) for f in report.limits)
        lines += [_heading(headings.AUDIT, language), *_items(marked, language, width)]
    else:
        lines.append(_wrap(say(headings.CLEAN, language), width))
    if report.deviations:
        lines += ["", _heading(headings.DEVIATIONS, language), *_items(report.deviations, language, width)]
    return "\n".join(lines)


def verdicts(report: Report, language: str, width: int | None = None) -> str:
    """Return each hypothesis with verdict, sentence, rule, interval and reasons."""
    lines = [_heading(headings.VERDICTS, language)]
    for verdict in report.verdicts:
        h = verdict.hypothesis
        outcome = say(OUTCOMES[verdict.outcome], language).upper()
        title = say(_("{hypothesis}  {outcome}  ({rule})", h.id, outcome, wording.rule(h)), language)
        lines.append(_wrap(title, width, "", "  "))
        body = [*([h.claim] if h.claim else []), *wording.statement(verdict, report)]
        lines += [_wrap(say(line, language), width, "    ", "      ") for line in body]
    for remark in wording.remarks(report):
        lines += ["", _wrap(say(remark, language), width)]
    if not report.verdicts:
        lines.append(say(headings.NO_HYPOTHESES, language))
    return "\n".join(lines)


def comparison(report: Report, language: str) -> str:
    """Return all tables."""
    return "\n\n".join(_table(table, language) for table in _readable(report))


def _readable(report: Report) -> list[Table]:
    """Return the tables, those cut that would be too wide to read."""
    return _pieces(tables.for_readers(report.all_tables), WIDEST)


def _pieces(shown: Iterable[Table], widest: int) -> list[Table]:
    """Return the tables, those cut that are too wide; a turned one has few columns."""
    return [piece for table in shown for piece in ([table] if table.is_turned else tables.cut([table], widest))]


def as_markdown(report: Report, language: str, made_at: float) -> str:
    """Return the report as GitHub Markdown."""

    def section(title: str, *body: str) -> list[str]:
        return [f"## {say(title, language)}", "", *body, ""]

    def items(texts: Iterable[str]) -> list[str]:
        return [f"- {_escape(say(text, language))}" for text in texts]

    lines = [f"# {say(headings.title(report), language)}", ""]
    lines += [line + "  " for line in head(report, language, made_at).splitlines()[1:]] + [""]
    if report.is_interim:
        lines += [f"**{say(headings.INTERIM, language)}**", ""]
    marked = [
        f"- **{say(findings.MARKS[f.severity], language)}** {_escape(say(f.text, language))}" for f in report.limits
    ]
    lines += section(headings.AUDIT, *marked) if marked else [say(headings.CLEAN, language), ""]
    if report.deviations:
        lines += section(headings.DEVIATIONS, *items(report.deviations))
    table = wording.verdict_table(report)
    shown = plain.markdown(*grid(table, language)) if report.verdicts else say(headings.NO_HYPOTHESES, language)
    lines += section(headings.VERDICTS, shown)
    for verdict in report.verdicts:
        body = say(joined(wording.statement(verdict, report)), language)
        lines.append(f"- **{verdict.hypothesis.id}** {_escape(body)}")
    lines += ["", *(_escape(say(remark, language)) for remark in table.remarks)]
    lines += [""] if table.remarks else []
    for table in _readable(report):
        lines += section(table.title, plain.markdown(*grid(table, language)))
        lines += [*(say(remark, language) + "  " for remark in table.remarks), ""] if table.remarks else []
    if report.lineage:
        lines += section(headings.LINEAGE, *items(lineage.lines(report.lineage)))
    if report.reading_notes:
        lines += section(headings.NOTES, *items(report.reading_notes))
    return "\n".join(lines[:-1]) + "\n"


def as_latex(report: Report, language: str, made_at: float) -> str:
    """Return every table in booktabs form with captions, to be put into a paper (``\\usepackage{booktabs,graphicx}``).

    A table that is wider than the text is shrunk to it; wide ones are turned or cut before.
    """
    needs = _("needs \\usepackage{{booktabs,graphicx}}; letters other than Latin need XeLaTeX or LuaLaTeX and a font")
    comments = [headings.title(report), headings.made(made_at), needs, *(finding.text for finding in report.limits)]
    lines = [f"% {say(comment, language)}" for comment in comments]
    shown = tables.for_readers(report.all_tables)
    turned = [t if len(t.rows) > 4 or len(t.rows) >= len(t.columns) else replace(t, is_turned=True) for t in shown]
    for table in (wording.verdict_table(report), *_pieces(turned, WIDEST_TEX)):
        caption = " ".join([say(table.title, language) + ".", *(say(remark, language) for remark in table.remarks)])
        lines += [
            "",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(plain.tex(caption))}}}",
            f"\\label{{tab:{table.key}}}",
            "\\medskip",
            _tabular(table, language),
            "\\end{table}",
        ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table, language: str) -> str:
    """Return a table that is as wide as the text at most, with long headings on several lines."""
    rows, headers, align = grid(table, language)
    lines = plain.latex(rows, headers, align).split("\n")
    heads = [_heading_cell(header, side) for header, side in zip(headers, align, strict=True)]
    lines[2] = " & ".join(heads) + r" \\"  # behind \begin{tabular} and \toprule
    # After \\ LaTeX takes a bracket for extra space and an asterisk for the starred form.
    lines = ["{}" + line if line[:1] in ("[", "*") else line for line in lines]
    return (
        "\\sbox0{%\n" + _tex("\n".join(lines)) + "}%\n"
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi"
    )


def _heading_cell(header: str, side: str) -> str:
    words = [plain.tex(line) for line in wrap(header, 11)]
    return f"\\shortstack[{side}]{{" + r" \\ ".join(words) + "}" if len(words) > 1 else plain.tex(header)


def _tex(escaped: str) -> str:
    """Return escaped text with the sign that pdfLaTeX lacks."""
    return escaped.replace("∞", "$\\infty$")


def as_csv(table: Table) -> str:
    """Return a table for machines: keys as headers, plain numbers, missing values empty."""
    columns = raw(table)
    return plain.csv(zip(*columns.values(), strict=True), [*columns])


def one(table: Table, language: str, form: str, width: int | None = None) -> str:
    """Return a single table as text, Markdown or LaTeX, with its remarks; ``width`` as for ``as_text``."""
    remarks = [say(remark, language) for remark in table.remarks]
    if form == "markdown":
        return "\n".join([plain.markdown(*grid(table, language)), "", *remarks])
    if form == "latex":
        return "\n".join([*(f"% {remark}" for remark in remarks), _tabular(table, language)])
    return _table(table, language, width)


def _table(table: Table, language: str, width: int | None = None) -> str:
    remarks = [_wrap(say(remark, language), width) for remark in table.remarks]
    shown = plain.text(*grid(table, language), within=width or WRAP, in_pieces=width is not None)
    return "\n".join([_heading(table.title, language), shown, *remarks])


def _heading(title: str, language: str) -> str:
    shown = say(title, language)
    return f"{shown}\n{'=' * columns_of(shown)}"


def _items(texts: Iterable[str], language: str, width: int | None) -> list[str]:
    return [_wrap(say(text, language), width, "- ", "  ") for text in texts]


def _wrap(line: str, width: int | None, first: str = "", then: str = "") -> str:
    return "\n".join(wrap(line, min(width or WRAP, WRAP), first, then))


def _escape(line: str) -> str:
    return line.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
