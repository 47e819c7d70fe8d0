"""How often verdicts and bounds err at a nominal 5 %, for every kind of design that a report can state.

The designs are those of the test suite (tests/analysis/designs.py), drawn more often. ``--write`` puts what was
measured into the table of docs/statistics.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from scipy import stats  # noqa: E402

from tests.analysis import block_designs  # noqa: E402
from tests.analysis.designs import DESIGNS, UNSOUND, Design, Rates, rates  # noqa: E402

PAGE = REPOSITORY / "docs" / "statistics.md"
BEGIN, END = "<!-- benchmarks/error_rates.py --write -->", "<!-- until here -->"


def share(count: int, draws: int) -> str:
    """Return a share in per cent with its 95 % interval (Clopper and Pearson)."""
    bounds = stats.binomtest(count, draws).proportion_ci(0.95, method="exact")
    return f"{100 * count / draws:.1f} % ({100 * bounds.low:.1f} to {100 * bounds.high:.1f})"


def cells(design: Design, found: Rates) -> list[str]:
    """Return a design's line."""
    return [
        design.name,
        share(found.wrong, found.draws),
        "–" if found.missed is None else share(found.missed, found.draws),
        f"{100 * found.decided / found.draws:.0f} %",
    ]


def page(lines: list[list[str]], unsound: list[list[str]], draws: int) -> str:
    """Return the two tables in Markdown."""
    head = [
        "| design, its truth on a margin | false verdicts | bounds beyond the truth | decided |",
        "| --- | --- | --- | --- |",
    ]
    rows, others = ([f"| {' | '.join(line)} |" for line in table] for table in (lines, unsound))
    said = f"{draws:,} studies of each design; of each share its 95 % interval. A dash: no interval is told."
    why = "What no report states, since those who chose can't judge:"
    return "\n".join([BEGIN, "", said, "", *head, *rows, "", why, "", *head, *others, "", END])


def main() -> None:
    """Measure, print, and write where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draws", nargs="?", type=int, default=20_000, help="studies of each design")
    parser.add_argument("--only", default="", help="designs whose name holds this")
    parser.add_argument("--write", action="store_true", help="into docs/statistics.md")
    given = parser.parse_args()
    print(f"false verdicts at a nominal 5 %, {given.draws:,} studies each; bounds beyond the truth; decided")
    tables = []
    for designs in ((*DESIGNS, *block_designs.DESIGNS), UNSOUND):
        lines = []
        for design in (one for one in designs if given.only in one.name):
            lines.append(cells(design, rates(design, given.draws, seed=2)))
            print(f"{lines[-1][0]:<66}{lines[-1][1]:>22}{lines[-1][2]:>22}{lines[-1][3]:>8}", flush=True)
        tables.append(lines)
    if given.write and not given.only:
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        PAGE.write_text(before + page(*tables, given.draws) + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
