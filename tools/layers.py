"""Draw the packages of the client and what they import, from the code: ``python tools/layers.py`` writes
docs/images/layers.svg.

A box lies one row above the lowest that it can lie on. An arrow is left out where others lead there as well.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from statistics import fmean

REPOSITORY = Path(__file__).resolve().parent.parent
PICTURE = REPOSITORY / "docs" / "images" / "layers.svg"
BESIDE = ("train", "analysis")
"""Folders of the checkout that lie in the package once it is installed."""
ROOT = "root modules"
"""What the modules are called together that lie in no package and import none."""
BOX_WIDTH, BOX_HEIGHT, LANE, GAP, ROW = 168, 66, 14, 18, 112
"""Pixels."""
SAYS_WIDTH, SAYS_LINES = 30, 3
"""Characters of a line, and lines, of what a box says."""
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1b1f24; text-anchor: middle }
  .name { font-weight: 600 }
  .says { font-size: 10.5px; fill: #57606a }
  rect { fill: #f6f8fa; stroke: #8c959f; rx: 6px }
  path { fill: none; stroke: #afb8c1; stroke-width: 1.2 }
  .ground { fill: #ffffff; stroke: none }
"""


@functools.cache
def modules() -> dict[str, Path]:
    """Return the file of each module of the toolkit, by its name once installed."""
    found = {}
    for folder, package in {"oelm_jobs": "oelm_jobs", **{each: f"oelm_jobs.{each}" for each in BESIDE}}.items():
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            parts = [package, *path.relative_to(REPOSITORY / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, *, for_types: bool = True) -> set[str]:
    """Return the modules of the toolkit that one imports, at its top or anywhere in it.

    Args:
        for_types: Also what is imported for type checkers alone.
    """
    path = modules()[name]
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not for_types:
        tree.body = [
            node for node in tree.body if not isinstance(node, ast.If) or "TYPE_CHECKING" not in ast.dump(node)
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1] if node.level else [])
            module = ".".join(part for part in (base, node.module or "") if part)
            several = {f"{module}.{alias.name}" for alias in node.names}
            found |= {each if each in modules() else module for each in several}
    return {each for each in found if each in modules() and each != name}


def part_of(name: str, package: str) -> str:
    """Return which part of a package a module belongs to; empty for the package itself and for what lies outside."""
    return name[len(package) + 1 :].split(".")[0] if name.startswith(package + ".") else ""


@functools.cache
def graph() -> dict[str, set[str]]:
    """Return what each part of the client imports: its packages, and the modules that lie in none."""
    found: dict[str, set[str]] = {}
    for name in modules():
        if own := part_of(name, "oelm_jobs"):
            others = {part_of(each, "oelm_jobs") for each in imported(name)}
            found[own] = found.get(own, set()) | others - {"", own}
    packages = {name.split(".")[1] for name in modules() if name.count(".") > 1}
    low = {part for part in found.keys() - packages if not found[part] & packages}
    merged = {part: (each - low) | ({ROOT} if each & low else set()) for part, each in found.items() if part not in low}
    return {**merged, ROOT: set()}


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Return each part's row, from the ground (0)."""

    @functools.cache
    def level(part: str) -> int:
        return 1 + max((level(each) for each in graph[part]), default=-1)

    return {part: level(part) for part in graph}


def without_detours(graph: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Return the graph without the arrows that only shorten a way over others."""

    @functools.cache
    def below(part: str) -> frozenset[str]:
        return frozenset(graph[part]).union(*(below(each) for each in graph[part]))

    return {part: {each for each in graph[part] if not any(each in below(other) for other in graph[part])}
            for part in graph}  # fmt: skip


def says(part: str) -> str:
    """Return what a part is for: the first sentence of its docstring, as many of its clauses as a box has room for."""
    if part == ROOT:
        return ", ".join(sorted({part_of(name, "oelm_jobs") for name in modules()} - graph().keys() - {""}))
    text = ast.get_docstring(ast.parse(modules()[f"oelm_jobs.{part}"].read_text(encoding="utf-8"))) or ""
    said = re.split(r"\.\s|[:;(]|, which| in the terms", text.replace("\n", " "))[0].strip(" .,")
    while len(textwrap.wrap(said, SAYS_WIDTH)) > SAYS_LINES and "," in said:
        said = said.rpartition(",")[0]
    return said


def ways(graph: Mapping[str, set[str]], level: Mapping[str, int]) -> list[list[str]]:
    """Return each arrow as the places that it passes: its ends, and a lane in every row between them."""
    return [
        [part, *(f"{part}>{other}@{row}" for row in range(level[part] - 1, level[other], -1)), other]
        for part, others in sorted(without_detours(graph).items())
        for other in sorted(others)
        if level[other] or level[part] == 1  # all stand on the ground: only the lowest show it
    ]


def ordered(rows: dict[int, list[str]], arrows: list[list[str]]) -> None:
    """Sort the places of each row by the middle of those above and below that they are joined with."""
    joined: dict[str, list[str]] = {}
    for way in arrows:
        for above, below in pairwise(way):
            joined.setdefault(above, []).append(below)
            joined.setdefault(below, []).append(above)
    for _ in range(24):
        position = {place: number - len(row) / 2 for row in rows.values() for number, place in enumerate(row)}
        for row in rows.values():
            row.sort(key=lambda place: (fmean([position[each] for each in joined.get(place, [place])]), place))


def picture() -> str:
    """Return the picture as SVG."""
    known = graph()
    level = levels(known)
    arrows = ways(known, level)
    rows: dict[int, list[str]] = {}
    for place, row in [*level.items(), *((lane, int(lane.split("@")[1])) for way in arrows for lane in way[1:-1])]:
        rows.setdefault(row, []).append(place)
    for row in rows.values():
        row.sort()
    ordered(rows, arrows)
    widths = {place: BOX_WIDTH if place in known else LANE for row in rows.values() for place in row}
    total = {row: sum(widths[place] + GAP for place in places) - GAP for row, places in rows.items()}
    width, top = max(total.values()) + 2 * GAP, max(rows)
    height = 2 * GAP + top * ROW + BOX_HEIGHT
    middle: dict[str, float] = {}
    for row, places in rows.items():
        left = (width - total[row]) / 2
        for place in places:
            middle[place] = left + widths[place] / 2
            left += widths[place] + GAP
    y = {place: GAP + (top - row) * ROW for row, places in rows.items() for place in places}
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
             "<title>The packages of the client, each above what it imports</title>", f"<style>{STYLE}</style>",
             f'<rect class="ground" width="{width}" height="{height}"/>']  # fmt: skip
    for way in arrows:
        path = f"M{middle[way[0]]:g} {y[way[0]] + BOX_HEIGHT}"
        for above, below in pairwise(way):
            begin, end, half = y[above] + BOX_HEIGHT, y[below], (y[above] + BOX_HEIGHT + y[below]) // 2
            path += f" C{middle[above]:g} {half} {middle[below]:g} {half} {middle[below]:g} {end}"
            path += f" V{end + BOX_HEIGHT}" if below not in known else ""
            assert begin < end
        lines.append(f'<path d="{path}"/>')
    for part in sorted(known):
        x = middle[part]
        lines.append(f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y[part]}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"/>')
        lines.append(f'<text class="name" x="{x:g}" y="{y[part] + 18}">{escape(part)}</text>')
        for number, line in enumerate(textwrap.wrap(says(part), SAYS_WIDTH)[:SAYS_LINES]):
            lines.append(f'<text class="says" x="{x:g}" y="{y[part] + 33 + 12 * number}">{escape(line)}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE.relative_to(REPOSITORY))
