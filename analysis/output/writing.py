"""Write a report's files, each one whole or not at all (temporary file, rename)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from oelm_jobs import visible
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.errors import UsageError

from .. import tables
from ..report import Report
from ..tables import Table
from . import page, plain_text, results


def write(
    report: Report,
    folder: Path,
    *,
    summary: Path | None,
    made_at: float,
    language: str = "en",
    plot: bool = False,
    style: Path | None = None,
    refresh_s: int = 0,
) -> tuple[list[Path], list[Sentence]]:
    """Write the report's files into ``folder`` and the summary beside; return what was written, in order, and remarks.

    Raises:
        UsageError: The folder can't be written.
    """
    files, remarks = draw(report, folder, language=language, style=style) if plot else ([], [])
    head = plain_text.head(report, language, made_at)
    texts = {
        "comparison_table.txt": head + "\n\n" + plain_text.comparison(report, language) + "\n",
        "hypothesis_validation.txt": "\n\n".join(
            [head, plain_text.audit(report, language), plain_text.verdicts(report, language)]
        )
        + "\n",
        "analysis_results.json": results.dumps(results.results(report, language, made_at)),
        "report.md": plain_text.as_markdown(report, language, made_at),
        "tables.tex": plain_text.as_latex(report, language, made_at),
        "report.html": page.as_html(report, language, made_at, files, refresh_s=refresh_s),
        **{f"{table.key}.csv": plain_text.as_csv(table) for table in report.tables},
        "verdicts.csv": results.verdicts_csv(report),
    }
    files = [(folder / name, _encoded(name, content)) for name, content in texts.items()] + files
    if summary is not None:
        files.append((summary, _encoded(summary.name, results.dumps(results.summary(report, language, made_at)))))
    for path, content in files:
        put(path, content)
    return [path for path, _ in files], remarks


def _encoded(name: str, content: str) -> bytes:
    """Return a file's bytes; what it quotes of logs and records steers no terminal that it is shown on."""
    return (visible.in_json(content) if name.endswith(".json") else visible.text(content)).encode("utf-8")


def draw(
    report: Report, folder: Path, *, language: str = "en", style: Path | None = None
) -> tuple[list[tuple[Path, bytes]], list[Sentence]]:
    """Return the figures' files without writing them, and remarks.

    Raises:
        UsageError: The style file isn't one.
    """
    from .. import figures

    return figures.draw(report, language, folder, style)


def show(report: Report, form: str, language: str, made_at: float, *, style: Path | None = None) -> str:
    """Return the report in one form (``text``, ``markdown``, ``json``, ``latex``, ``html`` with figures, ``csv``: the
    comparison alone), ending in a newline.
    """
    if form == "markdown":
        return plain_text.as_markdown(report, language, made_at)
    if form == "latex":
        return plain_text.as_latex(report, language, made_at)
    if form == "csv":
        return plain_text.as_csv(report.tables[0])
    if form == "json":
        return results.dumps(results.results(report, language, made_at))
    if form == "html":
        return page.as_html(report, language, made_at, draw(report, Path(), language=language, style=style)[0])
    if form == "text":
        return plain_text.as_text(report, language, made_at)
    raise ValueError(f"no report has the form {form!r}")


def show_table(table: Table, form: str, language: str) -> str:
    """Return one table in one form, ending in a newline; HTML is shown as text."""
    if form == "json":
        heads, rows = tables.raw(table)
        return results.dumps(
            {"version": results.VERSION, table.key: [dict(zip(heads, row, strict=True)) for row in rows]}
        )
    return plain_text.one(table, language, form) + "\n"


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UsageError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise UsageError(
            _("{path} can't be written: {why}", str(path), error.strerror or str(error)),
            hint=_("choose another folder: --output DIR"),
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
