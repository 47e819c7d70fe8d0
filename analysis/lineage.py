"""Where the runs of a study come from: what its groups need of others, in words and as a drawing, and whether that is
still what they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from oelm_jobs.agent import records
from oelm_jobs.agent.run import inputs
from oelm_jobs.agent.sentences import Sentence, _
from oelm_jobs.spec.lineage import ALWAYS, Source
from oelm_jobs.spec.study import Study
from oelm_jobs.study import lineage

from .reading.loaded_run import LoadedRun

LETTER, LINE, PAD, ACROSS, DOWN = 7.4, 30, 12, 150, 18
"""Pixels of a letter, of a box's height, of its margins, and between boxes."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A group whose runs need those of another one."""

    source: str
    """``GROUP``, or ``STUDY/GROUP`` of another study; with ``-sSEED`` where all need the run of one seed."""
    group: str
    """The group, named likewise."""
    input: str
    """What it calls what it takes; empty where it only waits."""
    artifact: str
    """What that is of the other's: ``best``, ``latest`` or a path."""
    when: str
    """``success`` or ``always``."""


def edges(study: Study, others: Mapping[str, Study]) -> tuple[Edge, ...]:
    """Return what the groups of a study need, and what these need in turn, the earliest first.

    Args:
        others: Studies by name; one that isn't among them is an end.
    """
    found: list[Edge] = []
    todo, seen = [study], {study.name}
    while todo:
        one = todo.pop(0)

        def named(source: Source, of: str = one.name) -> str:
            text = str(source).rpartition("/")[2]
            return text if (source.study or of) == study.name else f"{source.study or of}/{text}"

        for group in one.groups.values():
            own = group.name if one is study else f"{one.name}/{group.name}"
            taken = lineage.inputs(one, group)
            for name, each in taken.items():
                found.append(
                    Edge(source=named(each.source), group=own, input=name, artifact=each.artifact, when="success")
                )
            for source in group.needs:
                if source not in [each.source for each in taken.values()]:
                    found.append(Edge(source=named(source), group=own, input="", artifact="", when=group.when))
            for source in (*group.needs, *(each.source for each in taken.values())):
                if source.study in others and source.study not in seen:
                    seen.add(source.study)
                    todo.append(others[source.study])
    depths = _depths(found)
    return tuple(sorted(found, key=lambda edge: depths[edge.source]))


def lines(several: Sequence[Edge]) -> list[Sentence]:
    """Return what needs what, in words."""
    return [_line(edge) for edge in several]


def _line(edge: Edge) -> Sentence:
    if edge.input:
        return _(
            "{group} begins with {source}:{artifact} ({input})", edge.group, edge.source, edge.artifact, edge.input
        )
    if edge.when == ALWAYS:
        return _("{group} begins once {source} is over", edge.group, edge.source)
    return _("{group} begins once {source} is done", edge.group, edge.source)


def _depths(several: Sequence[Edge]) -> dict[str, int]:
    """Return how many others stand before each group, at most."""
    before: dict[str, set[str]] = {}
    for edge in several:
        before.setdefault(edge.group, set()).add(edge.source)
        before.setdefault(edge.source, set())
    depths = dict.fromkeys(before, 0)
    for _round in before:  # a cycle was refused when the study was read; this ends in any case
        for name, sources in before.items():
            depths[name] = max([depths[name], *(depths[source] + 1 for source in sources)])
        if all(depths[name] > depths[source] for name, sources in before.items() for source in sources):
            break
    return depths


def drawing(several: Sequence[Edge]) -> str:
    """Return an SVG of what needs what, from left to right; its colours are the page's."""
    depths = _depths(several)
    columns: dict[int, list[str]] = {}
    for name, depth in depths.items():
        columns.setdefault(depth, []).append(name)
    places: dict[str, tuple[float, float, float]] = {}
    left = 2.0
    for depth in sorted(columns):
        width = max(len(name) for name in columns[depth]) * LETTER + 2 * PAD
        for row, name in enumerate(columns[depth]):
            places[name] = (left, 2.0 + row * (LINE + DOWN), width)
        left += width + ACROSS
    width, height = left - ACROSS + 2, max(top for _left, top, _width in places.values()) + LINE + 4
    parts = [_arrow(edge, places) for edge in several]
    parts += [_box(name, *place) for name, place in places.items()]
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" font-size="13">'
        '<defs><marker id="lineage-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="var(--soft)"/></marker></defs>' + "".join(parts) + "</svg>"
    )


def _box(name: str, left: float, top: float, width: float) -> str:
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{LINE}" rx="5" fill="var(--card)" '
        f'stroke="var(--line)"/><text x="{left + width / 2:.0f}" y="{top + LINE / 2 + 4.5:.0f}" text-anchor="middle" '
        f'fill="var(--ink)">{escape(name)}</text>'
    )


def _arrow(edge: Edge, places: Mapping[str, tuple[float, float, float]]) -> str:
    (x, y, width), (to_x, to_y, _width) = places[edge.source], places[edge.group]
    x, y, to_y = x + width, y + LINE / 2, to_y + LINE / 2
    bend, dashes = (to_x - x) / 2, "" if edge.input else ' stroke-dasharray="5 4"'
    label = edge.artifact if edge.input else ""
    return (
        f'<path d="M{x:.0f} {y:.0f}C{x + bend:.0f} {y:.0f} {to_x - bend:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}" '
        f'fill="none" stroke="var(--soft)"{dashes} marker-end="url(#lineage-arrow)"/>'
        f'<text x="{x + bend:.0f}" y="{(y + to_y) / 2 - 5:.0f}" text-anchor="middle" fill="var(--soft)" '
        f'font-size="11">{escape(label)}</text>'
    )


def changes(runs: Sequence[LoadedRun], home: Callable[[str, str], Path | None]) -> list[Sentence]:
    """Return what runs began with that is another file by now, by the manifests at home.

    Args:
        home: Returns where a run lies here, by study and name; None where it doesn't.
    """
    found = []
    for run in runs:
        for row in inputs.read(str(run.path)) if run.source == "rundir" else ():
            there = home(row["study"], row["run"])
            if there is None:
                continue
            what = f"{row['study']}/{row['run']}:{row['artifact']}"
            known, manifest = records.RUN.read_if_sound(there), records.MANIFEST.read_if_sound(there)
            if known is not None and known.fingerprint and row["fingerprint"] not in ("", known.fingerprint):
                said = _("{run} began with {what}, which is a run of another configuration by now", run.name, what)
                found.append(said)
                continue
            files = {each["name"]: each["sha256"] for each in (manifest["files"] if manifest is not None else ())}
            name = max((name for name in files if row["path"].endswith("/" + name)), key=len, default="")
            if name and files[name] != row["sha256"]:
                found.append(
                    _(
                        "{run} began with {what} ({before}), which is another file by now ({now})",
                        run.name, what, row["sha256"][:12], files[name][:12],
                    )
                )  # fmt: skip
    return found
