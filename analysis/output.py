"""Owns which files a report leaves and writing them whole (temporary file, rename); leaves their content to the renderers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from oelm_jobs.errors import UsageError

from . import render, results
from .report import Report
from .words import Text


def write(
    report: Report,
    folder: Path,
    *,
    summary: Path | None,
    made_at: float,
    language: str = "en",
    plot: bool = False,
    style: Path | None = None,
) -> tuple[list[Path], list[Text]]:
    """Write the report's files into ``folder`` and the summary beside; return what was written, in order, and remarks.

    Raises:
        UsageError: The folder can't be written.
    """
    files: list[tuple[Path, bytes]] = []
    remarks: list[Text] = []
    if plot:
        from . import figures

        files, remarks = figures.draw(report, language, folder, style)
    head = render.head(report, language, made_at)
    texts = {
        "comparison_table.txt": head + "\n\n" + render.comparison(report, language) + "\n",
        "hypothesis_validation.txt": "\n\n".join([head, render.audit(report, language), render.verdicts(report, language)]) + "\n",
        "analysis_results.json": results.dumps(results.results(report, language, made_at)),
        "report.md": render.as_markdown(report, language, made_at),
        "tables.tex": render.as_latex(report, language, made_at),
        **{f"{table.key}.csv": render.as_csv(table) for table in report.tables},
    }
    files = [(folder / name, content.encode("utf-8")) for name, content in texts.items()] + files
    if summary is not None:
        files.append((summary, results.dumps(results.summary(report, language, made_at)).encode("utf-8")))
    for path, content in files:
        put(path, content)
    return [path for path, _ in files], remarks


def show(report: Report, form: str, language: str, made_at: float) -> str:
    """Return the report in one form (``text``, ``markdown``, ``json``, ``latex``), ending in a newline."""
    if form == "markdown":
        return render.as_markdown(report, language, made_at)
    if form == "latex":
        return render.as_latex(report, language, made_at)
    if form == "json":
        return results.dumps(results.results(report, language, made_at))
    return render.as_text(report, language, made_at)


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
        raise UsageError(f"{path} can't be written: {error.strerror or error}", hint="choose another folder: --output DIR") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
