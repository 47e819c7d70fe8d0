"""Write a report's files, each one whole or not at all (temporary file, rename)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from oelm_jobs import visible
from oelm_jobs.agent import rundir
from oelm_jobs.agent.sentences import _
from oelm_jobs.errors import UsageError

from ..report import Report
from ..tables import Table, records
from . import page, plain_text, results


def write(
    report: Report,
    folder: Path,
    figures: Sequence[tuple[Path, bytes]] = (),
    *,
    summary: Path | None,
    made_at: float,
    language: str = "en",
    style: Path | None = None,
    refresh_s: int = 0,
) -> list[Path]:
    """Write the report's files into ``folder``, its figures and the summary; return what was written, in order.

    Raises:
        UsageError: The folder can't be written.
    """
    texts = {
        **verdict_texts(report, language, made_at),
        "report.md": show(report, "markdown", language, made_at),
        "tables.tex": show(report, "latex", language, made_at),
        "report.html": page.as_html(report, language, made_at, figures, style=style, refresh_s=refresh_s),
        **{f"{table.key}.csv": plain_text.as_csv(table) for table in report.all_tables},
        "verdicts.csv": results.verdicts_csv(report),
    }
    files = [(folder / name, _encoded(content)) for name, content in texts.items()]
    files += figures
    if summary is not None:
        files.append((summary, _encoded(results.dumps(results.summary(report, language, made_at)))))
    for path, content in files:
        put(path, content)
    return [path for path, _content in files]


def verdict_texts(report: Report, language: str, made_at: float) -> dict[str, str]:
    """Return the files that a bundle holds as well, and that its report repeats to the byte."""
    head = plain_text.head(report, language, made_at)
    validation = [head, plain_text.audit(report, language), plain_text.verdicts(report, language)]
    return {
        "comparison_table.txt": head + "\n\n" + plain_text.comparison(report, language) + "\n",
        "hypothesis_validation.txt": "\n\n".join(validation) + "\n",
        "analysis_results.json": show(report, "json", language, made_at),
    }


def verdict_files(report: Report, language: str, made_at: float) -> dict[str, bytes]:
    """Return the same as bytes."""
    return {name: _encoded(text) for name, text in verdict_texts(report, language, made_at).items()}


def _encoded(content: str) -> bytes:
    """Return a file's bytes; what it quotes of logs and records steers no terminal that it is shown on."""
    return visible.text(content).encode("utf-8")


def show(
    report: Report,
    form: str,
    language: str,
    made_at: float,
    figures: Sequence[tuple[Path, bytes]] = (),
    width: int | None = None,
    style: Path | None = None,
) -> str:
    """Return the report in one form (``text`` for a terminal of so many columns, ``markdown``, ``json``, ``latex``,
    ``html`` with the figures and their style, ``csv``: the comparison alone), ending in a newline.
    """
    if form == "text":
        return plain_text.as_text(report, language, made_at, width)
    if form == "html":
        return page.as_html(report, language, made_at, figures, style=style)
    if form == "json":
        return results.dumps(results.results(report, language, made_at))
    if form == "csv":
        return plain_text.as_csv(report.tables[0])
    makers = {"markdown": plain_text.as_markdown, "latex": plain_text.as_latex}
    if form not in makers:
        raise ValueError(f"no report has the form {form!r}")
    return makers[form](report, language, made_at)


def show_table(table: Table, form: str, language: str, width: int | None = None) -> str:
    """Return one table in one form, ending in a newline; HTML is shown as text. ``width`` as for ``show``."""
    if form == "json":
        return results.dumps({"version": results.VERSION, table.key: records(table)})
    if form == "csv":
        return plain_text.as_csv(table)
    return plain_text.one(table, language, form, width) + "\n"


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UsageError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rundir.write_bytes(path, content, durable=False)
    except OSError as error:
        raise UsageError(
            _("{path} can't be written: {why}", str(path), error.strerror or str(error)),
            hint=_("choose another folder: --output DIR"),
        ) from error
