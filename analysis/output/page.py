"""A report as one self-contained HTML page (no network, no files beside it).

Text from runs and studies is escaped by the template engine; only our own CSS, JavaScript and SVG are put in as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oelm_jobs.agent.sentences import _
from oelm_jobs.language import translated

from .. import findings, tables, wording
from ..figures.drawing import TITLES
from ..judging.verdicts import MET, NOT_MET, REFUTED, SUPPORTED
from ..printed import say
from ..reading.loaded_run import LoadedRun
from ..report import Report
from ..tables import Cell, Column, Table, column, show
from . import headings

HERE = Path(__file__).parent
WIDEST = 12
"""Columns of a table that a desktop's window shows side by side."""
_TONES = {SUPPORTED: "good", MET: "good", REFUTED: "bad", NOT_MET: "bad"}
_KINDS = {"scientific": _("scientific"), "execution": _("execution")}
_PROVENANCE = (
    "run",
    "status",
    "revision",
    "snapshot",
    "train_code",
    "target",
    "hardware",
    "host",
    "versions",
    "precision",
    "data",
    "fingerprint",
)


def as_html(
    report: Report, language: str, made_at: float, figures: Sequence[tuple[Path, bytes]] = (), *, refresh_s: int = 0
) -> str:
    """Return the page; ``figures`` are files as ``figures.draw`` returns them, of which the SVG ones are embedded.

    ``refresh_s`` makes browsers load the page again after so many seconds.
    """
    import jinja2
    from markupsafe import Markup

    def words(text: str) -> str:
        return say(text, language)

    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(str(HERE)),
        keep_trailing_newline=True,
    )
    drawn = [
        {"name": path.stem, "title": words(TITLES[path.stem]), "svg": Markup(_svg(content, path.stem))}
        for path, content in figures
        if path.suffix == ".svg"
    ]
    levels = wording.level_remark(report)
    sections = [
        ("audit", words(headings.AUDIT)),
        ("verdicts", words(headings.VERDICTS)),
        ("tables", words(_("Tables"))),
    ]
    sections += [("figures", words(_("Figures")))] if drawn else []
    sections += [(name, words(tables.TITLES[name])) for name in ("differences", "provenance")]
    return environment.get_template("page.html").render(
        language="zh-Hans" if language == "zh" else language,
        title=words(headings.title(report)),
        question=words(headings.question(report)),
        locked=words(headings.locked(report)),
        made=words(headings.made(made_at)),
        interim=words(headings.INTERIM) if report.is_interim else "",
        refresh_s=refresh_s,
        sections=sections,
        say=words,
        headings=headings,
        marks=findings.MARKS,
        report=report,
        titles=dict(sections),
        verdicts=_verdicts(report, language),
        levels=say(levels, language) if levels is not None else "",
        tables=[_table(table, language) for table in tables.cut([t.for_readers for t in report.tables], WIDEST)],
        figures=drawn,
        differences=_table(differences(report), language),
        provenance=_table(provenance(report.runs), language),
        diffs=[
            {"summary": words(_("Code of {run}: changes against its revision", tuple(names))), "diff": diff}
            for diff, names in _diffs(report.runs).items()
        ],
        css=Markup((HERE / "page.css").read_text("utf-8")),
        js=Markup((HERE / "page.js").read_text("utf-8")),
    )


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


def differences(report: Report) -> Table:
    """Return the configuration keys that aren't the same for all runs, factors first; nothing that is the same."""
    groups = list(report.study.groups)
    columns = (
        column("key"),
        column("kind"),
        *(Column(g, tables.TEXT, g) for g in groups),
        column("declared"),
    )
    rows = []
    for factor in report.study.factors:
        values = [report.study.groups[name].factors.get(factor) for name in groups]
        rows.append(
            (
                Cell(factor),
                Cell(_("factor")),
                *(Cell(None if v is None else str(v)) for v in values),
                Cell(None),
            )
        )
    for d in report.differences:
        if d.key == "out_dir":
            continue
        by_group: dict[str, list[str]] = {name: [] for name in groups}
        owner = {run.name: run.group for run in report.runs}
        for name, value in d.values.items():
            by_group.setdefault(name if name in by_group else owner.get(name, name), []).append(str(value))
        cells = [Cell(" / ".join(dict.fromkeys(by_group[name])) or None) for name in groups]
        rows.append((Cell(d.key), Cell(_KINDS[d.kind]), *cells, Cell(d.reason or None)))
    return Table("differences", columns, tuple(rows))


def provenance(runs: Sequence[LoadedRun]) -> Table:
    """Return where each run came from: code, hardware, versions, data."""
    columns = tuple(map(column, _PROVENANCE))
    rows = []
    for run in runs:
        hashes = [str(run.data[key])[:12] for key in ("train_sha256", "val_sha256") if run.data.get(key)]
        known = [f"{key} {value}" for key, value in sorted(run.versions.items()) if key != "revision"]
        values = (
            run.name,
            run.told_status,
            _revision(run.provenance.get("revision", "")),
            run.provenance.get("snapshot", "")[:12],
            run.provenance.get("train_code", "")[:12],
            run.provenance.get("target"),
            " ".join(filter(None, (f"{run.world_size} ×" if run.world_size else "", run.hardware.get("name", "")))),
            run.hardware.get("host"),
            ", ".join(known),
            run.precision,
            " ".join(hashes),
            run.fingerprint[:12],
        )
        rows.append(tuple(Cell(value or None) for value in values))
    return Table("provenance", columns, tuple(rows))


def _table(table: Table, language: str) -> dict[str, Any]:
    right = [column.kind != tables.TEXT for column in table.columns]
    return {
        "key": table.key,
        "title": say(table.title, language),
        "heads": [
            {"text": say(column.header, language), "right": r} for column, r in zip(table.columns, right, strict=True)
        ],
        "rows": [
            [
                {"text": show(cell, column.kind, language), "value": _sortable(cell, language), "right": r}
                for cell, column, r in zip(row, table.columns, right, strict=True)
            ]
            for row in table.rows
        ],
        "remarks": [say(remark, language) for remark in table.remarks],
    }


def _sortable(cell: Cell, language: str) -> str:
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if value != value else "Infinity" if value == float("inf") else repr(value)
    return translated(str(value), language)


def _verdicts(report: Report, language: str) -> list[dict[str, Any]]:
    made = []
    for verdict in report.verdicts:
        seen, *others = wording.statement(verdict, report)
        lines = [_("rule: {rule}", wording.rule(verdict.hypothesis)), *others]
        made.append(
            {
                "id": verdict.hypothesis.id,
                "outcome": say(wording.OUTCOME_WORDS[verdict.outcome], language),
                "tone": _TONES.get(verdict.outcome, "open"),
                "claim": verdict.hypothesis.claim,
                "sentence": say(seen, language),
                "lines": [{"text": say(line, language), "alarm": line in verdict.alarms} for line in lines],
            }
        )
    return made


_ID = re.compile(r'(\bid="|xlink:href="#|href="#|url\(#)')


def _svg(content: bytes, name: str) -> str:
    """Return an SVG for embedding: without XML head, its ids made unique within the page."""
    source = content.decode("utf-8")
    source = source[source.index("<svg") :]
    return _ID.sub(lambda match: f"{match[1]}{name}-", source)
