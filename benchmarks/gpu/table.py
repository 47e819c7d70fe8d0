"""The table of a check, as text and as the section of docs/benchmarks.md that is made from files of measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.gpu.place import ROOT, Row

PAGE = ROOT / "docs" / "benchmarks.md"
MEASURED = ROOT / "benchmarks" / "measured"
BEGIN, END = "<!-- made by `python -m benchmarks.gpu --docs` -->", "<!-- end of what is made -->"
MARKS = {True: "yes", False: "NO", None: ""}
TITLES = {"right": "Right", "fast": "Fast"}


def as_text(rows: Sequence[Row]) -> str:
    """Return rows in columns, for a terminal."""
    width = max((len(row.what) for row in rows), default=0)
    return "\n".join(f"{MARKS[row.ok]:<4}{row.what:<{width}}  {row.says}" for row in rows)


def section(records: Sequence[dict[str, Any]]) -> str:
    """Return the section of the page: a table for each machine."""
    if not records:
        return "No GPU was at hand so far: nothing of this was measured, and the script was only rehearsed on a CPU.\n"
    parts = []
    for record in sorted(records, key=lambda record: str(record["machine"]["gpu"])):
        machine = record["machine"]
        count = f"{machine['gpus']} x " if machine["gpus"] > 1 else ""
        parts.append(
            f"### {count}{machine['gpu']}\n\n{record['date']}, PyTorch {machine['torch']}, CUDA {machine['cuda']}, "
            f"revision {(machine['revision'] or 'unknown')[:12]}, {record['seconds']:.0f} s in all.\n"
        )
        for name, title in TITLES.items():
            lines = [f"| {title} | | as it should be |", "| --- | --- | --- |"]
            rows = [Row(**row) for row in record["rows"] if row["section"] == name]
            lines += [f"| {_cell(row.what)} | {_cell(row.says)} | {MARKS[row.ok]} |" for row in rows]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def write_page() -> None:
    """Write what was measured between the markers of docs/benchmarks.md."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(MEASURED.glob("*.json"))]
    PAGE.write_text(with_section(PAGE.read_text(encoding="utf-8"), section(records)), encoding="utf-8")


def with_section(page: str, made: str) -> str:
    """Return the page with this between its markers."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
