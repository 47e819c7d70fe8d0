"""A report as one self-contained HTML page (no network, no files beside it).

Text from runs and studies is escaped by the template engine; only our own CSS, JavaScript and SVG are put in as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from oelm_jobs.agent.sentences import _
from oelm_jobs.language import translated

from .. import findings, lineage, tables, wording
from ..figures import drawing
from ..judging.verdicts import MET, NOT_MET, OUTCOMES, REFUTED, SUPPORTED
from ..printed import say
from ..reading.loaded_run import LoadedRun
from ..report import Report
from ..tables import Cell, Column, Table, column, show
from . import headings, plots

HERE = Path(__file__).parent
ZOOMING = HERE / "uplot"
"""uPlot 1.6.32 (https://github.com/leeoniya/uPlot, MIT), which draws the curves that a reader zooms into."""
FOLDED = 24
"""A table of more rows is folded."""
FILTERED = 8
"""One of more rows can be filtered."""
WIDEST = 12
"""Columns of a table that a desktop's window shows side by side."""
_TONES = {SUPPORTED: "good", MET: "good", REFUTED: "bad", NOT_MET: "bad"}
_KINDS = {"scientific": _("scientific"), "execution": _("execution")}
PROVENANCE: dict[str, Callable[[LoadedRun], str | None]] = {
    "run": lambda run: run.name,
    "status": lambda run: run.told_status,
    "revision": lambda run: _revision(run.provenance.get("revision", "")),
    "snapshot": lambda run: run.provenance.get("snapshot", "")[:12],
    "train_code": lambda run: run.provenance.get("train_code", "")[:12],
    "target": lambda run: run.provenance.get("target"),
    "hardware": lambda run: _words(
        run.world_size and not run.is_script and f"{run.world_size} ×", run.hardware.get("name")
    ),
    "host": lambda run: run.hardware.get("host"),
    "versions": lambda run: ", ".join(f"{of} {said}" for of, said in sorted(run.versions.items()) if of != "revision"),
    "precision": lambda run: run.precision,
    "data": lambda run: _words(*(str(run.data.get(key) or "")[:12] for key in ("train_sha256", "val_sha256"))),
    "fingerprint": lambda run: run.fingerprint[:12],
}
"""What is told of each run's origin: code, hardware, versions, data."""


def as_html(
    report: Report,
    language: str,
    made_at: float,
    figures: Sequence[tuple[Path, bytes]] = (),
    *,
    style: Path | None = None,
    refresh_s: int = 0,
) -> str:
    """Return the page.

    Args:
        figures: Files as ``figures.draw`` returns them, of which the SVG ones are embedded.
        style: The one that they were drawn with.
        refresh_s: After so many seconds browsers load the page again; 0 for never.
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(str(HERE)),
        keep_trailing_newline=True,
    )
    drawn = [
        {"name": path.stem, "title": drawing.title(path.stem), "svg": Markup(_svg(content, path.stem))}
        for path, content in figures
        if path.suffix == ".svg"
    ]
    zoomed = plots.plots(report, lambda text: say(text, language), style) if drawn else {}
    titles = {"audit": headings.AUDIT, "verdicts": headings.VERDICTS, "tables": _("Tables")}
    titles |= {"lineage": headings.LINEAGE} if report.lineage else {}
    titles |= {"figures": _("Figures")} if drawn else {}
    titles |= {name: tables.TITLES[name] for name in ("differences", "provenance")}
    return environment.get_template("page.html").render(
        language="zh-Hans" if language == "zh" else language,
        made=headings.made(made_at),
        refresh_s=refresh_s,
        say=lambda text: say(text, language),
        show=lambda cell, column: show(cell, column.kind, language),
        sortable=lambda cell: _sortable(cell, language),
        headings=headings,
        wording=wording,
        marks=findings.MARKS,
        outcomes=OUTCOMES,
        tones=_TONES,
        report=report,
        titles=titles,
        tables=tables.cut(tables.for_readers(report.all_tables), WIDEST),
        lines=lineage.lines(report.lineage),
        lineage_drawing=Markup(lineage.drawing(report.lineage)) if report.lineage else "",
        figures=drawn,
        differences=differences(report),
        provenance=provenance(report.runs) if report.goals is None else provenance(report.runs).without_gaps(2),
        diffs=_diffs(report.runs),
        plots=zoomed,
        folded=FOLDED,
        filtered=FILTERED,
        css=Markup(_source(HERE / "page.css", *([ZOOMING / "uPlot.min.css"] if zoomed else []))),
        js=Markup(_source(*([ZOOMING / "uPlot.iife.min.js"] if zoomed else []), HERE / "page.js")),
    )


def _source(*paths: Path) -> str:
    return "\n".join(path.read_text("utf-8") for path in paths)


def _diffs(runs: Sequence[LoadedRun]) -> dict[str, list[str]]:
    """Return the names of runs by the changes that their code had against its revision, where it had some."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.provenance.get("diff"):
            found.setdefault(run.provenance["diff"], []).append(run.name)
    return found


def _revision(name: str) -> str:
    """Return a revision with twelve digits; that its code had been changed is never cut off."""
    commit, sign, state = name.partition("-")
    return commit[:12] + sign + state


def _words(*words: object) -> str:
    """Return those that are known, with blanks between them."""
    return " ".join(str(word) for word in words if word)


def differences(report: Report) -> Table:
    """Return the configuration keys that aren't the same for all runs, factors first; nothing that is the same."""
    groups = report.study.groups
    columns = (column("key"), column("kind"), *(Column(g, tables.TEXT, g) for g in groups), column("declared"))
    rows: list[tuple[str | None, ...]] = []
    for factor in report.study.factors:
        values = [group.factors.get(factor) for group in groups.values()]
        rows.append((factor, _("factor"), *(None if value is None else str(value) for value in values), None))
    owner = {run.name: run.group for run in report.runs}
    for d in report.differences:
        if d.key == "out_dir":
            continue
        by_group: dict[str, dict[str, None]] = {name: {} for name in groups}
        for name, value in d.values.items():
            by_group.setdefault(name if name in by_group else owner.get(name, name), {})[str(value)] = None
        rows.append((d.key, _KINDS[d.kind], *(" / ".join(by_group[name]) or None for name in groups), d.reason or None))
    return Table("differences", columns, tuple(tuple(map(Cell, row)) for row in rows))


def provenance(runs: Sequence[LoadedRun]) -> Table:
    """Return where each run came from."""
    rows = (tuple(Cell(told(run) or None) for told in PROVENANCE.values()) for run in runs)
    return Table("provenance", tuple(map(column, PROVENANCE)), tuple(rows))


def _sortable(cell: Cell, language: str) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if value != value else "Infinity" if value == float("inf") else repr(value)
    return translated(str(value), language)


_ID = re.compile(r'(\bid="|xlink:href="#|href="#|url\(#)')


def _svg(content: bytes, name: str) -> str:
    """Return an SVG for embedding: without XML head, its ids made unique within the page."""
    source = content.decode("utf-8")
    source = source[source.index("<svg") :]
    return _ID.sub(lambda match: f"{match[1]}{name}-", source)
